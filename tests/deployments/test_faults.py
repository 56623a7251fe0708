"""A running stack whose parts are killed, frozen, emptied and damaged."""

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import celery
import httpx
import psycopg
import pytest
from django.conf import settings

from tests.campaign import OUTCOME, SEED, is_wanted
from tests.deployments.agents import (
    AgentDevice,
    StartAgent,
    direct,
    new_model,
    program,
    running_agents,
)
from tests.deployments.fleet import (
    FINAL,
    STRIKES,
    Ledger,
    Rollout,
    another,
    at_work,
    frozen,
    redis_of,
    stop_awhile,
    wait_until_whole,
)
from tests.deployments.live import LiveAdmin, witnesses_of
from tests.deployments.storm import Storm
from tests.deployments.test_metrics import EQUALS
from tests.history import faults_in, read_over
from tests.live import LiveStack, running_stack, superuser_url
from tests.waiting import wait_until

pytestmark = pytest.mark.stack

TAKEOVER_SECONDS = 10.0
# Of two web processes, a worker and a beat, together.
MOST_CONNECTIONS = 12
# The moments around which a deployment could lose or double something.
MOMENTS: dict[str, Callable[[Ledger], bool]] = {
    "first-reports": lambda ledger: ledger.has("device.installing", stage=1),
    "settled": lambda ledger: ledger.has("stage.settled", stage=1),
    "before-opening": lambda ledger: (
        ledger.has("stage.settled", stage=1) and ledger.next_check_is_near(0.4)
    ),
    "after-opening": lambda ledger: ledger.has("stage.opened", stage=2),
    "last-reports": lambda ledger: ledger.has("device.installing", stage=2),
    "completion": lambda ledger: ledger.has("device.claimed", 5),
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveStack]:
    """A stack of its own: it is hurt here."""
    with running_stack(
        tmp_path_factory.mktemp("faults") / "data",
        environment={"HOTSWAP_WEB_WORKERS": "2"},
    ) as running:
        yield running


@pytest.fixture(scope="module")
def admin(stack: LiveStack) -> LiveAdmin:
    return LiveAdmin(stack)


@contextlib.contextmanager
def fresh_rollout(
    stack: LiveStack, admin: LiveAdmin, *, count: int = 5
) -> Iterator[Rollout]:
    """Launch a canary whose devices are at work, on a stack that is whole."""
    wait_until_whole(stack)
    with at_work(Rollout(admin, count)) as rollout:
        yield rollout


@pytest.fixture
def rollout(stack: LiveStack, admin: LiveAdmin) -> Iterator[Rollout]:
    with fresh_rollout(stack, admin) as rollout:
        yield rollout


def wait_for(rollout: Rollout, moment: str) -> None:
    wait_until(lambda: MOMENTS[moment](rollout.ledger), what=moment)


def test_worker_and_beat_may_die_while_redis_is_emptied_and_frozen(
    stack: LiveStack, rollout: Rollout
) -> None:
    wait_for(rollout, "first-reports")
    stack.kill("worker")
    stack.kill("beat")
    redis_of(stack).flushall()

    wait_for(rollout, "settled")
    stop_awhile(stack, "redis")

    rollout.end()


def test_web_and_postgres_may_die_in_the_middle_of_reports(
    stack: LiveStack, rollout: Rollout
) -> None:
    wait_for(rollout, "first-reports")
    stack.kill("web")

    wait_for(rollout, "last-reports")
    stack.kill("postgres")

    rollout.end()
    assert_counts_equal_the_rows(stack)


def assert_counts_equal_the_rows(stack: LiveStack) -> None:
    """Compare every counter and histogram with the rows, as of one moment."""
    with psycopg.connect(stack.state()["database_url"]) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        counted: dict[str, int] = dict(
            connection.execute(
                "SELECT metric, sum(count)::int FROM common_metriccount GROUP BY metric"
            ).fetchall()
        )
        in_rows = {
            name: connection.execute(statement.encode()).fetchall()[0][0]
            for name, statement in EQUALS.items()
        }
    assert counted["hotswap_devices_updated_total"] > 0
    assert {name: counted.get(name, 0) for name in EQUALS} == in_rows


