"""Who sends the requests, and the names of what they may be about."""

from dataclasses import dataclass
from typing import Any

ADMIN, OPERATOR, VIEWER, DEVICE, NOBODY = CALLERS = (
    *("admin", "operator", "viewer", "device", "nobody"),
)


@dataclass(frozen=True, slots=True)
class Names:
    """Names of what there is.

    Attributes:
        own: what belongs to the device that calls, by parameter.
        known: all, by parameter of a path or field of a body; below `kind/parameter`
            where a parameter means something else after another first segment.
    """

    own: dict[str, str]
    known: dict[str, tuple[Any, ...]]

    def of(self, parameter: str, path: str) -> tuple[Any, ...]:
        """Return what a parameter of a path may name, or nothing."""
        kind = path.split("/")[3]
        return self.known.get(f"{kind}/{parameter}") or self.known.get(parameter, ())
