"""Each channel is declared once; all that is built from it is there."""

from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib import admin
from django.urls import resolve, reverse

from deployments.models import RECEIVERS, Delivery
from deployments.notifications.channels.registry import CHANNELS, OF_MODEL
from deployments.notifications.channels.types import Channel
from deployments.receiver_inputs import ADDITIONS, CHANGES
from hotswap.common.console.pages.base import ConsoleAdmin

EACH = [pytest.param(channel, id=channel.route) for channel in CHANNELS]


def test_every_receiver_has_one_channel() -> None:
    assert [each.model for each in CHANNELS] == list(RECEIVERS)
    assert set(OF_MODEL) == set(RECEIVERS)


@pytest.mark.parametrize("channel", EACH)
def test_a_channel_names_a_field_of_a_delivery(channel: Channel) -> None:
    field: Any = Delivery._meta.get_field(channel.model.delivery_field)

    assert field.attname == channel.key
    assert field.related_model is channel.model


@pytest.mark.parametrize("channel", EACH)
def test_what_a_channel_is_sent_names_its_endpoint(channel: Channel) -> None:
    added = ADDITIONS[channel.model]().fields
    changed = CHANGES[channel.model]().fields

    assert added[channel.endpoint.name].required
    assert (channel.endpoint.name in changed) == channel.endpoint.is_changeable


@pytest.mark.parametrize("channel", EACH)
def test_a_channel_has_its_routes_and_its_page(channel: Channel) -> None:
    page = admin.site._registry[channel.model]
    place = f"/api/v1/{channel.route}"
    known = "11111111-1111-1111-1111-111111111111"

    assert resolve(place).url_name == channel.route
    assert resolve(f"{place}/{known}/test").url_name == f"{channel.model.kind}-test"
    assert isinstance(page, ConsoleAdmin)
    assert reverse(f"admin:{page.url_name('add')}")
    assert page.audit_kind == channel.model.kind


@pytest.mark.parametrize("channel", EACH)
def test_the_docs_name_a_channel(channel: Channel) -> None:
    page = (Path(settings.BASE_DIR) / "docs" / "notifications.md").read_text()

    assert f"/api/v1/{channel.route}" in page