def test_tasks_may_come_threefold_and_shuffled_from_three_beats(
    stack: LiveStack, rollout: Rollout
) -> None:
    with three_beats(stack), shuffled_tasks(stack, chance_of("tasks")):
        wait_for(rollout, "before-opening")
        stop_awhile(stack, "worker")

        rollout.end()


def test_another_worker_takes_over_from_one_frozen_inside_a_tick(
    stack: LiveStack, admin: LiveAdmin
) -> None:
    with second_worker(stack) as second, fresh_rollout(stack, admin) as rollout:
        assert take_over(stack, rollout, second) <= TAKEOVER_SECONDS

        rollout.end()


def test_reports_may_come_doubled_late_and_out_of_order(
    stack: LiveStack, admin: LiveAdmin
) -> None:
    wait_until_whole(stack)
    storm = Storm(admin, 40, chance_of("reports"))

    storm.run()

    storm.check()


def test_host_of_two_web_processes_holds_twelve_connections(
    stack: LiveStack, rollout: Rollout
) -> None:
    ledger, token = rollout.ledger, rollout.admin.client.headers["Authorization"]
    held: list[int] = []

    def ask(_: int) -> int:
        with httpx.Client(timeout=120, headers={"Authorization": token}) as client:
            return min(
                client.get(f"{stack.url}/api/v1/{path}").status_code
                for path in ("devices?count=true", "deployments", "firmware")
                for _ in range(5)
            )

    # Threads enough for all of both processes.
    with ThreadPoolExecutor(40) as pool:
        asked = [pool.submit(ask, number) for number in range(40)]
        while not all(each.done() for each in asked):
            held.append(
                ledger.ask(
                    "SELECT count(*)::int FROM pg_stat_activity"
                    " WHERE application_name LIKE 'hotswap-%'"
                )
                or 0
            )
    rollout.end()

    assert {each.result() for each in asked} == {200}
    assert 0 < max(held) <= MOST_CONNECTIONS


@pytest.fixture(scope="module")
def finished(stack: LiveStack, admin: LiveAdmin) -> Rollout:
    """A canary that nothing has disturbed."""
    with fresh_rollout(stack, admin) as rollout:
        rollout.end()
    return rollout


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        (
            (
                "DELETE FROM deployments_report USING deployments_update u"
                " WHERE u.id = update_id AND u.{its} AND sequence = 2"
            ),
            "acknowledged and is not stored",
        ),
        (
            (
                "UPDATE deployments_report SET was_applied = false FROM"
                " deployments_update u WHERE u.id = update_id AND u.{its}"
                " AND sequence = 3"
            ),
            "lost or done twice",
        ),
        (
            "DELETE FROM deployments_event WHERE {its} AND event = 'device.updated'",
            "the log does not say so once",
        ),
        (
            (
                "INSERT INTO deployments_event (deployment_id, at, level, event,"
                " device_id, stage_number, message) SELECT deployment_id, at, level,"
                " event, device_id, stage_number, message FROM deployments_event"
                " WHERE {its} AND event = 'device.claimed'"
            ),
            "lost or done twice",
        ),
        (
            "DELETE FROM deployments_event WHERE {its} AND event = 'stage.passed'",
            "opened before 1 had passed",
        ),
        (
            (
                "UPDATE deployments_event SET at = at - interval '1 hour'"
                " WHERE {its} AND event = 'stage.passed' AND stage_number = 1"
            ),
            "passed before its wait was over",
        ),
        (
            "UPDATE deployments_target SET rank = 5 WHERE {its} AND stage_number = 1",
            "before its stage was open",
        ),
        (
            "UPDATE deployments_stage SET boundary = 3 WHERE {its} AND number = 1",
            "is no share of",
        ),
        (
            (
                "DELETE FROM health_reading WHERE device_id IN"
                " (SELECT device_id FROM deployments_target WHERE {its})"
                " AND firmware_version = '2.0.0'"
            ),
            "without a heartbeat",
        ),
        (
            "UPDATE deployments_update SET closed_at = NULL WHERE {its}",
            "succeeded and the log does not say so once",
        ),
        (
            "UPDATE deployments_target SET status = 'confirming' WHERE {its}",
            "has not come to an end",
        ),
        (
            "DELETE FROM deployments_update WHERE {its}",
            "in the log and none is stored",
        ),
    ],
)
def test_defect_planted_in_a_real_history_is_found(
    stack: LiveStack, finished: Rollout, statement: str, fault: str
) -> None:
    own = finished.ledger.deployment
    with psycopg.connect(superuser_url(stack.data_dir)) as connection:
        # Neither triggers nor foreign keys keep the defect out.
        connection.execute("SET LOCAL session_replication_role = 'replica'")
        changed = connection.execute(statement.format(its=f"deployment_id = '{own}'"))
        assert changed.rowcount > 0

        found = faults_in(read_over(connection, own), witnesses_of(finished.devices))

        connection.rollback()
    assert any(fault in each for each in found), found


