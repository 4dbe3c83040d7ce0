"""Conditions: what each construct means, and any of them against plain Python row by row."""

from __future__ import annotations

import doctest
import math
import pickle
import re
import tomllib
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings

from streams import expressions
from streams.expressions import parse
from tests.expression_reference import KINDS, Node, Row, columns_of, condition_nodes, is_known, number_nodes, row_lists

DOCS = Path(__file__).parents[2] / "docs" / "conditions.md"


def held(text: str, *rows: Row) -> list[bool]:
    """Ask a condition of rows; a warning is a failure."""
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        found = parse(text, KINDS).holds(columns_of(list(rows)))

    assert (found.dtype, found.shape) == (np.dtype(bool), (len(rows),))
    answers: list[bool] = found.tolist()
    return answers


def amounts(text: str, *values: float | None) -> list[bool]:
    """Ask a condition of rows that have an amount."""
    return held(text, *({"amount": value} for value in values))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("amount == 2", [False, True, False]),
        ("amount != 2", [True, False, True]),
        ("amount < 2", [True, False, False]),
        ("amount <= 2", [True, True, False]),
        ("amount > 2", [False, False, True]),
        ("amount >= 2", [False, True, True]),
        ("2 < amount", [False, False, True]),
        ("1 < amount < 3", [False, True, False]),
        ("3 >= amount > 1 != 2", [False, True, True]),
        ("1 <= amount == amount < 3", [True, True, False]),
        ("amount in [1, 3]", [True, False, True]),
        ("amount in [3, -1, 2.0, 3]", [False, True, True]),
        ("-amount in [-1]", [True, False, False]),
        ("amount not in [1, 3]", [False, True, False]),
        ("amount + 1 == 3", [False, True, False]),
        ("amount - 1 == 1", [False, True, False]),
        ("amount * 2 == 4", [False, True, False]),
        ("amount / 2 == 1.5", [False, False, True]),
        ("-amount < -2", [False, False, True]),
        ("--amount == .2e+1", [False, True, False]),
        ("3 - -amount > 5.5E0", [False, False, True]),
        ("(amount > 1) == true", [False, True, True]),
        ("(amount > 1) != (amount < 3)", [True, False, True]),
        ("(amount > 1) in [false]", [True, False, False]),
        ("amount == 1 or amount == 3", [True, False, True]),
        ("amount > 1 and amount < 3", [False, True, False]),
        ("not amount == 2", [True, False, True]),
        ("not not amount == 2", [False, True, False]),
        ("amount == 2 or true", [True, True, True]),
        ("false or amount == 2", [False, True, False]),
        ("amount == 2 and 1 < 2", [False, True, False]),
        ("\tamount\n  ==2 ", [False, True, False]),
    ],
)
def test_numbers(text: str, expected: list[bool]) -> None:
    """Asked of the amounts 1, 2 and 3."""
    assert amounts(text, 1, 2, 3) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("channel == 'web'", [True, False, False]),
        ('"web" == channel', [True, False, False]),
        ("channel != 'web'", [False, True, False]),
        ("channel in ['web', \"Zürich\"]", [True, True, False]),
        ("channel not in ['web', '']", [False, True, False]),
        ("channel == country", [True, False, False]),
        ("channel != country", [False, True, False]),
        ("country == channel == 'web'", [True, False, False]),
        ("country == 'it\\'", [False, False, False]),
        ("country == ''", [False, True, True]),
    ],
)
def test_categories(text: str, expected: list[bool]) -> None:
    """A text is the code that features see, and a category may be compared with another; missing is never equal."""
    rows = [{"channel": "web", "country": "web"}, {"channel": "Zürich", "country": ""}, {"country": ""}]

    assert held(text, *rows) == expected


