"""Which devices of the database are whose: one region for each bench."""

from dataclasses import dataclass

LARGEST_DEPLOYMENT = 100_000
CONCURRENT_DEPLOYMENTS = 100


@dataclass(frozen=True, slots=True)
class Scale:
    """How many devices each bench has; names and regions follow from the number.

    Attributes:
        large: of each deployment that is as large as one may be.
        small: of each of the hundred that run at once.
        crowd: taken through their updates over HTTP.
        faulty: with faults of their own.
    """

    devices: int
    large: int
    small: int
    crowd: int
    faulty: int
    watched: int = 20

    @classmethod
    def for_devices(cls, devices: int) -> "Scale":
        return cls(
            devices=devices,
            large=min(LARGEST_DEPLOYMENT, devices // 5),
            small=min(1_000, devices // (5 * CONCURRENT_DEPLOYMENTS)),
            crowd=min(4_000, devices // 20),
            faulty=min(10_000, devices // 20),
        )

    @property
    def sizes(self) -> dict[str, int]:
        """Devices by region, in the order of their names; the last has all others."""
        sizes = {
            "LARGE": self.large,
            "EXPOSED": self.large,
            **{f"SMALL-{n:02}": self.small for n in range(CONCURRENT_DEPLOYMENTS)},
            "CROWD": self.crowd,
            "FAULTY": self.faulty,
            "WATCHED": self.watched,
            "SPREADING": self.watched,
        }
        return sizes | {"OTHERS": self.devices - sum(sizes.values())}

    @property
    def regions(self) -> list[str]:
        return list(self.sizes)

    def names(self, region: str, count: int | None = None) -> list[str]:
        """Return the names of the devices of a region, the first so many."""
        first = 0
        for name, size in self.sizes.items():
            if name == region:
                return [device_name(first + n) for n in range(count or size)]
            first += size
        raise KeyError(region)


def device_name(number: int) -> str:
    return f"bench-{number:07}"
