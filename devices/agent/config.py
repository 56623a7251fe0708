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
from urllib.parse import urlsplit

from devices.agent.files import is_sha256
from devices.agent.hooks import Hook, HookName
from devices.agent.limits import MAX_REPORT_CEILING_SECONDS, Limits
from devices.agent.logs import LOG_FORMATS, LogFormat
from devices.agent.reader import ConfigError, Reader
from devices.agent.tls import TLS_VERSIONS, TlsVersion
from devices.agent.transport import is_loopback

KERNEL_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
BootIdSource = Literal["process", "kernel"]
BOOT_ID_SOURCES: tuple[BootIdSource, ...] = ("process", "kernel")
DEFAULT_COMMAND = ("{python}", "{image}")
InstallerKind = Literal["slots", "hooks"]
INSTALLER_KINDS: tuple[InstallerKind, ...] = ("slots", "hooks")
HOOK_SECONDS: Mapping[HookName, float] = {
    "current": 30.0,
    "pre_install": 60.0,
    "install": 1800.0,
    "activate": 60.0,
    "reboot": 60.0,
    "health_check": 60.0,
    "confirm": 60.0,
    "revert": 60.0,
}
"""Every hook, and how long it may take unless said otherwise."""
REQUIRED_HOOKS: tuple[HookName, ...] = (
    "current",
    "install",
    "activate",
    "reboot",
    "revert",
)
DEFAULT_SELF_TEST_SECONDS = 10.0
DEFAULT_MEMORY_BYTES = 64 * 1024 * 1024
MAX_VERSION_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class ApplicationConfig:
    """How the image is run; with an empty command something else runs it.

    `metrics_file` is what is read then, None for no metrics.
    """

    command: tuple[str, ...] = DEFAULT_COMMAND
    environment: Mapping[str, str] = field(default_factory=dict)
    keeps_output: bool = False
    metrics_file: Path | None = None


@dataclass(frozen=True, slots=True)
class InstallerConfig:
    """Where images go; `slots` knows no hook but `health_check`."""

    kind: InstallerKind = "slots"
    hooks: Mapping[HookName, Hook] = field(default_factory=dict)
    factory_sha256: str = ""


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
    boot_id_file: Path = KERNEL_BOOT_ID
    reboot_command: tuple[str, ...] = ()
    self_test_seconds: float = DEFAULT_SELF_TEST_SECONDS
    memory_bytes: int = DEFAULT_MEMORY_BYTES
    allow_insecure_http: bool = False
    certificate_authorities: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    minimum_tls: TlsVersion = "1.3"
    secure_boot_command: tuple[str, ...] = ()
    rotates_key: bool = True
    enrolment: EnrolmentConfig | None = None
    log_format: LogFormat = "auto"
    otlp_endpoint: str = ""
    application: ApplicationConfig = field(default_factory=ApplicationConfig)
    installer: InstallerConfig = field(default_factory=InstallerConfig)
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
    reader = Reader(content, "", folder)
    factory_image = reader.path("factory_image", required=False)
    installer = _parse_installer(reader.table("installer"), folder)
    has_hooks = installer.kind == "hooks"
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
            "BootIdSource",
            reader.choice(
                "boot_id", BOOT_ID_SOURCES, "kernel" if has_hooks else "process"
            ),
        ),
        boot_id_file=reader.path("boot_id_file", required=False) or KERNEL_BOOT_ID,
        reboot_command=reader.texts("reboot_command", default=()),
        self_test_seconds=reader.seconds(
            "self_test_seconds", DEFAULT_SELF_TEST_SECONDS
        ),
        memory_bytes=reader.count("memory_bytes", DEFAULT_MEMORY_BYTES),
        allow_insecure_http=reader.flag("allow_insecure_http"),
        certificate_authorities=reader.path("certificate_authorities", required=False),
        client_certificate=reader.path("client_certificate", required=False),
        client_key=reader.path("client_key", required=False),
        minimum_tls=cast(
            "TlsVersion", reader.choice("minimum_tls", tuple(TLS_VERSIONS), "1.3")
        ),
        secure_boot_command=reader.texts("secure_boot_command", default=()),
        rotates_key=reader.flag("rotates_key", default=True),
        enrolment=_parse_enrolment(
            reader.path("enrolment_token_file", required=False),
            reader.table("enrolment"),
            folder,
        ),
        log_format=cast("LogFormat", reader.choice("log_format", LOG_FORMATS, "auto")),
        otlp_endpoint=_otlp_endpoint(
            reader.text("otlp_endpoint", default=""),
            allows_http=reader.flag("allow_insecure_http"),
        ),
        application=_parse_application(
            reader.table("application"), folder, has_slots=not has_hooks
        ),
        installer=installer,
        limits=parse_limits(reader.table("limits"), folder),
    )
    reader.refuse_unknown()
    if not config.trusted_keys:
        raise ConfigError("trusted_keys: at least one key expected")
    if factory_image is not None and not config.factory_version:
        raise ConfigError("factory_version: expected beside factory_image")
    if len(config.factory_version) > MAX_VERSION_CHARACTERS or (
        not config.factory_version.isprintable()
    ):
        raise ConfigError(
            f"factory_version: at most {MAX_VERSION_CHARACTERS} printable characters "
            "expected"
        )
    if has_hooks:
        _check_hooks(config)
        return config
    if config.client_key is not None and config.client_certificate is None:
        raise ConfigError("client_certificate: expected beside client_key")
    if config.boot_id == "kernel" and not config.reboot_command:
        raise ConfigError("reboot_command: expected with boot_id = 'kernel'")
    return config


