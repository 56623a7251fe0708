"""The phases of an order, without disk or network."""

import dataclasses
from dataclasses import replace

import pytest

from devices.agent import states
from devices.agent.protocol import Action, ErrorCode, FirmwareOffer, Order
from devices.agent.states import (
    DROPPABLE,
    TRANSITIONS,
    AgentState,
    Failure,
    Phase,
    TransitionError,
)
from devices.agent.store import decode, encode
from devices.agent.verify import Manifest

SHA256 = "ab" * 32
ORDER = Order(
    update_id="update-1",
    action=Action.INSTALL,
    firmware=FirmwareOffer(
        "2.0.0", "sensor-v1", 9, SHA256, "c2ln", "RSA-PKCS1v15-SHA256", "k", "/d"
    ),
    manifest="bQ==",
    manifest_signature="cw==",
    reboot_required=True,
)
MANIFEST = Manifest("sensor-v1", "2.0.0", 7, 3, SHA256, 9, "k")
FAILURE = Failure(ErrorCode.SELF_TEST_FAILED, "It did not come up.")


def accepted() -> AgentState:
    return states.accept(AgentState(), ORDER, MANIFEST)


def on_trial() -> AgentState:
    state = states.verified(states.downloaded(accepted()))
    state = states.installed(
        states.announced(state), boot_id="boot-1", previous_sha256="cd" * 32
    )
    return states.switched(state)


def test_every_phase_can_be_left_and_reached() -> None:
    assert set(TRANSITIONS) == set(Phase)
    assert all(TRANSITIONS.values())
    assert set().union(*TRANSITIONS.values()) == set(Phase)


def test_only_phases_before_the_announcement_can_be_dropped() -> None:
    assert {phase for phase in DROPPABLE if Phase.IDLE in TRANSITIONS[phase]} == {
        Phase.DOWNLOADING,
        Phase.VERIFYING,
        Phase.ANNOUNCING,
    }


def test_accepted_manifest_raises_the_sequence_but_not_the_security_version() -> None:
    floor = accepted().floor

    assert (floor.sequence, floor.sequence_sha256) == (7, SHA256)
    assert floor.security_version == 0


def test_passed_self_test_raises_the_security_version() -> None:
    assert states.passed(on_trial()).floor.security_version == 3


def test_fall_back_leaves_the_security_version() -> None:
    state = states.fail(states.fall_back(on_trial(), FAILURE, boot_id="boot-2"))

    assert state.floor.security_version == 0
    assert state.failure == FAILURE
    assert state.phase is Phase.FAILING


def test_reboot_is_due_only_in_the_boot_of_the_switch() -> None:
    state = on_trial()

    assert states.reboot_is_due(state, "boot-1")
    assert not states.reboot_is_due(state, "boot-2")


def test_report_sequences_only_grow_and_pending_ones_keep_theirs() -> None:
    state = states.next_report(states.next_report(accepted()))
    state = states.verified(states.downloaded(state))

    assert (state.report_sequence, state.pending_sequence) == (3, 3)
    assert states.renew_pending(state).pending_sequence == 4
    assert states.announced(state).pending_sequence == 0


def test_closed_order_leaves_the_floor_its_name_and_what_was_confirmed() -> None:
    state = states.close(states.passed(on_trial()))

    assert state == AgentState(
        floor=state.floor,
        last_closed_update_id=ORDER.update_id,
        confirmed_sha256s=(SHA256,),
    )


def test_image_is_confirmed_by_its_trial_and_no_more_than_the_slots_hold() -> None:
    assert accepted().confirmed_sha256s == on_trial().confirmed_sha256s == ()

    former = replace(on_trial(), confirmed_sha256s=("a", "b"))
    again = replace(on_trial(), confirmed_sha256s=(SHA256, "b"))

    assert states.passed(former).confirmed_sha256s == ("b", SHA256)
    assert states.passed(again).confirmed_sha256s == ("b", SHA256)


def test_phase_that_cannot_follow_is_a_fault() -> None:
    with pytest.raises(TransitionError):
        states.passed(accepted())


@pytest.mark.parametrize(
    "state",
    [
        AgentState(),
        accepted(),
        on_trial(),
        states.fall_back(on_trial(), FAILURE, boot_id="boot-2"),
        states.add_duration(accepted(), "download", 1.5),
    ],
)
def test_saved_state_is_read_back_the_same(state: AgentState) -> None:
    assert decode(encode(state)) == state


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"format": 99}'])
def test_damaged_state_is_noticed(content: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        decode(content)


def test_state_is_not_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        AgentState().phase = Phase.FAILING  # type: ignore[misc]
