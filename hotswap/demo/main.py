"""`hotswap demo`: a stack, a fleet and a story, for people or for checks.

Rules:
- The demo has a data folder of its own, marked as such; only a folder with that mark
  is ever emptied.
- It never runs with settings of production.
- Whatever way it ends, none of its processes stays.
"""

import contextlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import httpx

from hotswap.demo import evidence
from hotswap.demo.checks import judge
from hotswap.demo.client import ApiError, Client
from hotswap.demo.fleet import (
    SENSOR,
    TRACKER,
    DemoFiles,
    DemoFleet,
    Kind,
    build_images,
    make_roster,
    write_private,
)
from hotswap.demo.pace import CLOCK, FOR_CHECKS, FOR_PEOPLE, INTERVALS
from hotswap.demo.people import Cast, load_cast
from hotswap.demo.screen import Screen
from hotswap.demo.seed import (
    BAD_VERSION,
    DRAFT_VERSION,
    GATEWAY_GROUP,
    GOOD_VERSION,
    LAB_GROUP,
    seed_catalogue,
    seed_devices,
    seed_firmware,
    seed_groups,
)
from hotswap.demo.story import TIMEOUT_SECONDS, StoryStuckError, Storyteller
from hotswap.stack.errors import StackError
from hotswap.stack.folder import StackFolder
from hotswap.stack.serve import STOP_SIGNALS
from hotswap.stack.stack import Stack

LOCAL_SETTINGS = "hotswap.settings.local"
MARK = "demo.json"
FLEET_SECONDS = 300.0


class EndRequestedError(Exception):
    """Somebody asked the demo to end."""


def run(*, check: bool, reset: bool, port: int, data_dir: Path) -> int:
    """Run the demo in the foreground and return the process's exit code.

    Args:
        check: tell the story alone in an emptied folder, then end.
        reset: begin with an emptied folder.

    Returns:
        0 after a stop by a person or a story that went right, else 1.
    """
    demo = Demo(check=check, port=port, data_dir=data_dir)
    with demo.ending_on_signals():
        try:
            _refuse_production(os.environ)
            _prepare_folder(demo.folder, is_emptied=reset or check)
            return demo.play()
        except EndRequestedError:
            return 1 if check else 0
        except (StackError, StoryStuckError, ApiError, httpx.HTTPError) as error:
            sys.stderr.write(
                f"hotswap: {error}\n"
                f"hotswap: what the programs said: {demo.folder.logs}\n"
            )
            return 1
        finally:
            demo.end()


