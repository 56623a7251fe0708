"""The hosts of an installation: each process of the server has a row that it renews.

Rules:
- A thread of each process renews its row every ten seconds. Times are those of the
  database, so that the clocks of the hosts do not count.
- A process whose row is older than 30 s is silent: it has ended, is frozen, or does not
  reach the database. One that ends in order takes its row along.
- A host does not start with the key files of another installation, nor with another
  store of images than the hosts that are alive.
- Work is not handed out by these rows, but by locks: a wrong row misleads people alone.
"""

import atexit
import contextlib
import logging
import os
import sys
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import Error, connection
from django.db.models import Q
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from deployments.services.ticked import Ticked, record
from firmware.storage import STORE_ERRORS, store_id
from firmware.storage_locations import location_names
from hotswap.common.models import ServerProcess
from hotswap.common.services import require_own_keys
from hotswap.monitoring.status import VERSION

logger = logging.getLogger(__name__)
RENEWED_SECONDS: Final = 10.0
SILENT_AFTER: Final = timedelta(seconds=30)
FORGOTTEN_AFTER: Final = timedelta(days=1)
LOOK_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Process:
    """A process of the server as its row has it.

    Attributes:
        age: since its last heartbeat, by the clock of the database.
    """

    row: ServerProcess
    age: timedelta

    @property
    def is_silent(self) -> bool:
        return self.age > SILENT_AFTER


@dataclass(frozen=True, slots=True)
class LastTick:
    """Which process ticked a deployment last."""

    deployment_id: str
    at: datetime
    host: str
    pid: int


def join(role: str) -> None:
    """Check keys and stores of this process, and renew its row from now until it ends.

    `prepare` has checked both, where it has run on this host and its settings have not
    changed since. Where the database does not answer, or has no tables yet, the row
    comes later.

    Args:
        role: `web`, `worker` or `beat`.

    Raises:
        SystemExit: the key files are not those of the database, or a host that is
            alive keeps its images elsewhere.
    """
    keys = ""
    try:
        keys = require_own_keys()
        require_same_stores()
    except ImproperlyConfigured as error:
        logger.critical("HotSwap does not start: %s", error)
        sys.exit(1)
    except Error:
        logger.warning("Keys and stores are not compared: the database does not answer")
    finally:
        connection.close()
    Membership(role, keys).start()


class Membership:
    """The row of this process, renewed by a thread."""

    def __init__(self, role: str, keys: str) -> None:
        self._id = uuid.uuid4()
        self._role = role
        self._keys = keys
        self._stores: dict[str, str] = {}
        self._over = threading.Event()

    def start(self) -> None:
        """Renew the row from now on, and remove it when the process ends in order."""
        threading.Thread(target=self._run, name="hotswap-host", daemon=True).start()
        atexit.register(self._leave)

    def renew(self) -> None:
        """Write the row, and remove those that it replaces.

        Raises:
            Error: the database does not answer.
        """
        now = database_time()
        ticked: Ticked = record.snapshot(timezone.now())
        row = ServerProcess(
            id=self._id,
            host=settings.HOST_NAME,
            role=self._role,
            pid=os.getpid(),
            version=VERSION,
            keys=self._keys,
            stores=self._stores,
            started_at=now,
            seen_at=now,
            ticks=ticked.ticks,
            last_tick_at=ticked.last_at,
            ticked={str(key): at.isoformat() for key, at in ticked.deployments.items()},
        )
        ServerProcess.objects.bulk_create(
            [row],
            update_conflicts=True,
            unique_fields=["id"],
            update_fields=[
                *("keys", "stores", "seen_at", "ticks", "last_tick_at", "ticked")
            ],
        )
        replaced = Q(
            host=settings.HOST_NAME, role=self._role, seen_at__lt=now - SILENT_AFTER
        )
        forgotten = Q(seen_at__lt=now - FORGOTTEN_AFTER)
        ServerProcess.objects.filter(replaced | forgotten).delete()

    def _run(self) -> None:
        while True:
            try:
                if not self._stores:
                    self._stores = store_ids()
                if not self._keys:
                    self._keys = require_own_keys()
                self.renew()
            except (Error, ImproperlyConfigured):
                # Said where it matters: by readiness and by the parts of the server.
                pass
            finally:
                # Ten seconds are too long to keep a connection for one statement.
                connection.close()
            if self._over.wait(RENEWED_SECONDS):
                return

    def _leave(self) -> None:
        self._over.set()
        with contextlib.suppress(Error):
            ServerProcess.objects.filter(pk=self._id).delete()
            connection.close()


