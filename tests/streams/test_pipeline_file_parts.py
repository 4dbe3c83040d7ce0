"""What the pipeline file is made of and stands for: durations, Kafka settings, topics, the description."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.bound import Bound
from streams.durations import DAY_US, HOUR_US, LONGEST_US, SECOND_US, duration_text, duration_us
from streams.errors import PipelineError
from streams.features import columns as feature_columns
from streams.kafka_settings import SET_BY_MILLRACE, read_settings, redacted
from streams.pipeline import Feature, Model, Task
from streams.pipeline_description import describe
from streams.pipeline_file import TABLES, read_pipeline
from streams.pipeline_retraining import read_retrain
from streams.retraining import Archive, Retrain
from streams.toml_table import Table, mistake_line, one_line, shown
from streams.topic_specs import TopicSpec, topic_specs

FLIGHTS = Path(__file__).parents[2] / "examples" / "flights.toml"
FREE_TABLES = {"kafka", "features", "entities", "models"}  # the user chooses their keys
WEEK_MS = 7 * 24 * 3_600_000


@pytest.mark.parametrize(
    ("text", "length_us"),
    [("0s", 0), ("4ms", 4_000), ("30s", 30_000_000), ("5m", 300_000_000), ("36h", 36 * HOUR_US), ("7d", 7 * DAY_US)],
)
def test_a_duration_is_a_whole_number_and_a_unit(text: str, length_us: int) -> None:
    """Microseconds, as all times in the pipeline."""
    assert duration_us(text) == length_us


@pytest.mark.parametrize(
    "text", ["", "5", "s", "-1s", "1.5h", "1 h", "1H", "1w", "1h30m", "36501d", "9" * 30 + "s", "٣s"]
)
def test_anything_else_is_no_duration(text: str) -> None:
    """Nor is more than a century."""
    with pytest.raises(ValueError, match=r"is no duration|is over a century"):
        duration_us(text)


@given(st.integers(1, LONGEST_US // SECOND_US), st.sampled_from([1_000, SECOND_US]))
def test_a_duration_written_is_the_duration_read(count: int, unit_us: int) -> None:
    """What `millrace check` prints can be pasted back."""
    assert duration_us(duration_text(count * unit_us)) == count * unit_us


def test_a_duration_is_written_with_its_largest_unit() -> None:
    """No unit is left with a remainder."""
    written = [duration_text(length_us) for length_us in (0, 1_500_000, 60 * SECOND_US, 36 * HOUR_US, DAY_US)]

    assert written == ["0s", "1500ms", "1m", "36h", "1d"]


def test_settings_named_like_a_secret_are_hidden_from_logs() -> None:
    """Passwords, keys, tokens; the rest stays readable."""
    settings = {
        "bootstrap.servers": "kafka:9092",
        "sasl.username": "ann",
        "sasl.password": "hunter2",
        "ssl.key.password": "hunter2",
        "ssl.key.pem": "hunter2",
        "sasl.oauthbearer.client.secret": "hunter2",
        "sasl.oauthbearer.config": "hunter2",
    }
    shown_settings = redacted(settings)

    assert "hunter2" not in str(shown_settings)
    assert shown_settings.keys() == settings.keys()
    assert shown_settings["bootstrap.servers"] == "kafka:9092"
    assert shown_settings["sasl.username"] == "ann"


@pytest.mark.parametrize("key", sorted(SET_BY_MILLRACE))
def test_a_setting_that_exactness_rests_on_is_refused(key: str) -> None:
    """It would silently break what is promised."""
    mistakes: list[str] = []
    settings = read_settings({key: "x"}, {}, mistakes)

    assert settings == {}
    assert len(mistakes) == 1
    assert mistakes[0].startswith(f"[kafka] {key}: Millrace sets this itself")


def test_a_dollar_without_braces_stays_as_it_is() -> None:
    """Passwords hold such signs; a value is expanded once, not again."""
    mistakes: list[str] = []
    settings = read_settings({"sasl.password": "a$b${P}c"}, {"P": "${Q}$"}, mistakes)

    assert settings == {"sasl.password": "a$b${Q}$c"}
    assert mistakes == []


def test_a_variable_may_have_a_default() -> None:
    """As in a shell: the part after `:-` stands in for a variable that is not set."""
    mistakes: list[str] = []
    values = {"bootstrap.servers": "${A:-127.0.0.1:9092}", "client.id": "${B:-x}", "client.rack": "${A:-}"}
    settings = read_settings(values, {"B": "mine"}, mistakes)

    assert settings == {"bootstrap.servers": "127.0.0.1:9092", "client.id": "mine", "client.rack": ""}
    assert mistakes == []


def test_the_topics_of_the_flights() -> None:
    """Partitions, retention and compaction of each; 36 hours and a window of 7 days are longer than a week."""
    keep_ms = WEEK_MS + 36 * 3_600_000

    assert topic_specs(read_pipeline(FLIGHTS, {})) == (
        TopicSpec("flights.departures", 4, keep_ms, is_user_topic=True),
        TopicSpec("flights.arrivals", 4, keep_ms, is_user_topic=True),
        TopicSpec("flights.log", 4, keep_ms),
        TopicSpec("flights.features", 4, keep_ms),
        TopicSpec("flights.examples", 1, keep_ms),
        TopicSpec("flights.scores", 1, keep_ms),
        TopicSpec("flights.control", 1, -1, is_compacted=True),
        TopicSpec("flights.decisions", 1, -1),
        TopicSpec("flights.deadletters", 1, keep_ms),
        TopicSpec("flights.predictions", 4, keep_ms, is_grown=True),
    )


def test_short_pipelines_keep_a_week_and_a_shared_topic_is_listed_once(tmp_path: Path) -> None:
    """A week is the least: somebody must have time to repair a role."""
    path = tmp_path / "pipeline.toml"
    path.write_text(
        '[pipeline]\nname = "shop"\n[events]\ntopic = "all"\nfields = { price = "number" }\n'
        '[labels]\ntopic = "all"\nid = "visit"\nvalue = "bought"\nwait = "1h"\n[models.prior]\nkind = "prior"\n'
    )
    specs = topic_specs(read_pipeline(path))

    assert [spec.name for spec in specs if spec.is_user_topic] == ["all"]
    assert {spec.retention_ms for spec in specs} == {WEEK_MS, -1}


def test_features_of_several_entities_add_stages_and_the_topics_between_them() -> None:
    """Partitioned like the log, in the order rows flow."""
    of = msgspec.structs.replace(
        read_pipeline(FLIGHTS, {}),
        features=(
            Feature("n", "count", "*", ("origin", "dest"), 3_600_000_000),
            Feature("m", "elapsed", "*", "carrier"),
        ),
    )
    specs, stages = topic_specs(of), describe(of).stages

    assert [spec.name for spec in specs][2:7] == [
        "flights.log", "flights.stage1", "flights.stage2", "flights.stage3", "flights.features"
    ]  # fmt: skip
    assert {spec.partitions for spec in specs[2:7]} == {of.partitions}
    assert [(stage.reads, stage.writes, stage.purpose) for stage in stages[1:5]] == [
        (("flights.log",), ("flights.stage1",), "joins labels within 36h, computes the features of tail"),
        (("flights.stage1",), ("flights.stage2",), "computes the features of origin and dest"),
        (("flights.stage2",), ("flights.stage3",), "computes the features of carrier"),
        (
            ("flights.stage3",),
            ("flights.features", "flights.examples"),
            "numbers events by tail, keeps vectors for their labels",
        ),
    ]
    assert describe(of).features[-2].meaning == "count of events of the same origin and dest over the last 1h"


def test_the_description_lists_every_column_in_order() -> None:
    """Raw fields first, then features as declared; a cyclic one takes two columns."""
    description = describe(read_pipeline(FLIGHTS, {}))
    columns = [column for line in description.features for column in line.columns]

    assert columns[:3] == ["carrier", "origin", "dest"]
    assert columns[-4:] == ["hour_sin", "hour_cos", "weekday_sin", "weekday_cos"]
    assert columns == [column.name for column in feature_columns(read_pipeline(FLIGHTS, {}))]
    assert len(columns) == len(set(columns))
    assert [line.name for line in description.features if line.is_category] == ["carrier", "origin", "dest"]


@pytest.mark.parametrize(
    ("said", "cooldown_us"),
    [
        ({}, DAY_US),
        ({"every": "6h"}, 6 * HOUR_US),
        ({"every": "7d"}, DAY_US),
        ({"examples": 500}, DAY_US),
        ({"every": "6h", "cooldown": "2d"}, 2 * DAY_US),
        ({"every": "6h", "cooldown": "0s"}, 0),
    ],
)
def test_the_usual_cool_down_is_a_day_and_no_longer_than_the_time_between_trainings(
    said: dict[str, str | int], cooldown_us: int
) -> None:
    """Else `every = "6h"` would train once a day, and nothing would say so."""
    mistakes: list[str] = []
    found = read_retrain(Table("models.net", {"retrain": said}, mistakes), "torch:mlp", Task())

    assert (found.cooldown_us, mistakes) == (cooldown_us, [])


def test_the_description_says_when_candidates_are_trained_and_by_which_role() -> None:
    """In the words of the file, and only what is not as usual."""
    retrain = Retrain(
        every_us=7 * DAY_US, examples=5_000, window_us=90 * DAY_US, budget_s=300.0, start="fresh", then="learn"
    )
    net = Model("net", "torch:mlp", {"hidden": (8,)}, retrain=retrain)
    plain = Model("plain", "torch:mlp", {}, retrain=Retrain())
    of = msgspec.structs.replace(read_pipeline(FLIGHTS, {}), models=(net, plain), archive=Archive(365 * DAY_US))
    description = describe(of)
    role = description.stages[-1]

    assert description.models[0].params == {
        "hidden": (8,),
        "retrain": {
            "every": "7d",
            "examples": 5_000,
            "window": "90d",
            "budget": "5m",
            "start": "fresh",
            "then": "learn",
        },
    }
    assert description.models[1].params == {}
    assert (role.role, role.reads) == ("train", ("flights.examples",))
    assert role.writes == ("flights.examples", "flights.decisions")
    assert role.purpose == "archives examples for 365d, trains: net, plain"


def test_the_description_follows_the_rows_through_the_roles() -> None:
    """Every topic a role reads is a user's or written by a role before it."""
    description = describe(read_pipeline(FLIGHTS, {}))
    written = {spec.name for spec in description.topics if spec.is_user_topic}
    for stage in description.stages:
        assert set(stage.reads) <= written, stage.role

        written |= set(stage.writes)

    assert [stage.role for stage in description.stages] == ["ingest", "features", "learn", "serve", "train"]
    assert description.stages[-2].purpose == "answers with logistic, keeps the last of each key in Redis for 7d"
    assert [model.name for model in description.models if model.is_champion] == ["logistic"]


