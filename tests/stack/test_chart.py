"""The Helm chart runs what the containers run, and what it renders is well formed."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.live import PROJECT_DIR
from tests.stack.test_compose import read_variables

CHART = PROJECT_DIR / "deploy" / "helm" / "hotswap"
# A helm that was built by itself takes the cluster for an old one.
KUBERNETES = "1.30.0"
TEMPLATE = ("template", "release", "--kube-version", KUBERNETES)
HOST = ("--set", "host=updates.example.com")
EVERYTHING = (
    *HOST,
    *("--set", "worker.keda.enabled=true", "--set", "monitoring.enabled=true"),
    *("--set", "environment.HOTSWAP_REGIONS=EU"),
    *("--set", "imagePullSecrets[0].name=registry"),
)


def templates() -> str:
    return "".join(path.read_text() for path in sorted((CHART / "templates").iterdir()))


def test_every_value_that_is_asked_for_is_there() -> None:
    values: Any = yaml.safe_load((CHART / "values.yaml").read_text())

    for path in set(re.findall(r"\.Values((?:\.\w+)+)", templates())):
        found = values
        for name in path.strip(".").split("."):
            assert name in found, path
            found = found[name]


def test_the_variables_of_the_pods_are_read() -> None:
    given = set(re.findall(r"name: (HOTSWAP_[A-Z0-9_]+)", templates()))
    by_the_first_step = {"HOTSWAP_ADMIN_PASSWORD", "HOTSWAP_METRICS_LISTEN"}

    assert len(given) > 12
    names = {name.removesuffix("_FILE") for name in given}
    assert names - by_the_first_step <= read_variables()


@pytest.mark.parametrize("name", ["web", "worker", "beat"])
def test_pods_run_the_commands_of_the_containers(name: str) -> None:
    compose: Any = yaml.safe_load((PROJECT_DIR / "docker-compose.yml").read_text())
    in_container = compose["services"][name]["command"][6:]
    text = (CHART / "templates" / "programs.yaml").read_text()
    (line,) = re.findall(rf"\{{\{{- \${name} := list (.*) -\}}\}}", text)
    values: Any = yaml.safe_load((CHART / "values.yaml").read_text())

    def word(found: re.Match[str]) -> str:
        quoted, section, value = found.groups()
        return quoted if section is None else str(values[section][value])

    pattern = r'"([^"]*)"|\(toString \.Values\.(\w+)\.(\w+)\)'
    assert [word(found) for found in re.finditer(pattern, line)] == in_container


def render(*arguments: str) -> list[dict[str, Any]]:
    program = shutil.which("helm")
    assert program, "no helm: run `make test-chart`"
    done = subprocess.run(
        [program, *TEMPLATE, CHART, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


@pytest.mark.chart
def test_the_chart_is_linted() -> None:
    program = shutil.which("helm")
    assert program
    done = subprocess.run(
        [program, "lint", "--strict", CHART, *HOST],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout


@pytest.mark.chart
@pytest.mark.parametrize("arguments", [HOST, EVERYTHING])
def test_what_is_rendered_hangs_together(arguments: tuple[str, ...]) -> None:
    found = render(*arguments)

    kinds = {each["kind"] for each in found}
    assert {"Deployment", "Job", "Service", "Ingress", "NetworkPolicy"} <= kinds
    assert {"PodDisruptionBudget", "HorizontalPodAutoscaler"} <= kinds
    names = [(each["kind"], each["metadata"]["name"]) for each in found]
    assert len(names) == len(set(names))
    deployments = {
        each["metadata"]["name"]: each for each in found if each["kind"] == "Deployment"
    }
    assert set(deployments) == {"release-web", "release-worker", "release-beat"}
    for each in deployments.values():
        pod = each["spec"]["template"]["spec"]
        labels = each["spec"]["template"]["metadata"]["labels"]
        assert each["spec"]["selector"]["matchLabels"].items() <= labels.items()
        (container,) = pod["containers"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert container["resources"]["limits"]
        (port,) = container["ports"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert container[probe]["httpGet"]["port"] == port["containerPort"]
        variables = [each["name"] for each in container["env"]]
        assert len(variables) == len(set(variables))
    (service,) = (each for each in found if each["kind"] == "Service")
    web = deployments["release-web"]["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= web.items()
    scaled = [each for each in found if each["kind"] == "HorizontalPodAutoscaler"]
    assert "replicas" not in deployments["release-web"]["spec"]
    assert scaled[0]["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"]


@pytest.mark.chart
def test_a_host_is_needed(tmp_path: Path) -> None:
    program = shutil.which("helm")
    assert program
    done = subprocess.run(
        [program, *TEMPLATE, CHART],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    assert "host: the name" in done.stderr


@pytest.mark.chart
def test_scaling_follows_the_specification() -> None:
    found = render(*EVERYTHING)

    (keda,) = (each for each in found if each["kind"] == "ScaledObject")
    (trigger,) = keda["spec"]["triggers"]
    assert "hotswap_deployments_active" in trigger["metadata"]["query"]
    assert trigger["metadata"]["threshold"] == "50"
    (hpa,) = (each for each in found if each["kind"] == "HorizontalPodAutoscaler")
    (metric,) = hpa["spec"]["metrics"]
    assert metric["resource"]["target"]["averageUtilization"] == 70
    assert json.dumps(hpa["spec"]["behavior"]).count("300") == 1


@pytest.mark.chart
@pytest.mark.parametrize("arguments", [HOST, EVERYTHING])
def test_what_is_rendered_fits_the_schemas_of_kubernetes(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    validate = shutil.which("kubernetes-validate")
    assert validate, "no kubernetes-validate: run `make test-chart`"
    rendered = tmp_path / "rendered.yaml"
    objects = render(*arguments)
    rendered.write_text(yaml.safe_dump_all(objects))

    done = subprocess.run(
        [
            *(validate, "--strict", "--no-warn"),
            *("--kubernetes-version", KUBERNETES.rpartition(".")[0], rendered),
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    # Objects of operators, which bring schemas of their own, are passed over.
    ours = [each for each in objects if "." not in each["apiVersion"].split("/")[0]]
    assert said.count(" passed for resource ") >= len(ours) > 5
