"""Say whether this device booted securely, as far as it can be told.

Rules:
- The platform is asked first: the EFI variable `SecureBoot`.
- Where there is none, a hook command of the owner is asked.
- What cannot be told is `unknown`, never `disabled` or `enabled`.
- It cannot change within a boot, so it is read once at each start of the agent.
"""

import logging
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from devices.agent.children import child_environment

logger = logging.getLogger(__name__)

SecureBoot = Literal["enabled", "disabled", "unknown"]

EFI_VARIABLES = Path("/sys/firmware/efi/efivars")
EFI_NAME = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
COMMAND_SECONDS = 10.0
_EFI_ATTRIBUTES_BYTES = 4


def read_secure_boot(
    command: Sequence[str] = (),
    *,
    efi_variables: Path = EFI_VARIABLES,
    command_seconds: float = COMMAND_SECONDS,
) -> SecureBoot:
    """Ask the platform, then the hook command.

    Args:
        command: exit code 0 means enabled, 1 disabled, anything else unknown.
        efi_variables: where the kernel shows the variables of EFI.
        command_seconds: how long the command may take.
    """
    found = _read_efi(efi_variables / EFI_NAME)
    if found == "unknown" and command:
        found = _ask(command, command_seconds)
    return found


def _read_efi(path: Path) -> SecureBoot:
    try:
        content = path.read_bytes()
    except OSError:
        return "unknown"
    # Four bytes of attributes, then the value: one byte, 0 or 1.
    match content[_EFI_ATTRIBUTES_BYTES:]:
        case b"\x01":
            return "enabled"
        case b"\x00":
            return "disabled"
        case _:
            return "unknown"


def _ask(command: Sequence[str], seconds: float) -> SecureBoot:
    try:
        code = subprocess.run(
            command,
            check=False,
            timeout=seconds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=child_environment(),
        ).returncode
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        logger.error("secure_boot_command failed", extra={"reason": str(error)})
        return "unknown"
    match code:
        case 0:
            return "enabled"
        case 1:
            return "disabled"
        case _:
            logger.warning("secure_boot_command cannot tell", extra={"code": code})
            return "unknown"
