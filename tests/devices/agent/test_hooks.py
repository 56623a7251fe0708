"""Installing by hook commands: the example of the docs on a machine of plain files."""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from devices.agent.hook_installer import HookInstaller
from devices.agent.hooks import Hook, HookName, HookRunner
from devices.agent.installer import (
    ContentChangedError,
    ImageRecord,
    InstallError,
    InstallLaterError,
)
from tests.devices.agent.device_process import (
    TRIED,
    DeviceProcess,
    is_alive,
    program,
    sha256,
)
from tests.devices.agent.machine import EXAMPLE, Machine, system_image
from tests.devices.agent.protocol_server import ProtocolServer, write_keys
from tests.waiting import wait_until

SIDE_BY_SIDE = 6
WAY = ["downloading", "verifying", "installing", "rebooting", "confirming"]
GOOD = system_image("2.0.0")
BROKEN = system_image("3.0.0", boots=False)
SICK = system_image("4.0.0", is_healthy=False)
GOOD_WAY_HOOKS = [
    "pre_install",
    "install",
    "activate",
    "reboot",
    "health_check",
    "confirm",
]
FALL_BACK_POINTS = ["hooks.revert_done"]
# The agent is killed by the reboot before it can pass this one.
UNREACHED = ["hooks.reboot_asked"]
UPDATE_POINTS = sorted(
    point
    for point in TRIED
    if point.startswith("hooks.") and point not in FALL_BACK_POINTS + UNREACHED
)


@pytest.fixture
def machine(server: ProtocolServer, tmp_path: Path) -> Iterator[Machine]:
    keys = write_keys(tmp_path / "keys", server.signer)
    machine = Machine(tmp_path / "machine", server, keys)
    machine.provision()
    yield machine
    machine.device.kill()


def make_runner(folder: Path, **scripts: str) -> HookRunner:
    hooks: dict[HookName, Hook] = {
        name: Hook(("/bin/sh", "-c", script), 10.0)  # type: ignore[misc]
        for name, script in scripts.items()
    }
    return HookRunner(hooks, folder / "run")


def record_of(image: bytes, version: str = "2.0.0") -> ImageRecord:
    return ImageRecord(version, sha256(image), len(image))


# The way of an order


def test_good_system_boots_from_the_other_partition(machine: Machine) -> None:
    update_id = machine.server.order("device-1", GOOD, "2.0.0")
    machine.start()
    first = machine.server.wait_for_heartbeat(lambda each: True)

    claim = machine.wait_for(update_id, "confirming")
    machine.settle()

    assert machine.server.statuses(update_id) == WAY
    assert machine.hooks_run() == GOOD_WAY_HOOKS
    assert first["firmwareVersion"] == "1.0.0"
    assert first["firmwareChecksum"] == sha256(machine.factory)
    assert claim["firmwareChecksum"] == sha256(GOOD)
    assert claim["bootId"] != first["bootId"]
    assert machine.running() == "b"
    assert machine.variables() == {
        "boot_slot": "b",
        "try_slot": "",
        "tries_left": "0",
    }
    assert machine.image_in("a") == machine.factory
    assert machine.private_mode() == 0o700
    assert not (machine.device.data / "hooks" / "image").exists()


def test_heartbeat_of_a_system_says_nothing_it_does_not_know(machine: Machine) -> None:
    machine.start()

    beat = machine.server.wait_for_heartbeat(lambda each: True)

    assert beat["applicationMetrics"] == {}
    assert 0 < beat["memoryUsage"] < 100
    assert 0 <= beat["cpuUsage"] <= 100


def test_metrics_of_the_system_s_application_are_read(machine: Machine) -> None:
    metrics = machine.folder / "metrics.json"
    machine.application = f'[application]\nmetrics_file = "{metrics}"'
    machine.configure()
    metrics.write_text('{"errorRate": 0.25}')
    machine.start()

    beat = machine.server.wait_for_heartbeat(lambda each: True)

    assert beat["applicationMetrics"]["errorRate"] == 0.25
    assert "applicationRunning" not in beat["applicationMetrics"]


