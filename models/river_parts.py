"""River objects from plain values: a name inside `river.` and parameters, nested as deep as they go.

A table with `use` is an object: `{ use = "optim.SGD", lr = 0.01 }`. It may stand wherever River wants one, also in a
list; what a constructor takes behind a star (`steps`, `transformers`, `keys`) is a list under that name. Steps of a
`compose.Pipeline` may say which columns they are for: neighbouring steps with `only` stand side by side, and columns
that none of them is for go on beside what they give.

Only River's own classes are made, and none that opens files or addresses: a version's record comes from Kafka, and
whoever can write there must not choose what runs. Every mistake is one line with table, key and the nearest name.
"""

from __future__ import annotations

import importlib
import inspect
import numbers
import pkgutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from itertools import groupby
from typing import Any

import river
from river import base, compose

from models.class_names import absence, parted
from models.sealed import REFUSED_PARTS
from streams.errors import PipelineError
from streams.toml_table import mistake_line, shown

RIVER_VERSION = version("river")
SEED = 0  # given to whatever takes a seed and was not given one: a replay must learn the same model
MOST_LEVELS = 16  # of tables inside tables
USE, ONLY = "use", "only"
KINDS_OF_COLUMNS = {"numbers": numbers.Number, "categories": str}
_BOOLEANS = {"true": True, "false": False}


def make_part(name: str, params: Mapping[str, Any], where: str) -> Any:
    """Make the River object of this name, and all inside it.

    Args:
        name: as `tree.HoeffdingTreeClassifier`.
        params: of its constructor; tables with `use` become objects.
        where: the table in messages, as `[models.tree]`.

    Raises:
        PipelineError: naming all that is wrong.
    """
    maker = _Maker(where)
    made = maker.made(name, params, "kind", "")
    if maker.mistakes:
        raise PipelineError(maker.mistakes)
    return made


def find_class(name: str) -> type:
    """Give River's class of this name.

    Raises:
        LookupError: with what is wrong, and the nearest name.
    """
    module, last = parted(name, "tree.HoeffdingTreeClassifier")
    place = f"river.{module}"
    absent = f"is not in river {RIVER_VERSION}"
    try:
        found = getattr(importlib.import_module(place), last, None)
    except ImportError:
        modules = [one.name for one in pkgutil.iter_modules(river.__path__)]
        raise absence(absent, module, modules) from None
    if found is None:
        names = [one for one, value in vars(importlib.import_module(place)).items() if inspect.isclass(value)]
        raise absence(absent, last, names, module)
    if not inspect.isclass(found) or not found.__module__.startswith("river.") or inspect.isabstract(found):
        raise LookupError("is no class that can be made")
    if found.__module__.startswith(REFUSED_PARTS) or place.startswith(REFUSED_PARTS):
        raise LookupError("opens files or addresses and is not allowed")
    return found


