"""What the fuzzing has tried, and what it has found."""

import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from django.core.signals import got_request_exception

SEED = int(os.environ.get("SEED") or 1)
# Drawn from the description, and odd ones, which cost a tenth; `make fuzz` sends more.
DRAWN = int(os.environ.get("REQUESTS") or 1_500)
ODD = int(os.environ.get("ODD_REQUESTS") or 8_500)
MOST_SHOWN = 40


@dataclass
class Findings:
    """Counts of a run.

    Attributes:
        statuses: requests by part of the run and first digit of their status.
        wrong: how often each kind of fault was seen; a kind is a route and a fault.
        first: the request that showed a kind first.
        refused: kinds of valid requests that were refused all the same.
    """

    statuses: Counter[tuple[str, str]] = field(default_factory=Counter)
    wrong: Counter[tuple[str, str]] = field(default_factory=Counter)
    first: dict[tuple[str, str], str] = field(default_factory=dict)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)

    def count(self, part: str, status: int) -> None:
        """Count a request."""
        self.statuses[part, f"{status // 100}xx"] += 1

    def sent(self, part: str) -> int:
        """Return how many requests a part of the run has sent."""
        return sum(n for (each, _), n in self.statuses.items() if each == part)

    def taken(self, part: str) -> int:
        """Return how many of them were granted."""
        return self.statuses[part, "2xx"]

    def add(self, route: str, fault: str, request: object) -> None:
        """Note a fault."""
        self.wrong[route, fault] += 1
        self.first.setdefault((route, fault), str(request))

    def of(self, part: str) -> dict[str, int]:
        """Return the kinds of faults that a part of the run has found."""
        return {
            f"{route}: {fault}": count
            for (route, fault), count in self.wrong.items()
            if route.startswith(part)
        }

    def lines(self) -> list[str]:
        """Give the report at the end."""
        if not self.statuses:
            return []
        lines = [f"seed {SEED}, {self.statuses.total():,} requests"]
        for part in sorted({part for part, _ in self.statuses}):
            found = ", ".join(
                f"{count:,} {status}"
                for (each, status), count in sorted(self.statuses.items())
                if each == part
            )
            lines.append(f"{part:12} {self.sent(part):9,}: {found}")
        lines.append(f"{len(self.wrong)} kinds of faults")
        for (route, fault), count in self.wrong.most_common(MOST_SHOWN):
            lines.append(f"{count:5} x {route}: {fault}")
            lines.append(f"        {self.first[route, fault]}")
        if self.refused:
            lines.append("valid by the description, refused for more than it can say:")
        for (route, fault), count in self.refused.most_common(MOST_SHOWN):
            lines.append(f"{count:5} x {route}: {fault}")
        return lines


FINDINGS = Findings()
"""Of this run; printed at its end."""


class Failures:
    """The exceptions behind the answers that are 5xx."""

    def __init__(self) -> None:
        self.last: BaseException | None = None

    def note(self, **_: Any) -> None:
        """Remember the exception that is being handled."""
        self.last = sys.exc_info()[1]

    def take(self) -> BaseException | None:
        """Return the exception of the last request, if there was one."""
        found, self.last = self.last, None
        return found


FAILURES = Failures()
got_request_exception.connect(FAILURES.note)
