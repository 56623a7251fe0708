"""A device that knows only what the API tells it."""

from dataclasses import dataclass
from typing import Any

from tests.bench.wire import Answer, Wire


@dataclass
class Device:
    """One device: what it is called, and what it runs."""

    wire: Wire
    name: str
    token: str
    version: str
    checksum: str
    boot: int = 1
    order: dict[str, Any] | None = None
    sequence: int = 0

    @property
    def boot_id(self) -> str:
        return f"boot-{self.name}-{self.boot}"

    def poll(self) -> Answer:
        return self.wire.request(
            "GET", f"/api/v1/devices/{self.name}/update", self.token
        )

    def beat(self, error_rate: float = 0.0) -> Answer:
        return self.wire.request(
            "POST",
            f"/api/v1/devices/{self.name}/health",
            self.token,
            {
                "cpuUsage": 4.5,
                "memoryUsage": 20.0,
                "uptime": 1000,
                "bootId": self.boot_id,
                "firmwareVersion": self.version,
                "firmwareChecksum": self.checksum,
                "applicationMetrics": {"errorRate": error_rate},
            },
        )

    def take(self, order: dict[str, Any]) -> None:
        """Begin with an order."""
        self.order, self.sequence = order, 0

    def download(self) -> Answer:
        assert self.order is not None
        path = self.order["firmware"]["downloadUrl"]
        answer = self.wire.request("GET", path, self.token)
        if answer.status == 200 and len(answer.body) != self.order["firmware"]["size"]:
            return Answer(0, b"")
        return answer

    def report(
        self, status: str, *, sequence: int | None = None, **fields: Any
    ) -> Answer:
        assert self.order is not None
        if sequence is None:
            self.sequence += 1
            sequence = self.sequence
        return self.wire.request(
            "POST",
            f"/api/v1/devices/{self.name}/updates/{self.order['updateId']}/reports",
            self.token,
            {
                "sequence": sequence,
                "status": status,
                "bootId": self.boot_id,
                **fields,
            },
        )

    def reboot(self) -> None:
        """Come up with the image of the order."""
        assert self.order is not None
        self.boot += 1
        self.version = self.order["firmware"]["version"]
        self.checksum = self.order["firmware"]["checksum"]
