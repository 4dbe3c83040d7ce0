"""`/metrics` of a process: what Prometheus reads, and where."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest, start_http_server

from streams.errors import UnavailableError
from streams.metrics import RoleMetrics


def open_metrics(role: str, pipeline: str, release: str, address: str | None) -> tuple[RoleMetrics, int]:
    """Make the metrics of a process and answer `/metrics`; gives the port, too.

    Args:
        role: of the process.
        pipeline: its name.
        release: of Millrace.
        address: `host:port`, None for a free loopback port.

    Raises:
        UnavailableError: the address is taken or not ours.
    """
    metrics = RoleMetrics(role, pipeline)
    metrics.release(release)
    host, _, port = (address or "127.0.0.1:0").rpartition(":")
    return metrics, serve_metrics(metrics.registry, host, int(port))


def exposition(registry: CollectorRegistry) -> bytes:
    """Give all metrics of a process as Prometheus reads them."""
    return generate_latest(registry)


def serve_metrics(registry: CollectorRegistry, host: str = "127.0.0.1", port: int = 0) -> int:
    """Answer `/metrics` on a thread of its own, on loopback by default; return the port (0 picks a free one).

    Raises:
        UnavailableError: the address is taken or not ours.
    """
    try:
        server, _ = start_http_server(port, host, registry)
    except OSError as error:
        raise UnavailableError(
            f"metrics cannot listen on {host}:{port}: {error.strerror}; choose another --metrics address"
        ) from error
    return int(server.server_port)
