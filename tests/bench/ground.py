"""The running stack and its database, and what the benches ask of them.

Rules:
- The fleet is written by SQL, because a million registrations would take hours; each
  row is one that the services could have left.
- Tokens of devices are signed by the server's own code, instead of one login each.
- What is measured goes over HTTP, unless its bench says otherwise.
"""

import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from django.db import connection

from devices.models import Device
from hotswap.common.models import User
from hotswap.common.tokens import DeviceToken, person_access_token
from hotswap.stack.stack import Stack
from tests.bench.scale import Scale
from tests.bench.wire import Answer, Wire
from tests.live import ADMIN_USERNAME
from tests.load.devices import build, send_devices

MODEL = "bench-sensor"
FORMER = "1.0.0"
IMAGE_BYTES = 64 * 1024
# Kept ones of the devices.
CONNECTIONS = 32
# What the devices' polls go by, in the words of the database.
OFFERABLE = """
    SELECT count(*) FROM deployments_target t
    JOIN deployments_deployment d ON d.id = t.deployment_id
    WHERE t.deployment_id = %s AND t.status = 'pending' AND d.status = 'Running'
      AND t.rank <= d.open_rank
      AND (t.next_attempt_at IS NULL OR t.next_attempt_at <= now())
"""
# Written again at once after the rows are in, as one index each.
DEVICE_TABLES = (
    "devices_device",
    "devices_firmwarerun",
    "devices_devicekey",
    "health_devicestate",
)
# They are written in rising order, so building all of them at the end is cheaper.
FIND_INDEXES = """
    SELECT indexname, indexdef FROM pg_indexes
    WHERE tablename = ANY(%s)
      AND indexname NOT IN (SELECT conname FROM pg_constraint)
      AND indexdef NOT LIKE '%%UNIQUE%%'
"""
FILL = (
    """
    INSERT INTO devices_device (
        id, created_at, updated_at, device_id, model_id, region, tags, metadata,
        enabled, firmware_version, firmware_checksum, previous_firmware_version,
        security_version
    )
    SELECT md5(%(seed)s || ' ' || n)::uuid, now(), now(),
           'bench-' || lpad(n::text, 7, '0'), %(model)s, %(region)s,
           jsonb_build_object('site', 'plant-' || n %% 500), '{}', true,
           %(version)s, %(checksum)s, '', 0
    FROM generate_series(%(first)s::int, %(last)s::int) AS n
    """,
)
FOLLOW = (
    """
    INSERT INTO devices_firmwarerun
        (device_id, version, checksum, firmware_id, since, how)
    SELECT id, firmware_version, firmware_checksum, %(firmware)s, now(), 'reported'
    FROM devices_device WHERE device_id LIKE 'bench-%%'
    """,
    """
    INSERT INTO devices_devicekey (device_id, digest, created_at, expires_at)
    SELECT id, encode(sha256(id::text::bytea), 'hex'), now(), now() + interval '90 days'
    FROM devices_device WHERE device_id LIKE 'bench-%%'
    """,
    """
    INSERT INTO health_devicestate (
        device_id, last_seen_at, online_until, last_heartbeat_at, interval_seconds,
        poll_interval_seconds,
        boot_id, boot_count, past_boots, refused_count, refused_reason, uptime_seconds,
        cpu_percent, memory_percent,
        error_ratio, application_metrics, secure_boot, firmware_version,
        firmware_checksum, image_since, verdict, verdict_reason, watch_checksum,
        watch_interval_seconds, healthy_since, healthy_count, breach, breach_detail,
        anomaly, baseline_since, baseline_samples,
        baseline_cpu_mean, baseline_cpu_variance,
        baseline_memory_mean, baseline_memory_variance, baseline_error_samples,
        baseline_error_mean, baseline_error_variance
    )
    SELECT id, now(), now() + interval '750 seconds', now(), 300, 60,
           'boot-' || device_id || '-1', 1, '[]', 0, '', 1000,
           4.5, 20, 0, '{"errorRate": 0.0}', 'unknown', firmware_version,
           firmware_checksum, now(), 'healthy', '', '',
           30, now(), 1, '', '', '', now(), 1, 4.5, 0, 20, 0, 1, 0, 0
    FROM devices_device WHERE device_id LIKE 'bench-%%'
    """,
)


