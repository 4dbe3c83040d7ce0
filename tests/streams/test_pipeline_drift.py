"""The `[drift]` table and what models do about an alarm, as read from a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.drift import Adwin, Drift, Kswin, PageHinkley, Psi
from streams.errors import PipelineError
from streams.pipeline import Model, Pipeline
from streams.pipeline_file import read_pipeline

HEAD = """
[pipeline]
name = "shop"
[events]
topic = "visits"
fields = { price = "number" }
[labels]
topic = "orders"
id = "visit"
value = "bought"
wait = "1h"
[models.linear]
kind = "linear"
"""
UNLABELLED = """
[pipeline]
name = "shop"
[events]
topic = "visits"
fields = { price = "number" }
[task]
kind = "anomaly"
[models.trees]
kind = "half_space_trees"
"""


def read(directory: Path, text: str) -> Pipeline:
    path = directory / "shop.toml"
    path.write_text(HEAD + text, encoding="utf-8")
    return read_pipeline(path)


def test_without_a_table_losses_and_features_are_watched_and_nothing_acts(tmp_path: Path) -> None:
    found = read(tmp_path, "")

    assert found.drift == Drift() == Drift(loss=("adwin",), features="psi")
    assert (found.models[0].on_drift, found.models[0].relearn_rows) == ("none", 1_000)


def test_every_setting_arrives(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        """
[drift]
loss = ["kswin", "adwin", "page_hinkley"]
features = "off"
adwin = { delta = 0.01, clock = 8, max_buckets = 3, min_window_length = 4, grace_period = 20 }
page_hinkley = { min_instances = 5, delta = 0.1, threshold = 9, alpha = 1.0, mode = "up" }
kswin = { alpha = 0.0001, window_size = 60, stat_size = 30, seed = 7 }
psi = { threshold = 0.3, bins = 5, reference_rows = 200, window_rows = 100, every = 4 }
""",
    )

    assert found.drift == Drift(
        ("adwin", "page_hinkley", "kswin"),
        "off",
        Adwin(0.01, 8, 3, 4, 20),
        PageHinkley(5, 0.1, 9.0, 1.0, "up"),
        Kswin(0.0001, 60, 30, 7),
        Psi(0.3, 5, 200, 100, 4),
    )


@pytest.mark.parametrize("kind", ["linear", "river:tree.HoeffdingTreeClassifier"])
def test_what_an_alarm_does_is_no_parameter_of_the_model(kind: str, tmp_path: Path) -> None:
    """A River class would not know it, and a version would name it."""
    found = read(tmp_path, f'[models.other]\nkind = "{kind}"\non_drift = "relearn"\nrelearn_rows = 50\n')
    plain = read(tmp_path, f'[models.other]\nkind = "{kind}"\n')

    assert found.models[1] == Model("other", kind, plain.models[1].params, on_drift="relearn", relearn_rows=50)
    assert not {"on_drift", "relearn_rows"} & found.models[1].params.keys()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            HEAD + 'on_drift = "reset"\n[drift]\nloss = []\n',
            (
                '[models.linear] on_drift: "reset" waits for an alarm on the loss, and [drift] loss names no detector; '
                'allowed: "none", or a detector'
            ),
        ),
        (
            UNLABELLED + 'on_drift = "reset"\n',
            (
                '[models.trees] on_drift: "reset" waits for an alarm on the loss, and without labels there is no loss; '
                'allowed: "none", or [labels]'
            ),
        ),
    ],
)
def test_what_an_alarm_does_is_refused_where_none_can_come(text: str, line: str, tmp_path: Path) -> None:
    path = tmp_path / "shop.toml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(PipelineError) as caught:
        read_pipeline(path)

    assert caught.value.mistakes == [line]


def test_an_alarm_may_come_where_anomalies_have_labels(tmp_path: Path) -> None:
    path = tmp_path / "shop.toml"
    path.write_text(
        HEAD.partition("[models")[0] + UNLABELLED.partition("}")[2] + 'on_drift = "reset"\n', encoding="utf-8"
    )

    assert read_pipeline(path).models[0].on_drift == "reset"


def test_no_detector_is_a_choice(tmp_path: Path) -> None:
    assert read(tmp_path, "[drift]\nloss = []\n").drift.loss == ()
