"""Child processes that never outlive us: Kafka's JVM, redis-server, the roles.

Each child runs behind a small guard process (`child_guard`) that ends it when we are gone, also after `kill -9`. It
writes to a log file, and whatever goes wrong with it is told with the end of that log.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from streams import child_guard
from streams.errors import UnavailableError

PROBE_EVERY_S = 0.03
STOP_GRACE_S = 10.0
"""How long a child may take to end politely before it is killed."""
ORPHAN_GRACE_S = 2.0
"""The same when its parent is dead: short, since whoever starts anew waits for ports and locks."""
TAIL_BYTES = 8_192
TAIL_LINES = 4


class Child:
    """One child process. Start it, wait until it is ready, stop it; it may be started again after it has ended.

    Args:
        name: what a user calls it, as in "Kafka".
        command: program and arguments.
        log_path: where its output goes, appended.
        environment: added to ours.
        kept_fds: open files it inherits, such as a lock that must be held as long as it lives.

    Attributes:
        pid: the child's own process id (not the guard's), 0 before the first start.

    Example:
        >>> import tempfile
        >>> child = Child("sleeper", ["sleep", "60"], log_path=Path(tempfile.mkdtemp()) / "log")
        >>> child.start()
        >>> child.is_running()
        True
        >>> child.stop()
        >>> child.exit_code()
        -15
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log_path: Path,
        environment: Mapping[str, str] | None = None,
        kept_fds: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.command = list(command)
        self.log_path = log_path
        self.pid = 0
        self._environment = dict(environment or {})
        self._kept_fds = list(kept_fds)
        self._guard: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process and return at once.

        Raises:
            UnavailableError: the program does not exist or cannot be started.
        """
        if self.is_running():
            return
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        read_fd, write_fd = os.pipe()
        # -I -S: the guard needs nothing but the standard library, and starts in 20 ms.
        guard = [sys.executable, "-I", "-S", child_guard.__file__, str(write_fd), str(ORPHAN_GRACE_S)]
        try:
            with self.log_path.open("ab") as log:
                self._guard = subprocess.Popen(
                    [*guard, *self.command],
                    stdin=subprocess.PIPE,  # closes when we die, in whatever way
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **self._environment},
                    pass_fds=[write_fd, *self._kept_fds],
                    start_new_session=True,  # Ctrl-C reaches us alone; we decide the order of stopping
                )
        except OSError as error:
            os.close(read_fd)
            raise UnavailableError(f"{self.name} cannot be started: {error}") from None
        finally:
            os.close(write_fd)
        with os.fdopen(read_fd, "rb") as status:
            self.pid = int(status.readline() or b"0")
        if self.pid == 0:
            raise self._ended("could not be started")

    def is_running(self) -> bool:
        """Say whether the process is alive. Cheap; supervisors ask every moment."""
        return self._guard is not None and self._guard.poll() is None

    def exit_code(self) -> int | None:
        """Return how it ended (negative: by that signal), None if it runs or never ran."""
        return None if self._guard is None else self._guard.poll()

    def wait(self, timeout_s: float) -> int | None:
        """Wait for its end and return the exit code, None if it still runs after `timeout_s`."""
        if self._guard is None:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._guard.wait(timeout_s)
        return None

    def wait_ready(self, probe: Callable[[], bool], timeout_s: float) -> None:
        """Call `probe` until it says yes.

        Raises:
            UnavailableError: the process ended before, or was not ready in time (it is stopped then). The message
                ends with the last lines of its log.
        """
        deadline = time.monotonic() + timeout_s
        while not probe():
            if not self.is_running():
                raise self._ended("ended before it was ready")
            if time.monotonic() > deadline:
                self.stop()
                raise self._ended(f"was not ready within {timeout_s:.0f} s and was stopped")
            time.sleep(PROBE_EVERY_S)

    def stop(self, grace_s: float = STOP_GRACE_S) -> int | None:
        """End it politely (SIGTERM), after `grace_s` by force, and return its exit code."""
        self.terminate()
        if self.wait(grace_s) is None:
            self.kill()
        return self.exit_code()

    def terminate(self) -> None:
        """Ask it to end and return at once: with several children, ask all before waiting for each."""
        if self.is_running():
            self._tell(signal.SIGTERM)

    def kill(self) -> None:
        """End it and its own children by force, and wait for that."""
        if self._guard is None:
            return
        if self.is_running():
            self._tell(signal.SIGUSR1)
            if self.wait(STOP_GRACE_S) is None:
                self._guard.kill()  # the kernel then kills the child
        self._guard.wait()
        if self._guard.stdin is not None:
            self._guard.stdin.close()

    def tail(self, lines: int = TAIL_LINES) -> str:
        """Return the last lines of its log that tell something, in one line."""
        if not self.log_path.exists():
            return "(no log)"
        with self.log_path.open("rb") as log:
            log.seek(max(0, self.log_path.stat().st_size - TAIL_BYTES))
            text = log.read().decode(errors="replace")
        telling = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("\tat ")]
        return " | ".join(telling[-lines:]) or "(empty log)"

    def _tell(self, number: signal.Signals) -> None:
        if self._guard is not None:
            self._guard.send_signal(number)

    def _ended(self, what: str) -> UnavailableError:
        code = self.exit_code()
        how = "" if code is None else f" (signal {-code})" if code < 0 else f" (exit code {code})"
        return UnavailableError(f"{self.name} {what}{how}; its log {self.log_path} ends: {self.tail()}")
