"""The catalogue of device models over the API."""

from uuid import uuid4

from hotswap.common.models import AuditEvent
from tests.api import problem_of
from tests.callers import PersonCaller
from tests.firmware.factories import DeviceModelFactory


def test_a_model_says_whether_it_requires_secure_boot(
    admin: PersonCaller, viewer: PersonCaller
) -> None:
    made = admin.post(
        "/device-models", {"name": "gateway-v2", "requiresSecureBoot": True}
    ).json()

    shown = viewer.get(f"/device-models/{made['id']}").json()

    assert made["requiresSecureBoot"] is True
    assert shown == made


def test_it_requires_nothing_unless_told(admin: PersonCaller) -> None:
    assert (
        admin.post("/device-models", {"name": "plain"}).json()["requiresSecureBoot"]
        is False
    )


def test_a_change_is_written_down_once(admin: PersonCaller) -> None:
    model = DeviceModelFactory.create()
    path = f"/device-models/{model.pk}"

    changed = admin.patch(path, {"requiresSecureBoot": True})
    again = admin.patch(path, {"requiresSecureBoot": True})

    assert changed.json()["requiresSecureBoot"] is True
    assert again.headers["ETag"] == changed.headers["ETag"]
    row = AuditEvent.objects.get(verb="device-model.changed")
    assert row.object_id == str(model.pk)
    assert row.details == {
        "fields": ["requires_secure_boot"],
        "requiresSecureBoot": True,
        "versionScheme": "semver",
        "changes": {"requiresSecureBoot": {"from": False, "to": True}},
    }


def test_a_stale_change_is_refused(admin: PersonCaller) -> None:
    model = DeviceModelFactory.create()
    path = f"/device-models/{model.pk}"
    etag = admin.get(path).headers["ETag"]
    admin.patch(path, {"description": "newer"})

    answer = admin.patch(path, {"requiresSecureBoot": True}, headers={"If-Match": etag})

    assert problem_of(answer, 412)["code"] == "stale"


def test_a_wrong_word_names_its_field(admin: PersonCaller) -> None:
    model = DeviceModelFactory.create()

    answer = admin.patch(f"/device-models/{model.pk}", {"requiresSecureBoot": "maybe"})

    problem = problem_of(answer, 400)
    assert [error["pointer"] for error in problem["errors"]] == ["/requiresSecureBoot"]


def test_an_unknown_model_is_not_found(admin: PersonCaller) -> None:
    answer = admin.patch(f"/device-models/{uuid4()}", {"description": "x"})

    assert problem_of(answer, 404)["code"] == "model_not_found"
