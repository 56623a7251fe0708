"""Many deployments that want the same devices at the same moment."""

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from deployments.models import Deployment, Update
from deployments.services.launch import create_deployment
from deployments.services.offers import poll
from deployments.services.tick import tick
from devices.models import Device
from firmware.models import Firmware
from tests.campaign import OUTCOME, SEED, is_wanted
from tests.deployments.world import World

POLLERS = 6
TICKERS = 2


def add_fleet(count: int, runs: Firmware) -> None:
    """Register devices in bulk that have said what they run."""
    now = timezone.now()
    Device.objects.bulk_create(
        (
            Device(
                device_id=f"many-{number:05}",
                model=runs.model,
                region="US-EAST",
                firmware_version=runs.version,
                firmware_checksum=runs.sha256,
                created_at=now,
            )
            for number in range(count)
        ),
        batch_size=5000,
    )


def ask_at_once(world: World, device_ids: list[object], *, rounds: int) -> Counter[str]:
    """Let all devices poll, several at a time and each more than once, amid ticks."""
    chance = random.Random(SEED)
    asked = [each for each in device_ids for _ in range(rounds)]
    chance.shuffle(asked)
    found: Counter[str] = Counter()

    def ask(ids: list[object]) -> Counter[str]:
        given: Counter[str] = Counter()
        try:
            for device_id in ids:
                device = Device.objects.select_related("model").get(pk=device_id)
                answer = poll(device=device, now=world.now)
                if answer.order is not None:
                    given[str(answer.order.deployment_id)] += 1
        finally:
            connection.close()
        return given

    def go_on(_: int) -> Counter[str]:
        try:
            for _ in range(2):
                tick(now=world.now)
        finally:
            connection.close()
        return Counter()

    with ThreadPoolExecutor(POLLERS + TICKERS) as pool:
        work = [pool.submit(ask, asked[part::POLLERS]) for part in range(POLLERS)]
        work += [pool.submit(go_on, number) for number in range(TICKERS)]
        for each in work:
            # A deadlock would be raised here.
            found += each.result()
    return found


def all_want_the_same(
    world: World, *, deployments: int, devices: int, asking: int
) -> None:
    """Launch them on the same fleet, let some ask at once, and check who got what."""
    old = world.image("1.0.0")
    images = [world.image(f"2.{number}.0") for number in range(3)]
    add_fleet(devices, old)
    for number in range(deployments):
        world.now += timedelta(seconds=1)
        create_deployment(
            actor=world.admin,
            request=world.request(images[number % 3], name=f"number {number}"),
            now=world.now,
        )
    tick(now=world.now)
    first = Deployment.objects.earliest("created_at")
    ids = list(Device.objects.order_by("device_id").values_list("pk", flat=True))
    some = random.Random(SEED).sample(ids, asking)

    given = ask_at_once(world, some, rounds=2)

    open_orders = Update.objects.filter(closed_at__isnull=True)
    assert set(given) == {str(first.pk)}
    assert given[str(first.pk)] == 2 * asking
    assert open_orders.count() == asking
    assert open_orders.values("device").distinct().count() == asking
    assert set(open_orders.values_list("deployment", flat=True)) == {first.pk}
    assert Update.objects.filter(closed_at__isnull=False).count() == 0
    active = Deployment.objects.filter(status="Running")
    assert active.count() == deployments


@pytest.mark.django_db(transaction=True)
def test_of_many_deployments_the_oldest_gets_every_device_once() -> None:
    all_want_the_same(World(), deployments=20, devices=60, asking=60)


@pytest.mark.campaign
@pytest.mark.django_db(transaction=True)
def test_a_hundred_deployments_over_the_same_twenty_thousand_devices() -> None:
    if is_wanted("overlap"):
        OUTCOME.tried["overlap"] += 1
        all_want_the_same(World(), deployments=100, devices=20_000, asking=4_000)
