"""The power fails at every write, flush and rename; the device comes back rightly.

A way of a device is first run once to see which points it passes and how often. Then
each passage is a case: the agent dies there, the disk is looked at, the device is
started again and must come to its right end. It dies in three manners:

- `kill`: by SIGKILL alone, so that the disk holds all that was written.
- `cut`: all that was not flushed is lost.
- `torn`: of that, a part is lost by chance; see `medium`.

Twice: it dies again, by chance, while it recovers.
"""

import json
import math
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from devices.agent.store import decode
from tests.campaign import OUTCOME, SEED, TRIES_ALL, is_wanted
from tests.devices.agent import medium
from tests.devices.agent.device_process import (
    CRASHING_PROGRAM,
    GOOD_PROGRAM,
    DeviceProcess,
    program,
    sha256,
)
from tests.devices.agent.machine import Machine, system_image
from tests.devices.agent.protocol_server import (
    ProtocolServer,
    Signer,
    serving,
    write_keys,
)
from tests.waiting import wait_until

SIDE_BY_SIDE = 6
MAX_PASSAGES = 3
MANNERS = ("kill", "cut", "torn")
TWICE_PER_WAY = 12
CAMPAIGN_SECONDS = 10 * 60.0
DAY = 86400.0
SECONDS = 60

FACTORY = program("1.0.0")
FORMER = program("2.0.0")
GOOD = program("3.0.0")
BAD = program("4.0.0", source=CRASHING_PROGRAM)
SILENT = program("5.0.0", source=GOOD_PROGRAM.replace("os.replace(", "(lambda *_: 0)("))
GOOD_SYSTEM = system_image("2.0.0")
BROKEN_SYSTEM = system_image("3.0.0", boots=False)
SICK_SYSTEM = system_image("4.0.0", is_healthy=False)


@dataclass
class Run:
    """A device in one case, with a server of its own."""

    folder: Path
    server: ProtocolServer
    keys: list[Path]
    template: Path
    update_id: str = ""
    was_cut: bool = False
    machine: Machine | None = None
    device: DeviceProcess = field(init=False)

    def __post_init__(self) -> None:
        self.device = DeviceProcess(self.folder / "device", self.server, self.keys)

    def start(self, *, crash_at: str = "", manner: str = "", trail: str = "") -> None:
        """Switch the device on; it dies at a passage in a manner, if one is given."""
        device = self.device
        device.module = (
            "tests.devices.agent.medium" if manner or trail else ("devices.agent")
        )
        device.environment = {medium.TRAIL: trail} if trail else {}
        if manner not in ("", "kill"):
            device.environment[medium.MANNER] = manner
        if self.machine is not None:
            self.machine.start(crash_at=crash_at)
        else:
            device.start(crash_at=crash_at)

    def fail_power(self) -> bool:
        """After a death, put the disk in place that the cut has left, if there is one.

        Returns whether there is.
        """
        folder = self.device.folder
        left = folder.with_name(folder.name + medium.SUFFIX)
        if not left.exists():
            return False
        shutil.rmtree(folder)
        left.rename(folder)
        self.was_cut = True
        if self.machine is not None:
            self.machine.boot()
        return True

    def has_rebooted(self) -> bool:
        """Say whether the agent has ended by a reboot that it asked for."""
        return self.machine is not None and (self.folder / "machine/rebooted").exists()


@dataclass(frozen=True)
class Way:
    """One way of a device through some of the points.

    Attributes:
        prepare: brings the device to where the way begins.
        has_ended: whether the device, switched on, has come to an end.
        check_end: that the end is the right one.
        may_run: the images that may ever be executed.
        prefixes: of the points that are tried, all if there are none.
        is_variant: most of it is tried in another way, so that each point is tried in
            one manner only, by chance.
    """

    name: str
    prepare: Callable[[Run], None]
    has_ended: Callable[[Run], bool]
    check_end: Callable[[Run], None]
    may_run: tuple[bytes, ...] = ()
    may_be_bare: bool = False
    prefixes: tuple[str, ...] = ()
    is_variant: bool = False


# What a disk must hold at any time


