"""What went wrong with a firmware is counted for many at once, and said in short."""

from datetime import timedelta
from typing import Any

from deployments.choices import DeploymentStatus
from deployments.incidents import firmware_incidents
from deployments.models import Deployment, Quarantine
from deployments.services.operate import rollback_deployment
from firmware.models import Firmware
from firmware.selectors import FirmwareIncidents
from tests.deployments.world import World

BAD = {"application_metrics": {"errorRate": 0.5}}


def roll_itself_back(world: World, bad: Firmware) -> Deployment:
    """Launch an image that breaches a limit, and let its device come back."""
    deployment = world.launch(bad)
    for device in world.devices.values():
        assert device.poll() is not None
        device.go_through()
        device.beat(**BAD)
    world.tick(1)
    world.update_offered()
    deployment.refresh_from_db()
    assert deployment.status == DeploymentStatus.ROLLED_BACK
    return deployment


def test_rollbacks_are_counted_with_what_was_proved(world: World) -> None:
    old, bad = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(2, old)
    for _ in range(2):
        roll_itself_back(world, bad)
    Quarantine.objects.all().delete()

    found = firmware_incidents(firmware_ids=[old.pk, bad.pk])

    assert found == {bad.pk: FirmwareIncidents(2, 0, 0, 0, 4)}
    assert str(found[bad.pk]) == "rolled back twice, 0 of 4 proved"


def test_a_rollback_by_a_person_counts_and_that_of_a_part_does_not(
    world: World,
) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(2, old)
    deployment = world.launch(new)
    world.update_offered()
    rollback_deployment(
        actor=world.admin,
        deployment_id=deployment.pk,
        reason="one of them",
        scope={"device_ids": ["d-000"]},
        now=world.now,
    )
    world.update_offered()
    assert firmware_incidents(firmware_ids=[new.pk]) == {}

    rollback_deployment(
        actor=world.admin,
        deployment_id=deployment.pk,
        reason="all of them",
        now=world.now,
    )

    found = firmware_incidents(firmware_ids=[new.pk])
    assert str(found[new.pk]) == "rolled back once, 2 of 2 proved"


def test_a_quarantine_counts_while_it_lasts(world: World) -> None:
    old, bad = world.image("1.0.0"), world.image("2.0.0")
    (device,) = world.fleet(1, old)
    kept = Quarantine.objects.create(
        device_id=device.pk,
        firmware=bad,
        failures=2,
        last_code="self_test_failed",
        updated_at=world.now,
        quarantined_at=world.now,
    )

    during = firmware_incidents(firmware_ids=[bad.pk])
    kept.quarantined_at = None
    kept.save()

    assert str(during[bad.pk]) == "quarantined on 1 device"
    assert firmware_incidents(firmware_ids=[bad.pk]) == {}


def test_only_a_failed_deployment_that_had_started_counts(world: World) -> None:
    old, bad = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(1, old)
    started = world.launch(bad)
    Deployment.objects.filter(pk=started.pk).update(status=DeploymentStatus.FAILED)
    never = world.launch(old, scheduled_at=world.now + timedelta(hours=1))
    world.tick(3601)
    never.refresh_from_db()

    found = firmware_incidents(firmware_ids=[old.pk, bad.pk])

    assert never.status == DeploymentStatus.FAILED
    assert {key: str(each) for key, each in found.items()} == {
        bad.pk: "1 deployment failed"
    }


def test_many_images_are_asked_about_at_once(
    world: World, django_assert_num_queries: Any
) -> None:
    images = [world.image(f"1.0.{number}") for number in range(4)]

    with django_assert_num_queries(1):
        firmware_incidents(firmware_ids=[each.pk for each in images])
