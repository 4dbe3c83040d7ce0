"""The `[features]` table: which features are declared, checked against fields and key."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from streams.expressions import ExpressionError, parse
from streams.pipeline import Feature, Field, FieldPath, Operation, Task
from streams.pipeline_operations import CALENDAR, CODED, ENCODED, NOW, OF_LABELS, OF_TIME, PERIODS, TRAILS, WINDOWED
from streams.stages import COMPUTED
from streams.toml_table import Table, shown

NAME_PATTERN = "[A-Za-z_][A-Za-z0-9_]{0,99}"
NAME_FORM = "a letter or _, then letters, digits or _, at most 100"
_PRECISIONS = 4, 12  # as in distinct.py, which would load numba
_DETAILS = ("by", "window", "where", "exact", "k", "half_life", "values", "edges", "low", "high", "buckets", "delay",
            "q", "precision", "prior", "weight")  # fmt: skip
_LATER_KEYS = {
    "ttl": "a lifetime of its own",
}
_MOST_LAGS, _MOST_VALUES, _MOST_EDGES, _MOST_BUCKETS = 1_000, 1_000, 1_000, 2**31


class FeatureReader:
    """Reads the features of one pipeline; `key` is the path of the key that partitions the events.

    It is None if not declared, and empty if declared wrongly: then nothing more is said about it.
    """

    def __init__(
        self, fields: tuple[Field, ...], key: FieldPath | None, mistakes: list[str], task: Task | None = None
    ) -> None:
        self._has_numbers = task is not None and task.kind == "regression"
        self.fields = {field.name: field for field in fields}
        self.mistakes = mistakes
        self.key = key
        names = [field.name for field in fields if field.path == key] + ([".".join(key)] if key else [])
        self.key_names = list(dict.fromkeys(names))
        self.operands = {field.name: field.kind != "category" for field in fields}  # whether it is a number

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
        if feature is None or len(self.mistakes) > noted:
            return None
        if len(feature.columns) == 1:
            self.operands.setdefault(name, operation not in ("hash", "last", "lag") or self._is_number(feature.of))
        return feature

    def _is_number(self, field: str) -> bool:
        return self.fields[field].kind != "category"

    def _operation(self, features: Table, name: str, values: dict[str, Any]) -> Operation | None:
        if not re.fullmatch(NAME_PATTERN, name):
            features.mistake(name, "is no name for a feature", NAME_FORM)
        named = [key for key in values if key in NOW]
        if len(named) > 1:
            features.mistake(name, f"names {len(named)} operations, {' and '.join(named)}", "one operation a feature")
        elif not named:
            nearest = next((key for key in values if key not in (*_DETAILS, *_LATER_KEYS)), "")
            features.mistake(name, "names no operation", ", ".join(NOW), nearest, NOW)
        else:
            return next(operation for operation in NOW if operation == named[0])
        return None

    def _declared(self, table: Table, name: str, operation: Operation) -> Feature:
        if operation in OF_LABELS and table.values.get(operation) == "label" and "label" not in self.fields:
            feature = self._of_label(table, name, operation)
        elif operation in WINDOWED:
            of = self._field(table, operation, WINDOWED[operation])
            by, window_us, where = self._entity(table), table.duration("window"), self._where(table)
            precision = table.integer("precision", 8, *_PRECISIONS) if operation == "distinct" else 8
            q = self._share(table, "q") if operation == "quantile" else 0.5
            is_exact = table.boolean("exact", default=False)
            feature = Feature(name, operation, of, by, window_us, where, precision=precision, q=q, is_exact=is_exact)
        elif operation in TRAILS:
            feature = self._trail(table, name, operation)
        elif operation in COMPUTED:
            feature = self._computed(table, name, operation)
        elif operation in CODED:
            feature = self._coded(table, name, operation)
        elif operation in ENCODED:
            feature = self._encoded(table, name, operation)
        elif operation in OF_TIME:
            words = PERIODS if operation == "cyclic" else CALENDAR
            feature = Feature(name, operation, table.choice(operation, words, words[0]))
        else:
            feature = Feature(name, operation, self._whole_event(table), self._entity(table))
        table.finish(_LATER_KEYS)
        return feature

    def _of_label(self, table: Table, name: str, operation: Operation) -> Feature:
        """A feature of the labels that have come; `delay` is how much later than its time each counts."""
        table.get(operation)
        by, window_us, delay_us = self._entity(table), table.duration("window"), table.duration("delay", 0, 0)
        return Feature(name, operation, "label", by, window_us, is_label=True, delay_us=delay_us)

    def _encoded(self, table: Table, name: str, operation: Operation) -> Feature:
        """A category said by a number: how often it comes, or what its labels are; it is its own entity."""
        by, window_us = self._entity(table, operation), table.duration("window")
        if operation == "frequency":
            is_exact = table.boolean("exact", default=False)
            return Feature(name, operation, "*", by, window_us, self._where(table), is_exact=is_exact)
        prior = self._bound(table, "prior") if self._has_numbers else self._share(table, "prior")
        if prior is None:
            table.get("prior", required=True, allowed="a number")
        weight = table.number("weight", 20.0, 0.0, math.inf, is_open=True)
        delay_us = table.duration("delay", 0, 0)
        return Feature(name, operation, "label", by, window_us, prior=prior or 0.0, weight=weight, is_label=True,
                       delay_us=delay_us)  # fmt: skip

    def _trail(self, table: Table, name: str, operation: Operation) -> Feature:
        of, by = self._field(table, operation, TRAILS[operation]), self._entity(table)
        if operation in ("ewm_mean", "ewm_std"):
            half_life_us = table.duration("half_life")
            return Feature(name, operation, of, by, where=self._where(table), half_life_us=half_life_us)
        window_us = table.duration("window", 0) or None
        if operation == "lag":
            return Feature(name, operation, of, by, window_us, k=table.integer("k", 1, 1, _MOST_LAGS))
        return Feature(name, operation, of, by, window_us, self._where(table))

    def _computed(self, table: Table, name: str, operation: Operation) -> Feature:
        if operation in ("ratio", "difference"):
            pair = table.get(operation)
            if not isinstance(pair, list) or len(pair) != 2:
                table.mistake(operation, f"{shown(pair)} is not right", 'two names such as ["price", "price_mean_1d"]')
                return Feature(name, operation, "")
            first, second = (self._operand(table, operation, one) for one in pair)
            return Feature(name, operation, first, other=second)
        of = self._operand(table, operation, table.get(operation))
        if operation == "clip":
            low, high = self._bound(table, "low"), self._bound(table, "high")
            if "low" not in table.values and "high" not in table.values:
                table.mistake("clip", "has no bounds", "low, high, or both")
            elif low is not None and high is not None and low > high:
                table.mistake("low", f"{shown(low)} is above high, {shown(high)}")
            return Feature(name, operation, of, low=low, high=high)
        return Feature(name, operation, of, edges=self._edges(table) if operation == "bucketise" else ())

    def _coded(self, table: Table, name: str, operation: Operation) -> Feature:
        of = self._field(table, operation, ("category",))
        if operation == "hash":
            return Feature(name, operation, of, buckets=table.integer("buckets", 0, 0, _MOST_BUCKETS))
        values = table.get("values", required=True, allowed='a list such as ["web", "app"]')
        is_list = isinstance(values, list) and 0 < len(values) <= _MOST_VALUES
        if not is_list or not all(isinstance(value, str) and value.isprintable() for value in values or ()):
            if values is not None:
                table.mistake("values", f"{shown(values)} is not right", f"1 to {_MOST_VALUES:,} texts")
            values = []
        return Feature(name, operation, of, values=tuple(dict.fromkeys(values)))

    def _whole_event(self, table: Table) -> str:
        of = table.get("elapsed")
        if of != "*":
            table.mistake("elapsed", f"{shown(of)} is not right", '"*"')
        return "*"

    def _field(self, table: Table, operation: Operation, kinds: Sequence[str]) -> str:
        """Read which field an operation takes; count takes all events, too."""
        of = table.get(operation)
        fitting = [field.name for field in self.fields.values() if field.kind in kinds]
        options = ["*", *fitting] if operation == "count" else fitting
        if of == "label" and of not in self.fields:
            table.not_yet(operation, "a feature of the label", ", ".join(options))
        elif not isinstance(of, str) or of not in options:
            declared = self.fields.get(of) if isinstance(of, str) else None
            wrong = f"{shown(of)} is a {declared.kind}" if declared else f"{shown(of)} is no declared field"
            allowed = ", ".join(options) or f"a field that is a {' or '.join(kinds)}"
            table.mistake(operation, wrong, allowed, str(of), options)
        return str(of)

    def _operand(self, table: Table, operation: Operation, of: object) -> str:
        """Read a number of the event: a field, or a feature declared before."""
        options = [name for name, is_number in self.operands.items() if is_number]
        if not isinstance(of, str) or of not in options:
            is_category = isinstance(of, str) and of in self.operands
            wrong = "is a category" if is_category else "is no declared field and no feature declared before"
            table.mistake(operation, f"{shown(of)} {wrong}", ", ".join(options) or "a number", str(of), options)
        return str(of)

    def _bound(self, table: Table, key: str) -> float | None:
        value = table.get(key)
        if value is None or _is_finite(value):
            return None if value is None else float(value)
        table.mistake(key, f"{shown(value)} is not right", "a number")
        return None

    def _share(self, table: Table, key: str) -> float:
        value = table.get(key, required=True, allowed="a number from 0 to 1")
        if _is_finite(value) and 0 <= value <= 1:
            return float(value)
        if value is not None:
            table.mistake(key, f"{shown(value)} is not right", "a number from 0 to 1")
        return 0.5

    def _edges(self, table: Table) -> tuple[float, ...]:
        form = "numbers in ascending order, such as [10, 100, 1000]"
        edges = table.get("edges", required=True, allowed=form)
        is_list = isinstance(edges, list) and 0 < len(edges) <= _MOST_EDGES and all(map(_is_finite, edges))
        if not is_list or sorted(set(edges)) != edges:
            if edges is not None:
                table.mistake("edges", f"{shown(edges)} is not right", form)
            return ()
        return tuple(map(float, edges))

    def _where(self, table: Table) -> str | None:
        form = "a condition such as \"amount > 100 and channel == 'web'\""
        condition = table.get("where")
        if condition is None:
            return None
        if not isinstance(condition, str):
            table.mistake("where", f"{shown(condition)} is not right", form)
            return None
        try:
            parse(condition, {field.name: field.kind for field in self.fields.values()})
        except ExpressionError as error:
            table.mistake("where", str(error))
        return condition

    def _entity(self, table: Table, key: str = "by") -> str | tuple[str, ...]:
        """Read what names the entity: the events' key, a category field, or a list of them."""
        categories = [field.name for field in self.fields.values() if field.kind == "category"]
        options = list(dict.fromkeys([*self.key_names, *categories]))
        by = table.get(key, required=True, allowed=", ".join(options))
        names = by if isinstance(by, list) else [by]
        is_one = len(names) == 1
        if isinstance(by, list) and (not by or len(set(map(str, by))) < len(by)):
            table.mistake(key, f"{shown(by)} is not right", 'fields such as ["origin", "dest"], each once')
        elif by is not None and self.key != ():
            wrong = [one for one in names if one not in (options if is_one else categories)]
            for one in wrong:
                self._wrong_entity(table, key, one, options if is_one else categories)
        declared = tuple(name for name in self.fields if name in names)
        return str(names[0]) if is_one else declared

    def _wrong_entity(self, table: Table, key: str, by: object, options: list[str]) -> None:
        if not options:
            table.mistake(key, "the events have no key", "declare [events] key first, or a category field")
            return
        if isinstance(by, str) and by in self.fields:
            wrong = f"{shown(by)} is a {self.fields[by].kind}"
        elif isinstance(by, str) and by in self.key_names:
            wrong = f"{shown(by)} is no declared field: declare it under [events.fields] to name it beside others"
        else:
            wrong = f"{shown(by)} is neither the events' key nor a declared field"
        table.mistake(key, wrong, ", ".join(options), str(by), options)

    def _check_columns(self, table: Table, features: tuple[Feature, ...], *, is_raw: bool) -> None:
        """Two columns of one name would be one to every model."""
        owners = {name: f"the raw field {name}" for name in self.fields} if is_raw else {}
        for feature in features:
            for column in feature.columns:
                if column in owners:
                    table.mistake(feature.name, f"column {column} is given by {owners[column]} too", "another name")
                owners.setdefault(column, f"the feature {feature.name}")


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
