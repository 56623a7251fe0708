"""Watching a deployment from a terminal or a pipeline until it ends.

Rules:
- On a terminal the picture is drawn anew; into a pipe go lines, one for each change.
- A server that is away is asked again until it is back, for as long as the caller
  allows; what it said last stands meanwhile.
"""

import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hotswap.cli.client import Api, CliError, UnreachableError
from hotswap.cli.output import print_json, say
from hotswap.common.pluralize import counted

# Of a deployment that is over; nothing changes any more by itself.
EXIT_CODES = {"Completed": 0, "RolledBack": 10, "Failed": 11, "Cancelled": 12}
STILL_UNDER_WAY = 13
LONGEST_PAUSE_SECONDS = 15.0
SETTLED = ("success", "failed", "rolledBack", "skipped", "cancelled")
BAR_WIDTH = 30


class StillUnderWayError(CliError):
    """The time to wait is over, the deployment is not."""

    exit_code = STILL_UNDER_WAY
    code = "still_under_way"


def watch_to_the_end(
    api: Api,
    deployment_id: str,
    *,
    interval_seconds: float,
    timeout_seconds: float | None,
    as_json: bool,
) -> int:
    """Show a deployment until it is over; return the exit code of how it ended.

    Args:
        as_json: the last status goes to standard output, the progress to standard
            error.

    Raises:
        StillUnderWayError: it was not over within `timeout_seconds`.
        UnreachableError: nor did the server answer at the end of that time.
    """
    console = Console(stderr=as_json)
    looks = _looks(api, deployment_id, interval_seconds, timeout_seconds)
    draw = _drawn if console.is_terminal else _printed
    status = draw(console, looks)
    if as_json:
        print_json(status)
    if status["status"] not in EXIT_CODES:
        raise StillUnderWayError(
            f"after {timeout_seconds:g} s the deployment is {status['status']}, not "
            "over; it goes on"
        )
    return EXIT_CODES[status["status"]]


def _looks(
    api: Api,
    deployment_id: str,
    interval_seconds: float,
    timeout_seconds: float | None,
) -> Iterator[dict[str, Any]]:
    """Yield the status again and again, for the last time when it is over."""
    until = None if timeout_seconds is None else time.monotonic() + timeout_seconds

    def is_late() -> bool:
        return until is not None and time.monotonic() >= until

    pause, is_away = interval_seconds, False
    while True:
        try:
            status = api.get(f"/deployments/{deployment_id}/status")
        except UnreachableError as error:
            if is_late():
                raise
            if not is_away:
                say(f"hotswap: {error}; it is asked again")
            is_away, pause = True, min(2 * pause, LONGEST_PAUSE_SECONDS)
        else:
            if is_away:
                say("hotswap: the server is back")
            is_away, pause = False, interval_seconds
            yield status
            if status["status"] in EXIT_CODES or is_late():
                return
        left = pause if until is None else min(pause, until - time.monotonic())
        time.sleep(max(left, 0.0))


def summary_of(status: Mapping[str, Any]) -> str:
    """Say in one line where a deployment stands."""
    progress, stage = status["progress"], status["stage"]
    settled = sum(progress[name] for name in SETTLED)
    parts = [str(status["status"])]
    if stage is not None:
        parts.append(f"stage {stage['number']} of {stage['of']} ({stage['name']})")
    total = counted(progress["total"], "device")
    parts.append(f"{settled:,} of {total} finished")
    parts += [
        f"{progress[name]:,} {word}"
        for name, word in (
            ("success", "proved"),
            ("failed", "failed"),
            ("rollingBack", "on the way back"),
            ("rolledBack", "rolled back"),
        )
        if progress[name]
    ]
    reason = status["failureReason"] or status["rollbackReason"]
    why = reason if status["status"] in EXIT_CODES else status["waitingFor"] or reason
    return ", ".join(parts) + (f": {why}" if why else "")


def _printed(console: Console, looks: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """Write a line for each change; return the last status."""
    shown, status = "", {}
    for status in looks:
        line = summary_of(status)
        if line != shown:
            console.file.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {line}\n")
            console.file.flush()
            shown = line
    return status


def _drawn(console: Console, looks: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """Draw the stages with their bars, anew for each look; return the last status."""
    status: dict[str, Any] = {}
    with Live(console=console, auto_refresh=False) as live:
        for status in looks:
            live.update(_picture(status), refresh=True)
    return status


def _picture(status: Mapping[str, Any]) -> Group:
    table = Table(box=None, pad_edge=False)
    for name in ("STAGE", "STATUS", "", "SETTLED", "PROVED", "FAILED", "BACK"):
        table.add_column(name, justify="right" if name in _NUMBERS else "left")
    for stage in status["stages"]:
        total = stage["total"] or stage["size"]
        settled = sum(stage[name] for name in SETTLED)
        table.add_row(
            f"{stage['number']} {stage['name']}",
            stage["status"],
            ProgressBar(total=max(total, 1), completed=settled, width=BAR_WIDTH),
            f"{settled:,} of {total:,}",
            f"{stage['success']:,}",
            f"{stage['failed']:,}",
            f"{stage['rollingBack'] + stage['rolledBack']:,}",
        )
    over = status["estimatedCompletionAt"]
    return Group(
        Text(str(status["name"]), style="bold"),
        Text(summary_of(status)),
        table,
        Text(f"estimated finish {over}" if over else ""),
    )


_NUMBERS = ("SETTLED", "PROVED", "FAILED", "BACK")


def interrupted() -> int:
    """Say that the deployment goes on without its watcher; return the exit code."""
    say("\nNobody watches any more; the deployment goes on.")
    sys.stdout.flush()
    return 130
