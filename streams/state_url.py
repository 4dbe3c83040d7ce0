"""URLs of state: which are taken, and how they are shown. A URL may hold secrets, which nothing ever prints."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "file")
FORM = "a directory, or a URL such as s3://bucket/prefix, gs://bucket/prefix or file:///directory"
HIDDEN = "(hidden)"
SHORTEST = 4  # of a secret that is looked for in texts: a single letter would hide everything

_LOGIN = re.compile(r"(?<=://).*:.*(?=@)")  # greedy: a password with an unescaped @, / or ? is hidden too
_PARAMETER = re.compile(r"([?&][^=&]*(?:key|secret|token|password|credential|sig)[^=&]*=)([^&]*)", re.IGNORECASE)


def is_url(text: str) -> bool:
    """Say whether a state is named by a URL; everything else is a path."""
    return "://" in text


def wrong_with(url: str) -> str:
    """Say what is wrong with a URL, nothing if it may be one."""
    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES:
        return f'"{scheme}://" is no store that Millrace knows'
    if scheme == "file":
        return "" if rest.startswith("/") else f"{masked(url)} names a host"
    return "" if re.match(r"[^/?#]", rest) else f"{masked(url)} names no bucket"


def directory_of(url: str) -> Path | None:
    """Give the directory that a file URL stands for, which is as good as its path; None for a store."""
    return Path(unquote(urlsplit(url).path)) if url.startswith("file://") else None


def masked(url: str) -> str:
    """Give a URL as it may be shown.

    >>> masked("s3://id:secret@bucket/p?region=eu-west-1&session_token=abc")
    's3://(hidden)@bucket/p?region=eu-west-1&session_token=(hidden)'
    """
    return _PARAMETER.sub(rf"\g<1>{HIDDEN}", _LOGIN.sub(HIDDEN, url))


def masked_in(text: str, url: str) -> str:
    """Give a text of somebody else about a URL as it may be shown: on one line, and without its secrets."""
    login = _LOGIN.search(url)
    found = [login[0], *login[0].split(":")] if login else []
    found += [match[2] for match in _PARAMETER.finditer(url)]
    text = text.replace(url, masked(url))
    for secret in sorted(
        {form for one in found for form in (one, unquote(one)) if len(form) >= SHORTEST}, key=len, reverse=True
    ):
        text = text.replace(secret, HIDDEN)
    return " ".join(text.split())
