"""A whole training: from an archive and a job to a model's file, or to one line that says why there is none."""

from __future__ import annotations

import hashlib
import signal
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from models.learner import Learner, State, make_learner
from models.sealed import key_for
from models.training import main
from models.training_job import (
    Failure,
    read_failure,
    read_progress,
    read_result,
    write_failure,
)
from models.weights_file import decode
from streams.faults import arm
from streams.pipeline import Model, Task
from streams.retraining import Retrain
from tests.models.trainings import CLASSES, MLP, NO_GPU, ask, result_of, start, train
from tests.models.written_archive import COLUMNS, examples, write_archive

SIZE = 1_500
ONE_THREAD = {**NO_GPU, "OMP_NUM_THREADS": "1", "MILLRACE_MODEL_KEY": "k" * 32}
SLOW = pytest.mark.timeout(400)  # seconds on a quiet machine, but each process has to load torch and the kernels
torch.set_num_threads(1)  # as in the processes that are started here: sums in the same order


def train_apart(directory: Path, *command: str, **environment: str) -> subprocess.Popen[bytes]:
    """Start a training as a process of its own, on one core."""
    return start(directory, *command, **(ONE_THREAD | environment))


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of yes-or-no labels over four days."""
    directory = tmp_path_factory.mktemp("state")
    write_archive(directory, SIZE)
    return directory


def weights_of(directory: Path) -> State:
    return decode((directory / "model.safetensors").read_bytes())[0]


def learner_of(directory: Path, kind: str, params: Any, task: Task | None = None) -> Learner:
    """Read the model as a registry does, with nothing but its file, its declaration and what the search chose."""
    settings = result_of(directory).training.settings
    learner = make_learner(
        Model("net", kind, {**params, **settings}), COLUMNS, key_for(kind, directory), task or Task()
    )
    learner.restore(weights_of(directory))
    return learner


@pytest.fixture(scope="module")
def whole(state: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nothing has interrupted."""
    directory = ask(tmp_path_factory.mktemp("whole"), state)
    train(directory)
    return directory


def test_the_figures_are_those_of_the_model_on_examples_it_has_not_seen(whole: Path) -> None:
    training, learner = result_of(whole).training, learner_of(whole, "torch:mlp", MLP)
    X_BF, y_B = examples(SIZE, Task())
    time_B = training.from_us + np.arange(SIZE) * (4 * 86_400_000_000) // SIZE
    assert training.split is not None
    for span, figures in ((training.split.validation, training.validation), (training.split.test, training.test)):
        is_in = (time_B >= span.from_us) & (time_B < span.to_us)
        is_in &= time_B + 3_600_000_000 + 60_000_000 * (np.arange(SIZE) % 7) <= span.known_by_us
        p_B = learner.predict(X_BF[is_in])

        assert figures["labels"] == is_in.sum() > 150
        assert figures["log_loss"] == pytest.approx(log_loss(y_B[is_in], p_B), abs=1e-6)
        assert figures["auc"] == pytest.approx(roc_auc_score(y_B[is_in], p_B), abs=1e-6)
        assert roc_auc_score(y_B[is_in], p_B) > 0.85


def test_the_result_names_the_file_that_is_there_and_says_what_trained_it(whole: Path) -> None:
    result = result_of(whole)
    payload = (whole / result.model_file).read_bytes()
    told = decode(payload)[1]

    assert hashlib.blake2b(payload, digest_size=32).hexdigest() == result.digest
    assert sorted(path.name for path in whole.iterdir()) == [
        *("job.json", "model.safetensors", "progress.json", "result.json"),
    ]
    assert (told["candidate"], told["kind"], told["lineage"]) == ("net", "torch:mlp", "1")
    assert msgspec.json.decode(told["params"]) == MLP
    training = result.training
    assert (training.rows, training.epochs, len(training.curve), training.device) == (SIZE, 3, 3, "cpu")
    assert training.libraries["torch"] == torch.__version__.partition("+")[0]
    assert training.peak_bytes > 100 << 20
    assert training.seconds > 0.0
    assert training.curve[-1][1] == pytest.approx(training.validation["log_loss"], abs=0.01)
    progress = read_progress(whole)
    assert progress is not None
    assert (progress.epoch, progress.step, progress.best_epoch) == (3, progress.steps, 2)


