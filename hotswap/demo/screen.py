"""What the demo shows in the terminal.

On a terminal: lines above a progress bar. Elsewhere: plain lines only, one an event,
never broken in two.
"""

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from hotswap.demo.checks import Finding

STYLES = {"WARNING": "yellow", "ERROR": "red"}
SHOWN_DIFFERENCES = 6
PLAIN_WIDTH = 160


class Screen:
    """The terminal, or the file that stands in for it. Use it as a context."""

    def __init__(self) -> None:
        self._console = Console(
            file=sys.stdout,
            highlight=False,
            width=None if sys.stdout.isatty() else PLAIN_WIDTH,
        )
        self._progress: Progress | None = None
        if self._console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %"),
                TimeElapsedColumn(),
                TextColumn("{task.fields[detail]}", style="dim"),
                console=self._console,
                transient=True,
            )
        self._task: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end_progress()

    def say(self, text: str = "", style: str = "") -> None:
        """Print one line."""
        self._console.print(Text(text, style=style), soft_wrap=True)

    def event(
        self, seconds: float, level: str, version: str, event: str, message: str
    ) -> None:
        """Print one line of a deployment's log."""
        style = STYLES.get(level, "")
        if event in ("stage.passed", "deployment.completed", "deployment.rolled_back"):
            style = "green"
        self.say(f"{seconds:+8.1f} s  {version}  {event:<22} {message}", style)

    def show_progress(self, description: str, percent: float, detail: str) -> None:
        """Move the bar, where there is one."""
        if self._progress is None:
            return
        if self._task is None:
            self._progress.start()
            self._task = self._progress.add_task(description, total=100, detail="")
        self._progress.update(
            self._progress.task_ids[-1],
            description=description,
            completed=percent,
            detail=detail,
        )

    def end_progress(self) -> None:
        """Take the bar away."""
        if self._progress is not None and self._task is not None:
            self._progress.stop()
            self._progress.remove_task(self._progress.task_ids[-1])
            self._task = None

    def logins(self, rows: Sequence[tuple[str, str, str]]) -> None:
        """Print who may log in: name, password, what for."""
        for name, password, purpose in rows:
            self.say(f"  {name:<9} {password:<14} {purpose}")

    def findings(self, findings: Sequence[Finding]) -> None:
        """Print a table of checks, and beneath it what differs."""
        table = Table(show_header=False, box=None, padding=(0, 1))
        for finding in findings:
            style = "green" if finding.is_right else "bold red"
            word = "right" if finding.is_right else "WRONG"
            table.add_row(Text(word, style=style), finding.name, finding.seen)
        self._console.print(table)
        for finding in findings:
            for line in finding.differences[:SHOWN_DIFFERENCES]:
                self.say(f"WRONG {finding.name}: {line}", "red")
            left = len(finding.differences) - SHOWN_DIFFERENCES
            if left > 0:
                self.say(f"WRONG {finding.name}: and {left} more", "red")