def test_system_that_does_not_boot_is_told_as_fallen_back(machine: Machine) -> None:
    update_id = machine.server.order("device-1", BROKEN, "3.0.0")

    report = machine.wait_for(update_id, "failed")
    machine.settle()

    assert report["errorCode"] == "device_fell_back"
    assert report["message"] == "The device came up with 1.0.0."
    assert report["firmwareChecksum"] == sha256(machine.factory)
    assert "confirm" not in machine.hooks_run()
    assert machine.running() == "a"
    assert machine.variables()["boot_slot"] == "a"
    assert machine.image_in("a") == machine.factory


def test_system_that_is_not_well_is_sent_back_by_a_reboot(machine: Machine) -> None:
    update_id = machine.server.order("device-1", SICK, "4.0.0")

    report = machine.wait_for(update_id, "failed")
    machine.settle()

    assert report["errorCode"] == "self_test_failed"
    assert "health_check: exit code 1" in str(report["message"])
    assert report["firmwareVersion"] == "1.0.0"
    assert machine.running() == "a"
    # Once more after the boot, which may have come before the first was done.
    assert machine.hooks_run()[-3:] == ["revert", "reboot", "revert"]
    assert "confirming" not in machine.server.statuses(update_id)


def test_rollback_comes_back_to_the_former_system(machine: Machine) -> None:
    first = machine.server.order("device-1", GOOD, "2.0.0")
    machine.wait_for(first, "confirming")
    machine.settle()

    back = machine.server.order("device-1", machine.factory, "1.0.0", action="rollback")
    claim = machine.wait_for(back, "confirming")

    assert claim["firmwareVersion"] == "1.0.0"
    assert machine.running() == "a"
    assert machine.image_in("b") == GOOD


def test_boot_loader_that_goes_back_later_shows_in_the_heartbeats(
    machine: Machine,
) -> None:
    update_id = machine.server.order("device-1", GOOD, "2.0.0")
    machine.wait_for(update_id, "confirming")
    machine.settle()
    machine.device.kill()
    (machine.folder / "running").write_text("a")
    machine.server.heartbeats.clear()

    machine.start()
    beat = machine.server.wait_for_heartbeat(lambda each: True)

    assert beat["firmwareVersion"] == "1.0.0"
    assert beat["firmwareChecksum"] == sha256(machine.factory)


# Hooks that do not do as they should


def test_hook_that_asks_for_later_is_run_again(machine: Machine) -> None:
    busy = machine.folder / "notes" / "busy"
    busy.parent.mkdir(exist_ok=True)
    busy.touch()
    update_id = machine.server.order("device-1", GOOD, "2.0.0")
    machine.start()
    wait_until(lambda: machine.hooks_run().count("pre_install") >= 2, what="two tries")
    assert machine.image_in("b") == b"\0" * 100_000

    busy.unlink()
    machine.wait_for(update_id, "confirming")

    assert "somebody is working here" in machine.device.log()


def test_hook_that_asks_for_later_too_long_fails_the_update(machine: Machine) -> None:
    machine.overrides["pre_install"] = ["/bin/sh", "-c", "exit 75"]
    machine.configure()
    machine.device.limits["hook_patience_seconds"] = 0.2
    machine.device.provision()
    update_id = machine.server.order("device-1", GOOD, "2.0.0")

    report = machine.wait_for(update_id, "failed")

    assert report["errorCode"] == "install_failed"
    assert "pre_install: try later." in str(report["message"])


def test_install_that_fails_leaves_what_runs_alone(machine: Machine) -> None:
    machine.overrides["install"] = ["/bin/sh", "-c", "echo no medium >&2; exit 5"]
    machine.configure()
    update_id = machine.server.order("device-1", GOOD, "2.0.0")

    report = machine.wait_for(update_id, "failed")

    assert report["errorCode"] == "install_failed"
    assert report["message"] == "install: exit code 5. no medium"
    assert report["firmwareVersion"] == "1.0.0"
    assert machine.hooks_run() == ["pre_install"]


