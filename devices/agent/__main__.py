"""Run the agent: `hotswap-agent --config agent.toml`.

Exit codes are those of `docs/agent.md`.
"""

import argparse
import fcntl
import logging
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import IO, Any

from devices.agent.application import Application, ProcessApplication
from devices.agent.backoff import Backoff
from devices.agent.clock import StoppableClock, StopRequested, stop_on_signals
from devices.agent.config import Config, ConfigError, load_config
from devices.agent.corruption import SpoilingStaging
from devices.agent.crashpoints import reach
from devices.agent.credentials import KeyFile
from devices.agent.download import FileStaging
from devices.agent.enrolment import TokenEnrolment
from devices.agent.files import make_directory
from devices.agent.health_check import HealthCheck
from devices.agent.hook_installer import HookInstaller
from devices.agent.hooks import HookRunner
from devices.agent.installer import (
    UNKNOWN_IMAGE,
    ImageRecord,
    Installer,
    InstallError,
    SlotInstaller,
)
from devices.agent.logs import LOG_FORMATS, bind, set_up_logging
from devices.agent.loop import Agent, Ending
from devices.agent.ports import Device, Ports
from devices.agent.provisioning import provision
from devices.agent.rotation import KeyRotation
from devices.agent.secure_boot import read_secure_boot
from devices.agent.spans import SpanExporter
from devices.agent.store import FileStateStore
from devices.agent.system import SystemApplication
from devices.agent.systemd import Notifier
from devices.agent.tls import TlsFiles
from devices.agent.transport import HttpTransport, InsecureAddressError
from devices.agent.verify import TrustedKeys, load_trusted_keys

logger = logging.getLogger("devices.agent")

_KERNEL_UPTIME = Path("/proc/uptime")