def test_a_text_is_the_golden_code() -> None:
    """The code of JFK is the one that every release gives it."""
    values = {"channel": np.array([542583263791126.0, 542583263791127.0])}

    assert parse("channel == 'JFK'", KINDS).holds(values).tolist() == [True, False]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("is_new", [True, False, False]),
        ("not is_new", [False, True, True]),
        ("(is_new)", [True, False, False]),
        ("is_new == true", [True, False, False]),
        ("false == is_new", [False, True, False]),
        ("is_new != true", [False, True, False]),
        ("is_new in [false, true]", [True, True, False]),
        ("is_new not in [true]", [False, True, False]),
        ("is_new == is_vip", [False, True, False]),
        ("is_new != is_vip", [True, False, False]),
        ("is_new == (not is_vip)", [True, False, False]),
        ("is_new and is_vip", [False, False, False]),
        ("is_new or is_vip", [True, False, False]),
    ],
)
def test_booleans(text: str, expected: list[bool]) -> None:
    """Asked of a new one, of one that is not, and of one of which it is missing; none of them is a VIP."""
    rows = [{"is_new": True, "is_vip": False}, {"is_new": False, "is_vip": False}, {"is_vip": False}]

    assert held(text, *rows) == expected


@pytest.mark.parametrize("sign", ["==", "!=", "<", "<=", ">", ">="])
@pytest.mark.parametrize("left", ["amount", "-amount", "amount + 1", "0 * amount", "amount / 0"])
def test_a_comparison_with_a_missing_value_is_false_and_not_turns_it(sign: str, left: str) -> None:
    """Whatever the sign, and however the value was calculated with."""
    assert amounts(f"{left} {sign} 1", None) == [False]
    assert amounts(f"1 {sign} {left}", None) == [False]
    assert amounts(f"not {left} {sign} 1", None) == [True]
    assert amounts(f"{left} {sign} amount", None) == [False]


def test_a_missing_value_is_neither_in_a_list_nor_not_in_it() -> None:
    """`not in` is a comparison of its own; `not … in` turns one around."""
    assert amounts("amount in [1]", None) == [False]
    assert amounts("amount not in [1]", None) == [False]
    assert amounts("not amount in [1]", None, 1) == [True, False]


@pytest.mark.parametrize("name", KINDS)
def test_missing_can_be_asked_of_every_kind(name: str) -> None:
    """It is a condition like others."""
    value = {"number": 0, "category": "", "boolean": False}[KINDS[name]]
    rows: list[Row] = [{name: value}, {}]

    assert held(f"{name} is missing", *rows) == [False, True]
    assert held(f"{name} is not missing", *rows) == [True, False]
    assert held(f"not {name} is missing and true", *rows) == [True, False]
    assert held(f"{name} is missing == false", *rows) == [True, False]


def test_dividing_by_zero_gives_infinities_and_what_compares_as_missing() -> None:
    """As IEEE 754 has it, between columns and between literals, without a warning."""
    assert amounts("amount / 0 > 1e308", 1, 0, -1) == [True, False, False]
    assert amounts("amount / 0 != 5", 1, 0, -1) == [True, False, True]
    assert amounts("1 / amount < 0", 0, -0.0) == [False, True]
    assert amounts("amount < 1 / 0 and not 0 / 0 in [0]", 1) == [True]
    assert amounts("amount * 1e308 * 10 == 1 / 0", 1) == [True]


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("is_new or is_vip and amount > 1", "is_new or (is_vip and (amount > 1))"),
        ("is_new and is_vip or amount > 1", "(is_new and is_vip) or (amount > 1)"),
        ("not is_new and is_vip", "(not is_new) and is_vip"),
        ("not is_new == is_vip", "not (is_new == is_vip)"),
        ("not amount in [1]", "not (amount in [1])"),
        ("amount + balance * 2 > 3", "(amount + (balance * 2)) > 3"),
        ("amount - balance - 1 > 0", "((amount - balance) - 1) > 0"),
        ("amount - balance + 1 > 0", "((amount - balance) + 1) > 0"),
        ("amount / balance / 2 > 1", "((amount / balance) / 2) > 1"),
        ("amount / balance * 2 > 1", "((amount / balance) * 2) > 1"),
        ("-amount + balance > 0", "((-amount) + balance) > 0"),
        ("-amount * balance < 0 - 3", "((-amount) * balance) < (0 - 3)"),
        ("0 < amount < balance", "(0 < amount) and (amount < balance)"),
        ("amount + 1 in [2]", "(amount + 1) in [2]"),
    ],
)
def test_precedence(text: str, same: str) -> None:
    """What binds more is what parentheses would say."""
    numbers, truths = (None, -2, 0, 1, 2, 5), (None, False, True)
    rows = [
        {"amount": a, "balance": b, "is_new": n, "is_vip": v}
        for a in numbers
        for b in numbers
        for n in truths
        for v in truths
    ]

    assert held(text, *rows) == held(same, *rows)
    assert 0 < sum(held(text, *rows)) < len(rows)


