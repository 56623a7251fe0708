"""What is kept for how long, and what is never removed."""

from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import DatabaseError
from django.db.models import CASCADE
from django.utils import timezone
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from deployments.models import Deployment, Event, Report, Target, Update
from deployments.services.retention import OF_DEPLOYMENT, unused_images
from devices.models import Device
from firmware.exceptions import ImageChangedError
from firmware.models import Firmware
from firmware.services import cleanup
from firmware.services.approval import deprecate_firmware, reinstate_firmware
from firmware.storage import image_store
from health.models import DeviceState
from hotswap import retention
from hotswap.celery import app
from hotswap.common.models import AuditEvent, RemovalCount
from hotswap.common.services import forget_former_schedules
from hotswap.retention import POLICIES, enforce_policies
from tests.console.conftest import ConsoleClient
from tests.deployments.world import World

YEAR = timedelta(days=365)


@pytest.fixture
def world(db: None) -> World:
    return World()


def rolled_out(world: World, version: str = "2.0.0", count: int = 2) -> Deployment:
    """Bring an image to a fleet, and end the watch over it."""
    if not world.devices:
        world.fleet(count, world.image("1.0.0"))
    deployment = world.launch(world.image(version))
    world.update_offered()
    world.live_on(60)
    world.now += timedelta(hours=2)
    for device in world.devices.values():
        device.beat()
    world.tick()
    deployment.refresh_from_db()
    assert deployment.finished_at is not None
    assert deployment.watching_until is None
    return deployment


# --- The table --------------------------------------------------------------------


def test_every_policy_has_a_name_and_a_setting_of_its_own() -> None:
    names = [policy.name for policy in POLICIES]

    assert len(set(names)) == len(names)
    for policy in POLICIES:
        assert policy.kept is None or policy.kept >= timedelta(0), policy
        assert policy.setting == "" or hasattr(django_settings, policy.setting)


def test_nothing_removes_from_the_audit_trail(world: World) -> None:
    (audit,) = (policy for policy in POLICIES if policy.name == "audit")
    before = AuditEvent.objects.count()

    enforce_policies(now=world.now + 100 * YEAR)

    assert (audit.kept, audit.remove) == (None, None)
    assert AuditEvent.objects.count() >= before > 0


def test_a_clock_that_is_ahead_removes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = timezone.now()
    RemovalCount.objects.create(policy="answers", day=now.date(), number=1, last_at=now)
    ahead = now + 100 * YEAR
    monkeypatch.setattr("django.utils.timezone.now", lambda: ahead)

    retention.enforce()

    assert RemovalCount.objects.filter(policy="answers", number=1).exists()


def test_what_is_kept_for_good_stays(world: World, settings: Any) -> None:
    settings.DEPLOYMENTS_KEPT = settings.DEPLOYMENT_LOGS_KEPT = None
    settings.REPORTS_KEPT = settings.UNUSED_IMAGES_KEPT = None
    rolled_out(world)

    enforce_policies(now=world.now + 100 * YEAR)

    for model in (Deployment, Event, Report, Target, Update):
        assert model._base_manager.exists(), model


def test_the_number_removed_is_counted_by_day(world: World) -> None:
    rolled_out(world)
    reports = Report.objects.count()
    later = world.now + 2 * YEAR

    first = enforce_policies(now=later, names=["reports"])
    second = enforce_policies(now=later, names=["reports"])

    assert (first, second) == ({"reports": reports}, {})
    counted = RemovalCount.objects.get(policy="reports")
    assert (counted.number, counted.day) == (reports, later.date())


