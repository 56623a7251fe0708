"""What is counted equals what the rows say, whatever happened on the way."""

import contextlib
import itertools
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import connection, transaction

from deployments import metrics as deployment_metrics
from deployments.choices import DeploymentStatus
from deployments.exceptions import UpdateClosedError
from deployments.metrics import (
    COUNTERS,
    DEPLOYMENT_DURATION,
    DEVICE_UPDATE_DURATION,
    DEVICES_FAILED,
    DEVICES_UPDATED,
    DOWNLOAD_DURATION,
    FIRMWARE_DOWNLOADS,
    HISTOGRAMS,
    INSTALL_DURATION,
    VERIFICATION_CODES,
)
from deployments.models import Deployment
from deployments.rules.codes import CODES
from deployments.services.launch import create_deployment
from deployments.services.operate import rollback_deployment
from deployments.services.tick import tick
from devices.metrics import GAUGES as DEVICE_GAUGES
from firmware.metrics import GAUGES as FIRMWARE_GAUGES
from health.metrics import GAUGES as HEALTH_GAUGES
from health.services.watching import sweep
from hotswap.common import metrics
from hotswap.common.models import MetricCount
from tests.deployments.world import THRESHOLDS, ScriptedDevice, World

EVENTS = "SELECT count(*) FROM deployments_event WHERE event = "
# What each metric equals, as long as no device is erased.
EQUALS = {
    "hotswap_deployments_created_total": "SELECT count(*) FROM deployments_deployment",
    "hotswap_deployments_completed_total": f"{EVENTS}'deployment.completed'",
    "hotswap_deployments_failed_total": f"{EVENTS}'deployment.failed'",
    "hotswap_deployments_rolled_back_total": f"{EVENTS}'deployment.rolled_back'",
    "hotswap_deployments_cancelled_total": f"{EVENTS}'deployment.cancelled'",
    "hotswap_devices_updated_total": f"{EVENTS}'device.updated'",
    "hotswap_devices_failed_total": f"""{EVENTS}ANY('{{device.failed,
        device.fell_back}}') AND level = 'ERROR'""",
    "hotswap_device_returns_total": f"""{EVENTS}ANY('{{device.returned,
        device.return_failed}}') AND message NOT LIKE '%it is ordered back'""",
    "hotswap_rollbacks_triggered_total": "SELECT count(*) FROM deployments_rollback",
    "hotswap_firmware_downloads_total": """SELECT count(DISTINCT update_id)
        FROM deployments_report WHERE was_applied
        AND status IN ('verifying', 'installing', 'rebooting', 'confirming')""",
    "hotswap_firmware_verifications_failed_total": f"""SELECT count(*)
        FROM deployments_update WHERE status = 'failed'
        AND error_code IN {VERIFICATION_CODES}""",
    "hotswap_deployment_duration_seconds": f"""{EVENTS}ANY('{{deployment.completed,
        deployment.failed,deployment.rolled_back,deployment.cancelled}}')""",
    "hotswap_device_update_duration_seconds": f"{EVENTS}'device.updated'",
    "hotswap_firmware_download_duration_seconds": """SELECT count(*)
        FROM deployments_update WHERE kind = 'install' AND status = 'success'
        AND durations ? 'download'""",
    "hotswap_firmware_install_duration_seconds": """SELECT count(*)
        FROM deployments_update WHERE kind = 'install' AND status = 'success'
        AND durations ? 'install'""",
}
SPECIFIED = {
    *("deployments.created.total", "deployments.completed.total"),
    *("deployments.failed.total", "devices.updated.total", "devices.failed.total"),
    *("rollbacks.triggered.total", "firmware.downloads.total"),
    *("firmware.verifications.failed.total", "deployment.duration"),
    *("firmware.download.duration", "firmware.install.duration"),
    *("device.update.duration", "deployments.active", "devices.online"),
    *("devices.offline", "firmware.versions.active"),
}
TOOK = {"download": 40.0, "install": 5.0}


