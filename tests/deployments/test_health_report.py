"""Metrics, health report and rollbacks of a deployment."""

import re
from datetime import timedelta
from typing import Any

import pytest

from deployments.console.health import health_context
from deployments.criteria import RollbackThresholds
from deployments.models import Deployment
from deployments.reads.health_report import health_report
from deployments.reads.metrics import deployment_health, deployment_metrics
from deployments.reads.rollback_report import deployment_rollbacks
from deployments.rules.codes import OTHERWISE, next_step
from deployments.services.operate import rollback_deployment
from deployments.services.requests import Selection
from devices.services.erasure import erase_device
from firmware.models import Firmware
from hotswap.common.wire import to_wire
from tests.callers import PersonCaller
from tests.deployments.test_rollback import TOLERANT
from tests.deployments.world import ScriptedDevice, World
from tests.words import says


@pytest.fixture
def images(world: World) -> tuple[Firmware, Firmware]:
    return world.image("1.0.0"), world.image("1.1.0")


def known_fleet(world: World, count: int, runs: Firmware) -> list[ScriptedDevice]:
    """Register devices of which it is known what is usual."""
    fleet = world.fleet(count, runs)
    for _ in range(9):
        world.now += timedelta(seconds=5)
        for device in fleet:
            device.beat()
    return fleet


def metrics(deployment: Deployment, world: World) -> dict[str, Any]:
    deployment.refresh_from_db()
    return to_wire(deployment_metrics(deployment, world.now))


def test_nothing_exposed_has_no_score(
    world: World, images: tuple[Firmware, Firmware]
) -> None:
    world.fleet(2, images[0])

    found = metrics(world.launch(images[1]), world)

    assert (found["exposed"], found["healthScore"]) == (0, None)
    assert found["measures"]["cpuUsage"]["mean"] is None
    assert found["anomalies"] == {"total": 0, "devices": []}


def test_a_page_says_the_change_of_a_percent_in_points(
    world: World, images: tuple[Firmware, Firmware]
) -> None:
    fleet = known_fleet(world, 4, images[0])
    deployment = world.launch(images[1])
    world.update_offered()
    fleet[0].beat(cpu_usage=45.0)

    deployment.refresh_from_db()
    found = health_context(deployment_health(deployment, world.now), versions=[])
    shown = {each["name"]: each for each in found["measures"]}

    assert re.fullmatch(r"\+[0-9.]+ points", shown["CPU"]["change"])
    assert shown["CPU"]["mean"].endswith(" %")


def test_exposed_devices_are_compared_with_their_baseline(
    world: World, images: tuple[Firmware, Firmware]
) -> None:
    fleet = known_fleet(world, 4, images[0])
    deployment = world.launch(images[1])
    world.update_offered()
    fleet[0].beat(cpu_usage=45.0)
    fleet[1].beat(cpu_usage=15.0, application_metrics={})

    found = metrics(deployment, world)

    assert found["exposed"] == 4
    assert found["healthScore"] == 100
    cpu = found["measures"]["cpuUsage"]
    assert (cpu["devices"], cpu["mean"], cpu["min"], cpu["max"]) == (4, 17.5, 5, 45)
    # The first heartbeat after the watch has moved the baseline by a hundredth.
    assert cpu["baseline"] == {
        "devices": 4,
        "mean": pytest.approx(5.0, abs=0.2),
        "meanChange": pytest.approx(12.5, abs=0.2),
    }
    assert found["measures"]["errorRate"]["devices"] == 3
    (anomaly,) = found["anomalies"]["devices"]
    assert anomaly["deviceId"] == "d-000"
    (found_far,) = anomaly["measures"]
    assert (found_far["measure"], found_far["value"]) == ("cpuUsage", 45.0)
    assert found_far["usual"] == pytest.approx(5.0, abs=0.5)
    assert found_far["direction"] == "above"
    assert (found_far["confidence"], found_far["baselineSamples"]) == ("high", 10)


@pytest.mark.parametrize(
    ("reports", "cpu", "confidence"),
    [(1, 42, None), (1, 44, "low"), (2, 42, "low"), (5, 34, "medium")],
)
def test_an_anomaly_against_few_reports_is_seen_with_its_doubt(
    world: World,
    images: tuple[Firmware, Firmware],
    reports: int,
    cpu: float,
    confidence: str | None,
) -> None:
    (canary,) = world.fleet(1, images[0])
    for _ in range(reports - 1):
        world.now += timedelta(minutes=5)
        canary.beat()
    deployment = world.launch(images[1])
    world.update_offered()

    canary.beat(cpu_usage=cpu)

    found = metrics(deployment, world)["anomalies"]["devices"]
    measures = [measure for device in found for measure in device["measures"]]
    assert [measure["confidence"] for measure in measures] == (
        [confidence] if confidence else []
    )


