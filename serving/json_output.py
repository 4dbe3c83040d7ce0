"""What commands write with `--json`."""

from __future__ import annotations

import sys
from typing import Any

import msgspec


def write_json(found: Any) -> None:
    """Write something as indented JSON to standard output."""
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    sys.stdout.buffer.flush()
