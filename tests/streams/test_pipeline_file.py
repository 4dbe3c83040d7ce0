"""A right pipeline file becomes frozen structs, with every default filled in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streams.durations import DAY_US, HOUR_US, MINUTE_US
from streams.errors import PipelineError
from streams.pipeline import Condition, Events, Feature, Field, Labels, Model, Pipeline, Run, Serve, Task
from streams.pipeline_file import read_pipeline
from streams.pipeline_models import is_redis_url

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.toml"))

LINEAR: dict[str, bool | int | float | str] = {  # what a linear model of yes and no has where nothing is set
    "optimizer": "sgd",
    "lr": 0.005,
    "intercept_lr": 0.01,
    "l1": 0.0,
    "l2": 0.0,
    "weight_pos": 1.0,
    "weight_neg": 1.0,
    "bits": 18,
}

SMALLEST = """
[pipeline]
name = "shop"
[events]
topic = "visits"
[events.fields]
price = "number"
[labels]
topic = "orders"
id = "visit"
value = "bought"
wait = "1h"
[models.prior]
kind = "prior"
"""

LARGEST = """
[pipeline]
name = "shop-2"
partitions = 8
state = "elsewhere/shop"
[kafka]
bootstrap.servers = "${HOST}:${PORT}"
"socket.keepalive.enable" = true
"linger.ms" = 2
[events]
topic = "records"
id = "visit.id"
time = "at"
time_unit = "ms"
key = "customer.id"
where = { type = "visit", meta.version = 2, "meta.test" = false }
[events.fields]
price = "number"
shop = { type = "category", path = "place.shop" }
is_new = { type = "boolean" }
[labels]
topic = "records"
id = "visit.id"
key = "customer.id"
time = "at"
time_unit = "us"
value = "bought"
where = { type = "order" }
wait = "90m"
keep = "2d"
missing = "0"
most_pending = 500_000
[task]
kind = "binary"
[features]
raw = false
visits = { count = "*", by = "customer.id", window = "1h" }
priced = { count = "price", by = "customer.id", window = "1h" }
spent = { sum = "price", by = "customer.id", window = "30s" }
new_share = { mean = "is_new", by = "customer.id", window = "7d" }
since_last = { elapsed = "*", by = "customer.id" }
hour = { cyclic = "hour" }
[models.logistic]
kind = "linear"
lr = 0.05
bits = 10
[models.tree_1]
kind = "river:tree.HoeffdingTreeClassifier"
grace_period = 50
leaf_prediction = "nb"
[serve]
champion = "tree_1"
start = "latest"
redis = "rediss://${HOST}:6380/2"
redis_ttl = "36h"
[run]
group_protocol = "classic"
snapshot_every = "20s"
align_wait = "0ms"
idle = "2s"
max_skew = "1m"
poll_interval = "9ms"
on_gap = "continue"
max_record_bytes = 1000
max_text_bytes = 100
publish_every = "500ms"
keep_versions = 3
"""


def pipeline_of(text: str, folder: Path, **environment: str) -> Pipeline:
    """Read a pipeline from a text."""
    path = folder / "pipeline.toml"
    path.write_text(text, encoding="utf-8")
    return read_pipeline(path, environment)


def test_the_smallest_file_takes_every_default(tmp_path: Path) -> None:
    """Identity, time and key are the record's own; the first model answers; labels that never come teach nothing."""
    pipeline = pipeline_of(SMALLEST, tmp_path)

    assert pipeline.partitions == 4
    assert pipeline.state == tmp_path / "state" / "shop"
    assert pipeline.kafka == {}
    assert pipeline.events == Events(
        topic="visits",
        id=None,
        time=None,
        time_unit="rfc3339",
        key=None,
        where=(),
        fields=(Field("price", "number", ("price",)),),
    )
    assert pipeline.labels == Labels(
        topic="orders",
        id=("visit",),
        time=None,
        time_unit="rfc3339",
        key=None,
        value=("bought",),
        where=(),
        wait_us=HOUR_US,
        keep_us=HOUR_US,
        missing=None,
    )
    assert pipeline.features == ()
    assert pipeline.raw_features
    assert pipeline.models == (Model("prior", "prior", {}),)
    assert pipeline.serve == Serve("prior", "earliest", None, 7 * DAY_US, is_declared=False)
    assert pipeline.run == Run()
    assert pipeline.source == tmp_path / "pipeline.toml"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ('id = "v"\nkey = "c"\nwait = "2h"\namend = "relearn"', {"amend": "relearn"}),
        ('id = "v"\nmatch = "id"\nwait = "2h"', {"match": "id", "key": None}),
        ('key = "c"\nmatch = "key"\nwithin = "2h"', {"match": "key", "id": None, "within_us": 2 * HOUR_US}),
        ('key = "c"\nmatch = "key"\nwithin = "2d"\nwait = "2h"', {"match": "key", "id": None, "within_us": 2 * DAY_US}),
        (
            'key = "c"\nmatch = "key"\nwithin = "2h"\nwait = "3h"',
            {"match": "key", "id": None, "within_us": 2 * HOUR_US},
        ),
    ],
)
def test_labels_are_matched_as_the_file_says(lines: str, expected: dict[str, Any], tmp_path: Path) -> None:
    """By key an event waits no longer than a label may be newer."""
    text = f"""
        [pipeline]
        name = "shop"
        [events]
        topic = "visits"
        key = "c"
        [events.fields]
        price = "number"
        [labels]
        topic = "orders"
        value = "y"
        {lines}
        [models.prior]
        kind = "prior"
    """
    labels = pipeline_of(text, tmp_path).labels

    assert labels.wait_us == labels.keep_us == 2 * HOUR_US
    found = {name: getattr(labels, name) for name in ("match", "id", "key", "within_us", "amend")}
    usual = {"match": "id and key", "id": ("v",), "key": ("c",), "within_us": 0, "amend": "metrics"}
    assert found == usual | expected


