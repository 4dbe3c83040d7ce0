"""Jobs: which processes a pipeline needs, each a command line of its own for the supervisor to keep up."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import msgspec

from streams.errors import PipelineError
from streams.model_kinds import ONLINE_KINDS
from streams.pipeline import Pipeline
from streams.served import ROLE, SERVED, has_served
from streams.stages import stage_specs, stage_topic

SCALABLE = ("ingest", "features", "serve")  # the examples have one partition, so a second learn process would idle
SHARED_KINDS = ONLINE_KINDS  # compiled and fast: they share a process; a River model, or a network, has its own


class Job(msgspec.Struct, frozen=True):
    """One process to keep up: `millrace run <role> <file> <arguments>`; `part` is what it does of a divided role."""

    name: str
    role: str
    arguments: tuple[str, ...] = ()
    part: str = ""


def plan_jobs(pipeline: Pipeline, scale: Mapping[str, int]) -> list[Job]:
    """Say which processes a pipeline needs: ingest, features, serve, one learn for fast candidates, one per other.

    What was served is scored in one more, so that its JSON holds up no candidate. Where features take several stages,
    each stage has its processes; where examples are archived, train is one more;
    the HTTP API has one if the file declares it, and so has the selector.

    Raises:
        PipelineError: `scale` names a role that cannot be scaled, or fewer than one process.
    """
    mistakes = [line for role, count in scale.items() for line in _scale_mistakes(role, count)]
    if mistakes:
        raise PipelineError(mistakes)
    jobs = [
        Job(part if number == 1 else f"{part}-{number}", role, arguments, part if part != role else "")
        for role in SCALABLE
        for part, arguments in _parts(pipeline, role)
        for number in range(1, scale.get(role, 1) + 1)
    ]
    if pipeline.serve.http is not None:
        jobs.append(Job("api", "api"))
    shared = [model.name for model in pipeline.models if model.kind in SHARED_KINDS]
    if shared:
        jobs.append(Job("learn", "learn", ("--models", ",".join(shared))))
    alone = [model.name for model in pipeline.models if model.name not in shared]
    jobs += [Job(f"learn.{name}", "learn", ("--models", name)) for name in alone]
    jobs += [Job(ROLE, "learn", ("--models", SERVED))] if has_served(pipeline) else []
    jobs += [] if pipeline.archive is None else [Job("train", "train")]
    return jobs if pipeline.select is None else [*jobs, Job("select", "select")]


def _parts(pipeline: Pipeline, role: str) -> list[tuple[str, tuple[str, ...]]]:
    """Name the parts of a role, each with its arguments."""
    specs = stage_specs(pipeline)
    if role != "features" or specs[0].is_only:
        return [(role, ())]
    names = [role, *(f"{role}.{stage_topic(spec.number)}" for spec in specs[1:])]
    return [(name, ("--stage", str(spec.number))) for name, spec in zip(names, specs, strict=True)]


def _scale_mistakes(role: str, count: int) -> list[str]:
    if role not in SCALABLE:
        near = difflib.get_close_matches(role, SCALABLE, 1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        return [f'--scale {role}={count}: "{role}" cannot be scaled, {", ".join(SCALABLE)} can{hint}']
    return [] if count >= 1 else [f"--scale {role}={count}: at least 1 process is needed"]
