"""Which boot a heartbeat comes from. Pure: standard library, no clock of its own.

Boot ids are not always unique: counters begin again after a re-image, each of two slots
may count for itself, and two boards may share one device id and key. So a boot is told
by more than its id:

- The uptime says when it began: at the arrival less the uptime, or earlier, as a delay
  makes this later and never earlier. Mail that was under way for long gives the boot
  it left a later beginning, but none after that boot was last heard, unless it was
  longer under way than the boot had lasted.
- An id that was never heard is a new boot.
- A known id, the present one with a lower uptime or that of a former boot, is a new
  boot if it began after everything that was heard of either. Otherwise the heartbeat
  is held back: it may be late mail, another board, or a clock that was set.
- What was held back and goes on (its uptime grows with the time) is where the device
  is, if the present boot has been silent meanwhile. If that goes on as well, two
  boards have one identity.
- Where a heartbeat has no uptime, or one that stands still, only ids and silence count.
- A sequence number rises as long as the boot id is the same; one that does not is late.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum

PAST_BOOTS_KEPT = 8
# Uptimes are whole seconds, and messages are not equally long under way.
JITTER_SECONDS = 5
# Two heartbeats of one boot name the same beginning, up to this.
IN_STEP = timedelta(seconds=10)
# Longer than a queue of late mail takes to empty; also longer than `IN_STEP`, so that
# mail that comes all at once does not look like life.
LIFE = timedelta(seconds=15)
# What was held back longer ago says nothing about now.
FORGOTTEN = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Boot:
    """A boot, as far as its heartbeats tell.

    Attributes:
        started_at: the earliest beginning that a heartbeat named, None if none did.
        heard_at: when its last heartbeat came.
        uptime: seconds, as the last heartbeat said.
        sequence: of the last heartbeat that said it.
    """

    id: str
    started_at: datetime | None
    heard_at: datetime
    uptime: int | None = None
    sequence: int | None = None

    @property
    def lasted(self) -> int | None:
        """Seconds that it had lasted when it was last heard, if that is known."""
        if self.uptime is not None or self.started_at is None:
            return self.uptime
        return int((self.heard_at - self.started_at).total_seconds())


@dataclass(frozen=True, slots=True)
class HeldBack:
    """A boot that was heard beside the present one, and may be where the device is."""

    id: str
    started_at: datetime | None
    since: datetime
    heard_at: datetime
    uptime: int | None


@dataclass(frozen=True, slots=True)
class Boots:
    """What is remembered of the boots of a device, the past ones oldest first."""

    present: Boot | None = None
    past: tuple[Boot, ...] = ()
    held_back: HeldBack | None = None


class Place(Enum):
    SAME = "same"
    NEW = "new"
    HELD_BACK = "held_back"


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a heartbeat belongs.

    Attributes:
        boots: what is to be remembered from now on.
        sent_at: of late mail, when it was sent; None if that is not known.
        is_duplicate: two boards are at work under one identity.
    """

    place: Place
    boots: Boots
    sent_at: datetime | None = None
    is_duplicate: bool = False


def place(
    boots: Boots,
    *,
    boot_id: str,
    uptime: int | None,
    sequence: int | None,
    now: datetime,
) -> Placement:
    """Tell which boot a heartbeat comes from.

    Args:
        boot_id: empty if it names none; it is then taken to be the present one.
        uptime: seconds.
        now: when it came.
    """
    present = boots.present
    started_at = _beginning(uptime, now)
    boot = Boot(boot_id, started_at, now, uptime, sequence)
    if present is None:
        return Placement(Place.NEW, Boots(boot))
    boot = replace(boot, id=boot_id or present.id)
    if boot.id == present.id:
        has_begun_since = started_at is not None and started_at >= present.heard_at
        if _is_older(boot, present) and not has_begun_since:
            return Placement(Place.HELD_BACK, boots, _sent_at(present, uptime, now))
        lasted = present.lasted
        if uptime is None or lasted is None or uptime >= lasted:
            return _same(boots, present, boot)
        if has_begun_since:
            return _new(boots, present, boot)
        if lasted - uptime <= JITTER_SECONDS:
            return _same(boots, present, boot)
        return _hold_back(boots, present, None, boot)
    former = next((each for each in reversed(boots.past) if each.id == boot.id), None)
    if former is None or (
        started_at is not None and started_at >= max(former.heard_at, present.heard_at)
    ):
        return _new(boots, present, boot)
    return _hold_back(boots, present, former, boot)


