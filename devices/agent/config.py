"""Read the agent's configuration.

Rules:
- An unknown key is an error: a misspelt limit must not pass for a default.
- Every error names the key.
- Relative paths are relative to the configuration file.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, cast

from devices.agent.limits import MAX_REPORT_CEILING_SECONDS, Limits
from devices.agent.logs import LOG_FORMATS, LogFormat

BootIdSource = Literal["process", "kernel"]
BOOT_ID_SOURCES: tuple[BootIdSource, ...] = ("process", "kernel")
DEFAULT_COMMAND = ("{python}", "{image}")
DEFAULT_SELF_TEST_SECONDS = 10.0
DEFAULT_MEMORY_BYTES = 64 * 1024 * 1024


class ConfigError(ValueError):
    """The configuration cannot be used; the message names the key."""


@dataclass(frozen=True, slots=True)
class ApplicationConfig:
    """How the image is run."""

    command: tuple[str, ...] = DEFAULT_COMMAND
    environment: Mapping[str, str] = field(default_factory=dict)
    keeps_output: bool = False


@dataclass(frozen=True, slots=True)
class EnrolmentConfig:
    """How the device gets its first key; `region` "" leaves it to the server."""

    token_file: Path
    region: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Config:
    """Everything the agent is told at provisioning."""

    server: str
    device_id: str
    model: str
    api_key_file: Path
    data_dir: Path
    trusted_keys: tuple[Path, ...]
    factory_image: Path | None = None
    factory_version: str = ""
    boot_id: BootIdSource = "process"
    reboot_command: tuple[str, ...] = ()
    self_test_seconds: float = DEFAULT_SELF_TEST_SECONDS
    memory_bytes: int = DEFAULT_MEMORY_BYTES
    allow_insecure_http: bool = False
    certificate_authorities: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    secure_boot_command: tuple[str, ...] = ()
    rotates_key: bool = True
    enrolment: EnrolmentConfig | None = None
    log_format: LogFormat = "plain"
    application: ApplicationConfig = field(default_factory=ApplicationConfig)
    limits: Limits = field(default_factory=Limits)


def load_config(path: Path) -> Config:
    """Read a TOML file.

    Raises:
        ConfigError: it cannot be read, or a key is missing, unknown or wrong.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    return parse_config(content, folder=path.absolute().parent)


def parse_config(content: Mapping[str, Any], *, folder: Path) -> Config:
    """Check a configuration.

    Args:
        content: the parsed TOML file.
        folder: what relative paths are relative to.

    Raises:
        ConfigError: a key is missing, unknown or wrong.
    """
    reader = _Reader(content, "", folder)
    factory_image = reader.path("factory_image", required=False)
    config = Config(
        server=reader.text("server"),
        device_id=reader.text("device_id"),
        model=reader.text("model"),
        api_key_file=reader.required_path("api_key_file"),
        data_dir=reader.required_path("data_dir"),
        trusted_keys=tuple(folder / name for name in reader.texts("trusted_keys")),
        factory_image=factory_image,
        factory_version=reader.text("factory_version", default=""),
        boot_id=cast(
            "BootIdSource", reader.choice("boot_id", BOOT_ID_SOURCES, "process")
        ),
        reboot_command=reader.texts("reboot_command", default=()),
        self_test_seconds=reader.seconds(
            "self_test_seconds", DEFAULT_SELF_TEST_SECONDS
        ),
        memory_bytes=reader.count("memory_bytes", DEFAULT_MEMORY_BYTES),
        allow_insecure_http=reader.flag("allow_insecure_http"),
        certificate_authorities=reader.path("certificate_authorities", required=False),
        client_certificate=reader.path("client_certificate", required=False),
        client_key=reader.path("client_key", required=False),
        secure_boot_command=reader.texts("secure_boot_command", default=()),
        rotates_key=reader.flag("rotates_key", default=True),
        enrolment=_parse_enrolment(
            reader.path("enrolment_token_file", required=False),
            reader.table("enrolment"),
            folder,
        ),
        log_format=cast("LogFormat", reader.choice("log_format", LOG_FORMATS, "plain")),
        application=_parse_application(reader.table("application"), folder),
        limits=parse_limits(reader.table("limits"), folder),
    )
    reader.refuse_unknown()
    if not config.trusted_keys:
        raise ConfigError("trusted_keys: at least one key expected")
    if factory_image is not None and not config.factory_version:
        raise ConfigError("factory_version: expected beside factory_image")
    if config.client_key is not None and config.client_certificate is None:
        raise ConfigError("client_certificate: expected beside client_key")
    if config.boot_id == "kernel" and not config.reboot_command:
        raise ConfigError("reboot_command: expected with boot_id = 'kernel'")
    return config


def parse_limits(content: Mapping[str, Any], folder: Path = Path()) -> Limits:
    """Check a table of limits; those left out keep their defaults.

    Raises:
        ConfigError: a key is unknown or wrong.
    """
    reader = _Reader(content, "limits.", folder)
    values: dict[str, Any] = {}
    for each in fields(Limits):
        default = getattr(Limits(), each.name)
        if isinstance(default, int):
            # A default of 0 means "no limit", which may be said as well.
            least = min(1, default)
            values[each.name] = reader.count(each.name, default, least=least)
        else:
            values[each.name] = reader.seconds(each.name, default)
    reader.refuse_unknown()
    limits = Limits(**values)
    if limits.report_ceiling_seconds > MAX_REPORT_CEILING_SECONDS:
        raise ConfigError(
            "limits.report_ceiling_seconds: at most "
            f"{MAX_REPORT_CEILING_SECONDS:g} expected"
        )
    if 0 < limits.max_bytes_per_second <= limits.min_bytes_per_second:
        raise ConfigError(
            "limits.min_bytes_per_second: less than max_bytes_per_second expected"
        )
    return limits


def _parse_enrolment(
    token_file: Path | None, content: Mapping[str, Any], folder: Path
) -> EnrolmentConfig | None:
    if token_file is None:
        if content:
            raise ConfigError("enrolment_token_file: expected beside [enrolment]")
        return None
    reader = _Reader(content, "enrolment.", folder)
    config = EnrolmentConfig(
        token_file, reader.text("region", default=""), reader.words("tags")
    )
    reader.refuse_unknown()
    return config


def _parse_application(content: Mapping[str, Any], folder: Path) -> ApplicationConfig:
    reader = _Reader(content, "application.", folder)
    config = ApplicationConfig(
        command=reader.texts("command", default=DEFAULT_COMMAND),
        environment=reader.words("environment"),
        keeps_output=reader.flag("keeps_output"),
    )
    reader.refuse_unknown()
    if not config.command:
        raise ConfigError("application.command: at least one word expected")
    return config


class _Reader:
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
