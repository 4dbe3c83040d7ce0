"""The online store with a real redis-server: what it holds, what it refuses, and all that can go wrong with it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from serving.key_script import DIGEST, KEYS_A_CALL, Written, form_of
from serving.online_store import OnlineStore
from serving.redis_door import FULL, LOGIN, REFUSED, SLOW, UNREACHABLE, RedisDoor
from streams.embedded import EmbeddedRedis
from streams.errors import PipelineError, StoreError
from streams.metrics import RoleMetrics
from tests.key_rows import Said, key_rows
from tests.system.conftest import until

FORM = form_of("p", ("amount", "shop"), 60_000, "t1")
Rows = Said | tuple[str, int]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """One server for all tests here; a test that stops it starts it again."""
    with EmbeddedRedis(tmp_path_factory.mktemp("state")) as found:
        yield found


@pytest.fixture
def client(server: EmbeddedRedis) -> Iterator[redis.Redis]:
    """An empty server, asked by the client library as anyone would."""
    found: redis.Redis = redis.Redis.from_url(server.url, decode_responses=True)
    found.flushall()
    found.script_flush()
    yield found
    found.close()


@pytest.fixture
def door(server: EmbeddedRedis) -> Iterator[RedisDoor]:
    """The door to the server."""
    found = RedisDoor(server.url, FORM)
    yield found
    found.close()


class Running:
    """A store that writes to a server."""

    def __init__(self, url: str) -> None:
        self.metrics = RoleMetrics("serve", "p")
        self.store = OnlineStore(RedisDoor(url, FORM), self.metrics)
        self.store.start()

    def put(self, *said: Rows) -> None:
        self.store.put(key_rows(*said))

    def value(self, name: str, **labels: str) -> float:
        base = {"pipeline": "p", "role": "serve", "candidate": ""}
        return self.metrics.registry.get_sample_value(f"millrace_store_{name}", {**base, **labels}) or 0.0

    def outcomes(self) -> dict[str, float]:
        names = ("written", "older", "superseded", "dropped", "foreign")
        return {name: count for name in names if (count := self.value("rows_total", outcome=name))}


@pytest.fixture
def running(server: EmbeddedRedis, client: redis.Redis) -> Iterator[Running]:
    """A running store over an empty server."""
    found = Running(server.url)
    yield found
    found.store.close()


def held(client: redis.Redis, key: str) -> dict[str, Any]:
    """What is held for a key."""
    found: Any = client.hgetall(f"p:key:{key}")
    return dict(found)


def number(client: redis.Redis, key: str) -> int:
    """The number of the row that is held for a key, -1 without one."""
    return int(held(client, key).get("number", -1))


# What is held


def test_a_key_holds_what_was_answered_last(client: redis.Redis, door: RedisDoor) -> None:
    """Its name and time in plain numbers, answer and features as JSON; a missing feature is null."""
    row = Said("ann", 6, generation=2, time_us=-5)
    door.write(key_rows(row, Said("bob", 7)))
    found = held(client, "ann")

    assert found.keys() == {"topic_id", "generation", "number", "time_us", "prediction", "features"}
    assert found["topic_id"] == "t1"
    assert (found["generation"], found["number"], found["time_us"]) == ("2", "6", "-5")
    assert found["prediction"].encode() == row.answer
    assert json.loads(found["features"]) == {"amount": 0.6, "shop": -7.0}
    assert json.loads(held(client, "bob")["features"]) == {"amount": 0.7, "shop": None}
    assert client.dbsize() == 2


def test_a_key_may_be_any_text(client: redis.Redis, door: RedisDoor) -> None:
    """Line ends, spaces and all the world's letters are bytes to Redis."""
    keys = ["a\r\nb", " ", "köln ✈", "p:key:x", "k" * 1_024, "\0"]
    door.write(key_rows(*((key, at) for at, key in enumerate(keys))))

    assert [number(client, key) for key in keys] == list(range(len(keys)))