BOUNDED = """
[pipeline]
name = "shop"
partitions = 3
[events]
topic = "visits"
key = "customer"
fields = { shop = "category", region = "category" }
[labels]
topic = "orders"
id = "visit"
key = "customer"
value = "bought"
wait = "1h"
[features]
since = { elapsed = "*", by = "customer" }
of_both = { elapsed = "*", by = ["shop", "region"] }
of_region = { elapsed = "*", by = "region" }
[entities.customer]
ttl = "90d"
[entities.places]
by = ["region", "shop"]
ttl = "36h"
most = 1_000
[models.prior]
kind = "prior"
"""


def test_bounds_of_entities_are_read_and_described(tmp_path: Path) -> None:
    """By the key, or by fields in whatever order; each stage says its own, and an entity without a table none."""
    path = tmp_path / "shop.toml"
    path.write_text(BOUNDED)
    pipeline = read_pipeline(path)

    assert pipeline.bounds == (
        Bound("customer", ttl_us=90 * DAY_US),
        Bound(("shop", "region"), ttl_us=36 * HOUR_US, most=1_000),
    )
    assert [stage.purpose for stage in describe(pipeline).stages if stage.role.startswith("features")] == [
        "joins labels within 1h, computes the features of customer, known for 90d after its last row",
        "computes the features of shop and region, known for 36h after its last row, at most 1,000 (334 a partition)",
        "computes the features of region",
        "numbers events by customer, keeps vectors for their labels",
    ]


