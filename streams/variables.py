"""`${NAME}` and `${NAME:-default}` in values of the pipeline file, replaced from the environment once, not again."""

from __future__ import annotations

import re
from collections.abc import Mapping

from streams.toml_table import mistake_line

_VARIABLE = re.compile(r"\$\{([^}]*)\}")


def expanded(where: str, text: str, environment: Mapping[str, str], mistakes: list[str]) -> str:
    """Give the text with its variables replaced; `where` names it in mistakes, which never show a value."""

    def value_of(match: re.Match[str]) -> str:
        name, has_default, default = match[1].partition(":-")
        if name not in environment and not has_default:
            mistakes.append(mistake_line(where, f"the environment variable {name or '(no name)'} is not set"))
        return environment.get(name, default)

    return _VARIABLE.sub(value_of, text)
