"""The words and signs of a condition, each with its column, and the one line that says what is wrong with it.

A condition is short and written by hand, so every mistake names its column, counted from 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

from streams.toml_table import mistake_line, one_line, shown

LONGEST_CHARACTERS = 1_000  # more is no condition but a program

_TOKEN = re.compile(
    r"""
    (?P<space>\s+)
    | (?P<number>(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)(?![A-Za-z0-9_.])
    | (?P<text>'[^']*'|"[^"]*")
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<sign>==|!=|<=|>=|[-+*/<>()\[\],])
    """,
    re.VERBOSE,
)
_LIKE_A_NUMBER = re.compile(r"\.?[0-9][A-Za-z0-9_.]*")
_MEANT = {"=": "==", "!": "not", "&": "and", "|": "or"}  # what other languages write
_SIGNS = "==, !=, <, <=, >, >=, +, -, *, /, (, ), [, ]"

Sort = Literal["number", "text", "word", "sign", "end"]


class ExpressionError(ValueError):
    """A condition is wrong; the message is one line: where, what is wrong, what is allowed."""


class Token(NamedTuple):
    """One word, sign or literal as it is written, a text with its quotes; the last one is `end`."""

    sort: Sort
    text: str
    column: int

    def __str__(self) -> str:
        """Name the token in a message."""
        if self.sort == "end":
            return "the end"
        return self.text if self.sort == "text" else shown(self.text)


def mistake(
    column: int, wrong: str, allowed: str = "", found: str = "", options: Iterable[str] = ()
) -> ExpressionError:
    """Make the error of one mistake; the option nearest to `found` becomes the "did you mean"."""
    return ExpressionError(one_line(mistake_line(f"column {column}", wrong, allowed, found, options)))


def tokens_of(text: str) -> list[Token]:
    """Cut a condition into tokens.

    Raises:
        ExpressionError: it is too long, or has something that is no word, sign, number or text.
    """
    if len(text) > LONGEST_CHARACTERS:
        wrong = f"a condition of {len(text)} characters is too long"
        raise mistake(LONGEST_CHARACTERS + 1, wrong, f"at most {LONGEST_CHARACTERS}")
    tokens, at = [], 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise _unreadable(text, at)
        sort: Sort | Literal["space"] = found.lastgroup  # type: ignore[assignment]  # the groups' names are the sorts
        if sort != "space":
            tokens.append(Token(sort, found.group(), at + 1))
        at = found.end()
    return [*tokens, Token("end", "", len(text) + 1)]


def _unreadable(text: str, at: int) -> ExpressionError:
    sign = text[at]
    if sign in "'\"":
        return mistake(at + 1, f"the text {shown(text[at:])} has no end", f"a {sign} behind it")
    number = _LIKE_A_NUMBER.match(text, at)
    if number:
        return mistake(at + 1, f"{shown(number.group())} is no number", "a number such as 100, 2.5 or 1e6")
    meant = _MEANT.get(sign, "")
    return mistake(at + 1, f"{shown(sign)} is no sign of a condition", _SIGNS, meant, (meant,))
