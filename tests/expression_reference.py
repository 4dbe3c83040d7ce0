"""Conditions computed another way: random ones, each with what it is for a row, in plain Python.

Nothing is shared with the reader or its steps: a missing value is None, a category its text, and an expression is made
from what it means to how it is written, with the parentheses that its precedence needs.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash
from hypothesis import strategies as st

from streams.pipeline import FieldKind

Row = dict[str, Any]  # an event: None is missing, a category its text

KINDS: dict[str, FieldKind] = {
    "amount": "number",
    "balance": "number",
    "channel": "category",
    "country": "category",
    "is_new": "boolean",
    "is_vip": "boolean",
}


def as_seen(value: Any) -> float:
    """Turn a value into what features see of it."""
    if value is None:
        return math.nan
    if isinstance(value, str):
        return float(xxhash.xxh64_intdigest(value.encode(), 2) >> 12)
    return float(value)


def columns_of(rows: list[Row]) -> dict[str, npt.NDArray[np.float64]]:
    """Lay rows out as columns."""
    return {name: np.array([as_seen(row.get(name)) for row in rows], np.float64) for name in KINDS}


class Node(NamedTuple):
    """A random expression: its text, how much its outermost operator binds, and what it is for a row."""

    text: str
    power: int
    value: Callable[[Row], Any]


COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
CALCULATE: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda left, right: left / right if right else math.copysign(1, right) * left * math.inf,
}


def is_known(value: Any) -> bool:
    """Whether a value takes part in comparisons."""
    return value is not None and value == value  # noqa: PLR0124 - NaN


def compare(sign: str, left: Any, right: Any) -> bool:
    """Compare two values; what is missing compares with nothing."""
    return is_known(left) and is_known(right) and COMPARE[sign](left, right)


def calculate(sign: str, left: float | None, right: float | None) -> float | None:
    """Calculate with two values, either of which may be missing."""
    return None if left is None or right is None else CALCULATE[sign](left, right)


def wrapped(draw: st.DrawFn, node: Node, least: int) -> str:
    """Write an operand, in parentheses where they are needed, and now and then where they are not."""
    return f"({node.text})" if node.power < least or draw(st.integers(0, 9)) == 0 else node.text


def field_node(name: str) -> Node:
    """A field by itself."""
    return Node(name, 9, lambda row: row[name])


def literal_node(value: Any, text: str) -> Node:
    """A literal."""
    return Node(text, 9, lambda _: value)


def quoted(text: str) -> str:
    """Write a text as a literal."""
    return f'"{text}"' if "'" in text else f"'{text}'"


TEXTS = ["web", "app", "it's", "", "Zürich"]
LITERALS = ["0", "1", "2.5", "1e308", ".5", "3"]
number_leaves = st.sampled_from(
    [field_node("amount"), field_node("balance"), *(literal_node(float(text), text) for text in LITERALS)]
)


@st.composite
def number_nodes(draw: st.DrawFn, depth: int) -> Node:
    """Draw an expression that is a number."""
    how = draw(st.sampled_from(["leaf", "leaf", "-", "+-", "*/"])) if depth else "leaf"
    if how == "leaf":
        leaf: Node = draw(number_leaves)
        return leaf
    left = draw(number_nodes(depth - 1))
    if how == "-":
        return Node("-" + wrapped(draw, left, 7), 7, lambda row: None if left.value(row) is None else -left.value(row))
    right, sign, power = draw(number_nodes(depth - 1)), draw(st.sampled_from(how)), 5 if how == "+-" else 6
    text = f"{wrapped(draw, left, power)}{sign}{wrapped(draw, right, power + 1)}"
    return Node(text, power, lambda row: calculate(sign, left.value(row), right.value(row)))


category_nodes = st.sampled_from([field_node("channel"), field_node("country")])
text_nodes = st.sampled_from([literal_node(text, quoted(text)) for text in TEXTS])
truth_nodes = st.sampled_from(
    [field_node("is_new"), field_node("is_vip"), literal_node(value=True, text="true"), literal_node(False, "false")]
)


@st.composite
def comparison_nodes(draw: st.DrawFn, depth: int) -> Node:
    """Draw a chain of comparisons between operands of one kind."""
    how = draw(st.sampled_from(["number", "category", "boolean"]))
    if how == "number":
        operands = draw(st.lists(number_nodes(depth), min_size=2, max_size=3))
    elif how == "category":
        operands = [draw(category_nodes), draw(category_nodes | text_nodes)]
    else:
        operands = draw(st.lists(truth_nodes | condition_nodes(depth - 1), min_size=2, max_size=3))
    signs = [draw(st.sampled_from([*COMPARE] if how == "number" else ["==", "!="])) for _ in operands[1:]]
    text = wrapped(draw, operands[0], 5)
    for sign, operand in zip(signs, operands[1:], strict=True):
        text += f" {sign} {wrapped(draw, operand, 5)}"

    def value(row: Row) -> bool:
        found = [operand.value(row) for operand in operands]
        return all(compare(sign, *pair) for sign, *pair in zip(signs, found, found[1:], strict=False))

    return Node(text, 4, value)


@st.composite
def membership_nodes(draw: st.DrawFn, depth: int) -> Node:
    """Draw a value that is looked for in a list."""
    if draw(st.booleans()):
        sought = draw(number_nodes(depth))
        words = draw(st.lists(st.sampled_from([*LITERALS, "-1", "- 2"]), min_size=1, max_size=12))
        literals: list[Any] = [float(word.replace(" ", "")) for word in words]
    else:
        sought = draw(category_nodes)
        literals = draw(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=5))
        words = [quoted(literal) for literal in literals]
    is_in = draw(st.booleans())
    text = f"{wrapped(draw, sought, 5)} {'in' if is_in else 'not in'} [{', '.join(words)}]"
    return Node(text, 4, lambda row: is_known(sought.value(row)) and (sought.value(row) in literals) == is_in)


@st.composite
def missing_nodes(draw: st.DrawFn) -> Node:
    """Draw the question whether a field is missing."""
    name, is_asked = draw(st.sampled_from([*KINDS])), draw(st.booleans())
    text = f"{name} is missing" if is_asked else f"{name} is not missing"
    return Node(text, 9, lambda row: (row[name] is None) == is_asked)


@st.composite
def condition_nodes(draw: st.DrawFn, depth: int) -> Node:
    """Draw any condition."""
    how = draw(
        st.sampled_from(["truth", "missing", "compare", "compare", "in", "not", "and", "or"][: 8 if depth > 0 else 2])
    )
    if how == "truth":
        truth: Node = draw(truth_nodes)
        return truth
    if how == "missing":
        return draw(missing_nodes())
    if how in ("compare", "in"):
        return draw(comparison_nodes(depth - 1) if how == "compare" else membership_nodes(depth - 1))
    left = draw(condition_nodes(depth - 1))
    if how == "not":
        return Node("not " + wrapped(draw, left, 3), 3, lambda row: not left.value(row))
    right, power = draw(condition_nodes(depth - 1)), 2 if how == "and" else 1
    text = f"{wrapped(draw, left, power)} {how} {wrapped(draw, right, power + 1)}"
    decide = all if how == "and" else any
    return Node(text, power, lambda row: decide([bool(left.value(row)), bool(right.value(row))]))


number_values = st.none() | st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.5, 3.0, 1e308]) | st.floats(allow_nan=False)
text_values = st.none() | st.sampled_from(TEXTS)
truth_values = st.none() | st.booleans()
VALUES_OF = {"number": number_values, "category": text_values, "boolean": truth_values}
row_lists = st.lists(st.fixed_dictionaries({name: VALUES_OF[kind] for name, kind in KINDS.items()}), max_size=6)
