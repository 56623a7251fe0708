"""Devices and people that speak to a running HotSwap over HTTP."""

import contextlib
import secrets
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.deployments.world import EVERY_WARNING
from tests.history import Witness, faults_in, read_history
from tests.live import LiveStack
from tests.waiting import wait_until

WORDS = ("downloading", "verifying", "installing", "rebooting")


@dataclass
class LiveAdmin:
    """The first Admin of a stack, logged in."""

    stack: LiveStack
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(
            base_url=f"{self.stack.url}/api/v1",
            timeout=120,
            transport=httpx.HTTPTransport(retries=3),
        )
        self.log_in()

    def log_in(self) -> None:
        """Get a token, which is good for 15 minutes."""
        answer = self.client.post(
            "/auth/token",
            json={
                "username": self.stack.admin_username,
                "password": self.stack.admin_password,
            },
        )
        self.client.headers["Authorization"] = f"Bearer {answer.json()['access']}"

    def get(self, path: str) -> Any:
        answer = self.client.get(path)
        if answer.status_code == 401:
            self.log_in()
            answer = self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Any, status: int = 201) -> Any:
        if path == "/deployments":
            body = {"acknowledge": EVERY_WARNING, **body}
        answer = self.client.post(path, json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def upload(self, model: str, version: str, content: bytes) -> dict[str, Any]:
        """Upload an image and approve it."""
        answer = self.client.post(
            "/firmware",
            files={"file": ("image", content)},
            data={"model": model, "version": version},
        )
        assert answer.status_code == 201, answer.text
        approved: dict[str, Any] = self.post(
            f"/firmware/{answer.json()['id']}/approve", {"comment": "tested"}, 200
        )
        return approved

    def register(self, model: str, count: int, runs: dict[str, Any]) -> list[Any]:
        """Register devices under fresh names."""
        prefix = f"live-{secrets.token_hex(3)}"
        return [
            LiveDevice(
                self.stack,
                f"{prefix}-{index}",
                self.post(
                    "/devices", {"deviceId": f"{prefix}-{index}", "model": model}
                )["apiKey"],
                runs["version"],
                runs["checksum"],
            )
            for index in range(count)
        ]


@dataclass
class LiveDevice:
    """One device that does an honest step each time it is asked to."""

    stack: LiveStack
    name: str
    api_key: str
    version: str
    checksum: str
    boot_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    order: dict[str, Any] | None = None
    sequence: int = 0
    words: list[str] = field(default_factory=list)
    words_said: list[str] = field(default_factory=list)
    orders_seen: list[str] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)
    acknowledged: list[tuple[str, int, str]] = field(default_factory=list)
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.ran.append(self.checksum)
        self.client = httpx.Client(base_url=f"{self.stack.url}/api/v1", timeout=120)
        answer = self.client.post(
            "/auth/device-token", json={"deviceId": self.name, "apiKey": self.api_key}
        )
        self.client.headers["Authorization"] = f"Bearer {answer.json()['access']}"

    def beat(self, error_rate: float = 0.0) -> None:
        answer = self.client.post(
            f"/devices/{self.name}/health",
            json={
                "cpuUsage": 3.0,
                "memoryUsage": 10.0,
                "uptime": 5,
                "bootId": self.boot_id,
                "firmwareVersion": self.version,
                "firmwareChecksum": self.checksum,
                "applicationMetrics": {"errorRate": error_rate},
            },
        )
        assert answer.status_code == 200, answer.text

    def poll(self) -> None:
        answer = self.client.get(f"/devices/{self.name}/update")
        assert answer.status_code in (200, 204), answer.text
        if answer.status_code == 200:
            order = answer.json()
            if self.order is None or order["updateId"] != self.order["updateId"]:
                self.order = order
                self.sequence = 0
                self.words = [*WORDS, "confirming"]
                self.words_said = []
                self.orders_seen.append(order["updateId"])

    def wait_for_order(self) -> None:
        """Ask for work until there is some."""

        def has_order() -> bool:
            self.poll()
            return self.order is not None

        wait_until(has_order, what=f"an order for {self.name}")

    def report(self, status: str, error_code: str = "") -> int:
        assert self.order is not None
        self.sequence += 1
        return self.report_again(status, error_code)

    def fail(self, error_code: str) -> None:
        """Take the order, and say that it failed here."""
        self.wait_for_order()
        assert self.report("failed", error_code) == 200
        self.words = []

    def report_again(self, status: str, error_code: str = "") -> int:
        """Report under the sequence of the last time."""
        assert self.order is not None
        update_id = self.order["updateId"]
        code = self.client.post(
            f"/devices/{self.name}/updates/{update_id}/reports",
            json={
                "sequence": self.sequence,
                "status": status,
                "bootId": self.boot_id,
                **({"errorCode": error_code} if error_code else {}),
            },
        ).status_code
        if code == 200:
            self.acknowledged.append((update_id, self.sequence, status))
        return code

    def reboot(self) -> None:
        """Come up with the image of the order."""
        assert self.order is not None
        self.boot_id = str(uuid.uuid4())
        self.version = self.order["firmware"]["version"]
        self.checksum = self.order["firmware"]["checksum"]
        self.ran.append(self.checksum)

    def step(self) -> None:
        """Send a heartbeat, poll, and say the next word of the order at hand."""
        self.beat()
        self.poll()
        if self.order is None or not self.words:
            return
        word = self.words.pop(0)
        if word == "confirming":
            self.reboot()
            self.beat()
        assert self.report(word) == 200

    def step_or_leave(self) -> None:
        """Do the next step, or leave it for the next time if the server is away.

        The same word is said again under the same sequence until it is acknowledged.
        """
        try:
            self.beat()
            self.poll()
            if self.order is None or not self.words:
                return
            if self.sequence < len(self.words_said) + 1:
                if self.words[0] == "confirming":
                    self.reboot()
                self.sequence += 1
            if self.words[0] == "confirming":
                self.beat()
            if self.report_again(self.words[0]) == 200:
                self.words_said.append(self.words.pop(0))
        except (httpx.HTTPError, AssertionError):
            # Cut off in an answer, or told 5xx by a server that lacks a part.
            return


@contextlib.contextmanager
def living(devices: list[LiveDevice]) -> Iterator[None]:
    """Let devices do their work beside the browser."""
    is_over = threading.Event()

    def live() -> None:
        while not is_over.wait(0.2):
            for device in devices:
                device.step_or_leave()

    thread = threading.Thread(target=live)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def assert_right_history(
    stack: LiveStack, deployment: str, devices: list[LiveDevice]
) -> None:
    """Look for what must never be in a history; see `tests.history`."""
    history = read_history(stack.state()["database_url"], deployment)
    assert history.orders
    assert faults_in(history, witnesses_of(devices)) == []


def witnesses_of(devices: list[LiveDevice]) -> dict[str, Witness]:
    """Ask the devices what they know."""
    return {
        device.name: Witness(
            tuple(device.ran), tuple(device.acknowledged), tuple(device.orders_seen)
        )
        for device in devices
    }