def test_a_step_removes_no_more_than_its_bound(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rolled_out(world)
    reports = Report.objects.count()
    monkeypatch.setattr(retention, "ROWS_A_STEP", 1)
    monkeypatch.setattr(retention, "SECONDS_A_RUN", 0)
    enforce_policies(now=world.now + 2 * YEAR, names=["reports"])
    assert Report.objects.count() == reports

    monkeypatch.setattr(retention, "SECONDS_A_RUN", 20)
    enforce_policies(now=world.now + 2 * YEAR, names=["reports"])

    assert not Report.objects.exists()
    assert RemovalCount.objects.get(policy="reports").number == reports


def test_a_policy_that_fails_stops_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rolled_out(world)

    def broken(*_: Any) -> int:
        raise DatabaseError("locked")

    changed = retention.Policy(
        name="broken", title="Broken", setting="REPORTS_KEPT", remove=broken
    )
    monkeypatch.setattr(retention, "POLICIES", (changed, *POLICIES))

    removed = enforce_policies(now=world.now + 2 * YEAR)

    assert removed["reports"] > 0


# --- Deployments ------------------------------------------------------------------


def test_every_table_of_a_deployment_is_known() -> None:
    owned = {
        relation.related_model
        for relation in Deployment._meta.related_objects
        if relation.on_delete is CASCADE
    }

    assert owned == set(OF_DEPLOYMENT)


def test_a_deployment_goes_as_a_whole_once_a_later_one_has_ordered(
    world: World, settings: Any
) -> None:
    settings.DEPLOYMENTS_KEPT = timedelta(days=30)
    old = rolled_out(world, "2.0.0")
    new = rolled_out(world, "3.0.0")

    removed = enforce_policies(now=world.now + YEAR, names=["deployments"])

    assert removed == {"deployments": 1}
    assert list(Deployment.objects.all()) == [new]
    for model in (Event, Update, Target):
        assert not model._base_manager.filter(deployment_id=old.pk).exists()
    assert not Report.objects.exclude(update__deployment=new).exists()
    event = AuditEvent.objects.get(verb="deployment.removed")
    assert event.object_id == str(old.pk)
    assert event.details["name"] == old.name


def test_a_deployment_that_is_open_or_young_stays(world: World, settings: Any) -> None:
    settings.DEPLOYMENTS_KEPT = timedelta(days=30)
    rolled_out(world, "2.0.0")
    rolled_out(world, "3.0.0")
    world.launch(world.image("4.0.0"))

    removed = enforce_policies(
        now=world.now + timedelta(days=29), names=["deployments"]
    )

    assert removed == {}
    assert Deployment.objects.count() == 3


def test_logs_go_by_the_end_of_their_deployment(world: World, settings: Any) -> None:
    settings.DEPLOYMENT_LOGS_KEPT = timedelta(days=30)
    rolled_out(world, "2.0.0")
    world.now += timedelta(days=40)
    for device in world.devices.values():
        device.beat()
    open_one = world.launch(world.image("3.0.0"))

    enforce_policies(now=world.now, names=["deployment-logs"])

    assert {event.deployment_id for event in Event.objects.all()} == {open_one.pk}


def test_a_removed_log_says_so(
    world: World, settings: Any, viewer_client: ConsoleClient
) -> None:
    old = rolled_out(world, "2.0.0")
    path = f"/admin/deployments/deployment/{old.pk}/change/"
    assert b"log has been removed" not in viewer_client.get(path).content

    # The clock of the world stands in the past.
    settings.DEPLOYMENT_LOGS_KEPT = timedelta(days=1)
    enforce_policies(now=world.now + YEAR, names=["deployment-logs"])

    assert b"log has been removed" in viewer_client.get(path).content


def test_reports_of_an_open_order_stay(world: World) -> None:
    world.fleet(1, world.image("1.0.0"))
    world.launch(world.image("2.0.0"))
    (device,) = world.devices.values()
    device.poll()
    device.report("downloading")

    enforce_policies(now=world.now + 2 * YEAR, names=["reports"])

    assert Report.objects.count() == 1


# --- Images -----------------------------------------------------------------------


@pytest.fixture
def out_of_use(world: World) -> Firmware:
    """A deprecated image that nothing needs."""
    world.fleet(1, world.image("1.0.0"))
    image = world.image("1.5.0")
    return deprecate(world, image)


def deprecate(world: World, image: Firmware) -> Firmware:
    deprecate_firmware(actor=world.admin, firmware_id=image.pk, reason="it is old")
    image.refresh_from_db()
    return image


def unused(image: Firmware) -> bool:
    before = image.updated_at + timedelta(seconds=1)
    return image.pk in unused_images(before=before, limit=100)


def test_an_image_that_nothing_needs_is_removed_and_its_record_stays(
    world: World, out_of_use: Firmware, settings: Any
) -> None:
    settings.UNUSED_IMAGES_KEPT = timedelta(days=30)
    name = out_of_use.storage_name
    assert image_store().exists(name)

    removed = enforce_policies(now=out_of_use.updated_at + YEAR, names=["images"])
    cleanup.tidy_store(now=out_of_use.updated_at + YEAR)

    assert removed == {"images": 1}
    assert not image_store().exists(name)
    out_of_use.refresh_from_db()
    assert out_of_use.removed_at is not None
    assert out_of_use.signature != ""
    assert AuditEvent.objects.filter(verb="firmware.image-removed").count() == 1
    assert enforce_policies(now=out_of_use.updated_at + YEAR, names=["images"]) == {}


def test_a_removed_image_comes_back_with_its_bytes(
    world: World, out_of_use: Firmware, settings: Any
) -> None:
    settings.UNUSED_IMAGES_KEPT = timedelta(days=30)
    enforce_policies(now=out_of_use.updated_at + YEAR, names=["images"])
    with pytest.raises(ImageChangedError):
        reinstate_firmware(
            actor=world.admin, firmware_id=out_of_use.pk, reason="it is needed"
        )

    world.image("1.5.0", approved=False)

    out_of_use.refresh_from_db()
    assert (out_of_use.removed_at, out_of_use.damaged_at) == (None, None)
    reinstate_firmware(
        actor=world.admin, firmware_id=out_of_use.pk, reason="it is needed"
    )


def test_a_removed_image_is_no_damage_that_anybody_must_look_at(
    out_of_use: Firmware, settings: Any, admin_client: ConsoleClient
) -> None:
    settings.UNUSED_IMAGES_KEPT = timedelta(days=30)
    enforce_policies(now=out_of_use.updated_at + YEAR, names=["images"])

    overview = admin_client.get("/admin/").content.decode()
    page = admin_client.get(
        f"/admin/firmware/firmware/{out_of_use.pk}/change/"
    ).content.decode()

    assert "damaged" not in overview.lower()
    assert "The stored image was removed on" in page
    assert "image is damaged" not in page


def test_approved_images_and_drafts_stay(world: World) -> None:
    approved, draft = world.image("1.0.0"), world.image("2.0.0", approved=False)

    assert not unused(approved)
    assert not unused(draft)


def test_an_image_that_a_device_runs_or_ran_before_stays(world: World) -> None:
    rolled_out(world, "2.0.0")
    before, running = (
        deprecate(world, Firmware.objects.get(version=version))
        for version in ("1.0.0", "2.0.0")
    )

    assert not unused(running)
    assert not unused(before)


def test_an_image_in_the_other_slot_of_a_device_stays(
    world: World, out_of_use: Firmware
) -> None:
    assert unused(out_of_use)
    DeviceState.objects.update(other_slot_checksum=out_of_use.sha256)

    assert not unused(out_of_use)


def test_an_image_that_an_open_deployment_names_stays(world: World) -> None:
    world.fleet(1, world.image("1.0.0"))
    image = world.image("2.0.0")
    deployment = world.launch(image)
    deprecate(world, image)
    assert deployment.status == "Running"

    assert not unused(image)


def test_an_image_that_a_rollback_would_need_stays(world: World) -> None:
    rolled_out(world, "2.0.0")
    world.devices.clear()
    image = deprecate(world, Firmware.objects.get(version="1.0.0"))
    # Whatever the device itself remembers: the deployment leads back to it.
    Device.objects.update(previous_firmware_version="")

    assert not unused(image)


def test_the_last_look_is_under_the_lock(
    world: World, out_of_use: Firmware, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reinstates an image between the look and the removal keeps it."""
    settings.UNUSED_IMAGES_KEPT = timedelta(days=30)
    locked = cleanup.locked_firmware

    def reinstated_first(firmware_id: Any) -> Firmware:
        Firmware.objects.filter(pk=firmware_id).update(status="Approved")
        return locked(firmware_id)

    monkeypatch.setattr(cleanup, "locked_firmware", reinstated_first)

    assert enforce_policies(now=out_of_use.updated_at + YEAR, names=["images"]) == {}


# --- The page ---------------------------------------------------------------------


def test_the_console_shows_each_policy_and_what_was_removed(
    viewer_client: ConsoleClient, world: World, settings: Any
) -> None:
    settings.REPORTS_KEPT = timedelta(0)
    rolled_out(world)
    number = Report.objects.count()
    enforce_policies(now=timezone.now(), names=["reports"])

    page = viewer_client.get("/admin/system/retention/").content.decode()

    for policy in POLICIES:
        assert policy.title in page
        assert policy.variable in page
    assert f"{number} reports" in page
    assert b"/admin/system/retention/" in viewer_client.get("/admin/system/").content


def test_each_policy_has_a_row_in_the_manual() -> None:
    text = (django_settings.BASE_DIR / "docs" / "configuration.md").read_text()

    for policy in POLICIES:
        assert policy.variable in text


@pytest.mark.django_db
def test_periodic_work_of_a_former_version_is_forgotten() -> None:
    every = IntervalSchedule.objects.create(every=1, period=IntervalSchedule.HOURS)
    for name in ("common-tidy", "retention", "celery.backend_cleanup"):
        PeriodicTask.objects.create(name=name, task="some.task", interval=every)

    removed = forget_former_schedules()

    left = set(PeriodicTask.objects.values_list("name", flat=True))
    assert removed == 1
    assert {"retention", "celery.backend_cleanup"} <= left
    assert "common-tidy" not in left


def test_the_task_is_one_that_the_worker_knows() -> None:
    app.loader.import_default_modules()
    sent = {entry["task"] for entry in django_settings.CELERY_BEAT_SCHEDULE.values()}

    assert sent <= set(app.tasks)
