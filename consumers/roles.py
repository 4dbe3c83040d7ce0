"""The workers of one process: one role, or one of several candidates or stages of it.

Serve is above this package: serving/roles.py.
"""

from __future__ import annotations

from collections.abc import Callable

from consumers.features_role import FeaturesRole
from consumers.ingest import IngestRole
from consumers.learn_role import LearnRole
from consumers.process import RoleProcess
from consumers.served_role import ServedRole
from streams.control import Control
from streams.decisions import KafkaDecisionLog, Succession
from streams.kafka import Outbox
from streams.metrics import RoleMetrics
from streams.pipeline import Model, Pipeline
from streams.served import SERVED, has_served
from streams.stages import stage_specs, stage_topic


def add_workers(process: RoleProcess, role: str, models: list[str] | None, stage: int | None) -> None:
    """Add the workers of one process: one, one per candidate, or one per stage of features."""
    pipeline, is_replay = process.pipeline, process.is_replay
    if role == "ingest":
        process.add(lambda _, outbox, metrics: IngestRole(pipeline, outbox, metrics, is_replay=is_replay))
    elif role == "features":
        for spec in stage_specs(pipeline):
            if stage in (None, spec.number):
                process.add(_features(pipeline, spec.number), "" if spec.number == 1 else stage_topic(spec.number))
    elif role == "learn":
        succession = Succession.of(pipeline, KafkaDecisionLog(pipeline))
        succession.catch_up()
        for model in pipeline.models:
            if models is None or model.name in models:
                process.add(_learn(pipeline, model, succession), model.name)
        if has_served(pipeline) and (models is None or SERVED in models):
            process.add(lambda control, _, metrics: ServedRole(pipeline, control, metrics), SERVED)
    elif role == "train":
        from consumers.retrain import TrainRole  # no other process needs the archive

        process.add(lambda control, outbox, metrics: TrainRole(pipeline, control, outbox, metrics))
    else:
        raise ValueError(role)


def _features(pipeline: Pipeline, number: int) -> Callable[[Control, Outbox, RoleMetrics], FeaturesRole]:
    return lambda control, *_: FeaturesRole(pipeline, control, number)


def _learn(
    pipeline: Pipeline, model: Model, succession: Succession
) -> Callable[[Control, Outbox, RoleMetrics], LearnRole]:
    return lambda control, outbox, metrics: LearnRole(pipeline, model, control, outbox, metrics, succession)
