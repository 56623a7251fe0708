"""Let the owner's command have the last word on an image on trial."""

import time
from dataclasses import dataclass

from devices.agent.crashpoints import reach
from devices.agent.hooks import HookRunner
from devices.agent.installer import ImageRecord, InstallError, InstallLaterError

AGAIN_SECONDS = 1.0


@dataclass(slots=True)
class HealthCheck:
    """Runs the hook `health_check`, again while it says "not yet"."""

    runner: HookRunner

    def __call__(self, record: ImageRecord) -> str:
        """Give what is wrong with the image that runs now, "" if nothing is."""
        if not self.runner.has("health_check"):
            return ""
        deadline = time.monotonic() + self.runner.hooks["health_check"].timeout_seconds
        variables = {
            "HOTSWAP_SHA256": record.sha256,
            "HOTSWAP_VERSION": record.version,
        }
        while True:
            try:
                self.runner.run("health_check", variables)
            except InstallLaterError as error:
                if time.monotonic() > deadline:
                    return str(error)
                self.runner.while_waiting()
                time.sleep(AGAIN_SECONDS)
            except InstallError as error:
                return str(error)
            else:
                reach("hooks.health_check_done")
                return ""
