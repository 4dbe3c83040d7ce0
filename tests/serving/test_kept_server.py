"""A server that died is started again, sooner or later."""

from __future__ import annotations

from serving.kept_server import KeptServer
from streams.errors import UnavailableError


class Mortal:
    """A server that dies when it is told to."""

    name = "Redis"

    def __init__(self) -> None:
        self.code: int | None = None
        self.restarts = 0
        self.obstacle = ""

    def exit_code(self) -> int | None:
        return self.code

    def restart(self) -> None:
        if self.obstacle:
            raise UnavailableError(self.obstacle)
        self.restarts += 1
        self.code = None


class Watched:
    """A server, who keeps it, and a clock."""

    def __init__(self) -> None:
        self.now, self.said = 100.0, list[str]()
        self.server = Mortal()
        self.kept = KeptServer(self.server, self.said.append, lambda: self.now)

    def after(self, seconds: float) -> int:
        """Look after it when so much time has passed; gives its restarts."""
        self.now += seconds
        self.kept.tend()
        return self.server.restarts


def test_a_server_that_lives_is_left_alone() -> None:
    watched = Watched()

    assert [watched.after(10) for _ in range(3)] == [0, 0, 0]
    assert watched.said == []


def test_a_server_that_was_killed_is_back_after_half_a_second() -> None:
    watched = Watched()
    watched.server.code = -9

    assert [watched.after(seconds) for seconds in (0, 0.4, 0.2, 5)] == [0, 0, 1, 1]
    assert watched.said == ["embedded Redis was killed by SIGKILL; starts again in 0.5 s"]


def test_one_that_dies_again_and_again_waits_longer_until_it_has_lived() -> None:
    """0.5, 1, 2 s; after half a minute of life the next death counts as the first again."""
    watched = Watched()
    for seconds in (0.5, 1, 2):
        watched.server.code = 1
        before = watched.after(0)
        assert watched.after(seconds - 0.1) == before
        assert watched.after(0.1) == before + 1
    watched.after(31)
    watched.server.code = 1
    watched.after(0)

    assert watched.after(0.5) == 4
    assert watched.said[-1] == "embedded Redis ended with exit code 1; starts again in 0.5 s"


def test_one_that_cannot_start_is_tried_again() -> None:
    """Its port may be taken for a while; the rest of the pipeline goes on."""
    watched = Watched()
    watched.server.code, watched.server.obstacle = -9, "port 7 for embedded Redis is taken"
    watched.after(0)
    assert watched.after(0.5) == 0
    watched.server.obstacle = ""

    assert watched.after(0.9) == 0
    assert watched.after(0.2) == 1
    assert watched.said[1] == "port 7 for embedded Redis is taken; starts again in 1 s"
