"""The settings of a deployment as the body that would ask for them again."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from deployments.inputs import SELECTORS
from deployments.models import Deployment
from deployments.strategies.registry import STRATEGIES
from hotswap.common.durations import format_duration
from hotswap.common.wire import camelize

OF_STRATEGIES = {
    camelize(name) for entry in STRATEGIES.values() for name in entry.defaults
} | {"healthThreshold", "healthCheckThreshold"}


def _on_the_wire(name: str, value: Any) -> Any:
    if isinstance(value, timedelta):
        return format_duration(value)
    if name.endswith(("_duration", "_after", "_hold")):
        return format_duration(timedelta(seconds=value))
    return value


def _camelized(stored: Mapping[str, Any]) -> dict[str, Any]:
    return {camelize(name): _on_the_wire(name, value) for name, value in stored.items()}


def launch_body(deployment: Deployment) -> dict[str, Any]:
    """Return the body of `POST /deployments` that asks for the same again.

    The name and the time of the start are left out, and what was acknowledged: whoever
    launches it again looks again.
    """
    selection = deployment.selection
    parameters = {
        name: value
        for name, value in deployment.parameters.items()
        if name in STRATEGIES[deployment.strategy].defaults
    }
    body = {
        "firmwareId": str(deployment.firmware_id),
        "strategy": deployment.strategy,
        **_camelized(parameters),
        "healthThreshold": deployment.health_threshold,
        "healthCriteria": _camelized(deployment.health_criteria),
        "rollbackThresholds": _camelized(deployment.rollback_thresholds),
        "onWarning": deployment.on_warning,
        "onLateBreach": deployment.on_late_breach,
        "offlineDevices": deployment.offline_devices,
        "busyDevices": deployment.busy_devices,
        "offlineDeadline": format_duration(deployment.offline_deadline),
        "deviceTimeout": format_duration(deployment.device_timeout),
        "maxAttempts": deployment.max_attempts,
        "requireApprovalPerStage": deployment.require_approval_per_stage,
        "startSpread": format_duration(deployment.start_spread),
        "maintenanceWindow": deployment.maintenance_window,
        "maxDevicesPerMinute": deployment.max_devices_per_minute,
        "targetDevices": selection["device_ids"],
        "targetGroups": selection["group_ids"],
        "regions": selection["regions"],
        "targetAll": selection["everyone"],
    }
    selectors = {camelize(name) for name in SELECTORS}
    return {
        name: value
        for name, value in body.items()
        if value is not None and (value or name not in selectors)
    }


def edit_body(deployment: Deployment) -> dict[str, Any]:
    """Return the body of a PUT that changes nothing of a waiting deployment."""
    assert deployment.scheduled_at is not None
    at = deployment.scheduled_at.isoformat().replace("+00:00", "Z")
    return launch_body(deployment) | {
        "name": deployment.name,
        "scheduledAt": at,
        "acknowledge": deployment.acknowledged,
    }


def copied_body(original: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of a copy.

    Other devices replace those of the original, and another strategy comes without
    the fields of the former one.
    """
    selectors = {camelize(name) for name in SELECTORS}
    dropped = set()
    if selectors & set(changes):
        dropped |= selectors
    if changes.get("strategy", original["strategy"]) != original["strategy"]:
        dropped |= OF_STRATEGIES
    if "healthCheckThreshold" in changes:
        dropped.add("healthThreshold")
    kept = {name: value for name, value in original.items() if name not in dropped}
    nested = {
        name: {**kept[name], **value}
        for name, value in changes.items()
        if isinstance(value, Mapping) and isinstance(kept.get(name), Mapping)
    }
    return kept | dict(changes) | nested
