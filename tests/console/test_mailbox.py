"""The mailbox of the demo: mails that were written as files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.mail import EmailMultiAlternatives, get_connection

from hotswap.common.roles import Role
from hotswap.console.mailbox import newest_mails
from tests.console.conftest import ConsoleClient

MAILBOX = "/admin/mailbox/"
BACKEND = "django.core.mail.backends.filebased.EmailBackend"


def write_mails(folder: Path, *subjects: str) -> None:
    """Write mails as a demo does, into one file."""
    with get_connection(BACKEND, file_path=str(folder)) as connection:
        for subject in subjects:
            mail = EmailMultiAlternatives(
                subject,
                "It was rolled back.\n\nGrüße <b>",
                "server@example.com",
                ["fleet-team@example.com"],
                connection=connection,
            )
            mail.attach_alternative("<p>It was rolled back.</p>", "text/html")
            mail.send()


@pytest.fixture
def folder(tmp_path: Path, settings: Any) -> Path:
    settings.DEMO_CLOCK = "60x"
    settings.EMAIL_FILE_PATH = str(tmp_path / "mail")
    return tmp_path / "mail"


def test_it_shows_what_was_written(folder: Path, admin_client: ConsoleClient) -> None:
    empty = admin_client.get(MAILBOX).content.decode()
    write_mails(folder, "Canary of 2.6.0 was rolled back", "Ünïcode: 2.7.0")

    shown = admin_client.get(MAILBOX).content.decode()

    assert "No mail has been written yet" in empty
    assert "Canary of 2.6.0 was rolled back" in shown
    assert "Ünïcode: 2.7.0" in shown
    assert "to fleet-team@example.com" in shown
    assert "Grüße &lt;b&gt;" in shown
    assert MAILBOX in admin_client.get("/admin/").content.decode()


def test_what_is_no_mail_does_no_harm(folder: Path) -> None:
    folder.mkdir()
    (folder / "20260101-000000-1.log").write_bytes(b"\xff\x00 no mail at all")
    (folder / "20260101-000000-2.log").write_bytes(b"")

    mails = newest_mails(folder)

    assert [each.subject for each in mails] == ["(no subject)"]


def test_only_admins_of_a_demo_have_one(
    folder: Path, log_in: Callable[..., ConsoleClient], settings: Any
) -> None:
    admin = log_in(Role.ADMIN)

    refusal = log_in(Role.OPERATOR).get(MAILBOX)
    assert refusal.status_code == 403
    assert "this needs the role Admin" in refusal.content.decode()
    settings.DEMO_CLOCK = ""
    assert admin.get(MAILBOX).status_code == 404
    assert MAILBOX not in admin.get("/admin/").content.decode()