def ask(statement: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        found: int = cursor.fetchone()[0]
    return found


def counted() -> dict[str, int]:
    found = metrics.read()
    return {name: sum(each.count for each in found.get(name, [])) for name in EQUALS}


def in_rows() -> dict[str, int]:
    return {name: ask(statement) for name, statement in EQUALS.items()}


def value(name: str, **labels: str) -> int:
    """Return the count of one combination of labels."""
    kept = {each.name: each for each in (*COUNTERS, *HISTOGRAMS)}[name].labels
    wanted = tuple(labels[label] for label in kept)
    return sum(each.count for each in metrics.read()[name] if each.labels == wanted)


def all_gauges() -> list[metrics.Gauge]:
    return [
        *deployment_metrics.GAUGES,
        *DEVICE_GAUGES,
        *FIRMWARE_GAUGES,
        *HEALTH_GAUGES,
    ]


def test_every_metric_of_the_specification_is_there() -> None:
    kept: list[Any] = [*COUNTERS, *HISTOGRAMS, *all_gauges()]

    assert {each.specified for each in kept} - {""} == SPECIFIED
    for each in kept:
        assert not each.specified or re.sub(
            r"_seconds(?=$|_)", "", each.name
        ) == "hotswap_" + each.specified.replace(".", "_")


def test_every_counter_is_compared_here() -> None:
    assert {each.name for each in (*COUNTERS, *HISTOGRAMS)} == EQUALS.keys()


def test_codes_of_failed_verifications_are_known() -> None:
    assert set(VERIFICATION_CODES) <= CODES.keys()


def test_gauges_are_read_by_one_statement_each(
    world: World, django_assert_num_queries: Callable[[int], object]
) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(3, old)
    world.launch(new, "Canary")

    for gauge in all_gauges():
        with django_assert_num_queries(1):  # type: ignore[attr-defined]
            found = gauge.values(gauge.rows())
        assert all(len(labels) == len(gauge.labels) for labels, _ in found)
    active = deployment_metrics.DEPLOYMENTS_ACTIVE
    assert active.values(active.rows()) == [(["Canary", "Running"], 1)]


def test_good_update_is_counted(world: World) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    devices = world.fleet(3, old, region="EU")
    world.launch(new, "Direct")
    for device in devices:
        device.poll()
        device.report("downloading")
        device.report("verifying", durations=TOOK)
        # It was restarted, and says it all again.
        device.report("downloading")
        device.report("verifying")
        device.go_through()

    world.live_on(100)

    where = {"region": "EU", "model": "sensor-v1"}
    assert value(DEVICES_UPDATED.name, strategy="Direct", **where) == 3
    assert value(DEVICES_FAILED.name, strategy="Direct", **where) == 0
    assert value(FIRMWARE_DOWNLOADS.name, **where) == 3
    took = {each.labels: each for each in metrics.read()[DOWNLOAD_DURATION.name]}
    bucket = took["EU", "sensor-v1"]
    assert DOWNLOAD_DURATION.bounds[bucket.bucket - 1] < 40
    assert DOWNLOAD_DURATION.bounds[bucket.bucket] >= 40
    assert (bucket.count, bucket.total) == (3, 120.0)
    assert value(INSTALL_DURATION.name, **where) == 3
    assert counted() == in_rows()
    assert counted()["hotswap_deployments_completed_total"] == 1


def test_failures_retries_and_returns_are_counted(world: World) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    devices = world.fleet(6, old)
    world.launch(new, "Direct", max_attempts=2)
    tried, wrong, hot, *others = devices
    for device in (hot, *others):
        device.poll()
        device.go_through()
    tried.poll()
    tried.report("failed", error_code="install_failed")
    wrong.poll()
    wrong.report("verifying")
    wrong.report("failed", error_code="signature_invalid")
    for _ in range(12):
        hot.beat(cpu_usage=99.0)
        world.live_on(5, but=[hot])
    for _ in range(5):
        world.update_offered()

    assert counted() == in_rows()
    found = counted()
    assert found["hotswap_firmware_verifications_failed_total"] == 1
    assert found["hotswap_devices_failed_total"] >= 1
    assert found["hotswap_device_returns_total"] >= 1


def test_rollback_by_an_operator_is_counted(world: World) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(4, old)
    deployment = world.launch(new, "Direct")
    world.update_offered()

    rollback_deployment(
        actor=world.admin, deployment_id=deployment.pk, reason="why", now=world.now
    )
    world.tick()
    world.update_offered()
    world.tick(5)

    assert counted() == in_rows()
    by_labels = metrics.read()["hotswap_rollbacks_triggered_total"]
    assert [each.labels for each in by_labels] == [("Direct", "operator")]
    assert counted()["hotswap_rollbacks_triggered_total"] == 1
    assert counted()["hotswap_deployments_rolled_back_total"] == 1
    assert counted()["hotswap_device_returns_total"] == 4
    durations = metrics.read()[DEPLOYMENT_DURATION.name]
    assert {each.labels[1] for each in durations} >= {"RolledBack"}


def test_what_is_undone_is_not_counted(world: World) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(2, old)
    before = counted()

    with transaction.atomic():
        world.launch(new, "Direct")
        world.update_offered()
        assert counted() != before
        transaction.set_rollback(True)

    assert counted() == before == in_rows()


def test_failure_of_a_new_deployment_rises_from_zero(world: World) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(1, old)

    world.launch(new, "Direct")

    for region in settings.REGIONS:
        where = {"region": region, "model": "sensor-v1"}
        assert value(DEVICES_FAILED.name, strategy="Direct", **where) == 0


def test_folding_changes_no_value(world: World) -> None:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(3, old)
    world.launch(new, "Direct")
    world.update_offered()
    before, rows = metrics.read(), MetricCount.objects.count()

    assert metrics.fold() > 0

    assert metrics.read() == before
    assert MetricCount.objects.count() < rows
    assert MetricCount.objects.count() == sum(map(len, before.values()))
    assert metrics.fold() == 0


@pytest.mark.parametrize("seconds", [0.0, 29.9, 30.0, 30.1, 86400.0, 10.0**6])
def test_durations_fall_into_the_same_bucket_by_both_ways(
    db: None, seconds: float
) -> None:
    histogram = DEVICE_UPDATE_DURATION
    labels = {"strategy": "Direct", "region": "EU", "model": "m"}
    columns = ", ".join(f"'{each}'::text AS {name}" for name, each in labels.items())
    with connection.cursor() as cursor:
        cursor.execute(
            f"WITH given AS (SELECT {columns}, {seconds} AS took)"
            + histogram.counting("given", seconds="took")
        )

    metrics.write([histogram.entry(seconds, **labels)])

    by_statement, by_entry = MetricCount.objects.order_by("pk")
    assert (by_statement.bucket, by_statement.total, by_statement.count) == (
        by_entry.bucket,
        by_entry.total,
        1,
    )


@pytest.mark.django_db(transaction=True)
def test_storm_of_concurrent_work_is_counted_exactly() -> None:
    world = World()
    old, new = world.image("1.0.0"), world.image("2.0.0")
    devices = world.fleet(12, old)
    deployment, _ = create_deployment(
        actor=world.admin,
        request=world.request(
            new,
            "Direct",
            max_attempts=2,
            # A failure here and there shall not send all of them back.
            rollback_thresholds=replace(THRESHOLDS, success_rate=1),
        ),
        now=world.now,
    )
    tick(now=world.now)
    turn = itertools.count()

    def closing(deed: Callable[[], object]) -> None:
        try:
            deed()
        finally:
            connection.close()

    def work(device: ScriptedDevice) -> None:
        # A rollback may close the order meanwhile.
        with contextlib.suppress(UpdateClosedError):
            carry_out(device)

    def carry_out(device: ScriptedDevice) -> None:
        if device.poll() is None:
            return
        if next(turn) % 4 == 0:
            device.report("verifying")
            device.report("failed", error_code="signature_invalid")
            return
        device.report("verifying", durations=TOOK)
        # Twice, and late.
        device.report("verifying", sequence=device.sequence)
        if device.runs != device.ordered_image():
            device.go_through()

    def undo() -> None:
        with transaction.atomic():
            tick(now=world.now)
            create_deployment(
                actor=world.admin, request=world.request(new), now=world.now
            )
            transaction.set_rollback(True)

    def rounds() -> Iterator[None]:
        for _ in range(60):
            yield
            deployment.refresh_from_db()
            if deployment.status == DeploymentStatus.COMPLETED:
                rollback_deployment(
                    actor=world.admin,
                    deployment_id=deployment.pk,
                    reason="why",
                    now=world.now,
                )
            elif deployment.finished_at is not None:
                return
        raise AssertionError(f"still {deployment.status}: {deployment.waiting_for}")

    with ThreadPoolExecutor(8) as pool:
        for _ in rounds():
            jobs: list[Callable[[], object]] = [
                *(lambda each=each: work(each) for each in devices),
                *(lambda: tick(now=world.now) for _ in range(3)),
                *(metrics.fold for _ in range(2)),
            ]
            for done in [pool.submit(closing, each) for each in jobs]:
                done.result()
            undo()
            world.now += timedelta(seconds=6)
            for device in devices:
                device.beat()
            sweep(now=world.now)
            jobs = [*(lambda: tick(now=world.now) for _ in range(4)), metrics.fold]
            for done in [pool.submit(closing, each) for each in jobs]:
                done.result()

    assert counted() == in_rows()
    assert Deployment.objects.count() == 1
    found = counted()
    assert found["hotswap_devices_updated_total"] > 0
    assert found["hotswap_device_returns_total"] > 0
    assert found["hotswap_firmware_verifications_failed_total"] > 0
    metrics.fold()
    assert counted() == found
