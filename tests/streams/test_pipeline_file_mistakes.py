"""Every mistake in a pipeline file is one line, and all of them are told at once.

Each file under mistakes/ ends with the lines it must give, in order, as comments that begin with `#!`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.errors import PipelineError
from streams.model_kinds import KIND_NAMES
from streams.pipeline_file import read_pipeline

FILES = sorted((Path(__file__).parent / "mistakes").glob("*.toml"))


def expected_lines(path: Path) -> list[str]:
    """Read the lines that a file must give; KINDS stands for all kinds of models."""
    lines = path.read_text(encoding="utf-8").replace("KINDS", KIND_NAMES).splitlines()
    return [line.removeprefix("#! ") for line in lines if line.startswith("#! ")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_wrong_file_gives_one_line_for_each_mistake(path: Path) -> None:
    """The lines are those the file itself announces, no more and no less."""
    with pytest.raises(PipelineError) as caught:
        read_pipeline(path, environment={})

    assert expected_lines(path) == caught.value.mistakes
    assert str(caught.value).splitlines() == caught.value.mistakes


def test_a_file_that_is_not_there_gives_one_line(tmp_path: Path) -> None:
    """The line names the file."""
    path = tmp_path / "shop.toml"
    with pytest.raises(PipelineError) as caught:
        read_pipeline(path)

    assert caught.value.mistakes == [f"{path}: cannot be read: No such file or directory"]


def test_a_file_that_is_not_toml_gives_one_line_with_the_place(tmp_path: Path) -> None:
    """The line says where the syntax ends."""
    path = tmp_path / "shop.toml"
    path.write_text('[pipeline]\nname = "shop\n')
    with pytest.raises(PipelineError) as caught:
        read_pipeline(path)

    assert len(caught.value.mistakes) == 1
    assert caught.value.mistakes[0].startswith(f"{path}: is not TOML: ")
    assert "line 2" in caught.value.mistakes[0]


def test_a_file_that_is_not_text_gives_one_line(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are no TOML."""
    path = tmp_path / "shop.toml"
    path.write_bytes(b'name = "\xff"')
    with pytest.raises(PipelineError, match="is not TOML"):
        read_pipeline(path)


def test_a_mistake_never_shows_a_secret(tmp_path: Path) -> None:
    """Values of Kafka settings stay out of messages, also those from the environment."""
    path = tmp_path / "shop.toml"
    path.write_text('[kafka]\n"sasl.password" = "${PASSWORD}${UNSET}"\n"ssl.key.password" = ["hunter3"]\n')
    with pytest.raises(PipelineError) as caught:
        read_pipeline(path, environment={"PASSWORD": "hunter2"})

    assert "hunter" not in str(caught.value)
    assert "UNSET" in str(caught.value)
