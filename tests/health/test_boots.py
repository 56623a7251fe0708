"""Telling boots apart: ids that repeat, late mail, two boards."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from health.boots import LIFE, Boots, Place, Placement, place

START = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
NEW, SAME, HELD_BACK = Place.NEW, Place.SAME, Place.HELD_BACK


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@dataclass(frozen=True)
class Beat:
    """A heartbeat: when it came, its boot id, its uptime, its sequence."""

    seconds: float
    boot_id: str
    uptime: int | None = None
    sequence: int | None = None


def placed(*beats: Beat) -> list[Placement]:
    boots, found = Boots(), []
    for beat in beats:
        placement = place(
            boots,
            boot_id=beat.boot_id,
            uptime=beat.uptime,
            sequence=beat.sequence,
            now=at(beat.seconds),
        )
        boots = placement.boots
        found.append(placement)
    return found


def places(*beats: Beat) -> list[Place]:
    return [each.place for each in placed(*beats)]


def test_an_unknown_id_is_a_new_boot_whatever_its_uptime() -> None:
    found = places(Beat(0, "a", 50), Beat(30, "b", 9999), Beat(60, "c"))

    assert found == [NEW, NEW, NEW]


def test_a_heartbeat_without_an_id_is_of_the_present_boot() -> None:
    found = places(Beat(0, "a", 50), Beat(30, "", 80), Beat(60, "", 5))

    assert found == [NEW, SAME, NEW]


def test_late_mail_of_a_former_boot_is_held_back_with_its_own_time() -> None:
    late = placed(
        Beat(0, "a", 1000), Beat(60, "b", 10), Beat(70, "a", 1035), Beat(90, "b", 40)
    )

    assert [each.place for each in late] == [NEW, NEW, HELD_BACK, SAME]
    assert late[2].sent_at == at(35)
    assert not any(each.is_duplicate for each in late)


def test_a_queue_of_late_mail_that_empties_at_once_is_no_life() -> None:
    queue = [Beat(70 + n / 10, "a", 1000 + 30 * n) for n in range(20)]

    found = places(Beat(0, "a", 970), Beat(60, "b", 10), *queue, Beat(90, "b", 40))

    assert set(found[2:-1]) == {HELD_BACK}
    assert found[-1] is SAME


def test_an_id_that_comes_again_with_a_boot_of_its_own_is_new() -> None:
    """A counter of each slot: 1, 1, 2, 2 without the names of the slots."""
    found = places(
        Beat(0, "1", 5000), Beat(30, "2", 10), Beat(60, "1", 15), Beat(90, "1", 45)
    )

    assert found == [NEW, NEW, NEW, SAME]


def test_a_constant_id_begins_anew_where_the_uptime_does() -> None:
    found = places(Beat(0, "x", 5000), Beat(30, "x", 5030), Beat(60, "x", 12))

    assert found == [NEW, SAME, NEW]


def test_an_uptime_that_was_left_out_once_does_not_hide_a_boot() -> None:
    found = places(Beat(0, "x", 5000), Beat(30, "x"), Beat(60, "x", 12))

    assert found == [NEW, SAME, NEW]


def test_an_uptime_that_trembles_is_no_boot() -> None:
    found = places(
        Beat(0, "x", 100), Beat(30, "x", 131), Beat(31, "x", 129), Beat(61, "x", 161)
    )

    assert found == [NEW, SAME, SAME, SAME]


def test_an_uptime_that_does_not_count_sleep_is_no_boot() -> None:
    found = places(Beat(0, "x", 5), Beat(3600, "x", 10), Beat(7200, "x", 15))

    assert found == [NEW, SAME, SAME]


def test_an_uptime_that_stands_still_is_no_boot_and_freezes_nothing() -> None:
    found = places(
        Beat(0, "a", 7), Beat(30, "a", 7), Beat(31, "b", 7), Beat(35, "a", 7)
    )
    later = places(
        Beat(0, "a", 70), Beat(30, "b", 70), Beat(60, "a", 70), Beat(90, "a", 70)
    )

    assert found == [NEW, SAME, NEW, HELD_BACK]
    assert later[-1] is NEW


def test_a_clock_that_was_set_back_holds_one_heartbeat_back() -> None:
    found = places(
        Beat(0, "x", 10_000),
        Beat(30, "x", 6400),
        Beat(60, "x", 6430),
        Beat(90, "x", 6460),
    )

    assert found == [NEW, HELD_BACK, NEW, SAME]


def test_a_sequence_that_does_not_rise_is_late() -> None:
    found = places(
        Beat(0, "x", 100, 1),
        Beat(30, "x", 130, 3),
        Beat(31, "x", 115, 2),
        Beat(32, "x", 130, 3),
        Beat(60, "x", 160, 4),
    )

    assert found == [NEW, SAME, HELD_BACK, HELD_BACK, SAME]


def test_a_sequence_that_begins_again_with_the_boot_is_no_late_mail() -> None:
    found = places(Beat(0, "x", 5000, 90), Beat(60, "x", 10, 1), Beat(90, "x", 40, 2))

    assert found == [NEW, NEW, SAME]


def test_a_sequence_that_stands_still_is_none() -> None:
    assert places(Beat(0, "x", 5, 1), Beat(30, "x", 35, 1)) == [NEW, SAME]


def test_two_boots_that_both_go_on_are_two_boards() -> None:
    found = placed(
        Beat(0, "a", 1000),
        Beat(30, "b", 10),
        Beat(45, "a", 1045),
        Beat(60, "b", 40),
        Beat(75, "a", 1075),
    )

    assert [each.is_duplicate for each in found] == [False] * 4 + [True]


def test_two_boards_with_the_same_boot_id_are_found_by_their_uptimes() -> None:
    beats = []
    for turn in range(3):
        beats += [Beat(30 * turn, "x", 5000 + 30 * turn)]
        beats += [Beat(30 * turn + 10, "x", 700 + 30 * turn)]

    assert placed(*beats)[-1].is_duplicate


def test_a_boot_that_goes_on_while_the_newer_one_is_silent_is_taken() -> None:
    found = places(
        Beat(0, "a", 1000), Beat(30, "b", 10), Beat(60, "a", 1060), Beat(90, "a", 1090)
    )

    assert found == [NEW, NEW, HELD_BACK, NEW]


# --- Whatever a device does -----------------------------------------------------------

IDS = st.sampled_from(["a", "b", "c", ""])
UPTIMES = st.none() | st.integers(0, 2**53)
BEATS = st.lists(
    st.tuples(st.floats(0, 600), IDS, UPTIMES, st.none() | st.integers(0, 9)),
    max_size=20,
)


@given(BEATS)
def test_nothing_is_too_odd_to_be_placed(
    given_beats: list[tuple[float, str, int | None, int | None]],
) -> None:
    seconds, beats = 0.0, []
    for pause, boot_id, uptime, sequence in given_beats:
        seconds += pause
        beats.append(Beat(seconds, boot_id, uptime, sequence))

    for placement in placed(*beats):
        present = placement.boots.present
        assert present is not None
        assert len(placement.boots.past) <= 8
        assert present.id not in {each.id for each in placement.boots.past}


# Lives of one honest board: how long each boot lasts, with how many seconds between
# heartbeats and until the next boot.
LIVES = st.lists(
    st.tuples(st.integers(1, 2000), st.integers(1, 300), st.integers(0, 120)),
    min_size=1,
    max_size=6,
)


def live(lives: list[tuple[int, int, int]], ids: list[str]) -> list[tuple[Beat, bool]]:
    """Return the heartbeats of a board, each with whether it is the first of a boot."""
    now = 0.0
    beats: list[tuple[Beat, bool]] = []
    for number, (lasts, interval, pause) in enumerate(lives):
        boot_id = ids[number % len(ids)]
        beats += [
            # It takes a moment until a message arrives.
            (Beat(now + uptime + 0.2, boot_id, uptime), uptime == 0)
            for uptime in range(0, lasts, interval)
        ]
        now += lasts + pause
    return beats


@given(LIVES, st.sampled_from([["a"], ["a", "b"], list("abcdefgh")]))
def test_every_boot_of_an_honest_board_is_recognised_whatever_its_ids(
    lives: list[tuple[int, int, int]], ids: list[str]
) -> None:
    beats = live(lives, ids)

    found = placed(*[beat for beat, _ in beats])

    last = Beat(0, "")
    for placement, (beat, is_first) in zip(found, beats, strict=True):
        # One that ended with its first heartbeat leaves no uptime that could fall.
        if is_first and (last.uptime or last.boot_id != beat.boot_id):
            assert placement.place is NEW, beat
        elif not is_first:
            assert placement.place is SAME, beat
        assert not placement.is_duplicate
        last = beat


@given(LIVES, st.data())
def test_late_mail_of_an_honest_board_never_passes_for_a_boot(
    lives: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    beats = [beat for beat, _ in live(lives, list("abcdefgh"))]
    late = data.draw(st.sampled_from(beats))
    last = beats[-1]
    delay = last.seconds - late.seconds + data.draw(st.floats(0, LIFE.total_seconds()))
    # What arrives after the last heartbeat, and was under way for less than the boot
    # that sent it had lasted by then.
    arrives = Beat(late.seconds + delay, late.boot_id, late.uptime)

    *_, found = placed(*beats, arrives)

    if late.boot_id != last.boot_id and (late.uptime or 0) >= LIFE.total_seconds():
        assert found.place is HELD_BACK
    assert not found.is_duplicate