def test_hook_that_hangs_is_killed_with_its_children(machine: Machine) -> None:
    pid_file = machine.folder / "pid"
    machine.overrides["install"] = [
        "/bin/sh",
        "-c",
        f"sleep 600 & echo $! > {pid_file}; wait",
    ]
    machine.timeouts["install"] = 1
    machine.configure()
    update_id = machine.server.order("device-1", GOOD, "2.0.0")

    report = machine.wait_for(update_id, "failed")

    assert "not done within 1 s" in str(report["message"])
    pid = int(pid_file.read_text())
    wait_until(lambda: not is_alive(pid), what="its end")


def test_order_is_refused_while_nobody_knows_what_runs(machine: Machine) -> None:
    machine.overrides["current"] = ["/bin/false"]
    machine.configure()
    update_id = machine.server.order("device-1", GOOD, "2.0.0")

    report = machine.wait_for(update_id, "failed")

    assert report["errorCode"] == "device_state_unknown"
    assert report["firmwareVersion"] == "0.0.0-unknown"
    assert machine.hooks_run() == []


def test_heartbeats_go_on_while_a_hook_works(machine: Machine) -> None:
    gate = machine.folder / "gate"
    machine.overrides["pre_install"] = [
        "/bin/sh",
        "-c",
        f"while [ ! -e {gate} ]; do sleep 0.05; done",
    ]
    machine.configure()
    update_id = machine.server.order("device-1", GOOD, "2.0.0")
    machine.start()
    machine.server.wait_for(update_id, "installing")

    before = len(machine.server.heartbeats)
    wait_until(lambda: len(machine.server.heartbeats) >= before + 3, what="heartbeats")
    gate.touch()

    assert machine.wait_for(update_id, "confirming")


def test_reboot_that_does_not_come_fails_the_update(machine: Machine) -> None:
    machine.overrides["reboot"] = ["/bin/true"]
    machine.configure()
    machine.device.limits["reboot_timeout_seconds"] = 0.05
    machine.device.provision()
    update_id = machine.server.order("device-1", GOOD, "2.0.0")

    report = machine.wait_for(update_id, "failed")
    machine.settle()

    assert report["message"] == "The device does not reboot."
    assert machine.variables()["tries_left"] == "0"
    assert machine.running() == "a"


def test_health_check_has_the_last_word_with_slots_too(device: DeviceProcess) -> None:
    device.tables = (
        '[installer]\nhealth_check = ["/bin/sh", "-c", "[ $HOTSWAP_VERSION != 3.0.0 ]"]'
    )
    device.provision()
    device.start()
    good = device.server.order("device-1", program("2.0.0"), "2.0.0")
    device.server.wait_for(good, "confirming")

    bad = device.server.order("device-1", program("3.0.0"), "3.0.0")
    report = device.server.wait_for(bad, "failed", "confirming")

    assert report["errorCode"] == "self_test_failed"
    assert "health_check: exit code 1" in report["message"]
    assert report["firmwareVersion"] == "2.0.0"


# Killed in the middle


def test_killed_while_a_hook_writes_the_next_run_waits_for_it(machine: Machine) -> None:
    started, gate = machine.folder / "started", machine.folder / "gate"
    waiting = f"echo x >> {started}; while [ ! -e {gate} ]; do sleep 0.05; done"
    example = f"exec {EXAMPLE} {machine.folder}/ab.conf install"
    machine.overrides["install"] = ["/bin/sh", "-c", f"{waiting}; {example}"]
    machine.configure()
    update_id = machine.server.order("device-1", GOOD, "2.0.0")
    machine.start()
    wait_until(started.exists, what="the installation")

    machine.device.kill()
    machine.start()
    waited = len(machine.server.heartbeats)
    wait_until(lambda: len(machine.server.heartbeats) >= waited + 4, what="heartbeats")
    runs_meanwhile = started.read_text().split()
    gate.touch()
    machine.wait_for(update_id, "confirming")

    # The second one began only after the first had come to its end.
    assert runs_meanwhile == ["x"]
    assert started.read_text().split() == ["x", "x"]
    assert machine.image_in("b") == GOOD


