"""People who are logged in to the console, and something to look at."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from deployments.models import (
    Delivery,
    Deployment,
    Gateway,
    MailRecipient,
    Quarantine,
    Webhook,
)
from deployments.services.receivers import (
    create_receiver,
    create_webhook,
    send_test,
)
from devices.choices import ImportFormat
from devices.models import (
    Device,
    DeviceGroup,
    DeviceImport,
    EnrolmentRequest,
    EnrolmentToken,
)
from devices.services.enrolment import Applicant, enrol_device
from devices.services.imports import begin_import
from firmware.models import DeviceModel, Firmware, SigningKey, StorageKey
from hotswap.common.models import User
from hotswap.common.roles import Role
from hotswap.console import figures
from hotswap.console.bell import read_lately
from tests.common.factories import PersonFactory
from tests.deployments.world import World
from tests.devices.factories import EnrolmentTokenFactory, GroupFactory, value_of
from tests.factors import log_in_by_password

# Markup of our own that was escaped: people would read it as text.
ESCAPED = re.compile(rb"&lt;(?:time|span|small|div|svg)\b[^&]*(?:class|datetime)=")


class ConsoleClient(Client):
    """A client that remembers who is logged in, and refuses pages that show markup."""

    person: User

    def request(self, **request: Any) -> Any:
        response = super().request(**request)
        if not response.streaming:
            shown = ESCAPED.search(response.content)
            assert shown is None, response.content[shown.start() - 80 :][:400]
        return response


@pytest.fixture(autouse=True)
def _figures_are_read_anew() -> Iterator[None]:
    figures.forget()
    read_lately.forget()
    yield
    figures.forget()
    read_lately.forget()


@pytest.fixture
def log_in(db: None) -> Callable[..., ConsoleClient]:
    """Log a new person of a role in."""

    def log_in(role: Role, **options: Any) -> ConsoleClient:
        client = ConsoleClient(**options)
        client.person = PersonFactory.create(role=role)
        log_in_by_password(client, client.person)
        return client

    return log_in


@pytest.fixture
def admin_client(log_in: Callable[..., ConsoleClient]) -> ConsoleClient:
    return log_in(Role.ADMIN)


@pytest.fixture
def operator_client(log_in: Callable[..., ConsoleClient]) -> ConsoleClient:
    return log_in(Role.OPERATOR)


@pytest.fixture
def viewer_client(log_in: Callable[..., ConsoleClient]) -> ConsoleClient:
    return log_in(Role.VIEWER)


@dataclass(frozen=True, slots=True)
class Scene:
    """One of everything that has a page."""

    world: World
    draft: Firmware
    approved: Firmware
    model: DeviceModel
    device: Device
    group: DeviceGroup
    deployment: Deployment
    person: User
    signing_key: SigningKey
    storage_key: StorageKey
    enrolment: EnrolmentRequest
    enrolment_token: EnrolmentToken
    device_import: DeviceImport
    quarantine: Quarantine
    webhook: Webhook
    mail_recipient: MailRecipient
    gateway: Gateway
    delivery: Delivery


@pytest.fixture
def scene(db: None) -> Scene:
    """Four devices, a running canary, a draft, a group and a person."""
    world = World()
    old, new = world.image("1.0.0"), world.image("1.1.0")
    draft = world.image("1.2.0", approved=False)
    world.fleet(4, old)
    device = Device.objects.get(device_id="d-000")
    group = GroupFactory.create(name="lab", members=[device])
    deployment = world.launch(new, "Canary")
    token = EnrolmentTokenFactory.create()
    enrol_device(
        enrolment_token=value_of(token),
        applicant=Applicant("new-device", new.model.name, "s" * 40),
        now=timezone.now(),
    )
    webhook, _ = create_webhook(actor=world.admin, url="https://8.8.8.8/hook")
    return Scene(
        world=world,
        draft=draft,
        approved=new,
        model=new.model,
        device=device,
        group=group,
        deployment=deployment,
        person=PersonFactory.create(),
        signing_key=SigningKey.objects.get(),
        storage_key=StorageKey.objects.get(),
        enrolment=EnrolmentRequest.objects.get(),
        enrolment_token=token,
        device_import=begin_import(
            actor=PersonFactory.create(admin=True),
            file_format=ImportFormat.NDJSON,
            columns=[],
            lines=[(1, b"{}")],
        ),
        quarantine=Quarantine.objects.create(
            device=device,
            firmware=draft,
            failures=2,
            last_code="self_test_failed",
            updated_at=world.now,
            quarantined_at=world.now,
        ),
        webhook=webhook,
        mail_recipient=create_receiver(
            kind=MailRecipient, actor=world.admin, address="ops@example.com"
        ),
        gateway=_gateway(),
        delivery=send_test(actor=world.admin, kind=Webhook, receiver_id=webhook.pk),
    )


def _gateway() -> Gateway:
    """Save one unchecked: the service asks apprise, which takes half a second."""
    gateway = Gateway(description="pager")
    gateway.url = f"twilio://AC{'a' * 32}:{'b' * 32}@15551112222/15553334444"
    gateway.save()
    return gateway
