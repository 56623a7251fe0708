"""`hotswap deployment ...`: launch, watch and operate deployments."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn
from uuid import UUID

import typer

from deployments.strategies.canary import CANARY
from deployments.strategies.registry import STRATEGIES
from hotswap.cli.client import Api, RefusedError, UsageError
from hotswap.cli.login import open_api
from hotswap.cli.options import Json, Limit, Server, TokenFile, Yes
from hotswap.cli.output import confirm, print_document, print_json, print_rows, say
from hotswap.cli.signing import post_signed
from hotswap.cli.watching import interrupted, watch_to_the_end
from hotswap.common.pluralize import counted

app = typer.Typer(help="Launch, watch and operate deployments.", no_args_is_help=True)
COLUMNS = ("id", "name", "status", "strategy", "firmware", "targetCount", "createdAt")
PLAN_COLUMNS = ("number", "name", "size", "exposedDevices", "waitSeconds")
ACKNOWLEDGEMENT_REQUIRED = "acknowledgement_required"
FAILURE_COLUMNS = ("errorCode", "devices", "rolledBack", "nextStep")
FAILED_COLUMNS = ("deviceId", "status", "stage", "errorCode", "message")
ROLLBACK_COLUMNS = ("level", "deviceId", "outcome", "devices", "restored", "failed")


# As they are typed; the API writes them together, as in BlueGreen.
STRATEGY_NAMES = {
    re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower(): name for name in STRATEGIES
}


def _strategy(text: str) -> str:
    """Return the name of a strategy as the API has it."""
    try:
        return STRATEGY_NAMES[text.lower()]
    except KeyError:
        known = ", ".join(STRATEGY_NAMES)
        raise typer.BadParameter(f"{text!r} is not one of {known}") from None


StrategyName = Annotated[
    str | None,
    typer.Option(
        parser=_strategy, metavar="|".join(STRATEGY_NAMES), show_default=False
    ),
]
Reference = Annotated[
    str, typer.Argument(metavar="DEPLOYMENT", help="Its id, or its name if unique.")
]
Reason = Annotated[str, typer.Option(help="Why; kept in the log and the audit trail.")]
Interval = Annotated[
    float, typer.Option(min=0.1, metavar="SECONDS", help="How often to look.")
]
Timeout = Annotated[
    float | None,
    typer.Option(
        min=0,
        metavar="SECONDS",
        help="Stop watching after so long.",
        show_default=False,
    ),
]
Duration = Annotated[str | None, typer.Option(metavar="DURATION", show_default=False)]
Number = Annotated[int | None, typer.Option(min=1, show_default=False)]
Percent = Annotated[
    float | None, typer.Option(min=0, max=100, metavar="PERCENT", show_default=False)
]
Policy = Annotated[
    str | None,
    typer.Option(metavar="wait|exclude|reject", show_default=False),
]


@app.command()
def launch(
    firmware: Annotated[
        str | None,
        typer.Argument(
            metavar="FIRMWARE", help="Its id, or MODEL:VERSION.", show_default=False
        ),
    ] = None,
    *,
    strategy: StrategyName = None,
    device: Annotated[
        list[str] | None, typer.Option(help="A device; may be repeated.")
    ] = None,
    device_file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A file, one device id a line."),
    ] = None,
    group: Annotated[
        list[str] | None, typer.Option(help="A group, by name or id; may be repeated.")
    ] = None,
    region: Annotated[
        list[str] | None, typer.Option(help="A region; may be repeated.")
    ] = None,
    target_all: Annotated[
        bool, typer.Option("--all", help="Every device that can take it.")
    ] = False,
    name: Annotated[str | None, typer.Option(show_default=False)] = None,
    initial_percentage: Annotated[
        int | None, typer.Option(min=1, max=100, show_default=False)
    ] = None,
    increments: Annotated[
        str | None,
        typer.Option(
            metavar="PERCENT,...", help="As in 30,50,100.", show_default=False
        ),
    ] = None,
    wait_duration: Duration = None,
    pause_duration: Duration = None,
    verification_duration: Duration = None,
    batch_size: Number = None,
    batch_wait_duration: Duration = None,
    max_concurrent_batches: Number = None,
    health_threshold: Percent = None,
    on_warning: Annotated[
        str | None, typer.Option(metavar="proceed|pause", show_default=False)
    ] = None,
    offline_devices: Policy = None,
    busy_devices: Policy = None,
    offline_deadline: Duration = None,
    device_timeout: Duration = None,
    max_attempts: Number = None,
    max_devices_per_minute: Number = None,
    start_spread: Duration = None,
    approve_each_stage: Annotated[
        bool, typer.Option("--approve-each-stage", help="A person opens each stage.")
    ] = False,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="When it starts, as in 2026-12-01T22:00:00Z; else at once.",
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="A JSON body of POST /deployments; options replace its fields.",
        ),
    ] = None,
    acknowledge: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CODE",
            help="A warning that is meant, as in whole_fleet; may be repeated.",
        ),
    ] = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="Show the plan and do nothing.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Watch until it is over.")
    ] = False,
    interval: Interval = 2.0,
    timeout: Timeout = None,
    yes: Yes = False,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Launch a deployment, after its plan was shown and agreed to.

    Durations are ISO 8601, as in PT30M. Fields without an option of their own, such as
    healthCriteria, come from --file.
    """
    body = _body_in(file) | {
        wire: value
        for wire, value in {
            "firmwareId": firmware,
            "strategy": strategy,
            "name": name,
            "initialPercentage": initial_percentage,
            "increments": _percents(increments),
            "waitDuration": wait_duration,
            "pauseDuration": pause_duration,
            "verificationDuration": verification_duration,
            "batchSize": batch_size,
            "batchWaitDuration": batch_wait_duration,
            "maxConcurrentBatches": max_concurrent_batches,
            "healthThreshold": health_threshold,
            "onWarning": on_warning,
            "offlineDevices": offline_devices,
            "busyDevices": busy_devices,
            "offlineDeadline": offline_deadline,
            "deviceTimeout": device_timeout,
            "maxAttempts": max_attempts,
            "maxDevicesPerMinute": max_devices_per_minute,
            "startSpread": start_spread,
            "requireApprovalPerStage": approve_each_stage or None,
            "scheduledAt": at,
            "acknowledge": acknowledge or None,
        }.items()
        if value is not None
    }
    targets = _targets(_listed(device, device_file), group, region, target_all)
    if targets:
        for selector in ("targetDevices", "targetGroups", "regions", "targetAll"):
            body.pop(selector, None)
        body |= targets
    body.setdefault("strategy", CANARY.name)
    if "firmwareId" not in body:
        raise UsageError("name the firmware: its id, or MODEL:VERSION")
    api = open_api(server, token_file)
    plan = api.post("/deployments/preview", body)
    if preview:
        _show_plan(plan, as_json=as_json)
        if not plan["targets"]["eligible"]:
            raise RefusedError("no device is eligible")
        return
    if not yes:
        _check_acknowledged(plan, body)
        for line in _plan_lines(plan):
            say(line)
        devices = counted(plan["targets"]["eligible"], "device")
        confirm(f"Launch {body['strategy']} on {devices}?")
    made = _launch(api, body)
    if not wait:
        print_document(made, as_json=as_json)
        return
    say(f"{made['name']} is launched: {made['id']}")
    _watch(api, made["id"], interval, timeout, as_json=as_json)