def try_all(
    points: list[str], folder: Path, attempt: Callable[[Machine, str], None]
) -> dict[str, str]:
    """Try each point on a machine of its own; give what went wrong by point."""
    wrong: dict[str, str] = {}

    def try_one(point: str) -> None:
        server = ProtocolServer()
        server.start()
        name = point.replace(".", "-")
        keys = write_keys(folder / name / "keys", server.signer)
        machine = Machine(folder / name / "machine", server, keys)
        machine.provision()
        try:
            attempt(machine, point)
        except AssertionError as error:
            wrong[point] = str(error)
        finally:
            machine.device.kill()
            server.stop()

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        list(pool.map(try_one, points))
    return wrong


def crash_at(machine: Machine, point: str) -> None:
    """Keep the device on until the agent has died at the point."""

    def has_died() -> bool:
        process = machine.device.process
        if process is None or process.poll() is None:
            return False
        if not (machine.folder / "rebooted").exists():
            return True
        machine.start(crash_at=point)
        return False

    machine.start(crash_at=point)
    wait_until(has_died, what=f"the crash at {point}")


def test_cut_off_anywhere_in_an_update_it_ends_on_the_new_system(
    tmp_path: Path,
) -> None:
    def attempt(machine: Machine, point: str) -> None:
        # One half is killed, for the other half the power is cut.
        cuts_power = UPDATE_POINTS.index(point) % 2 == 0
        update_id = machine.server.order("device-1", GOOD, "2.0.0")
        crash_at(machine, point)
        if cuts_power:
            machine.boot()
        machine.wait_for(update_id, "confirming", "failed")
        machine.settle()
        # A try that the power cut into before it was confirmed has fallen back.
        statuses = machine.server.statuses(update_id)
        running = machine.image_in(machine.running())
        if statuses[-1] == "confirming":
            assert running == GOOD
            assert machine.variables()["boot_slot"] == machine.running()
        else:
            assert cuts_power
            assert running == machine.factory
        assert machine.variables()["tries_left"] == "0"

    assert try_all(UPDATE_POINTS, tmp_path, attempt) == {}


def test_cut_off_in_a_fall_back_it_ends_on_the_former_system(tmp_path: Path) -> None:
    def attempt(machine: Machine, point: str) -> None:
        cuts_power = "store" not in point
        update_id = machine.server.order("device-1", SICK, "4.0.0")
        crash_at(machine, point)
        if cuts_power:
            machine.boot()
        report = machine.wait_for(update_id, "failed", "confirming")
        machine.settle()
        assert report["status"] == "failed"
        assert report["firmwareVersion"] == "1.0.0"
        assert machine.image_in(machine.running()) == machine.factory

    points = [*FALL_BACK_POINTS, "store.reverting.synced", "store.trying.synced"]
    assert try_all(points, tmp_path, attempt) == {}


# What a hook is given and what it may say


def test_hook_gets_the_verified_bytes_and_what_is_known_of_them(
    tmp_path: Path,
) -> None:
    seen = tmp_path / "seen"
    runner = make_runner(
        tmp_path,
        current="echo slot=a; echo version=1.0.0",
        install=f"cp $HOTSWAP_IMAGE {seen}; env | grep ^HOTSWAP_ > {seen}.env; "
        "echo slot=b",
    )
    installer = HookInstaller(tmp_path / "hooks", runner)
    installer.prepare()

    installer.install([GOOD[:5], GOOD[5:]], record_of(GOOD))

    assert seen.read_bytes() == GOOD
    lines = Path(f"{seen}.env").read_text().splitlines()
    variables = dict(line.split("=", 1) for line in lines)
    assert variables == {
        "HOTSWAP_HOOK": "install",
        "HOTSWAP_IMAGE": str(tmp_path / "hooks" / "image"),
        "HOTSWAP_SHA256": sha256(GOOD),
        "HOTSWAP_VERSION": "2.0.0",
        "HOTSWAP_SIZE": str(len(GOOD)),
        "HOTSWAP_SLOT": "",
        "HOTSWAP_RUNNING_SHA256": "0" * 64,
        "HOTSWAP_RUNNING_VERSION": "1.0.0",
    }


