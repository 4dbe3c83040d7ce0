"""What features cost: counted from the plan, and measured on the state of a task that has filled all its buckets."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pytest

from consumers.featurize import FeatureTask
from streams import feature_costs
from streams.durations import DAY_US, HOUR_US
from streams.entities import SMALLEST_TABLE
from streams.feature_costs import TABLE_LEAST_BYTES, TABLE_MOST_BYTES, EntityCost, FeatureCost, Words
from streams.pipeline import Feature, Field, Pipeline
from streams.pipeline_file import read_pipeline
from streams.windows import ARENA_DEAD, ARENA_END, ENTITIES, KEPT
from tests.aggregate_reference import Row
from tests.featurizing import SECOND, SOURCE, event, label, run, small_pipeline
from tests.rows import events, pipeline

ROOT = Path(__file__).parents[2]
MINUTE = 60 * SECOND
COUNTS = (
    Feature("n", "count", "*", "key", MINUTE),
    Feature("mean", "mean", "amount", "key", 60 * MINUTE),
    Feature("sum", "sum", "amount", "key", 60 * MINUTE),
)
EXTRAS = (
    Feature("std", "std", "amount", "key", MINUTE),
    Feature("least", "min", "amount", "key", MINUTE),
    Feature("most", "max", "amount", "key", 60 * MINUTE, where="amount > 0"),
    Feature("rate", "rate", "is_new", "key", 60 * MINUTE),
)
TRAILS = (
    Feature("was", "last", "amount", "key"),
    Feature("lag", "lag", "amount", "key", k=5),
    Feature("ewm", "ewm_mean", "amount", "key", half_life_us=MINUTE),
    Feature("ewm_std", "ewm_std", "amount", "key", half_life_us=MINUTE),
    Feature("since", "elapsed", "*", "key"),
    Feature("n", "count", "*", "key", MINUTE),
)
LABELS = (
    Feature("rate", "rate", "label", "key", MINUTE, is_label=True),
    Feature("rate_later", "rate", "label", "key", 60 * MINUTE, is_label=True, delay_us=SECOND),
    Feature("n", "count", "*", "key", 60 * MINUTE),
)
PIPELINES = [COUNTS, EXTRAS, TRAILS, LABELS, COUNTS + EXTRAS[:3]]


def test_what_a_feature_shares_is_counted_once() -> None:
    """The first pays for the window; a mean pays for its sum, and not for a counter in half a word that is there."""
    features = (
        Feature("n", "count", "*", "key", DAY_US),
        Feature("mean", "mean", "amount", "key", DAY_US),
        Feature("sum", "sum", "amount", "key", DAY_US),
        Feature("std", "std", "amount", "key", DAY_US),
        Feature("n_7d", "count", "*", "key", 7 * DAY_US),
        Feature("since", "elapsed", "*", "key"),
        Feature("was", "last", "amount", "key"),
        Feature("lag", "lag", "amount", "key", k=3),
        Feature("ewm", "ewm_mean", "amount", "key", half_life_us=HOUR_US),
        Feature("ewm_std", "ewm_std", "amount", "key", half_life_us=HOUR_US),
        Feature("ratio", "ratio", "n", other="n_7d"),
    )
    costs = feature_costs.feature_costs(small_pipeline(features))

    assert costs.features == (
        FeatureCost("n", "key", Words(head=4, windows=1, bucket=1)),
        FeatureCost("mean", "key", Words(head=2, windows=0, bucket=1)),
        FeatureCost("sum", "key", Words()),
        FeatureCost("std", "key", Words(head=6, windows=0, bucket=3)),
        FeatureCost("n_7d", "key", Words(head=4, windows=1, bucket=1)),
        FeatureCost("since", "key", Words()),
        FeatureCost("was", "key", Words(head=3)),
        FeatureCost("lag", "key", Words(head=7)),
        FeatureCost("ewm", "key", Words(head=6)),
        FeatureCost("ewm_std", "key", Words()),
        FeatureCost("ratio", None, Words()),
    )
    assert [cost.name for cost in costs.features if cost.is_shared] == ["sum", "since", "ewm_std"]
    assert costs.entities == (EntityCost("key", Words(head=34, windows=2, bucket=6)),)


def test_a_category_as_a_number_shares_what_its_windows_have() -> None:
    """A frequency is the count's counter, a target the rate's counter and sum; alone they cost the same."""
    counts = (Feature("n", "count", "*", "shop", DAY_US), Feature("often", "frequency", "*", "shop", DAY_US))
    rates = tuple(Feature(how, how, "label", "shop", DAY_US, is_label=True, delay_us=9) for how in ("rate", "target"))
    other = (Feature("sooner", "target", "label", "shop", DAY_US, is_label=True),)
    costs = feature_costs.feature_costs(small_pipeline(counts + rates + other))

    assert [cost.name for cost in costs.features if cost.is_shared] == ["often", "target"]
    assert feature_costs.feature_costs(small_pipeline(counts[1:] + rates[1:])).entities == (
        feature_costs.feature_costs(small_pipeline((counts[0], rates[0]))).entities
    )


def test_bytes_are_those_of_the_layout() -> None:
    """By hand: a chunk has a header, room for 2 buckets when one is filled and for 22 when all are."""
    words = Words(head=34, windows=2, bucket=6)

    assert words.bytes_with(0) == 34 * 8
    assert words.typical_bytes == (34 + 2 + 2 * 6) * 8
    assert words.most_bytes == (34 + 2 + 22 * 6) * 8
    assert EntityCost("key", words).typical_bytes == 39 + 384
    assert EntityCost("key", words).most_bytes == 52 + 1_344
    assert EntityCost("key", words).unpacked_bytes == 52 + 34 * 8 + round(1.875 * 134 * 8)


def test_each_entity_has_state_of_its_own() -> None:
    """Also where features of two entities have a window in common; a field may name the entity that its path is."""
    card = Field("card", "category", ("key",))
    features = (
        Feature("n", "count", "*", "key", DAY_US),
        Feature("by_shop", "count", "*", "shop", DAY_US),
        Feature("n_too", "count", "*", "card", DAY_US),
    )
    costs = feature_costs.feature_costs(pipeline(events=events(fields=(*events().fields, card)), features=features))
    one = Words(head=4, windows=1, bucket=1)

    assert costs.features == (
        FeatureCost("n", "key", one),
        FeatureCost("by_shop", "shop", one),
        FeatureCost("n_too", "key", Words()),
    )
    assert costs.entities == tuple(EntityCost(entity, Words(6, 1, 1)) for entity in ("key", "shop"))


def test_features_of_the_event_alone_cost_nothing() -> None:
    """Without an entity there are no keys to keep."""
    features = (Feature("hour", "cyclic", "hour"), Feature("log", "log1p", "amount"))
    costs = feature_costs.feature_costs(small_pipeline(features))

    assert costs.entities == ()
    assert [cost.is_shared for cost in costs.features] == [False, False]


def measured(of: Pipeline, rows: list[Row]) -> tuple[dict[str, np.ndarray], int]:
    """Give the state of a task that has taken these rows, and the bytes of heads and live chunks in it."""
    task = FeatureTask(of, 0, SOURCE)
    run(task, of, rows)
    state = task.state()
    used = state["windows.used"]
    return state, state["windows.heads"].nbytes + 8 * int(used[ARENA_END] - used[ARENA_DEAD])


def fill(keys: int, bucket_s: list[float], buckets: int) -> list[Row]:
    """Events of each key in so many adjacent buckets of every length and the next one, each with its label."""
    times = [0.0]
    for length_s in sorted(bucket_s, reverse=True):
        times += [times[-1] + length_s * step for step in range(1, buckets + 1)]
    rows = []
    for at, time_s in enumerate(times):
        for key in range(keys):
            rows += [event(f"{key} {at}", time_s, f"k {key}", is_new=1.0), label(f"{key} {at}", time_s, key=f"k {key}")]
    return [*rows, event("last", times[-1] + 1.5)]  # so that the log has reached every label


@pytest.mark.parametrize("features", PIPELINES)
def test_the_computed_worst_case_is_what_a_task_with_full_buckets_holds(features: tuple[Feature, ...]) -> None:
    """Heads and chunks to the byte; the arena with what chunks left behind is never larger than the bound."""
    of, keys = small_pipeline(features), 40
    (cost,) = feature_costs.feature_costs(of).entities
    state, held_bytes = measured(of, fill(keys, [300.0, 5.0], KEPT))
    entities = int(state["windows.used"][ENTITIES])
    last = cost.words.bytes_with(0)  # the last event's key has only a head

    assert entities == keys + 1
    assert held_bytes == keys * cost.words.most_bytes + last
    chunks = cost.words.most_bytes - cost.words.bytes_with(0)
    arena_bytes = 8 * int(state["windows.used"][ARENA_END])
    assert keys * chunks <= arena_bytes <= keys * (cost.unpacked_bytes - cost.most_bytes + chunks) + 8 * 4_096


def test_the_computed_typical_case_is_what_one_bucket_a_window_takes() -> None:
    """An event in the open bucket, one in the bucket before."""
    of, keys = small_pipeline(tuple(feature for feature in EXTRAS if feature.window_us == MINUTE)), 40
    (cost,) = feature_costs.feature_costs(of).entities
    rows = [event(f"{key} {at}", at * 6.0, f"k {key}") for at in range(2) for key in range(keys)]
    _, held_bytes = measured(of, rows)

    assert held_bytes == keys * cost.words.typical_bytes


@pytest.mark.parametrize("keys", [641, 1_280, 1_281])
def test_the_table_of_keys_takes_what_is_said_of_it(keys: int) -> None:
    """It doubles before five eighths of its places are taken; the bounds are those of just grown and full."""
    of = small_pipeline(COUNTS)
    state, _ = measured(of, [event(str(key), 0, f"k {key}") for key in range(keys)])
    table_bytes = state["entities"].nbytes

    assert table_bytes > SMALLEST_TABLE * 16
    assert TABLE_LEAST_BYTES - 1 <= table_bytes / keys <= TABLE_MOST_BYTES


def test_the_numbers_on_the_page_are_the_computed_ones() -> None:
    """docs/features.md says what the features of the bench cost."""
    page = (ROOT / "docs" / "features.md").read_text(encoding="utf-8")
    (cost,) = feature_costs.feature_costs(read_pipeline(ROOT / "tests" / "bench" / "bench.toml", {})).entities
    three = f"{cost.typical_bytes:,}, {cost.most_bytes:,} and {cost.unpacked_bytes:,} bytes a key"

    assert f"For the bench's 16 features that is {three}" in page
    assert f"{8 * cost.words.head} bytes a key for the 16 features of the bench" in page


def test_examples_in_the_docstrings_run() -> None:
    """The numbers in them are the module's."""
    assert doctest.testmod(feature_costs).failed == 0
