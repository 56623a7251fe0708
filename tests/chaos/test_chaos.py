"""Faults of all kinds, drawn from `SEED`, one after the other on one site.

`FAULTS` says how many, `DEVICES` how many devices each of them meets, and `MINUTES`
after how many minutes the rest is left out. Each fault strikes amid a deployment at a
moment of chance; afterwards the deployment must come to its right end, and the history
is checked. With `EACH=3` a deployment meets three faults, one after the other.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotswap.stack.ticks import last_tick
from tests.campaign import OUTCOME, SEED, campaigns_of, is_wanted
from tests.chaos.fleet import ChaosAdmin, end, fresh_rollout, help_on
from tests.chaos.kinds import KINDS, Scene, draw
from tests.chaos.silence import Silence
from tests.chaos.site import Site, running_site
from tests.deployments.fleet import FINAL
from tests.waiting import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.stack]

FAULTS = int(os.environ.get("FAULTS") or 100)
DEVICES = int(os.environ.get("DEVICES") or 8)
EACH = int(os.environ.get("EACH") or 1)
MINUTES = float(os.environ.get("MINUTES") or 24 * 60)
TAKEOVER_SECONDS = 10.0
BEGAN = time.monotonic()
KIND_NAMES = draw(SEED, FAULTS)
CASES = [
    f"{'+'.join(KIND_NAMES[number : number + EACH])}:{number}"
    for number in range(0, FAULTS, EACH)
]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    OUTCOME.again = f"make chaos SEED={SEED} FAULTS={FAULTS} EACH={EACH} CASE='{{}}'"
    with running_site() as running:
        yield running


@pytest.fixture(scope="module")
def admin(site: Site) -> ChaosAdmin:
    return ChaosAdmin(site.entrance)


@pytest.mark.parametrize("case", CASES)
def test_site_survives(
    site: Site, admin: ChaosAdmin, case: str, tmp_path: Path
) -> None:
    if not is_wanted(case):
        return
    names = [name for name in campaigns_of(case) if not KINDS[name].missing]
    OUTCOME.left_out.update(set(campaigns_of(case)) - set(names))
    if not names or time.monotonic() - BEGAN > 60 * MINUTES:
        OUTCOME.left_out.update(names)
        pytest.skip("it cannot be tried here, or no time is left")
    chance = OUTCOME.chance_of(case)
    with OUTCOME.trying(case):
        site.be_whole()
        with (
            fresh_rollout(admin, DEVICES) as rollout,
            Silence(site.direct_url) as silence,
        ):
            scene = Scene(site, admin, rollout, chance, tmp_path)
            # A deployment writes six lines of each device and a handful of its own.
            looks_damaged = False
            so_far, most = 0, 5 * DEVICES // len(names)
            for name in names:
                so_far = max(so_far, rollout.ledger.lines()) + chance.randint(1, most)
                wait_until(
                    lambda: has_come_to(scene, so_far, looks_damaged),  # noqa: B023
                    what="the moment of the fault",
                )
                looks_damaged |= KINDS[name].may_look_damaged
                strike(name, scene, silence)
                OUTCOME.takeovers[f"{name}:{case}"] = silence.longest
            end(admin, rollout, looks_damaged)
        longest = max(OUTCOME.takeovers[f"{name}:{case}"] for name in names)
        assert longest <= TAKEOVER_SECONDS, "no tick for so many seconds"


def has_come_to(scene: Scene, lines: int, looks_damaged: bool) -> bool:
    """Tell whether the log of a deployment has so many lines, or it has ended."""
    ledger = scene.rollout.ledger
    if looks_damaged:
        help_on(scene.admin, scene.rollout)
    return ledger.lines() >= lines or ledger.status() in FINAL


def strike(name: str, scene: Scene, silence: Silence) -> None:
    """Let a fault strike, and wait for a tick after it."""
    kind, address = KINDS[name], scene.site.direct_url
    silence.begin()
    kind.strike(scene)
    # A host that an earlier fault has taken away leaves the other one alone.
    is_alone = any(each.stack.has_ended() for each in scene.site.hosts.values())
    if kind.is_shared or (is_alone and name != "host.lost"):
        silence.begin()
    ticked = last_tick(address)
    wait_until(
        lambda: last_tick(address) not in (None, ticked), what="a tick after the fault"
    )
