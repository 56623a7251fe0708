"""An order as the answer to a poll: what a device is to do, in JSON."""

from base64 import b64encode
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from django.conf import settings

from deployments.services.offers import Image, Order
from hotswap.common.wire import Wire, to_wire


@dataclass(frozen=True, slots=True)
class ImageInstruction:
    """The image to download."""

    id: str
    version: str
    model: str
    size: int
    checksum: Annotated[str, Wire(help_text="SHA-256, lower hexadecimal digits")]
    signature: Annotated[str, Wire(help_text="of the image, base64")]
    signature_algorithm: str
    key_id: str
    download_url: Annotated[
        str, Wire(help_text="relative unless a public address is configured")
    ]


@dataclass(frozen=True, slots=True)
class SlotInstruction:
    """The image that the device keeps in its other slot; there is nothing to fetch."""

    version: str
    model: str
    checksum: str


@dataclass(frozen=True, slots=True)
class Instruction:
    """What a device is to do."""

    update_id: str
    deployment_id: str
    action: Annotated[str, Wire(help_text="install or rollback")]
    manifest: Annotated[str, Wire(help_text="canonical JSON, base64")]
    manifest_signature: str
    reboot_required: bool
    deadline: str
    confirmation_seconds: int
    traceparent: str
    source: Annotated[
        str | None,
        Wire(is_optional=True, help_text="slot: boot the other slot, fetch nothing"),
    ]
    firmware: ImageInstruction | SlotInstruction


def instruction_of(order: Order) -> dict[str, Any]:
    """Return an order as a device gets it.

    Source: FR-FW-004, step 1; docs/agent.md#the-protocol.
    """
    image = order.image
    return to_wire(
        Instruction(
            update_id=str(order.update_id),
            deployment_id=str(order.deployment_id),
            action=order.kind.value,
            manifest=b64encode(order.manifest).decode(),
            manifest_signature=order.manifest_signature,
            reboot_required=order.reboot_required,
            deadline=order.deadline.strftime("%Y-%m-%dT%H:%M:%SZ"),
            confirmation_seconds=int(order.confirmation_duration.total_seconds()),
            traceparent=order.traceparent,
            source="slot" if image is None else None,
            firmware=SlotInstruction(order.version, order.model, order.checksum)
            if image is None
            else _image(order, image),
        )
    )


def _image(order: Order, image: Image) -> ImageInstruction:
    return ImageInstruction(
        id=str(image.firmware_id),
        version=order.version,
        model=order.model,
        size=image.size,
        checksum=order.checksum,
        signature=image.signature,
        signature_algorithm=image.signature_algorithm,
        key_id=image.key_id,
        download_url=_address(image.firmware_id),
    )


def _address(firmware_id: UUID) -> str:
    # Relative, so that a device takes the way that it has come by, unless the
    # configuration names another one.
    return f"{settings.PUBLIC_URL.rstrip('/')}/api/v1/firmware/{firmware_id}/download"