def chance_of(case: str) -> random.Random:
    return random.Random(f"{SEED}-{case}")


@contextlib.contextmanager
def three_beats(stack: LiveStack) -> Iterator[None]:
    """Run two more beats, which must all live to the end."""
    with another(stack, "beat") as second, another(stack, "beat") as third:
        yield
        assert second.poll() is None
        assert third.poll() is None


@contextlib.contextmanager
def shuffled_tasks(stack: LiveStack, chance: random.Random) -> Iterator[None]:
    """Send every periodic task three times a second, in an order of chance."""
    names = [str(entry["task"]) for entry in settings.CELERY_BEAT_SCHEDULE.values()]
    over = threading.Event()

    def send() -> None:
        with celery.Celery(broker=stack.state()["redis_url"]) as sender:
            while not over.wait(1):
                tasks = names * 3
                chance.shuffle(tasks)
                for name in tasks:
                    sender.send_task(name, expires=30)

    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send)
        try:
            yield
        finally:
            over.set()
    sending.result()


@contextlib.contextmanager
def second_worker(stack: LiveStack) -> Iterator[int]:
    """Run another worker, at work already; give its process id."""
    ledger = Ledger(stack, "")
    arguments = ("-n", "second@%h")
    with another(stack, "worker", *arguments, PGAPPNAME="second") as process:
        wait_until(
            lambda: ledger.ask(
                "SELECT 1 FROM pg_stat_activity WHERE application_name = 'second'"
            ),
            what="the second worker is at work",
        )
        yield process.pid


def take_over(stack: LiveStack, rollout: Rollout, second: int) -> float:
    """Freeze a worker that holds a deployment; give the seconds until it moves on.

    A lock on the rows of the stages makes the tick that changes one wait inside of its
    transaction: that is when its worker is frozen. The lock is then let go of.

    Args:
        second: process id of the worker beside that of the stack.
    """
    ledger = rollout.ledger
    with contextlib.ExitStack() as thawing:
        with psycopg.connect(stack.state()["database_url"]) as connection:
            connection.execute(
                "SELECT 1 FROM deployments_stage WHERE deployment_id = %s FOR UPDATE",
                [ledger.deployment],
            )
            waiting = wait_until(
                lambda: ledger.ask(
                    "SELECT application_name || '.' FROM pg_stat_activity"
                    " WHERE wait_event_type = 'Lock'"
                    """ AND query LIKE 'UPDATE "deployments_stage"%'"""
                ),
                what="a tick waits inside of its transaction",
            )
            before = ledger.stages_moved()
            holder = second if waiting == "second." else stack.pid("worker")
            thawing.enter_context(frozen(holder))
            begun = time.monotonic()
        wait_until(
            lambda: ledger.stages_moved() > before,
            what="another worker has moved the deployment",
        )
        return time.monotonic() - begun


# The campaign

ROUNDS = 4
KILLS_PER_ROUND = 3
PARTS = ("web", "worker", "beat", "redis", "postgres")
AWAY_SECONDS = 60.0
BOUNDARIES = ("before-opening", "after-opening", "settled", "completion")


