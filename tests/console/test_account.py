"""One's own account in the console: sessions and their ends, the password."""

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from django.utils.html import escape

from hotswap.common.models import AuditEvent, ConsoleSession, RefreshToken, User
from hotswap.common.people import set_password
from hotswap.common.sessions import SessionStore
from hotswap.common.tokens import issue_token_pair
from hotswap.retention import enforce_policies
from tests.common.factories import PASSWORD, PersonFactory
from tests.console.conftest import ConsoleClient

NEW = "another-horse-and-battery"
TO_LOGIN = "/admin/login/"


def is_in(client: Client) -> bool:
    return client.get("/admin/devices/device/").status_code == 200


def shift(client: ConsoleClient, by: timedelta) -> None:
    """Move the session of a client into the past."""
    row = ConsoleSession.objects.get(user=client.person)
    store = SessionStore(row.session_key)
    login = {**store["login"], "at": store["login"]["at"] - by.total_seconds()}
    ConsoleSession.objects.update(
        created_at=row.created_at - by,
        last_seen_at=row.last_seen_at - by,
        expire_date=row.expire_date - by,
        session_data=store.encode({**dict(store.items()), "login": login}),
    )


def test_a_session_ends_when_it_is_not_used(viewer_client: ConsoleClient) -> None:
    shift(viewer_client, timedelta(minutes=29))
    assert is_in(viewer_client)

    shift(viewer_client, timedelta(minutes=29))
    assert is_in(viewer_client)
    shift(viewer_client, timedelta(minutes=31))

    assert not is_in(viewer_client)


def test_pages_that_ask_by_themselves_keep_no_session(
    viewer_client: ConsoleClient,
) -> None:
    background = {"X-HotSwap-Background": "1", "HX-Request": "true"}
    shift(viewer_client, timedelta(minutes=29))
    before = ConsoleSession.objects.get().expire_date

    viewer_client.get("/admin/", headers=background)

    assert ConsoleSession.objects.get().expire_date == before


def test_a_session_ends_twelve_hours_after_its_login(
    viewer_client: ConsoleClient,
) -> None:
    for _ in range(26):
        shift(viewer_client, timedelta(minutes=27))
        assert is_in(viewer_client)

    shift(viewer_client, timedelta(minutes=20))

    assert not is_in(viewer_client)


def test_sessions_that_have_ended_are_tidied_away(
    viewer_client: ConsoleClient, admin_client: ConsoleClient
) -> None:
    now = timezone.now()
    ConsoleSession.objects.filter(user=viewer_client.person).update(
        expire_date=now - timedelta(seconds=1)
    )

    enforce_policies(now=now, names=["sessions"])

    assert [each.user for each in ConsoleSession.objects.all()] == [admin_client.person]


def test_the_cookie_is_not_named_in_any_list(viewer_client: ConsoleClient) -> None:
    page = viewer_client.get("/admin/account/").content.decode()

    row = ConsoleSession.objects.get()
    assert str(row.public_id) in page
    assert row.session_key not in page


def test_a_person_ends_another_login_of_theirs(viewer_client: ConsoleClient) -> None:
    other = ConsoleClient()
    other.force_login(viewer_client.person)
    mine = ConsoleSession.objects.exclude(session_key=other.session.session_key).get()
    theirs = ConsoleSession.objects.get(session_key=other.session.session_key)

    viewer_client.post(f"/admin/account/logins/{theirs.public_id}/end/")

    assert not is_in(other)
    assert is_in(viewer_client)
    assert ConsoleSession.objects.get(user=viewer_client.person).pk == mine.pk
    assert AuditEvent.objects.latest("id").verb == "person.login-ended"


def test_nobody_ends_the_login_of_another(
    viewer_client: ConsoleClient, operator_client: ConsoleClient
) -> None:
    row = ConsoleSession.objects.get(user=operator_client.person)

    viewer_client.post(f"/admin/account/logins/{row.public_id}/end/")
    page = f"/admin/common/user/{operator_client.person.pk}/logins/{row.public_id}/end/"
    answer = viewer_client.post(page)

    assert answer.status_code == 403
    assert is_in(operator_client)


def test_an_admin_ends_logins_of_others_in_console_and_api(
    admin_client: ConsoleClient, viewer_client: ConsoleClient
) -> None:
    person = viewer_client.person
    issue_token_pair(user=person)
    page = f"/admin/common/user/{person.pk}/change/"
    shown = admin_client.get(page).context["logins"]

    answers = [admin_client.post(each["end_url"]) for each in shown]

    assert {each["via"] for each in shown} == {"Console", "API or command line"}
    assert [answer["Location"] for answer in answers] == [page, page]
    assert not is_in(viewer_client)
    assert not RefreshToken.objects.filter(user=person, revoked_at=None).exists()
    assert admin_client.get(page).context["logins"] == []


