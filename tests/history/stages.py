"""No gate escaped, no exposure above its share: worked out again from the log alone."""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta

from tests.history.rows import (
    FAILURES,
    NEUTRAL_CODES,
    PROOFS,
    Deployment,
    Event,
    Faults,
    History,
    Stage,
    Target,
    in_log_order,
)

ENDED_WITHOUT = ("device.skipped", "device.erased")
ONCE = ("stage.opened", "stage.settled", "stage.passed")
# A target waits for its next order after these.
UNSETTLED_FAILURES = ("it is tried again", "it is ordered back")


@dataclass(slots=True)
class _Replay:
    """Where the log has brought the deployment so far.

    Attributes:
        outcomes: the last that is known of each device that was ever offered.
    """

    opened: dict[int, Event] = field(default_factory=dict)
    settled: dict[int, Event] = field(default_factory=dict)
    passed: dict[int, Event] = field(default_factory=dict)
    warned: set[int] = field(default_factory=set)
    outcomes: dict[str, str] = field(default_factory=dict)
    boundary: int = 0


def faults_of_stages(history: History) -> list[str]:
    """Replay the log, and ask at each opening and each gate what was known then."""
    faults = Faults()
    deployment = history.deployment
    stages = {each.number: each for each in history.stages}
    targets = {each.device: each for each in history.targets}
    replay = _Replay()
    seen: dict[tuple[str, int | None], int] = defaultdict(int)
    for event in in_log_order(history.events):
        if event.event in ONCE:
            seen[event.event, event.stage] += 1
            faults.note(
                seen[event.event, event.stage] > 1,
                f"stage {event.stage} has a second {event.event}",
            )
        if event.event == "deployment.retried":
            # What is tried again settles again.
            seen = defaultdict(
                int, {key: n for key, n in seen.items() if key[0] != "stage.settled"}
            )
        stage = stages.get(event.stage or 0)
        match event.event:
            case "stage.opened" if stage is not None:
                faults.found += _opened(deployment, stage, replay)
                replay.opened[stage.number] = event
                replay.boundary = max(replay.boundary, stage.boundary)
            case "stage.settled" if stage is not None:
                replay.settled[stage.number] = event
            case "stage.warning" if stage is not None:
                replay.warned.add(stage.number)
            case "stage.passed" if stage is not None:
                faults.found += _passed(
                    deployment, stage, event, replay, targets.values()
                )
                replay.passed[stage.number] = event
            case "device.notified":
                replay.outcomes[event.device] = "open"
                faults.found += _exposed(event, replay, targets)
            case word if word in PROOFS:
                replay.outcomes[event.device] = word
            case word if word in FAILURES:
                waits = event.message.endswith(UNSETTLED_FAILURES)
                replay.outcomes[event.device] = "open" if waits else "failed"
            case word if word in ENDED_WITHOUT:
                replay.outcomes.pop(event.device, None)
    return (
        faults.found
        + _shares_exceeded(deployment, history.stages)
        + _rows_differ(history.stages, replay)
    )


def _opened(deployment: Deployment, stage: Stage, replay: _Replay) -> list[str]:
    faults = Faults()
    faults.note(
        len(replay.opened) != stage.number - 1,
        f"stage {stage.number} was opened out of turn",
    )
    before = len(replay.opened) - len(replay.passed)
    faults.note(
        before >= deployment.in_flight,
        f"stage {stage.number} was opened before {stage.number - 1} had passed",
    )
    return faults.found


def _passed(
    deployment: Deployment,
    stage: Stage,
    event: Event,
    replay: _Replay,
    targets: Iterable[Target],
) -> list[str]:
    faults = Faults()
    name = f"stage {stage.number}"
    its = [each for each in targets if each.stage == stage.number]
    size = sum(
        not (each.error_code in NEUTRAL_CODES and not each.is_exposed)
        and not (each.error_code == "erased" and each.status == "cancelled")
        for each in its
    )
    faults.note(
        stage.number not in replay.opened, f"{name} has passed without being open"
    )
    if size == 0:
        return faults.found
    settled = replay.settled.get(stage.number)
    faults.note(settled is None, f"{name} has passed without having settled")
    faults.note(
        settled is not None
        and event.at - settled.at < timedelta(seconds=stage.wait_seconds),
        f"{name} has passed before its wait was over",
    )
    outcomes = [
        replay.outcomes[each.device] for each in its if each.device in replay.outcomes
    ]
    exposed = len(outcomes)
    succeeded = outcomes.count("device.updated")
    faults.note(
        exposed < size * deployment.minimum_exposure / 100 and not stage.is_accepted,
        f"{name} has passed with {exposed} of {size} devices exposed",
    )
    faults.note(
        "open" in outcomes,
        f"{name} has passed with {outcomes.count('open')} devices at work",
    )
    rate = 100 * succeeded / exposed if exposed else 0.0
    faults.note(
        rate < deployment.health_threshold and stage.number not in replay.warned,
        f"{name} has passed at {rate:.1f} % without a warning",
    )
    return faults.found


def _exposed(event: Event, replay: _Replay, targets: dict[str, Target]) -> list[str]:
    faults = Faults()
    target = targets.get(event.device)
    faults.note(
        target is None or target.rank > replay.boundary,
        f"{event.device} was offered its order before its stage was open",
    )
    faults.note(
        len(replay.outcomes) > replay.boundary,
        f"{len(replay.outcomes)} devices are exposed, {replay.boundary} may be",
    )
    return faults.found


def _shares_exceeded(deployment: Deployment, stages: Iterable[Stage]) -> list[str]:
    """Compare each boundary with the share that the launch asked for.

    A stage may reach the smallest share that holds all of it: shares that add no
    device make no stage.
    """
    allowed = {
        math.ceil(share * deployment.target_count / 100) for share in deployment.shares
    }
    return [
        f"stage {each.number} reaches {each.boundary} devices, which is no share of"
        f" {deployment.target_count}"
        for each in stages
        if allowed and each.boundary not in allowed
    ]


def _rows_differ(stages: Iterable[Stage], replay: _Replay) -> list[str]:
    faults = Faults()
    for stage in stages:
        for word, at, logged in (
            ("opened", stage.opened_at, replay.opened.get(stage.number)),
            ("passed", stage.passed_at, replay.passed.get(stage.number)),
        ):
            faults.note(
                at != (logged and logged.at),
                f"stage {stage.number} is {word} in its row or in the log, not in both",
            )
    return faults.found
