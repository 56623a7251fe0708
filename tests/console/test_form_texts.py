"""What forms say is wrong: in sentences, with the place, and once."""

from django import forms

from hotswap.common.console.forms import ConsoleForm
from hotswap.common.errors import ConflictError, FieldError
from tests.console.conftest import ConsoleClient, Scene


class PairForm(ConsoleForm):
    model = forms.CharField()
    increments = forms.CharField()


def bound_form() -> PairForm:
    form = PairForm({"model": "a", "increments": "50, 30, abc"})
    form.is_valid()
    return form


def test_an_error_of_a_list_says_which_value_is_meant() -> None:
    form = bound_form()

    form.take_errors({"increments": {2: ["a valid integer is required"]}})

    assert form.errors["increments"] == ["Value 3: a valid integer is required"]


def test_what_several_fields_are_wrong_about_is_said_once() -> None:
    form = bound_form()

    form.take_errors({"model": ["exists already"], "increments": ["exists already"]})

    assert dict(form.errors) == {"model": ["Exists already"]}


def test_a_refusal_is_a_sentence_and_is_said_once() -> None:
    form = bound_form()
    detail = "only Draft firmware can be approved"

    form.refuse(ConflictError(detail, errors=[FieldError("/a", "x", detail)] * 2))

    assert form.non_field_errors() == ["Only Draft firmware can be approved"]


def test_json_that_is_none_is_told_by_its_place(
    operator_client: ConsoleClient, scene: Scene
) -> None:
    answer = operator_client.post(
        f"/admin/devices/device/{scene.device.pk}/edit/",
        {"region": "US-EAST", "tags": "", "metadata": '{"rack": seven}'},
    )

    said = "line 1, column 10: a value is missing, or a text without quotation marks"
    assert said in answer.content.decode()