@pytest.mark.campaign
@pytest.mark.parametrize("how", STRIKES)
@pytest.mark.parametrize("name", ["web", "worker", "beat"])
@pytest.mark.parametrize("moment", BOUNDARIES)
def test_any_program_may_be_struck_at_every_boundary(
    stack: LiveStack, admin: LiveAdmin, moment: str, name: str, how: str
) -> None:
    case = f"boundaries:{moment}:{name}:{how}"
    if not is_wanted(case):
        return
    with OUTCOME.trying(case), fresh_rollout(stack, admin) as rollout:
        wait_for(rollout, moment)
        before, begun = rollout.ledger.last_tick(), time.monotonic()
        STRIKES[how](stack, name)
        wait_until(
            lambda: rollout.ledger.last_tick() not in (None, before),
            what="a tick after the fault",
        )
        OUTCOME.takeovers[case] = time.monotonic() - begun
        rollout.end()


@pytest.mark.campaign
@pytest.mark.parametrize("number", range(ROUNDS))
def test_any_parts_may_be_killed_at_any_time(
    stack: LiveStack, admin: LiveAdmin, number: int
) -> None:
    case = f"servers:{number}"
    if not is_wanted(case):
        return
    chance = chance_of(case)
    with OUTCOME.trying(case), fresh_rollout(stack, admin) as rollout:
        for _ in range(KILLS_PER_ROUND):
            lines = chance.randrange(1, 10)
            so_far = rollout.ledger.lines()
            wait_until(
                lambda: (
                    rollout.ledger.lines() >= so_far + lines  # noqa: B023
                    or rollout.ledger.status() in FINAL
                ),
                what="the moment of the next kill",
            )
            name = chance.choice(PARTS)
            wait_until(lambda: stack.pid(name) is not None, what=name)  # noqa: B023
            stack.kill(name)
        rollout.end()


@pytest.mark.campaign
def test_redis_may_be_away_for_a_minute_and_come_back_empty(
    stack: LiveStack, admin: LiveAdmin
) -> None:
    case = "redis:minute"
    if not is_wanted(case):
        return
    with OUTCOME.trying(case), fresh_rollout(stack, admin) as rollout:
        wait_for(rollout, "first-reports")
        stop_awhile(stack, "redis", AWAY_SECONDS)
        redis_of(stack).flushall()
        rollout.end()