def test_a_key_is_read_back_by_the_door(client: redis.Redis, door: RedisDoor) -> None:
    """As it was written, with how long it will stay; nothing for a key that is not there."""
    row = Said("ann", 6)
    door.write(key_rows(row))
    found = door.read("p", "ann")

    assert found is not None
    assert found.fields["prediction"] == row.answer
    assert found.lives_s == pytest.approx(60, abs=10)
    assert (door.read("p", "bob"), door.read("q", "ann")) == (None, None)


def test_a_key_is_forgotten_after_its_time(client: redis.Redis, server: EmbeddedRedis) -> None:
    """Counted from its last row: each begins it anew."""
    brief = RedisDoor(server.url, form_of("p", ("amount", "shop"), 400, "t1"))
    brief.write(key_rows(("ann", 1)))
    client.pexpire("p:key:ann", 60_000)
    brief.write(key_rows(("ann", 2)))

    assert 0 < int(client.pttl("p:key:ann")) <= 400
    until(lambda: client.dbsize() == 0, wait_s=10)

    brief.close()


# What is refused


@pytest.mark.parametrize(
    ("held_name", "offered", "is_taken"),
    [
        ((0, 5), (0, 6), True),
        ((0, 5), (0, 5), True),
        ((0, 5), (0, 4), False),
        ((0, 10), (0, 9), False),
        ((1, 0), (0, 999_999_999_999), False),
        ((0, 999_999_999_999), (1, 0), True),
        ((10_000, 999_999_999_999), (10_000, 999_999_999_998), False),
    ],
)
def test_an_older_row_is_refused(
    client: redis.Redis, door: RedisDoor, held_name: tuple[int, int], offered: tuple[int, int], *, is_taken: bool
) -> None:
    """By generation, then number, as numbers; what a restarted worker repeats is taken again."""
    before, after = (Said("ann", number, generation, time_us) for time_us, (generation, number) in
                     enumerate((held_name, offered)))  # fmt: skip
    door.write(key_rows(before))

    assert door.write(key_rows(after)) == (Written(1, 0, 0) if is_taken else Written(0, 1, 0))
    kept = after if is_taken else before
    assert (held(client, "ann")["prediction"].encode(), held(client, "ann")["time_us"]) == (
        kept.answer,
        str(kept.time_us),
    )


def test_rows_of_a_topic_that_was_made_anew_replace_the_old_ones(client: redis.Redis, server: EmbeddedRedis) -> None:
    """Its numbers begin again and could not win against those of before; they are compared among themselves."""
    old, new = (RedisDoor(server.url, form_of("p", ("amount", "shop"), 60_000, topic)) for topic in ("t1", "t2"))
    old.write(key_rows(Said("ann", 900, generation=3)))

    assert new.write(key_rows(("ann", 1))) == Written(1, 0, 0)
    assert new.write(key_rows(("ann", 0))) == Written(0, 1, 0)
    assert (held(client, "ann")["topic_id"], number(client, "ann")) == ("t2", 1)
    for door in (old, new):
        door.close()


def test_a_zombie_beside_its_successor_changes_nothing(client: redis.Redis, server: EmbeddedRedis) -> None:
    """Whatever the order in which the two write, the newest row of each key stays."""
    zombie, successor = Running(server.url), Running(server.url)
    for turn in range(20):
        successor.put(*((f"k{key}", 100 + turn) for key in range(50)))
        zombie.put(*((f"k{key}", turn) for key in range(60)))
    successor.store.close()
    zombie.store.close()

    assert {number(client, f"k{key}") for key in range(50)} == {119}
    assert {number(client, f"k{key}") for key in range(50, 60)} == {19}
    assert zombie.value("failures_total") == successor.value("failures_total") == 0


def test_a_key_that_holds_something_else_is_left_alone(client: redis.Redis, door: RedisDoor) -> None:
    """The others of its batch are written all the same."""
    client.set("p:key:theirs", "precious")

    assert door.write(key_rows(("ann", 1), ("theirs", 2), ("bob", 3))) == Written(2, 0, 1)
    assert client.get("p:key:theirs") == "precious"
    with pytest.raises(StoreError, match="refuses: WRONGTYPE"):
        door.read("p", "theirs")


