"""What is wrong with an installation, in plain words, and what to do about it.

Rules:
- Each check stands alone: one that cannot be made says so and stops no other.
- Nothing is changed, and nothing is waited for longer than a few seconds.
- A problem keeps the fleet from being served, or will; a warning is worth a look.
"""

import os
import resource
import ssl
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import redis
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connection

from firmware.storage_locations import check_settings
from hotswap.common.keyring import master_keys
from hotswap.common.postgresql.roles import rights_too_many
from hotswap.common.secret_strength import weakness_of
from hotswap.monitoring.hosts import (
    SILENT_AFTER,
    Process,
    by_host,
    differing_stores,
    processes,
)
from hotswap.monitoring.migrations import AppliedMigrations
from hotswap.monitoring.status import State, server_status
from hotswap.production_checks import MEANT, is_production

OLDEST_POSTGRESQL: Final = 15
OLDEST_REDIS: Final = 7
CLOCK_LIMIT: Final = timedelta(seconds=2)
FEWEST_OPEN_FILES: Final = 4096
ASK_SECONDS: Final = 5.0
ADVICE: Final = {
    "database": "Start or reach PostgreSQL: docs/operate/runbooks.md#database-down",
    "keys": "Bring the folder of keys back from a backup; never make new ones over it.",
    "redis": "Start or reach Redis: docs/operate/runbooks.md#redis-down",
    "store": "See docs/operate/runbooks.md#store-down",
    "disk": "Make room: docs/operate/runbooks.md#disk-filling",
    "tick": "Start worker and beat: docs/operate/runbooks.md#tick-late",
    "sweep": "Start worker and beat: docs/operate/runbooks.md#tick-late",
    "queue": "Start workers: docs/operate/runbooks.md#queue-stalled",
    "outbox": "See docs/operate/runbooks.md#outbox-stalled",
    "copies": "See docs/operate/runbooks.md#copies-missing",
    "certificate": "See docs/operate/runbooks.md#certificate-expires",
}


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        says: one sentence.
        advice: what to do, "" if nothing is.
    """

    name: str
    verdict: Verdict
    says: str
    advice: str = ""


def examine() -> Iterator[Finding]:
    """Make every check, one after the other."""
    for check in (*CHECKS, _parts):
        try:
            yield from check()
        except Exception as error:  # noqa: BLE001 - whatever it was, the others go on
            name = check.__name__.strip("_")
            yield Finding(name, Verdict.WARNING, f"It cannot be looked at: {error!r}")


def _settings() -> Iterator[Finding]:
    try:
        check_settings()
    except ImproperlyConfigured as error:
        yield Finding("settings", Verdict.PROBLEM, str(error), "Correct the variable.")
    found = [
        message
        for message in checks.run_checks(include_deployment_checks=is_production())
        if message.level >= checks.WARNING and message.id not in MEANT
    ]
    for message in found:
        is_error = message.level >= checks.ERROR
        yield Finding(
            "settings",
            Verdict.PROBLEM if is_error else Verdict.WARNING,
            f"{message.msg} ({message.id})",
            message.hint or "",
        )
    if "*" in settings.ALLOWED_HOSTS:
        yield Finding(
            "settings",
            Verdict.PROBLEM,
            "HOTSWAP_ALLOWED_HOSTS lets any name in.",
            "Name the names of this server.",
        )
    if not found:
        yield Finding("settings", Verdict.OK, "Nothing is wrong with them.")


def _secrets() -> Iterator[Finding]:
    weakness = weakness_of(str(settings.SECRET_KEY))
    if weakness:
        yield Finding(
            "secrets",
            Verdict.PROBLEM,
            f"HOTSWAP_SECRET_KEY {weakness}: sessions can be forged.",
            "Set 50 random characters, and no fallback: everybody logs in again.",
        )
    if settings.SECRET_KEY_FALLBACKS:
        yield Finding(
            "secrets",
            Verdict.WARNING,
            "HOTSWAP_SECRET_KEY_FALLBACKS still accepts what former keys signed.",
            "Unset it once sessions of before have ended: docs/configuration.md",
        )
    yield from _master_keys()
    open_files = [
        path.name
        for path in sorted(settings.KEYS_DIR.glob("*"))
        if path.is_file() and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    ]
    if open_files:
        yield Finding(
            "secrets",
            Verdict.PROBLEM,
            f"Others can read {', '.join(open_files)} in {settings.KEYS_DIR}.",
            f"chmod 600 {settings.KEYS_DIR}/*",
        )
    elif not weakness:
        yield Finding("secrets", Verdict.OK, "Secrets are long, key files are closed.")


def _master_keys() -> Iterator[Finding]:
    try:
        number = len(master_keys())
    except ImproperlyConfigured:
        # Said among the parts.
        return
    if number > 1:
        yield Finding(
            "secrets",
            Verdict.WARNING,
            "A rotation of the master key is not over: the former one still opens.",
            "hotswap keys rotate-master goes on with it.",
        )


def _database() -> Iterator[Finding]:
    try:
        with connection.cursor() as cursor:
            before = time.time()
            cursor.execute(
                "SELECT current_setting('server_version_num')::int,"
                " extract(epoch FROM clock_timestamp()),"
                " current_setting('max_connections')::int,"
                " current_setting('idle_in_transaction_session_timeout')"
            )
            number, clock, most, idle_limit = cursor.fetchone()
            after = time.time()
    except DatabaseError as error:
        yield Finding(
            "database",
            Verdict.PROBLEM,
            f"It does not answer: {str(error).splitlines()[0]}",
            ADVICE["database"],
        )
        return
    if number // 10_000 < OLDEST_POSTGRESQL:
        yield Finding(
            "database",
            Verdict.PROBLEM,
            f"PostgreSQL {number // 10_000} is too old.",
            f"Take {OLDEST_POSTGRESQL} or newer.",
        )
    if not AppliedMigrations().are_complete():
        yield Finding(
            "database",
            Verdict.PROBLEM,
            "Its tables are not those of this version.",
            "Run `python -m hotswap.stack.prepare`: docs/operate/upgrade.md",
        )
    if idle_limit == "0":
        yield Finding(
            "database",
            Verdict.WARNING,
            "A frozen process keeps its rows locked: transactions may idle for ever.",
            "ALTER ROLE ... SET idle_in_transaction_session_timeout = '5s', or have "
            "the pooler set it: docs/operate/scale.md#a-pooler",
        )
    off = timedelta(seconds=max(before - float(clock), float(clock) - after, 0.0))
    if off > CLOCK_LIMIT:
        yield Finding(
            "clock",
            Verdict.WARNING,
            f"The clock of this host and of the database differ by {off}.",
            "Let NTP set both.",
        )
    else:
        yield Finding("clock", Verdict.OK, "This host and the database agree.")
    for fault in rights_too_many():
        yield Finding(
            "database",
            Verdict.WARNING,
            fault,
            "Separate it from the owner of the tables: docs/operate/install.md, Two "
            "roles in the database",
        )
    if most < 50:
        yield Finding(
            "database",
            Verdict.WARNING,
            f"It takes {most} connections; each worker task holds one, and each web "
            f"process {settings.WEB_CONNECTIONS or settings.WEB_THREADS}.",
            "Raise max_connections, or run fewer of them.",
        )


def _redis() -> Iterator[Finding]:
    client = redis.Redis.from_url(
        settings.REDIS_URL, socket_timeout=ASK_SECONDS, socket_connect_timeout=2
    )
    try:
        with client:
            about = dict(client.info())
    except redis.RedisError:
        # Said among the parts.
        return
    number = str(about.get("redis_version", "0"))
    if int(number.split(".")[0]) < OLDEST_REDIS:
        yield Finding(
            "redis",
            Verdict.WARNING,
            f"Redis {number} is older than the specification asks for.",
            f"Set HOTSWAP_REDIS_URL to a Redis or Valkey of {OLDEST_REDIS} or newer.",
        )
    policy = about.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and about.get("maxmemory"):
        yield Finding(
            "redis",
            Verdict.WARNING,
            f"It drops keys when it is full ({policy}): ticks get lost.",
            "maxmemory-policy noeviction",
        )


def _proxy() -> Iterator[Finding]:
    if not is_production():
        return
    if not settings.PROXY_SECRET and not settings.PROXY_ADDRESSES:
        yield Finding(
            "proxy",
            Verdict.WARNING,
            "No proxy is known: all callers share its address, and its limits.",
            "Set HOTSWAP_PROXY_SECRET: docs/devices.md, Client certificates",
        )
    url = settings.PUBLIC_URL
    if urlsplit(url).scheme != "https":
        yield Finding(
            "proxy",
            Verdict.WARNING,
            "HOTSWAP_PUBLIC_URL is no https address: links in mails lead nowhere.",
            "Set it to the address that people and devices use.",
        )
        return
    yield from _public(url)


def _public(url: str) -> Iterator[Finding]:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    request = Request(f"{url.rstrip('/')}/api/v1/devices")  # noqa: S310 - https, as looked at
    try:
        with urlopen(request, timeout=ASK_SECONDS, context=context):  # noqa: S310
            status = 200
    except HTTPError as error:
        status = error.code
        error.close()
    except (URLError, OSError, ValueError) as error:
        yield Finding(
            "proxy",
            Verdict.WARNING,
            f"{url} does not answer this host: {getattr(error, 'reason', error)}",
            "Fine if only others can reach it; else look at the proxy.",
        )
        return
    if status == 400:
        yield Finding(
            "proxy",
            Verdict.PROBLEM,
            "The proxy passes on a name that HOTSWAP_ALLOWED_HOSTS lacks.",
            "proxy_set_header Host $http_host, and the name in the variable.",
        )
    elif 300 <= status < 400:
        yield Finding(
            "proxy",
            Verdict.PROBLEM,
            "HotSwap believes that https requests are plain ones: it redirects them.",
            "Let the proxy set X-Forwarded-Proto: deploy/nginx",
        )
    else:
        yield Finding("proxy", Verdict.OK, f"{url} leads here.")


def _hosts() -> Iterator[Finding]:
    found = processes()
    if differing := differing_stores(found):
        yield Finding(
            "hosts",
            Verdict.PROBLEM,
            f"They keep images in different stores: {', '.join(differing)}.",
            "Give all of them the same buckets, or one folder: "
            "docs/operate/install.md, Several hosts",
        )
    alive = [each.row for each in found if not each.is_silent]
    if len({row.keys for row in alive if row.keys}) > 1:
        yield Finding(
            "hosts",
            Verdict.WARNING,
            "Their key files differ: a key was added on one of them, or is rotated.",
            "Copy the folder of keys to all of them, and start them again.",
        )
    if len({row.version for row in alive}) > 1:
        yield Finding(
            "hosts",
            Verdict.WARNING,
            "They run different versions.",
            "Go on with the upgrade: docs/operate/upgrade.md",
        )
    silent = sorted({str(each.row) for each in found if each.is_silent})
    if silent:
        yield Finding(
            "hosts",
            Verdict.WARNING,
            f"No heartbeat for {SILENT_AFTER.seconds} s: {', '.join(silent)}.",
            "Start what shall run; what was taken away is forgotten after a day.",
        )
    described = [
        f"{host} ({', '.join(_programs(each))})"
        for host, each in by_host(found).items()
    ]
    yield Finding(
        "hosts",
        Verdict.OK if alive else Verdict.WARNING,
        "; ".join(described) or "None has a heartbeat.",
        "" if alive else "Start HotSwap: docs/operate/install.md",
    )


def _programs(found: list[Process]) -> list[str]:
    counts = Counter(
        f"{each.row.role} {each.row.version}" for each in found if not each.is_silent
    )
    return [
        name if number == 1 else f"{number} {name}" for name, number in counts.items()
    ] or ["silent"]


def _host() -> Iterator[Finding]:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if limit not in (resource.RLIM_INFINITY, -1) and limit < FEWEST_OPEN_FILES:
        yield Finding(
            "host",
            Verdict.WARNING,
            f"A process may hold {limit} files and connections open.",
            "LimitNOFILE=16384, or ulimit -n 16384",
        )
    if not os.access(settings.DATA_DIR, os.W_OK):
        yield Finding(
            "host",
            Verdict.PROBLEM,
            f"{settings.DATA_DIR} cannot be written to.",
            "Give it to the user that runs HotSwap.",
        )


def _parts() -> Iterator[Finding]:
    for part in server_status().parts:
        if part.state == State.OK:
            yield Finding(part.name, Verdict.OK, part.detail)
        else:
            is_problem = part.state == State.DOWN
            yield Finding(
                part.name,
                Verdict.PROBLEM if is_problem else Verdict.WARNING,
                part.detail,
                ADVICE.get(part.name, ""),
            )


CHECKS: Final[tuple[Callable[[], Iterator[Finding]], ...]] = (
    *(_settings, _secrets, _database, _redis, _proxy, _hosts, _host),
)
