"""Two revisions in turn on one machine: `python -m tests.bench ... --against REV`.

Machines differ from day to day, and one machine from hour to hour, so that a figure of
yesterday proves nothing. Each round runs the same benches of both, the one that comes
first changing from round to round; what counts is the ratio of the medians.

The earlier one runs its own code with its own benches, and the packages of this one. A
line that only one of them has is left out.
"""

import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from tests.earlier import put_earlier
from tests.live import PROJECT_DIR

# A row of the table of `tests.bench.table.show`, with a figure and its unit.
ROW: Final = re.compile(r"\| (?P<work>.+?) +\| (?P<value>[\d,]+(?:\.\d+)?) .*\|")
HERE: Final = "here"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What one line of the table was in both revisions.

    Attributes:
        before, here: the figures of all rounds.
    """

    work: str
    before: list[float]
    here: list[float]

    @property
    def ratio(self) -> float:
        """The median of this one by that of the earlier one; infinite above 0."""
        former = median(self.before)
        return median(self.here) / former if former else float("inf")


def figures_of(said: str) -> dict[str, float]:
    """Return the figures of a table by the names of their lines."""
    return {
        found["work"]: float(found["value"].replace(",", ""))
        for found in map(ROW.match, said.splitlines())
        if found is not None
    }


def compare(
    revision: str,
    options: list[str],
    *,
    rounds: int,
    folder: Path,
    say: Callable[[str], object],
) -> list[Comparison]:
    """Run the benches of both revisions in turn.

    Args:
        options: names of benches and their options, as each of them takes.
        folder: of the files of the earlier revision; made here.

    Raises:
        NoHistoryError: there is no such revision.
    """
    put_earlier(revision, folder)
    trees = {revision: folder, HERE: PROJECT_DIR}
    found: dict[str, dict[str, list[float]]] = {
        name: defaultdict(list) for name in trees
    }
    for number in range(rounds):
        for name in (revision, HERE) if number % 2 == 0 else (HERE, revision):
            say(f"Round {number + 1} of {rounds}, {name} ...")
            for work, value in figures_of(_run(trees[name], options)).items():
                found[name][work].append(value)
    return [
        Comparison(work, before, found[HERE][work])
        for work, before in found[revision].items()
        if work in found[HERE]
    ]


def _run(tree: Path, options: list[str]) -> str:
    """Run the benches of a tree, and return what they print.

    Whether they met their targets is no matter here.
    """
    return subprocess.run(
        [sys.executable, "-m", "tests.bench", *options],
        cwd=tree,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    ).stdout


def table_of(revision: str, found: list[Comparison]) -> Iterator[str]:
    """Yield the lines of a table: medians with the least and the most; their ratio."""
    yield f"| Work | {revision} | {HERE} | Ratio |"
    yield "|---|---|---|---|"
    for line in found:
        cells = [line.work, _spread(line.before), _spread(line.here)]
        yield f"| {' | '.join(cells)} | {line.ratio:.2f} |"


def _spread(values: list[float]) -> str:
    return f"{median(values):,.2f} ({min(values):,.2f} to {max(values):,.2f})"
