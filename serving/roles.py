"""Any role by its name: what `millrace run ROLE FILE` does."""

from __future__ import annotations

from consumers.process import RoleProcess
from consumers.roles import add_workers
from serving.champion import Champion
from serving.predict import ServeRole
from streams import features, frames
from streams.errors import PipelineError
from streams.lightness import stay_light
from streams.pipeline import Pipeline
from streams.stages import stage_specs

ROLES = ("ingest", "features", "learn", "serve")


def run_role(
    role: str,
    pipeline: Pipeline,
    models: list[str] | None = None,
    metrics: str | None = None,
    instance: str | None = None,
    stage: int | None = None,
    *,
    is_replay: bool = False,
) -> None:
    """Run one process of a role until it is told to stop.

    Args:
        role: its name.
        pipeline: the pipeline.
        models: learn: only these candidates.
        metrics: `host:port` for /metrics.
        instance: a name that keeps partitions over a restart.
        stage: features: only this stage, where there are several; None runs all in one process.
        is_replay: the input is history with marks.

    Raises:
        MillraceError: whatever ends the process; its exit code is the process's.
    """
    unknown = [name for name in models or [] if name not in {model.name for model in pipeline.models}]
    if role not in ROLES or unknown:
        wrong, allowed = (role, ROLES) if role not in ROLES else (unknown[0], [m.name for m in pipeline.models])
        raise PipelineError([f"no role or model {wrong!r}; allowed: {', '.join(allowed)}"])
    last = stage_specs(pipeline)[-1].number
    if stage is not None and (role != "features" or not 1 <= stage <= last):
        wrong = f"features has {last} stage{'s' if last > 1 else ''}" if role == "features" else f"{role} has no stages"
        raise PipelineError([f"--stage {stage}: {wrong} in {pipeline.name}; allowed: features with 1 to {last}"])
    if role != "learn" or not any(
        m.kind.startswith("river:") for m in pipeline.models if not models or m.name in models
    ):
        stay_light()
    process = RoleProcess(pipeline, role, metrics, instance, is_replay=is_replay)
    if role == "serve":
        _add_serve(process)
    else:
        add_workers(process, role, models, stage)
    process.run()


def _add_serve(process: RoleProcess) -> None:
    pipeline = process.pipeline
    columns = features.columns(pipeline)
    model = next(model for model in pipeline.models if model.name == pipeline.serve.champion)
    champion = Champion(model, columns, pipeline.state, process.control, process.metrics)
    schema = frames.features_schema(columns)
    topic = f"{pipeline.name}.features"
    start = pipeline.serve.start
    process.add(lambda control, _, metrics: ServeRole(topic, schema, control, champion, metrics, start))
