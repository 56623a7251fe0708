"""Short messages through apprise, each by a process of its own. Knows no database."""

import json
import os
import subprocess
from collections.abc import Sequence
from typing import Any

from django.conf import settings

from deployments.notifications.addresses import Network, TargetRefusedError
from deployments.notifications.sending import MAX_ERROR, Outcome

NOT_INSTALLED = (
    "apprise is not installed on the server: pip install 'hotswap[gateway]' adds it"
)
# Nothing else of the server's own environment, which holds passwords.
ENVIRONMENT = {"PATH": os.defpath, "LANG": "C.UTF-8", "HOME": "/nonexistent"}


class AppriseMissingError(Exception):
    """The optional library is not there."""


def check_url(url: str, *, allowed: Sequence[Network]) -> None:
    """Find out whether messages may be sent to a URL; sends none.

    Raises:
        TargetRefusedError: they may not; the text says why, without the URL.
        AppriseMissingError: nobody can tell without the library.
    """
    answer = _asked({"url": url}, allowed)
    if answer["kind"] == "not_installed":
        raise AppriseMissingError(NOT_INSTALLED)
    if answer["kind"] == "refused":
        raise TargetRefusedError(answer["error"])
    if answer["kind"]:
        raise TargetRefusedError(f"could not be checked: {answer['error']}")


def send_message(
    *, url: str, title: str, text: str, allowed: Sequence[Network]
) -> Outcome:
    """Hand a message to the service of a URL."""
    answer = _asked({"url": url, "title": title, "text": text}, allowed)
    match answer["kind"]:
        case "":
            return Outcome("")
        case "not_installed":
            return Outcome(NOT_INSTALLED)
        case "refused":
            return Outcome(f"refused: {answer['error']}"[:MAX_ERROR])
        case _:
            return Outcome(answer["error"][:MAX_ERROR], answer["status"])


def _environment() -> dict[str, str]:
    """Add the authorities that webhooks are checked by, under the name for apprise."""
    authorities = os.environ.get("SSL_CERT_FILE")
    return ENVIRONMENT | ({"REQUESTS_CA_BUNDLE": authorities} if authorities else {})


def _asked(order: dict[str, Any], allowed: Sequence[Network]) -> dict[str, Any]:
    """Have an order carried out by a process that is killed when its time is over."""
    order["allowed"] = [str(network) for network in allowed]
    try:
        done = subprocess.run(
            settings.GATEWAY_COMMAND,
            input=json.dumps(order).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=_environment(),
            timeout=settings.GATEWAY_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return {"kind": "failed", "error": "no answer in time", "status": None}
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        error = f"the process that sends ended with {done.returncode}"
        return {"kind": "failed", "error": error, "status": None}
    return found
