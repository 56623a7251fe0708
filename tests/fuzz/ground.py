"""What the requests find: a fleet, images and deployments in many states, callers.

Every case is undone after it, so that the last one finds what the first one found.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils import timezone

from deployments.models import Gateway, MailRecipient
from deployments.services.operate import pause_deployment
from deployments.services.receivers import (
    create_receiver,
    create_webhook,
    send_test,
)
from devices.choices import ImportFormat
from devices.models import EnrolmentRequest
from devices.services.certificates import add_certificate
from devices.services.enrolment import Applicant, enrol_device
from devices.services.imports import begin_import
from devices.tasks import run_imports
from hotswap.common.models import User
from hotswap.common.tokens import person_access_token
from tests.common.factories import PersonFactory
from tests.deployments.world import MODEL, World
from tests.devices.factories import (
    DeviceFactory,
    EnrolmentTokenFactory,
    GroupFactory,
    device_token,
    key_of,
    value_of,
)
from tests.devices.pki import Authority
from tests.firmware.factories import FirmwareFactory
from tests.fuzz.names import ADMIN, DEVICE, NOBODY, OPERATOR, VIEWER, Names


@dataclass(frozen=True, slots=True)
class Ground:
    """What there is.

    Attributes:
        tokens: access token of each caller; None of nobody.
    """

    tokens: dict[str, str | None]
    names: Names


@contextmanager
def undone() -> Iterator[None]:
    """Take back whatever happens inside."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def lay_ground() -> Ground:
    """Make everything, through the services."""
    world = World(now=timezone.now())
    people = {
        ADMIN: PersonFactory.create(admin=True),
        OPERATOR: PersonFactory.create(operator=True),
        VIEWER: PersonFactory.create(),
    }
    old, new, newest = (world.image(f"{number}.0.0") for number in (1, 2, 3))
    draft = world.image("4.0.0", approved=False)
    past = FirmwareFactory.create(deprecated=True, version="0.9.0")
    fleet = world.fleet(6, old)
    waiting = world.launch(
        newest, "Canary", parameters={"initial_percentage": 20}, name="waits"
    )
    running = world.launch(new, "Canary", parameters={"initial_percentage": 20})
    pause_deployment(
        actor=world.admin,
        deployment_id=waiting.pk,
        reason="later",
        now=world.now,
    )
    world.tick()
    calling = next(device for device in fleet if device.poll())
    calling.report("downloading")
    assert calling.order is not None
    spare = [DeviceFactory.create() for _ in range(3)]
    rule = {"region": ["EU"], "firmwareVersion": {"below": "2.0.0"}}
    groups = tuple(
        str(group.pk)
        for group in (
            GroupFactory.create(members=[device.device for device in fleet[:2]]),
            GroupFactory.create(rule=rule),
        )
    )
    batch = begin_import(
        actor=people[ADMIN],
        file_format=ImportFormat.NDJSON,
        columns=[],
        lines=[(1, b'{"deviceId": "imported", "model": "sensor-v1"}'), (2, b"{")],
    )
    run_imports()
    devices = (calling.name, *(device.device_id for device in spare), fleet[-1].name)
    images = tuple(str(image.pk) for image in (new, draft, past, old))
    deployments = (str(running.pk), str(waiting.pk))
    return Ground(
        tokens={
            **{name: person_access_token(person) for name, person in people.items()},
            DEVICE: device_token(calling.device),
            NOBODY: None,
        },
        names=Names(
            own={"deviceId": calling.name, "updateId": calling.order["updateId"]},
            known={
                **dict.fromkeys(("deviceId", "deviceIds"), devices),
                "targetDevices": devices,
                **dict.fromkeys(("firmwareId", "firmware"), images),
                "modelId": (str(old.model_id),),
                "model": (MODEL,),
                **dict.fromkeys(("deploymentId", "deployment"), deployments),
                **dict.fromkeys(("groupId", "group", "targetGroups"), groups),
                "updateId": (calling.order["updateId"],),
                "importId": (str(batch.pk),),
                "apiKey": (key_of(spare[0]),),
                **_certificate(world.admin, spare[0].device_id),
                **_enrolment(),
                **_receivers(world.admin),
            },
        ),
    )


def _certificate(actor: User, device_id: str) -> dict[str, tuple[Any, ...]]:
    authority = Authority()
    held, other = authority.issue("held"), authority.issue("other")
    add_certificate(actor=actor, device_id=device_id, certificate=held.pem)
    return {"certificate": (held.pem, other.pem), "fingerprint": (held.fingerprint,)}


def _enrolment() -> dict[str, tuple[Any, ...]]:
    token = EnrolmentTokenFactory.create(needs_approval=True)
    enrol_device(
        enrolment_token=value_of(token),
        applicant=Applicant(device_id="asks", model_name=MODEL, secret="s" * 40),
        now=timezone.now(),
    )
    return {
        "tokenId": (str(token.pk),),
        "enrolmentToken": (value_of(token),),
        "enrolmentId": (str(EnrolmentRequest.objects.get().pk),),
    }


def _receivers(actor: User) -> dict[str, tuple[Any, ...]]:
    names = {}
    receivers = {
        "webhooks": create_webhook(actor=actor, url="https://127.0.0.1/a")[0],
        "mail-recipients": create_receiver(
            actor=actor, kind=MailRecipient, address="a@example.com"
        ),
        "gateways": create_receiver(
            actor=actor, kind=Gateway, url="json://127.0.0.1/a"
        ),
    }
    for kind, receiver in receivers.items():
        sent = send_test(actor=actor, kind=type(receiver), receiver_id=receiver.pk)
        names[f"{kind}/receiverId"] = (str(receiver.pk),)
        names[f"{kind}/deliveryId"] = (str(sent.pk),)
    return names
