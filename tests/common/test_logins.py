"""What guessing passwords costs, and where it ends."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection, transaction
from django.test import Client, RequestFactory
from django.utils import timezone
from rest_framework.exceptions import Throttled

from hotswap.common.api import throttling
from hotswap.common.api.throttling import guard_password
from hotswap.common.cache import ForgivingRedisCache
from hotswap.common.models import LoginCount, User
from hotswap.common.signatures import Meaning
from hotswap.common.signing_people import sign
from hotswap.retention import enforce_policies
from hotswap.settings import base
from hotswap.stack.folder import StackFolder
from hotswap.stack.processes import Supervisor
from hotswap.stack.redis import RedisServer
from tests.api import Caller, problem_of
from tests.common.factories import PASSWORD, PersonFactory
from tests.deployments.fleet import frozen
from tests.factors import add_app, code_of
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def one_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute that does not end, with counters that no other test has."""
    window = uuid4().int
    monkeypatch.setattr(throttling, "_window", lambda seconds: (window, 60.0))


def wrong(account: str, address: str = "192.0.2.1") -> bool:
    """Guess once; tell whether the guess was looked at."""
    judged = []
    request = RequestFactory().post("/", REMOTE_ADDR=address)
    try:
        guard_password(request, account, lambda: judged.append(1))
    except Throttled:
        return False
    return bool(judged)


@pytest.mark.django_db
def test_guesses_at_one_account_end_at_ten() -> None:
    judged = [wrong("somebody") for _ in range(15)]

    assert judged == [True] * 10 + [False] * 5
    assert wrong("somebody", "192.0.2.2")
    assert wrong("another")


@pytest.mark.django_db
def test_guesses_at_many_accounts_end_for_their_address(settings: Any) -> None:
    settings.LOGIN_FAILURES_PER_ADDRESS = 30

    judged = [wrong(f"name-{number}") for number in range(40)]

    assert judged == [True] * 30 + [False] * 10
    assert wrong("name-0", "192.0.2.2")


@pytest.mark.django_db
def test_a_redis_that_freezes_and_comes_back_gives_no_more_guesses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = StackFolder(tmp_path)
    folder.create()
    redis = RedisServer(folder)
    server = Supervisor([redis.program()])
    server.start()
    try:
        server.wait_ready(120)
        monkeypatch.setattr(
            throttling,
            "cache",
            ForgivingRedisCache(redis.url, {"OPTIONS": {"socket_timeout": 1}}),
        )
        judged = [wrong("somebody") for _ in range(4)]
        with frozen(server.pid("redis")):
            judged += [wrong("somebody") for _ in range(3)]
        judged += [wrong("somebody") for _ in range(8)]
    finally:
        server.stop()

    assert judged == [True] * 10 + [False] * 5


@pytest.mark.django_db
def test_counts_of_guesses_are_tidied_away() -> None:
    wrong("somebody")
    assert LoginCount.objects.exists()

    enforce_policies(now=timezone.now() + timedelta(hours=2), names=["login-counts"])

    assert not LoginCount.objects.exists()


@pytest.mark.django_db
def test_addresses_of_one_ipv6_network_count_together(settings: Any) -> None:
    settings.LOGIN_FAILURES_PER_ADDRESS = 30

    judged = [wrong(f"name-{n}", f"2001:db8:1:2::{n:x}") for n in range(40)]

    assert judged == [True] * 30 + [False] * 10
    assert wrong("name-0", "2001:db8:1:3::1")


@pytest.mark.django_db
def test_guesses_at_one_account_from_everywhere_end(settings: Any) -> None:
    settings.LOGIN_FAILURES_PER_ACCOUNT = 20

    judged = [wrong("somebody", f"192.0.2.{number}") for number in range(1, 30)]

    assert sum(judged) == 20
    assert judged[:20] == [True] * 20


@pytest.mark.django_db
def test_forty_names_of_one_address_and_forty_addresses_of_one_name_are_stopped(
    settings: Any,
) -> None:
    settings.LOGIN_FAILURES_PER_ADDRESS = base.LOGIN_FAILURES_PER_ADDRESS

    names = [wrong(f"name-{number}", "198.51.100.1") for number in range(40)]
    addresses = [wrong("sprayed", f"192.0.2.{number}") for number in range(40)]

    assert names == addresses == [True] * 30 + [False] * 10


@pytest.mark.django_db
def test_refused_guesses_take_no_place_of_others(settings: Any) -> None:
    settings.LOGIN_FAILURES_PER_ADDRESS = 30
    for _ in range(100):
        wrong("somebody")

    assert wrong("another")


@pytest.mark.django_db
def test_success_gives_its_place_back() -> None:
    request = RequestFactory().post("/")

    assert all(guard_password(request, "me", lambda: True) for _ in range(30))