def test_an_expression_knows_its_text_and_its_fields() -> None:
    """Fields come in the order of their first use, each once, also one that is only asked whether it is missing."""
    text = "is_vip is missing or balance > amount and balance < 5"
    expression = parse(text, KINDS)

    assert expression.text == text
    assert expression.fields == ("is_vip", "balance", "amount")


def test_an_expression_is_frozen_and_equal_by_its_text() -> None:
    """It can be a key, and travel to another process."""
    one, same, other = (parse(text, KINDS) for text in ("channel == 'a'", "channel == 'a'", "channel == 'b'"))

    assert one == same
    assert len({one, same, other}) == 2
    copy = pickle.loads(pickle.dumps(one))  # noqa: S301 - our own bytes
    assert copy == one
    assert copy.holds(columns_of([{"channel": "a"}, {"channel": "b"}])).tolist() == [True, False]
    with pytest.raises(AttributeError):
        one.text = "is_new"  # type: ignore[misc]  # what is tested


def test_only_the_fields_it_reads_are_asked_for_and_none_is_changed() -> None:
    """Columns may be read-only views with gaps between their values."""
    amount = np.arange(8.0)[::2]
    amount.flags.writeable = False

    assert parse("-amount * 2 < -4", KINDS).holds({"amount": amount}).tolist() == [False, False, True, True]
    assert amount.tolist() == [0.0, 2.0, 4.0, 6.0]


@pytest.mark.parametrize("text", ["is_new", "amount / 0 in [1]", "channel not in ['a'] or true", "amount is missing"])
def test_no_rows_give_no_answers(text: str) -> None:
    """The shape and type are those of any batch."""
    assert held(text) == []


def test_the_example_of_the_class_is_true() -> None:
    """What its docstring shows is what it does."""
    assert doctest.testmod(expressions).failed == 0
    assert doctest.testmod(expressions).attempted > 0


def test_the_conditions_of_the_documentation_can_be_read() -> None:
    """Each `where` on its page is a condition on the fields declared there."""
    (text,) = re.findall(r"```toml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    content = tomllib.loads(text)

    assert len(content["features"]) > 5
    for feature in content["features"].values():
        assert parse(feature["where"], content["events"]["fields"]).text == feature["where"]


@settings(max_examples=400)
@given(node=condition_nodes(4), rows=row_lists)
def test_any_condition_equals_plain_python_row_by_row(node: Node, rows: list[Row]) -> None:
    """With as few parentheses as its precedence needs, or some more."""
    assume(any(name in node.text for name in KINDS))

    assert held(node.text, *rows) == [bool(node.value(row)) for row in rows]


@settings(max_examples=300)
@given(node=number_nodes(4), row=row_lists.filter(bool).map(lambda rows: rows[0]))
def test_any_calculation_equals_plain_python_exactly(node: Node, row: Row) -> None:
    """To the last bit, infinities too; what is missing, or 0 / 0, is neither below nothing nor above."""
    value = node.value(row)
    always = "(amount is missing or true)"  # a condition reads a field, and a calculation may have none
    if not is_known(value):
        assert held(f"{always} and ({node.text} < 0 or {node.text} >= 0)", row) == [False]
        return
    magnitude = repr(abs(value)) if math.isfinite(value) else "1 / 0"
    sign = "-" if value < 0 else ""

    assert held(f"{always} and {node.text} == {sign}({magnitude})", row) == [True]
