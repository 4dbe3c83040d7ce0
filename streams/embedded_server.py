"""What embedded servers share: a directory with a lock, kept ports, a child process, the wait until it answers."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from streams.children import Child
from streams.errors import UnavailableError

HOST = "127.0.0.1"
START_TIMEOUT_S = 110.0
"""About 3 s are normal; a busy CI machine or the recovery of a killed broker's data takes longer."""
STOP_GRACE_S = 20.0
LOCK_TIMEOUT_S = 15.0
"""A server whose owner was killed ends within seconds; only then is its data free."""
LOCK_CHECK_S = 0.05


class Server:
    """A server of ours; its kinds say how it is prepared and asked."""

    name: str
    folder: str
    port_names: tuple[str, ...]

    def __init__(self, state_dir: Path, port: int | None = None) -> None:
        self.directory = state_dir.absolute() / self.folder
        self.log_path = self.directory / "server.log"
        self._wanted_port = port
        self._ports: dict[str, int] = {}
        self._child: Child | None = None
        self._lock_fd = -1

    @property
    def port(self) -> int:
        """The port clients connect to; known from the first start on."""
        return self._ports[self.port_names[0]]

    @property
    def pid(self) -> int:
        """The server's process id, 0 before the first start."""
        return 0 if self._child is None else self._child.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and return when it answers. Does nothing if it runs.

        Raises:
            UnavailableError: a program, download, port or memory is missing, the directory is in use by another
                process, or the server died (with the end of its log).
        """
        if self._child is not None and self._child.is_running():
            return
        self._check_memory()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._lock()
        try:
            self._ports = self._choose_ports()
            command = self._prepare()
            self._child = Child(f"embedded {self.name}", command, log_path=self.log_path, kept_fds=[self._lock_fd])
            self._child.start()
            self._child.wait_ready(self._probe(), START_TIMEOUT_S)
        except BaseException:
            self.stop()
            raise

    def is_running(self) -> bool:
        """Say whether the server's process is alive."""
        return self._child is not None and self._child.is_running()

    def exit_code(self) -> int | None:
        """Say how the server ended (negative: by that signal), None if it runs or never ran."""
        return None if self._child is None else self._child.exit_code()

    def restart(self) -> None:
        """Start the server after its end on the ports it had: its clients know no others.

        Raises:
            UnavailableError: as `start`; also when somebody else has its port.
        """
        self.stop()  # lets go of the lock, which would keep us out, too
        self._wanted_port = self.port
        self.start()

    def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """Stop the server, politely first, after `grace_s` by force; its data stays."""
        if self._child is not None:
            self._child.stop(grace_s)
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def kill(self) -> None:
        """End the server by force, as a crash would; its data stays."""
        if self._child is not None:
            self._child.kill()
        self.stop()

    def _prepare(self) -> list[str]:
        """Write what the server needs and return its command."""
        raise NotImplementedError

    def _answers(self) -> bool:
        """Ask the server something harmless; called once a connection to it succeeds."""
        raise NotImplementedError

    def _check_memory(self) -> None:
        """Raise if the machine has too little memory; nothing to check for a small server."""

    def _lock(self) -> None:
        # The server inherits the lock, so it is held until the last process that could write the data is gone.
        self._lock_fd = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() > deadline:
                    os.close(self._lock_fd)
                    self._lock_fd = -1
                    raise UnavailableError(
                        f"embedded {self.name} already runs on {self.directory}; stop the process that started it, "
                        "or use another state directory"
                    ) from None
                time.sleep(LOCK_CHECK_S)
            else:
                return

    def _choose_ports(self) -> dict[str, int]:
        """Take the ports of the last start where they are still free, so that clients find a restarted server."""
        path = self.directory / "ports.json"
        before: Mapping[str, int] = json.loads(path.read_text()) if path.exists() else {}
        ports: dict[str, int] = {}
        for name in self.port_names:
            kept = before.get(name, 0)
            ports[name] = kept if kept and is_free(kept) else free_port(set(ports.values()))
        if self._wanted_port is not None:
            if not is_free(self._wanted_port):
                raise UnavailableError(
                    f"port {self._wanted_port} for embedded {self.name} is taken; stop what uses it or choose another"
                )
            ports[self.port_names[0]] = self._wanted_port
        path.write_text(json.dumps(ports))
        return ports

    def _probe(self) -> Callable[[], bool]:
        def is_ready() -> bool:
            # A client that meets a closed port backs off; so the port is tried first.
            try:
                socket.create_connection((HOST, self.port), timeout=1.0).close()
            except OSError:
                return False
            return self._answers()

        return is_ready


def is_free(port: int) -> bool:
    """Whether a server could listen on a loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: old connections do not matter
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port(taken: set[int]) -> int:
    """Give a loopback port that nobody listens on, other than those `taken`."""
    while True:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port: int = probe.getsockname()[1]
        if port not in taken:
            return port