@pytest.mark.campaign
@pytest.mark.parametrize("moment", ["first-reports", "last-reports"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_postgres_may_be_restarted_in_the_middle_of_reports(
    stack: LiveStack, admin: LiveAdmin, number: signal.Signals, moment: str
) -> None:
    case = f"postgres:{moment}:{number.name}"
    if not is_wanted(case):
        return
    with OUTCOME.trying(case), fresh_rollout(stack, admin, count=12) as rollout:
        wait_for(rollout, moment)
        leader = stack.pid("postgres")
        assert leader is not None
        os.kill(leader, number)
        rollout.end()


@pytest.mark.campaign
@pytest.mark.parametrize("moment", ["first-reports", "settled", "after-opening"])
def test_worker_frozen_inside_a_tick_is_replaced_every_time(
    stack: LiveStack, admin: LiveAdmin, moment: str
) -> None:
    case = f"takeover:{moment}"
    if not is_wanted(case):
        return
    with (
        OUTCOME.trying(case),
        second_worker(stack) as second,
        fresh_rollout(stack, admin) as rollout,
    ):
        wait_for(rollout, moment)
        seconds = OUTCOME.takeovers[case] = take_over(stack, rollout, second)
        assert seconds <= TAKEOVER_SECONDS
        rollout.end()


@pytest.mark.campaign
@pytest.mark.parametrize("name", ["worker", "beat"])
def test_program_frozen_for_good_is_noticed_and_started_again(
    stack: LiveStack, admin: LiveAdmin, name: str
) -> None:
    case = f"frozen:{name}"
    if not is_wanted(case):
        return
    with OUTCOME.trying(case), fresh_rollout(stack, admin) as rollout:
        wait_for(rollout, "first-reports")
        with frozen(stack.pid(name)):
            rollout.end()


@pytest.mark.campaign
def test_tasks_come_threefold_and_shuffled_to_a_larger_canary(
    stack: LiveStack, admin: LiveAdmin
) -> None:
    case = "tasks:shuffled"
    if not is_wanted(case):
        return
    with OUTCOME.trying(case), fresh_rollout(stack, admin, count=20) as rollout:
        with three_beats(stack), shuffled_tasks(stack, chance_of(case)):
            rollout.end()


@pytest.mark.campaign
def test_thousand_devices_report_doubled_late_and_out_of_order(
    stack: LiveStack, admin: LiveAdmin
) -> None:
    case = "reports:1000"
    if not is_wanted(case):
        return
    wait_until_whole(stack)
    with OUTCOME.trying(case):
        storm = Storm(admin, 1000, chance_of(case))
        storm.run()
        storm.check()


# Agents of their own


@pytest.fixture
def agents() -> Iterator[StartAgent]:
    """Start agents, and end them afterwards."""
    with running_agents() as start:
        yield start


def test_a_real_agent_updates_against_a_real_server(
    admin: LiveAdmin, agents: StartAgent, tmp_path: Path
) -> None:
    model = new_model(admin)
    old, new = program("1.0.0", 20_000), program("2.0.0", 300_000)
    admin.upload(model, "1.0.0", old)
    firmware = admin.upload(model, "2.0.0", new)
    device = AgentDevice(tmp_path / "device", admin, model, old)
    agents(device)

    deployment = direct(admin, firmware, device.name)

    wait_until(
        lambda: admin.get(f"/deployments/{deployment}/status")["status"] == "Completed",
        what="the agent has proved itself",
    )
    shown = admin.get(f"/devices/{device.name}")
    assert shown["firmwareVersion"] == "2.0.0"
    assert shown["firmwareChecksum"] == firmware["checksum"]
    assert shown["previousFirmwareVersion"] == "1.0.0"


def test_a_flipped_byte_in_the_stored_image_is_refused_and_shown(
    stack: LiveStack, admin: LiveAdmin, agents: StartAgent, tmp_path: Path
) -> None:
    model = new_model(admin)
    old, new = program("1.0.0", 20_000), program("2.0.0", 300_000)
    admin.upload(model, "1.0.0", old)
    known = set((stack.data_dir / "firmware/images").iterdir())
    firmware = admin.upload(model, "2.0.0", new)
    (stored,) = set((stack.data_dir / "firmware/images").iterdir()) - known
    content = bytearray(stored.read_bytes())
    content[200_000] ^= 1
    stored.write_bytes(content)
    device = AgentDevice(tmp_path / "device", admin, model, old)
    with device.config.open("a") as config:
        config.write("\npath_patience_seconds = 2\n")
    agents(device)

    deployment = direct(admin, firmware, device.name)

    status = wait_until(
        lambda: _when(
            admin.get(f"/deployments/{deployment}/status"), "Paused", "Failed"
        ),
        what="the damage is noticed",
    )
    assert status is not None
    shown = admin.get(f"/firmware/{firmware['id']}")
    assert shown["damagedAt"] is not None
    assert "does not verify" in shown["damage"]
    verbs = admin.get(f"/audit-events?objectId={firmware['id']}")["results"]
    assert "firmware.damaged" in {row["verb"] for row in verbs}
    assert status["progress"]["success"] == 0
    wait_until(
        lambda: (
            admin.get(f"/deployments/{deployment}/devices/{device.name}")["errorCode"]
            == "path_server_error"
        ),
        what="the agent has given up and said why",
    )
    assert device.running_image() == old
    assert admin.get(f"/devices/{device.name}")["firmwareVersion"] == "1.0.0"


def _when(status: dict[str, Any], *wanted: str) -> dict[str, Any] | None:
    return status if status["status"] in wanted else None