@app.command("list")
def list_deployments(
    *,
    status: Annotated[str | None, typer.Option(show_default=False)] = None,
    strategy: StrategyName = None,
    firmware: Annotated[
        str | None, typer.Option(help="An id, or MODEL:VERSION.", show_default=False)
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="That have chosen it.", show_default=False)
    ] = None,
    search: Annotated[
        str | None, typer.Option(help="A part of the name.", show_default=False)
    ] = None,
    limit: Limit = None,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """List deployments, newest first."""
    rows = open_api(server, token_file).results(
        "/deployments",
        limit=limit,
        status=status,
        strategy=strategy,
        firmware=firmware,
        deviceId=device,
        search=search,
    )
    if not as_json:
        rows = (row | {"firmware": row["firmware"]["version"]} for row in rows)
    print_rows(rows, COLUMNS, as_json=as_json)


@app.command()
def show(
    deployment: Reference,
    *,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show one deployment."""
    api = open_api(server, token_file)
    found = api.get(f"/deployments/{find_deployment(api, deployment)}")
    print_document(found, as_json=as_json)


@app.command()
def watch(
    deployment: Reference,
    *,
    interval: Interval = 2.0,
    timeout: Timeout = None,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Watch a deployment until it is over; the exit code says how it ended."""
    api = open_api(server, token_file)
    # It is a name only: what is an id needs no answer of a server that may be away.
    found = deployment if _is_id(deployment) else find_deployment(api, deployment)
    _watch(api, found, interval, timeout, as_json=as_json)


@app.command()
def pause(
    deployment: Reference,
    *,
    reason: Reason,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Give no more orders; devices at work finish."""
    api = open_api(server, token_file)
    _execute(api, deployment, "pause", reason, as_json=as_json)


@app.command()
def resume(
    deployment: Reference,
    *,
    reason: Reason,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Go on after a pause."""
    api = open_api(server, token_file)
    _execute(api, deployment, "resume", reason, as_json=as_json)


@app.command()
def cancel(
    deployment: Reference,
    *,
    reason: Reason,
    yes: Yes = False,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Stop what has not begun to install; what has finishes."""
    api = open_api(server, token_file)
    question = None if yes else "Cancel it?"
    _execute(api, deployment, "cancel", reason, as_json=as_json, question=question)


@app.command()
def rollback(
    deployment: Reference,
    *,
    reason: Reason,
    yes: Yes = False,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Order every device that has the new firmware, or may have it, back."""
    api = open_api(server, token_file)
    found = find_deployment(api, deployment)
    if not yes:
        confirm("Order its devices back to their former firmware?")
    path = f"/deployments/{found}/rollback"
    answer = post_signed(api, path, {"reason": reason}, "rollback")
    print_document(answer, as_json=as_json)


@app.command()
def retry(
    deployment: Reference,
    *,
    reason: Reason,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Order the devices that failed, or went back alone, to try again."""
    api = open_api(server, token_file)
    _execute(api, deployment, "retry-failed", reason, as_json=as_json)


@app.command("approve-stage")
def approve_stage(
    deployment: Reference,
    *,
    comment: Annotated[str, typer.Option(help="Kept in the log.")],
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Let the next stage open."""
    api = open_api(server, token_file)
    found = find_deployment(api, deployment)
    path = f"/deployments/{found}/approve-stage"
    answer = post_signed(api, path, {"comment": comment}, "stage_approval")
    print_document(answer, as_json=as_json)


@app.command()
def report(
    deployment: Reference,
    *,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Print what became of a deployment: stages, failures, rollbacks."""
    api = open_api(server, token_file)
    found = find_deployment(api, deployment)
    health = api.get(f"/deployments/{found}/health-report")
    rollbacks = api.get(f"/deployments/{found}/rollbacks")
    if as_json:
        print_json({"healthReport": health, "rollbacks": rollbacks})
        return
    shown = health["deployment"] | {
        "firmware": f"{health['firmware']['model']}:{health['firmware']['version']}",
        "targets": health["plan"]["targets"],
        "percentComplete": health["percentComplete"],
        "successRate": health["successRate"],
        "healthScore": health["health"]["healthScore"],
    }
    print_document(shown, as_json=False)
    stages = ("number", "name", "status", "total", "exposed", "success", "failed")
    for title, rows, columns in (
        ("Stages", health["stages"], stages),
        ("Failures", health["failures"], FAILURE_COLUMNS),
        ("Devices that failed", health["failedDevices"]["devices"], FAILED_COLUMNS),
        ("Rollbacks", rollbacks["results"], ROLLBACK_COLUMNS),
    ):
        if rows:
            typer.echo(f"\n{title}")
            print_rows(rows, columns, as_json=False)


def find_deployment(api: Api, reference: str) -> str:
    """Return the id of a deployment that is named by it, or by its name.

    Raises:
        RefusedError: there is none of this name.
        UsageError: there are several.
    """
    if _is_id(reference):
        return reference
    found = [
        row["id"]
        for row in api.results("/deployments", search=reference)
        if row["name"] == reference
    ]
    if not found:
        raise RefusedError(f"there is no deployment {reference!r}")
    if len(found) > 1:
        ids = ", ".join(found)
        raise UsageError(f"{len(found)} deployments are called {reference!r}: {ids}")
    return str(found[0])


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _execute(
    api: Api,
    deployment: str,
    verb: str,
    reason: str,
    *,
    as_json: bool,
    question: str | None = None,
) -> None:
    found = find_deployment(api, deployment)
    if question is not None:
        confirm(question)
    answer = api.post(f"/deployments/{found}/{verb}", {"reason": reason})
    print_document(answer, as_json=as_json)


def _watch(
    api: Api,
    deployment_id: str,
    interval: float,
    timeout: float | None,
    *,
    as_json: bool,
) -> NoReturn:
    try:
        code = watch_to_the_end(
            api,
            deployment_id,
            interval_seconds=interval,
            timeout_seconds=timeout,
            as_json=as_json,
        )
    except KeyboardInterrupt:
        code = interrupted()
    raise typer.Exit(code)


def _body_in(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: {error}") from error
    if not isinstance(body, dict):
        raise UsageError(f"{file} must hold a JSON object")
    return body


def _percents(text: str | None) -> list[int] | None:
    if text is None:
        return None
    parts = re.split(r"[,\s]+", text.strip(" ,"))
    if not all(part.isdecimal() for part in parts):
        raise UsageError(f"--increments: {text!r} is no list of percents")
    return [int(part) for part in parts]


def _listed(device: list[str] | None, file: Path | None) -> list[str]:
    names = list(device or [])
    if file is not None:
        lines = file.read_text(encoding="utf-8").splitlines()
        names += [line.strip() for line in lines if line.strip()]
    return names


def _targets(
    devices: list[str],
    groups: list[str] | None,
    regions: list[str] | None,
    everyone: bool,
) -> dict[str, Any]:
    """Return the one way in which devices are named; nothing if none is."""
    given = {
        name: value
        for name, value in {
            "targetDevices": devices,
            "targetGroups": groups,
            "regions": regions,
            "targetAll": everyone,
        }.items()
        if value
    }
    if len(given) > 1:
        raise UsageError("give one of --device, --group, --region and --all")
    return given


def _check_acknowledged(plan: dict[str, Any], body: dict[str, Any]) -> None:
    """Refuse what the server would refuse, before anybody is asked.

    Raises:
        RefusedError: with the missing codes, and how to name them.
    """
    named = body.get("acknowledge", [])
    missing = [
        each
        for each in plan["warnings"]
        if each["mustAcknowledge"] and each["code"] not in named
    ]
    if missing:
        raise _unacknowledged(missing, None)


def _launch(api: Api, body: dict[str, Any]) -> Any:
    try:
        return api.post("/deployments", body)
    except RefusedError as error:
        document = error.document or {}
        if document.get("code") != ACKNOWLEDGEMENT_REQUIRED:
            raise
        raise _unacknowledged(document["errors"], document) from error


def _unacknowledged(
    warnings: list[dict[str, Any]], document: Mapping[str, Any] | None
) -> RefusedError:
    """Say each missing code with its sentence, and the options that name them."""
    options = " ".join(f"--acknowledge {each['code']}" for each in warnings)
    lines = [f"  {each['code']}: {each['detail']}" for each in warnings]
    return RefusedError(
        "\n".join(
            [
                "nothing was launched, as it brings about what has to be acknowledged:",
                *lines,
                f"If that is meant, launch it with {options}",
            ]
        ),
        document,
    )


def _show_plan(plan: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(plan)
        return
    for line in _plan_lines(plan):
        typer.echo(line)
    if plan["stages"]:
        print_rows(plan["stages"], PLAN_COLUMNS, as_json=False)


def _plan_lines(plan: dict[str, Any]) -> list[str]:
    """Return what is to be known before a launch, warnings included."""
    targets, blast = plan["targets"], plan["blastRadius"]
    first = (
        f"Firmware {plan['firmware']['version']}: {targets['eligible']:,} of "
        f"{counted(targets['matched'], 'device')} eligible, in "
        f"{counted(len(plan['stages']), 'stage')}; {blast['online']:,} are online, "
        f"{blast['percentOfFleet']} % of all of the model."
    )
    lines = [first]
    if plan["expected"]:
        lines.append(
            f"Estimated finish: {plan['expected']['finishesAt']}, at the earliest."
        )
    lines += [
        f"Warning: {each['detail']}."
        + (f" To acknowledge: {each['code']}." if each["mustAcknowledge"] else "")
        for each in plan["warnings"]
    ]
    lines += [
        f"Excluded: {each['deviceId']}, {each['detail']}."
        for each in targets["excluded"][:10]
    ]
    return lines