def check_disk(way: Way, run: Run) -> None:
    """What would boot is whole, nothing else ever ran, the state is old or new."""
    device = run.device
    verified = {sha256(image) for image in way.may_run}
    state = device.data / "state.json"
    assert not state.with_name("state.json.damaged").exists(), "a damaged state"
    if state.exists():
        decode(state.read_bytes())
    if run.machine is not None:
        running = run.machine.image_in(run.machine.running())
        assert sha256(running) in verified
        return
    current = device.data / "current"
    if current.is_symlink() or not way.may_be_bare:
        record = json.loads((current / "record.json").read_text())
        assert device.current_sha256() == record["sha256"]
        assert record["sha256"] in verified
    assert set(device.executed()) <= verified, "something else was executed"
    if not device.enrols:
        files = (device.key_file, device.key_file.with_name("api-key.next"))
        held = {path.read_text() for path in files if path.exists()}
        assert held & set(run.server.keys_of(device.device_id)), "no key logs in"


# Ends


def settled_on(image: bytes) -> Callable[[Run], bool]:
    def has_ended(run: Run) -> bool:
        beats = run.server.heartbeats_of(run.device.device_id)
        return (
            bool(beats)
            and beats[-1]["firmwareChecksum"] == sha256(image)
            and beats[-1]["applicationMetrics"].get("applicationRunning") == 1
            and run.device.device_id not in run.server.orders
            and run.device.state_phase() == "idle"
        )

    return has_ended


def ends_on(image: bytes, status: str = "") -> Callable[[Run], None]:
    def check_end(run: Run) -> None:
        assert run.device.current_sha256() == sha256(image)
        if status:
            statuses = run.server.statuses(run.update_id)
            other = {"confirming": "failed", "failed": "confirming"}[status]
            assert status in statuses
            assert other not in statuses

    return check_end


def has_one_key(run: Run) -> bool:
    device = run.device
    next_key = device.key_file.with_name("api-key.next")
    return (
        device.key_file.exists()
        and run.server.keys_of(device.device_id) == [device.key_file.read_text()]
        and not next_key.exists()
        and bool(run.server.heartbeats)
    )


def has_renewed(run: Run) -> bool:
    return (
        has_one_key(run)
        and run.server.key_ends_in_seconds is not None
        and (run.device.key_file.read_text() != "key-of-the-device")
    )


def has_enrolled(run: Run) -> bool:
    return has_one_key(run) and not (run.device.data / "enrolment-secret").exists()


def check_one_secret(run: Run) -> None:
    assert len({each["secret"] for each in run.server.enrolments}) == 1


def machine_has_settled(run: Run) -> bool:
    assert run.machine is not None
    return (
        run.machine.device_id not in run.server.orders
        and run.device.state_phase() == "idle"
    )


def system_ends_on(image: bytes) -> Callable[[Run], None]:
    def check_end(run: Run) -> None:
        assert run.machine is not None
        running = run.machine.image_in(run.machine.running())
        status = run.server.statuses(run.update_id)[-1]
        assert run.machine.variables()["tries_left"] == "0"
        if status == "confirming":
            assert image == GOOD_SYSTEM
            assert running == GOOD_SYSTEM
            assert run.machine.variables()["boot_slot"] == run.machine.running()
        else:
            # A try that the power cut into before it was confirmed has fallen back.
            assert status == "failed"
            assert run.was_cut or image != GOOD_SYSTEM
            assert running == run.machine.factory

    return check_end


# Beginnings


def from_nothing(run: Run) -> None:
    run.device.provision()


def from_two_slots(
    image: bytes, version: str, **order: str | bool
) -> Callable[[Run], None]:
    """Run 2.0.0, keep 1.0.0, and be ordered to this image."""

    def prepare(run: Run) -> None:
        shutil.copytree(run.template, run.device.folder, symlinks=True)
        run.device.limits = {"first_metrics_seconds": 0.5}
        if image is not SILENT:
            # On a busy machine the first metrics of a good program take their time.
            run.device.limits = {}
        run.device.provision()
        run.update_id = run.server.order(
            run.device.device_id,
            image,
            version,
            sequence=1000,
            **order,  # type: ignore[arg-type]
        )

    return prepare


def with_cut_download(run: Run) -> None:
    from_two_slots(GOOD, "3.0.0")(run)
    run.server.faults.cut_download_at = 9_000
    run.server.faults.flip_downloads = 1
    run.server.faults.flip_at = 10_000


def with_old_key(run: Run) -> None:
    run.device.provision()
    run.server.key_ends_in_seconds = DAY


