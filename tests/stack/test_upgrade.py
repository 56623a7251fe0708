"""Programs of an earlier revision and of this one side by side, on the new tables."""

import contextlib
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from hotswap.stack.folder import StackFolder
from hotswap.stack.postgres import PostgresServer
from tests.deployments.fleet import Rollout, at_work, frozen
from tests.deployments.live import LiveAdmin
from tests.earlier import NoHistoryError, find_earlier, put_earlier
from tests.live import LiveStack
from tests.waiting import wait_until

pytestmark = pytest.mark.stack
SHARED = ("keys", "firmware")


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source of an earlier revision."""
    folder = tmp_path_factory.mktemp("earlier") / "source"
    try:
        put_earlier(find_earlier(), folder)
    except NoHistoryError as error:
        pytest.skip(f"there is no earlier revision here: {error}")
    return folder


@pytest.fixture
def old(earlier: Path, tmp_path: Path) -> Iterator[LiveStack]:
    """A host with programs and tables of before."""
    stack = LiveStack(data_dir=tmp_path / "old", project=earlier, is_prepared=False)
    stack.start()
    try:
        stack.wait_ready()
        yield stack
    finally:
        stack.stop()


def beside(old: LiveStack, data_dir: Path) -> LiveStack:
    """Return a second host, of the present revision, with the servers of the first."""
    data_dir.mkdir()
    shutil.copytree(old.data_dir / "keys", data_dir / "keys")
    (old.data_dir / "firmware").mkdir(exist_ok=True)
    (data_dir / "firmware").symlink_to(old.data_dir / "firmware")
    return LiveStack(
        data_dir=data_dir,
        environment={
            "HOTSWAP_DATABASE_URL": old.state()["database_url"],
            "HOTSWAP_DATABASE_OWNER_URL": PostgresServer(StackFolder(old.data_dir)).url,
            "HOTSWAP_REDIS_URL": old.state()["redis_url"],
            "HOTSWAP_HOST_NAME": "new",
        },
        is_prepared=False,
    )


def spread(rollout: Rollout, *stacks: LiveStack) -> Counter[int]:
    """Let the devices call the hosts in turn; count the server errors they see."""
    errors: Counter[int] = Counter()

    def note(answer: httpx.Response) -> None:
        if answer.status_code >= 500:
            errors[answer.status_code] += 1

    for number, device in enumerate(rollout.devices):
        url = stacks[number % len(stacks)].url
        device.client.base_url = httpx.URL(f"{url}/api/v1")
        device.client.event_hooks = {"response": [note]}
    return errors


@contextlib.contextmanager
def without_ticks(stack: LiveStack) -> Iterator[None]:
    """Freeze what ticks on one host, so that the other one does all of it."""
    with frozen(stack.pid("worker")), frozen(stack.pid("beat")):
        yield


def migrations_in(stack: LiveStack) -> int:
    with psycopg.connect(stack.state()["database_url"]) as connection:
        row = connection.execute("SELECT count(*) FROM django_migrations").fetchone()
    assert row is not None
    return int(row[0])


def test_fleet_is_served_by_both_while_hosts_are_upgraded(
    old: LiveStack, tmp_path: Path
) -> None:
    before = migrations_in(old)
    new = beside(old, tmp_path / "new")
    admin = LiveAdmin(old)
    rollout = Rollout(admin, 6)
    errors = spread(rollout, old)
    with at_work(rollout):
        wait_until(
            lambda: rollout.ledger.has("device.installing", stage=1),
            what="the first reports",
        )
        # Its first step is to migrate the tables that the old programs work on.
        new.start()
        rollout.end()
    assert not errors
    try:
        new.wait_ready()
        assert migrations_in(old) > before

        # Old programs tick and serve what is launched through a new one, and back.
        for launching, ticking, resting in ((new, old, new), (old, new, old)):
            rollout = Rollout(LiveAdmin(launching), 6)
            errors = spread(rollout, old, new)
            with without_ticks(resting), at_work(rollout):
                rollout.end()
            assert not errors, (ticking.data_dir, errors)
    finally:
        new.stop()
