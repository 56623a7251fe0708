"""Names, tags and the archive of deployments, in the console."""

from deployments.models import Deployment
from tests.console.conftest import ConsoleClient, Scene
from tests.console.test_deployments import url_of

LIST = "/admin/deployments/deployment/"


def test_an_operator_renames_and_tags(
    operator_client: ConsoleClient, scene: Scene
) -> None:
    url = url_of(scene.deployment, "label")
    form = operator_client.get(url).content.decode()
    assert f'value="{scene.deployment.name}"' in form

    answer = operator_client.post(url, {"name": "Pilot", "tags": "north, lab ,north,"})

    assert answer.status_code == 302
    scene.deployment.refresh_from_db()
    assert scene.deployment.name == "Pilot"
    assert scene.deployment.tags == ["lab", "north"]
    page = operator_client.get(url_of(scene.deployment, "change")).content.decode()
    assert '<span class="hs-tag">north</span>' in page
    assert b"Pilot" in operator_client.get(f"{LIST}?tag=north").content
    assert b"Pilot" not in operator_client.get(f"{LIST}?tag=south").content


def test_a_tag_that_is_too_long_is_named(
    operator_client: ConsoleClient, scene: Scene
) -> None:
    answer = operator_client.post(
        url_of(scene.deployment, "label"), {"name": "Pilot", "tags": "x" * 33}
    )

    assert answer.status_code == 200
    assert b"a tag has 32 characters at most" in answer.content


def test_the_list_leaves_out_what_is_in_the_archive(
    operator_client: ConsoleClient, scene: Scene
) -> None:
    name = scene.deployment.name.encode()
    archive = url_of(scene.deployment, "archive")
    page = operator_client.get(url_of(scene.deployment, "change")).content.decode()
    assert archive not in page
    Deployment.objects.filter(pk=scene.deployment.pk).update(status="Completed")
    page = operator_client.get(url_of(scene.deployment, "change")).content.decode()
    assert archive in page

    assert operator_client.post(archive, {}).status_code == 302
    # It names what was done, once; and what its filter leaves out.
    shown = operator_client.get(LIST).content.decode()
    assert "is in the archive." in shown
    assert '<option value="">hidden</option>' in shown

    rows = {
        query: name in operator_client.get(f"{LIST}{query}").content
        for query in ("", "?archive=only", "?archive=all")
    }
    assert rows == {"": False, "?archive=only": True, "?archive=all": True}
    # One that goes back after all is no matter of the past.
    Deployment.objects.filter(pk=scene.deployment.pk).update(status="RollingBack")
    assert name in operator_client.get(LIST).content
    Deployment.objects.filter(pk=scene.deployment.pk).update(status="RolledBack")
    assert name not in operator_client.get(LIST).content
    operator_client.post(url_of(scene.deployment, "unarchive"), {})
    assert name in operator_client.get(LIST).content


def test_a_viewer_labels_nothing(viewer_client: ConsoleClient, scene: Scene) -> None:
    for verb in ("label", "archive", "unarchive"):
        answer = viewer_client.post(url_of(scene.deployment, verb), {"name": "x"})
        assert answer.status_code in (403, 404)
    scene.deployment.refresh_from_db()
    assert scene.deployment.name != "x"