def test_a_mistake_is_short_and_on_one_line() -> None:
    """Long values are cut, odd characters escaped."""
    assert len(shown("x" * 1_000)) == 60
    assert one_line("a\nb\x1b") == "a\\nb\\x1b"
    assert mistake_line("[run] idel", "unknown key", "idle", "idel", ["idle"]) == (
        '[run] idel: unknown key; allowed: idle; did you mean "idle"?'
    )
    assert mistake_line("[run] zzz", "unknown key", "", "zzz", ["idle"]) == "[run] zzz: unknown key"


def test_every_key_is_in_the_manual(tmp_path: Path) -> None:
    """What a mistake's line allows, docs/pipeline.md explains."""
    manual = (FLIGHTS.parents[1] / "docs" / "pipeline.md").read_text(encoding="utf-8")
    path = tmp_path / "pipeline.toml"
    path.write_text("\n".join(f"[{table}]\nzzz = 1\n" for table in TABLES if table not in FREE_TABLES))
    with pytest.raises(PipelineError) as caught:
        read_pipeline(path)
    mistakes = [line for line in caught.value.mistakes if " zzz: unknown key" in line]
    keys = {key for line in mistakes for key in line.split("allowed: ")[1].split(", ")}

    assert len(mistakes) == len(TABLES) - len(FREE_TABLES)
    assert {key for key in keys if f"`{key}" not in manual} == set()


@pytest.mark.parametrize(
    ("task", "missing", "expected", "counts_as"),
    [
        ('kind = "multiclass"\nclasses = ["shirt", "hat"]', '"hat"', Task("multiclass", ("shirt", "hat")), 1.0),
        ('kind = "multiclass"\nclasses = [3, 1, 2]', "3", Task("multiclass", ("3", "1", "2")), 0.0),
        ('kind = "regression"', "-2.5", Task("regression"), -2.5),
        ('kind = "regression"', '"drop"', Task("regression"), None),
    ],
)
def test_a_label_is_one_of_the_classes_or_a_number(
    task: str, missing: str, expected: Task, counts_as: float | None, tmp_path: Path
) -> None:
    """A label that never came counts as one of them, too, where the file says so."""
    file = tmp_path / "shop.toml"
    file.write_text(
        '[pipeline]\nname = "shop"\n[kafka]\n"bootstrap.servers" = "kafka:9092"\n'
        '[events]\ntopic = "all"\nid = "visit"\n[events.fields]\nprice = "number"\n'
        f'[labels]\ntopic = "all"\nid = "visit"\nvalue = "bought"\nwait = "1h"\nmissing = {missing}\n'
        f'[task]\n{task}\n[models.prior]\nkind = "prior"\n'
    )
    pipeline = read_pipeline(file)

    assert pipeline.task == expected
    assert pipeline.labels.missing == counts_as
    assert pipeline.task.outputs == max(1, len(expected.classes))
