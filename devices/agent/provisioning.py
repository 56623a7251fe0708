"""Put the factory image into the first slot.

The factory image is trusted because it is there before the device is delivered; from
then on its digest is as recorded and is checked like any other.
"""

import logging
from pathlib import Path

from devices.agent.crashpoints import reach
from devices.agent.files import read_blocks, sha256_of
from devices.agent.installer import ImageRecord, Installer, InstallError

logger = logging.getLogger(__name__)


def provision(installer: Installer, image: Path, version: str) -> None:
    """Install the factory image unless the device has already been provisioned.

    Raises:
        InstallError: the image cannot be read or installed.
    """
    if installer.current() is not None or installer.previous_image() is not None:
        return
    sha256 = sha256_of(image)
    if sha256 is None:
        raise InstallError(f"The factory image {image} cannot be read.")
    record = ImageRecord(version, sha256, image.stat().st_size)
    installer.install(read_blocks(image), record)
    reach("provision.image_installed")
    installer.activate(sha256)
    reach("provision.activated")
    logger.info("factory image installed", extra={"version": version})
