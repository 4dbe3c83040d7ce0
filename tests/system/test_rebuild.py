"""`millrace rebuild` on a real Kafka: after another River release a candidate learns again from the examples."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from models.river_parts import RIVER_VERSION
from models.sealed import model_key, seal, unseal
from serving.versions import newest
from streams.errors import UnavailableError
from streams.snapshots import SnapshotStore
from streams.state_folder import state_of
from tests.faults import verify
from tests.faults.harness import MILLRACE, System, until
from tests.faults.traffic import Traffic

FOREST = """[models.forest]
kind = "river:forest.ARFClassifier"
n_models = 2
grace_period = 20
leaf_prediction = "mc"

"""
EVENTS = 600  # before, and once more after
OTHER_RELEASE = "0.1.0"


def millrace(*arguments: str, answer: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    command = [*MILLRACE, *arguments]
    return subprocess.run(command, input=answer, capture_output=True, text=True, timeout=120, check=False)


def once_free(*arguments: str, answer: str = "") -> subprocess.CompletedProcess[str]:
    """The same, as soon as Kafka has forgotten a role that ended without leaving its group."""
    tried: list[subprocess.CompletedProcess[str]] = []

    def is_free() -> bool:
        tried.append(millrace(*arguments, answer=answer))
        return tried[-1].returncode != UnavailableError.exit_code

    until(is_free, "the group without members")
    return tried[-1]


def seal_as_another_release(system: System) -> None:
    """Let the candidate's newest snapshot be one that another River has written."""
    state = state_of(system.pipeline)
    store = SnapshotStore(state / "snapshots" / "learn.forest" / "examples-p0")
    found, key = store.find(), model_key(state)
    assert found.manifest is not None
    assert found.state is not None
    (name,) = (name for name in found.state if name.endswith(".sealed"))
    model = unseal(found.state[name].tobytes(), key, RIVER_VERSION)
    found.state[name] = np.frombuffer(seal(model, key, OTHER_RELEASE), np.uint8).copy()
    store.save(found.manifest, found.state)


def has_learned(system: System, examples: int) -> bool:
    """Whether every candidate has learned so many."""
    learned = [line.learned for line in system.look().models]
    return len(learned) == len(system.pipeline.models) and min(learned) >= examples


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_after_another_river_release_a_candidate_learns_again(kafka: str, prefix: str, tmp_path: Path) -> None:
    """It refuses and names the command; then its scores and model are those of one that was never stopped."""
    system = System(tmp_path, prefix, kafka, more_models=FOREST)
    traffic = Traffic(system.pipeline, seed=3, rate=0.0)
    file, command = str(system.file), ("rebuild", str(system.file), "--role", "learn.forest")
    traffic.publish(EVENTS)
    system.start()
    system.until(lambda: system.look().served >= EVENTS, "half of the answers")
    system.until(lambda: has_learned(system, EVENTS // 4), "examples for every candidate")
    running = millrace(*command, "--yes")
    system.stop()
    before = newest(system.pipeline)["forest"]
    seal_as_another_release(system)

    refused = millrace("run", "learn", file, "--models", "forest")
    asked = once_free(*command, answer="n\n")
    done = once_free(*command, "--yes")
    traffic.publish(EVENTS)
    system.start()
    traffic.start()
    traffic.end()
    overview = system.finish()

    assert running.returncode == 3
    assert "member" in running.stderr
    assert refused.returncode == 9
    assert f"written by format 1, river {OTHER_RELEASE}, this is format 1, river {RIVER_VERSION}" in refused.stderr
    assert "`millrace rebuild FILE --role learn.forest` lets it learn again from the examples" in refused.stderr
    assert (asked.returncode, done.returncode) == (1, 0)
    for line in (
        f"delete what group {prefix}.learn.forest has committed",
        f"delete the snapshots in {system.pipeline.state}/snapshots/learn.forest",
        "learned again: forest as lineage 1",
        f"done; start {prefix} again",
    ):
        assert line in done.stdout
    assert asked.stdout.startswith(done.stdout.partition("done;")[0].rstrip("\n"))
    assert overview.unaccounted == 0
    verify.check(system, {"forest": 1})
    after = newest(system.pipeline)["forest"]
    assert before is not None
    assert after is not None
    assert (before.lineage, after.lineage) == (0, 1)
