"""What a worker keeps from one task to the next."""

import psycopg

from tests.deployments.fleet import Ledger
from tests.live import LiveStack
from tests.waiting import wait_until

TICKS = 4
# Connections are renewed after ten minutes, which may be while the test looks.
ATTEMPTS = 3


def connections_of(stack: LiveStack, program: str) -> set[int]:
    """Return the connections that a program has to the database, by their servers."""
    with psycopg.connect(stack.state()["database_url"]) as connection:
        rows = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name = %s",
            [f"hotswap-{program}"],
        )
        return {pid for (pid,) in rows}


def wait_for_tick(ledger: Ledger) -> None:
    last = ledger.last_tick()
    wait_until(lambda: ledger.last_tick() not in (None, last), what="another tick")


def kept_over_ticks(stack: LiveStack) -> set[int]:
    """Return the connections of the worker that outlive some ticks."""
    ledger = Ledger(stack, "")
    wait_for_tick(ledger)
    kept = connections_of(stack, "worker")
    for _ in range(TICKS):
        wait_for_tick(ledger)
        kept &= connections_of(stack, "worker")
    return kept


def test_a_worker_keeps_its_connections_to_the_database(live_stack: LiveStack) -> None:
    # One that was closed and opened again is another.
    assert any(kept_over_ticks(live_stack) for _ in range(ATTEMPTS))
