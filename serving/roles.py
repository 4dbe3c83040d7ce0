"""Any role by its name: what `millrace run ROLE FILE` does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from consumers.process import RoleProcess
from consumers.roles import add_workers
from serving.champion import Champion
from serving.key_script import form_of, warm
from serving.online_store import OnlineStore
from serving.predict import ServeRole
from streams import features, frames
from streams.decisions import KafkaDecisionLog, Succession
from streams.durations import MS_US
from streams.errors import PipelineError
from streams.frames import Column
from streams.lightness import has_river, stay_light
from streams.pipeline import Pipeline
from streams.served import SERVED, has_served
from streams.stages import stage_specs

ROLES = ("ingest", "features", "learn", "serve", "train", "api", "select")


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
        models: learn: only these candidates; `served` is the stream that scores answers.
        metrics: `host:port` for /metrics.
        instance: a name that keeps partitions over a restart.
        stage: features: only this stage, where there are several; None runs all in one process.
        is_replay: the input is history with marks.

    Raises:
        MillraceError: whatever ends the process; its exit code is the process's.
    """
    known = [*(model.name for model in pipeline.models), *([SERVED] if has_served(pipeline) else [])]
    unknown = [name for name in models or [] if name not in known]
    if role not in ROLES or unknown:
        wrong, allowed = (role, ROLES) if role not in ROLES else (unknown[0], known)
        raise PipelineError([f"no role or model {wrong!r}; allowed: {', '.join(allowed)}"])
    if role == "train" and pipeline.archive is None:
        line = "no examples are kept to train from; declare [archive], or a model of a kind torch:… or sklearn:…"
        raise PipelineError([f"train: {line}"])
    if role == "select" and pipeline.select is None:
        raise PipelineError(["select: nothing says how the champion is chosen; declare [select]"])
    last = stage_specs(pipeline)[-1].number
    if stage is not None and (role != "features" or not 1 <= stage <= last):
        wrong = f"features has {last} stage{'s' if last > 1 else ''}" if role == "features" else f"{role} has no stages"
        raise PipelineError([f"--stage {stage}: {wrong} in {pipeline.name}; allowed: features with 1 to {last}"])
    if role == "api":
        from serving.api_server import run_api  # FastAPI is 40 MiB that no other role needs

        run_api(pipeline, metrics)
        return
    if role == "select":
        from consumers.selector import run_selector  # Faust is for this role alone

        run_selector(pipeline, metrics)
        return
    if not has_river(pipeline, role, models or []):
        stay_light()
    process = RoleProcess(pipeline, role, metrics, instance, is_replay=is_replay)
    if role == "serve":
        _run_serve(process)
    else:
        add_workers(process, role, models, stage)
        process.run()


def _run_serve(process: RoleProcess) -> None:
    pipeline = process.pipeline
    columns = features.columns(pipeline)
    store = _online_store(process, columns)
    keep = store.put if store is not None else None
    decisions = KafkaDecisionLog(pipeline)
    succession = Succession.of(pipeline, decisions)
    succession.catch_up()
    loader = ThreadPoolExecutor(1, "versions").submit  # a large model takes as long as many answers, which go on
    champion = Champion(
        pipeline.models,
        columns,
        process.state,
        process.control,
        process.metrics,
        loader,
        pipeline.task,
        succession,
        pipeline.serve.split_to,
        pipeline.serve.split,
    )
    champion.settle()
    schema = frames.features_schema(columns)
    topic = f"{pipeline.name}.features"
    start = pipeline.serve.start
    is_explained = pipeline.serve.is_explained
    process.add(
        lambda control, _, metrics: ServeRole(
            topic, schema, control, champion, metrics, start, keep=keep, is_explained=is_explained
        )
    )
    if store is not None:
        store.start()  # not before: the rows that warm the role are no answers
    process.run()
    if store is not None:
        store.close()
    decisions.close()


def _online_store(process: RoleProcess, columns: tuple[Column, ...]) -> OnlineStore | None:
    """Make the online store if the pipeline has one; its client is loaded only then (22 MiB)."""
    pipeline = process.pipeline
    if pipeline.serve.redis is None:
        return None
    from serving.redis_door import RedisDoor

    topic_id = process.topics.uuid(f"{pipeline.name}.features") or ""
    names = [column.name for column in columns]
    form = form_of(pipeline.name, names, pipeline.serve.redis_ttl_us // MS_US, topic_id)
    warm(form)
    return OnlineStore(RedisDoor(pipeline.serve.redis, form), process.metrics)
