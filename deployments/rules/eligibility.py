"""Which devices may be given an order to install: one list of rules, in order.

Rules:
- Of several that apply the first is named.
- A launch asks them of a whole fleet, in SQL; an offer asks them again of one device,
  in Python, because what a device is may have changed since the plan was frozen. Tests
  draw devices and images, and demand that both answer the same.
- Whether a device is offline or busy is asked by launches alone, and of those only by
  the ones that do not wait: whoever polls is heard and has no open order.

Source: FR-FW-003 (targets exist, are online, are compatible);
docs/deployments.md#eligible-devices.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db.models import Exists, OuterRef, Q, QuerySet

from deployments.choices import BusyDevices, OfflineDevices
from deployments.models import Quarantine, Update
from deployments.rules.evidence import must_refuse
from devices.models import Device
from firmware.models import Firmware
from health.choices import SecureBoot
from health.models import DeviceState


@dataclass(frozen=True, slots=True)
class Launch:
    """What a launch asks of its fleet: `firmware` with its model, and its policies."""

    firmware: Firmware
    offline: str
    busy: str
    now: datetime


@dataclass(frozen=True, slots=True)
class Candidate:
    """A device that asks for work.

    Attributes:
        firmware: what it would get, with its model.
        state: None where it was never heard.
        is_first_order: no order of this deployment was given to it before.
        is_quarantined: asked where nothing else speaks against the order.
    """

    device: Device
    state: DeviceState | None
    firmware: Firmware
    is_first_order: bool
    is_quarantined: Callable[[], bool]


Condition = Q | Exists


@dataclass(frozen=True, slots=True)
class Rule:
    """One reason to leave a device out.

    Attributes:
        code: of `codes`.
        excludes: the condition on devices; None where it cannot apply to any.
        refuses: the same of one device.
    """

    code: str
    excludes: Callable[[Launch], Condition | None]
    refuses: Callable[[Candidate], bool]


def _quarantine(launch: Launch) -> Condition | None:
    kept = Quarantine.objects.active().filter(firmware=launch.firmware)
    # Mostly there are none; the fleet is then not looked through for them.
    return Exists(kept.filter(device=OuterRef("pk"))) if kept.exists() else None


def _insecure(launch: Launch) -> Condition | None:
    if not launch.firmware.model.requires_secure_boot:
        return None
    return Q(state__isnull=True) | ~Q(state__secure_boot=SecureBoot.ENABLED)


def _is_insecure(candidate: Candidate) -> bool:
    state = candidate.state
    return candidate.firmware.model.requires_secure_boot and (
        state is None or state.secure_boot != SecureBoot.ENABLED
    )


def _offline(launch: Launch) -> Condition | None:
    if launch.offline == OfflineDevices.WAIT:
        return None
    return Q(state__isnull=True) | Q(state__online_until__lte=launch.now)


def _busy(launch: Launch) -> Condition | None:
    if launch.busy == BusyDevices.WAIT:
        return None
    return Exists(open_updates())


def open_updates() -> QuerySet[Update]:
    """Return the open order of each device, for a query on devices."""
    return Update.objects.filter(device=OuterRef("pk"), closed_at__isnull=True)


def _never(candidate: Candidate) -> bool:
    return False


RULES: Final = (
    Rule(
        "revoked",
        lambda _: Q(revoked_at__isnull=False),
        lambda candidate: candidate.device.revoked_at is not None,
    ),
    Rule(
        "disabled",
        lambda _: Q(enabled=False),
        lambda candidate: not candidate.device.enabled,
    ),
    Rule(
        "wrong_model",
        lambda launch: ~Q(model_id=launch.firmware.model_id),
        lambda candidate: candidate.device.model_id != candidate.firmware.model_id,
    ),
    # A device that runs the image after an order of this deployment has to prove it.
    Rule(
        "already_installed",
        lambda launch: Q(firmware_checksum=launch.firmware.sha256),
        lambda candidate: (
            candidate.is_first_order
            and candidate.device.firmware_checksum == candidate.firmware.sha256
        ),
    ),
    Rule(
        "security_version",
        lambda launch: Q(security_version__gt=launch.firmware.security_version),
        lambda candidate: must_refuse(candidate.device, candidate.firmware),
    ),
    Rule(
        "quarantined",
        _quarantine,
        lambda candidate: candidate.is_quarantined(),
    ),
    Rule("secure_boot_required", _insecure, _is_insecure),
    Rule("offline", _offline, _never),
    Rule("busy", _busy, _never),
)


def exclusions(launch: Launch) -> list[tuple[str, Condition]]:
    """Return the rules that a launch asks, as codes and conditions on devices."""
    asked = [(rule.code, rule.excludes(launch)) for rule in RULES]
    return [(code, condition) for code, condition in asked if condition is not None]


def refusal(candidate: Candidate) -> str:
    """Return the code of the first rule against an order; empty if it may be given."""
    for rule in RULES:
        if rule.refuses(candidate):
            return rule.code
    return ""