def _otlp_endpoint(address: str, *, allows_http: bool) -> str:
    """Check the address of a collector, "" if there is none."""
    if not address:
        return ""
    try:
        parts = urlsplit(address)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or not address.isascii():
        raise ConfigError("otlp_endpoint: an address with http or https expected")
    if parts.scheme == "http" and not (allows_http or is_loopback(host)):
        raise ConfigError("otlp_endpoint: https expected, or allow_insecure_http")
    return address


def parse_limits(content: Mapping[str, Any], folder: Path = Path()) -> Limits:
    """Check a table of limits; those left out keep their defaults.

    Raises:
        ConfigError: a key is unknown or wrong.
    """
    reader = Reader(content, "limits.", folder)
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
    reader = Reader(content, "enrolment.", folder)
    config = EnrolmentConfig(
        token_file, reader.text("region", default=""), reader.words("tags")
    )
    reader.refuse_unknown()
    return config


def _check_hooks(config: Config) -> None:
    """Refuse what makes no sense where hooks install and reboot."""
    if config.factory_image is not None:
        raise ConfigError("factory_image: installer.factory_sha256 expected instead")
    if config.reboot_command:
        raise ConfigError("reboot_command: installer.reboot expected instead")
    if config.boot_id != "kernel":
        # A restarted agent would pass for a rebooted device.
        raise ConfigError("boot_id: 'kernel' expected with installer.kind = 'hooks'")


def _parse_installer(content: Mapping[str, Any], folder: Path) -> InstallerConfig:
    reader = Reader(content, "installer.", folder)
    kind = cast("InstallerKind", reader.choice("kind", INSTALLER_KINDS, "slots"))
    seconds = Reader(
        reader.table("timeout_seconds"), "installer.timeout_seconds.", folder
    )
    hooks: dict[HookName, Hook] = {}
    for name, default in HOOK_SECONDS.items():
        timeout = seconds.seconds(name, default)
        command = reader.texts(name, default=())
        if command:
            hooks[name] = Hook(command, timeout)
        elif kind == "hooks" and name in REQUIRED_HOOKS:
            raise ConfigError(f"installer.{name}: missing")
        if command and kind == "slots" and name != "health_check":
            raise ConfigError(f"installer.{name}: only with kind = 'hooks'")
    factory_sha256 = reader.text("factory_sha256", default="")
    reader.refuse_unknown()
    seconds.refuse_unknown()
    if factory_sha256 and not is_sha256(factory_sha256):
        raise ConfigError("installer.factory_sha256: 64 lower-case hex digits expected")
    return InstallerConfig(kind, hooks, factory_sha256)


def _parse_application(
    content: Mapping[str, Any], folder: Path, *, has_slots: bool
) -> ApplicationConfig:
    reader = Reader(content, "application.", folder)
    config = ApplicationConfig(
        command=reader.texts("command", default=DEFAULT_COMMAND if has_slots else ()),
        environment=reader.words("environment"),
        keeps_output=reader.flag("keeps_output"),
        metrics_file=reader.path("metrics_file", required=False),
    )
    reader.refuse_unknown()
    if has_slots and not config.command:
        raise ConfigError("application.command: at least one word expected")
    if not has_slots and any("{image}" in word for word in config.command):
        raise ConfigError("application.command: {image} is for slots only")
    if config.command and config.metrics_file is not None:
        raise ConfigError("application.metrics_file: only with an empty command")
    return config
