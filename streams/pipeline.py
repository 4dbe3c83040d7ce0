"""The pipeline: what one TOML file declares, as frozen structs with units in the names.

`pipeline_file.read_pipeline` makes these; everything else only reads them. A struct that exists is valid.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from streams.bound import Bound
from streams.drift import RELEARN_ROWS, Drift, OnDrift
from streams.retraining import Archive, Retrain
from streams.selecting import Select

FieldKind = Literal["number", "category", "boolean"]
TimeUnit = Literal["rfc3339", "s", "ms", "us", "ns"]
FieldPath = tuple[str, ...]
Operation = Literal[
    "count", "sum", "mean", "std", "min", "max", "rate", "distinct", "quantile",
    "last", "lag", "ewm_mean", "ewm_std", "elapsed",
    "frequency", "target",
    "cyclic", "calendar", "ratio", "difference", "log1p", "clip", "bucketise", "one_hot", "hash",
]  # fmt: skip

LARGEST_LABEL = 1e30  # of a regression: models square labels, and sum that up
Amend = Literal["metrics", "relearn"]
Match = Literal["id and key", "id", "key"]
TaskKind = Literal["binary", "multiclass", "regression", "anomaly", "clustering"]

BUCKETS_PER_WINDOW = 12
MOST_PENDING = 10_000_000  # events of a partition that wait for their label, unless the file says otherwise


class Task(msgspec.Struct, frozen=True):
    """What the label is, and so what models answer.

    A label travels as one float64: 0 or 1, the place of its class among `classes`, or the number itself.

    Attributes:
        kind: of the task.
        classes: of a multiclass label, in the file's order.
        threshold: an anomaly score from here on raises an alert; a binary probability is yes.
        alert: of anomalies, the share of events to alert on; then each model has a threshold that moves.
    """

    kind: TaskKind = "binary"
    classes: tuple[str, ...] = ()
    threshold: float = 0.5
    alert: float | None = None

    def __str__(self) -> str:
        """Name all there is to a task: two that differ are two texts."""
        if self.kind != "anomaly":
            return self.label
        return f"{self.label}, " + (f"threshold {self.threshold:g}" if self.alert is None else f"alert {self.alert:g}")

    @property
    def label(self) -> str:
        """Name the kind and all classes in their order: what a label means to the rows that carry it."""
        return ", ".join([self.kind, *self.classes])

    @property
    def is_yes_or_no(self) -> bool:
        """Whether a label is 0 or 1."""
        return self.kind in ("binary", "anomaly")

    @property
    def is_unsupervised(self) -> bool:
        """Whether models learn every event, also where no label comes."""
        return self.kind in ("anomaly", "clustering")

    @property
    def outputs(self) -> int:
        """How many numbers a prediction has (models/learner.py says which)."""
        if self.kind == "clustering":
            return 3
        return 2 if self.alert is not None else max(1, len(self.classes))


class Field(msgspec.Struct, frozen=True):
    """One declared field of an event; `path` leads to it inside the JSON record."""

    name: str
    kind: FieldKind
    path: FieldPath


class Condition(msgspec.Struct, frozen=True):
    """One `where` equality: the record counts only when the value at `path` equals `value`."""

    path: FieldPath
    value: str | bool | int | float


class Events(msgspec.Struct, frozen=True):
    """Where events come from. `id`, `time`, `key` are None when not declared (see the defaults in docs/pipeline.md)."""

    topic: str
    id: FieldPath | None
    time: FieldPath | None
    time_unit: TimeUnit
    key: FieldPath | None
    where: tuple[Condition, ...]
    fields: tuple[Field, ...]


class Labels(msgspec.Struct, frozen=True):
    """Where labels come from, how long an event waits for one, and how many may wait in a partition.

    `missing` None means: not learned. A pipeline without labels has some that are not declared: no record is one, and
    an event is settled at once. `amend` says what an amended or retracted label changes whose event was settled before:
    the metrics alone, or the model too. `match` says by what a label finds its event; by the key alone it is the oldest
    that waits and is less than `within_us` older than the label, and `id` is None.
    """

    topic: str
    id: FieldPath | None
    time: FieldPath | None
    time_unit: TimeUnit
    key: FieldPath | None
    value: FieldPath
    where: tuple[Condition, ...]
    wait_us: int
    keep_us: int
    missing: float | None
    most_pending: int = MOST_PENDING
    is_declared: bool = True
    amend: Amend = "metrics"
    match: Match = "id and key"
    within_us: int = 0

    @property
    def is_relearned(self) -> bool:
        """Whether an amended label is learned once more, for which vectors are kept."""
        return self.amend == "relearn"


class Feature(msgspec.Struct, frozen=True):
    """One declared feature; what is not said of its operation stays at its default.

    Attributes:
        of: a field's name, `*`, for cyclic the period (`hour`, `weekday`, `month`), for calendar `weekend` or `night`;
            what is computed from the event alone may name a feature declared before.
        by: what names the entity: the key, a category field, or several in their declared order.
        window_us: how far back.
        where: only rows for which this condition holds count.
        is_exact: the window keeps its events, and is no bucket longer or shorter than it says.
        is_label: it is of the label, not of a field; `of` is `label`. Labels count from their time + `delay_us` on.
        other: the second operand of ratio and difference.
        half_life_us: of ewm_mean and ewm_std.
        k: of lag: 1 is the row before.
        q: of quantile, between 0 and 1.
        precision: of distinct: 2^precision registers.
        low, high: of clip.
        edges: of bucketise, ascending.
        values: of one_hot.
        buckets: of hash; 0 keeps the whole code.
        prior, weight: of target: so many labels of this value are counted besides.
    """

    name: str
    operation: Operation
    of: str
    by: str | tuple[str, ...] | None = None
    window_us: int | None = None
    where: str | None = None
    other: str | None = None
    half_life_us: int | None = None
    k: int = 1
    q: float = 0.5
    precision: int = 8
    low: float | None = None
    high: float | None = None
    edges: tuple[float, ...] = ()
    values: tuple[str, ...] = ()
    buckets: int = 0
    prior: float = 0.5
    weight: float = 20.0
    is_label: bool = False
    delay_us: int = 0
    is_exact: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns it fills: a cyclic feature is a point on a circle, one_hot has one for each value."""
        if self.operation == "cyclic":
            return (f"{self.name}_sin", f"{self.name}_cos")
        if self.operation == "one_hot":
            return tuple(f"{self.name}_{value}" for value in self.values)
        return (self.name,)


