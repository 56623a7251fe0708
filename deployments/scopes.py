"""What a rollback is about: the whole deployment, or a part of it.

Standard library only. A scope is kept with its rollback and read again by every tick,
so that it names things, never a moment: stages by number, devices by key.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from hotswap.common.pluralize import counted
from hotswap.common.wire import OPTIONAL, Wire


@dataclass(frozen=True, slots=True)
class DescribedScope:
    """What goes back: the whole deployment, or stages, a region or devices of it."""

    level: Annotated[str, Wire(help_text="deployment, stage, region or devices")]
    stages: Annotated[tuple[int, ...] | None, OPTIONAL] = None
    region: Annotated[str | None, OPTIONAL] = None
    devices: Annotated[int | None, Wire(is_optional=True, help_text="how many")] = None


@dataclass(frozen=True, slots=True)
class Scope:
    """A part of a deployment. Without stages, region and devices it is all of it."""

    stages: tuple[int, ...] = ()
    region: str = ""
    devices: tuple[UUID, ...] = ()

    @property
    def is_whole(self) -> bool:
        return not (self.stages or self.region or self.devices)

    @property
    def level(self) -> str:
        """One word for what goes back: deployment, stage, region or devices."""
        if self.stages:
            return "stage"
        if self.region:
            return "region"
        return "devices" if self.devices else "deployment"

    @property
    def values(self) -> dict[str, Any]:
        """The parameters of `IN_SCOPE`; what is no matter is null."""
        return {
            "scope_stages": list(self.stages) or None,
            "scope_region": self.region or None,
            "scope_devices": list(self.devices) or None,
        }

    def to_json(self) -> dict[str, Any]:
        kept: dict[str, Any] = {
            "stages": list(self.stages),
            "region": self.region,
            "devices": [str(device) for device in self.devices],
        }
        return {name: value for name, value in kept.items() if value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Scope":
        return cls(
            stages=tuple(data.get("stages", ())),
            region=data.get("region", ""),
            devices=tuple(UUID(text) for text in data.get("devices", ())),
        )

    def described(self) -> DescribedScope:
        """Give the scope as it is shown; of devices, which have names, the number."""
        return DescribedScope(
            level=self.level,
            stages=self.stages or None,
            region=self.region or None,
            devices=len(self.devices) or None,
        )

    def in_words(self, names: Mapping[int, str]) -> str:
        """Say what it is, as the subject of a sentence.

        Args:
            names: of the stages by number.
        """
        if self.stages:
            listed = [f"stage {n} ({names.get(n, '')})" for n in self.stages]
            return " and ".join(listed)
        if self.region:
            return f"region {self.region}"
        return counted(len(self.devices), "device") if self.devices else "everything"


WHOLE = Scope()

# A condition over `t`, a target.
IN_SCOPE = """(
    (%(scope_stages)s::int[] IS NULL OR t.stage_number = ANY(%(scope_stages)s::int[]))
    AND (%(scope_devices)s::uuid[] IS NULL
         OR t.device_id = ANY(%(scope_devices)s::uuid[]))
    AND (%(scope_region)s::text IS NULL OR EXISTS (
        SELECT 1 FROM devices_device within
        WHERE within.id = t.device_id AND within.region = %(scope_region)s::text))
)"""
