"""One attempt: an HTTP request or a mail. Knows no database."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ssl import SSLContext

import httpx
from django.core.mail import EmailMessage

from deployments.notifications.addresses import (
    Network,
    Target,
    TargetRefusedError,
    resolve,
)

TIMEOUT = httpx.Timeout(10.0, connect=5.0)
# From the look-up to the status line, however slowly the endpoint trickles.
WHOLE_SECONDS = 15.0
MAX_ERROR = 300


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an attempt: `error` is empty where it arrived."""

    error: str
    response_status: int | None = None

    @property
    def has_arrived(self) -> bool:
        return not self.error

    @property
    def is_gone(self) -> bool:
        """The endpoint wants nothing more, ever (410)."""
        return self.response_status == 410


@lru_cache(maxsize=1)
def _tls() -> SSLContext:
    return httpx.create_ssl_context()


def post(
    *, url: str, headers: dict[str, str], body: bytes, allowed: Sequence[Network]
) -> Outcome:
    """Send a body; anything but 2xx is an error, and no redirect is followed."""
    return asyncio.run(_post(url, headers, body, allowed))


async def _post(
    url: str, headers: dict[str, str], body: bytes, allowed: Sequence[Network]
) -> Outcome:
    try:
        async with asyncio.timeout(WHOLE_SECONDS):
            target = await asyncio.to_thread(resolve, url, allowed=allowed)
            status = await _status_of(target, headers, body)
    except TargetRefusedError as error:
        return Outcome(f"refused: {error}"[:MAX_ERROR])
    except (TimeoutError, httpx.TimeoutException):
        return Outcome("no answer in time")
    except (httpx.HTTPError, OSError) as error:
        return Outcome(f"{type(error).__name__}: {error}"[:MAX_ERROR])
    if 200 <= status < 300:
        return Outcome("", status)
    return Outcome(f"the endpoint answered {status}", status)


async def _status_of(target: Target, headers: dict[str, str], body: bytes) -> int:
    """Try one address after the other; the body of the answer is not read."""
    host = target.url.netloc.decode("ascii")
    async with httpx.AsyncClient(
        verify=_tls(), timeout=TIMEOUT, trust_env=False, follow_redirects=False
    ) as client:
        for address in target.addresses:
            try:
                async with client.stream(
                    "POST",
                    target.url.copy_with(host=address),
                    content=body,
                    headers={**headers, "Host": host},
                    # The certificate has to fit the name, not the address.
                    extensions={"sni_hostname": target.host},
                ) as answer:
                    return answer.status_code
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if address == target.addresses[-1]:
                    raise
    raise httpx.ConnectError("there is no address to connect to")


def send_mail(
    *, sender: str, address: str, subject: str, text: str, message_id: str
) -> Outcome:
    """Hand a mail to the mail server."""
    message = EmailMessage(
        subject=subject,
        body=text,
        from_email=sender,
        to=[address],
        headers={"Message-ID": f"<{message_id}@hotswap>"},
    )
    try:
        message.send()
    except (OSError, ValueError) as error:
        return Outcome(f"{type(error).__name__}: {error}"[:MAX_ERROR])
    return Outcome("")