class Ground:
    """One stack with its fleet, and the Admin who acts on it."""

    def __init__(self, stack: Stack, scale: Scale, seed: int, password: str) -> None:
        self.stack = stack
        self.scale = scale
        self.seed = seed
        self.password = password
        self.port = stack.port
        self.wire = Wire(stack.port)
        self.versions = iter(f"2.{n}.0" for n in range(10_000))
        self._token_made_at = 0.0
        self._token = ""
        self.former: dict[str, Any] = {}

    # --- people -------------------------------------------------------------------

    @property
    def token(self) -> str:
        """The Admin's; it lives for 15 minutes, and is made anew before its end."""
        if time.monotonic() - self._token_made_at > 600 or not self._token:
            user = User.objects.get(username=ADMIN_USERNAME)
            self._token = person_access_token(user)
            self._token_made_at = time.monotonic()
        return self._token

    def send(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> Answer:
        """Send one request of the Admin; an error of any kind ends the bench.

        Raises:
            RuntimeError: it was refused.
        """
        answer = self.wire.request(method, f"/api/v1{path}", self.token, body)
        if answer.status >= 300:
            raise RuntimeError(
                f"{method} {path}: {answer.status} {answer.body[:500]!r}"
            )
        return answer

    def get(self, path: str) -> Any:
        return self.send("GET", path).json()

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self.send("POST", path, body).json()

    def upload(self, version: str, content: bytes) -> dict[str, Any]:
        """Send an image."""
        import httpx

        answer = httpx.post(
            f"{self.stack.url}/api/v1/firmware",
            headers={"Authorization": f"Bearer {self.token}"},
            files={"file": ("image", content)},
            data={"model": MODEL, "version": version},
            timeout=120,
        )
        answer.raise_for_status()
        return dict(answer.json())

    def image(self, version: str | None = None) -> dict[str, Any]:
        """Send an image of 64 KiB with the next version, and approve it."""
        content = secrets.token_bytes(IMAGE_BYTES)
        uploaded = self.upload(version or next(self.versions), content)
        approved: dict[str, Any] = self.post(
            f"/firmware/{uploaded['id']}/approve", {"comment": "bench"}
        )
        return approved

    def launch(self, region: str, strategy: str, **fields: Any) -> dict[str, Any]:
        """Launch a deployment to a region, of a new image unless one is given."""
        firmware = fields.pop("firmware", None) or self.image()
        body = {
            "firmwareId": firmware["id"],
            "strategy": strategy,
            "regions": [region],
            # The devices say what they run; nobody has uploaded it.
            "acknowledge": [
                *("no_previous_image", "whole_fleet", "many_at_once"),
                *("previously_rolled_back", "downgrade"),
            ],
            **fields,
        }
        deployment: dict[str, Any] = self.post("/deployments", body)
        return deployment

    @contextmanager
    def launched(
        self, region: str, strategy: str, **fields: Any
    ) -> Iterator[dict[str, Any]]:
        """Launch a deployment that is cancelled at the end unless it has ended."""
        deployment = self.launch(region, strategy, **fields)
        try:
            yield deployment
        finally:
            self.cancel_quietly(deployment["id"])

    def cancel(self, deployment_id: str) -> None:
        self.post(f"/deployments/{deployment_id}/cancel", {"reason": "bench is over"})

    def cancel_quietly(self, deployment_id: str) -> None:
        """Cancel a deployment unless it goes back or has ended."""
        if self.status(deployment_id) in ("Running", "Paused"):
            self.cancel(deployment_id)

    # --- devices ------------------------------------------------------------------

    def devices(self, region: str, count: int | None = None) -> list[list[str]]:
        """Return name and token of the first devices of a region."""
        return self.devices_named(self.scale.names(region, count))

    def devices_named(self, names: list[str]) -> list[list[str]]:
        """Return name and token of some devices."""
        rows = Device.objects.filter(device_id__in=names).order_by("device_id")
        found = []
        for pk, name in rows.values_list("pk", "device_id"):
            token = DeviceToken()
            token["sub"] = str(pk)
            found.append([name, str(token)])
        return found

    def job(self, devices: list[list[str]], **fields: Any) -> dict[str, Any]:
        """Describe what a crowd has to do."""
        return {
            "port": self.port,
            "devices": devices,
            "version": FORMER,
            "checksum": self.former["checksum"],
            "threads": 8,
            "seconds": 600.0,
            "seed": self.seed,
            **fields,
        }

    def load(
        self, phase: str, devices: list[list[str]], **fields: Any
    ) -> dict[str, Any]:
        """Let devices do something over HTTP, and return what they saw.

        Raises:
            RuntimeError: something was answered otherwise than expected.
        """
        seen = send_devices(
            self.loader,
            {
                "url": self.stack.url,
                "phase": phase,
                "devices": [{"name": name, "token": token} for name, token in devices],
                "version": FORMER,
                "checksum": self.former["checksum"],
                "connections": CONNECTIONS,
                "giveUpSeconds": 120.0,
                "pollSeconds": 1.0,
                **fields,
            },
        )
        if seen["wrong"]:
            raise RuntimeError(f"unexpected answers: {compact(seen['wrong'])}")
        return seen

    @cached_property
    def loader(self) -> Path:
        return build()

    # --- the database -------------------------------------------------------------

    def fill(self) -> None:
        """Write the fleet: devices that run one image, have a key and were heard."""
        self.post("/device-models", {"name": MODEL})
        self.former = self.image(FORMER)
        values = {
            "seed": self.seed,
            "version": FORMER,
            "checksum": self.former["checksum"],
            "firmware": self.former["id"],
        }
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT id FROM firmware_devicemodel WHERE name = %s", [MODEL]
            )
            values["model"] = cursor.fetchone()[0]
            cursor.execute(FIND_INDEXES, [list(DEVICE_TABLES)])
            indexes = cursor.fetchall()
            for name, _ in indexes:
                cursor.execute(f'DROP INDEX "{name}"')
            first = 0
            for region, size in self.scale.sizes.items():
                for statement in FILL:
                    cursor.execute(
                        statement,
                        {
                            **values,
                            "region": region,
                            "first": first,
                            "last": first + size - 1,
                        },
                    )
                first += size
            for statement in FOLLOW:
                cursor.execute(statement, values)
            for _, definition in indexes:
                cursor.execute(definition)
            for name in DEVICE_TABLES:
                # What autovacuum does in the minutes after; a bench does not wait.
                cursor.execute(f"VACUUM (ANALYZE) {name}")

    def ask(self, statement: str, *values: Any) -> Any:
        """Return the first column of the first row."""
        with connection.cursor() as cursor:
            cursor.execute(statement, values)
            row = cursor.fetchone()
        return None if row is None else row[0]

    def count(self, deployment_id: str, *statuses: str) -> int:
        """Count the targets of a deployment in some statuses."""
        return int(
            self.ask(
                "SELECT count(*) FROM deployments_target"
                " WHERE deployment_id = %s AND status = ANY(%s)",
                deployment_id,
                list(statuses),
            )
        )

    def status(self, deployment_id: str) -> str:
        return str(
            self.ask(
                "SELECT status FROM deployments_deployment WHERE id = %s", deployment_id
            )
        )

    def settle(self) -> None:
        """Let the database write down what the last bench left in its memory."""
        with connection.cursor() as cursor:
            cursor.execute("CHECKPOINT")


def wait_for(
    condition: Callable[[], Any], *, seconds: float, what: str, every: float = 0.05
) -> float:
    """Wait until something holds; return how long that took.

    Raises:
        TimeoutError: it never did.
    """
    started = time.perf_counter()
    while not condition():
        if time.perf_counter() - started > seconds:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(every)
    return time.perf_counter() - started


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def percentile(values: list[float], part: float) -> float:
    """Return a percentile (0-1) of sorted values; 0 where there are none."""
    if not values:
        return 0.0
    return values[min(len(values) - 1, int(len(values) * part))]


def compact(seen: dict[str, Any]) -> str:
    return json.dumps(seen, sort_keys=True)
