"""Keep the agent's state where a crash cannot tear it.

Rules:
- `save` returns only when the state is on the medium; the agent acts after that.
- A state file that cannot be read is set aside, never guessed at.
"""

import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from devices.agent.files import write_atomically
from devices.agent.protocol import (
    ErrorCode,
    ProtocolError,
    Report,
    Status,
    order_to_wire,
    parse_order,
)
from devices.agent.spans import Step
from devices.agent.states import AgentState, Failure, Phase
from devices.agent.verify import Floor, Manifest

FORMAT = 1


class StateDamagedError(ValueError):
    """The stored state cannot be read."""


class StateNotSavedError(Exception):
    """The medium does not take the state: full, worn out or gone."""


class StateStore(Protocol):
    """Where the state lives."""

    def load(self) -> AgentState | None:
        """Give the saved state, None if nothing was ever saved.

        Raises:
            StateDamagedError: something was saved but cannot be read.
        """

    def save(self, state: AgentState) -> None:
        """Save the state; it survives a power cut once this returns."""


@dataclass(frozen=True, slots=True)
class FileStateStore:
    """One JSON file, replaced atomically."""

    path: Path

    def load(self) -> AgentState | None:
        """See `StateStore`. A damaged file is kept beside as `.damaged`."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            return decode(content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self.path.replace(self.path.with_name(self.path.name + ".damaged"))
            raise StateDamagedError(str(error)) from error

    def save(self, state: AgentState) -> None:
        """See `StateStore`."""
        write_atomically(
            self.path,
            encode(state),
            crash_prefix=f"store.{state.phase}",
        )


@dataclass(slots=True)
class SavedState:
    """The state in hand and the place where it is kept."""

    store: StateStore
    value: AgentState = field(default_factory=AgentState)

    def save(self, state: AgentState) -> None:
        """Save a state; it is the one in hand only once it is on the medium.

        Raises:
            StateNotSavedError: the medium does not take it.
        """
        try:
            self.store.save(state)
        except OSError as error:
            raise StateNotSavedError(str(error)) from error
        self.value = state

    def note(self, state: AgentState) -> None:
        """Take a state in hand that may be lost; the next `save` keeps it."""
        self.value = state


def encode(state: AgentState) -> bytes:
    """Give the JSON form of a state."""
    fields = asdict(state)
    fields["format"] = FORMAT
    fields["order"] = order_to_wire(state.order) if state.order else None
    fields["durations_seconds"] = dict(state.durations_seconds)
    fields["steps"] = [
        [step.name, step.started_at.isoformat(), step.seconds] for step in state.steps
    ]
    began_at = state.reboot_began_at
    fields["reboot_began_at"] = began_at.isoformat() if began_at else None
    return json.dumps(fields, indent=1, sort_keys=True).encode()


def decode(content: bytes) -> AgentState:
    """Read the JSON form of a state.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is not one.
    """
    fields: dict[str, Any] = json.loads(content)
    if fields.pop("format") != FORMAT:
        raise ValueError("state of another format")
    order = fields.pop("order")
    manifest = fields.pop("manifest")
    failure = fields.pop("failure")
    queued = fields.pop("queued", [])
    began_at = fields.pop("reboot_began_at", None)
    try:
        return AgentState(
            phase=Phase(fields.pop("phase")),
            order=parse_order(order) if order else None,
            manifest=Manifest(**manifest) if manifest else None,
            floor=Floor(**fields.pop("floor")),
            failure=Failure(ErrorCode(failure["code"]), failure["message"])
            if failure
            else None,
            durations_seconds=tuple(fields.pop("durations_seconds").items()),
            steps=tuple(
                Step(name, datetime.fromisoformat(at), seconds)
                for name, at, seconds in fields.pop("steps", ())
            ),
            reboot_began_at=datetime.fromisoformat(began_at) if began_at else None,
            queued=tuple(_decode_report(each) for each in queued),
            confirmed_sha256s=tuple(fields.pop("confirmed_sha256s", ())),
            **fields,
        )
    except ProtocolError as error:
        raise ValueError(str(error)) from error


def _decode_report(fields: dict[str, Any]) -> Report:
    code = fields.pop("error_code")
    return Report(
        status=Status(fields.pop("status")),
        error_code=ErrorCode(code) if code else None,
        durations_seconds=tuple(
            (name, seconds) for name, seconds in fields.pop("durations_seconds")
        ),
        **fields,
    )
