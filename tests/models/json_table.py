"""A value on its way through a table that keeps JSON, as the selector's state goes (consumers/selection_state.py)."""

from __future__ import annotations

import json
from typing import TypeVar

import msgspec

Value = TypeVar("Value", bound=msgspec.Struct)


def through_json(value: Value) -> Value:
    """Store a value and take it back."""
    return msgspec.convert(json.loads(json.dumps(msgspec.to_builtins(value, str_keys=True))), type(value), strict=False)