def with_unknown_next_key(run: Run) -> None:
    run.device.provision()
    run.device.key_file.with_name("api-key.next").write_text("unknown")


def with_token(run: Run) -> None:
    run.device.enrols = True
    run.device.provision()


def on_machine(image: bytes, version: str) -> Callable[[Run], None]:
    def prepare(run: Run) -> None:
        run.machine = Machine(run.folder / "machine", run.server, run.keys)
        run.machine.provision()
        run.device = run.machine.device
        run.update_id = run.server.order("device-1", image, version)

    return prepare


SLOTS = (FACTORY, FORMER)
FALL_BACK = (
    "try.",
    "store.trying.",
    "store.reverting.",
    "store.failing.",
    "fall_back.",
    "failure.",
)
WAYS = (
    Way(
        "provisioning",
        from_nothing,
        settled_on(FACTORY),
        ends_on(FACTORY),
        (FACTORY,),
        may_be_bare=True,
    ),
    Way(
        "update",
        from_two_slots(GOOD, "3.0.0"),
        settled_on(GOOD),
        ends_on(GOOD, "confirming"),
        (*SLOTS, GOOD),
    ),
    Way(
        "update-without-reboot",
        from_two_slots(GOOD, "3.0.0", reboot_required=False),
        settled_on(GOOD),
        ends_on(GOOD, "confirming"),
        (*SLOTS, GOOD),
        is_variant=True,
    ),
    Way(
        "resumed-download",
        with_cut_download,
        settled_on(GOOD),
        ends_on(GOOD, "confirming"),
        (*SLOTS, GOOD),
        is_variant=True,
    ),
    Way(
        "fall-back-from-end",
        from_two_slots(BAD, "4.0.0"),
        settled_on(FORMER),
        ends_on(FORMER, "failed"),
        (*SLOTS, BAD),
        prefixes=FALL_BACK,
    ),
    Way(
        "fall-back-from-silence",
        from_two_slots(SILENT, "5.0.0"),
        settled_on(FORMER),
        ends_on(FORMER, "failed"),
        (*SLOTS, SILENT),
        is_variant=True,
    ),
    Way(
        "rollback",
        from_two_slots(FACTORY, "1.0.0", action="rollback"),
        settled_on(FACTORY),
        ends_on(FACTORY, "confirming"),
        SLOTS,
        is_variant=True,
    ),
    Way(
        "key-renewal",
        with_old_key,
        has_renewed,
        lambda run: None,
        (FACTORY,),
        may_be_bare=True,
        prefixes=("rotate.",),
    ),
    Way(
        "unknown-key",
        with_unknown_next_key,
        has_one_key,
        lambda run: None,
        (FACTORY,),
        may_be_bare=True,
        prefixes=("rotate.",),
    ),
    Way(
        "enrolment",
        with_token,
        has_enrolled,
        check_one_secret,
        (FACTORY,),
        may_be_bare=True,
        prefixes=("enrol.",),
    ),
    Way(
        "hooks",
        on_machine(GOOD_SYSTEM, "2.0.0"),
        machine_has_settled,
        system_ends_on(GOOD_SYSTEM),
        (system_image("1.0.0"), GOOD_SYSTEM),
    ),
    Way(
        "hooks-that-fall-back",
        on_machine(SICK_SYSTEM, "4.0.0"),
        machine_has_settled,
        system_ends_on(SICK_SYSTEM),
        (system_image("1.0.0"), SICK_SYSTEM),
        is_variant=True,
    ),
    Way(
        "boot-loader-falls-back",
        on_machine(BROKEN_SYSTEM, "3.0.0"),
        machine_has_settled,
        system_ends_on(BROKEN_SYSTEM),
        (system_image("1.0.0"),),
        is_variant=True,
    ),
)
WAY = {way.name: way for way in WAYS}
# One for each kind of file that must survive: the rest is for the campaign.
CHOSEN = {
    "provisioning": ("install.record.renamed#1:cut", "switch.link_renamed#1:cut"),
    "update": (
        "store.installing.renamed#1:torn",
        "install.image_renamed#1:cut",
        "switch.link_renamed#1:torn",
    ),
    "key-renewal": ("rotate.key.renamed#1:cut", "rotate.taken_into_use#1:torn"),
    "enrolment": ("enrol.secret.renamed#1:cut", "enrol.secret_removed#1:cut"),
    "hooks": ("hooks.installed.renamed#1:cut",),
}


