"""The story: a good update reaches everybody, a bad one is sent home by itself.

A story that was interrupted goes on where it was: its deployments are found by name.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hotswap.demo.client import Client
from hotswap.demo.fleet import REGIONS
from hotswap.demo.pace import Pace, canary, regional
from hotswap.demo.screen import Screen
from hotswap.demo.seed import BAD_VERSION, GOOD_VERSION

BESIDE = "2.5.0 for the trackers, region by region"
FINAL = ("Completed", "RolledBack", "Failed", "Cancelled")
LOOK_SECONDS = 0.7
TIMEOUT_SECONDS = 240.0
LATEST = 200


class StoryStuckError(Exception):
    """A deployment did not end in time; the text says what it waited for."""


@dataclass(frozen=True, slots=True)
class Ended:
    """One deployment that has ended; `excluded` only if it was launched now."""

    deployment_id: str
    status: str
    excluded: list[dict[str, Any]]


class Storyteller:
    """Launches the deployments as `operator` and tells what happens.

    Args:
        pause: waits so many seconds; raises when the demo has to end.
        is_brief: leave out the lines of single devices that do as they should.
        timeout_seconds: for one deployment; None without a limit, because a person
            may have paused it.
    """

    def __init__(
        self,
        *,
        operator: Client,
        console_url: str,
        screen: Screen,
        pace: Pace,
        pause: Callable[[float], None],
        is_brief: bool,
        timeout_seconds: float | None,
    ) -> None:
        self._operator = operator
        self._console_url = console_url
        self._screen = screen
        self._pace = pace
        self._pause = pause
        self._is_brief = is_brief
        self._timeout_seconds = timeout_seconds
        self._began_at = time.time()

    def known(self, version: str) -> dict[str, Any] | None:
        """Return the story's deployment of a version, if it was launched already."""
        for each in self._operator.every("deployments"):
            if each["name"] == _name(version):
                return dict(each)
        return None

    def begin_beside(self, firmware: dict[str, Any]) -> None:
        """Launch the update of the trackers, which runs beside the story, once."""
        names = {each["name"] for each in self._operator.every("deployments")}
        if BESIDE not in names:
            launched = self._operator.post(
                "deployments", regional(BESIDE, firmware["id"], REGIONS)
            )
            self._screen.say(
                f"Beside it, {launched['targets']['eligible']} trackers are updated "
                "region by region, as far as they can be reached"
            )

    def play(self, version: str, firmware: dict[str, Any]) -> Ended:
        """Launch one deployment, or find it, and tell it to its end.

        Raises:
            StoryStuckError: it did not end in time.
        """
        known = self.known(version)
        excluded: list[dict[str, Any]] = []
        if known is None:
            self._pause(self._pace.interlude)
            known = self._operator.post(
                "deployments", canary(_name(version), firmware["id"], self._pace)
            )
            targets = known["targets"]
            excluded = targets["excluded"]
            self._screen.say(
                f"{version}: a canary on {targets['eligible']} devices begins "
                f"({targets['matched'] - targets['eligible']} excluded with a reason)"
            )
        page = f"{self._console_url}deployments/deployment/{known['id']}/change/"
        self._screen.say(f"{version}: {page}")
        status = self._follow(known["id"], version)
        return Ended(known["id"], status, excluded)

    def _follow(self, deployment_id: str, version: str) -> str:
        path = f"deployments/{deployment_id}"
        shown: set[int] = set()
        began = time.monotonic()
        while True:
            status = self._operator.get(f"{path}/status")
            is_over = status["status"] in FINAL
            self._show_events(path, version, shown, every=is_over)
            self._show(version, status)
            if is_over:
                self._screen.end_progress()
                return str(status["status"])
            waited = time.monotonic() - began
            if self._timeout_seconds is not None and waited > self._timeout_seconds:
                waiting_for = (status["stage"] or {}).get("waitingFor")
                raise StoryStuckError(
                    f"the deployment of {version} is {status['status']} after "
                    f"{waited:.0f} s and waits for: {waiting_for}"
                )
            self._pause(LOOK_SECONDS)

    def _show_events(
        self, path: str, version: str, shown: set[int], *, every: bool
    ) -> None:
        # Numbers are given before a line can be seen, so a smaller one may appear
        # after a larger: what was told is remembered line by line.
        if every:
            lines = list(self._operator.every(f"{path}/logs"))
        else:
            lines = self._operator.get(f"{path}/logs", pageSize=LATEST)["results"]
        for line in reversed(lines):
            if line["id"] in shown:
                continue
            shown.add(line["id"])
            is_routine = line["level"] == "INFO" and line["event"].startswith("device.")
            if self._is_brief and is_routine:
                continue
            at = datetime.fromisoformat(line["at"]).timestamp()
            who = f"{line['deviceId']}: " if line["deviceId"] else ""
            self._screen.event(
                at - self._began_at,
                line["level"],
                version,
                line["event"],
                f"{who}{line['message']}",
            )

    def _show(self, version: str, status: dict[str, Any]) -> None:
        progress = status["progress"]
        done = progress["success"] + progress["rolledBack"] + progress["cancelled"]
        stage = status["stage"]
        detail = ""
        if stage is not None:
            detail = f"stage {stage['number']} of {stage['of']}"
            if stage["waitingFor"]:
                detail += f": {stage['waitingFor']}"
        self._screen.show_progress(
            f"{version} {status['status']} {done}/{progress['total']}",
            status["percentComplete"] or 0.0,
            detail,
        )


def _name(version: str) -> str:
    what = {GOOD_VERSION: "the good update", BAD_VERSION: "the bad update"}[version]
    return f"Canary of {version}, {what}"