def change(client: Client, **given: str) -> Any:
    form = {"current": PASSWORD, "new": NEW, "again": NEW} | given
    return client.post("/admin/password_change/", form)


def test_a_changed_password_keeps_this_login_and_ends_the_others(
    viewer_client: ConsoleClient,
) -> None:
    other = ConsoleClient()
    other.force_login(viewer_client.person)

    answer = change(viewer_client)

    assert answer["Location"] == "/admin/account/"
    assert is_in(viewer_client)
    assert not is_in(other)
    assert User.objects.get(pk=viewer_client.person.pk).check_password(NEW)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"current": "wrong"}, "not the present password"),
        ({"new": "short", "again": "short"}, "too short"),
        ({"again": "something-else-entirely"}, "differ"),
    ],
)
def test_a_change_that_is_refused_says_why(
    viewer_client: ConsoleClient, given: dict[str, str], words: str
) -> None:
    page = change(viewer_client, **given).content.decode()

    assert words in page
    assert User.objects.get(pk=viewer_client.person.pk).check_password(PASSWORD)


def test_whoever_must_change_the_password_is_led_there_from_everywhere(
    admin_client: ConsoleClient,
) -> None:
    person = PersonFactory.create()
    set_password(
        username=person.username,
        password="told-by-an-admin",
        actor=admin_client.person,
        must_change=True,
    )
    client = ConsoleClient()
    client.post(TO_LOGIN, {"username": person.username, "password": "told-by-an-admin"})

    for path in ("/admin/", "/admin/devices/device/", "/admin/account/"):
        answer = client.get(path)
        assert (answer.status_code, answer["Location"]) == (
            302,
            "/admin/password_change/",
        )
    piece = client.get("/admin/", headers={"HX-Request": "true"})
    assert piece["HX-Redirect"] == "/admin/password_change/"
    assert (
        "Choose a password of your own"
        in client.get("/admin/password_change/").content.decode()
    )

    change(client, current="told-by-an-admin")

    assert is_in(client)


def test_logins_of_the_console_are_in_the_trail(db: None) -> None:
    person = PersonFactory.create()
    client = Client()

    client.post(TO_LOGIN, {"username": person.username, "password": "wrong"})
    client.post(TO_LOGIN, {"username": person.username, "password": PASSWORD})
    client.post("/admin/logout/")

    rows = AuditEvent.objects.filter(verb__startswith="person.log").order_by("id")
    assert [row.verb for row in rows] == [
        "person.login-failed",
        "person.logged-in",
        "person.logged-out",
    ]
    assert not ConsoleSession.objects.filter(user=person).exists()


X11 = "Mozilla/5.0 (X11; Linux x86_64"
NT = "Mozilla/5.0 (Windows NT 10.0; Win64; x64)"
PIXEL = "Mozilla/5.0 (Linux; Android 14; Pixel 8)"
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X)"
MAC = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)"
WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"


@pytest.mark.parametrize(
    ("user_agent", "words"),
    [
        (f"{X11}; rv:128.0) Gecko/20100101 Firefox/128.0", "Firefox 128 on Linux"),
        (f"{X11}) {WEBKIT} Chrome/126.0.0.0 Safari/537.36", "Chrome 126 on Linux"),
        (
            f"{NT} {WEBKIT} Chrome/126.0.0.0 Safari/537.36 Edg/127.0.2592.87",
            "Edge 127 on Windows",
        ),
        (
            f"{PIXEL} {WEBKIT} Chrome/126.0.0.0 Mobile Safari/537.36",
            "Chrome 126 on Android",
        ),
        (
            f"{IPHONE} {WEBKIT} Version/17.5 Mobile/15E148 Safari/604.1",
            "Safari 17 on iPhone",
        ),
        (
            f"{MAC} {WEBKIT} Version/17.5 Safari/605.1.15",
            "Safari 17 on macOS",
        ),
        ("fleet-tool/3 (<b>)", "fleet-tool/3 (&lt;b&gt;)"),
    ],
)
def test_a_login_names_its_browser(db: None, user_agent: str, words: str) -> None:
    client = Client(headers={"user-agent": user_agent})
    person = PersonFactory.create()
    client.post(TO_LOGIN, {"username": person.username, "password": PASSWORD})

    shown = client.get("/admin/account/").content.decode()

    assert f'title="{escape(user_agent)}">{words}</span>' in shown
