"""The shipped configuration of Prometheus and Grafana fits what the server shows."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client import REGISTRY

# What processes count is known once these are loaded.
from hotswap.monitoring import requests, tasks  # noqa: F401
from hotswap.monitoring.catalogue import NAMES
from hotswap.monitoring.exposition import HostCollector, StatusCollector
from hotswap.stack.folder import free_port
from tests.deployments.live import LiveAdmin
from tests.live import METRICS_TOKEN, PROJECT_DIR, LiveStack
from tests.prometheus import find_program
from tests.waiting import wait_until

SHIPPED = PROJECT_DIR / "deploy" / "observability"
SERIES = Path(__file__).with_name("alert_series.yml")
NAME = re.compile(r"\bhotswap(?::[a-z0-9_]+)+|\bhotswap_[a-z0-9_]+")
SUFFIXES = re.compile(r"_(total|bucket|sum|count)$")
# Of scrapes, which a test asks for.
SECONDS = 20
RUNBOOKS = PROJECT_DIR / "docs" / "operate" / "runbooks.md"
EXPRESSION = re.compile(r'"expr": "((?:[^"\\]|\\.)*)"')


def program(name: str) -> str:
    found = find_program(name)
    assert found, f"no {name}: run `make prometheus`"
    return found


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(
        [program("promtool"), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    """What is shipped, with the token that an operator adds."""
    folder = tmp_path / "observability"
    shutil.copytree(SHIPPED, folder)
    (folder / "metrics-token").write_text(METRICS_TOKEN)
    return folder


def groups() -> Iterator[dict[str, Any]]:
    for path in sorted((SHIPPED / "rules").glob("*.yml")):
        yield from yaml.safe_load(path.read_text())["groups"]


def rules() -> Iterator[dict[str, Any]]:
    for group in groups():
        yield from group["rules"]


def expressions() -> Iterator[str]:
    for rule in rules():
        yield rule["expr"]
    for path in (SHIPPED / "dashboards").glob("*.json"):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                yield target["expr"]


def test_configuration_is_valid(configuration: Path) -> None:
    for name in ("prometheus.yml", "prometheus.compose.yml"):
        promtool("check", "config", configuration / name)


def test_rules_are_valid() -> None:
    promtool("check", "rules", *(SHIPPED / "rules").glob("*.yml"))


def test_alerts_and_records_follow_from_series() -> None:
    promtool("test", "rules", SERIES)


def test_series_go_through_the_rules_in_one_order() -> None:
    """A group that the order does not name, or a name of two, comes at any moment."""
    order = yaml.safe_load(SERIES.read_text())["group_eval_order"]

    alerting = {
        group["name"]: any("alert" in rule for rule in group["rules"])
        for group in groups()
    }
    assert sorted(order) == sorted(group["name"] for group in groups())
    assert [alerting[name] for name in order] == sorted(alerting.values())


def test_every_alert_fires_in_some_series() -> None:
    series = yaml.safe_load(SERIES.read_text())

    fired = {
        expected["alertname"]
        for test in series["tests"]
        for expected in test.get("alert_rule_test", ())
        if expected.get("exp_alerts")
    }

    assert fired == {rule["alert"] for rule in rules() if "alert" in rule}


def test_every_metric_that_is_asked_for_is_shown(db: None) -> None:
    collected = [
        family.name
        for collector in (StatusCollector(), HostCollector(), REGISTRY)
        for family in collector.collect()
    ]
    shown = {SUFFIXES.sub("", name) for name in [*NAMES, *collected]}
    records = {rule["record"] for rule in rules() if "record" in rule}

    asked = {name for each in expressions() for name in NAME.findall(each)}

    assert len(asked) > 30
    missing = {
        name
        for name in asked - records
        if name not in shown and SUFFIXES.sub("", name) not in shown
    }
    assert missing == set()


def test_every_alert_has_a_runbook() -> None:
    headings = re.findall(r"^## (.+)$", RUNBOOKS.read_text(), re.MULTILINE)
    anchors = {
        re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings
    }

    alerts = [rule for rule in rules() if "alert" in rule]

    assert len(alerts) > 15
    for alert in alerts:
        page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        assert page == "docs/operate/runbooks.md"
        assert anchor in anchors, alert["alert"]
    asked = {alert["annotations"]["runbook_url"].partition("#")[2] for alert in alerts}
    assert asked == anchors


def test_dashboards_have_names_of_their_own() -> None:
    boards = [
        json.loads(path.read_text()) for path in (SHIPPED / "dashboards").glob("*.json")
    ]

    assert {each["uid"] for each in boards} == {
        *("hotswap-fleet", "hotswap-deployments", "hotswap-server")
    }
    for board in boards:
        ids = [panel["id"] for panel in board["panels"]]
        assert len(ids) == len(set(ids))


@pytest.fixture
def prometheus(
    live_stack: LiveStack, configuration: Path, tmp_path: Path
) -> Iterator[httpx.Client]:
    """A real Prometheus on the shipped configuration, which scrapes the stack."""
    (configuration / "targets").mkdir()
    shutil.copy(
        live_stack.data_dir / "prometheus-targets.json",
        configuration / "targets" / "stack.json",
    )
    settings = configuration / "prometheus.yml"
    settings.write_text(settings.read_text().replace("15s", "1s"))
    port = free_port()
    output = (tmp_path / "prometheus.log").open("w")
    process = subprocess.Popen(
        [
            program("prometheus"),
            f"--config.file={settings}",
            f"--storage.tsdb.path={tmp_path / 'series'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=output,
        stderr=subprocess.STDOUT,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client
    finally:
        process.terminate()
        process.wait(60)
        output.close()


def ask(client: httpx.Client, expression: str) -> dict[str, float]:
    """Return the values by the `job` of each, "" where a sum has none."""
    try:
        answer = client.get("/api/v1/query", params={"query": expression})
    except httpx.TransportError:
        return {}
    if answer.status_code != 200:
        return {}
    return {
        each["metric"].get("job", ""): float(each["value"][1])
        for each in answer.json()["data"]["result"]
    }


def test_real_prometheus_sees_a_real_stack(
    live_stack: LiveStack, prometheus: httpx.Client
) -> None:
    admin = LiveAdmin(live_stack)
    everyone = {"hotswap-web": 1.0, "hotswap-worker": 1.0, "hotswap-beat": 1.0}
    wait_until(
        lambda: ask(prometheus, "up") == everyone, what="three targets that are up"
    )

    deployments = admin.get("/deployments?count=true")["count"]
    created = "sum(max without (instance, job) (hotswap_deployments_created_total))"

    wait_until(
        lambda: ask(prometheus, created) == {"": deployments},
        what=f"{deployments} deployments",
    )
    wait_until(lambda: ask(prometheus, "hotswap:serving") == {"": 1.0}, what="serving")
    wait_until(
        lambda: (
            ask(
                prometheus,
                'sum by (job) (hotswap_task_duration_seconds_count{task=~".*tick"})',
            ).get("hotswap-worker", 0)
            > 0
        ),
        what="ticks of the worker",
    )
    wait_until(
        lambda: (
            ask(
                prometheus,
                'sum by (job) (hotswap_http_requests_total{route=~".*/deployments"})',
            ).get("hotswap-web", 0)
            >= 1
        ),
        what="requests of the web server",
    )
    problems = prometheus.get("/api/v1/rules").json()["data"]["groups"]
    assert {
        rule["name"]: rule.get("lastError", "")
        for group in problems
        for rule in group["rules"]
        if rule["health"] == "err"
    } == {}


def scraped(client: httpx.Client, names: set[str], end: float) -> list[dict[str, str]]:
    """Return what was scraped until `end`, as series of `promtool test rules`."""
    found = []
    span: dict[str, str | float] = {"start": end - SECONDS, "end": end, "step": "1"}
    for name in sorted(names):
        answer = client.get("/api/v1/query_range", params={"query": name, **span})
        for each in answer.json()["data"]["result"]:
            labels = {k: v for k, v in each["metric"].items() if k != "__name__"}
            shown = ", ".join(f"{k}={json.dumps(v)}" for k, v in labels.items())
            at = {round(float(when) - end + SECONDS): v for when, v in each["values"]}
            values = [at.get(second, "_") for second in range(SECONDS + 1)]
            found.append({"series": f"{name}{{{shown}}}", "values": " ".join(values)})
    return found


def test_rules_hold_on_what_a_real_run_wrote(
    live_stack: LiveStack, prometheus: httpx.Client, tmp_path: Path
) -> None:
    live_stack.kill("beat")
    wait_until(lambda: live_stack.pid("beat") is not None, what="beat is back")
    restarts = 'sum by (job) (hotswap_program_restarts_total{program="beat"})'
    wait_until(
        lambda: ask(prometheus, restarts).get("hotswap-web", 0) >= 1,
        what="the restart is scraped",
    )
    # Until every process has been scraped for so long.
    full = f"min(count_over_time(up[{SECONDS}s])) >= {SECONDS - 2}"
    wait_until(lambda: bool(ask(prometheus, full)), what=f"{SECONDS} s of scrapes")
    end = time.time() - 1
    records = {rule["record"] for rule in rules() if "record" in rule}
    names = {name for each in expressions() for name in NAME.findall(each)} - records
    series = scraped(prometheus, names | {"up"}, end)
    shown = [each for each in series if each["series"].startswith("hotswap_")]
    assert len(shown) > 50
    written = tmp_path / "real.yml"
    updated = "sum(hotswap:devices_updated:total) or vector(0)"
    written.write_text(
        yaml.safe_dump(
            {
                "rule_files": [str(path) for path in (SHIPPED / "rules").glob("*.yml")],
                "evaluation_interval": "1s",
                "tests": [
                    {
                        "interval": "1s",
                        "input_series": series,
                        "promql_expr_test": [
                            {
                                "expr": "hotswap:serving",
                                "eval_time": f"{SECONDS}s",
                                "exp_samples": [
                                    {"labels": "hotswap:serving", "value": 1}
                                ],
                            },
                            {
                                "expr": "max(hotswap_program_restarts_total"
                                '{program="beat"}) >= bool 1',
                                "eval_time": f"{SECONDS}s",
                                "exp_samples": [{"value": 1}],
                            },
                            {
                                "expr": updated,
                                "eval_time": f"{SECONDS}s",
                                "exp_samples": [
                                    {"value": ask(prometheus, updated)[""]}
                                ],
                            },
                        ],
                    }
                ],
            }
        )
    )

    promtool("test", "rules", written)
