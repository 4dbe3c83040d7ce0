"""The `[features]` table: which features are declared, checked against fields and key."""

from __future__ import annotations

import re
from typing import Any

from streams.pipeline import Feature, Field, FieldPath, Operation
from streams.toml_table import Table, shown

NAME_PATTERN = "[A-Za-z_][A-Za-z0-9_]{0,99}"
NAME_FORM = "a letter or _, then letters, digits or _, at most 100"
PERIODS = ("hour", "weekday", "month")

_WINDOWED: tuple[Operation, ...] = ("count", "sum", "mean")
_NOW: tuple[Operation, ...] = (*_WINDOWED, "elapsed", "cyclic")
_LATER = (
    "std",
    "min",
    "max",
    "rate",
    "distinct",
    "quantile",
    "last",
    "lag",
    "ewm",
    "ewm_mean",
    "ewm_std",
    "ratio",
    "difference",
    "log1p",
    "clip",
    "category",
    "hash",
    "one_hot",
    "raw",
)
_LATER_KEYS = {
    "exact": "exact windows",
    "buckets": "another number of buckets",
    "half_life": "exponential weighting",
    "k": "lag",
    "q": "quantiles",
    "where": "a condition on a feature",
    "ttl": "a lifetime of its own",
}


class FeatureReader:
    """Reads the features of one pipeline; `key` is the path of the key that partitions the events.

    It is None if not declared, and empty if declared wrongly: then nothing more is said about it.
    """

    def __init__(self, fields: tuple[Field, ...], key: FieldPath | None, mistakes: list[str]) -> None:
        self.fields = {field.name: field for field in fields}
        self.mistakes = mistakes
        self.key = key
        names = [field.name for field in fields if field.path == key] + ([".".join(key)] if key else [])
        self.key_names = list(dict.fromkeys(names))

    def read(self, values: dict[str, Any]) -> tuple[tuple[Feature, ...], bool]:
        """Give the declared features in the file's order, and whether raw fields are features too."""
        table = Table("features", values, self.mistakes)
        is_raw = table.boolean("raw", default=True)
        found = [self._feature(table, name, value) for name, value in values.items() if name != "raw"]
        features = tuple(feature for feature in found if feature is not None)
        self._check_columns(table, features, is_raw=is_raw)
        return features, is_raw

    def _feature(self, features: Table, name: str, values: object) -> Feature | None:
        if not isinstance(values, dict):
            form = 'a table such as { mean = "price", by = "shop", window = "1h" }'
            options = ("raw",) if isinstance(values, bool) else ()
            features.mistake(name, f"{shown(values)} is not right", form, name if options else "", options)
            return None
        table = Table("features", values, self.mistakes, prefix=f"{name}.")
        noted = len(self.mistakes)
        operation = self._operation(features, name, values)
        feature = self._declared(table, name, operation) if operation else None
        return feature if len(self.mistakes) == noted else None

    def _operation(self, features: Table, name: str, values: dict[str, Any]) -> Operation | None:
        if not re.fullmatch(NAME_PATTERN, name):
            features.mistake(name, "is no name for a feature", NAME_FORM)
        named = [key for key in values if key in _NOW or key in _LATER]
        later = [key for key in named if key in _LATER]
        if later:
            features.not_yet(name, f'"{later[0]}"', ", ".join(_NOW))
        elif len(named) > 1:
            features.mistake(name, f"names {len(named)} operations, {' and '.join(named)}", "one operation a feature")
        elif not named:
            nearest = next((key for key in values if key not in ("by", "window", *_LATER_KEYS)), "")
            features.mistake(name, "names no operation", ", ".join(_NOW), nearest, _NOW)
        else:
            return next(operation for operation in _NOW if operation == named[0])
        return None

    def _declared(self, table: Table, name: str, operation: Operation) -> Feature:
        if operation == "cyclic":
            feature = Feature(name, operation, table.choice("cyclic", PERIODS, PERIODS[0]))
        elif operation == "elapsed":
            feature = Feature(name, operation, self._whole_event(table), self._entity(table))
        else:
            of = self._measured(table, operation)
            feature = Feature(name, operation, of, self._entity(table), table.duration("window"))
        table.finish(_LATER_KEYS)
        return feature

    def _whole_event(self, table: Table) -> str:
        of = table.get("elapsed")
        if of != "*":
            table.mistake("elapsed", f"{shown(of)} is not right", '"*"')
        return "*"

    def _measured(self, table: Table, operation: Operation) -> str:
        of = table.get(operation)
        measurable = [field.name for field in self.fields.values() if operation == "count" or field.kind != "category"]
        options = ["*", *measurable] if operation == "count" else measurable
        if of == "label" and of not in self.fields:
            table.not_yet(operation, "a feature of the label", ", ".join(options))
        elif not isinstance(of, str) or of not in options:
            is_category = isinstance(of, str) and of in self.fields
            wrong = f"{shown(of)} is a category" if is_category else f"{shown(of)} is no declared field"
            table.mistake(operation, wrong, ", ".join(options) or "a field of numbers", str(of), options)
        return str(of)

    def _entity(self, table: Table) -> str:
        by = table.get("by", required=True, allowed=", ".join(self.key_names))
        if isinstance(by, list):
            table.not_yet("by", "an entity of several fields", ", ".join(self.key_names))
        elif by is not None and by not in self.key_names and self.key != ():
            self._wrong_entity(table, by)
        return str(by)

    def _wrong_entity(self, table: Table, by: object) -> None:
        if self.key is None:
            table.mistake("by", "the events have no key", "declare [events] key first")
        elif isinstance(by, str) and by in self.fields:
            table.not_yet("by", "another entity than the events' key", ", ".join(self.key_names))
        else:
            wrong = f"{shown(by)} is not the events' key"
            table.mistake("by", wrong, ", ".join(self.key_names), str(by), self.key_names)

    def _check_columns(self, table: Table, features: tuple[Feature, ...], *, is_raw: bool) -> None:
        """Two columns of one name would be one to every model."""
        owners = {name: f"the raw field {name}" for name in self.fields} if is_raw else {}
        for feature in features:
            for column in feature.columns:
                if column in owners:
                    table.mistake(feature.name, f"column {column} is given by {owners[column]} too", "another name")
                owners.setdefault(column, f"the feature {feature.name}")
