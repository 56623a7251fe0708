"""The table of rollback triggers, and that everything else follows it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.criteria import RollbackThresholds
from deployments.inputs import RollbackThresholdsInput
from deployments.rules.codes import CODES, CodeClass
from deployments.rules.triggers import IS_BREACHING, is_breaching
from health.api.serializers import (
    BaselineOutput,
    HealthPointOutput,
    HeartbeatInput,
)
from health.baseline import RunningStatistics
from health.evaluation import Limit, Limits, Sample, judge
from health.models import DeviceState, Reading
from health.score import anomaly_sql, describe_anomalies, is_anomalous
from health.services.heartbeats import _CHANGED
from health.services.watching import limits_from_json, limits_to_json
from health.triggers import BY_NAME, OFFLINE, TRIGGERS, Trigger, by_unit
from hotswap.common.wire import camelize
from tests.deployments.rules.test_evidence import row_of
from tests.deployments.world import World

START = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
# Neither a percent nor a ratio, and below zero, too.
DEGREES = replace(
    BY_NAME["cpu"],
    name="heat",
    label="temperature",
    minimum=-40,
    maximum=125,
    unit="°C",
)
each_trigger = pytest.mark.parametrize("trigger", TRIGGERS, ids=BY_NAME)
moments = st.integers(0, 6).map(lambda n: START + timedelta(seconds=10 * n))


@each_trigger
def test_a_trigger_has_its_columns_its_code_and_its_fields(trigger: Trigger) -> None:
    of_state = {field.name for field in DeviceState._meta.get_fields()}
    of_history = {field.name for field in Reading._meta.get_fields()}
    written = {trigger.column, trigger.timer, trigger.mean, trigger.variance}
    thresholds = RollbackThresholdsInput().fields

    assert written | {trigger.baseline_samples} <= of_state
    assert written | {trigger.baseline_samples} <= set(_CHANGED)
    assert trigger.column in of_history
    assert CodeClass.BREACH in CODES[trigger.name].classes
    assert {trigger.field, camelize(trigger.duration)} <= set(thresholds)
    assert (trigger.field in HeartbeatInput().fields) is not (
        trigger.is_application_metric
    )
    for output in (BaselineOutput, HealthPointOutput):
        assert trigger.field in output().fields


def test_names_and_columns_are_used_once() -> None:
    for names in (
        [OFFLINE, *(each.name for each in TRIGGERS)],
        [each.column for each in TRIGGERS],
        [each.timer for each in TRIGGERS],
        [each.baseline for each in TRIGGERS],
        [name for each in TRIGGERS for name in (each.limit, each.duration)],
    ):
        assert len(set(names)) == len(names)


def test_a_measure_is_shown_in_its_unit() -> None:
    assert BY_NAME["cpu"].shown(42.26) == "42.3 %"
    assert BY_NAME["error_rate"].shown(0.0512, 2) == "5.12 %"
    assert BY_NAME["error_rate"].shown_limit(0.125) == "12.5 %"
    assert DEGREES.shown(-3.5) == "-3.5 °C"
    assert DEGREES.shown(12, sign="+") == "+12.0 °C"
    assert DEGREES.shown_limit(85) == "85 °C"


def test_measures_of_one_unit_share_a_chart() -> None:
    cpu, error_rate = BY_NAME["cpu"], BY_NAME["error_rate"]

    assert by_unit([cpu, DEGREES, error_rate]) == [
        ("%", (cpu, error_rate)),
        ("°C", (DEGREES,)),
    ]


def test_an_anomaly_is_told_in_the_unit_of_its_measure() -> None:
    usual = RunningStatistics(20, -10.0, 1.0)

    said = describe_anomalies([(DEGREES, 61.0, usual), (BY_NAME["cpu"], -9.0, usual)])

    assert said == (
        "temperature 61.0 °C, usually -10.0 °C (high confidence, 20 reports)"
    )


limits = st.builds(
    Limits,
    st.fixed_dictionaries(
        {
            each.name: st.builds(
                Limit,
                st.floats(each.minimum, each.maximum),
                st.integers(0, 60).map(lambda n: timedelta(seconds=n)),
            )
            for each in TRIGGERS
        }
    ),
    st.frozensets(st.sampled_from(sorted(BY_NAME))),
)
values = st.fixed_dictionaries(
    {each.name: st.none() | st.floats(each.minimum, each.maximum) for each in TRIGGERS}
)


@given(limits=limits)
def test_limits_are_read_as_they_were_written(limits: Limits) -> None:
    thresholds = RollbackThresholds(limits=replace(limits, exempt=frozenset()))

    assert limits_from_json(limits_to_json(limits)) == limits
    assert RollbackThresholds.from_json(thresholds.to_json()) == thresholds


def test_limits_are_the_defaults_unless_they_are_given() -> None:
    limits = RollbackThresholds.of(cpu_usage=80, success_rate=90).limits

    assert limits.by_name["cpu"] == replace(Limits().by_name["cpu"], value=80)
    assert limits.by_name["memory"] == Limits().by_name["memory"]
    assert limits_from_json({"exempt": []}) == Limits()
    with pytest.raises(TypeError, match="cpu_percent"):
        Limits.of(cpu_percent=80)


@given(limits=limits, samples=st.lists(values, min_size=1, max_size=5))
def test_a_breach_is_an_excess_for_its_whole_duration(
    limits: Limits, samples: list[dict[str, float | None]]
) -> None:
    """What `judge` says of each heartbeat, against the whole past of the device."""
    past: list[Sample] = []
    timers: Any = {}
    for number, said in enumerate(samples):
        past.append(Sample(START + timedelta(seconds=20 * number), said))

        judgement = judge(past[-1], limits, timers)
        timers = judgement.timers

        since = {each.name: _exceeded_since(each, past, limits) for each in TRIGGERS}
        assert timers == {name: at for name, at in since.items() if at is not None}
        breached = [
            name
            for name, at in since.items()
            if at is not None
            and said[name] is not None
            and past[-1].at - at >= limits.by_name[name].duration
        ]
        assert judgement.breach == (breached[-1] if breached else None)
        over = [name for name, at in since.items() if at and said[name] is not None]
        assert judgement.is_healthy is not bool(over)


def _exceeded_since(
    trigger: Trigger, past: list[Sample], limits: Limits
) -> datetime | None:
    """Read a timer out of the whole past: unsaid goes on where it must be said."""
    since = None
    for sample in past:
        value = sample.values[trigger.name]
        if value is None and not trigger.is_optional:
            continue
        is_over = value is not None and value > limits.by_name[trigger.name].value
        if trigger.name in limits.exempt or not is_over:
            since = None
        else:
            since = since or sample.at
    return since


@st.composite
def states(draw: Any) -> DeviceState:
    state = DeviceState(
        last_heartbeat_at=draw(st.none() | moments),
        offline_after_seconds=draw(st.none() | st.sampled_from([0, 10, 30])),
    )
    for each in TRIGGERS:
        setattr(state, each.timer, draw(st.none() | moments))
        setattr(
            state, each.column, draw(st.none() | st.floats(each.minimum, each.maximum))
        )
        setattr(state, each.baseline_samples, draw(st.integers(0, 12)))
        setattr(state, each.mean, draw(st.floats(each.minimum, each.maximum)))
        setattr(state, each.variance, draw(st.floats(0, each.reach)))
    return state


def ask(state: DeviceState, condition: str, now: datetime) -> bool:
    """Ask a condition of a state that is not stored."""
    rows, given_row = row_of(state, "health_devicestate", "s")
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT COALESCE({condition}, false) FROM {rows}",
            {"s_row": given_row, "now": now},
        )
        return bool(cursor.fetchone()[0])


@pytest.mark.django_db
@settings(max_examples=200, deadline=None)
@given(state=states(), now=moments)
def test_sql_and_python_agree_whether_a_limit_is_exceeded_now(
    state: DeviceState, now: datetime
) -> None:
    assert ask(state, IS_BREACHING, now) == is_breaching(state, now)


@pytest.mark.django_db
@settings(max_examples=200, deadline=None)
@given(state=states(), trigger=st.sampled_from(TRIGGERS))
def test_sql_and_python_agree_what_is_an_anomaly(
    state: DeviceState, trigger: Trigger
) -> None:
    value = state.measured(trigger)

    expected = value is not None and is_anomalous(trigger, value, state.usual(trigger))

    assert ask(state, anomaly_sql(trigger), START) == expected


@each_trigger
def test_each_trigger_fails_its_device_and_a_new_order_begins_without_its_timer(
    world: World, trigger: Trigger
) -> None:
    old, new = world.image("2.4.0"), world.image("2.5.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    device.poll()
    device.work()
    device.reboot_into(new)

    for _ in range(3):
        device.beat(**_worst(trigger))
        world.tick(15)
    state = DeviceState.objects.get(device_id=device.pk)
    exceeded = state.timers
    order = device.poll()

    assert device.target(deployment).error_code == trigger.name
    assert set(exceeded) == {trigger.name}
    assert order is not None
    assert order["action"] == "rollback"
    assert DeviceState.objects.get(device_id=device.pk).timers == {}


def _worst(trigger: Trigger) -> dict[str, Any]:
    if trigger.is_application_metric:
        return {"application_metrics": {trigger.field: float(trigger.maximum)}}
    return {trigger.limit: float(trigger.maximum)}