@dataclass
class Workshop:
    """Makes runs."""

    signer: Signer
    template: Path
    folder: Path

    def make(self, way: Way, name: str) -> Run:
        folder = self.folder / name.replace(":", "-").replace("#", "-")
        server = ProtocolServer(self.signer)
        server.start()
        keys = write_keys(folder / "keys", self.signer)
        run = Run(folder, server, keys, self.template)
        way.prepare(run)
        return run

    def passages(self, way: Way) -> Counter[str]:
        """Run a way undisturbed; give each point with the most passages in a boot."""
        run = self.make(way, f"{way.name}-trail")
        trail = run.folder / "trail"
        try:
            run.start(trail=str(trail))
            run_to_end(way, run, trail=str(trail))
        finally:
            end(run)
        boots = Counter(trail.read_text().splitlines())
        most: Counter[str] = Counter()
        for line, count in boots.items():
            point = line.split()[1]
            most[point] = max(most[point], count)
        return most

    def attempt(self, way: Way, deaths: list[tuple[str, str]]) -> int:
        """Let the device die so often; give how many of the deaths came.

        Args:
            way: what the device is at.
            deaths: passages (`point#n`) and manners, in order.
        """
        name = "-then-".join(f"{at}-{manner}" for at, manner in deaths)
        run = self.make(way, f"{way.name}-{name}")
        died = 0
        try:
            for at, manner in deaths:
                run.start(crash_at=at, manner=manner)
                if not die(way, run, at, manner):
                    break
                died += 1
                check_disk(way, run)
            else:
                run.server.heartbeats.clear()
                run.start()
                run_to_end(way, run)
            way.check_end(run)
            check_disk(way, run)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{run.device.log()}") from error
        finally:
            end(run)
        shutil.rmtree(run.folder)
        return died


def die(way: Way, run: Run, at: str, manner: str) -> bool:
    """Wait until the device has died; False if it came to its end before."""
    heard: int | None = None

    def look() -> str:
        nonlocal heard
        process = run.device.process
        assert process is not None
        if process.poll() is not None:
            assert process.returncode == -signal.SIGKILL, process.returncode
            if not run.fail_power() and run.has_rebooted():
                run.start(crash_at=at, manner=manner)
                return ""
            return "died"
        if not way.has_ended(run):
            return ""
        # The end is seen by what was written, and the point may lie right behind that:
        # one heartbeat later it does not.
        if heard is None:
            heard = len(run.server.heartbeats)
        return "ended" if len(run.server.heartbeats) > heard else ""

    came = wait_until(look, seconds=SECONDS, what=f"the death at {at}")
    if came == "died":
        return True
    # It may yet come to the point while it is being stopped.
    if run.device.stop() == 0:
        return False
    run.fail_power()
    return True


def run_to_end(way: Way, run: Run, *, trail: str = "") -> None:
    """Keep the device on until it has come to its end, and stop it."""

    def has_ended() -> bool:
        process = run.device.process
        assert process is not None
        if process.poll() is not None:
            assert run.has_rebooted(), f"ended with {process.returncode}"
            run.start(trail=trail)
            return False
        # What was reached before the death counts only once the agent is back.
        return len(run.server.heartbeats) > before and way.has_ended(run)

    before = len(run.server.heartbeats)
    wait_until(has_ended, seconds=SECONDS, what="the end of the way")
    stop(run)


def stop(run: Run) -> None:
    assert run.device.stop() == 0


def end(run: Run) -> None:
    run.device.kill()
    run.server.stop()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, signer: Signer) -> Path:
    """The folder of a device that runs 2.0.0 and keeps 1.0.0."""
    folder = tmp_path_factory.mktemp("template")
    with serving(signer) as server:
        device = DeviceProcess(
            folder / "device", server, write_keys(folder / "keys", signer)
        )
        device.provision()
        server.order(device.device_id, FORMER, "2.0.0")
        assert device.start("--once").wait(180) == 0
    return folder / "device"


@pytest.fixture
def workshop(signer: Signer, template: Path, tmp_path: Path) -> Workshop:
    return Workshop(signer, template, tmp_path)


def manner_of(word: str, case: str) -> str:
    """Give the manner with the chance of this case."""
    return f"torn:{SEED}-{case}" if word == "torn" else word


