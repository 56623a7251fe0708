"""What the page of a device shows of its health over time, and of what is usual."""

import html
import re
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.utils import timezone

from devices.models import Device
from health.models import DeviceState
from health.services.heartbeats import record_heartbeat
from health.services.refusals import note_refused_heartbeat
from tests.console.conftest import ConsoleClient
from tests.devices.factories import DeviceFactory
from tests.health.factories import HeartbeatFactory


@pytest.fixture
def device(db: None) -> Device:
    return DeviceFactory.create()


def beats(device: Device, count: int, **fields: Any) -> None:
    """Let a device report healthily, the last time just now."""
    for number in range(count):
        record_heartbeat(
            device=Device.objects.get(pk=device.pk),
            beat=HeartbeatFactory.create(**fields),
            now=timezone.now() - timedelta(minutes=count - number),
        )


def shown(client: ConsoleClient, device: Device, **query: str) -> str:
    """Return the page of a device, its white space folded and its entities read."""
    page = client.get(
        f"/admin/devices/device/{device.pk}/change/?{urlencode(query)}"
    ).content.decode()
    return re.sub(r"\s+", " ", html.unescape(page))


def test_a_baseline_of_few_reports_says_how_sure_it_is(
    viewer_client: ConsoleClient, device: Device
) -> None:
    beats(device, 3, application_metrics={})

    page = shown(viewer_client, device)

    assert page.count("3, low confidence") == 2
    assert page.count("not known: no healthy report yet") == 1


def test_the_latest_value_is_measured_in_the_spreads_of_the_device(
    viewer_client: ConsoleClient, device: Device
) -> None:
    for cpu in (10.0, 20.0) * 5:
        beats(device, 1, cpu_usage=cpu)

    page = shown(viewer_client, device)

    assert (
        "<td>CPU</td><td>20.0 %</td><td>15.0 %</td><td>± 5.0 %</td>"
        "<td>+1.0 σ</td><td>10</td>"
    ) in page


def test_a_measure_that_never_varied_is_told_in_points(
    viewer_client: ConsoleClient, device: Device
) -> None:
    beats(device, 10, memory_usage=20.0)

    assert "+0.0 points; it never varied" in shown(viewer_client, device)


def test_the_metrics_of_the_latest_heartbeat_are_offered(
    viewer_client: ConsoleClient, device: Device
) -> None:
    beats(device, 1, application_metrics={"errorRate": 0.0, "queue": 3.0})

    page = shown(viewer_client, device)

    assert '<option value="queue">queue</option>' in page
    assert '<option value="errorRate"' not in page
    assert "data-hs-metric" not in page


def test_a_chosen_metric_is_drawn_and_stays_chosen(
    viewer_client: ConsoleClient, device: Device
) -> None:
    beats(device, 2, application_metrics={"queue & <b>": 3.0})

    page = shown(viewer_client, device, metric="queue & <b>", history="1h")

    assert 'data-hs-metric="queue & <b>"' in page
    assert '"applicationMetrics": {"queue & <b>": {"mean": 3.0, "max": 3.0}}' in page
    assert '?history=7d&metric=queue%20%26%20%3Cb%3E#hs-history"' in page


def test_a_metric_that_was_not_reported_is_said_to_be_missing(
    viewer_client: ConsoleClient, device: Device
) -> None:
    beats(device, 1)

    page = shown(viewer_client, device, metric="former")

    assert "It did not report former in this time." in page


def test_what_a_device_does_not_say_is_not_reported(
    viewer_client: ConsoleClient, device: Device
) -> None:
    beats(device, 1, cpu_usage=None, memory_usage=None, uptime=None)

    page = shown(viewer_client, device)

    assert "it does not say its CPU and memory" in page
    assert page.count("<dd>not reported</dd>") == 3


def test_refused_heartbeats_are_shown_with_their_reason(
    viewer_client: ConsoleClient, device: Device
) -> None:
    beats(device, 1)
    for _ in range(2):
        note_refused_heartbeat(
            device=device, reason="malformed JSON", now=timezone.now()
        )

    page = shown(viewer_client, device)

    assert "2 heartbeats refused since the last that was taken" in page
    assert "nothing that it sends can be used: malformed JSON" in page
    assert "its heartbeats are refused;" in page


def test_a_second_board_is_shown_for_a_week(
    viewer_client: ConsoleClient, device: Device
) -> None:
    beats(device, 1)
    states = DeviceState.objects.filter(device=device)
    states.update(duplicate_at=timezone.now() - timedelta(days=6))
    lately = shown(viewer_client, device)
    states.update(duplicate_at=timezone.now() - timedelta(days=8))

    assert "Two boards have its identity" in lately
    assert "Two boards have its identity" not in shown(viewer_client, device)