def test_a_silent_device_is_unknown_and_shows_no_value(
    world: World, images: tuple[Firmware, Firmware]
) -> None:
    fleet = known_fleet(world, 2, images[0])
    deployment = world.launch(images[1])
    world.update_offered()
    fleet[0].beat(cpu_usage=90.0)
    world.now += timedelta(hours=1)
    fleet[1].beat()

    found = metrics(deployment, world)

    assert found["verdicts"] == {
        "healthy": 1,
        "degraded": 0,
        "unhealthy": 0,
        "unknown": 1,
    }
    assert found["healthScore"] == 50
    assert found["measures"]["cpuUsage"]["devices"] == 1
    assert found["anomalies"]["total"] == 0


def test_a_bad_value_is_in_the_metrics_with_its_heartbeat(
    world: World, images: tuple[Firmware, Firmware]
) -> None:
    fleet = known_fleet(world, 2, images[0])
    deployment = world.launch(images[1])
    world.update_offered()

    fleet[0].beat(memory_usage=60.0)

    (anomaly,) = metrics(deployment, world)["anomalies"]["devices"]
    assert anomaly["at"] == world.now


def test_a_deployment_that_went_back_reports_it(
    world: World, images: tuple[Firmware, Firmware]
) -> None:
    world.fleet(3, images[0])
    deployment = world.launch(images[1])
    world.update_offered()
    world.tick()
    rollback_deployment(
        actor=world.admin,
        deployment_id=deployment.pk,
        reason="the customer complains",
        now=world.now,
    )
    deployment.refresh_from_db()
    during = to_wire(deployment_rollbacks(deployment, world.now))
    world.tick()
    world.update_offered()
    world.tick()
    deployment.refresh_from_db()

    after = to_wire(deployment_rollbacks(deployment, world.now))
    report = to_wire(health_report(deployment, world.now))

    assert during["results"][0]["outcome"] == "under way"
    assert during["results"][0]["timeToRestoreSeconds"] is None
    (row,) = after["results"]
    assert (row["level"], row["devices"], row["restored"]) == ("deployment", 3, 3)
    assert row["outcome"] == "restored"
    assert "the customer complains" in row["reason"]
    assert 0 < row["timeToRestoreSeconds"] <= 60
    assert report["deployment"]["status"] == "RolledBack"
    assert report["rollback"] == row
    assert "rollback.started" in [line["event"] for line in report["timeline"]]


def test_the_numbers_of_the_moment_are_kept(
    world: World, images: tuple[Firmware, Firmware]
) -> None:
    fleet = world.fleet(3, images[0])
    deployment = world.launch(images[1])
    for device in fleet:
        device.poll()
        device.go_through()
    fleet[0].beat(application_metrics={"errorRate": 0.5})
    world.tick()
    deployment.refresh_from_db()

    (row, *_) = to_wire(deployment_rollbacks(deployment, world.now))["results"]

    moment = row["atThatMoment"]
    assert (moment["trigger"], row["stage"], moment["threshold"]) == ("gate", 1, 95.0)
    assert moment["stage"]["exposed"] == 3
    assert moment["stage"]["failed"] == 1
    assert moment["stage"]["bestReachableRate"] == 66.67
    assert moment["stage"]["byStatus"]["confirming"] == 2
    assert moment["reasons"] == [{"errorCode": "error_rate", "devices": 1}]


def test_a_failure_says_what_to_do_next(
    world: World, images: tuple[Firmware, Firmware]
) -> None:
    fleet = world.fleet(3, images[0])
    deployment = world.launch(images[1])
    for device in fleet:
        device.poll()
        device.go_through()
    fleet[0].beat(application_metrics={"errorRate": 0.5})
    world.tick()
    deployment.refresh_from_db()

    report = to_wire(health_report(deployment, world.now))

    assert report["failures"][0]["nextStep"] == next_step("error_rate")
    assert next_step("something_of_its_own", "retry it") == OTHERWISE
    assert next_step("") == ""


