"""`[serve] http` and `token`: where the HTTP API answers, and to whom."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from streams.toml_table import Table, shown
from streams.variables import expanded

HTTP_FORM = 'host and port, such as "127.0.0.1:8080"'
LEAST_TOKEN = 16  # characters: fewer can be guessed


def read_http(table: Table, environment: Mapping[str, str]) -> tuple[tuple[str, int] | None, str | None]:
    """Give the API's host and port, and its token; no message shows the token."""
    http, token = address(table, "http"), _token(table, environment)
    if token is not None and "http" not in table.values:
        table.mistake("token", "there is no HTTP API to ask for it", "declare http too")
    if http is not None and "token" not in table.values and not is_loopback(http[0]):
        table.mistake("http", f"{shown(http[0])} can be reached from other machines", "127.0.0.1, or a token with it")
    return http, token


def address(table: Table, key: str) -> tuple[str, int] | None:
    """Read a key that names a host and a port to listen at; None where it is absent, or wrong."""
    value = table.get(key)
    if value is None:
        return None
    try:
        parts = urlsplit(f"//{value}") if isinstance(value, str) else urlsplit("")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port is None or parts.username is not None or parts.path or parts.query:
        table.mistake(key, f"{shown(value)} is not right", HTTP_FORM)
        return None
    return host, port


def _token(table: Table, environment: Mapping[str, str]) -> str | None:
    value = table.get("token")
    if value is None:
        return None
    before = len(table.mistakes)
    token = expanded("[serve] token", value, environment, table.mistakes) if isinstance(value, str) else ""
    is_plain = token.isascii() and token.isprintable() and " " not in token
    if len(table.mistakes) == before and (len(token) < LEAST_TOKEN or not is_plain):
        table.mistake("token", "is not right", f"at least {LEAST_TOKEN} printable ASCII characters, as ${{API_TOKEN}}")
    return token


def is_loopback(host: str) -> bool:
    """Say whether only this machine reaches an address.

    >>> is_loopback("localhost"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