def test_every_key_of_the_file_reaches_its_struct(tmp_path: Path) -> None:
    """What is written is what is meant: paths, conditions, durations, parameters."""
    pipeline = pipeline_of(LARGEST, tmp_path, HOST="kafka", PORT="9092")

    assert (pipeline.name, pipeline.partitions, pipeline.task) == ("shop-2", 8, Task())
    assert pipeline.state == tmp_path / "elsewhere" / "shop"
    assert pipeline.kafka == {
        "bootstrap.servers": "kafka:9092",
        "socket.keepalive.enable": "true",
        "linger.ms": "2",
    }
    assert pipeline.events == Events(
        topic="records",
        id=("visit", "id"),
        time=("at",),
        time_unit="ms",
        key=("customer", "id"),
        where=(
            Condition(("type",), "visit"),
            Condition(("meta", "version"), 2),
            Condition(("meta", "test"), value=False),
        ),
        fields=(
            Field("price", "number", ("price",)),
            Field("shop", "category", ("place", "shop")),
            Field("is_new", "boolean", ("is_new",)),
        ),
    )
    assert pipeline.labels == Labels(
        topic="records",
        id=("visit", "id"),
        time=("at",),
        time_unit="us",
        key=("customer", "id"),
        value=("bought",),
        where=(Condition(("type",), "order"),),
        wait_us=90 * MINUTE_US,
        keep_us=2 * DAY_US,
        missing=0.0,
        most_pending=500_000,
    )
    assert not pipeline.raw_features
    assert pipeline.features == (
        Feature("visits", "count", "*", "customer.id", HOUR_US),
        Feature("priced", "count", "price", "customer.id", HOUR_US),
        Feature("spent", "sum", "price", "customer.id", MINUTE_US // 2),
        Feature("new_share", "mean", "is_new", "customer.id", 7 * DAY_US),
        Feature("since_last", "elapsed", "*", "customer.id"),
        Feature("hour", "cyclic", "hour"),
    )
    assert pipeline.models == (
        Model("logistic", "linear", {**LINEAR, "lr": 0.05, "bits": 10}),
        Model("tree_1", "river:tree.HoeffdingTreeClassifier", {"grace_period": 50, "leaf_prediction": "nb"}),
    )
    assert pipeline.serve == Serve("tree_1", "latest", "rediss://kafka:6380/2", 36 * HOUR_US)
    assert pipeline.run == Run(
        group_protocol="classic",
        snapshot_every_s=20.0,
        align_wait_s=0.0,
        idle_s=2.0,
        max_skew_s=60.0,
        poll_interval_ms=9,
        on_gap="continue",
        max_record_bytes=1_000,
        max_text_bytes=100,
        publish_every_s=0.5,
        keep_versions=3,
    )


def test_a_linear_model_is_given_its_defaults(tmp_path: Path) -> None:
    """The learner need not know them."""
    pipeline = pipeline_of(SMALLEST + '[models.logistic]\nkind = "linear"\n', tmp_path)

    assert pipeline.models[1] == Model("logistic", "linear", LINEAR)
    assert pipeline.serve.champion == "prior"


@pytest.mark.parametrize(("written", "meant"), [('"0"', 0.0), ('"1"', 1.0), ("0", 0.0), ("1.0", 1.0), ('"drop"', None)])
def test_a_missing_label_is_dropped_or_gets_a_value(tmp_path: Path, written: str, meant: float | None) -> None:
    """Text or number mean the same."""
    pipeline = pipeline_of(SMALLEST.replace('wait = "1h"', f'wait = "1h"\nmissing = {written}'), tmp_path)

    assert pipeline.labels.missing == meant


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ('"shop"', "shop"),
        ('["shop"]', "shop"),
        ('["shop", "region"]', ("shop", "region")),
        ('["region", "shop"]', ("shop", "region")),
    ],
)
def test_an_entity_may_be_one_or_more_category_fields(
    tmp_path: Path, written: str, meant: str | tuple[str, ...]
) -> None:
    """Several are one entity in whatever order they are named; a list of one is that one. No key is needed."""
    text = SMALLEST.replace("[labels]", 'shop = "category"\nregion = "category"\n[labels]')
    feature = f'visits = {{ count = "*", by = {written}, window = "1h" }}'
    pipeline = pipeline_of(f"{text}\n[features]\n{feature}\n", tmp_path)

    assert pipeline.features == (Feature("visits", "count", "*", meant, HOUR_US),)


