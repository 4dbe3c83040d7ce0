"""What `millrace pending` tells: events that wait, by place and age, read from snapshots with nothing running."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from consumers.chain_tasks import make_task
from consumers.featurize import FeatureTask
from consumers.learn import LearnTask
from consumers.opening import beginning_state
from consumers.station import snapshot_folder
from models.learner import make_learner
from serving.cli import app
from serving.waiting import age_edges_us, find_waiting
from serving.waiting_report import show_waiting, write_waiting
from streams.features import columns
from streams.frames import END, EVENT, LABEL, NO_OUTCOME, SET, Batch, build, examples_schema
from streams.pipeline import Feature, Pipeline, Task
from streams.pipeline_labels import no_labels
from streams.snapshots import Manifest, SnapshotStore, State
from tests.aggregate_reference import Row
from tests.featurizing import SOURCE, START, event, label, run, small_pipeline

FLIGHTS = Path(__file__).parents[2] / "examples" / "flights.toml"
WAIT_S = 2_400
EDGES_S = (100, 400, 1_200, 2_400)
MINUTE_US = 60_000_000


def of_two_partitions(directory: Path, features: tuple[Feature, ...] = ()) -> Pipeline:
    """Waits 40 minutes for labels; its state is here."""
    of = small_pipeline(features, raw=True, wait_us=WAIT_S * 1_000_000)
    return msgspec.structs.replace(of, state=directory, partitions=2)


def save(of: Pipeline, role: str, topic: str, partition: int, state: State) -> Path:
    """Write a snapshot as a worker does."""
    folder = of.state / "snapshots" / role / f"{topic}-p{partition}"
    manifest = Manifest(0, f"{of.name}.{topic}", "", partition, {}, 5, 0, "", "", "", (), {})
    SnapshotStore(folder).save(manifest, {f"task.{name}": array for name, array in state.items()})
    return folder


def filled(of: Pipeline, times_s: list[float], clock_s: float, labelled: int = 0) -> FeatureTask:
    """A ledger with an event at each time, the first so many of which have their label; then the clock."""
    task = FeatureTask(of, 0, SOURCE)
    rows: list[Row] = [event(f"e{n}", at) for n, at in enumerate(times_s)]
    rows += [label(f"e{n}", times_s[n]) for n in range(labelled)]
    clocks = [(START, START)] * (len(rows) - 1) + [(START + round(clock_s * 1e6),) * 2]
    run(task, of, rows, clocks)
    return task


def test_events_are_counted_by_their_age_behind_the_clock(tmp_path: Path) -> None:
    """An age on an edge counts above it, and what has its label does not count."""
    of = of_two_partitions(tmp_path)
    times_s = [10.0, 2_000.0, 1_999.0, 1_950.0, 1_900.5, 1_900.0, 1_700.0, 1_000.0, 700.0, 2_050.0]
    save(of, "features", "log", 1, filled(of, times_s, 2_000, labelled=1).state())

    first, second, learn = find_waiting(of)

    ages = [2_000 - at for at in times_s[1:]]
    buckets = [sum(age >= edge for edge in EDGES_S) for age in ages]
    assert age_edges_us(of) == tuple(edge * 1_000_000 for edge in EDGES_S)
    assert (first.where, first.partition, first.snapshot_age_s, first.ages) == ("ledger", 0, None, None)
    assert (second.where, second.partition, second.events) == ("ledger", 1, 9)
    assert second.ages == tuple(buckets.count(bucket) for bucket in range(5)) == (5, 2, 1, 1, 0)
    assert (second.oldest_id, second.oldest_us) == ("e8", START + 700_000_000)
    assert second.clock_us == START + 2_000_000_000
    assert (learn.where, learn.snapshot_age_s) == ("learn prior", None)


def test_before_the_clock_is_known_ages_go_by_the_newest_event(tmp_path: Path) -> None:
    """And at the end of all input nothing waits."""
    of = of_two_partitions(tmp_path)
    task = FeatureTask(of, 0, SOURCE)
    run(task, of, [event("a", 0), event("b", 500), label("early", 100)])
    save(of, "features", "log", 0, task.state())
    ended = FeatureTask(of, 0, SOURCE)
    run(ended, of, [event("a", 0), event("b", 500)], [(START, START), (int(END), int(END))])
    save(of, "features", "log", 1, ended.state())

    first, second, _ = find_waiting(of)

    assert first.ages == (1, 0, 1, 0, 0)
    assert (first.early_labels, first.oldest_id, first.clock_us) == (1, "a", START + 500_000_000)
    assert (second.events, second.ages, second.oldest_id, second.clock_us) == (0, (0, 0, 0, 0, 0), None, None)


def test_a_snapshots_age_is_that_of_its_file(tmp_path: Path) -> None:
    """Of the newest that is whole."""
    of = of_two_partitions(tmp_path)
    folder = save(of, "features", "log", 0, filled(of, [1.0], 2).state())
    for path in folder.iterdir():
        os.utime(path, (1_000.0, 1_000.0))

    first = next(find_waiting(of, lambda: 1_090.5))

    assert first.snapshot_age_s == 90.5


def test_a_chain_tells_of_the_vectors_in_its_last_stage_too(tmp_path: Path) -> None:
    """They wait there for the label rows that the first stage sends."""
    by_shop = (Feature("n", "count", "*", ("shop",), MINUTE_US),)
    of = of_two_partitions(tmp_path, by_shop)
    save(of, "features", "log", 0, filled(of, [0.0, 1.0, 2.0], 2).state())
    save(of, "features-3", "stage2", 1, make_task(of, 3, 1, SOURCE).state())

    found = {(one.where, one.partition): one for one in find_waiting(of)}

    assert list(found) == [("ledger", 0), ("ledger", 1), ("vectors", 0), ("vectors", 1), ("learn prior", 0)]
    assert found["ledger", 0].events == 3
    assert found["vectors", 0].snapshot_age_s is None
    assert found["vectors", 1].events == 0
    assert found["vectors", 1].snapshot_age_s is not None


def test_a_candidate_tells_of_predictions_in_open_blocks(tmp_path: Path) -> None:
    """250 events, of which the first 120 have their label: the first block has left, and two are open."""
    of = of_two_partitions(tmp_path)
    schema = examples_schema(columns(of))
    learn = LearnTask("prior", make_learner(of.models[0], columns(of), b"k" * 32), columns(of))
    kind = np.repeat(np.array([EVENT, LABEL], np.int8), [250, 120])
    number = np.concatenate([np.arange(250), np.arange(120)])
    made = {
        "kind": kind,
        "source": np.full(370, 9, np.int32),
        "number": number,
        "time": START + number * 1_000_000,
        "label": np.where(kind == EVENT, np.nan, 1.0),
        "outcome": np.where(kind == EVENT, NO_OUTCOME, SET).astype(np.int8),
        "vector": np.zeros((370, len(columns(of)))),
    }
    learn.process(Batch(build(schema, made, 370), np.zeros(370, np.int64), np.zeros(370, np.int64)))
    save(of, "learn.prior", "examples", 0, learn.state())

    *_, found = find_waiting(of)

    assert (found.where, found.events, found.open_blocks, found.ages) == ("learn prior", 130, 2, None)
    assert found.oldest_us == START + 100_000_000  # of the block in which number 120 is


def test_the_table_names_places_ages_and_the_oldest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With what is not known: places without a snapshot."""
    of = of_two_partitions(tmp_path)
    save(of, "features", "log", 1, filled(of, [0.0, 1.0, 1_500.0], 1_900).state())

    show_waiting(of)

    told = capsys.readouterr().out
    assert "3 events wait for their label; at most 40m, and 10,000,000 in a partition" in told
    lines = "\n".join(" ".join(line.split()) for line in told.splitlines())
    assert "waiting < 100s < 400s < 20m < 40m older" in lines
    assert "\nledger 1 3 0 0 1 2 0 " in lines
    assert "e0 of 2023-11-14" in told
    assert "no snapshot yet of ledger 0, learn prior 0" in told


