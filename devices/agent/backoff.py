"""Space out retries so that a fleet does not come back in step."""

from dataclasses import dataclass, field
from random import Random

MAX_RETRY_AFTER_SECONDS = 3600.0


@dataclass(slots=True)
class Backoff:
    """Count failures in a row and say how long to wait after each."""

    first_seconds: float
    ceiling_seconds: float
    random: Random = field(default_factory=Random)
    failures: int = 0

    def next_seconds(self, retry_after_seconds: float | None = None) -> float:
        """Give the wait before the next try.

        Args:
            retry_after_seconds: what the server asked for; honoured up to an hour.

        Returns:
            Between half and all of the doubled wait; after `Retry-After` at least
            what was asked and at most a fifth more.
        """
        self.failures += 1
        doubled = self.first_seconds * 2.0 ** min(self.failures - 1, 30)
        wait = min(self.ceiling_seconds, doubled) * self.random.uniform(0.5, 1.0)
        if retry_after_seconds is None:
            return wait
        asked = min(retry_after_seconds, MAX_RETRY_AFTER_SECONDS)
        return max(wait, asked * self.random.uniform(1.0, 1.2))

    def reset(self) -> None:
        """Forget the failures: something worked."""
        self.failures = 0
