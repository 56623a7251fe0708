"""Each field of a strategy is declared once; all that is built from it agrees."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings
from django.core.exceptions import ValidationError

from deployments.choices import Strategy
from deployments.console.actions.launch_form import (
    OWN_FIELDS,
    LaunchForm,
    form_fields,
    start_value,
)
from deployments.inputs import DeploymentInput
from deployments.strategies.fields import Field, Kind
from deployments.strategies.registry import STRATEGIES
from hotswap.cli.deployments import STRATEGY_NAMES
from hotswap.common.durations import format_duration
from hotswap.common.wire import camelize

DOCS = Path(settings.BASE_DIR) / "docs"
DECLARED = [
    pytest.param(strategy, field, id=f"{strategy.name}.{field.name}")
    for strategy in STRATEGIES.values()
    for field in strategy.fields
]


def on_the_wire(field: Field) -> Any:
    """Return the default of a field as a body of the API has it."""
    if field.kind == Kind.DURATION:
        return format_duration(timedelta(seconds=field.default))
    return field.default


def test_every_strategy_that_can_be_chosen_is_declared() -> None:
    assert set(STRATEGIES) == set(Strategy.values)
    assert all(
        strategy.summary and strategy.picture for strategy in STRATEGIES.values()
    )


def test_no_two_strategies_declare_a_field_of_one_name() -> None:
    names = [field.name for each in STRATEGIES.values() for field in each.fields]

    assert len(set(names)) == len(names)


def test_the_command_line_takes_every_strategy() -> None:
    assert set(STRATEGY_NAMES.values()) == set(STRATEGIES)
    assert STRATEGY_NAMES["blue-green"] == "BlueGreen"


@pytest.mark.parametrize(("strategy", "field"), DECLARED)
def test_a_declared_field_is_taken_and_described_by_the_api(
    strategy: Any, field: Field
) -> None:
    document = yaml.safe_load((DOCS / "openapi.yaml").read_text())
    described = document["components"]["schemas"]["DeploymentInputRequest"][
        "properties"
    ]

    assert camelize(field.name) in DeploymentInput().fields
    assert camelize(field.name) in described


@pytest.mark.parametrize(("strategy", "field"), DECLARED)
def test_a_declared_default_is_one_that_the_api_takes(
    strategy: Any, field: Field
) -> None:
    taken = DeploymentInput().fields[camelize(field.name)]

    if field.kind != Kind.FLEET:
        value = taken.run_validation(on_the_wire(field))
        stored = value.total_seconds() if isinstance(value, timedelta) else value
        assert stored == field.default


@pytest.mark.parametrize(("strategy", "field"), DECLARED)
def test_the_launch_form_shows_a_declared_field_for_its_strategy_alone(
    strategy: Any, field: Field
) -> None:
    for name in form_fields(field):
        assert name in LaunchForm.base_fields
        assert [each for each, names in OWN_FIELDS.items() if name in names] == [
            strategy.name
        ]


@pytest.mark.parametrize(("strategy", "field"), DECLARED)
def test_the_docs_say_of_a_declared_field_what_it_means(
    strategy: Any, field: Field
) -> None:
    page = (DOCS / "deployments.md").read_text()
    section = page.split("## Fields of a launch")[1].split("\n## ")[0]
    rows = dict(
        re.findall(r"^\| `([\w.]+)` \|.*\| ([^|]*?) \|$", section, re.MULTILINE)
    )
    meaning = f"`{strategy.name}`" + (f": {field.meaning}" if field.meaning else "")

    if field.kind != Kind.FLEET:
        assert rows[camelize(field.name)] == meaning


def test_the_form_starts_with_the_declared_defaults(settings: Any) -> None:
    settings.DEMO_CLOCK = ""
    shown = {
        field.name: start_value(field)
        for strategy in STRATEGIES.values()
        for field in strategy.fields
        if field.kind == Kind.DURATION
    }

    assert shown["wait_duration"] == "PT1H"
    assert shown["switch_hold"] == "PT0S"
    assert shown == {
        field.name: on_the_wire(field)
        for strategy in STRATEGIES.values()
        for field in strategy.fields
        if field.kind == Kind.DURATION
    }


def test_a_list_of_numbers_of_any_name_goes_through_the_form() -> None:
    declared = Field(
        name="step_sizes", kind=Kind.INTEGERS, label="Step sizes", default=(10, 20)
    )

    (name, field), *more = form_fields(declared).items()

    assert (name, more) == ("stepSizes", [])
    assert start_value(declared) == "10, 20"
    assert field.clean("1, 2\n3") == [1, 2, 3]
    assert field.clean("") == []
    with pytest.raises(ValidationError, match="'3O' is no whole number"):
        field.clean("1 3O")


def test_the_fields_of_each_strategy_are_shown_when_it_is_chosen() -> None:
    styles = (Path(settings.BASE_DIR) / "static/hotswap/console.css").read_text()

    for name, fields in OWN_FIELDS.items():
        rule = f".hs-strategy:has([value={name}]:checked) .hs-when-{name.lower()}"
        assert not fields or rule in styles, name
