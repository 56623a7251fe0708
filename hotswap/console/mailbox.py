"""The mailbox of the demo: the mails that the server has written, as they would arrive.

Rules:
- It is there in the demo alone. Elsewhere such files hold links that set passwords, for
  those who may read the disk and for nobody else.
- The newest fifty are shown, of each its text, up to 16,000 characters.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

from django.conf import settings
from django.contrib import admin
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from hotswap.common.console.requests import acting_person
from hotswap.common.console.roles import require_role
from hotswap.common.console.text import age
from hotswap.common.roles import Role

SHOWN: Final = 50
MAX_FILE_BYTES: Final = 256 * 1024
MAX_TEXT: Final = 16_000
# Between the mails of one file, as Django's backend writes it.
LINE: Final = b"\n" + b"-" * 79 + b"\n"


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail, as far as it is shown."""

    at: datetime
    to: str
    subject: str
    text: str


def has_mailbox() -> bool:
    """Tell whether this is a demo whose mails are written as files."""
    return bool(settings.DEMO_CLOCK and _folder())


def _folder() -> str:
    return str(getattr(settings, "EMAIL_FILE_PATH", "") or "")


def mailbox_view(request: HttpRequest) -> HttpResponse:
    """Show the newest mails."""
    if not has_mailbox():
        raise Http404
    require_role(acting_person(request), Role.ADMIN)
    mails = newest_mails(Path(_folder()))
    return TemplateResponse(
        request,
        "console/mailbox.html",
        {
            **admin.site.each_context(request),
            "title": "Mailbox",
            "heading": "Mailbox",
            "mails": [(each, age(each.at)) for each in mails],
        },
    )


def newest_mails(folder: Path) -> list[Mail]:
    """Read the newest mails of a folder, the newest first; none if there is none."""
    paths = sorted(folder.glob("*.log"), reverse=True)[:SHOWN]
    mails = [mail for path in paths for mail in _mails_of(path)]
    return sorted(mails, key=lambda each: each.at, reverse=True)[:SHOWN]


def _mails_of(path: Path) -> Iterator[Mail]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES)
        written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError:
        # It has just been removed, or is not to be read.
        return
    for part in content.split(LINE):
        if part.strip():
            yield _mail(part, written)


def _mail(content: bytes, written: datetime) -> Mail:
    message = message_from_bytes(content, policy=policy.default)
    assert isinstance(message, EmailMessage)
    try:
        at = parsedate_to_datetime(str(message["Date"])).astimezone(UTC)
    except ValueError:
        at = written
    body = message.get_body(preferencelist=("plain",))
    text = str(body.get_content()) if body is not None else ""
    return Mail(
        at,
        str(message["To"] or ""),
        str(message["Subject"] or "(no subject)"),
        text.strip()[:MAX_TEXT],
    )
