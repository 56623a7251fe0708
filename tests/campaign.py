"""Long, seeded campaigns of faults: which cases are tried, and what came of them.

`SEED` steers the chance in them; `CASE` is a pattern of the cases to try, so that one
that has failed can be tried again alone. With `ALL=1` no case is left out for want of
time; what was left out otherwise is counted in the report.
"""

import contextlib
import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch

SEED = int(os.environ.get("SEED") or 1)
CASE = os.environ.get("CASE") or "*"
TRIES_ALL = os.environ.get("ALL") == "1" or CASE != "*"


def is_wanted(case: str) -> bool:
    """Say whether this case shall be tried."""
    return case == CASE or fnmatch(case, CASE)


def campaigns_of(case: str) -> list[str]:
    """Return the names before the colon, one or several with a plus in between."""
    return case.split(":")[0].split("+")


@dataclass
class Outcome:
    """What came of a run.

    Attributes:
        tried: cases by campaign in which the fault struck.
        missed: cases by campaign that ended well before the fault could strike.
        left_out: cases by campaign for which there was no time.
        takeovers: seconds until another took over, by case.
        wrong: what went wrong, by case.
        counts: what else is counted, by what it is.
        again: the command that tries a case again, with `{}` in its place.
    """

    tried: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    takeovers: dict[str, float] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    again: str = f"make test-faults SEED={SEED} CASE='{{}}'"

    def chance_of(self, case: str) -> random.Random:
        """Return the chance that steers a case."""
        return random.Random(f"{SEED}-{case}")

    @contextlib.contextmanager
    def trying(self, case: str) -> Iterator[None]:
        """Count one case of each campaign before its colon, and what came of it."""
        self.tried.update(campaigns_of(case))
        try:
            yield
        except BaseException as error:
            self.wrong[case] = f"{type(error).__name__}: {error}"
            raise

    def lines(self) -> list[str]:
        """Give the report at the end."""
        if not self.tried:
            return []
        lines = [f"seed {SEED}"]
        for campaign, count in sorted(self.tried.items()):
            failed = sum(campaign in campaigns_of(case) for case in self.wrong)
            missed, left = self.missed[campaign], self.left_out[campaign]
            lines.append(
                f"{campaign:24} {count:5} cases {count - failed:5} passed "
                f"{failed:3} failed"
                + (f" {missed:3} ended before the fault" if missed else "")
                + (f"; {left} more were left out" if left else "")
            )
        total = self.tried.total()
        failed = sum(len(campaigns_of(case)) for case in self.wrong)
        lines.append(
            f"{'all':24} {total:5} cases {total - failed:5} passed {failed:3} failed"
        )
        if self.takeovers:
            longest = max(self.takeovers, key=lambda case: self.takeovers[case])
            lines.append(
                f"longest takeover {self.takeovers[longest]:.1f} s, in {longest}"
            )
        lines += [f"{what:24} {count:5}" for what, count in self.counts.items()]
        for case in sorted(self.wrong):
            lines.append(f"again: {self.again.format(case)}")
            lines.append(f"  {self.wrong[case].splitlines()[0][:200]}")
        return lines


OUTCOME = Outcome()
"""Of this run; printed at its end."""