def _beginning(uptime: int | None, now: datetime) -> datetime | None:
    if uptime is None:
        return None
    try:
        return now - timedelta(seconds=uptime)
    except OverflowError:
        # Longer than time has been reckoned: it is no uptime.
        return None


def _is_older(boot: Boot, present: Boot) -> bool:
    """Tell by their sequences that one was sent before the last that was heard."""
    if boot.sequence is None or present.sequence is None:
        return False
    if boot.sequence == present.sequence:
        # One that never counts is no sequence.
        return boot.uptime is not None and boot.uptime == present.uptime
    return boot.sequence < present.sequence


def _sent_at(boot: Boot, uptime: int | None, now: datetime) -> datetime | None:
    if boot.started_at is None or uptime is None:
        return None
    try:
        return min(boot.started_at + timedelta(seconds=uptime), now)
    except OverflowError:
        return None


def _same(boots: Boots, present: Boot, boot: Boot) -> Placement:
    beginnings = [at for at in (present.started_at, boot.started_at) if at is not None]
    went_on = Boot(
        present.id,
        min(beginnings, default=None),
        boot.heard_at,
        boot.uptime,
        present.sequence if boot.sequence is None else boot.sequence,
    )
    return Placement(Place.SAME, replace(boots, present=went_on))


def _new(boots: Boots, present: Boot, boot: Boot) -> Placement:
    past = tuple(each for each in boots.past if each.id not in (present.id, boot.id))
    if present.id != boot.id:
        past = (*past, present)
    return Placement(Place.NEW, Boots(boot, past[-PAST_BOOTS_KEPT:]))


def _hold_back(
    boots: Boots, present: Boot, former: Boot | None, boot: Boot
) -> Placement:
    """Hold a heartbeat back, or find out that it goes on.

    Args:
        former: the past boot of its id; None if the id is that of the present one.
    """
    now, known = boot.heard_at, boots.held_back
    first = HeldBack(boot.id, boot.started_at, now, now, boot.uptime)
    if known is None or not _goes_on(known, boot):
        kept = replace(boots, held_back=first)
        if former is None or _is_beside(boot, former, present):
            return Placement(Place.HELD_BACK, kept)
        return Placement(Place.HELD_BACK, kept, _sent_at(former, boot.uptime, now))
    went_on = replace(known, heard_at=now, uptime=boot.uptime)
    kept = replace(boots, held_back=went_on)
    if now - known.since < LIFE:
        return Placement(Place.HELD_BACK, kept)
    if present.heard_at <= known.since:
        return _new(boots, present, replace(boot, started_at=known.started_at))
    has_clock = boot.uptime is not None and boot.uptime != known.uptime
    return Placement(
        Place.HELD_BACK,
        kept,
        is_duplicate=has_clock and _is_beside(boot, former, present),
    )


def _goes_on(known: HeldBack, boot: Boot) -> bool:
    if known.id != boot.id or boot.heard_at - known.heard_at > FORGOTTEN:
        return False
    if (
        boot.started_at is None
        or known.started_at is None
        or boot.uptime == known.uptime
    ):
        return True
    return abs(boot.started_at - known.started_at) <= IN_STEP


def _is_beside(boot: Boot, former: Boot | None, present: Boot) -> bool:
    """Tell whether it was sent when the present boot had already begun."""
    if former is None or former.started_at is None or present.started_at is None:
        return former is None
    sent_at = _sent_at(former, boot.uptime, boot.heard_at)
    return sent_at is not None and sent_at > present.started_at + IN_STEP
