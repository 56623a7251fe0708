"""A claim is not a proof."""

from datetime import timedelta

from deployments.models import Target, Update
from deployments.reads.devices import target_rows
from deployments.services.operate import rollback_deployment
from devices.models import Device, FirmwareRun
from tests.deployments.world import World, events, statuses


def test_direct_deployment_completes_when_the_device_has_proved_itself(
    world: World,
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(1, old)
    deployment = world.launch(new)

    world.update_offered()

    deployment.refresh_from_db()
    assert deployment.status == "Completed"
    assert statuses(deployment) == {"success": 1}
    assert Device.objects.get().firmware_version == "2.5.0"
    assert Device.objects.get().previous_firmware_version == "2.4.0"


def test_a_claim_alone_is_never_success(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    device.poll()
    device.work()
    device.report("confirming")

    world.tick(1)
    world.tick(15)

    assert statuses(deployment) == {"confirming": 1}


def test_a_device_that_claims_but_runs_its_former_image_is_not_proved(
    world: World,
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    device.poll()
    device.work()
    device.boot += 1
    device.report("confirming")

    world.live_on(30)

    assert statuses(deployment) == {"confirming": 1}
    (row,) = target_rows(deployment, [device.target(deployment)], world.now)
    assert row.waiting_for == "proof: it claims the update and runs 2.4.0"


def test_a_later_true_claim_still_wins_after_a_contradiction(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    device.poll()
    device.work()
    device.boot += 1
    device.report("confirming")
    world.live_on(30)

    device.reboot_into(new)
    device.beat()
    device.report("confirming")
    world.live_on(15)

    deployment.refresh_from_db()
    assert deployment.status == "Completed"


def test_a_claim_without_proof_fails_as_not_proven(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new, max_attempts=1)
    device.poll()
    device.work()
    device.boot += 1
    device.report("confirming")

    world.live_on(69)
    assert statuses(deployment) == {"confirming": 1}
    world.live_on(10)

    target = device.target(deployment)
    assert (target.status, target.error_code) == ("failed", "not_proven")
    assert "claims 2.5.0 and runs 2.4.0" in target.message


def test_the_ordered_bytes_under_another_version_are_proved_and_warned_of_once(
    world: World,
) -> None:
    old, new = world.image("1.12.6"), world.image("1.12.7")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    device.poll()
    device.work()
    device.reboot_into(new)
    device.beat(firmware_version="1.12.6")
    device.report("confirming")
    for _ in range(6):
        world.now += timedelta(seconds=5)
        device.beat(firmware_version="1.12.6")
        world.tick()

    deployment.refresh_from_db()
    said = "it runs the ordered bytes and calls them 1.12.6 instead of 1.12.7"
    warned = deployment.events.filter(event="device.version_label_differs")
    assert deployment.status == "Completed"
    assert Update.objects.get().attempt == 1
    assert [(each.level, each.device_id, each.message) for each in warned] == [
        ("WARNING", device.pk, said)
    ]
    (row,) = target_rows(deployment, [device.target(deployment)], world.now)
    assert (row.status, row.error_code, row.message) == ("success", "", said)
    assert Update.objects.get().message == said
    assert device.device.firmware_version == "1.12.6"
    assert [run.firmware for run in device.device.firmware_runs.order_by("pk")] == [
        old,
        new,
    ]


def test_other_bytes_under_the_ordered_version_are_not_proof(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new, max_attempts=1)
    device.poll()
    device.work()
    device.boot += 1
    device.beat(firmware_version="2.5.0")
    device.report("confirming")
    device.beat(firmware_version="2.5.0")
    world.tick()

    (row,) = target_rows(deployment, [device.target(deployment)], world.now)
    said = "runs other bytes that it calls the same"
    assert row.waiting_for == f"proof: it claims the update and {said}"
    for _ in range(16):
        world.now += timedelta(seconds=5)
        device.beat(firmware_version="2.5.0")
        world.tick()
    target = device.target(deployment)
    assert target.error_code == "not_proven"
    assert f"it claims 2.5.0 and {said}" in target.message


def test_the_new_image_without_a_reboot_is_not_proof(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    device.poll()
    device.work()
    device.runs = new
    device.beat()
    device.report("confirming")

    world.live_on(30)

    assert statuses(deployment) == {"confirming": 1}
    (row,) = target_rows(deployment, [device.target(deployment)], world.now)
    assert row.waiting_for == "proof: it has not rebooted"


def test_firmware_that_needs_no_reboot_is_proved_by_the_image_alone(
    world: World,
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0", reboot_required=False)
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    device.poll()
    device.work()
    device.runs = new
    device.beat()
    device.report("confirming")

    world.live_on(15)

    deployment.refresh_from_db()
    assert deployment.status == "Completed"


def test_heartbeats_before_the_claim_do_not_count_as_proof(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    device.poll()
    device.work()
    device.reboot_into(new)
    world.live_on(40)

    device.report("confirming")
    world.tick()

    assert statuses(deployment) == {"confirming": 1}


def test_an_unhealthy_heartbeat_restarts_the_confirmation_window(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    device.poll()
    device.go_through()
    world.live_on(5)

    world.now += timedelta(seconds=4)
    device.beat(cpu_usage=99.0)
    world.live_on(10)
    assert statuses(deployment) == {"confirming": 1}
    world.live_on(5)

    assert statuses(deployment) == {"success": 1}


def test_a_repeated_claim_restarts_the_window(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    device.poll()
    device.go_through()
    world.now += timedelta(seconds=9)
    device.report("confirming")
    device.beat()

    world.live_on(5)

    assert statuses(deployment) == {"confirming": 1}


def test_reports_that_come_twice_late_or_out_of_order_change_nothing(
    world: World,
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    device.poll()
    device.work()
    before = Target.objects.values().get()

    answers = [
        device.report("downloading", sequence=1),
        device.report("verifying", sequence=2),
        device.report("rebooting", sequence=4),
    ]

    assert answers == [False, False, False]
    assert Target.objects.values().get() == before
    assert statuses(deployment) == {"rebooting": 1}
    update = Update.objects.get()
    assert update.reports.count() == 7
    assert update.reports.filter(was_applied=True).count() == 4


def test_a_restarted_agent_may_go_back_before_its_claim(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    device.poll()
    device.work()

    assert device.report("downloading", progress_percent=12.0)

    assert statuses(deployment) == {"downloading": 1}


def test_working_words_after_the_claim_change_nothing(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    device.poll()
    device.go_through()

    assert not device.report("downloading")

    assert statuses(deployment) == {"confirming": 1}


def test_a_poll_repeats_the_order_until_the_claim(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    world.launch(new)

    first, second = device.poll(), device.poll()
    device.go_through()

    assert first is not None
    assert first == second
    assert device.poll() is None
    assert Update.objects.count() == 1


def test_a_device_that_runs_the_image_already_is_skipped_at_the_offer(
    world: World,
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    first, second = world.fleet(2, old)
    deployment = world.launch(new)
    first.runs = new
    first.beat()

    assert first.poll() is None
    second.poll()
    second.go_through()
    world.live_on(15)

    deployment.refresh_from_db()
    assert deployment.status == "Completed"
    assert statuses(deployment) == {"skipped": 1, "success": 1}
    assert first.target(deployment).error_code == "already_installed"


def test_events_tell_the_story_of_one_device(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    world.fleet(1, old)
    deployment = world.launch(new)

    world.update_offered()

    assert events(deployment) == [
        "deployment.created",
        "deployment.started",
        "stage.opened",
        "device.notified",
        "device.installing",
        "device.rebooting",
        "device.claimed",
        "device.updated",
        "stage.settled",
        "stage.passed",
        "deployment.completed",
    ]


def test_the_history_of_a_device_tells_what_was_proved(world: World) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    world.launch(new)
    device.poll()
    device.go_through()
    claimed = device.device.firmware_runs.get(until__isnull=True)
    world.live_on(15)

    runs = device.device.firmware_runs.order_by("pk")

    assert claimed.how == "reported"
    assert [(run.version, run.firmware, run.how) for run in runs] == [
        ("2.4.0", old, "reported"),
        ("2.5.0", new, "proved"),
    ]


def test_an_image_that_only_failed_its_test_is_not_what_ran_before(
    world: World,
) -> None:
    first, good, bad = (world.image(f"{number}.0.0") for number in (1, 2, 3))
    (device,) = world.fleet(1, first)
    world.launch(good)
    world.update_offered()
    world.launch(bad, max_attempts=1)
    device.poll()
    device.work()
    device.reboot_into(bad)
    device.beat()
    while_it_tries = device.device.previous_firmware_version

    device.report("failed", error_code="self_test_failed")
    device.reboot_into(good)
    device.beat()

    assert while_it_tries == "2.0.0"
    assert device.device.previous_firmware_version == "1.0.0"
    newest = FirmwareRun.objects.order_by("-id").values_list("version", "how")
    assert list(newest[:3]) == [
        ("2.0.0", "reported"),
        ("3.0.0", "tried"),
        ("2.0.0", "proved"),
    ]


def test_an_image_that_was_proved_and_left_is_what_ran_before(world: World) -> None:
    first, second = world.image("1.0.0"), world.image("2.0.0")
    (device,) = world.fleet(1, first)
    deployment = world.launch(second)
    world.update_offered()

    rollback_deployment(
        actor=world.admin, deployment_id=deployment.pk, reason="why", now=world.now
    )
    world.update_offered()

    assert device.device.firmware_version == "1.0.0"
    assert device.device.previous_firmware_version == "2.0.0"


def test_an_image_that_nobody_ordered_is_what_ran_before(world: World) -> None:
    first, by_hand = world.image("1.0.0"), world.image("2.0.0")
    (device,) = world.fleet(1, first)
    device.reboot_into(by_hand)
    device.beat()

    device.reboot_into(first)
    device.beat()

    assert device.device.previous_firmware_version == "2.0.0"
