"""The `[kafka]` settings: librdkafka's own, minus those that exactness depends on.

`${NAME}` and `${NAME:-default}` are replaced from the environment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from streams.toml_table import flattened, mistake_line, shown
from streams.variables import expanded

# Millrace's promises rest on these; a user's value would silently break them.
SET_BY_MILLRACE = frozenset(
    {
        "auto.offset.reset",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.gapless.guarantee",
        "enable.idempotence",
        "group.id",
        "group.protocol",
        "message.timeout.ms",
        "delivery.timeout.ms",
        "transactional.id",
    }
)
REDACTED = "(hidden)"
_SECRET = re.compile(r"password|secret|key|token|jaas|oauthbearer\.config|userinfo", re.IGNORECASE)


def read_settings(values: Mapping[str, Any], environment: Mapping[str, str], mistakes: list[str]) -> dict[str, str]:
    """Give the settings as librdkafka takes them: all text, variables expanded. Messages never show a value."""
    settings: dict[str, str] = {}
    for key, value in flattened(values).items():
        where = f"[kafka] {key}"
        if key in SET_BY_MILLRACE:
            hint = "[run] group_protocol" if key == "group.protocol" else ""
            mistakes.append(mistake_line(where, "Millrace sets this itself", hint))
        elif isinstance(value, bool):
            settings[key] = str(value).lower()
        elif isinstance(value, str | int | float):
            settings[key] = expanded(where, str(value), environment, mistakes)
        else:
            mistakes.append(mistake_line(where, f"{shown(value)} is not right", "text, a number, true, false"))
    return settings


def redacted(settings: Mapping[str, str]) -> dict[str, str]:
    """Give the settings as they may be logged: whatever is named like a secret is hidden.

    >>> redacted({"sasl.username": "ann", "sasl.password": "hunter2"})
    {'sasl.username': 'ann', 'sasl.password': '(hidden)'}
    """
    return {key: REDACTED if _SECRET.search(key) else value for key, value in settings.items()}
