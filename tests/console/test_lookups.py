"""What the query string of a list may ask of the database."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any, cast

import pytest
from django.contrib import admin
from django.db import connection
from django.urls import reverse

from devices.models import Device
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.roles import Role
from tests.console.conftest import ConsoleClient

LISTS = list(admin.site._registry.values())
CONSOLE_LISTS = [each for each in LISTS if isinstance(each, ConsoleAdmin)]


def list_of(model_admin: Any) -> str:
    return model_admin.url("changelist")


@pytest.mark.parametrize("model_admin", CONSOLE_LISTS, ids=lambda each: each.title)
def test_a_list_filters_by_no_column_but_by_its_own_filters(
    admin_client: ConsoleClient, model_admin: ConsoleAdmin
) -> None:
    address = list_of(model_admin)
    columns = [field.attname for field in model_admin.opts.concrete_fields]
    own = {each.parameter_name for each in cast(Any, model_admin.list_filter)}

    answers = {
        f"{column}{lookup}": admin_client.get(address, {f"{column}{lookup}": "("})
        for column in columns
        for lookup in ("", "__regex", "__gt", "__year")
        if f"{column}{lookup}" not in own
    }
    plain = [admin_client.get(address, {name: "x"}) for name in own]

    assert {name: a.status_code for name, a in answers.items()} == dict.fromkeys(
        answers, 400
    )
    assert all(answer.status_code in (200, 302) for answer in plain)


def test_no_list_is_one_of_django_alone() -> None:
    strangers = [each for each in LISTS if not isinstance(each, ConsoleAdmin)]

    assert strangers == []


def test_hashes_of_passwords_cannot_be_asked_for(admin_client: ConsoleClient) -> None:
    for name in ("password__regex", "password__startswith", "groups__name"):
        answer = admin_client.get(reverse("admin:common_user_changelist"), {name: "m"})

        assert answer.status_code == 400


@pytest.mark.django_db(transaction=True)
def test_a_value_that_the_database_cannot_take_is_the_senders_fault(
    log_in: Callable[..., ConsoleClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = log_in(Role.VIEWER, raise_request_exception=False)
    # As it would be if another way to such a value were found.
    monkeypatch.setattr(
        admin.site._registry[Device],
        "lookup_allowed",
        lambda lookup, value, request: True,
    )

    answer = client.get(
        reverse("admin:devices_device_changelist"), {"device_id__regex": "("}
    )

    assert answer.status_code == 400


@pytest.mark.django_db(transaction=True)
def test_a_page_that_waits_too_long_for_the_database_says_so(
    log_in: Callable[..., ConsoleClient],
) -> None:
    client = log_in(Role.VIEWER, raise_request_exception=False)
    holder = connection.copy()
    try:
        with holder.cursor() as cursor, connection.cursor() as own:
            holder.set_autocommit(False)
            cursor.execute("LOCK TABLE devices_device IN ACCESS EXCLUSIVE MODE")
            own.execute("SET lock_timeout = '100ms'")
            answer = client.get(reverse("admin:devices_device_changelist"))
            holder.rollback()
            own.execute("SET lock_timeout = 0")
    finally:
        holder.close()

    assert answer.status_code == 503
    assert answer["Retry-After"] == "1"


def test_a_statement_of_a_web_process_ends_by_itself(db: None) -> None:
    url = connection.get_connection_params()
    address = " ".join(
        f"{name}='{url[key]}'"
        for name, key in (
            *(("host", "host"), ("port", "port"), ("user", "user")),
            *(("password", "password"), ("dbname", "dbname")),
        )
        if url.get(key)
    )
    script = (
        "import hotswap.wsgi\n"
        "from django.db import connection\n"
        "with connection.cursor() as cursor:\n"
        "    cursor.execute('SHOW statement_timeout')\n"
        "    print(cursor.fetchone()[0])\n"
        "    cursor.execute('SHOW idle_in_transaction_session_timeout')\n"
        "    print(cursor.fetchone()[0])"
    )

    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "hotswap.settings.local",
            "HOTSWAP_DATABASE_URL": address,
        },
    ).stdout.split()

    assert said == ["10s", "5s"]