def test_json_has_the_same(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Times in us, ages in seconds."""
    of = of_two_partitions(tmp_path)
    save(of, "features", "log", 0, filled(of, [0.0, 1_500.0], 1_900).state())

    write_waiting(of)

    told = json.loads(capfdbinary.readouterr().out)
    first = told["places"][0]
    assert (told["pipeline"], told["wait_us"], told["most_pending"]) == ("p", 2_400_000_000, 10_000_000)
    assert told["age_edges_us"] == [100_000_000, 400_000_000, 1_200_000_000, 2_400_000_000]
    assert (first["where"], first["events"], first["ages"], first["oldest_id"]) == ("ledger", 2, [0, 0, 1, 1, 0], "e0")
    assert 0 <= first["snapshot_age_s"] < 60


def test_without_labels_no_ages_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing waits, and limits of 0 s say nothing."""
    of = msgspec.structs.replace(of_two_partitions(tmp_path), task=Task("anomaly"))
    of = msgspec.structs.replace(of, labels=no_labels(of.events, 0))
    save(of, "features", "log", 0, FeatureTask(of, 0, SOURCE).state())

    show_waiting(of)

    told = capsys.readouterr().out
    assert "0 events wait for their label; there are no labels, so each is settled as it comes" in told
    assert " ".join(told.splitlines()[2].split()) == "where partition waiting oldest snapshot"
    assert "0s" not in told.replace("0s old", "")
    assert "Ages are" not in told


def test_a_role_that_was_rebuilt_and_not_started_yet_has_no_snapshot(tmp_path: Path) -> None:
    of = of_two_partitions(tmp_path)
    folder = snapshot_folder(of.state / "snapshots", "learn.prior", "p.examples", 0)
    manifest = Manifest(0, "p.examples", "u", 0, {}, 0, 1, "", "", "", (), {})
    SnapshotStore(folder).save(manifest, beginning_state(3))

    *_, found = find_waiting(of)

    assert (found.where, found.snapshot_age_s) == ("learn prior", None)


def test_a_pipeline_that_never_ran_has_nothing_waiting(tmp_path: Path) -> None:
    """The command needs no broker and no state."""
    file = tmp_path / "flights.toml"
    file.write_text(FLIGHTS.read_text())

    done = CliRunner().invoke(app, ["pending", str(file), "--json"])

    assert done.exit_code == 0
    assert {place["snapshot_age_s"] for place in json.loads(done.output)["places"]} == {None}