class Demo:
    """One run."""

    def __init__(self, *, check: bool, port: int, data_dir: Path) -> None:
        self.folder = StackFolder(data_dir)
        self._check = check
        self._files = DemoFiles(self.folder.path / "demo")
        self._roster = make_roster()
        self._is_asked = False
        self._port = port
        self._stack: Stack | None = None
        self._fleet: DemoFleet | None = None
        self._clients: list[Client] = []
        self._screen = Screen()
        self._began_at = time.monotonic()

    # --- life -----------------------------------------------------------------

    @contextlib.contextmanager
    def ending_on_signals(self) -> Iterator[None]:
        """Note the wish to end; a second one makes it quick."""

        def on_signal(_number: int, _frame: FrameType | None) -> None:
            # No event: a signal that strikes where its lock is held would wait for
            # itself.
            if self._is_asked and self._stack is not None:
                with contextlib.suppress(StackError):
                    self._stack.hurry()
            self._is_asked = True

        former = {}
        for number in STOP_SIGNALS:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            former[number] = signal.signal(number, on_signal)
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def pause(self, seconds: float) -> None:
        """Wait; stop waiting when there is nothing left to wait for.

        Raises:
            EndRequestedError: a person or the system asked.
            StackError: the stack or the fleet gave up.
        """
        deadline = time.monotonic() + seconds
        while True:
            if self._is_asked:
                raise EndRequestedError
            if self._stack is not None and self._stack.wait(0):
                raise StackError(self._stack.failure or "the stack has stopped")
            if self._fleet is not None and self._fleet.has_stopped():
                raise StackError(self._fleet.failure or "the fleet has stopped")
            left = deadline - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.5))

    def end(self) -> None:
        """Switch the devices off, then stop the stack."""
        self._screen.end_progress()
        if self._stack is not None and not self._check:
            self._screen.say("Stopping ...")
        for client in self._clients:
            client.close()
        if self._fleet is not None:
            self._fleet.stop()
        if self._stack is not None:
            self._stack.stop()

    # --- the play -------------------------------------------------------------

    def play(self) -> int:
        """Start, seed, tell the story; then judge it, or stay for people."""
        cast = load_cast(self._files.logins)
        admin, firmware = self._set_up(cast)
        assert self._stack is not None
        storyteller = Storyteller(
            console_url=f"{self._stack.url}/admin/",
            operator=self._client(cast.operator.username, cast.operator.password),
            screen=self._screen,
            pace=FOR_CHECKS if self._check else FOR_PEOPLE,
            pause=self.pause,
            is_brief=not self._check,
            timeout_seconds=TIMEOUT_SECONDS if self._check else None,
        )
        good_firmware = firmware[f"{SENSOR} {GOOD_VERSION}"]
        bad_firmware = firmware[f"{SENSOR} {BAD_VERSION}"]
        if self._check:
            return self._play_and_judge(admin, storyteller, good_firmware, bad_firmware)
        self._show_people(
            storyteller,
            good_firmware,
            bad_firmware,
            firmware[f"{TRACKER} {GOOD_VERSION}"],
        )
        while True:
            self.pause(60.0)

    def _set_up(self, cast: Cast) -> tuple[Client, dict[str, Any]]:
        self._stack = Stack(
            data_dir=self.folder.path,
            port=self._port,
            environment={
                **INTERVALS,
                "DJANGO_SETTINGS_MODULE": LOCAL_SETTINGS,
                "HOTSWAP_FOUR_EYES": "1",
                "HOTSWAP_DEMO_CLOCK": CLOCK,
                "HOTSWAP_ADMIN_USERNAME": cast.admin.username,
                "HOTSWAP_ADMIN_PASSWORD": cast.admin.password,
            },
            on_event=self._show_trouble,
            preparation="hotswap.demo.prepare",
        )
        stack = self._stack
        self._screen.say(f"Starting HotSwap in {self.folder.path} ...")
        self._screen.say("On a new folder, 30 days of history are written first.")
        build_images(self._files)
        stack.start()
        self._wait_ready(stack)

        admin = self._client(cast.admin.username, cast.admin.password)
        seed_catalogue(admin)
        seed_devices(admin, self._files, self._roster)
        seed_groups(admin, self._roster)
        self._files.write_trusted_keys(admin.get("signing-keys"))
        self._fleet = DemoFleet(
            files=self._files,
            folder=self.folder,
            roster=self._roster,
            server=stack.url,
            running=self._running_versions(cast),
            on_event=self._show_trouble,
        )
        self._fleet.start()
        uploader = self._client(cast.release.username, cast.release.password)
        firmware = seed_firmware(uploader, admin, self._files)

        self._screen.say(f"HotSwap ready at {stack.url}", "bold green")
        if not self._check:
            self._greet(cast)
        self._wait_for_fleet(admin)
        return admin, firmware

    def _wait_ready(self, stack: Stack) -> None:
        """Wait for the stack in a thread's place, so that signals are answered."""
        errors: list[StackError] = []

        def wait() -> None:
            try:
                stack.wait_ready()
            except StackError as error:
                errors.append(error)

        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        while waiting.is_alive():
            self.pause(0.0)
            waiting.join(0.05)
        if errors:
            raise errors[0]

    def _greet(self, cast: Cast) -> None:
        self._screen.logins(
            [
                (cast.admin.username, cast.admin.password, "Admin: approves firmware"),
                (
                    cast.operator.username,
                    cast.operator.password,
                    "Operator: launches, pauses, rolls back",
                ),
                (cast.viewer.username, cast.viewer.password, "Viewer: looks"),
                (
                    cast.release.username,
                    cast.release.password,
                    "Admin: has uploaded the firmware, so another must approve it",
                ),
            ]
        )
        self._screen.say(f"Waits are compressed: demo clock {CLOCK}. Ctrl+C ends all.")

    def _wait_for_fleet(self, admin: Client) -> None:
        # Trackers come and go.
        expected = {
            d.device_id
            for d in self._roster
            if d.kind is not Kind.SPARE and d.model != TRACKER
        }
        deadline = time.monotonic() + FLEET_SECONDS
        while True:
            online = {
                each["deviceId"]
                for each in admin.every("devices")
                if each["status"] == "online" and each["firmwareChecksum"]
            }
            if expected <= online:
                break
            if time.monotonic() > deadline:
                missing = sorted(expected - online)
                raise StackError(
                    f"{len(missing)} devices did not come online within "
                    f"{FLEET_SECONDS:.0f} s, {missing[0]} among them"
                )
            self.pause(0.3)
        agents = sum(d.kind is Kind.AGENT for d in self._roster)
        self._screen.say(
            f"{len(expected)} devices report: {agents} agent processes and "
            f"{len(expected) - agents} simulated devices; "
            f"{sum(d.model == TRACKER for d in self._roster)} trackers come and go"
        )

    def _show_people(
        self,
        storyteller: Storyteller,
        good_firmware: dict[str, Any],
        bad_firmware: dict[str, Any],
        tracker_firmware: dict[str, Any],
    ) -> None:
        """Tell the story, as far as it was not told on this folder before."""
        assert self._stack is not None
        if storyteller.known(BAD_VERSION) is None:
            storyteller.begin_beside(tracker_firmware)
            ended = storyteller.play(GOOD_VERSION, good_firmware)
            if ended.status == "Completed":
                storyteller.play(BAD_VERSION, bad_firmware)
            self._screen.say("The story is told; the fleet stays for you.")
        else:
            self._screen.say(
                "The story was told on this folder before; --reset tells it again."
            )
        self._screen.say(
            f"Now yours, at {self._stack.url}: approve {GOOD_VERSION} for the gateways "
            f"as admin and launch it on {GATEWAY_GROUP} as operator; or approve "
            f"{DRAFT_VERSION} and launch it on {LAB_GROUP}."
        )

    def _play_and_judge(
        self,
        admin: Client,
        storyteller: Storyteller,
        good_firmware: dict[str, Any],
        bad_firmware: dict[str, Any],
    ) -> int:
        ended = storyteller.play(GOOD_VERSION, good_firmware)
        good = evidence.collect_deployment(admin, ended.deployment_id)
        good["excluded"] = ended.excluded
        good["devicesAfter"] = list(admin.every("devices"))
        if ended.status != "Completed":
            raise StoryStuckError(
                f"the deployment of {GOOD_VERSION} ended as {ended.status}: "
                f"{good['status']['rollbackReason'] or good['status']['failureReason']}"
            )
        ended = storyteller.play(BAD_VERSION, bad_firmware)
        bad = evidence.collect_deployment(admin, ended.deployment_id)
        if bad["status"]["finishedAt"]:
            evidence.wait_for_heartbeats(admin, bad["status"]["finishedAt"], self.pause)
        collected = evidence.collect(
            admin=admin,
            files=self._files,
            roster=self._roster,
            good=good,
            bad=bad,
        )
        write_private(self._files.evidence, json.dumps(collected, indent=1))
        findings = judge(collected)
        self._screen.findings(findings)
        seconds = time.monotonic() - self._began_at
        wrong = sum(not each.is_right for each in findings)
        if wrong:
            self._screen.say(
                f"{wrong} of {len(findings)} checks are wrong after {seconds:.0f} s; "
                f"logs: {self.folder.logs}, evidence: {self._files.evidence}",
                "bold red",
            )
            return 1
        self._screen.say(
            f"All {len(findings)} checks are right after {seconds:.0f} s", "bold green"
        )
        return 0

    # --- helpers --------------------------------------------------------------

    def _client(self, username: str, password: str) -> Client:
        assert self._stack is not None
        client = Client(self._stack.url, username, password, self.pause)
        self._clients.append(client)
        return client

    def _running_versions(self, cast: Cast) -> Callable[[], Mapping[str, str]]:
        viewer = self._client(cast.viewer.username, cast.viewer.password)
        last: dict[str, str] = {}

        def ask() -> Mapping[str, str]:
            # Without an answer, what was known before has to do.
            with contextlib.suppress(ApiError, httpx.HTTPError):
                for each in viewer.every("devices"):
                    last[each["deviceId"]] = each["firmwareVersion"]
            return last

        return ask

    def _show_trouble(self, text: str) -> None:
        self._screen.say(f"{text}", "yellow")


