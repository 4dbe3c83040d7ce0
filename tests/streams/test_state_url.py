"""URLs of state: which are taken, where the rest goes, and that no secret in one is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.errors import PipelineError
from streams.pipeline import Pipeline
from streams.pipeline_file import read_pipeline
from streams.state_folder import LocalFolder, state_of
from streams.state_url import masked, masked_in

REST = """
[events]
topic = "visits"
fields = { price = "number" }
[labels]
topic = "orders"
id = "visit"
value = "bought"
wait = "1h"
[models.prior]
kind = "prior"
"""
ALLOWED = "allowed: a directory, or a URL such as s3://bucket/prefix, gs://bucket/prefix or file:///directory"


def pipeline_of(head: str, directory: Path, **environment: str) -> Pipeline:
    """A pipeline with these lines in its [pipeline] table."""
    path = directory / "shop.toml"
    path.write_text(f'[pipeline]\nname = "shop"\n{head}\n{REST}', encoding="utf-8")
    return read_pipeline(path, environment)


def test_a_store_leaves_the_rest_to_a_directory_beside_the_file(tmp_path: Path) -> None:
    """Logs and embedded servers need a disk."""
    pipeline = pipeline_of('state = "s3://bucket/shop?region=eu-west-1"', tmp_path)

    assert pipeline.state_url == "s3://bucket/shop?region=eu-west-1"
    assert pipeline.state == tmp_path / "state" / "shop"


def test_that_directory_can_be_named(tmp_path: Path) -> None:
    pipeline = pipeline_of('state = "gs://bucket"\nlocal = "../here"', tmp_path)

    assert (pipeline.state_url, pipeline.state) == ("gs://bucket", tmp_path.parent / "here")


def test_a_file_url_is_the_directory_it_names(tmp_path: Path) -> None:
    """With all its guarantees, and without pyarrow."""
    pipeline = pipeline_of('state = "file:///mnt/a%20b"', tmp_path)

    assert (pipeline.state_url, pipeline.state) == (None, Path("/mnt/a b"))
    assert isinstance(state_of(pipeline), LocalFolder)


def test_variables_keep_secrets_out_of_the_file(tmp_path: Path) -> None:
    head = 'state = "s3://${ID}:${WORD}@bucket/shop"'
    pipeline = pipeline_of(head, tmp_path, ID="ann", WORD="hunter2")

    assert pipeline.state_url == "s3://ann:hunter2@bucket/shop"
    assert "hunter2" not in repr(pipeline)


@pytest.mark.parametrize(
    ("head", "mistake"),
    [
        (
            'state = "ftp://host/shop"',
            f'[pipeline] state: "ftp://" is no store that Millrace knows; {ALLOWED}',
        ),
        (
            'state = "s3:///shop?secret_key=hunter2"',
            f"[pipeline] state: s3:///shop?secret_key=(hidden) names no bucket; {ALLOWED}",
        ),
        (
            'state = "file://host/shop"',
            f"[pipeline] state: file://host/shop names a host; {ALLOWED}",
        ),
        (
            'local = "here"',
            "[pipeline] local: state is a directory already; allowed: a directory where state is an object store",
        ),
        ('state = "s3://${BUCKET}"', "[pipeline] state: the environment variable BUCKET is not set"),
    ],
)
def test_what_cannot_be_a_state_is_one_line(head: str, mistake: str, tmp_path: Path) -> None:
    with pytest.raises(PipelineError) as caught:
        pipeline_of(head, tmp_path)

    assert caught.value.mistakes == [mistake]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://bucket/shop?region=eu-west-1", "s3://bucket/shop?region=eu-west-1"),
        ("s3://id:secret@bucket/shop", "s3://(hidden)@bucket/shop"),
        ("s3://id:se/c?r@t@bucket/shop?scheme=http", "s3://(hidden)@bucket/shop?scheme=http"),
        (
            "s3://b?access_key=A1&secret_key=B2&scheme=http",
            "s3://b?access_key=(hidden)&secret_key=(hidden)&scheme=http",
        ),
        ("s3://b?SESSION_TOKEN=a=b", "s3://b?SESSION_TOKEN=(hidden)"),
        ("abfs://container@account.dfs.core.windows.net/p", "abfs://container@account.dfs.core.windows.net/p"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert masked(url) == shown


def test_what_others_say_of_a_url_is_shown_without_its_secrets_and_on_one_line() -> None:
    """Errors of a client may quote the URL, or a part of it as it was understood."""
    url = "s3://ann:hunter%2F2@bucket?session_token=abcdef"
    said = masked_in(f"cannot parse '{url}':\n ann may not use hunter/2 or hunter%2F2 with abcdef", url)

    assert said == (
        "cannot parse 's3://(hidden)@bucket?session_token=(hidden)': ann may not use (hidden) or (hidden) with (hidden)"
    )
