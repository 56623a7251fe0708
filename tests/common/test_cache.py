"""A cache without its server."""

import pytest
from django.core.cache import cache
from prometheus_client import REGISTRY
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


def counted(what: str) -> float:
    name = f"django_cache_{what}_total"
    return REGISTRY.get_sample_value(name, {"backend": "redis"}) or 0


def test_reads_are_counted_by_what_they_found(lost_cache: ForgivingRedisCache) -> None:
    before = {
        what: counted(what) for what in ("get", "get_hits", "get_misses", "get_fail")
    }
    cache.set("a-name", None)

    assert cache.get("a-name", "default") is None
    assert cache.get("no-such-name", "default") == "default"
    lost_cache.get("a-name")

    assert {what: counted(what) - number for what, number in before.items()} == {
        "get": 3,
        "get_hits": 1,
        "get_misses": 1,
        "get_fail": 1,
    }