class ExitCode(IntEnum):
    """How the process ends."""

    OK = 0
    FAULT = 1
    BAD_CONFIGURATION = 2
    ORDER_FAILED = 3
    ALREADY_RUNNING = 4
    PROVISIONING_FAILED = 5
    SERVER_UNREACHABLE = 6
    ENROLMENT_REFUSED = 7
    ENROLMENT_PENDING = 8
    DEVICE_REFUSED = 9


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent until it is told to stop.

    Returns:
        An `ExitCode`.
    """
    options = _parse(arguments)
    clock = StoppableClock()
    try:
        stop_on_signals(clock)
        return _set_up_and_run(options, clock)
    except StopRequested:
        logger.info("stopped")
        return ExitCode.OK
    except Exception:
        logger.exception("fault of the agent")
        return ExitCode.FAULT


def _set_up_and_run(options: argparse.Namespace, clock: StoppableClock) -> ExitCode:
    set_up_logging(options.log_format or "auto")
    try:
        config = load_config(options.config)
        set_up_logging(options.log_format or config.log_format)
        bind(device_id=config.device_id)
        trusted = load_trusted_keys(config.trusted_keys)
        keys = _key_file(config)
        transport = _transport(config, keys, trusted)
    except (ConfigError, OSError, ValueError, InsecureAddressError) as error:
        logger.critical("configuration refused", extra={"reason": str(error)})
        return ExitCode.BAD_CONFIGURATION
    lock = _lock(config.data_dir)
    if lock is None:
        logger.critical(
            "data_dir is used by another agent", extra={"folder": str(config.data_dir)}
        )
        return ExitCode.ALREADY_RUNNING
    with lock:
        keys.finish_enrolment()
        return _run(config, trusted, keys, transport, clock, options)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="hotswap-agent", description="Keep a device on the firmware it is told."
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--once", action="store_true", help="work off one poll, then exit"
    )
    parser.add_argument(
        "--corrupt",
        action="store_true",
        help="flip a bit of every download, to see it refused (for trying out)",
    )
    parser.add_argument("--log-format", choices=LOG_FORMATS)
    return parser.parse_args(arguments)


def _run(
    config: Config,
    trusted: TrustedKeys,
    keys: KeyFile,
    transport: HttpTransport,
    clock: StoppableClock,
    options: argparse.Namespace,
) -> ExitCode:
    runner = HookRunner(config.installer.hooks, config.data_dir / "run")
    try:
        installer = _installer(config, runner)
    except InstallError as error:
        logger.error("not provisioned", extra={"reason": str(error)})
        return ExitCode.PROVISIONING_FAILED
    application = _application(config)
    device = Device(
        device_id=config.device_id,
        model=config.model,
        boot_id=_boot_id(config),
        self_test_seconds=config.self_test_seconds,
        limits=config.limits,
        secure_boot=read_secure_boot(config.secure_boot_command),
    )
    downloads = config.data_dir / "downloads"
    staging = FileStaging(downloads)
    if options.corrupt:
        logger.warning("every download is corrupted on purpose")
        staging = SpoilingStaging(downloads)
    rotation = _rotation(config, keys, transport)
    notifier = Notifier()
    while True:
        agent = Agent(
            device=device,
            ports=Ports(
                transport=transport,
                installer=installer,
                staging=staging,
                store=FileStateStore(config.data_dir / "state.json"),
                spans=SpanExporter(config.otlp_endpoint, config.device_id)
                if config.otlp_endpoint
                else None,
                application=application,
                keys=trusted,
                clock=clock,
                health_check=HealthCheck(runner),
                when_idle=rotation.rotate_if_due if config.rotates_key else _nothing,
                on_tick=notifier.alive,
                uptime_seconds=_kernel_uptime if config.boot_id == "kernel" else None,
            ),
        )
        runner.while_waiting = agent.keep_alive
        try:
            ending = agent.run(once=options.once)
        except StopRequested:
            notifier.stopping()
            raise
        runner.while_waiting = notifier.alive
        match ending:
            case Ending.REBOOT:
                _reboot(config, runner, clock)
            case Ending.DONE:
                return ExitCode.OK
            case Ending.ORDER_FAILED:
                return ExitCode.ORDER_FAILED
            case Ending.SERVER_UNREACHABLE:
                return _unreachable(keys)
            case Ending.DEVICE_REFUSED:
                return ExitCode.DEVICE_REFUSED


def _installer(config: Config, runner: HookRunner) -> Installer:
    """Give the place for images, with what was there before the first update.

    Raises:
        InstallError: the factory image cannot be installed.
    """
    if config.installer.kind == "hooks":
        hooks = HookInstaller(
            config.data_dir / "hooks",
            runner,
            factory=ImageRecord(
                version=config.factory_version or UNKNOWN_IMAGE.version,
                sha256=config.installer.factory_sha256 or UNKNOWN_IMAGE.sha256,
                size_bytes=0,
            ),
        )
        hooks.prepare()
        return hooks
    slots = SlotInstaller(config.data_dir)
    slots.prepare()
    if config.factory_image is not None:
        provision(slots, config.factory_image, config.factory_version)
    return slots


def _application(config: Config) -> Application:
    if not config.application.command:
        return SystemApplication(config.application.metrics_file)
    application = ProcessApplication(
        command=config.application.command,
        run_dir=config.data_dir / "run",
        memory_bytes=config.memory_bytes,
        environment=config.application.environment,
        keeps_output=config.application.keeps_output,
    )
    application.end_leftover()
    return application


def _unreachable(keys: KeyFile) -> ExitCode:
    """Tell a server that is away from one that has yet to let the device in."""
    outcome = keys.enrolment.outcome if keys.enrolment else ""
    match outcome:
        case "pending":
            return ExitCode.ENROLMENT_PENDING
        case "refused":
            return ExitCode.ENROLMENT_REFUSED
        case _:
            return ExitCode.SERVER_UNREACHABLE


def _nothing() -> None:
    pass


def _reboot(config: Config, runner: HookRunner, clock: StoppableClock) -> None:
    """Reboot; returning means that it did not happen."""
    logger.info("rebooting")
    if runner.has("reboot"):
        try:
            runner.run("reboot")
        except InstallError as error:
            logger.error("reboot hook failed", extra={"reason": str(error)})
            clock.wait(config.limits.retry_first_seconds)
        else:
            reach("hooks.reboot_asked")
            clock.wait(config.limits.reboot_timeout_seconds)
            logger.error("reboot hook did nothing")
        return
    if not config.reboot_command:
        sys.stderr.flush()
        # The process is the device: same pid, new boot. A signal must not fall into
        # the gap in which nobody handles it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        # The full path keeps the virtual environment, however it was first called.
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    try:
        subprocess.run(config.reboot_command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        logger.error("reboot command failed", extra={"reason": str(error)})
        clock.wait(config.limits.retry_first_seconds)
    else:
        clock.wait(config.limits.reboot_timeout_seconds)
        logger.error("reboot command did nothing")


def _key_file(config: Config) -> KeyFile:
    enrolment = None
    if config.enrolment is not None:
        enrolment = TokenEnrolment(
            token_file=config.enrolment.token_file,
            secret_file=config.data_dir / "enrolment-secret",
            facts=lambda: _facts(config),
        )
    keys = KeyFile(config.api_key_file, enrolment)
    if enrolment is None and not keys.keys():
        raise ConfigError(f"api_key_file: {config.api_key_file} holds no key")
    return keys


def _facts(config: Config) -> dict[str, Any]:
    """Give what the server is told of a device that enrols."""
    facts: dict[str, Any] = {"model": config.model}
    if config.enrolment and config.enrolment.region:
        facts["region"] = config.enrolment.region
    if config.enrolment and config.enrolment.tags:
        facts["tags"] = dict(config.enrolment.tags)
    if config.factory_version:
        facts["firmwareVersion"] = config.factory_version
    return facts


def _transport(config: Config, keys: KeyFile, trusted: TrustedKeys) -> HttpTransport:
    return HttpTransport(
        server=config.server,
        device_id=config.device_id,
        credentials=keys,
        connect_timeout_seconds=config.limits.connect_timeout_seconds,
        read_timeout_seconds=config.limits.read_timeout_seconds,
        allow_insecure_http=config.allow_insecure_http,
        tls=TlsFiles(
            certificate_authorities=config.certificate_authorities,
            client_certificate=config.client_certificate,
            client_key=config.client_key,
            minimum=config.minimum_tls,
        ),
        trusted_keys=tuple(trusted.by_id),
    )


def _rotation(config: Config, keys: KeyFile, transport: HttpTransport) -> KeyRotation:
    limits = config.limits
    return KeyRotation(
        keys=keys,
        server=transport,
        device_id=config.device_id,
        before_seconds=limits.rotate_key_before_seconds,
        backoff=Backoff(
            limits.rotate_retry_first_seconds, limits.rotate_retry_ceiling_seconds
        ),
    )


def _boot_id(config: Config) -> str:
    if config.boot_id == "kernel":
        return config.boot_id_file.read_text(encoding="ascii").strip()
    return str(uuid.uuid4())


def _kernel_uptime() -> float:
    return float(_KERNEL_UPTIME.read_text(encoding="ascii").split()[0])


def _lock(data_dir: Path) -> IO[bytes] | None:
    """Take the data folder for this process; None if another one has it."""
    make_directory(data_dir, mode=0o700)
    lock = (data_dir / "lock").open("wb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


if __name__ == "__main__":
    sys.exit(main())