class Model(msgspec.Struct, frozen=True):
    """One candidate: `kind` is as docs/learning.md says; `params`, all of it plain JSON, go to its constructor.

    It learns this `sample` of labelled events, a share above 0 up to all of them, in so many `shards` at a time.
    `on_drift` is what an alarm on its loss does to it; it is relearned from the last `relearn_rows` examples. `retrain`
    says when it is trained from the archive; None: it learns online.
    """

    name: str
    kind: str
    params: Mapping[str, Any]
    sample: float = 1.0
    shards: int = 1
    on_drift: OnDrift = "none"
    relearn_rows: int = RELEARN_ROWS
    retrain: Retrain | None = None


class Serve(msgspec.Struct, frozen=True):
    """Which candidate answers, where serving begins when nothing is known of it, and the online store (None: none).

    `http` is the address of the HTTP API, host and port; None: there is none. Who asks it shows the `token`, if any.
    A share `split` of the keys is answered by the candidate `split_to` in place of the champion.
    Answers say what moved them if they are to be explained. Only where the file declares the table they are scored.
    """

    champion: str
    start: Literal["earliest", "latest"] = "earliest"
    redis: str | None = None
    redis_ttl_us: int = 604_800_000_000
    http: tuple[str, int] | None = None
    token: str | None = None
    split: float = 0.0
    split_to: str | None = None
    is_explained: bool = False
    is_declared: bool = True

    def __repr__(self) -> str:
        """Leave out the store's URL, which may hold a password, and the token."""
        has = f"has_redis={self.redis is not None}, has_token={self.token is not None}"
        return f"Serve(champion={self.champion!r}, start={self.start!r}, http={self.http!r}, {has})"


class Run(msgspec.Struct, frozen=True):
    """How workers run; every setting has a default that suits one machine."""

    group_protocol: Literal["consumer", "classic"] = "consumer"
    snapshot_every_s: float = 10.0
    align_wait_s: float = 0.5
    idle_s: float = 5.0
    max_skew_s: float = 300.0
    poll_interval_ms: int = 6
    on_gap: Literal["stop", "continue"] = "stop"
    max_record_bytes: int = 65_536
    max_text_bytes: int = 1_024
    publish_every_s: float = 1.0
    keep_versions: int = 10


class Pipeline(msgspec.Struct, frozen=True):
    """A whole pipeline file.

    `state` is a directory of this machine. It has everything, or, where `state_url` names an object store for snapshots
    and models, only what concerns this machine: logs, targets, embedded servers. Without an `archive` settled examples
    are kept nowhere but in their topic, and without `select` nobody but people changes the champion.
    """

    name: str
    partitions: int
    state: Path
    kafka: dict[str, str]
    events: Events
    labels: Labels
    task: Task
    features: tuple[Feature, ...]
    raw_features: bool
    models: tuple[Model, ...]
    serve: Serve
    run: Run
    source: Path | None = None
    state_url: str | None = None
    bounds: tuple[Bound, ...] = ()
    drift: Drift = Drift()
    archive: Archive | None = None
    select: Select | None = None

    def __repr__(self) -> str:
        """Name the pipeline and no more: its Kafka settings may hold secrets."""
        return f"Pipeline(name={self.name!r}, source={str(self.source)!r})"
