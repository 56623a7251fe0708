"""Take typed values out of a parsed TOML table.

Rules:
- Every error names the key.
- A key that nobody asks for is an error: a misspelt limit must not pass for a default.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class ConfigError(ValueError):
    """The configuration cannot be used; the message names the key."""


class Reader:
    """Take typed values out of one table and remember which were asked for."""

    def __init__(self, content: Mapping[str, Any], prefix: str, folder: Path) -> None:
        self._content = content
        self._prefix = prefix
        self._folder = folder
        self._asked: set[str] = set()

    def text(self, key: str, *, default: str | None = None) -> str:
        value = self._get(key, default)
        if not isinstance(value, str) or (default is None and not value):
            raise self._wrong(key, "a string")
        return value

    def texts(
        self, key: str, *, default: tuple[str, ...] | None = None
    ) -> tuple[str, ...]:
        value = self._get(key, default)
        is_list = isinstance(value, list | tuple)
        if not is_list or not all(isinstance(each, str) for each in value):
            raise self._wrong(key, "a list of strings")
        return tuple(value)

    def path(self, key: str, *, required: bool) -> Path | None:
        value = self.text(key, default=None if required else "")
        return self._folder / value if value else None

    def required_path(self, key: str) -> Path:
        return self._folder / self.text(key)

    def choice(self, key: str, choices: tuple[str, ...], default: str) -> str:
        value = self.text(key, default=default)
        if value not in choices:
            raise self._wrong(key, " or ".join(choices))
        return value

    def words(self, key: str) -> Mapping[str, str]:
        """Give a table of strings."""
        found = self.table(key)
        for name, value in found.items():
            if not isinstance(value, str):
                raise self._wrong(f"{key}.{name}", "a string")
        return found

    def flag(self, key: str, *, default: bool = False) -> bool:
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def count(self, key: str, default: int, *, least: int = 1) -> int:
        value = self._get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self._wrong(key, f"a whole number of {least} or more")
        return value

    def seconds(self, key: str, default: float) -> float:
        value = self._get(key, default)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 < value < 1e9:
            raise self._wrong(key, "a number of seconds above 0")
        return float(value)

    def table(self, key: str) -> Mapping[str, Any]:
        value = self._get(key, {})
        if not isinstance(value, dict):
            raise self._wrong(key, "a table")
        return value

    def refuse_unknown(self) -> None:
        unknown = sorted(set(self._content) - self._asked)
        if unknown:
            raise ConfigError(f"{self._prefix}{unknown[0]}: unknown key")

    def _get(self, key: str, default: Any) -> Any:
        self._asked.add(key)
        if key not in self._content and default is None:
            raise ConfigError(f"{self._prefix}{key}: missing")
        return self._content.get(key, default)

    def _wrong(self, key: str, expected: str) -> ConfigError:
        return ConfigError(f"{self._prefix}{key}: {expected} expected")
