"""Devices that fetch and check what they install, and the deployment they are in."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.campaign import OUTCOME
from tests.deployments.fleet import FINAL, Rollout, at_work
from tests.deployments.live import LiveAdmin, LiveDevice, witnesses_of
from tests.history import faults_in, read_history
from tests.waiting import wait_until

REQUEST_SECONDS = 20
# A stage, its wait and its proofs, and twice the fault.
PATIENCE_SECONDS = 300
LOST = "was acknowledged and is not stored"


@dataclass
class ChaosDevice(LiveDevice):
    """A device that installs nothing but the image of its order, byte by byte.

    Attributes:
        mixes: sends reports again, and former ones late, by this chance.
        wrong_images: digests of what was fetched and refused.
    """

    mixes: random.Random | None = None
    wrong_images: list[str] = field(default_factory=list)
    _fetched: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.client.timeout = httpx.Timeout(REQUEST_SECONDS)

    def step_or_leave(self) -> None:
        if self._wants_image() and not self._fetch():
            with suppress(httpx.HTTPError, AssertionError):
                self.beat()
            return
        said = len(self.words_said)
        super().step_or_leave()
        if self.mixes is not None and len(self.words_said) > said:
            with suppress(httpx.HTTPError):
                self._repeat(self.mixes)

    def _wants_image(self) -> bool:
        return (
            self.order is not None
            and bool(self.words)
            and self.words[0] == "verifying"
            and self._fetched != self.order["updateId"]
        )

    def _fetch(self) -> bool:
        assert self.order is not None
        firmware = self.order["firmware"]
        path = urlsplit(firmware["downloadUrl"]).path
        try:
            answer = self.client.get(f"{self.stack.url}{path}")
        except httpx.HTTPError:
            return False
        if answer.status_code != 200:
            return False
        digest = hashlib.sha256(answer.content).hexdigest()
        if digest != firmware["checksum"]:
            self.wrong_images.append(digest)
            return False
        self._fetched = self.order["updateId"]
        return True

    def _repeat(self, chance: random.Random) -> None:
        """Send what was said before once more, in an order of chance."""
        assert self.order is not None
        said = list(enumerate(self.words_said, 1))
        for sequence, word in chance.sample(said, chance.randint(0, len(said))):
            update_id = self.order["updateId"]
            answer = self.client.post(
                f"/devices/{self.name}/updates/{update_id}/reports",
                json={"sequence": sequence, "status": word, "bootId": self.boot_id},
            )
            if answer.status_code == 200:
                self.acknowledged.append((update_id, sequence, word))


@dataclass
class ChaosAdmin(LiveAdmin):
    """An Admin whose devices fetch what they install."""

    def register(self, model: str, count: int, runs: dict[str, Any]) -> list[Any]:
        return [
            ChaosDevice(
                each.stack, each.name, each.api_key, each.version, each.checksum
            )
            for each in super().register(model, count, runs)
        ]

    def try_post(self, path: str, body: Any) -> int:
        """Send a request that may be refused, and return the status; 0 for none."""
        try:
            return self.client.post(path, json=body).status_code
        except httpx.HTTPError:
            return 0


@contextmanager
def fresh_rollout(admin: ChaosAdmin, count: int) -> Iterator[Rollout]:
    """Launch a canary whose devices are at work."""
    admin.log_in()
    with at_work(Rollout(admin, count)) as rollout:
        yield rollout


def help_on(admin: ChaosAdmin, rollout: Rollout) -> None:
    """Have an image that was taken for damaged looked at again, and go on."""
    own = rollout.ledger.deployment
    if rollout.ledger.status() == "Paused":
        firmware = rollout.ledger.ask(
            "SELECT firmware_id::text FROM deployments_deployment WHERE id = %s", own
        )
        admin.try_post(f"/firmware/{firmware}/verify", {})
        admin.try_post(f"/deployments/{own}/resume", {"reason": "it is whole"})


def end(admin: ChaosAdmin, rollout: Rollout, may_look_damaged: bool) -> None:
    """Wait for the end, which must be the right one, reached the right way.

    Args:
        may_look_damaged: the image may have been taken for damaged.
    """
    own = rollout.ledger.deployment

    def has_ended() -> bool:
        if may_look_damaged:
            help_on(admin, rollout)
        return rollout.ledger.status() in FINAL

    wait_until(has_ended, seconds=PATIENCE_SECONDS, what=f"the end of {own}")
    assert rollout.ledger.status() == "Completed"
    for device in rollout.devices:
        assert len(device.orders_seen) == 1, f"{device.name} had several orders"
        assert isinstance(device, ChaosDevice)
        assert device.wrong_images == [], f"{device.name} was given another image"
    check(rollout)


def check(rollout: Rollout) -> None:
    """Have the history checked, and count what was acknowledged and what was lost."""
    address = rollout.admin.stack.state()["database_url"]
    history = read_history(address, rollout.ledger.deployment)
    found = faults_in(history, witnesses_of(rollout.devices))
    OUTCOME.counts["reports acknowledged"] += sum(
        len(each.acknowledged) for each in rollout.devices
    )
    OUTCOME.counts["of these lost"] += sum(LOST in each for each in found)
    OUTCOME.counts["devices proved"] += sum(
        each.status == "success" for each in history.targets
    )
    assert history.orders
    assert found == []
