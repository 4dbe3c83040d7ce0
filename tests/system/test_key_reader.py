"""Keys read in an event loop, with a real redis-server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from serving.key_script import form_of
from serving.redis_door import LOGIN, MOST_READING, REFUSED, SLOW, UNREACHABLE, KeyReader, RedisDoor
from streams.embedded import EmbeddedRedis
from streams.errors import PipelineError, StoreError
from tests.key_rows import Said, key_rows

KEYS = [f"k{at}" for at in range(20 * MOST_READING)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """A server that holds a row of each key."""
    with EmbeddedRedis(tmp_path) as found:
        door = RedisDoor(found.url, form_of("p", ("amount", "shop"), 60_000, "t1"))
        door.write(key_rows(*(Said(key, at) for at, key in enumerate(KEYS))))
        door.close()
        yield found


def client_of(server: EmbeddedRedis) -> redis.Redis:
    """Ask as anyone would."""
    found: redis.Redis = redis.Redis.from_url(server.url)
    return found


def test_many_are_read_at_once_each_with_what_is_held_for_it(server: EmbeddedRedis) -> None:
    """More than there are connections wait for one; what is not there is None, of another pipeline too."""

    async def read() -> list[dict[str, bytes] | None]:
        reader = KeyReader(server.url)
        found = await asyncio.gather(*(reader.read("p", key) for key in [*KEYS, "nobody"]), reader.read("q", "k1"))
        connections = client_of(server).info("clients")["connected_clients"] - 1
        await reader.close()
        assert connections <= MOST_READING
        return found

    *found, nobody, other = asyncio.run(read())

    assert [one and int(one["number"]) for one in found] == list(range(len(KEYS)))
    assert [one and one["prediction"] for one in found] == [Said(key, at).answer for at, key in enumerate(KEYS)]
    assert (nobody, other) == (None, None)


def test_a_redis_that_was_away_is_read_again(server: EmbeddedRedis) -> None:
    """While it is away, each read says so; then the same reader goes on, with connections of before."""

    async def read() -> None:
        reader = KeyReader(server.url)
        await asyncio.gather(*(reader.read("p", key) for key in KEYS))
        server.kill()
        for _ in range(3):
            with pytest.raises(StoreError, match="cannot be reached") as caught:
                await reader.read("p", "k1")
            assert caught.value.reason == UNREACHABLE
        server.start()
        client_of(server).hset("p:key:k1", mapping={"number": "7"})
        found = await asyncio.gather(*(reader.read("p", "k1") for _ in range(2 * MOST_READING)))
        assert found == [{"number": b"7"}] * 2 * MOST_READING
        await reader.close()

    asyncio.run(read())


def test_what_is_wrong_is_said_without_secrets(server: EmbeddedRedis) -> None:
    """A key that is not ours, a Redis that stands still, a wrong password, an option that there is not."""

    async def reason(url: str, key: str) -> str:
        reader = KeyReader(url)
        with pytest.raises(StoreError) as caught:
            await reader.read("p", key)
        await reader.close()
        assert "hunter" not in str(caught.value)
        return caught.value.reason

    client = client_of(server)
    client.set("p:key:text", "no hash")
    assert asyncio.run(reason(server.url, "text")) == REFUSED
    client.client_pause(1_500)
    assert asyncio.run(reason(server.url, "k1")) == SLOW
    client.config_set("requirepass", "hunter2")
    assert asyncio.run(reason(server.url.replace("//", "//:hunter3@"), "k1")) == LOGIN
    with pytest.raises(PipelineError, match="takes no such URL"):
        KeyReader(f"{server.url}?colour=red")
