"""No page changes anything on GET, and each action asks for its role."""

from collections.abc import Iterator
from typing import Any, cast

import pytest
from django.apps import apps
from django.contrib import admin
from django.forms.models import model_to_dict
from django.test import Client

from firmware.models import Firmware
from hotswap.common.api import throttling
from hotswap.common.console.actions.base import Action
from hotswap.common.console.pages.audit_event import pages_by_kind
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.models import AuditEvent
from hotswap.common.roles import PEOPLE, Role, includes
from tests.console.conftest import ConsoleClient, Scene

OWN_APPS = ("common", "firmware", "devices", "health", "deployments")
# By the name of the model: the object of the scene whose page is opened.
SHOWN = {
    "Quarantine": "quarantine",
    "Firmware": "draft",
    "DeviceModel": "model",
    "Device": "device",
    "DeviceGroup": "group",
    "Deployment": "deployment",
    "User": "person",
    "SigningKey": "signing_key",
    "StorageKey": "storage_key",
    "EnrolmentRequest": "enrolment",
    "EnrolmentToken": "enrolment_token",
    "DeviceImport": "device_import",
    "Webhook": "webhook",
    "MailRecipient": "mail_recipient",
    "Gateway": "gateway",
    "Delivery": "delivery",
}
ADMIN_ONLY = {
    *("User", "AuditEvent", "EnrolmentToken", "DeviceImport"),
    *("Webhook", "MailRecipient", "Gateway", "Delivery"),
}


def console_admins() -> list[ConsoleAdmin]:
    return cast(list[ConsoleAdmin], list(admin.site._registry.values()))


def actions() -> Iterator[tuple[ConsoleAdmin, Action]]:
    for each in console_admins():
        for action_class in each.console_actions:
            yield each, action_class()


ACTIONS = {
    f"{each.opts.object_name}.{action.name}": (each, action)
    for each, action in actions()
}


def thing(scene: Scene, each: ConsoleAdmin, action: Action | None = None) -> Any:
    """Return what an action is about, or None for an action of the list."""
    if action is not None and action.is_of_list:
        return None
    return getattr(scene, SHOWN[str(each.opts.object_name)])


def snapshot() -> dict[str, Any]:
    """Return every row of the own apps, but for when people were last seen."""
    rows: dict[str, Any] = {}
    for model in apps.get_models():
        if model._meta.app_label in OWN_APPS:
            found = [
                (each.pk, model_to_dict(each))
                for each in model._base_manager.order_by("pk")
            ]
            for _, fields in found:
                for name in (
                    "last_login",
                    "expire_date",
                    "session_data",
                    "last_seen_at",
                ):
                    fields.pop(name, None)
            rows[model._meta.label] = found
    return rows


def test_every_admin_is_of_the_console() -> None:
    strangers = [
        type(each).__name__
        for each in console_admins()
        if not isinstance(each, ConsoleAdmin)
        or each.actions
        or each.actions_list
        or each.actions_row
        or each.actions_detail
        or each.actions_submit_line
    ]

    assert strangers == []


def test_get_changes_nothing_anywhere(admin_client: Client, scene: Scene) -> None:
    urls = ["/admin/"]
    for each in console_admins():
        urls.append(each.list_url())
        if each.page_template:
            urls.append(each.page_url(thing(scene, each)))
    urls += [
        each.action_url(action, thing(scene, each, action))
        for each, action in ACTIONS.values()
    ]
    urls.append(f"/admin/deployments/deployment/{scene.deployment.pk}/live/")
    before = snapshot()

    answers = {url: admin_client.get(url).status_code for url in urls}
    answers |= {
        f"piece of {url}": admin_client.get(
            url, headers={"HX-Request": "true"}
        ).status_code
        for url in urls
    }

    assert {url: status for url, status in answers.items() if status != 200} == {}
    assert snapshot() == before


def test_lists_and_pages_take_no_post(admin_client: Client, scene: Scene) -> None:
    before = snapshot()

    for each in console_admins():
        assert admin_client.post(each.list_url(), {"x": "y"}).status_code == 405
        if each.page_template:
            url = each.page_url(thing(scene, each))
            assert admin_client.post(url, {"status": "Approved"}).status_code == 405

    assert snapshot() == before


