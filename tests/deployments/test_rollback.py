"""Both levels of rollback: a device, and the whole deployment."""

from datetime import timedelta

import pytest

from deployments.choices import DeploymentStatus
from deployments.criteria import RollbackThresholds
from deployments.exceptions import UpdateClosedError
from deployments.models import Deployment, Quarantine, Target, Update
from deployments.reads.devices import KnownBaseline, UnknownBaseline, target_detail
from deployments.reads.rollback_report import deployment_rollback
from deployments.services.operate import rollback_deployment
from devices.models import Device
from firmware.models import Firmware
from health.models import DeviceState
from tests.deployments.world import (
    CRITERIA,
    ScriptedDevice,
    World,
    events,
    statuses,
)

BAD = {"application_metrics": {"errorRate": 0.5}}
TOLERANT = RollbackThresholds.of(
    offline_after=timedelta(seconds=60),
    cpu_duration=timedelta(seconds=20),
    memory_duration=timedelta(seconds=20),
    success_rate=10,
)


def _ordered_back(world: World) -> tuple[Deployment, ScriptedDevice]:
    """Return a device that has breached a limit on a new image."""
    old, bad = world.image("2.5.0"), world.image("2.6.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(bad)
    device.poll()
    device.go_through()
    device.beat(**BAD)
    world.tick(1)
    return deployment, device


def _on_its_way_back(world: World) -> tuple[Deployment, ScriptedDevice]:
    """Return a device that has claimed its return and shown its former image once."""
    deployment, device = _ordered_back(world)
    device.poll()
    device.go_through()
    return deployment, device


def test_a_breaching_canary_takes_the_whole_deployment_back(world: World) -> None:
    old, bad = world.image("2.5.0"), world.image("2.6.0")
    world.fleet(30, old)
    deployment = world.launch(bad, "Canary")
    took = [device for device in world.devices.values() if device.poll()]
    for device in took:
        device.go_through()

    took[0].beat(**BAD)
    world.tick(1)
    deployment.refresh_from_db()
    assert deployment.status == "RollingBack"
    assert len(took) == 3
    assert statuses(deployment) == {"rolling_back": 3, "cancelled": 27}
    returned = world.update_offered()

    deployment.refresh_from_db()
    assert deployment.status == "RolledBack"
    assert {device.name for device in returned} == {device.name for device in took}
    assert statuses(deployment) == {"rolled_back": 3, "cancelled": 27}
    assert set(Device.objects.values_list("firmware_version", flat=True)) == {"2.5.0"}


def test_a_return_is_proved_like_an_update(world: World) -> None:
    deployment, device = _ordered_back(world)

    order = device.poll()
    assert order is not None
    assert order["action"] == "rollback"
    assert order["firmware"]["version"] == "2.5.0"
    device.work()
    device.boot += 1
    device.report("confirming")
    world.live_on(15)
    assert statuses(deployment) == {"rolling_back": 1}

    device.reboot_into(device.ordered_image())
    device.beat()
    device.report("confirming")
    world.live_on(15)

    assert statuses(deployment) == {"rolled_back": 1}
    deployment.refresh_from_db()
    assert deployment.status == "RolledBack"


def test_a_return_is_not_proved_by_what_the_bad_image_left_behind(
    world: World,
) -> None:
    deployment, device = _ordered_back(world)
    device.poll()
    device.go_through()

    for _ in range(4):
        device.beat(**BAD)
        world.tick(5)

    assert statuses(deployment) == {"rolling_back": 1}


def test_manifests_rise_so_that_no_old_order_can_be_replayed(world: World) -> None:
    old, bad = world.image("2.5.0"), world.image("2.6.0")
    (device,) = world.fleet(1, old)
    world.launch(bad)
    device.poll()
    device.go_through()
    device.beat(**BAD)
    world.tick(1)
    device.poll()

    forth, back = Update.objects.order_by("offered_at")

    assert (forth.kind, back.kind) == ("install", "rollback")
    assert back.manifest_id > forth.manifest_id


def test_one_bad_device_goes_back_alone_while_the_others_stay(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    first, *others = world.fleet(10, old)
    deployment = world.launch(new, rollback_thresholds=TOLERANT, health_threshold=80)
    for device in world.devices.values():
        device.poll()
        device.go_through()
    world.live_on(5)

    first.beat(**BAD)
    world.live_on(10, but=[first])
    assert statuses(deployment) == {"success": 9, "rolling_back": 1}
    first.poll()
    first.go_through()
    world.live_on(15)

    deployment.refresh_from_db()
    assert deployment.status == "Completed"
    assert statuses(deployment) == {"success": 9, "rolled_back": 1}
    assert first.target(deployment).error_code == "error_rate"
    assert others[0].runs == new


@pytest.mark.parametrize(
    ("metrics", "code"),
    [({"cpu_usage": 99.0}, "cpu"), ({"memory_usage": 95.0}, "memory")],
)
def test_a_limit_is_breached_only_after_its_whole_window(
    world: World, metrics: dict[str, float], code: str
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    device.poll()
    device.go_through()

    for _ in range(4):
        device.beat(**metrics)
        world.tick(5)
    assert statuses(deployment) == {"confirming": 1}
    device.beat(**metrics)
    world.tick()

    assert device.target(deployment).error_code == code


def test_a_device_that_is_silent_after_its_reboot_is_ordered_back(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    first, *_ = world.fleet(10, old)
    deployment = world.launch(new, rollback_thresholds=TOLERANT, health_threshold=50)
    first.poll()
    first.work()

    world.live_on(60, but=[first])
    assert first.target(deployment).status == "rebooting"
    world.live_on(10, but=[first])

    target = first.target(deployment)
    assert (target.status, target.error_code) == ("rolling_back", "offline")


def test_a_slow_download_is_not_taken_for_silence(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    device.poll()
    device.report("downloading")

    world.live_on(200, but=[device])

    assert statuses(deployment) == {"downloading": 1}


def test_an_outage_of_the_server_rolls_nothing_back(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    device.poll()
    device.work()
    world.tick(5)

    # Longer than any of the deployment's own times.
    world.tick(600)
    world.tick(5)
    assert statuses(deployment) == {"rebooting": 1}
    world.tick(20)
    world.tick(20)
    world.tick(20)

    assert device.target(deployment).error_code == "offline"


def test_a_device_that_was_bad_before_is_not_judged_by_that_trigger(
    world: World,
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    device.beat(memory_usage=97.0)
    deployment = world.launch(new)
    device.poll()
    device.work()
    device.reboot_into(new)
    device.beat(memory_usage=97.0)
    device.report("confirming")

    for _ in range(8):
        device.beat(memory_usage=97.0)
        world.tick(5)

    assert statuses(deployment) == {"success": 1}
    assert Update.objects.get().exempt == ["memory"]


def test_without_a_recent_heartbeat_the_limits_alone_count_and_it_is_said(
    world: World,
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    device.beat(memory_usage=97.0)
    world.tick(16 * 60)
    deployment = world.launch(new)

    device.poll()

    detail = target_detail(deployment, device.target(deployment), world.now)
    notified = deployment.events.get(event="device.notified")
    assert detail.baseline == UnknownBaseline("unknown", ())
    assert notified.message.endswith(
        "its baseline is unknown: judged by the limits alone"
    )


def test_the_heartbeat_before_an_order_is_its_baseline(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    device.beat(cpu_usage=99.0, memory_usage=40.0)
    said_at = world.now
    world.tick(60)
    deployment = world.launch(new)

    before = target_detail(deployment, device.target(deployment), world.now)
    device.poll()
    after = target_detail(deployment, device.target(deployment), world.now)

    assert before.baseline is None
    assert after.baseline == KnownBaseline(
        status="known",
        measures={"cpu_usage": 99.0, "memory_usage": 40.0, "error_rate": 0.0},
        at=said_at,
        exempt=("cpu",),
    )


def test_heartbeats_of_the_former_image_are_not_held_against_the_new_one(
    world: World,
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    device.poll()
    device.report("downloading")
    device.beat(**BAD)

    device.go_through()
    world.live_on(15)

    assert statuses(deployment) == {"success": 1}


def test_a_watched_device_that_goes_bad_after_its_success_still_counts(
    world: World,
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(10, old)
    deployment = world.launch(new, "Canary", parameters={"wait_duration": 600.0})
    (canary,) = world.update_offered()
    assert statuses(deployment) == {"success": 1, "pending": 9}

    world.now += timedelta(seconds=60)
    canary.beat(**BAD)
    world.tick()

    deployment.refresh_from_db()
    assert deployment.status == "RollingBack"
    assert canary.target(deployment).error_code == "error_rate"


def test_a_device_that_falls_back_by_itself_fails_and_stays(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    first, *_ = world.fleet(10, old)
    deployment = world.launch(new, rollback_thresholds=TOLERANT, health_threshold=50)
    first.poll()
    first.work()
    first.boot += 2
    first.beat()

    first.report("failed", error_code="self_test_failed", message="it did not start")
    world.live_on(10)

    target = first.target(deployment)
    assert (target.status, target.error_code) == ("failed", "self_test_failed")
    assert "device.fell_back" in events(deployment)
    assert first.poll() is None


def test_a_fall_back_after_success_is_noticed(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    first, *_ = world.fleet(10, old)
    deployment = world.launch(
        new, "Canary", rollback_thresholds=TOLERANT, health_threshold=50
    )
    (canary,) = world.update_offered()

    canary.reboot_into(old)
    world.live_on(5)

    assert canary.target(deployment).error_code == "fell_back"
    assert canary.target(deployment).status == "failed"
    assert "device.fell_back" in events(deployment)
    assert first.name


def test_a_fall_back_after_the_watch_is_logged_once(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    world.update_offered()
    world.tick(3700)

    device.reboot_into(old)
    device.beat()
    device.beat()

    assert events(deployment)[-1] == "device.fell_back"
    assert events(deployment).count("device.fell_back") == 1
    deployment.refresh_from_db()
    assert deployment.status == "Completed"


def test_a_fall_back_while_watched_after_the_end_counts_against_its_stage(
    world: World,
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    world.update_offered()

    device.reboot_into(old)
    device.beat()
    world.tick(1)
    device.beat()

    assert events(deployment).count("device.fell_back") == 1
    deployment.refresh_from_db()
    assert deployment.status == "RollingBack"
    assert deployment.rollback_reason.startswith("after it was completed, stage 1")
    assert Quarantine.objects.get().failures == 1


def test_a_withdrawn_install_that_is_finished_marks_nothing(world: World) -> None:
    v1, v2, v3 = (world.image(version) for version in ("1.0.0", "2.0.0", "3.0.0"))
    (device,) = world.fleet(1, v1)
    first = world.launch(v2)
    world.update_offered()
    world.tick(3700)
    for _ in range(2):
        second = world.launch(v3)
        device.poll()
        for word in ("downloading", "verifying", "installing"):
            device.report(word)
        rollback_deployment(
            actor=world.admin, deployment_id=second.pk, reason="no", now=world.now
        )

        device.reboot_into(v3)
        device.beat()
        device.poll()
        device.go_through()
        world.live_on(CRITERIA.confirmation_duration.seconds + 10)
        assert device.device.firmware_version == "2.0.0"

    assert "device.fell_back" not in events(first)
    assert not Quarantine.objects.exists()
    second.refresh_from_db()
    assert second.status == "RolledBack"


def test_a_failure_that_may_pass_is_tried_again_with_a_delay(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new, max_attempts=2)
    first = device.poll()
    device.report("failed", error_code="install_failed", message="no space")
    assert statuses(deployment) == {"pending": 1}
    assert device.poll() is None

    world.tick(11)
    second = device.poll()
    assert first is not None
    assert second is not None
    assert first["updateId"] != second["updateId"]
    device.report("failed", error_code="install_failed", message="no space again")
    device.beat()
    world.tick()
    world.tick()

    target = device.target(deployment)
    assert (target.status, target.error_code) == ("failed", "install_failed")
    deployment.refresh_from_db()
    assert deployment.status == "Failed"
    assert deployment.failure_reason == (
        "1 of 1 exposed devices failed before it changed anything; "
        "nothing had to be rolled back"
    )
    assert deployment_rollback(deployment).outcome == "nothing to restore"  # type: ignore[union-attr]


def test_a_refused_image_is_not_tried_again(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    device.poll()

    device.report("failed", error_code="signature_invalid", message="bad signature")

    assert statuses(deployment) == {"failed": 1}


def test_what_failed_before_it_installed_has_nothing_to_go_back_from(
    world: World,
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    device.poll()
    device.report("downloading")
    device.report("verifying")
    device.report("failed", error_code="unknown_key", message="not pinned")

    # It has sent no heartbeat since: the deployment knows it from its own order.
    world.tick()
    world.tick()

    target = device.target(deployment)
    deployment.refresh_from_db()
    assert device.poll() is None
    assert (target.status, target.error_code) == ("failed", "unknown_key")
    assert deployment.status == DeploymentStatus.FAILED


def test_a_device_cannot_speak_a_verdict_of_the_server(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new, max_attempts=1)
    device.poll()

    device.report("failed", error_code="rollback_unconfirmed", message="trust me")

    assert device.target(deployment).error_code == "device_rollback_unconfirmed"


def test_an_order_without_a_claim_times_out(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new, max_attempts=1)
    device.poll()
    device.report("downloading")

    world.live_on(295)
    assert statuses(deployment) == {"downloading": 1}
    world.live_on(10)

    assert device.target(deployment).error_code == "timeout"


def test_a_device_that_installed_while_its_order_timed_out_is_proved_by_the_next(
    world: World,
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(
        new,
        device_timeout=timedelta(seconds=30),
        rollback_thresholds=RollbackThresholds(offline_after=timedelta(minutes=10)),
    )
    device.poll()
    device.work()
    world.live_on(60, but=[device])
    device.reboot_into(new)
    device.beat()
    with pytest.raises(UpdateClosedError):
        device.report("confirming")

    order = device.poll()
    assert order is not None
    assert order["rebootRequired"] is False
    device.report("confirming")
    world.live_on(15)

    assert statuses(deployment) == {"success": 1}


def test_a_late_report_of_a_superseded_order_is_refused(world: World) -> None:
    old, bad = world.image("2.5.0"), world.image("2.6.0")
    first, second = world.fleet(2, old)
    deployment = world.launch(bad)
    for device in (first, second):
        device.poll()
    second.report("downloading")
    first.go_through()
    first.beat(**BAD)
    world.tick(1)

    with pytest.raises(UpdateClosedError):
        second.report("verifying")

    order = second.poll()
    assert order is not None
    assert order["action"] == "rollback"
    second.report("confirming")
    second.beat()
    first.poll()
    first.go_through()
    world.live_on(15)
    deployment.refresh_from_db()
    assert deployment.status == "RolledBack"
    assert statuses(deployment) == {"rolled_back": 2}


def test_a_device_without_a_former_image_on_the_server_is_said_so(world: World) -> None:
    unknown = world.image("1.0.0", content=b"from the factory", approved=False)
    bad = world.image("2.6.0")
    (device,) = world.fleet(1, unknown)
    Device.objects.update(firmware_checksum="f" * 64)
    deployment = world.launch(bad)
    device.poll()
    device.go_through()
    device.beat(**BAD)

    world.tick(1)
    world.tick(1)

    target = device.target(deployment)
    assert target.status == "failed"
    assert "former image is not on the server" in target.message
    deployment.refresh_from_db()
    assert deployment.status == "Failed"
    assert deployment.failure_reason.startswith("rollback_unconfirmed")


def test_a_return_that_nobody_proves_fails_within_an_hour(world: World) -> None:
    deployment, device = _ordered_back(world)

    world.live_on(3650, step=25, but=[device])

    deployment.refresh_from_db()
    assert deployment.status == "Failed"
    assert device.target(deployment).error_code == "rollback_unconfirmed"


@pytest.mark.parametrize("silence", [90, 600, 3000], ids=lambda x: f"{x} s")
def test_a_return_waits_for_a_device_that_is_heard_late(
    world: World, silence: int
) -> None:
    deployment, device = _on_its_way_back(world)

    world.live_on(silence, step=15, but=[device])
    assert statuses(deployment) == {"rolling_back": 1}
    assert device.target(deployment).rollback_attempt == 1
    # One heartbeat before and one after so long a silence are no proof.
    world.live_on(5)
    assert statuses(deployment) == {"rolling_back": 1}
    world.live_on(15)

    assert statuses(deployment) == {"rolled_back": 1}
    assert device.target(deployment).rollback_attempt == 1


def test_a_return_to_the_same_bytes_under_another_version_is_proved_with_a_warning(
    world: World,
) -> None:
    deployment, device = _on_its_way_back(world)
    cause = device.target(deployment).message

    for _ in range(4):
        device.beat(firmware_version="9.9.9")
        world.tick(5)

    said = "it runs the ordered bytes and calls them 9.9.9 instead of 2.5.0"
    warned = deployment.events.filter(event="device.version_label_differs")
    assert statuses(deployment) == {"rolled_back": 1}
    assert device.target(deployment).message == cause
    assert [each.message for each in warned] == [said]
    assert Update.objects.latest("offered_at").message == said


def test_a_return_is_proved_by_a_whole_window_after_its_last_breach(
    world: World,
) -> None:
    deployment, device = _on_its_way_back(world)
    for _ in range(3):
        world.tick(2)
        device.beat(**BAD)
    assert DeviceState.objects.get(device_id=device.pk).breach == "error_rate"

    world.live_on(10)
    assert statuses(deployment) == {"rolling_back": 1}
    world.live_on(5)

    assert statuses(deployment) == {"rolled_back": 1}


def test_a_claimed_return_that_runs_the_bad_image_is_ordered_again(
    world: World,
) -> None:
    deployment, device = _ordered_back(world)
    first = device.poll()
    device.report("confirming")

    world.live_on(90)
    second = device.poll()
    assert first is not None
    assert second is not None
    assert first["updateId"] != second["updateId"]
    device.go_through()
    world.live_on(15)

    assert statuses(deployment) == {"rolled_back": 1}
    assert device.target(deployment).rollback_attempt == 2


def test_a_completed_deployment_can_be_rolled_back_by_hand(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(3, old)
    deployment = world.launch(new)
    world.update_offered()
    deployment.refresh_from_db()
    assert deployment.status == "Completed"

    rollback_deployment(
        actor=world.admin,
        deployment_id=deployment.pk,
        reason="customers complain",
        now=world.now,
    )
    returned = world.update_offered()

    deployment.refresh_from_db()
    assert deployment.status == "RolledBack"
    assert len(returned) == 3
    assert Target.objects.filter(status="rolled_back").count() == 3


def test_a_device_that_gave_up_and_then_runs_the_new_image_is_ordered_back(
    world: World,
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    first, *others = world.fleet(10, old)
    deployment = world.launch(
        new, max_attempts=1, health_threshold=50, rollback_thresholds=TOLERANT
    )
    for device in (first, *others):
        device.poll()
    for status in ("downloading", "verifying", "installing"):
        first.report(status)
    first.beat()
    first.report("failed", error_code="install_failed", message="disk full")
    world.live_on(10)
    assert first.target(deployment).status == "failed"

    first.reboot_into(new)
    world.live_on(5)

    assert first.target(deployment).status == "rolling_back"


def test_a_device_that_was_installing_when_its_time_ran_out_is_ordered_back(
    world: World,
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    first, *_ = world.fleet(10, old)
    deployment = world.launch(new, max_attempts=1)
    first.poll()
    for status in ("downloading", "verifying", "installing"):
        first.report(status)

    world.live_on(305)

    target = first.target(deployment)
    assert (target.status, target.error_code) == ("rolling_back", "timeout")
    deployment.refresh_from_db()
    assert deployment.status == "RollingBack"


@pytest.mark.parametrize("strategy", ["Direct", "Canary"])
def test_a_device_that_others_have_updated_has_not_fallen_back(
    world: World, strategy: str
) -> None:
    old, new, newest = (world.image(each) for each in ("2.4.0", "2.5.0", "2.6.0"))
    devices = world.fleet(1 if strategy == "Direct" else 10, old)
    deployment = world.launch(new, strategy)
    (moved,) = world.update_offered()

    moved.reboot_into(newest)
    moved.beat()
    # How the newer image does says nothing of this one.
    moved.beat(application_metrics={"errorRate": 1.0})
    world.tick(1)

    assert moved.poll() is None
    target = moved.target(deployment)
    assert (target.status, target.error_code) == ("success", "")
    assert events(deployment).count("device.moved_on") == 1
    assert "device.fell_back" not in events(deployment)
    deployment.refresh_from_db()
    assert deployment.rollback_reason == ""

    rollback_deployment(
        actor=world.admin, deployment_id=deployment.pk, reason="no", now=world.now
    )
    world.tick(1)

    target.refresh_from_db()
    assert (target.status, target.error_code) == ("skipped", "moved_on")
    assert moved.poll() is None
    assert len(devices) >= 1


def test_a_device_that_others_have_updated_after_the_watch_is_logged_once(
    world: World,
) -> None:
    old, new, newest = (world.image(each) for each in ("2.4.0", "2.5.0", "2.6.0"))
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    world.update_offered()
    world.tick(3700)

    device.reboot_into(newest)
    device.beat()
    device.beat()

    assert events(deployment).count("device.moved_on") == 1
    assert "device.fell_back" not in events(deployment)
    assert not Quarantine.objects.exists()


def test_an_image_that_only_the_device_knows_is_a_fall_back(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    world.update_offered()

    device.reboot_into(Firmware(version="9.0.0", sha256="f" * 64))
    device.beat()
    world.tick(1)

    assert "device.fell_back" in events(deployment)
    assert "instead of 2.5.0" in device.target(deployment).message
