"""Reading one TOML table while collecting every mistake: one line per mistake, and never a stop at the first.

A getter that meets a mistake notes it and returns a harmless value of its type, so that reading goes on; whoever began
the reading looks at the list at the end.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from streams.durations import duration_text, duration_us

Choice = TypeVar("Choice", bound=str)

DURATION_FORM = 'a whole number with ms, s, m, h or d, such as "36h"'
PATH_FORM = 'a name or names joined by dots, such as "route.miles"'
_SHOWN_CHARACTERS = 60  # enough to recognise a value, too little to break a terminal line


def shown(value: object) -> str:
    """Show a value of the file in one short line, text in quotes."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, bool | int | float | str) else str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def _counted(value: object) -> str:
    return f"a list of {len(value)}" if isinstance(value, list | tuple) else shown(value)


def mistake_line(where: str, wrong: str, allowed: str = "", found: str = "", options: Iterable[str] = ()) -> str:
    """Write one mistake; the option nearest to `found`, if near enough, becomes the "did you mean"."""
    line = f"{where}: {wrong}"
    if allowed:
        line += f"; allowed: {allowed}"
    names = {option.lower(): option for option in options}
    near = difflib.get_close_matches(found.lower(), names, n=1) if found else []
    if near:
        line += f'; did you mean "{names[near[0]]}"?'
    return line


