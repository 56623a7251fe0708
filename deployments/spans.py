"""The spans of an order, from its row and the reports of its device.

Pure: nothing but the standard library. Source: specification, Distributed Tracing.

Rules:
- Phases are those of the specification, by its names. One that did not happen (nothing
  had to be fetched, no reboot was due) has no span; one that happened twice has one,
  from its first beginning to its last end.
- Times are those that the device gives, held between the time of the order and the
  arrival of the report. A clock that is wrong is corrected by the report that arrived
  soonest after it was made, for each boot by itself, and the spans say so.
- The phase in which an order failed has its error.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

DEPLOYMENT_ID: Final = "hotswap.deployment.id"
DEVICE_ID: Final = "hotswap.device.id"
FIRMWARE_VERSION: Final = "hotswap.firmware.version"
NOTIFY: Final = "device.notify"
DOWNLOAD: Final = "firmware.download"
VERIFY: Final = "firmware.verify"
INSTALL: Final = "firmware.install"
REBOOT: Final = "device.reboot"
CHECK: Final = "health.check"
# What begins with a report of this word.
PHASES: Final = {
    "downloading": DOWNLOAD,
    "verifying": VERIFY,
    "installing": INSTALL,
    "rebooting": REBOOT,
    "confirming": CHECK,
}
# By a clock that is right a report takes so long at most; it may be ahead by so much.
USUAL_DELAY: Final = timedelta(seconds=5)
MOST_AHEAD: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class ReportMark:
    """One report that was applied.

    Attributes:
        word: its status.
        occurred_at: by the clock of the device; None where it did not say.
        boot_id: "" where it did not say.
    """

    word: str
    received_at: datetime
    occurred_at: datetime | None = None
    boot_id: str = ""


@dataclass(frozen=True, slots=True)
class Course:
    """An order, and what was reported of it, by sequence.

    Attributes:
        closed_at: None while it is open.
        error: the code of its failure, "" if it did not fail.
        durations: seconds by the names of the agent (`download`, `verify`, `install`,
            `selfTest`), as far as the device measured.
    """

    offered_at: datetime
    closed_at: datetime | None
    error: str
    durations: Mapping[str, float]
    reports: Sequence[ReportMark]


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase of an order.

    Attributes:
        clock_offset: what was added to the times of the device; None where its clock
            was right, or it gave no times.
    """

    name: str
    start: datetime
    end: datetime
    error: str = ""
    clock_offset: timedelta | None = None


def phases_of(course: Course) -> list[Phase]:
    """Return the phases that are over, in the order of their beginnings."""
    offsets = clock_offsets(course.reports)
    times = _times(course, offsets)
    moments = [
        (said.word, at, offsets.get(said.boot_id))
        for said, at in zip(course.reports, times, strict=True)
    ]
    found: dict[str, Phase] = {}
    ends = [*times[1:], course.closed_at or course.offered_at][: len(moments)]
    current = ""
    for (word, start, offset), end in zip(moments, ends, strict=True):
        name = PHASES.get(word, "")
        if not name:
            continue
        current = name
        before = found.get(name)
        found[name] = Phase(
            name,
            before.start if before else start,
            max(start, end),
            clock_offset=offset if before is None else before.clock_offset or offset,
        )
    _measure(found, course.durations)
    if course.error and current:
        found[current] = replace(found[current], error=course.error)
    if course.closed_at is None:
        # The device is still at it.
        found.pop(current, None)
    return sorted(found.values(), key=lambda phase: phase.start)


def clock_offsets(reports: Iterable[ReportMark]) -> dict[str, timedelta]:
    """Return by how much the clock of each boot was wrong, where it was.

    The report that arrived soonest after it was made tells best: what is left in it is
    the way it took, and that is short.
    """
    least: dict[str, timedelta] = {}
    for said in reports:
        if said.occurred_at is not None:
            late = said.received_at - said.occurred_at
            least[said.boot_id] = min(late, least.get(said.boot_id, late))
    return {
        boot: late
        for boot, late in least.items()
        if not -MOST_AHEAD <= late <= USUAL_DELAY
    }


def _times(course: Course, offsets: Mapping[str, timedelta]) -> list[datetime]:
    """Return when each report was made: never before the one before it."""
    times: list[datetime] = []
    earliest = course.offered_at
    for said in course.reports:
        at = said.received_at
        if said.occurred_at is not None:
            late = at - said.occurred_at
            before = late - offsets.get(said.boot_id, timedelta(0))
            # A clock may go from the year 1 to 9999, and no time lies before that.
            at -= min(before, at - earliest)
        earliest = max(earliest, min(at, said.received_at))
        times.append(earliest)
    return times


def _measure(found: dict[str, Phase], durations: Mapping[str, float]) -> None:
    """Let the device's own measurements say where a phase ended or began."""
    for phase, name in ((VERIFY, "verify"), (INSTALL, "install")):
        if phase in found and name in durations:
            end = found[phase].start + _seconds(durations[name])
            found[phase] = replace(found[phase], end=min(end, found[phase].end))
    if CHECK in found and "selfTest" in durations:
        # It begins with the self test, which the claim follows.
        earlier = [phase.start for name, phase in found.items() if name != CHECK]
        start = found[CHECK].start - _seconds(durations["selfTest"])
        start = max([start, *earlier])
        found[CHECK] = replace(found[CHECK], start=start)
        if REBOOT in found:
            end = max(found[REBOOT].start, min(found[REBOOT].end, start))
            found[REBOOT] = replace(found[REBOOT], end=end)


def _seconds(value: float) -> timedelta:
    return timedelta(seconds=min(value, 1e9))