def test_a_device_that_went_back_alone_is_a_rollback_of_its_own(
    world: World, images: tuple[Firmware, Firmware]
) -> None:
    world.fleet(4, images[0])
    deployment = world.launch(
        images[1],
        "Canary",
        parameters={"initial_percentage": 50, "increments": [100]},
        rollback_thresholds=TOLERANT,
        on_warning="pause",
    )
    bad, _ = world.update_offered()
    bad.beat(application_metrics={"errorRate": 0.5})
    world.tick()
    bad.poll()
    bad.go_through()
    world.live_on(15)
    deployment.refresh_from_db()

    found = to_wire(deployment_rollbacks(deployment, world.now))
    report = to_wire(health_report(deployment, world.now))

    (row,) = found["results"]
    assert (row["level"], row["deviceId"]) == ("device", bad.name)
    assert row["outcome"] == "restored"
    assert row["reason"].startswith("error_rate: ")
    assert report["rollback"] is None
    assert report["failures"][0]["errorCode"] == "error_rate"
    assert report["failures"][0]["rolledBack"] == 1
    assert report["failedDevices"]["total"] == 1


def test_the_report_says_how_long_devices_took(
    world: World, images: tuple[Firmware, Firmware]
) -> None:
    (device,) = world.fleet(1, images[0])
    deployment = world.launch(images[1])
    device.poll()
    device.work()
    device.reboot_into(images[1])
    device.beat()
    device.report("confirming", durations={"download": 2.5, "install": 1e12})
    world.live_on(20)
    deployment.refresh_from_db()

    report = to_wire(health_report(deployment, world.now))

    assert report["durations"]["download"] == {
        "count": 1,
        "meanSeconds": 2.5,
        "p50Seconds": 2.5,
        "p95Seconds": 2.5,
    }
    assert report["durations"]["install"]["count"] == 0
    assert report["durations"]["deviceUpdate"]["p50Seconds"] >= 10
    assert report["stages"][0]["gate"] == {
        "threshold": deployment.health_threshold,
        "actual": 100.0,
    }
    assert report["successRate"] == 100


def test_metrics_tell_how_long_updates_took_and_how_many_there_are_a_minute(
    world: World, images: tuple[Firmware, Firmware]
) -> None:
    fleet = known_fleet(world, 4, images[0])
    world.launch(images[1], name="earlier", selection=Selection(device_ids=("d-003",)))
    start = world.now
    deployment = world.launch(
        images[1],
        selection=Selection(device_ids=("d-000", "d-001", "d-002")),
        health_threshold=0,
        rollback_thresholds=RollbackThresholds(success_rate=0),
    )
    before = metrics(deployment, world)["throughput"]

    for seconds, device in zip((2.0, 4.0), fleet, strict=False):
        device.poll()
        device.work()
        device.reboot_into(images[1])
        device.beat()
        device.report("confirming", durations={"download": seconds})
        world.live_on(360, step=20)
    fleet[2].poll()
    fleet[2].report("failed", error_code="unknown_key", message="not pinned")
    now = world.now
    found = metrics(deployment, world)

    assert before["overall"]["provedPerMinute"] is None
    assert found["durations"]["download"] == {
        "count": 2,
        "meanSeconds": 3.0,
        "p50Seconds": 3.0,
        "p95Seconds": 3.9,
    }
    assert found["durations"]["deviceUpdate"]["count"] == 2
    assert found["throughput"] == {
        "recent": {
            "from": now - timedelta(minutes=5),
            "to": now,
            "ordered": 1,
            "proved": 0,
            "failed": 1,
            "provedPerMinute": 0.0,
        },
        "overall": {
            "from": start,
            "to": now,
            "ordered": 3,
            "proved": 2,
            "failed": 1,
            "provedPerMinute": round(2 / ((now - start).total_seconds() / 60), 2),
        },
    }


def test_a_deployment_that_waits_has_no_throughput(
    world: World, images: tuple[Firmware, Firmware]
) -> None:
    known_fleet(world, 1, images[0])
    deployment = world.launch(images[1], scheduled_at=world.now + timedelta(hours=1))

    assert metrics(deployment, world)["throughput"] is None


def test_an_erased_device_leaves_the_report(
    world: World, images: tuple[Firmware, Firmware]
) -> None:
    fleet = known_fleet(world, 2, images[0])
    deployment = world.launch(images[1])
    world.update_offered()
    erase_device(actor=world.admin, device_id=fleet[0].name, now=world.now)

    found = metrics(deployment, world)
    deployment.refresh_from_db()

    assert found["exposed"] == 1
    assert not says(str(health_report(deployment, world.now)), "d-000")


@pytest.mark.parametrize("read", ["metrics", "health-report", "rollbacks"])
def test_each_is_read_over_the_api(
    world: World, images: tuple[Firmware, Firmware], viewer: PersonCaller, read: str
) -> None:
    world.fleet(1, images[0])
    deployment = world.launch(images[1])

    answer = viewer.get(f"/deployments/{deployment.pk}/{read}")

    assert answer.status_code == 200
    assert answer.json()["countedAt"]