def test_actions_ask_for_their_role(log_in: Any, scene: Scene) -> None:
    clients = {role: log_in(role) for role in PEOPLE}
    before = snapshot()

    for name, (each, action) in ACTIONS.items():
        url = each.action_url(action, thing(scene, each, action))
        for role, client in clients.items():
            allowed = includes(role, action.role) and (
                role is Role.ADMIN or each.opts.object_name not in ADMIN_ONLY
            )
            status = client.get(url).status_code
            assert status == (200 if allowed else 403), (name, role)
            if not allowed:
                refused = client.post(url, {"reason": "because"})
                assert refused.status_code == 403, (name, role)

    assert snapshot() == before


def test_lists_show_themselves_by_role(log_in: Any, scene: Scene) -> None:
    for role in PEOPLE:
        client = log_in(role)
        for each in console_admins():
            hidden = each.opts.object_name in ADMIN_ONLY and role is not Role.ADMIN
            status = client.get(each.list_url()).status_code
            assert status == (403 if hidden else 200)


def test_strangers_are_sent_to_the_login(scene: Scene) -> None:
    for each in console_admins():
        answer = Client().get(each.list_url())
        assert answer.status_code == 302
        assert answer["Location"].startswith("/admin/login/")


def test_what_a_role_may_not_do_is_shown_with_what_it_needs(
    viewer_client: Client, operator_client: Client, scene: Scene
) -> None:
    firmware = operator_client.get(f"/admin/firmware/firmware/{scene.draft.pk}/change/")
    deployment = viewer_client.get(
        f"/admin/deployments/deployment/{scene.deployment.pk}/change/"
    )

    assert b"needs Admin" in firmware.content
    assert b"action-approve" not in firmware.content
    assert b"needs Operator" in deployment.content
    assert b"action-pause" not in deployment.content


def test_a_post_without_the_token_of_the_form_is_refused(
    log_in: Any, scene: Scene
) -> None:
    client = log_in(Role.ADMIN, enforce_csrf_checks=True)
    before = snapshot()

    for each, action in ACTIONS.values():
        url = each.action_url(action, thing(scene, each, action))
        assert client.post(url, {"reason": "because"}).status_code == 403

    assert snapshot() == before


def test_a_page_of_nothing_is_404(admin_client: Client, db: None) -> None:
    for place in ("firmware/firmware", "devices/device", "deployments/deployment"):
        for wrong in ("0a1b", "00000000-0000-4000-8000-000000000000"):
            url = f"/admin/{place}/{wrong}/change/"
            assert admin_client.get(url).status_code == 404


def test_lists_ask_the_same_questions_for_many_rows(
    admin_client: ConsoleClient, scene: Scene, django_assert_max_num_queries: Any
) -> None:
    scene.world.fleet(20, scene.world.image("1.3.0"), prefix="more")
    for version in range(6):
        scene.world.image(f"2.0.{version}")
    for _ in range(3):
        scene.world.launch(scene.approved)

    for each in console_admins():
        # The audit trail looks up the names of each kind of object, once a kind.
        kinds = len(pages_by_kind()) if each.model is AuditEvent else 0
        with django_assert_max_num_queries(20 + kinds):
            assert admin_client.get(each.list_url()).status_code == 200
    with django_assert_max_num_queries(22):
        admin_client.get(f"/admin/deployments/deployment/{scene.deployment.pk}/live/")


def test_snapshot_sees_changes(scene: Scene) -> None:
    before = snapshot()

    Firmware.objects.filter(pk=scene.draft.pk).update(release_notes="other")

    assert snapshot() != before
    assert AuditEvent.objects.exists()


def test_what_costs_much_has_a_limit_of_its_own(
    admin_client: ConsoleClient, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Let no minute end in between.
    number = throttling._window(60)[0]
    monkeypatch.setattr(throttling, "_window", lambda seconds: (number, 30.5))
    limited = [(each, action) for each, action in actions() if action.rate]
    assert {action.rate for _, action in limited} == {
        *("UPLOADS_PER_MINUTE", "IMPORTS_PER_MINUTE", "PREVIEWS_PER_MINUTE")
    }

    for each, action in limited:
        setattr(settings, action.rate, 2)
        if not action.is_of_list:
            continue
        url = each.action_url(action, None)
        found = [admin_client.post(url, {}) for _ in range(3)]
        assert [answer.status_code == 429 for answer in found] == [False, False, True]
        assert found[2]["Retry-After"] == "31"
        assert b"wait 31 s" in found[2].content
        assert admin_client.get(url).status_code == 200