def _refuse_production(environment: Mapping[str, str]) -> None:
    named = environment.get("DJANGO_SETTINGS_MODULE", LOCAL_SETTINGS)
    if named != LOCAL_SETTINGS:
        raise StackError(
            f"the demo does not run with the settings {named}: unset "
            "DJANGO_SETTINGS_MODULE"
        )


def _prepare_folder(folder: StackFolder, *, is_emptied: bool) -> None:
    """Make the folder, emptied if wanted, and mark it as the demo's.

    Raises:
        StackError: it holds something that the demo did not make, or is in use.
    """
    mark = folder.path / MARK
    is_used = folder.path.is_dir() and any(folder.path.iterdir())
    if is_used and not mark.exists():
        raise StackError(
            f"{folder.path} holds something else than a demo; choose another folder "
            "with HOTSWAP_DATA_DIR"
        )
    folder.create()
    folder.lock()
    try:
        if is_emptied:
            # The mark goes last: an emptying that was interrupted can be repeated.
            for path in folder.path.iterdir():
                if path.name in ("lock", MARK):
                    continue
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        mark.write_text(json.dumps({"demo": True}) + "\n")
    finally:
        folder.unlock()
    folder.create()
    (folder.path / "demo").mkdir(mode=0o700, exist_ok=True)