def test_a_hash_that_names_no_row_of_ours_gets_one(client: redis.Redis, door: RedisDoor) -> None:
    """Somebody's field, or a generation that is no number, counts as older than anything."""
    client.hset("p:key:ann", "note", "theirs")
    client.hset("p:key:bob", "generation", "first")

    assert door.write(key_rows(("ann", 1), ("bob", 2))) == Written(2, 0, 0)
    assert (number(client, "ann"), number(client, "bob")) == (1, 2)


def test_of_a_batch_the_newest_row_of_each_key_is_written(client: redis.Redis, running: Running) -> None:
    """Whichever way round they come, and each is counted once."""
    said = [("ann", 3), ("bob", 1), ("ann", 9), ("ann", 4), ("bob", 2)]
    running.put(*said)
    until(lambda: running.outcomes() == {"written": 2, "superseded": 3})

    assert (number(client, "ann"), number(client, "bob")) == (9, 2)


def test_many_keys_go_in_few_exchanges(client: redis.Redis, running: Running) -> None:
    """A thousand keys are 16 calls of the script, in one go."""
    keys = 16 * KEYS_A_CALL
    client.config_resetstat()
    running.put(*((f"k{at}", at) for at in range(keys)))
    until(lambda: running.value("write_seconds_count") > 0)
    stats: Any = client.info("commandstats")

    assert [number(client, f"k{at}") for at in range(0, keys, 97)] == list(range(0, keys, 97))
    assert stats["cmdstat_evalsha"]["calls"] == 2 * 16  # the first time Redis did not know the script
    assert (client.dbsize(), running.value("write_seconds_count")) == (keys, 1)


# What goes wrong


def test_a_script_that_redis_forgot_is_told_again(client: redis.Redis, door: RedisDoor) -> None:
    """Registered once, and once more after a flush; the batch arrives."""
    for at in range(3):
        door.write(key_rows(("ann", at)))
        assert client.script_exists(DIGEST) == [True]
    client.script_flush()
    client.config_resetstat()

    assert door.write(key_rows(("ann", 7), ("bob", 8))) == Written(2, 0, 0)
    assert door.write(key_rows(("ann", 9))) == Written(1, 0, 0)
    stats: Any = client.info("commandstats")
    assert stats["cmdstat_script"]["calls"] == 1


