"""Mail where no mail server is configured: it fails, and says so."""

from collections.abc import Sequence

from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend


class NoMailServerError(OSError):
    """No mail server is configured."""


class EmailBackend(BaseEmailBackend):
    """Sends nothing."""

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        """Refuse every message.

        Raises:
            NoMailServerError: always.
        """
        raise NoMailServerError("no mail server is configured: set HOTSWAP_EMAIL_URL")
