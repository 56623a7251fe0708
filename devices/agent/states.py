"""Say what the agent has to do next, as data on disk and pure functions.

Rules:
- A phase names the work to be done next, so a restarted agent simply does it.
- A phase is saved before its work begins; every work can be done twice.
- `announcing` is the last phase in which an order can be dropped. From `installing`
  on the order goes to its end: a claim, or a fall back and a failure report.
- Report sequences only grow within an order. A report that must arrive keeps its
  sequence in `pending_sequence` until it is acknowledged; the others wait in `queued`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from devices.agent.protocol import ErrorCode, Order, Report, Status
from devices.agent.spans import Step
from devices.agent.verify import Floor, Manifest


class Phase(StrEnum):
    """The work to be done next."""

    IDLE = "idle"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    ANNOUNCING = "announcing"
    INSTALLING = "installing"
    SWITCHING = "switching"
    TRYING = "trying"
    CLAIMING = "claiming"
    REVERTING = "reverting"
    FAILING = "failing"


TRANSITIONS: Mapping[Phase, frozenset[Phase]] = {
    Phase.IDLE: frozenset({Phase.DOWNLOADING, Phase.CLAIMING, Phase.FAILING}),
    Phase.DOWNLOADING: frozenset({Phase.VERIFYING, Phase.FAILING, Phase.IDLE}),
    Phase.VERIFYING: frozenset(
        {Phase.DOWNLOADING, Phase.ANNOUNCING, Phase.FAILING, Phase.IDLE}
    ),
    Phase.ANNOUNCING: frozenset({Phase.INSTALLING, Phase.IDLE}),
    Phase.INSTALLING: frozenset({Phase.SWITCHING, Phase.DOWNLOADING, Phase.FAILING}),
    Phase.SWITCHING: frozenset({Phase.TRYING, Phase.REVERTING, Phase.FAILING}),
    Phase.TRYING: frozenset({Phase.CLAIMING, Phase.REVERTING}),
    Phase.CLAIMING: frozenset({Phase.IDLE, Phase.FAILING}),
    Phase.REVERTING: frozenset({Phase.FAILING}),
    Phase.FAILING: frozenset({Phase.IDLE}),
}

DROPPABLE = frozenset({Phase.DOWNLOADING, Phase.VERIFYING, Phase.ANNOUNCING})
"""Phases in which a closed order leaves no trace on the device."""


NO_FLOOR = Floor()
MAX_QUEUED = 16
MAX_STEPS = 32
# As many as there are slots.
MAX_CONFIRMED = 2


class TransitionError(ValueError):
    """A phase cannot follow another: a fault of the agent itself."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the order ended, to be reported."""

    code: ErrorCode
    message: str


@dataclass(frozen=True, slots=True)
class AgentState:
    """All that the agent must not forget.

    `switch_boot_id` is the boot in which the switch (or the switch back) was decided;
    any other boot id is the reboot that was asked for. `confirmed_sha256s` are the
    images of orders that have passed their trial, the latest last.
    """

    phase: Phase = Phase.IDLE
    order: Order | None = None
    manifest: Manifest | None = None
    floor: Floor = NO_FLOOR
    report_sequence: int = 0
    pending_sequence: int = 0
    queued: tuple[Report, ...] = ()
    failure: Failure | None = None
    fetches: int = 0
    boot_attempts: int = 0
    reboot_requests: int = 0
    switch_boot_id: str = ""
    previous_sha256: str = ""
    durations_seconds: tuple[tuple[str, float], ...] = ()
    steps: tuple[Step, ...] = ()
    reboot_began_at: datetime | None = None
    spans_exported: bool = False
    last_closed_update_id: str = ""
    confirmed_sha256s: tuple[str, ...] = ()

    def open_order(self) -> Order:
        """Give the order in progress.

        Raises:
            TransitionError: there is none.
        """
        if self.order is None:
            raise TransitionError(f"no order in phase {self.phase}")
        return self.order

    def open_manifest(self) -> Manifest:
        """Give the accepted manifest of the order in progress.

        Raises:
            TransitionError: there is none.
        """
        if self.manifest is None:
            raise TransitionError(f"no manifest in phase {self.phase}")
        return self.manifest


def accept(state: AgentState, order: Order, manifest: Manifest) -> AgentState:
    """Take an order whose manifest was verified; its sequence becomes the floor."""
    return replace(
        _begin(state, order, Phase.DOWNLOADING),
        manifest=manifest,
        floor=replace(
            state.floor, sequence=manifest.sequence, sequence_sha256=manifest.sha256
        ),
    )


def refuse(state: AgentState, order: Order, failure: Failure) -> AgentState:
    """Take an order only to report that it is refused."""
    return _pending(replace(_begin(state, order, Phase.FAILING), failure=failure))


def claim_at_once(state: AgentState, order: Order, manifest: Manifest) -> AgentState:
    """Take an order that the running image already fulfils."""
    accepted = accept(state, order, manifest)
    return _pending(replace(accepted, phase=Phase.CLAIMING))


def downloaded(state: AgentState) -> AgentState:
    """Go on to verification: all bytes are there."""
    return _to(state, Phase.VERIFYING)


def fetch_again(state: AgentState) -> AgentState:
    """Go back to the download after the bytes proved bad."""
    return replace(_to(state, Phase.DOWNLOADING), fetches=state.fetches + 1)


def verified(state: AgentState) -> AgentState:
    """Go on to announce the installation, the point of no return."""
    return _pending(_to(state, Phase.ANNOUNCING))