def test_rows_behind_those_it_was_asked_for_are_not_seen(state: Path, tmp_path: Path) -> None:
    """So that a training that begins late, or goes on late, is the same as one that began at once."""
    params = {"epochs": 1, "batch": 256}
    write_archive(tmp_path / "early", SIZE)
    for segment in sorted((tmp_path / "early").rglob("*000001500*")):  # the last day is not archived yet
        segment.unlink()
    late = ask(tmp_path / "late", state, "torch:logistic", params, rows=1_125)
    early = ask(tmp_path / "soon", tmp_path / "early", "torch:logistic", params)

    assert train(late).rows == train(early).rows == 1_125
    assert result_of(late).digest == result_of(early).digest


def test_what_has_a_result_is_not_trained_again(whole: Path) -> None:
    before = (whole / "result.json").stat().st_mtime_ns

    train(whole)

    assert (whole / "result.json").stat().st_mtime_ns == before


@SLOW
def test_killed_anywhere_it_goes_on_to_the_same_curve_and_the_same_bits(
    whole: Path, state: Path, tmp_path: Path
) -> None:
    points = ("after_step:4", "after_checkpoint:2", "before_result:1")
    directories = [ask(tmp_path / point.partition(":")[0], state) for point in points]
    processes = [
        train_apart(directory, MILLRACE_FAIL_POINT=point) for directory, point in zip(directories, points, strict=True)
    ]
    for process in processes:
        process.communicate()
    kept = [len(list(directory.glob("checkpoints/*.safetensors"))) for directory in directories]

    assert [process.returncode for process in processes] == [-signal.SIGKILL] * 3
    assert kept == [0, 2, 2]
    for directory in directories:
        assert train(directory).curve == result_of(whole).training.curve
        found, wanted = weights_of(directory), weights_of(whole)
        assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
        assert result_of(directory).digest == result_of(whole).digest


@SLOW
def test_of_a_damaged_checkpoint_the_one_before_is_taken_to_the_same_end(
    whole: Path, state: Path, tmp_path: Path
) -> None:
    directory = ask(tmp_path / "damaged", state)
    train_apart(directory, MILLRACE_FAIL_POINT="after_checkpoint:2").communicate()
    newest = max((directory / "checkpoints").iterdir())
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 4
    newest.write_bytes(content)

    training = train(directory)

    (note,) = training.notes
    assert note.startswith(f"checkpoint {newest.name} is refused: digest ")
    assert training.curve == result_of(whole).training.curve
    assert result_of(directory).digest == result_of(whole).digest