@pytest.mark.django_db(transaction=True)
def test_guesses_at_the_same_time_count_too() -> None:
    """Each waits until all that get a place have one: none is counted afterwards."""
    go = threading.Event()
    judged: list[int] = []
    refused: list[int] = []

    def guess(number: int) -> None:
        request = RequestFactory().post("/", REMOTE_ADDR="192.0.2.1")
        try:
            guard_password(request, "somebody", lambda: look(number))
        except Throttled:
            refused.append(number)
        finally:
            connection.close()

    def look(number: int) -> None:
        judged.append(number)
        go.wait(60)

    with ThreadPoolExecutor(64) as pool:
        for number in range(64):
            pool.submit(guess, number)
        wait_until(
            lambda: len(refused) == 64 - throttling.LOGINS_AT_ONCE,
            seconds=60,
            what="all but a few refused",
        )
        assert len(judged) <= throttling.HASHES_AT_ONCE
        go.set()

    assert len(judged) == throttling.LOGINS_AT_ONCE


@pytest.mark.django_db(transaction=True)
def test_guesses_of_many_processes_at_the_same_time_count_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As many as would be in several processes, which share the database alone."""
    for name in ("_logins", "_hashes"):
        monkeypatch.setattr(throttling, name, threading.BoundedSemaphore(24))
    together = threading.Barrier(24)

    def guess(_: int) -> bool:
        try:
            together.wait(120)
            return wrong("somebody")
        finally:
            connection.close()

    with ThreadPoolExecutor(24) as pool:
        judged = list(pool.map(guess, range(24)))

    assert sum(judged) == 10


@pytest.mark.django_db(transaction=True)
def test_a_deed_that_is_signed_and_lasts_keeps_no_login_waiting() -> None:
    """Reading the image that is approved may take seconds."""
    person, request = PersonFactory.create(), RequestFactory().post("/")

    def another_login() -> bool:
        try:
            with connection.cursor() as cursor:
                cursor.execute("SET lock_timeout = '5s'")
            return wrong("another", request.META["REMOTE_ADDR"])
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool, transaction.atomic():
        sign(request, person, Meaning.APPROVAL, password=PASSWORD)
        judged = pool.submit(another_login).result(120)

    assert judged


@pytest.mark.django_db
def test_places_come_back_after_an_attempt_that_breaks() -> None:
    request = RequestFactory().post("/")

    def broken() -> None:
        raise LookupError

    for _ in range(throttling.LOGINS_AT_ONCE + 1):
        with pytest.raises(LookupError):
            guard_password(request, "me", broken)

    assert guard_password(request, "me", lambda: True)


@pytest.mark.django_db
def test_the_console_and_the_api_share_their_limits(settings: Any) -> None:
    settings.LOGIN_FAILURES_PER_MINUTE = 3
    person = PersonFactory.create()
    client = Client()
    for _ in range(3):
        client.post("/admin/login/", {"username": person.username, "password": "wrong"})

    page = client.post(
        "/admin/login/", {"username": person.username, "password": PASSWORD}
    )
    answer = Caller().post(
        "/auth/token", {"username": person.username, "password": PASSWORD}
    )

    assert b"Too many failures" in page.content
    problem_of(answer, 429, "throttled")
    assert answer["Retry-After"] == "60"


@pytest.fixture
def person(settings: Any) -> User:
    settings.LOGIN_FAILURES_PER_ACCOUNT = 5
    return PersonFactory.create()


def console_login(client: Client, name: str, password: str = PASSWORD) -> bool:
    """Log in by the form; tell whether that opened the console."""
    client.post("/admin/login/", {"username": name, "password": password})
    return client.get("/admin/account/").status_code == 200


def known_names(client: Client) -> list[str]:
    return [name for name in client.cookies if name.startswith("known-")]


def log_out(client: Client) -> None:
    del client.cookies["sessionid"]


@pytest.mark.django_db
def test_guesses_of_strangers_do_not_shut_out_a_browser_that_is_known(
    person: User,
) -> None:
    known, new = Client(), Client()
    assert console_login(known, person.username)
    log_out(known)
    for number in range(10):
        wrong(person.username, f"192.0.2.{number}")

    assert not console_login(new, person.username)
    assert console_login(known, person.username)


@pytest.mark.django_db
def test_guesses_of_a_browser_that_is_known_end_too(
    person: User, settings: Any
) -> None:
    settings.LOGIN_FAILURES_PER_MINUTE = 3
    known = Client()
    assert console_login(known, person.username)
    log_out(known)

    for _ in range(3):
        assert not console_login(known, person.username, "wrong")

    assert not console_login(known, person.username)
    assert console_login(Client(), person.username)


@pytest.mark.django_db
def test_a_browser_is_known_under_the_name_that_it_logged_in_with(
    person: User,
) -> None:
    other, forging = PersonFactory.create(), Client()
    assert console_login(forging, other.username)
    log_out(forging)
    (theirs,) = known_names(forging)
    value = forging.cookies[theirs].value
    known = Client()
    console_login(known, person.username)
    (wanted,) = known_names(known)
    forging.cookies[wanted] = value
    for number in range(10):
        wrong(person.username, f"192.0.2.{number}")

    assert not console_login(forging, person.username)
    assert known.cookies[wanted]["httponly"]


@pytest.mark.django_db
def test_a_browser_is_known_after_the_second_factor_and_not_before(
    person: User,
) -> None:
    secret, client = add_app(person), Client()

    client.post("/admin/login/", {"username": person.username, "password": PASSWORD})
    before = known_names(client)
    code = {"code": code_of(secret)}
    client.post("/admin/account/factors/authenticate/", code)

    assert (len(before), len(known_names(client))) == (0, 1)
