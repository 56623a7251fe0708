"""A cache without its server."""

import pytest
from redis.exceptions import RedisError

from hotswap.common.cache import ForgivingRedisCache


@pytest.fixture
def lost_cache() -> ForgivingRedisCache:
    """Nothing listens on this port."""
    return ForgivingRedisCache("redis://127.0.0.1:1/0", {})


def test_a_cache_without_its_server_finds_and_keeps_nothing(
    lost_cache: ForgivingRedisCache,
) -> None:
    lost_cache.set("name", "value")

    assert lost_cache.get("name") is None
    assert lost_cache.get("name", "default") == "default"
    assert lost_cache.add("name", "value") is False
    assert lost_cache.delete("name") is False


def test_whoever_counts_is_told_that_nothing_was_counted(
    lost_cache: ForgivingRedisCache,
) -> None:
    with pytest.raises(RedisError):
        lost_cache.incr("number")
