"""Preparing an installation: kernels compiled and Kafka fetched once, so that no first event waits for either.

`python -m serving.prepare`, which the Makefile runs after installing. Everything here is also done on first use.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path

import msgspec

from consumers.features_role import FeaturesRole
from consumers.ingest import IngestRole
from consumers.learn_role import LearnRole
from consumers.warming import NoOutbox, warm
from serving import key_script
from serving.champion import Champion
from serving.predict import ServeRole
from streams import features, frames
from streams.control import Control
from streams.embedded import prepare_kafka
from streams.errors import UnavailableError
from streams.metrics import RoleMetrics
from streams.pipeline import Model, Pipeline
from streams.pipeline_file import read_pipeline
from streams.stages import stage_specs

_PIPELINE = """
[pipeline]
name = "prepare"
[events]
topic = "prepare.events"
id = "id"
key = "key"
time = "time"
[events.fields]
amount = "number"
shop = "category"
[labels]
topic = "prepare.labels"
id = "id"
key = "key"
time = "time"
value = "label"
wait = "1h"
[task]
kind = "binary"
[features]
mean = { mean = "amount", by = "key", window = "1h" }
here = { mean = "amount", by = "shop", window = "1h" }
since = { elapsed = "*", by = "key" }
hour = { cyclic = "hour" }
[models.linear]
kind = "linear"
[models.prior]
kind = "prior"
"""


def compile_kernels(pipeline: Pipeline) -> None:
    """Take made-up rows through every role; numba keeps what it compiles on disk."""
    metrics = RoleMetrics("prepare", pipeline.name)
    warm(lambda _: IngestRole(pipeline, NoOutbox(), metrics, is_replay=True), pipeline)
    for spec in stage_specs(pipeline):
        warm(partial(FeaturesRole, pipeline, number=spec.number), pipeline)
    for model in pipeline.models:
        warm(partial(LearnRole, pipeline, model, outbox=NoOutbox(), metrics=metrics), pipeline)
        warm(partial(_serve, pipeline, model, metrics), pipeline)
    key_script.warm(key_script.form_of(pipeline.name, [column.name for column in features.columns(pipeline)], 1, ""))


def _serve(pipeline: Pipeline, model: Model, metrics: RoleMetrics, control: Control) -> ServeRole:
    columns = features.columns(pipeline)
    champion = Champion([model], columns, pipeline.state, control, metrics, task=pipeline.task)
    return ServeRole("", frames.features_schema(columns), control, champion, metrics, "earliest")


def main() -> None:
    """Prepare, saying what takes long; without a network only Kafka is left for later."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "prepare.toml"
        path.write_text(_PIPELINE)
        print("compiling kernels (once, about half a minute) …", flush=True)
        compile_kernels(msgspec.structs.replace(read_pipeline(path), state=Path(directory)))
    print("fetching Kafka for embedded mode (once) …", flush=True)
    try:
        prepare_kafka()
    except UnavailableError as error:
        print(f"{error}; embedded mode will try again", file=sys.stderr)


if __name__ == "__main__":
    main()