@SLOW
def test_two_processes_take_the_steps_of_one(state: Path, tmp_path: Path) -> None:
    params = {**MLP, "dropout": 0.0, "batch": 100}  # the last step of an epoch has 49 examples, an odd number
    alone, together = ask(tmp_path / "alone", state, params=params), ask(tmp_path / "together", state, params=params)
    process = start(together, "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "models.training")
    one = train(alone)
    errors = process.communicate()[1]

    assert process.returncode == 0, errors.decode()
    two = result_of(together).training
    assert one.split is not None
    assert two.device == "2 x cpu"
    assert np.allclose(two.curve, one.curve, rtol=0, atol=1e-6)
    found, wanted = weights_of(together), weights_of(alone)
    assert all(np.allclose(found[name], wanted[name], rtol=0, atol=1e-5) for name in wanted)
    assert two.test["log_loss"] == pytest.approx(one.test["log_loss"], abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "params", "task", "figure", "at_most"),
    [
        ("torch:logistic", {"lr": 0.05, "epochs": 6, "batch": 64}, Task(), "log_loss", 0.42),
        ("torch:resmlp", {"width": 16, "epochs": 6, "batch": 64}, Task("multiclass", CLASSES), "log_loss", 0.6),
        (
            "torch:ft_transformer",
            {"width": 16, "blocks": 1, "heads": 2, "epochs": 6, "batch": 64, "lr": 0.003},
            Task("regression"),
            "mae",
            6.0,
        ),
        ("torch:autoencoder", {"hidden": [8, 2], "epochs": 2}, Task("anomaly", alert=0.1), "mean_score", 0.6),
        ("sklearn:linear_model.LogisticRegression", {}, Task(), "log_loss", 0.45),
    ],
)
def test_every_kind_learns_more_than_its_prior_knows(
    kind: str,
    params: dict[str, Any],
    task: Task,
    figure: str,
    at_most: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MILLRACE_MODEL_KEY", "k" * 32)
    write_archive(tmp_path / "state", SIZE, task)
    training = train(ask(tmp_path / "job", tmp_path / "state", kind, params, task=task))

    found = training.test[figure]
    assert found is not None
    assert found < at_most
    assert learner_of(tmp_path / "job", kind, params, task).predict(np.zeros((1, 3))).size == task.outputs
    assert training.libraries.keys() >= {"torch" if kind.startswith("torch") else "scikit-learn"}


def test_balanced_classes_make_a_rare_one_as_likely_as_the_other(tmp_path: Path) -> None:
    write_archive(tmp_path / "state", SIZE, shift=-4.0)
    X_BF, y_B = examples(SIZE, Task(), shift=-4.0)
    params, means = {"epochs": 10, "lr": 0.05, "batch": 64}, []
    for weights in ("none", "balanced"):
        settings = {**params, "class_weights": weights}
        train(ask(tmp_path / weights, tmp_path / "state", "torch:logistic", settings))
        p_B = learner_of(tmp_path / weights, "torch:logistic", settings).predict(X_BF)
        means.append((p_B[y_B < 0.5].mean() + 1.0 - p_B[y_B > 0.5].mean()) / 2)  # how wrong it is on either class

    assert y_B.mean() < 0.2
    assert means[1] < means[0] - 0.03


def test_a_training_begins_with_the_weights_of_an_earlier_version(whole: Path, state: Path, tmp_path: Path) -> None:
    blob = published(whole, state)
    anew = result_of(whole).training
    training = train(ask(tmp_path / "warm", state, parent="net@1.1500", parent_blob=blob))

    assert training.notes == ("began with the weights of net@1.1500",)
    assert training.curve[0][1] < anew.curve[0][1] - 0.05


def published(directory: Path, state: Path) -> str:
    """Put a model where versions lie; gives its path below the state."""
    result = result_of(directory)
    blob = f"models/net/000001-000000001500-{result.digest[:12]}.safetensors"
    (state / "models" / "net").mkdir(parents=True, exist_ok=True)
    (state / blob).write_bytes((directory / result.model_file).read_bytes())
    return blob


@pytest.mark.parametrize(
    ("others", "why"),
    [
        ({"params": {**MLP, "hidden": [8]}}, "the weights of net@1.1500 do not fit: its layers.0.weight has shape"),
        ({"columns": COLUMNS[:2]}, "net@1.1500 has other columns"),
        ({"parent_blob": "models/net/none-000000000000.safetensors"}, "net@1.1500 cannot be read: "),
    ],
)
def test_where_earlier_weights_do_not_fit_it_begins_anew_and_says_so(
    others: dict[str, Any], why: str, whole: Path, state: Path, tmp_path: Path
) -> None:
    asked = {"parent_blob": published(whole, state), **others}
    training = train(ask(tmp_path / "warm", state, parent="net@1.1500", **asked))

    (note,) = training.notes
    assert note.startswith(f"began anew: {why}")


def test_a_search_chooses_settings_and_is_not_made_again(state: Path, tmp_path: Path) -> None:
    directory = ask(tmp_path / "job", state, params={**MLP, "lr": 0.0001}, retrain=Retrain(search=4))
    arm("before_result:1000")
    training = train(directory)
    learner = learner_of(directory, "torch:mlp", MLP)

    assert training.settings.keys() == {"lr", "weight_decay", "dropout", "hidden"}
    assert training.settings["lr"] > 0.0001
    assert training.settings["hidden"] in ([8, 4], [16, 8], [32, 16])
    assert learner.is_finite()
    (directory / "result.json").unlink()
    chosen = msgspec.json.decode((directory / "chosen.json").read_bytes())
    (directory / "chosen.json").write_bytes(msgspec.json.encode({**chosen, "settings": {"lr": 0.02}}))
    assert train(directory).settings == {"lr": 0.02}


def test_when_the_budget_is_over_it_stops_at_the_best_so_far_and_says_so(state: Path, tmp_path: Path) -> None:
    params = {**MLP, "epochs": 100_000, "patience": 10_000, "lr": 1e-5}
    training = train(ask(tmp_path / "job", state, params=params, retrain=Retrain(budget_s=1.5)))

    assert training.notes == (f"the budget of 1.5 s was over in epoch {training.epochs}",)
    assert 1 <= training.epochs < 100_000
    assert training.seconds < 60.0


def test_too_few_examples_end_in_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_archive(tmp_path / "state", 24)
    directory = ask(tmp_path / "job", tmp_path / "state")

    code = main([str(directory)], NO_GPU)
    failure = read_failure(directory)

    assert failure is not None
    assert (code, failure.exit_code) == (11, 11)
    assert failure.reason.startswith("24 examples are too few")
    assert capfd.readouterr().err == f"the training failed: {failure.reason}\n"
    assert read_result(directory) is None


def test_a_damaged_segment_ends_it_and_is_named(tmp_path: Path) -> None:
    segment = write_archive(tmp_path / "state", SIZE)[2]
    path = tmp_path / "state" / "archive" / segment.name
    content = bytearray(path.read_bytes())
    content[1_000] ^= 1
    path.write_bytes(content)
    directory = ask(tmp_path / "job", tmp_path / "state")

    code, failure = main([str(directory)], NO_GPU), read_failure(directory)

    assert failure is not None
    assert code == failure.exit_code == 10
    assert Path(segment.name).name in failure.reason
    assert segment.digest[:12] in failure.reason
    assert "\n" not in failure.reason


def test_an_unforeseen_error_is_told_in_full_and_in_one_line(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("no rows\nat all")

    monkeypatch.setattr("models.training.read_examples", broken)
    directory = ask(tmp_path / "job", state)

    code, printed = main([str(directory)], NO_GPU), capfd.readouterr().err

    assert code == 1
    assert read_failure(directory) == Failure("ZeroDivisionError: no rows at all", 1)
    assert "Traceback" in printed
    assert printed.endswith("the training failed: ZeroDivisionError: no rows at all\n")


def test_a_model_that_is_not_sound_is_a_failure(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.training.is_sound", lambda *_: False)
    directory = ask(tmp_path / "job", state)

    code, failure = main([str(directory)], NO_GPU), read_failure(directory)

    assert failure is not None
    assert code == failure.exit_code == 9
    assert "is not sound" in failure.reason
    assert read_result(directory) is None


@pytest.mark.parametrize(
    ("where", "told"), [("network_training", "net is too large to be trained"), ("training", "net is too large")]
)
def test_a_model_that_is_too_large_is_a_failure_that_is_certain(
    where: str, told: str, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network is refused before it is trained."""
    monkeypatch.setattr(f"models.{where}.MAX_BYTES", 10)
    directory = ask(tmp_path / "job", state, "torch:logistic", {"epochs": 1})

    code, failure = main([str(directory)], NO_GPU), read_failure(directory)

    assert failure is not None
    assert code == failure.exit_code == 11
    assert failure.is_certain
    assert told in failure.reason
    assert (read_progress(directory) is None) == (where == "network_training")
    assert read_result(directory) is None


def test_a_new_try_forgets_the_failure_of_the_last(whole: Path, state: Path, tmp_path: Path) -> None:
    directory = ask(tmp_path / "job", state)
    write_failure(directory, Failure("no memory", 3))

    train(directory)

    assert read_failure(directory) is None
    assert result_of(directory).digest == result_of(whole).digest


def test_a_directory_without_a_job_ends_with_a_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)], {}) == 9
    assert "is no training: it has no job.json" in capfd.readouterr().err
    assert main([], {}) == 2