def test_a_category_as_a_number_is_its_own_entity(tmp_path: Path) -> None:
    """One field or several; a target has 20 labels of its prior, and no delay, if nothing else is said."""
    text = SMALLEST.replace("[labels]", 'shop = "category"\nregion = "category"\n[labels]')
    lines = [
        'often = { frequency = ["region", "shop"], window = "1h", exact = true }',
        'risk = { target = "shop", window = "1h", prior = 0.02 }',
    ]
    pipeline = pipeline_of("\n".join([text, "[features]", *lines, ""]), tmp_path)

    assert pipeline.features == (
        Feature("often", "frequency", "*", ("shop", "region"), HOUR_US, is_exact=True),
        Feature("risk", "target", "label", "shop", HOUR_US, prior=0.02, weight=20.0, is_label=True),
    )


def test_an_entity_may_be_named_by_its_field_or_by_its_path(tmp_path: Path) -> None:
    """Both mean the events' key."""
    text = SMALLEST.replace('topic = "visits"', 'topic = "visits"\nkey = "who.id"').replace(
        'id = "visit"', 'id = "visit"\nkey = "who"'
    )
    text = text.replace("[labels]", 'customer = { type = "category", path = "who.id" }\n[labels]')
    for name in ("customer", "who.id"):
        feature = f'visits = {{ count = "*", by = "{name}", window = "1h" }}'
        pipeline = pipeline_of(f"{text}\n[features]\n{feature}\n", tmp_path)

        assert pipeline.features == (Feature("visits", "count", "*", name, HOUR_US),)


