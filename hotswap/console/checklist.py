"""The first steps on an empty server: which are done, and which comes next."""

from dataclasses import dataclass
from typing import Final

from django.db import connection
from django.urls import reverse

from hotswap.common.models import User
from hotswap.common.roles import Role

DONE_STEPS: Final = """
    SELECT EXISTS (SELECT FROM firmware_devicemodel),
           EXISTS (SELECT FROM firmware_firmware WHERE status <> 'Absent'),
           EXISTS (SELECT FROM firmware_firmware WHERE approved_at IS NOT NULL),
           EXISTS (SELECT FROM devices_device),
           EXISTS (SELECT FROM deployments_deployment)
"""
# What is done, why, the words of its button, where it is done, and who may.
STEPS: Final = (
    (
        "Add a device model",
        "Devices and images of firmware are of a model.",
        *("Add a model", "firmware_devicemodel_changelist", Role.ADMIN),
    ),
    (
        "Upload firmware",
        "Each image is signed, encrypted and kept as a draft.",
        *("Upload an image", "firmware_firmware_upload", Role.ADMIN),
    ),
    (
        "Approve it",
        "What is approved can be deployed; nothing is installed by that.",
        *("Look at what waits", "firmware_approvalrequest_changelist", Role.ADMIN),
    ),
    (
        "Register a device",
        "Its page shows how to start the agent.",
        *("Register a device", "devices_device_register", Role.OPERATOR),
    ),
    (
        "Launch a deployment",
        "A preview shows whom it reaches before anything happens.",
        *("Launch", "deployments_deployment_launch", Role.OPERATOR),
    ),
)


@dataclass(frozen=True, slots=True)
class Step:
    """One of the first steps.

    Attributes:
        url: of its button, which the next step alone has; "" where somebody else has
            to do it.
        needs: the role that is missing; "" if none is.
    """

    name: str
    why: str
    is_done: bool
    is_next: bool
    button: str
    url: str
    needs: str


def first_steps(user: User) -> list[Step]:
    """Return the first steps, or nothing once all of them are done."""
    with connection.cursor() as cursor:
        cursor.execute(DONE_STEPS)
        done: tuple[bool, ...] = cursor.fetchone()
    if all(done):
        return []
    following = done.index(False)
    found = []
    for number, (name, why, button, url, role) in enumerate(STEPS):
        is_next, is_allowed = number == following, user.may(role)
        found.append(
            Step(
                name=name,
                why=why,
                is_done=done[number],
                is_next=is_next,
                button=button,
                url=reverse(f"admin:{url}") if is_next and is_allowed else "",
                needs="" if is_allowed else role.value,
            )
        )
    return found
