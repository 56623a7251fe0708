"""Rules of dynamic groups (FR-FW-008). Standard library and `semver` only.

Rules:
- All conditions of a rule must hold; within one condition any of its values will do.
- Versions compare by SemVer 2 precedence, in which builds (`+7`) do not count; `is`
  means exactly that text, builds included.
- A device whose version is unknown, or is no semantic version, matches no condition on
  versions, whatever it is.
- `holds_for` is what a rule means. The database evaluates the same conditions as a
  query, and the tests compare the two.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from firmware.versions import is_lower, parse_version


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What a rule looks at."""

    region: str
    model: str
    tags: Mapping[str, str]
    firmware_version: str


@dataclass(frozen=True, slots=True)
class Rule:
    """Conditions on devices; an empty one is no condition.

    `tags` holds pairs of a name and the values that will do.
    """

    regions: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    tags: tuple[tuple[str, tuple[str, ...]], ...] = ()
    below: str = ""
    at_least: str = ""
    versions: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Rule":
        """Read the JSON form, which `RuleInput` has checked."""
        version = data.get("firmwareVersion", {})
        return cls(
            regions=tuple(data.get("region", ())),
            models=tuple(data.get("model", ())),
            tags=tuple(
                (name, tuple(values)) for name, values in data.get("tags", {}).items()
            ),
            below=version.get("below", ""),
            at_least=version.get("atLeast", ""),
            versions=tuple(version.get("is", ())),
        )

    def to_json(self) -> dict[str, Any]:
        """Write the JSON form, without empty conditions."""
        version = {
            "atLeast": self.at_least,
            "below": self.below,
            "is": list(self.versions),
        }
        data = {
            "region": list(self.regions),
            "model": list(self.models),
            "tags": {name: list(values) for name, values in self.tags},
            "firmwareVersion": {name: part for name, part in version.items() if part},
        }
        return {name: part for name, part in data.items() if part}

    @property
    def is_empty(self) -> bool:
        """Tell whether it would mean the whole fleet."""
        return not self.to_json()

    @property
    def is_about_versions(self) -> bool:
        return bool(self.below or self.at_least or self.versions)

    def holds_for(self, device: DeviceFacts) -> bool:
        """Tell whether a device is in the group.

        Source: FR-FW-008 (membership by model, region, firmware version, tags).
        """
        if self.regions and device.region not in self.regions:
            return False
        if self.models and device.model not in self.models:
            return False
        for name, values in self.tags:
            if device.tags.get(name) not in values:
                return False
        return not self.is_about_versions or self._fits(device.firmware_version)

    def _fits(self, version: str) -> bool:
        try:
            parse_version(version)
        except ValueError:
            return False
        if self.below and not is_lower(version, self.below):
            return False
        if self.at_least and is_lower(version, self.at_least):
            return False
        return not self.versions or version in self.versions

    def in_words(self) -> str:
        """Say the rule in one sentence: `region is US-EAST; tag site is plant-7`."""
        parts = []
        if self.regions:
            parts.append(f"region is {_any_of(self.regions)}")
        if self.models:
            parts.append(f"model is {_any_of(self.models)}")
        parts += [
            f"tag {name} is {_any_of(value or '(empty)' for value in values)}"
            for name, values in self.tags
        ]
        if self.at_least:
            parts.append(f"firmware is {self.at_least} or higher")
        if self.below:
            parts.append(f"firmware is below {self.below}")
        if self.versions:
            parts.append(f"firmware is {_any_of(self.versions)}")
        return "; ".join(parts)


def _any_of(values: Any) -> str:
    *others, last = values
    return f"{', '.join(others)} or {last}" if others else str(last)
