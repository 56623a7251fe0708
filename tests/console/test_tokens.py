"""Personal access tokens on the pages of one's own account, and of a person."""

import re

from hotswap.common.models import AuditEvent, PersonalToken
from tests.api import Caller
from tests.console.conftest import ConsoleClient

NEW = "/admin/account/tokens/create/"
FORM = {"name": "ci", "role": "Operator", "days": "90"}


def make(client: ConsoleClient) -> str:
    page = client.post(NEW, FORM).content.decode()
    found = re.search(r"hst_[\w-]{40,}", page)
    assert found, page
    return found[0]


def test_a_token_is_shown_once_and_works(operator_client: ConsoleClient) -> None:
    text = make(operator_client)

    account = operator_client.get("/admin/account/")

    assert Caller(token=text).get("/devices").status_code == 200
    assert text not in account.content.decode()
    assert [each["name"] for each in account.context["tokens"]] == ["ci"]
    assert text not in str(AuditEvent.objects.values())


def test_roles_above_ones_own_are_not_offered(viewer_client: ConsoleClient) -> None:
    choices = viewer_client.get(NEW).context["form"].fields["role"].choices

    assert [name for name, _ in choices] == ["Viewer"]
    assert not PersonalToken.objects.exists()
    viewer_client.post(NEW, FORM)
    assert not PersonalToken.objects.exists()


def test_its_person_revokes_a_token(operator_client: ConsoleClient) -> None:
    text = make(operator_client)
    (shown,) = operator_client.get("/admin/account/").context["tokens"]

    operator_client.post(shown["revoke_url"])

    assert Caller(token=text).get("/devices").status_code == 401
    assert operator_client.get("/admin/account/").context["tokens"] == []


def test_an_admin_revokes_the_token_of_another(
    admin_client: ConsoleClient, operator_client: ConsoleClient
) -> None:
    text = make(operator_client)
    page = f"/admin/common/user/{operator_client.person.pk}/change/"
    (shown,) = admin_client.get(page).context["tokens"]

    assert operator_client.post(shown["revoke_url"]).status_code == 403
    assert admin_client.post(shown["revoke_url"])["Location"] == page

    assert Caller(token=text).get("/devices").status_code == 401
