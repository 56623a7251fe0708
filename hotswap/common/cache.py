"""Redis as a cache that may vanish: a miss instead of an error."""

import logging
from typing import Any

from django.core.cache.backends.redis import RedisCache
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)


class ForgivingRedisCache(RedisCache):
    """Find nothing and keep nothing while Redis is away.

    `incr` alone raises, so that whoever counts knows that nothing was counted.
    """

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        try:
            return super().get(key, default, version)
        except (RedisError, OSError):
            self._note()
            return default

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