def test_events_and_labels_may_share_a_topic_without_where(tmp_path: Path) -> None:
    """One record may be an event and a label at once."""
    pipeline = pipeline_of(SMALLEST.replace('"orders"', '"visits"'), tmp_path)

    assert pipeline.events.topic == pipeline.labels.topic


def test_state_is_found_from_the_file_unless_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same file means the same directory wherever it is started from."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").mkdir()
    for written, meant in (("../there", tmp_path / "there"), ("/var/shop", Path("/var/shop"))):
        path = Path("conf/pipeline.toml")
        path.write_text(SMALLEST.replace('name = "shop"', f'name = "shop"\nstate = "{written}"'), encoding="utf-8")

        assert read_pipeline(path).state == meant


def test_the_environment_is_the_processes_own_unless_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container sets its broker by a variable."""
    monkeypatch.setenv("SHOP_BROKERS", "kafka:9092")
    path = tmp_path / "pipeline.toml"
    path.write_text(SMALLEST + '[kafka]\n"bootstrap.servers" = "${SHOP_BROKERS}"\n', encoding="utf-8")

    assert read_pipeline(path).kafka == {"bootstrap.servers": "kafka:9092"}


def test_a_pipeline_shown_in_a_log_shows_no_secret(tmp_path: Path) -> None:
    """Its text form names the pipeline and no more."""
    pipeline = pipeline_of(SMALLEST + '[kafka]\n"sasl.password" = "hunter2"\n', tmp_path)

    assert pipeline.kafka["sasl.password"] == "hunter2"
    assert "hunter2" not in f"{pipeline} {pipeline!r}"


def test_a_stores_password_comes_from_the_environment_and_is_not_shown(tmp_path: Path) -> None:
    """Expanded as in [kafka], and hidden in every text form of the settings."""
    text = SMALLEST + '[serve]\nredis = "redis://ann:${STORE}@cache/1"\n'
    pipeline = pipeline_of(text, tmp_path, STORE="hunter2")

    assert pipeline.serve.redis == "redis://ann:hunter2@cache/1"
    assert "hunter2" not in f"{pipeline} {pipeline.serve} {pipeline.serve!r}"


@pytest.mark.parametrize(
    ("url", "is_right"),
    [
        ("redis://127.0.0.1:6379/0", True),
        ("redis://cache", True),
        ("rediss://ann:pass%2Fword@cache:6380/3?ssl_ca_certs=/etc/ca.pem", True),
        ("unix:///run/redis.sock?db=1", True),
        ("", False),
        ("127.0.0.1:6379", False),
        ("http://cache", False),
        ("redis:///0", False),
        ("redis://cache:port", False),
        ("redis://cache:0", False),
        ("redis://cache/zero", False),
        ("unix://", False),
        ("redis://[cache", False),
    ],
)
def test_a_store_is_named_by_the_url_of_a_redis(url: str, is_right: bool) -> None:
    """Scheme, host, port and database are looked at before anything is started."""
    assert is_redis_url(url) is is_right


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_right(path: Path) -> None:
    """What we show works."""
    assert read_pipeline(path, environment={}).name


def test_no_value_anywhere_breaks_the_reading(tmp_path: Path) -> None:
    """Whatever stands behind any key, the file is read or its mistakes are told; nothing else is raised."""
    values = ('""', '"x"', "-1", "1e999", "nan", "true", "[1]", "[]", "{ a = 1 }", "{}", "1979-05-27", '"a.b"')
    lines = LARGEST.strip().splitlines()
    mistakes: list[str] = []
    for at, line in enumerate(lines):
        if " = " not in line:
            continue
        for value in values:
            changed = [*lines[:at], f"{line.split(' = ')[0]} = {value}", *lines[at + 1 :]]
            try:
                pipeline_of("\n".join(changed), tmp_path, HOST="kafka", PORT="9092")
            except PipelineError as error:
                mistakes += error.mistakes

    assert mistakes
    assert all(mistake.startswith("[") for mistake in mistakes)
