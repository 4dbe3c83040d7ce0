"""The settings of a kind of model are read by one table: their types, bounds, and defaults that hang together."""

from __future__ import annotations

from typing import Any

import pytest

from streams.model_kinds import read_settings
from streams.model_setting import Value
from streams.pipeline import Task
from streams.toml_table import Table

CLASSES = Task("multiclass", tuple("abcdefghij"))


def read(kind: str, values: dict[str, Any], task: Task | None = None) -> tuple[dict[str, Value], list[str]]:
    mistakes: list[str] = []
    table = Table("models.m", values, mistakes)
    found = read_settings(table, kind, task or Task())
    table.finish()
    return found, mistakes


def test_a_list_of_whole_numbers_is_a_setting_like_any() -> None:
    assert read("mlp", {"hidden": [128, 64, 8]})[0]["hidden"] == (128, 64, 8)
    assert read("mlp", {})[0]["hidden"] == (64, 32)


@pytest.mark.parametrize(
    ("hidden", "found"),
    [
        ([], "a list of 0"),
        ([1] * 9, "a list of 9"),
        (64, "64"),
        ("64", '"64"'),
        ([64, 0], "0 in the list"),
        ([64, 1025], "1025 in the list"),
        ([64.0], "64.0 in the list"),
        ([True], "true in the list"),
        ([64, [32]], "a list in the list"),
    ],
)
def test_a_wrong_list_says_which_entry_is_wrong(hidden: Any, found: str) -> None:
    settings, mistakes = read("mlp", {"hidden": hidden})

    form = "a list of 1 to 8 whole numbers from 1 to 1024"
    assert mistakes == [f"[models.m] hidden: {found} is not right; allowed: {form}"]
    assert settings["hidden"] == (64, 32)


def test_a_default_may_hang_on_another_settings_word() -> None:
    assert read("mlp", {})[0]["lr"] == 0.05
    assert read("mlp", {"optimizer": "adam"})[0]["lr"] == 0.003
    assert read("mlp", {"optimizer": "adam", "lr": 0.01})[0]["lr"] == 0.01


def test_many_classes_make_a_table_smaller_only_where_it_has_a_column_for_each() -> None:
    assert read("linear", {}, CLASSES)[0]["bits"] == 16
    assert read("mlp", {}, CLASSES)[0]["bits"] == 12


def test_a_table_too_large_for_its_layer_is_refused_with_what_is_allowed() -> None:
    assert read("mlp", {"bits": 18, "hidden": [64]})[1] == []
    assert read("mlp", {"bits": 19, "hidden": [64]})[1] == [
        "[models.m] bits: 524,288 categories for 64 units are more than 16,777,216 weights; allowed: up to 18"
    ]