def one_line(text: str) -> str:
    """Escape what would break a line: a quoted TOML key may hold anything."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


class Table:
    """One table of the file, read key by key.

    `prefix` stands before each key in messages: an inline table such as `[features] late = {…}` names itself there.
    """

    def __init__(self, name: str, values: Mapping[str, Any], mistakes: list[str], prefix: str = "") -> None:
        self.name = name
        self.values = values
        self.mistakes = mistakes
        self.prefix = prefix
        self.known: list[str] = []
        self.wrong: set[str] = set()  # what follows from a mistake is no mistake of its own: look here first

    def mistake(self, key: str, wrong: str, allowed: str = "", found: str = "", options: Iterable[str] = ()) -> None:
        """Note that a key is wrong."""
        self.wrong.add(key)
        where = f"[{self.name}] {self.prefix}{key}"
        self.mistakes.append(mistake_line(where, wrong, allowed, found, options))

    def not_yet(self, key: str, what: str, allowed: str = "") -> None:
        """Note that a key asks for a part of Millrace that a later release brings."""
        self.mistake(key, f"not available yet ({what})", allowed)

    def get(self, key: str, *, required: bool = False, allowed: str = "") -> Any:
        """Give the raw value, None if absent; the key counts as known from here on."""
        self.known.append(key)
        if required and key not in self.values:
            self.mistake(key, "missing", allowed)
        return self.values.get(key)

    def text(self, key: str, default: str | None = None, pattern: str = "", allowed: str = "text") -> str:
        """Give a text that matches `pattern` wholly; required if there is no default."""
        value = self.get(key, required=default is None, allowed=allowed)
        if value is None:
            return default or ""
        if not isinstance(value, str) or not value or (pattern and not re.fullmatch(pattern, value)):
            self.mistake(key, f"{shown(value)} is not right", allowed)
            return default or ""
        return value

    def choice(self, key: str, options: tuple[Choice, ...], default: Choice) -> Choice:
        """Give one of a few words."""
        value = self.get(key)
        if value is None:
            return default
        for option in options:
            if value == option:
                return option
        found = value if isinstance(value, str) else ""
        self.mistake(key, f"{shown(value)} is unknown", ", ".join(options), found, options)
        return default

    def boolean(self, key: str, *, default: bool) -> bool:
        """Give true or false."""
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.mistake(key, f"{shown(value)} is not right", "true, false")
            return default
        return value

    def integer(self, key: str, default: int, smallest: int, largest: int) -> int:
        """Give a whole number between two bounds, both included."""
        value = self.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not smallest <= value <= largest:
            self.mistake(key, f"{shown(value)} is not right", f"a whole number from {smallest} to {largest}")
            return default
        return value

    def integers(self, key: str, default: tuple[int, ...], smallest: int, largest: int, most: int) -> tuple[int, ...]:
        """Give a list of 1 to `most` whole numbers, each between two bounds, both included."""
        value = self.get(key)
        if value is None:
            return default
        form = f"a list of 1 to {most} whole numbers from {smallest} to {largest}"
        if not isinstance(value, list | tuple) or not 1 <= len(value) <= most:
            self.mistake(key, f"{_counted(value)} is not right", form)
            return default
        for entry in value:
            if isinstance(entry, bool) or not isinstance(entry, int) or not smallest <= entry <= largest:
                self.mistake(key, f"{shown(entry)} in the list is not right", form)
                return default
        return tuple(value)

    def number(self, key: str, default: float, low: float, high: float, *, is_open: bool = False) -> float:
        """Give a finite number between two bounds, both included, but `low` not if it `is_open`."""
        value = self.get(key)
        if value is None:
            return default
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number or not low <= value <= high or (is_open and value == low):
            least = f"above {low:g} up" if is_open else f"from {low:g}"
            form = f"a number {least} to {high:g}" if math.isfinite(high) else f"a number above {low:g}"
            self.mistake(key, f"{shown(value)} is not right", form)
            return default
        return float(value)

    def duration(self, key: str, default_us: int | None = None, smallest_us: int = 1) -> int:
        """Give a duration in microseconds; required if there is no default."""
        value = self.get(key, required=default_us is None, allowed=DURATION_FORM)
        if value is None:
            return default_us or 0
        try:
            length_us = duration_us(value) if isinstance(value, str) else -1
        except ValueError:
            length_us = -1
        if length_us < 0:
            self.mistake(key, f"{shown(value)} is no duration", DURATION_FORM)
        elif length_us < smallest_us:
            least = "more than nothing" if smallest_us == 1 else f"at least {duration_text(smallest_us)}"
            self.mistake(key, f"{shown(value)} is too short", least)
        return max(length_us, smallest_us)

    def path(self, key: str, *, required: bool = False) -> tuple[str, ...] | None:
        """Give the way to a value inside a record, None if absent or wrong."""
        value = self.get(key, required=required, allowed=PATH_FORM)
        if value is None:
            return None
        steps = tuple(value.split(".")) if isinstance(value, str) else ("",)
        if not all(steps):
            self.mistake(key, f"{shown(value)} is no path", PATH_FORM)
            return None
        return steps

    def table(self, key: str) -> dict[str, Any]:
        """Give an inner table, empty if absent."""
        value = self.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.mistake(key, f"{shown(value)} is not right", "a table")
            return {}
        return value

    def finish(self, later: Mapping[str, str] | None = None) -> None:
        """Note every key that nobody asked for; `later` names those that a later release brings."""
        later = later or {}
        known = sorted(set(self.known))
        for key in self.values:
            if key in later:
                self.not_yet(key, later[key])
            elif key not in self.known:
                self.mistake(key, "unknown key", ", ".join(known) or "none", key, [*known, *later])


def in_order_of(values: Mapping[str, Any], mistakes: list[str]) -> list[str]:
    """Sort mistakes as the file has their tables and models; those of tables that are not there come last.

    >>> values = {"b": {}, "models": {"y": {}, "x": {}}}
    >>> in_order_of(values, ["[models.x] k: wrong", "[c]: missing", "[models.y] k: wrong", "[b] k: wrong"])
    ['[b] k: wrong', '[models.y] k: wrong', '[models.x] k: wrong', '[c]: missing']
    """

    def place(mistake: str) -> tuple[int, int]:
        found = re.match(r"\[([^\].]+)(?:\.([^\].]+)\]|\] ([^:]+):)?", mistake)
        if found is None:
            return -1, -1
        outer, inner = found[1], found[2] or found[3] or ""
        models = values.get("models") if outer == "models" else None
        return _place(outer, values), _place(inner, models) if isinstance(models, Mapping) else -1

    return sorted(mistakes, key=place)


def _place(key: str, values: Mapping[str, Any]) -> int:
    return list(values).index(key) if key in values else len(values)


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Join the keys of nested tables by dots, as `a.b = 1` and `"a.b" = 1` mean the same."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(flattened(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
