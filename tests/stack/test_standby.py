"""PostgreSQL with a standby, which is promoted when the primary dies."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployments.fleet import Rollout, at_work
from tests.deployments.live import LiveAdmin
from tests.live import running_stack
from tests.standby import Pair, acknowledge_together, follow, server_in
from tests.waiting import wait_until

pytestmark = pytest.mark.stack


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """A primary that acknowledges nothing before its standby has it."""
    primary, standby = (server_in(tmp_path / name) for name in ("first", "second"))
    try:
        primary.start()
        follow(primary, standby)
        standby.start()
        acknowledge_together(primary, standby)
        yield Pair(primary, standby)
    finally:
        primary.kill()
        standby.kill()


def test_a_promoted_standby_goes_on_and_nothing_acknowledged_is_lost(
    pair: Pair, tmp_path: Path
) -> None:
    with running_stack(
        tmp_path / "data",
        environment={"HOTSWAP_DATABASE_URL": pair.url},
        is_prepared=False,
    ) as stack:
        admin = LiveAdmin(stack)
        with at_work(Rollout(admin, 5)) as rollout:
            wait_until(
                lambda: rollout.ledger.has("device.installing", stage=1),
                what="the first reports",
            )
            known = rollout.ledger.lines()
            pair.primary.kill()
            pair.standby.run("SELECT pg_promote()")

            wait_until(
                lambda: rollout.ledger.lines() >= known, what="the standby has it all"
            )
            rollout.end()