class _Maker:
    """Makes objects and notes every mistake; what is wrong becomes None, and nothing around it is made."""

    def __init__(self, where: str) -> None:
        self._where = where
        self.mistakes: list[str] = []

    def made(self, name: str, params: Mapping[str, Any], key: str, path: str) -> Any:
        """Make one object; `path` stands before its parameters in messages."""
        try:
            found = find_class(name)
        except LookupError as error:
            self._mistake(key, f"{shown(name)} {error}")
            return None
        before = len(self.mistakes)
        self._check_names(found, params, path)
        is_pipeline = found is compose.Pipeline
        given = {
            one: self._steps(value, path + one) if is_pipeline and one == "steps" else self._value(value, path + one)
            for one, value in params.items()
        }
        if len(self.mistakes) > before:
            return None
        try:
            return _call(found, given)
        except Exception as error:  # noqa: BLE001 - whatever its constructor thinks of the parameters
            self._mistake(key, f"{name} cannot be made: {error}")
            return None

    def _mistake(self, key: str, wrong: str, allowed: str = "", found: str = "", options: Sequence[str] = ()) -> None:
        self.mistakes.append(mistake_line(f"{self._where} {key}", wrong, allowed, found, options))

    def _check_names(self, found: type, params: Mapping[str, Any], path: str) -> None:
        takes = inspect.signature(found).parameters.values()
        names = [one.name for one in takes if one.kind is not one.VAR_KEYWORD]
        if len(names) == len(takes):
            for name in params:
                if name not in names:
                    self._mistake(path + name, "unknown key", ", ".join(names) or "none", name, names)
        for one in takes:
            is_plain = one.kind in {one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY, one.POSITIONAL_ONLY}
            if is_plain and one.default is one.empty and one.name not in params:
                self._mistake(path + one.name, f"missing: {found.__name__} needs it")

    def _value(self, value: Any, path: str) -> Any:
        if path.count(".") >= MOST_LEVELS:
            self._mistake(path, "lies too deep", f"at most {MOST_LEVELS} tables inside each other")
        elif isinstance(value, dict) and USE in value:
            return self._object(value, path)
        elif isinstance(value, dict):
            keys = _BOOLEANS if value and value.keys() <= _BOOLEANS.keys() else {}
            return {keys.get(key, key): self._value(inner, f"{path}.{key}") for key, inner in value.items()}
        elif isinstance(value, list | tuple):
            return [self._value(inner, f"{path}.{place}") for place, inner in enumerate(value)]
        elif isinstance(value, bool | int | float | str):
            return value
        else:
            self._mistake(path, f"{shown(value)} is not right", "a number, text, true, false, a list, a table")
        return None

    def _object(self, value: dict[str, Any], path: str) -> Any:
        name, params = value[USE], {key: inner for key, inner in value.items() if key != USE}
        if not isinstance(name, str):
            self._mistake(f"{path}.{USE}", f"{shown(name)} is not right", "<module>.<Class> of River")
            return None
        return self.made(name, params, f"{path}.{USE}", f"{path}.")

    # Pipelines

    def _steps(self, items: Any, path: str) -> list[Any]:
        """Make the steps of a pipeline; those with `only` beside each other become one."""
        if not isinstance(items, list | tuple) or not items or not all(isinstance(i, dict) and USE in i for i in items):
            self._mistake(path, "is not right", 'a list of tables such as { use = "preprocessing.StandardScaler" }')
            return []
        steps: list[Any] = []
        places = groupby(enumerate(items), lambda one: ONLY in one[1])
        for is_routed, group in places:
            some = [(self._step(item, f"{path}.{place}"), item.get(ONLY)) for place, item in group]
            whole = [(part, only) for part, only in some if part is not None]
            if is_routed and len(whole) == len(some):
                steps.append(_side_by_side(whole))
            else:
                steps += [part for part, _ in whole]
        return steps

    def _step(self, item: dict[str, Any], path: str) -> Any:
        made = self._object({key: value for key, value in item.items() if key != ONLY}, path)
        if ONLY not in item or made is None:
            return made
        if not isinstance(item[ONLY], str) or item[ONLY] not in KINDS_OF_COLUMNS:
            self._mistake(f"{path}.{ONLY}", f"{shown(item[ONLY])} is unknown", ", ".join(KINDS_OF_COLUMNS))
        elif not isinstance(made, base.Transformer):
            self._mistake(f"{path}.{ONLY}", "the step changes no columns", "it beside a transformer only")
        else:
            return made
        return None


def _side_by_side(parts: list[tuple[Any, str]]) -> Any:
    routed: list[tuple[str, base.Estimator]] = [
        (f"{only}_{place}", compose.Pipeline(compose.SelectType(KINDS_OF_COLUMNS[only]), part))
        for place, (part, only) in enumerate(parts)
    ]
    for kind, type_ in KINDS_OF_COLUMNS.items():
        if kind not in {only for _, only in parts}:
            routed.append((kind, compose.SelectType(type_)))
    return compose.TransformerUnion(*routed)


def _call(found: type, given: dict[str, Any]) -> Any:
    """Call a constructor; what it takes behind a star is a list under that name."""
    takes = inspect.signature(found).parameters
    if "seed" in takes:
        given.setdefault("seed", SEED)
    starred = [name for name, one in takes.items() if one.kind is one.VAR_POSITIONAL]
    some = [value for name in starred for value in given.pop(name, ())]
    return found(*some, **given)
