"""Redis as a cache that may vanish: a miss instead of an error."""

import logging
from typing import Any

from django.core.cache.backends.redis import RedisCache
from django_prometheus.cache.metrics import (
    django_cache_get_fail_total,
    django_cache_get_total,
    django_cache_hits_total,
    django_cache_misses_total,
)
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)
LABEL = "redis"
_ABSENT = object()


class ForgivingRedisCache(RedisCache):
    """Find nothing and keep nothing while Redis is away.

    `incr` alone raises, so that whoever counts knows that nothing was counted. The
    metrics of django-prometheus (`django_cache_...`) count what is read.
    """

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        django_cache_get_total.labels(backend=LABEL).inc()
        try:
            value = super().get(key, _ABSENT, version)
        except (RedisError, OSError):
            django_cache_get_fail_total.labels(backend=LABEL).inc()
            self._note()
            return default
        if value is _ABSENT:
            django_cache_misses_total.labels(backend=LABEL).inc()
            return default
        django_cache_hits_total.labels(backend=LABEL).inc()
        return value

    def set(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().set(*args, **kwargs)
        except (RedisError, OSError):
            self._note()

    def add(self, *args: Any, **kwargs: Any) -> bool:
        try:
            return bool(super().add(*args, **kwargs))
        except (RedisError, OSError):
            self._note()
            return False

    def delete(self, *args: Any, **kwargs: Any) -> bool:
        try:
            return bool(super().delete(*args, **kwargs))
        except (RedisError, OSError):
            self._note()
            return False

    @staticmethod
    def _note() -> None:
        logger.warning("The cache is away")