def database_time() -> datetime:
    """Return the time by the clock of the database."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        found: datetime = cursor.fetchone()[0]
    return found


def store_ids(*, make: bool = False) -> dict[str, str]:
    """Return the identity of each store of images that answers, by its name.

    Args:
        make: give an identity to a bucket that has none.
    """
    found = {}
    for place in location_names():
        with contextlib.suppress(*STORE_ERRORS):
            if identity := store_id(place, make=make):
                found[place] = identity
    return found


def require_same_stores(
    *, silent_seconds: float = SILENT_AFTER.total_seconds()
) -> None:
    """Check that this host keeps its images where the other hosts do.

    A host that seems to use another store may just have ended: what counts is a
    heartbeat that comes while this waits, `silent_seconds` at most.

    Raises:
        ImproperlyConfigured: a host that is alive uses another store.
    """
    own = store_ids(make=True)
    ends = time.monotonic() + silent_seconds
    first_seen: dict[uuid.UUID, datetime] = {}
    while differing := [
        row for row in _others_alive() if differ(own, dict(row.stores))
    ]:
        for row in differing:
            if row.seen_at > first_seen.setdefault(row.pk, row.seen_at):
                raise ImproperlyConfigured(
                    f"this host keeps images in {_named(own)}, and host {row.host} in "
                    f"{_named(row.stores)}: all hosts of an installation need the same "
                    "buckets, or one folder that they share (docs/operate/install.md, "
                    "Several hosts)"
                )
        if time.monotonic() > ends:
            return
        time.sleep(LOOK_SECONDS)


def _others_alive() -> list[ServerProcess]:
    now = database_time()
    return list(
        ServerProcess.objects.exclude(host=settings.HOST_NAME).filter(
            seen_at__gte=now - SILENT_AFTER
        )
    )


def _named(stores: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({stores[name][:8]})" for name in sorted(stores))


def differ(own: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Tell whether two hosts keep images in different stores.

    A further bucket that one of them knows is none: it is added host by host. Of a
    store that did not answer nothing is known.
    """
    if not own or not other:
        return False
    shared = own.keys() & other.keys()
    return not shared or any(own[name] != other[name] for name in shared)


def processes() -> list[Process]:
    """Return the processes of all hosts, those of one host together."""
    now = database_time()
    rows = ServerProcess.objects.order_by("host", "role", "started_at")
    return [Process(row, max(timedelta(), now - row.seen_at)) for row in rows]


def differing_stores(found: Iterable[Process]) -> list[str]:
    """Return the names of the hosts, if two that are alive use different stores."""
    alive = [each.row for each in found if not each.is_silent]
    hosts = {
        row.host
        for row in alive
        for other in alive
        if differ(dict(row.stores), dict(other.stores))
    }
    return sorted(hosts)


def by_host(found: Iterable[Process]) -> dict[str, list[Process]]:
    """Return the processes of each host."""
    hosts: defaultdict[str, list[Process]] = defaultdict(list)
    for each in found:
        hosts[each.row.host].append(each)
    return dict(hosts)


def last_ticks(found: Iterable[Process]) -> list[LastTick]:
    """Return who ticked each deployment last, of those of the last minute."""
    latest: dict[str, LastTick] = {}
    for each in found:
        noted: Mapping[str, Any] = each.row.ticked
        for deployment_id, text in noted.items():
            at = parse_datetime(str(text))
            known = latest.get(deployment_id)
            if at is not None and (known is None or at > known.at):
                latest[deployment_id] = LastTick(
                    deployment_id, at, each.row.host, each.row.pid
                )
    return sorted(latest.values(), key=lambda each: each.deployment_id)
