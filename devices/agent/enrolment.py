"""Get the first key by a token that many devices share.

Rules:
- The device makes up a secret and saves it before the first call. With it the call can
  be repeated: after a lost answer, a crash, or while a person has yet to approve it.
- The key is saved before the secret is forgotten.
- The application runs meanwhile. A refusal does not end the agent: it asks again once
  an hour, as a person may change the decision or the token. `--once` ends with its own
  exit code.
"""

import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from devices.agent.crashpoints import reach
from devices.agent.files import sync_directory, write_atomically
from devices.agent.protocol import EnrolmentCall
from devices.agent.transport import RefusedError, UnavailableError

logger = logging.getLogger(__name__)

PENDING_SECONDS = 60.0
REFUSED_SECONDS = 3600.0
SECRET_BYTES = 32

Outcome = Literal["", "pending", "refused"]


class EnrolmentError(UnavailableError):
    """There is no key yet; `retry_after_seconds` says when to ask again."""


@dataclass(slots=True)
class TokenEnrolment:
    """Enrols one device.

    Attributes:
        token_file: read at each call, so that another token can be put there.
        facts: gives what the server is told of the device, as JSON.
        outcome: of the last call, "" if there was no answer to it.
    """

    token_file: Path
    secret_file: Path
    facts: Callable[[], Mapping[str, Any]]
    outcome: Outcome = field(init=False, default="")

    def obtain(self, call: EnrolmentCall) -> str:
        """Ask for a key once and give it.

        Raises:
            EnrolmentError: the server does not give one now.
            UnavailableError: the server cannot be reached or is busy.
        """
        self.outcome = ""
        try:
            token = self.token_file.read_text(encoding="utf-8").strip()
            secret = self._secret()
        except (OSError, UnicodeDecodeError) as error:
            raise EnrolmentError(f"Enrolment: {error}.") from error
        try:
            answer = call({**self.facts(), "enrolmentToken": token, "secret": secret})
        except RefusedError as error:
            self.outcome = "refused"
            raise EnrolmentError(
                f"Enrolment refused: {error}.", retry_after_seconds=REFUSED_SECONDS
            ) from error
        reach("enrol.answered")
        if not answer.api_key:
            self.outcome = "pending"
            raise EnrolmentError(
                "The enrolment waits for approval.",
                retry_after_seconds=answer.retry_after_seconds or PENDING_SECONDS,
            )
        logger.info("enrolled")
        return answer.api_key

    def finish(self) -> None:
        """Forget the secret: the key is saved. May be repeated."""
        if not self.secret_file.exists():
            return
        self.secret_file.unlink(missing_ok=True)
        reach("enrol.secret_removed")
        sync_directory(self.secret_file.parent)
        reach("enrol.settled")

    def _secret(self) -> str:
        """Give the secret, made up and saved at the first call."""
        try:
            secret = self.secret_file.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            secret = ""
        if not secret:
            secret = secrets.token_urlsafe(SECRET_BYTES)
            write_atomically(
                self.secret_file,
                secret.encode(),
                is_private=True,
                crash_prefix="enrol.secret",
            )
        return secret
