"""Which stages features take, what each computes and what travels to the next."""

from __future__ import annotations

import numpy as np

from streams.pipeline import Feature, Field, Pipeline
from streams.planning import make_plan
from streams.stages import KEY, stage_specs, stage_topics
from tests.rows import events, pipeline

DAY = 86_400_000_000
FIELDS = (
    Field("tail", "category", ("key",)),
    Field("carrier", "category", ("carrier",)),
    Field("origin", "category", ("origin",)),
    Field("dest", "category", ("dest",)),
    Field("delay", "number", ("delay",)),
    Field("miles", "number", ("miles",)),
    Field("unread", "number", ("unread",)),
)
FEATURES = (
    Feature("since", "elapsed", "*", "tail"),
    Feature("per_origin", "mean", "delay", "origin", DAY, where="miles > 100 and carrier == 'AA'"),
    Feature("excess", "difference", "delay", other="per_origin"),
    Feature("late", "rate", "label", "carrier", DAY, is_label=True),
    Feature("per_route", "count", "dest", ("origin", "dest"), DAY),
    Feature("per_tail", "count", "*", "key", DAY),
    Feature("share", "ratio", "per_tail", other="per_route"),
    Feature("above", "clip", "excess", low=0.0),
    Feature("day", "cyclic", "hour"),
    Feature("log_miles", "log1p", "miles"),
)


def flights(features: tuple[Feature, ...] = FEATURES, *, raw: bool = True) -> Pipeline:
    """Flights by tail; `tail` is the key's own field."""
    return pipeline(events=events(fields=FIELDS), features=features, raw_features=raw)


def test_features_of_the_key_alone_take_one_stage() -> None:
    """By whatever name the key goes; then there is no topic between."""
    of = flights(tuple(feature for feature in FEATURES if feature.by in (None, "tail", "key")))
    (only,) = stage_specs(pipeline(events=events(fields=FIELDS), features=of.features[:1]))

    assert only.is_only
    assert only.is_last
    assert (only.name, only.reads, only.entity, only.entities) == ("features", "log", KEY, {})
    assert stage_topics(of) == ()


def test_each_other_entity_has_a_stage_between_two_of_the_key() -> None:
    """In the order in which the file names them first."""
    specs = stage_specs(flights())

    assert [spec.entity for spec in specs] == [KEY, ("origin",), ("carrier",), ("origin", "dest"), KEY]
    assert [spec.name for spec in specs] == ["features", "features-2", "features-3", "features-4", "features-5"]
    assert [spec.reads for spec in specs] == ["log", "stage1", "stage2", "stage3", "stage4"]
    assert [spec.is_last for spec in specs] == [False, False, False, False, True]
    assert stage_topics(flights()) == ("stage1", "stage2", "stage3", "stage4")


def test_a_column_is_computed_where_the_last_of_its_operands_is_known() -> None:
    """What needs no entity, or the key, comes first; the last stage computes nothing."""
    names = [[feature.name for feature in spec.features] for spec in stage_specs(flights())]

    assert names == [
        ["since", "per_tail", "day", "log_miles"],
        ["per_origin", "excess", "above"],
        ["late"],
        ["per_route", "share"],
        [],
    ]


def test_fields_and_entities_travel_as_far_as_they_are_read() -> None:
    """Those of conditions too; the texts of entities do not travel, their hashes do."""
    specs = stage_specs(flights())

    assert [[field.name for field in spec.carried] for spec in specs] == [
        ["carrier", "dest", "delay", "miles"],
        ["dest"],
        ["dest"],
        [],
        [],
    ]
    assert [list(spec.entities) for spec in specs] == [[2, 3, 4], [3, 4], [4], [], []]
    assert specs[1].entities == {3: ("carrier",), 4: ("origin", "dest")}


def test_every_column_is_filled_by_one_stage() -> None:
    """At its place in the whole matrix, raw fields first."""
    for is_raw in (True, False):
        plans = [make_plan(flights(raw=is_raw), spec.number) for spec in stage_specs(flights(raw=is_raw))]
        filled = np.concatenate([plan.plan.column_F for plan in plans])

        assert sorted(filled.tolist()) == list(range(len(plans[0].columns)))
        names = [[plan.columns[at].name for at in plan.plan.column_F] for plan in plans]
        assert names[1:] == [["per_origin", "excess", "above"], ["late"], ["per_route", "share"], []]


def test_operands_are_columns_of_the_whole_matrix_or_fields_of_the_stage() -> None:
    """`excess` reads the field `delay` and the column before it; `share` two columns, one of an earlier stage."""
    plans = [make_plan(flights(), number) for number in (2, 4)]
    names = [column.name for column in plans[0].columns]
    fields = [[field.name for field in plan.fields] for plan in plans]

    assert fields == [["carrier", "delay", "miles"], ["dest"]]
    assert plans[0].plan.first_F[1] == -1 - fields[0].index("delay")
    assert plans[0].plan.second_F[1] == names.index("per_origin")
    assert (plans[1].plan.first_F[1], plans[1].plan.second_F[1]) == (names.index("per_tail"), names.index("per_route"))