def test_a_redis_that_comes_back_empty_is_filled_again(
    client: redis.Redis, server: EmbeddedRedis, running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    """What was answered meanwhile is written as soon as it is back, anything else with its next event."""
    running.put(("ann", 1), ("bob", 2), ("eve", 3))
    until(lambda: client.dbsize() == 3)
    with caplog.at_level(logging.WARNING):
        server.kill()
        for at in range(10, 14):
            running.put(("ann", at))
            until(lambda at=at: running.value("failures_total", reason=UNREACHABLE) > at - 10)  # type: ignore[misc]
        was_open = running.value("open")
        server.start()
        until(lambda: number(client, "ann") == 13 and running.value("open") == 0)
    running.put(("bob", 20))
    until(lambda: number(client, "bob") == 20)

    assert was_open == 1
    assert number(client, "eve") == -1
    lines = [record.getMessage() for record in caplog.records if record.name == "serving.online_store"]
    assert len(lines) == 2
    assert lines[0].startswith(f"online store: {server.url} cannot be reached: ")
    assert lines[1].startswith(f"online store: {server.url} takes writes again, after ")


def test_a_wrong_password_is_one_clear_line_without_it(
    client: redis.Redis, server: EmbeddedRedis, caplog: pytest.LogCaptureFixture
) -> None:
    """The place is named, the secret is not; with the right one it works."""
    client.config_set("requirepass", "hunter2")
    try:
        wrong, right = (RedisDoor(server.url.replace("//", f"//:{word}@"), FORM) for word in ("hunter3", "hunter2"))
        missing = RedisDoor(server.url, FORM)
        for refused in (wrong, missing):
            with pytest.raises(StoreError) as caught:
                refused.write(key_rows(("ann", 1)))
            assert caught.value.reason == LOGIN
            assert str(caught.value).startswith(f"{server.url} refuses the name or password of [serve] redis: ")
            assert "hunter" not in str(caught.value)
            with pytest.raises(StoreError, match="refuses the name or password"):
                refused.read("p", "ann")
        assert right.write(key_rows(("ann", 1))) == Written(1, 0, 0)
        assert "hunter" not in right.address
    finally:
        client.config_set("requirepass", "")
    for one in (wrong, right, missing):
        one.close()


def test_a_full_redis_is_said_and_takes_the_rows_when_it_has_room(client: redis.Redis, running: Running) -> None:
    """Without eviction it refuses; what waits is written once there is room."""
    running.put(("ann", 1))
    until(lambda: number(client, "ann") == 1)
    client.config_set("maxmemory", "1")
    client.config_set("maxmemory-policy", "noeviction")
    try:
        running.put(("ann", 2), ("bob", 3))
        until(lambda: running.value("failures_total", reason=FULL) >= 3)
        assert (number(client, "ann"), number(client, "bob"), running.value("open")) == (1, -1, 1)
    finally:
        client.config_set("maxmemory", "0")
    until(lambda: running.value("open") == 0)

    assert (number(client, "ann"), number(client, "bob")) == (2, 3)


def test_a_slow_redis_never_delays_an_answer(client: redis.Redis, running: Running) -> None:
    """Rows are handed over in no time while Redis stands still; afterwards it has the newest."""
    running.put(("ann", 0))
    until(lambda: number(client, "ann") == 0)
    client.client_pause(2_500)
    rows, longest_s = [key_rows(("ann", at), (f"k{at % 50}", at)) for at in range(1, 4_000)], 0.0
    for at, one in enumerate(rows):
        began = time.perf_counter()
        running.store.put(one)
        longest_s = max(longest_s, time.perf_counter() - began)
        if at == 2_000:
            until(lambda: running.value("failures_total", reason=SLOW) >= 1, wait_s=10)
    until(lambda: sum(running.outcomes().values()) == 1 + 2 * len(rows))

    assert longest_s < 0.5  # Redis stood still five times as long; the rest is this machine's
    assert number(client, "ann") == len(rows)
    assert "dropped" not in running.outcomes()


def test_a_redis_that_only_reads_is_said(client: redis.Redis, door: RedisDoor) -> None:
    """A replica refuses every write."""
    client.replicaof("127.0.0.1", "1")
    try:
        with pytest.raises(StoreError, match=r"refuses: .*read only replica") as caught:
            door.write(key_rows(("ann", 1)))
    finally:
        client.replicaof("NO", "ONE")

    assert caught.value.reason == REFUSED


def test_a_user_with_few_rights_is_enough(client: redis.Redis, server: EmbeddedRedis) -> None:
    """Those that docs/online-store.md names."""
    rights = "on >pass resetkeys ~p:key:* -@all +evalsha +script|load +hmget +hset +pexpire +hgetall +pttl"
    anything: Any = client  # its types leave this out
    anything.execute_command("ACL", "SETUSER", "ann", "reset", *rights.split())
    ann = RedisDoor(server.url.replace("//", "//ann:pass@"), FORM)
    try:
        assert ann.write(key_rows(("k", 1))) == Written(1, 0, 0)
        assert ann.read("p", "k") is not None
    finally:
        anything.execute_command("ACL", "DELUSER", "ann")
        ann.close()


@pytest.mark.parametrize("pause_ms", [0, 5_000])
def test_the_end_waits_for_no_redis_in_trouble(client: redis.Redis, server: EmbeddedRedis, pause_ms: int) -> None:
    """What waits is written if Redis takes it at once; else serve ends without it."""
    found = Running(server.url)
    found.put(("ann", 1))
    until(lambda: number(client, "ann") == 1)
    if pause_ms:
        client.client_pause(pause_ms)
    found.put(("ann", 2))
    began = time.monotonic()
    found.store.close()
    took_s = time.monotonic() - began

    assert took_s < 4
    if not pause_ms:
        assert number(client, "ann") == 2


def test_an_option_that_the_client_does_not_know_is_a_mistake_of_the_file() -> None:
    """Said before serve takes a row."""
    with pytest.raises(PipelineError, match=r"\[serve\] redis: the client takes no such URL: .*timeuot"):
        RedisDoor("redis://127.0.0.1:1/0?timeuot=1")
