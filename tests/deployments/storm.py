"""Many devices whose reports arrive doubled, late and out of order."""

import random
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

from tests.deployments.agents import QUICK_CRITERIA, new_model
from tests.deployments.fleet import FINAL, Ledger
from tests.deployments.live import LiveAdmin
from tests.history import Witness, faults_in, read_history
from tests.waiting import wait_until

AT_ONCE = 12
COPIES = (1, 1, 2, 3)
LATE_SHARE = 0.2
FAILING_SHARE = 0.1
WORDS = ("downloading", "verifying", "installing", "rebooting")
RETRIED = (429, 500, 502, 503, 504)

T = TypeVar("T")


@dataclass
class StormDevice:
    """One device; its reports are sent by many hands at once."""

    name: str
    model: str
    version: str
    checksum: str
    fails: bool
    headers: dict[str, str] = field(default_factory=dict)
    boot_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    order: dict[str, Any] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    acknowledged: list[tuple[str, int, str]] = field(default_factory=list)

    @property
    def end(self) -> tuple[int, str]:
        """The report that decides: the one with the highest sequence."""
        return (2, "failed") if self.fails else (len(WORDS) + 1, "confirming")

    @property
    def beginning(self) -> list[tuple[int, str]]:
        """The reports before that one."""
        return list(enumerate(WORDS[:1] if self.fails else WORDS, 1))


@dataclass
class Storm:
    """A deployment on many devices, one in ten of which will say that it failed."""

    admin: LiveAdmin
    count: int
    chance: random.Random
    devices: list[StormDevice] = field(init=False)
    ledger: Ledger = field(init=False)
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(
            base_url=f"{self.admin.stack.url}/api/v1",
            timeout=60,
            limits=httpx.Limits(max_connections=AT_ONCE),
        )
        model = new_model(self.admin)
        old = self.admin.upload(model, "1.0.0", b"old" * 1000)
        new = self.admin.upload(model, "2.0.0", b"new" * 1000)
        prefix = f"storm-{uuid.uuid4().hex[:6]}"
        failing = int(self.count * FAILING_SHARE)
        self.devices = [
            StormDevice(
                f"{prefix}-{index}",
                model,
                old["version"],
                old["checksum"],
                fails=index < failing,
                ran=[old["checksum"]],
            )
            for index in range(self.count)
        ]
        self.each(self._join, self.devices)
        launched = self.admin.post(
            "/deployments",
            {
                "firmwareId": new["id"],
                "strategy": "Direct",
                "targetDevices": [device.name for device in self.devices],
                "healthThreshold": 50,
                "maxAttempts": 1,
                **QUICK_CRITERIA,
            },
        )
        self.ledger = Ledger(self.admin.stack, launched["id"])

    def each(self, do: Callable[[T], Any], items: Iterable[T]) -> None:
        """Do something with each item, several at once, in their order."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(do, items))

    def _send(self, device: StormDevice, method: str, path: str, body: Any) -> Any:
        """Send until the server takes it; give the answer."""

        def answer() -> httpx.Response | None:
            try:
                found = self.client.request(
                    method, path, json=body, headers=device.headers
                )
            except httpx.HTTPError:
                return None
            return None if found.status_code in RETRIED else found

        found = wait_until(answer, what=f"an answer to {device.name}")
        assert found is not None
        assert found.status_code in (200, 201, 204), found.text
        return found.json() if found.content else {}

    def _join(self, device: StormDevice) -> None:
        registered = self.admin.post(
            "/devices", {"deviceId": device.name, "model": device.model}
        )
        token = self._send(
            device,
            "POST",
            "/auth/device-token",
            {"deviceId": device.name, "apiKey": registered["apiKey"]},
        )
        device.headers["Authorization"] = f"Bearer {token['access']}"
        self._beat(device)

    def _beat(self, device: StormDevice) -> None:
        self._send(
            device,
            "POST",
            f"/devices/{device.name}/health",
            {
                "cpuUsage": 3.0,
                "memoryUsage": 10.0,
                "uptime": 5,
                "bootId": device.boot_id,
                "firmwareVersion": device.version,
                "firmwareChecksum": device.checksum,
                "applicationMetrics": {"errorRate": 0.0},
            },
        )

    def _poll(self, device: StormDevice) -> None:
        device.order = wait_until(
            lambda: self._send(device, "GET", f"/devices/{device.name}/update", None),
            what=f"an order for {device.name}",
        )

    def _report(self, item: tuple[StormDevice, tuple[int, str]]) -> None:
        device, (sequence, word) = item
        order = device.order["updateId"]
        body = {"sequence": sequence, "status": word}
        if word == "failed":
            body |= {"errorCode": "signature_invalid", "message": "it does not verify"}
        elif word == "confirming":
            body["bootId"] = device.boot_id
        self._send(
            device, "POST", f"/devices/{device.name}/updates/{order}/reports", body
        )
        device.acknowledged.append((order, sequence, word))

    def _reboot(self, device: StormDevice) -> None:
        if not device.fails:
            device.boot_id = str(uuid.uuid4())
            device.version = device.order["firmware"]["version"]
            device.checksum = device.order["firmware"]["checksum"]
            device.ran.append(device.checksum)
        self._beat(device)

    def run(self) -> None:
        """Send everything: what comes early, what decides, and what comes late.

        Each report is sent up to three times, and any copy may come only after the
        one that decides.
        """
        self.each(self._poll, self.devices)
        early: list[tuple[StormDevice, tuple[int, str]]] = []
        late: list[tuple[StormDevice, tuple[int, str]]] = []
        for device in self.devices:
            for report in device.beginning:
                for _ in range(self.chance.choice(COPIES)):
                    is_late = self.chance.random() < LATE_SHARE
                    (late if is_late else early).append((device, report))
            late += [(device, device.end)] * (self.chance.choice(COPIES) - 1)
        self.chance.shuffle(early)
        self.chance.shuffle(late)
        self.each(self._report, early)
        self.each(self._reboot, self.devices)
        self.each(self._report, [(device, device.end) for device in self.devices])
        self.each(self._report, late)
        wait_until(self._has_ended, seconds=120, what="the end of the storm")
        self.client.close()

    def _has_ended(self) -> bool:
        self.each(self._beat, self.devices)
        return self.ledger.status() in FINAL

    def check(self) -> None:
        """Compare the end with what the reports alone say it must be."""
        stack = self.admin.stack
        history = read_history(stack.state()["database_url"], self.ledger.deployment)
        assert history.deployment.status == "Completed"
        assert {each.device: each.status for each in history.targets} == {
            device.name: "failed" if device.fails else "success"
            for device in self.devices
        }
        sent = sum(len(device.acknowledged) for device in self.devices)
        assert len(history.reports) == sent
        witnesses = {
            device.name: Witness(
                tuple(device.ran),
                tuple(device.acknowledged),
                (device.order["updateId"],),
            )
            for device in self.devices
        }
        assert faults_in(history, witnesses) == []
