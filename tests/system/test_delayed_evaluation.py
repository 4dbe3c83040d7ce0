"""Labels that come when flights land: every candidate is scored as River's own delayed evaluation scores it.

`river.stream.simulate_qa` asks a model when a flight departs and tells it the answer when the flight lands, which is
what `evaluate.progressive_val_score` does with a delay. Here the same flights go through real Kafka and all roles. Half
a minute is added to each landing: of one minute River puts an answer before a question, and Millrace behind it.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from river import compose, linear_model, naive_bayes, optim, preprocessing, stream, tree

from serving.flights import read_flights
from serving.overview import Overview
from serving.publish import RawRecord
from serving.system import System
from tests.system.flights_run import publish_to_the_end

FLIGHTS = 4_000
HALF_A_MINUTE_US = 30_000_000
WITHIN = 1e-9
NEVER = dt.timedelta(days=3_650)
NUMBERS, CATEGORIES = ("distance", "dep_delay", "scheduled_hour"), ("carrier", "origin", "dest")
pytestmark = pytest.mark.timeout(300)


class Flight(NamedTuple):
    """What River is given of a flight."""

    x: dict[str, Any]
    departed: dt.datetime
    late: bool | None  # None: it never landed
    delay: dt.timedelta


def linear() -> Any:
    """What `kind = "linear"` is in River's words."""
    number = compose.SelectType(int, float) | preprocessing.StandardScaler()
    return (number + (compose.SelectType(str) | preprocessing.OneHotEncoder())) | linear_model.LogisticRegression(
        optim.SGD(0.02)
    )


CANDIDATES: dict[str, tuple[str, Callable[[], Any], tuple[str, ...]]] = {
    "linear": ('kind = "linear"\nlr = 0.02', linear, (*NUMBERS, *CATEGORIES)),
    "tree": (
        'kind = "river:tree.HoeffdingTreeClassifier"\nleaf_prediction = "nb"',
        lambda: tree.HoeffdingTreeClassifier(leaf_prediction="nb"),
        (*NUMBERS, *CATEGORIES),
    ),
    "bayes": ('kind = "river:naive_bayes.GaussianNB"\ncategories = "drop"', naive_bayes.GaussianNB, NUMBERS),
}


@pytest.fixture(scope="module", name="records")
def _records() -> list[RawRecord]:
    records = [
        record._replace(time_us=record.time_us + HALF_A_MINUTE_US) if record.is_label else record
        for record in read_flights(FLIGHTS).records()
    ]
    return sorted(map(_timed, records), key=lambda record: record.time_us)  # stable: ties in order of departure


def _timed(record: RawRecord) -> RawRecord:
    if not record.is_label:
        return record
    fields = msgspec.json.decode(record.value) | {"arrived_at": f"{np.datetime64(record.time_us, 'us')}Z"}
    return record._replace(value=msgspec.json.encode(fields))


@pytest.fixture(scope="module", name="overview")
def _overview(records: list[RawRecord], kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Overview:
    """The last look at the flights' run: one partition, so that landings of one minute keep their order."""
    file: Path = tmp_path_factory.mktemp("delayed") / "pipeline.toml"
    models = "\n".join(f"[models.{name}]\n{text}" for name, (text, _, _) in CANDIDATES.items())
    file.write_text(
        f'[pipeline]\nname = "delayed"\npartitions = 1\n[kafka]\n"bootstrap.servers" = "{kafka}"\n'
        '[events]\ntopic = "delayed.departures"\nid = "flight"\ntime = "departed_at"\nkey = "tail"\n'
        '[events.fields]\ncarrier = "category"\norigin = "category"\n'
        'dest = { type = "category", path = "route.dest" }\ndistance = { type = "number", path = "route.miles" }\n'
        'dep_delay = "number"\nscheduled_hour = "number"\n'
        '[labels]\ntopic = "delayed.arrivals"\nid = "flight"\nkey = "tail"\ntime = "arrived_at"\nvalue = "late"\n'
        f'wait = "36h"\n{models}\n'
    )
    with System(file, is_replay=True, most_restarts=0) as system:
        return publish_to_the_end(system, iter(records))


@pytest.fixture(scope="module", name="flights")
def _flights(records: list[RawRecord]) -> list[Flight]:
    landed = {msgspec.json.decode(r.value)["flight"]: (r.time_us, r) for r in records if r.is_label}
    return [_flight(record, landed) for record in records if not record.is_label]


def _flight(record: RawRecord, landed: dict[str, tuple[int, RawRecord]]) -> Flight:
    fields = msgspec.json.decode(record.value)
    x = {name: fields[name] for name in ("carrier", "origin", "dep_delay", "scheduled_hour")}
    x |= {"dest": fields["route"]["dest"], "distance": fields["route"]["miles"]}
    departed = dt.datetime.fromisoformat(fields["departed_at"])
    if fields["flight"] not in landed:
        return Flight(x, departed, None, NEVER)
    at_us, label = landed[fields["flight"]]
    delay = dt.timedelta(microseconds=at_us - record.time_us)
    return Flight(x, departed, msgspec.json.decode(label.value)["late"], delay)


def driven_alone(model: Any, flights: list[Flight], columns: tuple[str, ...]) -> Iterator[tuple[float, bool]]:
    """Give what River said of each flight that landed, and whether it was late, in the order of landings."""
    said: dict[int, float] = {}
    is_trained = False
    dataset: Any = ((number, flight.late) for number, flight in enumerate(flights))
    moment: Any = lambda number: flights[number].departed  # noqa: E731
    for number, _, late in stream.simulate_qa(dataset, moment, lambda number, _: flights[number].delay, copy=False):
        flight = flights[number]
        x = {name: flight.x[name] for name in columns if flight.x[name] is not None}
        if number not in said:
            said[number] = model.predict_proba_one(x).get(True, 0.0) if is_trained else 0.5
        elif late is not None:
            yield said[number], late
            model.learn_one(x, late)
            is_trained = True


@pytest.mark.parametrize("name", CANDIDATES)
def test_a_candidate_is_scored_as_by_river_s_delayed_evaluation(
    name: str, overview: Overview, flights: list[Flight]
) -> None:
    _, make, columns = CANDIDATES[name]
    found = list(driven_alone(make(), flights, columns))
    said, late = (np.array(column, float) for column in zip(*found, strict=True))
    given = np.clip(np.where(late > 0.5, said, 1.0 - said), 0.001, 0.999)
    line = next(line for line in overview.models if line.name == name)

    assert line.learned == len(found) > 0.99 * FLIGHTS
    assert line.figures["log_loss"] == pytest.approx(-np.log(given).mean(), abs=WITHIN)
    assert line.figures["brier"] == pytest.approx(((said - late) ** 2).mean(), abs=WITHIN)
    assert line.figures["accuracy"] == pytest.approx(((said >= 0.5) == (late > 0.5)).mean(), abs=WITHIN)


def test_with_labels_at_once_the_figures_would_have_been_better(overview: Overview, flights: list[Flight]) -> None:
    """So the delay counts: an evaluation that forgets it flatters, and these figures are not that."""
    at_once = [flight._replace(delay=dt.timedelta(0)) for flight in flights if flight.late is not None]
    said, late = (
        np.array(column, float)
        for column in zip(*driven_alone(linear(), at_once, CANDIDATES["linear"][2]), strict=True)
    )
    loss = -np.log(np.clip(np.where(late > 0.5, said, 1.0 - said), 0.001, 0.999)).mean()
    line = next(line for line in overview.models if line.name == "linear")

    assert not math.isclose(loss, line.loss, abs_tol=1e-4)
    assert loss < line.loss
