"""Read a history from a database, with statements of its own."""

from datetime import timedelta
from typing import Any

import psycopg
from psycopg.rows import class_row

from tests.history.rows import (
    Deployment,
    Event,
    History,
    Limits,
    Order,
    Reading,
    Report,
    Stage,
    Target,
)

_OF_DEVICES = """
    WITH its AS (
        SELECT device_id AS id FROM deployments_target WHERE deployment_id = %s
    )
"""
_DEPLOYMENT = """
    SELECT id::text, status, target_count, health_threshold, strategy, parameters,
           rollback_thresholds, health_criteria, finished_at,
           (SELECT restarted_at FROM common_jobrun WHERE name = 'health-sweep')
    FROM deployments_deployment WHERE id = %s
"""
_STAGES = """
    SELECT number, boundary, size, wait_seconds, opened_at, passed_at, is_accepted
    FROM deployments_stage WHERE deployment_id = %s
"""
_TARGETS = """
    SELECT d.device_id AS device, t.rank, t.stage_number AS stage, t.status,
           t.from_checksum, t.error_code, t.exposed_at IS NOT NULL AS is_exposed
    FROM deployments_target t JOIN devices_device d ON d.id = t.device_id
    WHERE t.deployment_id = %s
"""
_EVENTS = """
    SELECT e.id AS number, e.at, e.event, coalesce(d.device_id, '') AS device,
           e.stage_number AS stage, e.message
    FROM deployments_event e LEFT JOIN devices_device d ON d.id = e.device_id
    WHERE e.deployment_id = %s
"""
_ORDERS = """
    SELECT u.id::text, u.deployment_id::text AS deployment, d.device_id AS device,
           u.kind, f.sha256 AS checksum, f.version, u.status, u.reboot_required,
           u.boot_id_before, u.offered_at, u.last_sequence, u.claimed_at, u.closed_at,
           u.error_code, u.exempt
    FROM deployments_update u
    JOIN devices_device d ON d.id = u.device_id
    JOIN firmware_firmware f ON f.id = u.firmware_id
    WHERE u.device_id IN (SELECT id FROM its)
"""
_REPORTS = """
    SELECT r.id AS number, r.update_id::text AS order, r.received_at, r.sequence,
           r.status, r.was_applied,
           coalesce(r.body ->> 'bootId', r.body ->> 'boot_id', '') AS boot_id
    FROM deployments_report r JOIN deployments_update u ON u.id = r.update_id
    WHERE u.device_id IN (SELECT id FROM its)
"""
_READINGS = """
    SELECT d.device_id AS device, r.at, r.firmware_version AS version,
           r.cpu_percent AS cpu, r.memory_percent AS memory, r.error_ratio AS errors,
           r.is_first_of_boot
    FROM health_reading r JOIN devices_device d ON d.id = r.device_id
    WHERE r.device_id IN (SELECT id FROM its)
"""


def read_history(database_url: str, deployment: str) -> History:
    """Read the history of a deployment and of its devices, at one moment."""
    with psycopg.connect(database_url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        return read_over(connection, deployment)


def read_over(connection: psycopg.Connection[Any], deployment: str) -> History:
    """Read it over a connection that is there, with what its transaction has done."""

    def rows(kind: Any, query: str) -> tuple[Any, ...]:
        with connection.cursor(row_factory=class_row(kind)) as cursor:
            return tuple(cursor.execute(query, [deployment]).fetchall())

    return History(
        deployment=_deployment(connection, deployment),
        stages=rows(Stage, _STAGES),
        targets=rows(Target, _TARGETS),
        events=rows(Event, _EVENTS),
        orders=rows(Order, _OF_DEVICES + _ORDERS),
        reports=rows(Report, _OF_DEVICES + _REPORTS),
        readings=rows(Reading, _OF_DEVICES + _READINGS),
    )


def _deployment(connection: psycopg.Connection[Any], deployment: str) -> Deployment:
    row = connection.execute(_DEPLOYMENT, [deployment]).fetchone()
    assert row is not None, f"no deployment {deployment}"
    own_id, status, count, threshold, strategy, parameters, limits, *more = row
    criteria, finished_at, awake_since = more
    is_canary = strategy == "Canary"
    return Deployment(
        id=own_id,
        status=status,
        target_count=count,
        health_threshold=threshold,
        minimum_exposure=limits.get("minimum_exposure", 90.0),
        shares=(parameters["initial_percentage"], *parameters["increments"], 100)
        if is_canary
        else (),
        in_flight=parameters["max_concurrent_batches"] if strategy == "Rolling" else 1,
        limits=Limits(
            cpu=limits["cpu_usage"],
            cpu_duration=timedelta(seconds=limits["cpu_duration"]),
            memory=limits["memory_usage"],
            memory_duration=timedelta(seconds=limits["memory_duration"]),
            errors=limits["error_rate"],
            error_duration=timedelta(seconds=limits["error_duration"]),
            offline_after=timedelta(seconds=limits["offline_after"]),
        ),
        watch_duration=timedelta(seconds=criteria["watch_duration"]),
        finished_at=finished_at,
        awake_since=awake_since,
    )
