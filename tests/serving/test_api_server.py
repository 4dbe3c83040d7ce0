"""The process of the HTTP API: where it listens."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from serving.api_server import serve
from streams.errors import UnavailableError
from streams.pipeline_file import read_pipeline


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_an_address_that_is_taken_is_one_line(
    host: str, family: socket.AddressFamily, capfd: pytest.CaptureFixture[str]
) -> None:
    """It names the address, and nothing else is printed."""
    with socket.create_server((host, 0), family=family) as taken:
        port = taken.getsockname()[1]
        pipeline = read_pipeline(Path(__file__).parents[2] / "examples" / "flights.toml")
        of = msgspec.structs.replace(pipeline, serve=msgspec.structs.replace(pipeline.serve, http=(host, port)))
        with pytest.raises(UnavailableError, match=rf"^\[serve\] http: {host}:{port} cannot be listened on: Address"):
            serve(of, cast("Any", None), lambda: None)

    assert capfd.readouterr() == ("", "")
