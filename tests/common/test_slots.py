"""Slots for what holds a thread while it waits."""

import threading

import pytest

from hotswap.common.slots import SHARES, Slots


def test_a_slot_that_is_soon_free_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hotswap.common.slots.STUCK_SECONDS", 60.0)
    slots = Slots(1)
    give_back = slots.take()
    assert give_back is not None
    taken: list[object] = []
    thread = threading.Thread(target=lambda: taken.append(slots.take()))
    thread.start()

    give_back()

    thread.join(60)
    assert taken != [None]
    assert not thread.is_alive()


def test_a_slot_is_given_back_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hotswap.common.slots.STUCK_SECONDS", 0.0)
    slots = Slots(1)
    give_back = slots.take()
    assert give_back is not None

    give_back()
    held = slots.take()
    give_back()

    assert held is not None
    assert slots.take() is None


def test_a_thread_is_left_whatever_clients_do() -> None:
    assert sum(SHARES.values()) < 16