def test_bytes_that_change_after_their_check_are_not_installed(tmp_path: Path) -> None:
    tampers = "chmod u+w $HOTSWAP_IMAGE; echo x >> $HOTSWAP_IMAGE"
    installed = tmp_path / "installed"
    runner = make_runner(
        tmp_path, current="echo slot=a", pre_install=tampers, install=f"> {installed}"
    )
    installer = HookInstaller(tmp_path / "hooks", runner)
    installer.prepare()

    with pytest.raises(ContentChangedError):
        installer.install([GOOD], record_of(GOOD))
    with pytest.raises(ContentChangedError):
        installer.install([GOOD + b"x"], record_of(GOOD))

    assert not installed.exists()


def test_install_into_the_slot_that_runs_is_not_believed(tmp_path: Path) -> None:
    runner = make_runner(tmp_path, current="echo slot=a", install="echo slot=a")
    installer = HookInstaller(tmp_path / "hooks", runner)
    installer.prepare()

    with pytest.raises(InstallError, match="slot a is the one that runs"):
        installer.install([GOOD], record_of(GOOD))
    with pytest.raises(InstallError, match="not installed"):
        installer.activate(sha256(GOOD))


@pytest.mark.parametrize(
    ("says", "version"),
    [
        ("echo slot=b", "2.0.0"),
        ("echo slot=a", "1.0.0"),
        (f"echo sha256={sha256(GOOD)}; echo slot=a", "2.0.0"),
        ("echo version=2.0.0", "2.0.0"),
        ("echo version=7.7.7", "7.7.7"),
        (f"echo sha256={'7' * 64}", "0.0.0-unknown"),
    ],
)
def test_what_runs_is_told_by_digest_then_slot_then_version(
    says: str, version: str, tmp_path: Path
) -> None:
    runner = make_runner(
        tmp_path, current="echo slot=a; echo version=1.0.0", install="echo slot=b"
    )
    installer = HookInstaller(tmp_path / "hooks", runner)
    installer.prepare()
    installer.install([GOOD], record_of(GOOD))

    again = HookInstaller(tmp_path / "hooks", make_runner(tmp_path, current=says))

    current = again.current()
    assert current is not None
    assert current.version == version


def test_digest_that_is_none_is_not_taken(tmp_path: Path) -> None:
    runner = make_runner(tmp_path, current="echo sha256=abc")

    assert HookInstaller(tmp_path / "hooks", runner).current() is None


@pytest.mark.parametrize(
    ("script", "kind", "message"),
    [
        ("exit 75", InstallLaterError, "install: try later."),
        ("exit 3", InstallError, "install: exit code 3."),
        ("kill -9 $$", InstallError, "install: ended by signal 9."),
        ("echo one >&2; echo two >&2; exit 1", InstallError, "exit code 1. two"),
    ],
)
def test_exit_codes_of_a_hook(
    script: str, kind: type[InstallError], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InstallError, match=message) as raised:
        make_runner(tmp_path, install=script).run("install")

    assert raised.type is kind


def test_hook_that_is_not_there_is_named(tmp_path: Path) -> None:
    runner = HookRunner({"install": Hook(("/does/not/exist",), 5.0)}, tmp_path / "run")

    with pytest.raises(InstallError, match=r"install: .*/does/not/exist"):
        runner.run("install")


def test_much_output_does_not_block_a_hook(tmp_path: Path) -> None:
    script = f"{sys.executable} -c 'print(\"x\" * 1_000_000)'"

    assert len(make_runner(tmp_path, current=script).run("current")) > 1_000_000


def test_stopped_agent_ends_its_hook(machine: Machine) -> None:
    pid_file = machine.folder / "pid"
    machine.overrides["install"] = [
        "/bin/sh",
        "-c",
        f"echo $$ > {pid_file}; exec sleep 600",
    ]
    machine.configure()
    machine.server.order("device-1", GOOD, "2.0.0")
    machine.start()
    wait_until(lambda: pid_file.exists() and pid_file.read_text(), what="the hook")

    code = machine.device.stop()

    assert code == 0
    pid = int(pid_file.read_text())
    wait_until(lambda: not is_alive(pid), what="its end")
