"""Holds: waits in which traffic is taken off a fleet before something is done to it.

Rules:
- A hold is begun once and named by what follows it. It is over when its time is, or
  when somebody acknowledges it; with `until_acknowledged` only then.
- Without a duration, and if nobody needs to acknowledge, there is no hold.

Pure: standard library and a clock that is passed in.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from deployments.strategies.types import BeginHold, HoldFacts, HoldPoint, HoldRule, Wait

UPDATE_GREEN = HoldPoint("update-green", "green", "it is updated")
SWITCH = HoldPoint("switch", "blue", "the green fleet serves in its place")
UPDATE_BLUE = HoldPoint("update-blue", "blue", "it is updated")
SWITCH_BACK = HoldPoint("switch-back", "green", "the blue fleet serves in its place")
RETURN_GREEN = HoldPoint("return-green", "green", "it goes back to its former firmware")
# In the order in which a deployment that goes well meets them.
FORWARD = (UPDATE_GREEN, SWITCH, UPDATE_BLUE)
POINTS = {point.phase: point for point in (*FORWARD, SWITCH_BACK, RETURN_GREEN)}


def hold_rule(duration_seconds: float, *, until_acknowledged: bool) -> HoldRule | None:
    """Return the rule of a deployment, or None if it never holds."""
    if not duration_seconds and not until_acknowledged:
        return None
    return HoldRule(timedelta(seconds=duration_seconds), until_acknowledged)


def hold_before(
    point: HoldPoint,
    rule: HoldRule | None,
    holds: Mapping[str, HoldFacts],
    now: datetime,
) -> BeginHold | Wait | None:
    """Say what a hold demands at a point; None if it is over, or there is none."""
    if rule is None:
        return None
    known = holds.get(point.phase)
    if known is None:
        return BeginHold(
            point, None if rule.until_acknowledged else now + rule.duration
        )
    if known.is_over:
        return None
    return Wait(f"the {point.fleet} fleet to drain before {point.follows}", known.until)
