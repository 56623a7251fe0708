"""Long, seeded campaigns of faults: which cases are tried, and what came of them.

`SEED` steers the chance in them; `CASE` is a pattern of the cases to try, so that one
that has failed can be tried again alone. With `ALL=1` no case is left out for want of
time; what was left out otherwise is counted in the report.
"""

import contextlib
import os
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


@dataclass
class Outcome:
    """What came of a run.

    Attributes:
        tried: cases by campaign in which the fault struck.
        missed: cases by campaign that ended well before the fault could strike.
        left_out: cases by campaign for which there was no time.
        takeovers: seconds until another took over, by case.
        wrong: what went wrong, by case.
    """

    tried: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    takeovers: dict[str, float] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)

    @contextlib.contextmanager
    def trying(self, case: str) -> Iterator[None]:
        """Count one case of the campaign before its colon, and what came of it."""
        self.tried[case.split(":")[0]] += 1
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
            failed = sum(
                case == campaign or case.startswith(f"{campaign}:")
                for case in self.wrong
            )
            missed, left = self.missed[campaign], self.left_out[campaign]
            lines.append(
                f"{campaign:24} {count:5} cases {count - failed:5} passed "
                f"{failed:3} failed"
                + (f" {missed:3} ended before the fault" if missed else "")
                + (f"; {left} more were left out, ALL=1 tries them" if left else "")
            )
        total = self.tried.total()
        lines.append(
            f"{'all':24} {total:5} cases {total - len(self.wrong):5} passed "
            f"{len(self.wrong):3} failed"
        )
        if self.takeovers:
            longest = max(self.takeovers, key=lambda case: self.takeovers[case])
            lines.append(
                f"longest takeover {self.takeovers[longest]:.1f} s, in {longest}"
            )
        for case in sorted(self.wrong):
            lines.append(f"again: make test-faults SEED={SEED} CASE='{case}'")
            lines.append(f"  {self.wrong[case].splitlines()[0][:200]}")
        return lines


OUTCOME = Outcome()
"""Of this run; printed at its end."""
