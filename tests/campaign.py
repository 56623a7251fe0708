"""Long, seeded campaigns of faults: which cases are tried, and what came of them.

`SEED` steers the chance in them; `CASE` is a pattern of the cases to try, so that one
that has failed can be tried again alone.
"""

import os
from collections import Counter
from dataclasses import dataclass, field
from fnmatch import fnmatch

SEED = int(os.environ.get("SEED") or 1)
CASE = os.environ.get("CASE") or "*"


def is_wanted(case: str) -> bool:
    """Say whether this case shall be tried."""
    return case == CASE or fnmatch(case, CASE)


@dataclass
class Outcome:
    """What came of a run.

    Attributes:
        tried: cases by campaign in which the fault struck.
        missed: cases by campaign that ended well before the fault could strike.
        wrong: what went wrong, by case.
    """

    tried: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    wrong: dict[str, str] = field(default_factory=dict)

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
            missed = self.missed[campaign]
            lines.append(
                f"{campaign:24} {count:5} cases {count - failed:5} passed "
                f"{failed:3} failed"
                + (f" {missed:3} ended before the fault" if missed else "")
            )
        total = self.tried.total()
        lines.append(
            f"{'all':24} {total:5} cases {total - len(self.wrong):5} passed "
            f"{len(self.wrong):3} failed"
        )
        for case in sorted(self.wrong):
            lines.append(f"again: make test-faults SEED={SEED} CASE='{case}'")
            lines.append(f"  {self.wrong[case].splitlines()[0][:200]}")
        return lines


OUTCOME = Outcome()
"""Of this run; printed at its end."""
