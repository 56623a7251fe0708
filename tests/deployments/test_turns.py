"""Turns of the threads of one process."""

from deployments.turns import Turn


def test_a_turn_is_held_by_one_at_a_time() -> None:
    turn = Turn(patience_seconds=10)

    assert turn.take(0.0)
    assert not turn.take(10.0)


def test_a_turn_that_was_given_back_is_free() -> None:
    turn = Turn(patience_seconds=10)
    turn.take(0.0)

    turn.give_back(0.0)

    assert turn.take(1.0)


def test_who_holds_a_turn_for_too_long_is_overtaken() -> None:
    turn = Turn(patience_seconds=10)
    turn.take(0.0)

    assert turn.take(10.5)


def test_one_that_was_overtaken_does_not_end_the_turn_of_the_other() -> None:
    turn = Turn(patience_seconds=10)
    turn.take(0.0)
    turn.take(10.5)

    turn.give_back(0.0)

    assert not turn.take(11.0)
