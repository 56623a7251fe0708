"""Rules of dynamic groups (FR-FW-008). Standard library and `firmware.versions` only.

Rules:
- All conditions of a rule must hold; within one condition any of its values will do.
- `below` and `atLeast` compare what a device runs by the version scheme of its model.
  What has no order there is neither below nor at least anything: a device that runs
  none of its model's images and says no version of its scheme, and a bound that is no
  version of the scheme, or, of an opaque model, none that was uploaded.
- `is` means exactly the text that the device says.
- `holds_for` is what a rule means. The database evaluates the same conditions as a
  query, and the tests compare the two.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from firmware.versions import VersionScheme, version_key


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What a rule looks at.

    Attributes:
        firmware_version: what it says that it runs.
        version_key: by which that is ordered; empty if it has no order.
        scheme: of the versions of its model.
        uploads: of an opaque model the keys of its versions.
    """

    region: str
    model: str
    tags: Mapping[str, str]
    firmware_version: str
    version_key: str
    scheme: VersionScheme
    uploads: Mapping[str, str]

    def key_of(self, version: str) -> str:
        """Return the key of a version of its model; empty if it is none."""
        if self.scheme is VersionScheme.OPAQUE:
            return self.uploads.get(version, "")
        try:
            return version_key(version, self.scheme)
        except ValueError:
            return ""


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
    def compares_versions(self) -> bool:
        return bool(self.below or self.at_least)

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
        if self.versions and device.firmware_version not in self.versions:
            return False
        return not self.compares_versions or self._fits(device)

    def _fits(self, device: DeviceFacts) -> bool:
        key = device.version_key
        limit, lowest = device.key_of(self.below), device.key_of(self.at_least)
        return (
            key != ""
            and (not self.below or (limit != "" and key < limit))
            and (not self.at_least or (lowest != "" and key >= lowest))
        )

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
