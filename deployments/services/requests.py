"""What a launch asks for. Nothing here asks the database."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Self
from uuid import UUID

from deployments.choices import OfflineDevices
from deployments.criteria import HealthCriteria, RollbackThresholds

OFFLINE_DEADLINE = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Selection:
    """Who is meant. Exactly one way of naming devices is used."""

    device_ids: tuple[str, ...] = ()
    group_ids: tuple[UUID, ...] = ()
    regions: tuple[str, ...] = ()
    everyone: bool = False

    def to_json(self) -> dict[str, Any]:
        """Write the stored form."""
        return {
            "device_ids": list(self.device_ids),
            "group_ids": [str(group_id) for group_id in self.group_ids],
            "regions": list(self.regions),
            "everyone": self.everyone,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read the stored form."""
        return cls(
            tuple(data["device_ids"]),
            tuple(UUID(text) for text in data["group_ids"]),
            tuple(data["regions"]),
            data["everyone"],
        )


@dataclass(frozen=True, slots=True)
class DeploymentRequest:
    """All that a launch asks for; durations and percents are already checked.

    `acknowledge` holds the codes of the warnings that whoever launches has read.
    One that copies another deployment names it in `copied_from`, with the `reason`.
    """

    firmware_id: UUID
    strategy: str
    selection: Selection
    parameters: dict[str, Any]
    name: str = ""
    health_criteria: HealthCriteria = field(default_factory=HealthCriteria)
    rollback_thresholds: RollbackThresholds = field(default_factory=RollbackThresholds)
    health_threshold: float = 99.0
    on_warning: str = "proceed"
    on_late_breach: str = "deployment"
    offline_devices: str | None = None
    busy_devices: str = "wait"
    offline_deadline: timedelta = OFFLINE_DEADLINE
    device_timeout: timedelta = timedelta(minutes=30)
    max_attempts: int = 3
    require_approval_per_stage: bool = False
    maintenance_window: dict[str, Any] | None = None
    max_devices_per_minute: int | None = None
    start_spread: timedelta = timedelta(0)
    scheduled_at: datetime | None = None
    acknowledge: frozenset[str] = frozenset()
    copied_from: UUID | None = None
    reason: str = ""

    @property
    def green_fleet(self) -> dict[str, Any] | None:
        """How the green half of a blue-green deployment is named; None if drawn."""
        found: dict[str, Any] | None = self.parameters.get("green_fleet")
        return found

    @property
    def region_order(self) -> tuple[str, ...]:
        """The regions in the order of their stages; empty if that is no matter."""
        return tuple(self.parameters.get("regions", ()))

    @property
    def groups(self) -> tuple[UUID, ...]:
        """All device groups that it names."""
        green = (self.green_fleet or {}).get("group")
        return (*self.selection.group_ids, *((UUID(green),) if green else ()))

    @property
    def offline_policy(self) -> str:
        """A list means these very devices, now; a group means whoever is in it."""
        if self.offline_devices is not None:
            return self.offline_devices
        is_list = bool(self.selection.device_ids)
        return OfflineDevices.REJECT if is_list else OfflineDevices.WAIT

    def exclusions_with(self, policy: str) -> frozenset[str]:
        """Return the codes of exclusions for which the launch asks for this policy."""
        policies = {"offline": self.offline_policy, "busy": self.busy_devices}
        return frozenset(code for code, asked in policies.items() if asked == policy)
