"""Conditions on an event, as `where` of a feature says them: `amount > 100 and channel == 'web'`.

A condition is read once, checked against the kinds of its fields, and then asked of whole batches. It has no loops,
no calls and no names but fields, so it always ends and touches nothing. See docs/conditions.md for the language.

The grammar, from what binds least to what binds most; a binary operator takes its operands from the left:

    or   and   not   == != < <= > >= in, not in   + -   * /   unary -   field is missing

Read by precedence climbing (K. Clarke, The top-down parsing of expressions, 1986).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from streams import expression_steps
from streams.expression_steps import CALCULATIONS, COMPARISONS, JUNCTIONS, Step, Steps
from streams.expression_tokens import ExpressionError, Token, mistake, tokens_of
from streams.pipeline import FieldKind

__all__ = ["DEEPEST_LEVELS", "Expression", "ExpressionError", "parse"]

DEEPEST_LEVELS = 50  # of operands inside operands: a level is three calls of the reader, far from Python's limit

_OR, _AND, _NOT, _COMPARISON, _SUM, _PRODUCT, _NEGATION = range(1, 8)
_POWERS = {
    "or": _OR,
    "and": _AND,
    "in": _COMPARISON,
    "not": _COMPARISON,  # behind a value it can only be `not in`
    **dict.fromkeys(COMPARISONS, _COMPARISON),
    **dict.fromkeys("+-", _SUM),
    **dict.fromkeys("*/", _PRODUCT),
}
_RESERVED = ("and", "or", "not", "in", "is", "true", "false")

_Kind = Literal["number", "category", "text", "boolean", "condition"]
_FAMILIES = {"number": "number", "category": "category", "text": "category"}  # what is in none is a boolean
_A_CONDITION = "a comparison such as amount > 100, or a boolean field"
_PAIRS = "a number with a number, a category with a text or a category, a boolean with a boolean"
_SIGNS_OF_FAMILIES = {
    "category": '==, != and in, such as channel == "web"',
    "boolean": "== and !=, such as is_new == true",
}


@dataclass(frozen=True)
class Expression:
    """A condition that was read and checked; two of the same text are equal.

    `fields` are the names of the fields it reads, in the order of their first use.

    Example:
        >>> condition = parse("amount > 100 and not is_new", {"amount": "number", "is_new": "boolean"})
        >>> condition.holds({"amount": np.array([50.0, 200.0]), "is_new": np.array([0.0, 0.0])})
        array([False,  True])
    """

    text: str
    fields: tuple[str, ...] = field(compare=False)
    steps: Steps = field(compare=False, repr=False)

    def holds(self, values: Mapping[str, npt.NDArray[np.float64]]) -> npt.NDArray[np.bool_]:
        """Say for each of B rows whether the condition holds.

        Args:
            values: for each name in `fields` a column [B] as features see it: a number as it is, true as 1, a category
                as its code, NaN where it is missing.
        """
        result: npt.NDArray[np.bool_] = expression_steps.run(self.steps, values)
        return result


def parse(text: str, kinds: Mapping[str, FieldKind]) -> Expression:
    """Read a condition on the fields of `kinds`.

    Raises:
        ExpressionError: it is no condition; one line says where, what is wrong and what is allowed.
    """
    reader = _Reader(text, kinds)
    reader.read()
    return Expression(text, tuple(reader.fields), tuple(reader.steps))


class _Operand(NamedTuple):
    """What was read last: the topmost value of the stack, and the column where it begins."""

    kind: _Kind
    column: int


class _Reader:
    """Reads tokens from left to right and writes each step when all its operands are on the stack."""

    def __init__(self, text: str, kinds: Mapping[str, FieldKind]) -> None:
        self.kinds = kinds
        self.fields: dict[str, None] = {}
        self.steps: list[str | float | Step] = []
        self._tokens = tokens_of(text)
        self._at = 0
        self._level = 0

    def read(self) -> None:
        """Read all of it."""
        if len(self._tokens) == 1:
            raise mistake(1, "the condition is empty", _A_CONDITION)
        whole, rest = self._operation(_OR), self._here
        if rest.sort != "end":
            raise mistake(rest.column, f"{rest} is no operator", "and, or, ==", rest.text, [*_POWERS, "is"])
        self._condition(whole)
        if not self.fields:
            raise mistake(1, "the condition reads no field", self._names())

    @property
    def _here(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        token = self._here
        self._at += token.sort != "end"
        return token

    def _write(self, takes: int, apply: Any) -> None:
        self.steps.append(Step(takes, apply))

    def _names(self) -> str:
        return ", ".join(self.kinds) or "none, as no field is declared"

    def _operation(self, least: int) -> _Operand:
        """Read a value and every operator behind it that binds at least as much as `least`."""
        self._level += 1
        if self._level > DEEPEST_LEVELS:
            raise mistake(self._here.column, "the condition is nested too deep", f"at most {DEEPEST_LEVELS} levels")
        operand = self._prefixed(least)
        while (power := _POWERS.get(self._here.text, 0)) >= least:
            if power <= _AND:
                operand = self._junction(operand, power)
            elif power == _COMPARISON:
                operand = self._comparison(operand)
            else:
                operand = self._calculation(operand, power)
        if self._here.text == "is":
            raise mistake(self._here.column, "only a field can be missing", "amount is missing, amount is not missing")
        self._level -= 1
        return operand

    def _prefixed(self, least: int) -> _Operand:
        token = self._here
        if token.text == "not" and least <= _NOT:
            self._take()
            self._condition(self._operation(_NOT))
            self._write(1, np.logical_not)
            return _Operand("condition", token.column)
        if token.text == "-":
            self._take()
            self._number(self._operation(_NEGATION), token)
            self._write(1, np.negative)
            return _Operand("number", token.column)
        return self._value()

    def _junction(self, left: _Operand, power: int) -> _Operand:
        token = self._take()
        self._condition(left)
        self._condition(self._operation(power + 1))
        self._write(2, JUNCTIONS[token.text])
        return _Operand("condition", left.column)

    def _calculation(self, left: _Operand, power: int) -> _Operand:
        token = self._take()
        self._number(left, token)
        self._number(self._operation(power + 1), token)
        self._write(2, CALCULATIONS[token.text])
        return _Operand("number", left.column)

    def _comparison(self, first: _Operand) -> _Operand:
        """Read a chain of comparisons, `0 < a <= b`, or the list that a value is looked for in."""
        if self._here.text not in COMPARISONS:
            self._membership(first)
        else:
            signs, left = [], first
            while self._here.text in COMPARISONS:
                token = self._take()
                right = self._operation(_COMPARISON + 1)
                _check_pair(left, token, right)
                signs.append(token.text)
                left = right
            compare = COMPARISONS[signs[0]] if len(signs) == 1 else partial(expression_steps.chained, tuple(signs))
            self._write(len(signs) + 1, compare)
        if _POWERS.get(self._here.text) == _COMPARISON:
            raise mistake(self._here.column, f"{self._here} cannot go on a comparison", 'parentheses, or "and"')
        return _Operand("condition", first.column)

    def _membership(self, sought: _Operand) -> None:
        token = self._take()
        if token.text == "not":
            self._expect("in", 'behind "not"')
        self._expect("[", 'behind "in"')
        literals = [self._literal(sought)]
        while self._here.text == ",":
            self._take()
            literals.append(self._literal(sought))
        self._expect("]", "in the list")
        is_chosen = expression_steps.is_not_among if token.text == "not" else expression_steps.is_among
        self._write(1, partial(is_chosen, tuple(literals)))

    def _literal(self, sought: _Operand) -> float | str:
        """Read one literal of a list, of the kind of what is looked for."""
        first = self._take()
        token = self._take() if first.text == "-" and self._here.sort == "number" else first
        if sought.kind == "number" and token.sort == "number":
            return _number_of(token) if token is first else -_number_of(token)
        if sought.kind == "category" and token.sort == "text":
            return token.text[1:-1]
        if sought.kind in ("boolean", "condition") and token.text in ("true", "false"):
            return float(token.text == "true")
        if sought.kind == "text":
            raise mistake(sought.column, "a text is looked for in a list", "a field in front of it")
        allowed = {"number": "numbers", "category": "texts in quotes"}.get(sought.kind, "true, false")
        raise mistake(first.column, f"{first} cannot be in the list", allowed)

    def _value(self) -> _Operand:
        token = self._take()
        if token.sort == "number":
            self.steps.append(_number_of(token))
            return _Operand("number", token.column)
        if token.sort == "text":
            self._write(0, partial(expression_steps.code_of, token.text[1:-1]))
            return _Operand("text", token.column)
        if token.text in ("true", "false"):
            self.steps.append(token.text == "true")
            return _Operand("condition", token.column)
        if token.text == "(":
            inner = self._operation(_OR)
            self._expect(")", f"for the ( at column {token.column}")
            return _Operand(inner.kind, token.column)
        if token.sort != "word" or token.text in _RESERVED:
            allowed = "a field, a number, a text, true, false or an expression in parentheses"
            raise mistake(token.column, f"{token} stands where a value must be", allowed)
        return self._field(token)

    def _field(self, token: Token) -> _Operand:
        name = token.text
        if name not in self.kinds:
            options = [*_RESERVED, *self.kinds]
            raise mistake(token.column, f"{token} is no declared field", self._names(), name, options)
        self.fields.setdefault(name)
        self.steps.append(name)
        if self._here.text != "is":
            return _Operand(self.kinds[name], token.column)
        self._take()
        is_negated = self._here.text == "not"
        if is_negated:
            self._take()
        self._expect("missing", 'behind "is"')
        self._write(1, expression_steps.is_there if is_negated else np.isnan)
        return _Operand("condition", token.column)

    def _expect(self, text: str, where: str) -> None:
        token = self._take()
        if token.text != text:
            raise mistake(token.column, f'{token} stands in place of "{text}" {where}', text)

    def _condition(self, operand: _Operand) -> None:
        """Make the topmost value a condition: a boolean field holds where it is there and true."""
        if operand.kind == "boolean":
            self._write(1, expression_steps.is_true)
        elif operand.kind != "condition":
            raise mistake(operand.column, f"a {operand.kind} is no condition", _A_CONDITION)

    def _number(self, operand: _Operand, token: Token) -> None:
        if operand.kind != "number":
            raise mistake(operand.column, f"{token.text} calculates with a {operand.kind}", "numbers")


def _number_of(token: Token) -> float:
    number = float(token.text)
    if number == float("inf"):
        raise mistake(token.column, f"{token} is too large", "numbers up to 1.79e308")
    return number


def _check_pair(left: _Operand, token: Token, right: _Operand) -> None:
    """Refuse a comparison that means nothing: of different kinds, of two texts, of codes by their size."""
    family = _FAMILIES.get(left.kind, "boolean")
    if family != _FAMILIES.get(right.kind, "boolean"):
        raise mistake(token.column, f"{token.text} compares a {left.kind} with a {right.kind}", _PAIRS)
    if left.kind == right.kind == "text":
        raise mistake(token.column, f"{token.text} compares two texts", "a category with a text")
    if family != "number" and token.text not in ("==", "!="):
        raise mistake(token.column, f"{token.text} compares a {left.kind} by size", _SIGNS_OF_FAMILIES[family])