def announced(state: AgentState) -> AgentState:
    """Go on to install: the server knows."""
    return replace(_to(state, Phase.INSTALLING), pending_sequence=0)


def installed(state: AgentState, *, boot_id: str, previous_sha256: str) -> AgentState:
    """Go on to switch slots.

    Args:
        state: the state so far.
        boot_id: the boot in which the switch is decided.
        previous_sha256: the image to fall back to, "" if there is none.
    """
    return replace(
        _to(state, Phase.SWITCHING),
        switch_boot_id=boot_id,
        previous_sha256=previous_sha256,
        boot_attempts=0,
        reboot_requests=0,
    )


def reboot_is_due(state: AgentState, boot_id: str) -> bool:
    """Say whether the device still has to reboot after a switch."""
    return state.open_order().reboot_required and state.switch_boot_id == boot_id


def reboot_requested(state: AgentState, at: datetime) -> AgentState:
    """Count one request to reboot."""
    return replace(
        state,
        reboot_requests=state.reboot_requests + 1,
        reboot_began_at=state.reboot_began_at or at,
    )


def came_up(state: AgentState, at: datetime) -> AgentState:
    """Note that the reboot that was asked for is over, if there was one."""
    began_at = state.reboot_began_at
    if began_at is None:
        return state
    step = Step("reboot", began_at, max(0.0, (at - began_at).total_seconds()))
    return replace(add_step(state, step), reboot_began_at=None)


def switch_again(state: AgentState, boot_id: str) -> AgentState:
    """Switch once more: a reboot came before the switch was noted."""
    return replace(state, switch_boot_id=boot_id)


def switched(state: AgentState) -> AgentState:
    """Go on to try the new image."""
    return _to(state, Phase.TRYING)


def boot_attempted(state: AgentState) -> AgentState:
    """Count one start of the image on trial."""
    return replace(state, boot_attempts=state.boot_attempts + 1)


def passed(state: AgentState) -> AgentState:
    """Go on to claim; the image is confirmed, its security version the floor."""
    sha256 = state.open_manifest().sha256
    others = [each for each in state.confirmed_sha256s if each != sha256]
    security_version = max(
        state.floor.security_version, state.open_manifest().security_version
    )
    return _pending(
        replace(
            _to(state, Phase.CLAIMING),
            floor=replace(state.floor, security_version=security_version),
            confirmed_sha256s=(*others, sha256)[-MAX_CONFIRMED:],
        )
    )


def fall_back(state: AgentState, failure: Failure, *, boot_id: str) -> AgentState:
    """Go back to the previous image."""
    return replace(
        _to(state, Phase.REVERTING),
        failure=failure,
        switch_boot_id=boot_id,
        reboot_requests=0,
    )


def fail(state: AgentState, failure: Failure | None = None) -> AgentState:
    """Go on to report a failure, by default the one already noted."""
    return _pending(
        replace(_to(state, Phase.FAILING), failure=failure or state.failure)
    )


def close(state: AgentState) -> AgentState:
    """Be done with the order: acknowledged, or closed by the server."""
    order = state.open_order()
    return AgentState(
        phase=_to(state, Phase.IDLE).phase,
        floor=state.floor,
        last_closed_update_id=order.update_id,
        confirmed_sha256s=state.confirmed_sha256s,
    )


def next_report(state: AgentState) -> AgentState:
    """Use up one report sequence, for a report that may be lost."""
    return replace(state, report_sequence=state.report_sequence + 1)


def queue_report(state: AgentState, report: Report) -> AgentState:
    """Let a report wait for the server, in place of an older one on the download."""
    is_progress = report.status is Status.DOWNLOADING
    kept = [
        each
        for each in state.queued
        if not (is_progress and each.status is Status.DOWNLOADING)
    ]
    return replace(state, queued=(*kept, report)[-MAX_QUEUED:])


def forget_first_queued(state: AgentState) -> AgentState:
    """Drop the report that has waited longest: it was sent or refused."""
    return replace(state, queued=state.queued[1:])


def forget_queued(state: AgentState) -> AgentState:
    """Drop all waiting reports: nobody wants them any more."""
    return replace(state, queued=())


def renew_pending(state: AgentState) -> AgentState:
    """Give the pending report a new sequence because its content has changed."""
    return _pending(state)


def add_duration(state: AgentState, name: str, seconds: float) -> AgentState:
    """Add to the time spent on one part of the order."""
    durations = dict(state.durations_seconds)
    durations[name] = round(durations.get(name, 0.0) + seconds, 3)
    return replace(state, durations_seconds=tuple(durations.items()))


def add_step(state: AgentState, step: Step) -> AgentState:
    """Remember what was done of the order, and when."""
    return replace(state, steps=(*state.steps, step)[-MAX_STEPS:])


def _begin(state: AgentState, order: Order, phase: Phase) -> AgentState:
    return AgentState(
        phase=_to(state, phase).phase,
        order=order,
        floor=state.floor,
        last_closed_update_id=state.last_closed_update_id,
        confirmed_sha256s=state.confirmed_sha256s,
    )


def _pending(state: AgentState) -> AgentState:
    sequence = state.report_sequence + 1
    return replace(state, report_sequence=sequence, pending_sequence=sequence)


def _to(state: AgentState, phase: Phase) -> AgentState:
    if phase not in TRANSITIONS[state.phase]:
        raise TransitionError(f"{state.phase} cannot be followed by {phase}")
    return replace(state, phase=phase)
