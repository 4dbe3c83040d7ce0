"""Stands between Millrace and one child process, so that the child never outlives us, however we die.

Run as a script: `python child_guard.py STATUS_FD GRACE_S COMMAND...`. It starts COMMAND in a process group of its own,
writes its process id to STATUS_FD, and then waits for whichever comes first:

- the child ends: the guard ends the same way (same exit code, or same signal);
- SIGTERM: passed on to the child; SIGUSR1: the child's whole group is killed;
- its standard input closes, or its parent changes: Millrace is gone. The child gets SIGTERM, GRACE_S later SIGKILL.

If the guard itself is killed, the kernel kills the child (Linux: PR_SET_PDEATHSIG). That signal is tied to the parent
*thread*, which is why it is not used on Millrace directly: a child started from a thread would die with that thread.
Imports only what is light: there is one guard per child.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
PARENT_CHECK_S = 1.0
"""How often the parent is looked for: a fork of the parent may keep the pipe open when the parent is dead."""


def main(arguments: list[str]) -> None:
    """Guard one command until it or our parent ends; never returns."""
    status_fd, grace_s, command = int(arguments[0]), float(arguments[1]), arguments[2:]
    parent = os.getppid()
    wake_fd = _listen()
    child = _start(command, status_fd)
    os.write(status_fd, b"%d\n" % child)
    os.close(status_fd)

    kill_at: float | None = None
    while True:
        ready, _, _ = select.select([wake_fd] + ([0] if kill_at is None else []), [], [], PARENT_CHECK_S)
        for number in os.read(wake_fd, 64) if wake_fd in ready else b"":
            _pass_on(number, child)
        _end_with(child)
        is_alone = (0 in ready and not os.read(0, 1)) or os.getppid() != parent
        if kill_at is None and is_alone:
            _signal(child, signal.SIGTERM)
            kill_at = time.monotonic() + grace_s
        if kill_at is not None and time.monotonic() >= kill_at:
            _signal(child, signal.SIGKILL)


def _listen() -> int:
    """Turn the signals we act on into bytes on a pipe, and return its reading end."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    signal.set_wakeup_fd(write_fd)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to decide about
    return read_fd


def _start(command: list[str], status_fd: int) -> int:
    guard = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        die_with_parent()
        if os.getppid() != guard:  # it died before the kernel was told
            os._exit(1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(status_fd)
        os.execvp(command[0], command)  # noqa: S606 -- no shell is the point
    except BaseException as error:  # noqa: BLE001 -- past a fork nothing may escape into the guard's code
        os.write(2, f"cannot run {command[0]}: {error}\n".encode())
    os._exit(127)


def die_with_parent() -> None:
    """Let the kernel kill this process when the thread that started it ends; only Linux can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _pass_on(number: int, child: int) -> None:
    if number == signal.SIGTERM:
        _signal(child, signal.SIGTERM)
    elif number == signal.SIGUSR1:
        _signal(child, signal.SIGKILL)


def _signal(child: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        # SIGKILL takes the child's own children along; a polite signal is for the child to pass on.
        (os.killpg if number == signal.SIGKILL else os.kill)(child, number)


def _end_with(child: int) -> None:
    """End as the child did, if it has ended."""
    done, status = os.waitpid(child, os.WNOHANG)
    if not done:
        return
    if os.WIFSIGNALED(status):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # one core file is enough
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main(sys.argv[1:])