def try_each(
    workshop: Workshop,
    way: Way,
    cases: dict[str, list[tuple[str, str]]],
    *,
    seconds: float = math.inf,
) -> tuple[int, dict[str, str]]:
    """Try cases side by side; give how many were struck, and what went wrong.

    None is begun after so many seconds; those that were not are taken out of `cases`.
    """
    over_at = time.monotonic() + seconds
    struck = 0
    wrong: dict[str, str] = {}
    left_out: list[str] = []

    def try_one(case: str) -> None:
        nonlocal struck
        if time.monotonic() > over_at:
            left_out.append(case)
            return
        try:
            died = workshop.attempt(way, cases[case])
        except Exception as error:  # noqa: BLE001 - one case must not hide the others
            wrong[case] = f"{type(error).__name__}: {error}"
            died = 1
        struck += died > 0

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        list(pool.map(try_one, cases))
    for case in left_out:
        del cases[case]
    return struck, wrong


@pytest.mark.parametrize("name", CHOSEN)
def test_power_cut_that_loses_what_was_not_flushed(
    name: str, workshop: Workshop
) -> None:
    cases = {}
    for case in CHOSEN[name]:
        at, _, word = case.partition(":")
        cases[case] = [(at, manner_of(word, case))]

    assert try_each(workshop, WAY[name], cases) == (len(cases), {})


def cases_of(way: Way, passages: Counter[str]) -> dict[str, list[tuple[str, str]]]:
    """Give every case of a way: once at each passage, and twice by chance."""
    cases: dict[str, list[tuple[str, str]]] = {}
    chance = random.Random(f"{SEED}-{way.name}")
    for point, count in sorted(passages.items()):
        if way.prefixes and not point.startswith(way.prefixes):
            continue
        for passage in range(1, min(count, MAX_PASSAGES) + 1):
            is_whole = passage == 1 and not way.is_variant
            for word in MANNERS if is_whole else (chance.choice(MANNERS),):
                case = f"{way.name}:{point}#{passage}:{word}"
                cases[case] = [(f"{point}#{passage}", manner_of(word, case))]
    points = sorted(passages)
    for number in range(TWICE_PER_WAY):
        case = f"{way.name}:twice-{number}"
        cases[case] = [
            (
                f"{chance.choice(points)}#{chance.choice((1, 1, 2))}",
                manner_of(chance.choice(MANNERS), f"{case}-{death}"),
            )
            for death in range(2)
        ]
    return {case: deaths for case, deaths in cases.items() if is_wanted(case)}


@dataclass
class Budget:
    """The time that the campaign has left, and the cases that are still to come."""

    cases: dict[str, dict[str, list[tuple[str, str]]]]
    seconds: float

    def part_of(self, name: str) -> float:
        """Give the seconds for one way: as its cases are to all that are left."""
        left = sum(len(cases) for cases in self.cases.values())
        return self.seconds * len(self.cases[name]) / left if left else 0.0

    def spend(self, name: str, seconds: float) -> None:
        self.seconds -= seconds
        del self.cases[name]


@pytest.fixture(scope="module")
def budget(
    signer: Signer, template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Budget:
    """Find all cases; in an order of chance, for time may be up before the last."""
    workshop = Workshop(signer, template, tmp_path_factory.mktemp("trails"))
    found = {}
    for way in WAYS:
        cases = list(cases_of(way, workshop.passages(way)).items())
        random.Random(f"{SEED}-{way.name}").shuffle(cases)
        found[way.name] = dict(cases)
    return Budget(found, math.inf if TRIES_ALL else CAMPAIGN_SECONDS)


@pytest.mark.campaign
@pytest.mark.parametrize("name", WAY)
def test_power_may_fail_at_every_passage(
    name: str, workshop: Workshop, budget: Budget
) -> None:
    cases = budget.cases[name]
    count = len(cases)
    begun = time.monotonic()

    struck, wrong = try_each(workshop, WAY[name], cases, seconds=budget.part_of(name))

    budget.spend(name, time.monotonic() - begun)
    if count:
        OUTCOME.tried[name] += struck
        OUTCOME.missed[name] += len(cases) - struck
        OUTCOME.left_out[name] += count - len(cases)
        OUTCOME.wrong |= wrong
    assert wrong == {}
