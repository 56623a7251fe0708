"""What was measured, beside what has to be reached."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the table.

    Attributes:
        measured: the value that counts, as it is shown; empty when the bench failed.
        is_met: whether the target is reached.
        workload: what exactly was done, in one sentence.
    """

    work: str
    measured: str
    target: str
    is_met: bool
    workload: str


def at_most(
    work: str,
    seconds: float,
    target: float,
    workload: str,
    *,
    unit: str = "s",
    more: str = "",
) -> Line:
    """A time that must not be longer than its target."""
    return _line(
        work, seconds, f"<= {target:g} {unit}", seconds <= target, workload, unit, more
    )


def at_least(
    work: str, rate: float, target: float, workload: str, *, unit: str, more: str = ""
) -> Line:
    """A rate that must not be lower than its target."""
    return _line(
        work, rate, f">= {target:,g} {unit}", rate >= target, workload, unit, more
    )


def _line(
    work: str,
    value: float,
    target: str,
    is_met: bool,
    workload: str,
    unit: str,
    more: str,
) -> Line:
    digits = 3 if value < 1 else 2 if value < 100 else 0
    said = f"{value:,.{digits}f} {unit}" + (f" ({more})" if more else "")
    return Line(work, said, target, is_met, workload)


def failed(work: str, error: BaseException) -> Line:
    """A bench that did not come to a result."""
    return Line(work, f"FAILED: {type(error).__name__}", "a result", False, str(error))


def show(lines: list[Line], write: Callable[[str], object]) -> None:
    """Write the table, then how each line was measured."""
    rows = [
        ("Work", "Measured", "Target", "Met?"),
        *((x.work, x.measured, x.target, "yes" if x.is_met else "NO") for x in lines),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for number, row in enumerate(rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        write(f"| {' | '.join(cells)} |")
        if number == 0:
            write(f"|{'|'.join('-' * (width + 2) for width in widths)}|")
    write("")
    for line in lines:
        write(f"- {line.work}: {line.workload}")
