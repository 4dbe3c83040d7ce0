"""Real processes on real Kafka with their state in an S3 server, killed with SIGKILL: as exact as on a disk."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from streams.object_folder import open_object_folder
from tests.faults import verify
from tests.faults.harness import MILLRACE, Death, System, write_pipeline
from tests.faults.traffic import Traffic
from tests.s3_server import SECRET, S3Server, refusing_server, url_of

RATE = 100
EVENTS = 300
END_S = 100.0  # a role starts in 4 s and the client gives up after 6; on a busy machine in much more
pytestmark = pytest.mark.timeout(300)  # 30 s, if no kernel is to be compiled


@pytest.mark.chaos  # most of a minute; in memory such deaths are died in `make test`, too
def test_features_and_learn_may_be_killed_with_their_state_in_a_store(
    tmp_path: Path, kafka: str, prefix: str, s3: S3Server
) -> None:
    """What comes out equals a recomputation from the topics that nothing disturbs: rows, scores, weights, answers."""
    url = s3.url()
    system = System(tmp_path, prefix, kafka, state=url)
    system.plan({"features": [Death("after_snapshot", 4)], "learn": [Death(after_s=1.0)]})
    traffic = Traffic(system.pipeline, 1, RATE)
    traffic.start()
    try:
        system.start()
        system.until_dead()
        system.until(lambda: traffic.events >= EVENTS, "events")
        traffic.end()
        overview = system.finish()
    finally:
        system.stop()
    folder = open_object_folder(url)

    assert system.deaths == 2
    assert overview.unaccounted == 0
    verify.check(system)
    assert [len((folder / "snapshots" / "features" / f"log-p{p}").names()) for p in range(2)] == [4, 4]
    assert len((folder / "models" / "logistic").names()) in range(2, 21, 2)  # a file and its record of each version
    assert not (system.pipeline.state / "snapshots").exists()
    assert not any(SECRET in path.read_text() for path in tmp_path.glob("*.log"))


def test_a_store_without_rights_ends_a_role_with_one_line(tmp_path: Path, kafka: str, prefix: str) -> None:
    """And the code of what a restart may mend, as for a directory that cannot be written."""
    with refusing_server() as port:
        file = write_pipeline(tmp_path, prefix, kafka, state=url_of(port, "bucket/pre"))
        done = subprocess.run(
            [*MILLRACE, "run", "features", str(file)], capture_output=True, text=True, timeout=END_S, check=False
        )

    assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr
    assert done.stderr.startswith("cannot read s3://bucket/pre/rescale.json")
    assert "ACCESS_DENIED" in done.stderr
    assert SECRET not in done.stderr
