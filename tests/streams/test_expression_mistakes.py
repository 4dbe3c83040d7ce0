"""Every mistake in a condition is one line: at which column, what is wrong, what is allowed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.expressions import ExpressionError, parse
from tests.expression_reference import KINDS, columns_of

DOCS = Path(__file__).parents[2] / "docs" / "conditions.md"
PAIRS = "a number with a number, a category with a text or a category, a boolean with a boolean"
SIGNS = "==, !=, <, <=, >, >=, +, -, *, /, (, ), [, ]"
NAMES = "amount, balance, channel, country, is_new, is_vip"
VALUES = "a field, a number, a text, true, false or an expression in parentheses"
CONDITIONS = "a comparison such as amount > 100, or a boolean field"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", f"column 1: the condition is empty; allowed: {CONDITIONS}"),
        (" \n", f"column 1: the condition is empty; allowed: {CONDITIONS}"),
        ("amount", f"column 1: a number is no condition; allowed: {CONDITIONS}"),
        ("is_new and channel", f"column 12: a category is no condition; allowed: {CONDITIONS}"),
        ("'web' or is_new", f"column 1: a text is no condition; allowed: {CONDITIONS}"),
        ("not (amount)", f"column 5: a number is no condition; allowed: {CONDITIONS}"),
        ("1 < 2", f"column 1: the condition reads no field; allowed: {NAMES}"),
        ("amont > 1", f'column 1: "amont" is no declared field; allowed: {NAMES}; did you mean "amount"?'),
        ("is_new == True", f'column 11: "True" is no declared field; allowed: {NAMES}; did you mean "true"?'),
        ("zzz > 1", f'column 1: "zzz" is no declared field; allowed: {NAMES}'),
        ("is_new AND is_vip", 'column 8: "AND" is no operator; allowed: and, or, ==; did you mean "and"?'),
        ("amount > 1 channel", 'column 12: "channel" is no operator; allowed: and, or, =='),
        ("is_new)", 'column 7: ")" is no operator; allowed: and, or, =='),
        ("amount = 1", f'column 8: "=" is no sign of a condition; allowed: {SIGNS}; did you mean "=="?'),
        ("is_new && is_vip", f'column 8: "&" is no sign of a condition; allowed: {SIGNS}; did you mean "and"?'),
        ("is_new | is_vip", f'column 8: "|" is no sign of a condition; allowed: {SIGNS}; did you mean "or"?'),
        ("!is_new", f'column 1: "!" is no sign of a condition; allowed: {SIGNS}; did you mean "not"?'),
        ("amount % 2 == 0", f'column 8: "%" is no sign of a condition; allowed: {SIGNS}'),
        ("is_new\u2028; x", f'column 8: ";" is no sign of a condition; allowed: {SIGNS}'),
        ("is_new\x00", f'column 7: "\\u0000" is no sign of a condition; allowed: {SIGNS}'),
        ("channel == 'web", "column 12: the text \"'web\" has no end; allowed: a ' behind it"),
        ("100x < amount", 'column 1: "100x" is no number; allowed: a number such as 100, 2.5 or 1e6'),
        ("amount > 1.2.3", 'column 10: "1.2.3" is no number; allowed: a number such as 100, 2.5 or 1e6'),
        ("amount > 1e999", 'column 10: "1e999" is too large; allowed: numbers up to 1.79e308'),
        ("amount in [-1e999]", 'column 13: "1e999" is too large; allowed: numbers up to 1.79e308'),
        ("amount > ", f"column 10: the end stands where a value must be; allowed: {VALUES}"),
        ("and is_new", f'column 1: "and" stands where a value must be; allowed: {VALUES}'),
        ("amount > +1", f'column 10: "+" stands where a value must be; allowed: {VALUES}'),
        ("is_new == not is_vip", f'column 11: "not" stands where a value must be; allowed: {VALUES}'),
        ("(is_new", 'column 8: the end stands in place of ")" for the ( at column 1; allowed: )'),
        ("amount is", 'column 10: the end stands in place of "missing" behind "is"; allowed: missing'),
        ("amount is null", 'column 11: "null" stands in place of "missing" behind "is"; allowed: missing'),
        (
            "(amount + 1) is missing",
            "column 14: only a field can be missing; allowed: amount is missing, amount is not missing",
        ),
        ("amount not 5", 'column 12: "5" stands in place of "in" behind "not"; allowed: in'),
        ("amount in 5", 'column 11: "5" stands in place of "[" behind "in"; allowed: ['),
        ("amount in [5", 'column 13: the end stands in place of "]" in the list; allowed: ]'),
        ("amount in []", 'column 12: "]" cannot be in the list; allowed: numbers'),
        ("amount in [1, 'a']", "column 15: 'a' cannot be in the list; allowed: numbers"),
        ("amount in [-'a']", 'column 12: "-" cannot be in the list; allowed: numbers'),
        ("amount in [balance]", 'column 12: "balance" cannot be in the list; allowed: numbers'),
        ("channel in ['a', 5]", 'column 18: "5" cannot be in the list; allowed: texts in quotes'),
        ("is_new in [1]", 'column 12: "1" cannot be in the list; allowed: true, false'),
        ("'a' in ['a']", "column 1: a text is looked for in a list; allowed: a field in front of it"),
        ("amount < 5 in [1]", 'column 12: "in" cannot go on a comparison; allowed: parentheses, or "and"'),
        ("amount in [1] == true", 'column 15: "==" cannot go on a comparison; allowed: parentheses, or "and"'),
        (
            "channel < 'a'",
            'column 9: < compares a category by size; allowed: ==, != and in, such as channel == "web"',
        ),
        ("is_new >= is_vip", "column 8: >= compares a boolean by size; allowed: == and !=, such as is_new == true"),
        ("amount == 'web'", f"column 8: == compares a number with a text; allowed: {PAIRS}"),
        ("1 < amount == channel", f"column 12: == compares a number with a category; allowed: {PAIRS}"),
        ("amount > 1 == true", f"column 12: == compares a number with a condition; allowed: {PAIRS}"),
        ("is_new != 1", f"column 8: != compares a boolean with a number; allowed: {PAIRS}"),
        ("'a' == 'b'", "column 5: == compares two texts; allowed: a category with a text"),
        ("-channel > 2", "column 2: - calculates with a category; allowed: numbers"),
        ("amount + is_new > 2", "column 10: + calculates with a boolean; allowed: numbers"),
        ("'a' * 2 > 2", "column 1: * calculates with a text; allowed: numbers"),
        ("amount / (amount > 2) > 1", "column 10: / calculates with a condition; allowed: numbers"),
    ],
)
def test_a_mistake_gives_one_line(text: str, line: str) -> None:
    """It says at which column, what is wrong and what is allowed."""
    with pytest.raises(ExpressionError) as caught:
        parse(text, KINDS)

    assert str(caught.value) == line
    assert len(line.splitlines()) == 1


def test_without_fields_there_is_no_condition() -> None:
    """The line says so instead of listing nothing."""
    with pytest.raises(ValueError, match=r'^column 1: "amount" is no declared field; allowed: none, as no field'):
        parse("amount > 1", {})


@pytest.mark.parametrize(
    ("opening", "closing", "most", "answer"),
    [("(", ")", 49, True), ("not ", "", 49, False), ("is_vip == (", ")", 24, True)],
)
def test_the_depth_is_limited(opening: str, closing: str, most: int, *, answer: bool) -> None:
    """Fifty levels are read and can be asked; the line says that more are too many."""
    row = {"is_new": True, "is_vip": True}

    assert parse(opening * most + "is_new" + closing * most, KINDS).holds(columns_of([row])).tolist() == [answer]
    with pytest.raises(ExpressionError, match=r"nested too deep; allowed: at most 50 levels$"):
        parse(opening * (most + 1) + "is_new" + closing * (most + 1), KINDS)


def test_the_length_is_limited_and_a_long_chain_is_not_deep() -> None:
    """A thousand characters of operators side by side are one level."""
    text = "amount" + "+1" * 495 + ">1"
    spaces = " " * (1000 - len(text))

    assert parse(text + spaces, KINDS).holds(columns_of([{"amount": -494}, {"amount": -493}])).tolist() == [False, True]
    with pytest.raises(ExpressionError, match=r"^column 1001: a condition of 1001 .* too long; allowed: at most 1000$"):
        parse(text + spaces + " ", KINDS)


def test_the_mistakes_of_the_documentation_are_the_ones_given() -> None:
    """Each line on its page is the line that such a mistake gives."""
    (block,) = re.findall(r"```text\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    kinds = {name: KINDS[name] for name in ("amount", "balance", "channel")}
    lines = []
    for text in ("amont > 1", "channel < 'web'", "amount = 1"):
        with pytest.raises(ExpressionError) as caught:
            parse(text, kinds)
        lines.append(str(caught.value))

    assert block.splitlines() == lines


@given(
    st.text(max_size=30)
    | st.lists(st.sampled_from([*KINDS, *"()[],+-*/<>'", "==", "not ", " in ", " is ", "1"])).map("".join)
)
def test_no_text_breaks_the_reader(text: str) -> None:
    """It is a condition that can be asked, or a mistake of one line."""
    try:
        found = parse(text, KINDS).holds(columns_of([{}, {}]))
    except ExpressionError as error:
        line = str(error)
    else:
        assert found.shape == (2,)
        return

    assert re.match(r"column [0-9]+: ", line)
    assert len(line.splitlines()) == 1
