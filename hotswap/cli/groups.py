"""`hotswap group ...`: static and dynamic groups of devices."""

import json
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from hotswap.cli.client import Api, RefusedError, UsageError
from hotswap.cli.devices import COLUMNS as DEVICE_COLUMNS
from hotswap.cli.login import open_api
from hotswap.cli.options import Json, Limit, Server, TokenFile, Yes
from hotswap.cli.output import confirm, print_document, print_rows, say
from hotswap.common.pluralize import counted

app = typer.Typer(help="Put devices into groups.", no_args_is_help=True)
COLUMNS = ("id", "name", "type", "deviceCount", "description")
IDS_A_REQUEST = 1000

Reference = Annotated[str, typer.Argument(metavar="GROUP", help="Its name or id.")]
Rule = Annotated[
    str | None,
    typer.Option(
        metavar="JSON", help='As in {"region": ["EU-CENTRAL"]}; makes it dynamic.'
    ),
]
DeviceIds = Annotated[
    list[str] | None, typer.Argument(metavar="DEVICE...", show_default=False)
]
IdsFile = Annotated[
    Path | None,
    typer.Option(
        "--file", exists=True, dir_okay=False, help="A file with one device id a line."
    ),
]
Acknowledge = Annotated[
    bool,
    typer.Option(
        "--acknowledge-audience",
        help="Change whom deployments to come reach, where it does.",
    ),
]


@app.command("list")
def list_groups(
    *,
    limit: Limit = None,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """List groups."""
    rows = open_api(server, token_file).results("/device-groups", limit=limit)
    print_rows(rows, COLUMNS, as_json=as_json)


@app.command()
def show(
    group: Reference,
    *,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show one group."""
    print_document(find_group(open_api(server, token_file), group), as_json=as_json)


@app.command()
def devices(
    group: Reference,
    *,
    limit: Limit = None,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """List the devices of a group."""
    api = open_api(server, token_file)
    found = find_group(api, group)
    rows = api.results(f"/device-groups/{found['id']}/devices", limit=limit)
    print_rows(rows, DEVICE_COLUMNS, as_json=as_json)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Name of the new group.")],
    *,
    description: Annotated[str, typer.Option()] = "",
    rule: Rule = None,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Make a group: an empty static one, or a dynamic one by its rule."""
    body: dict[str, Any] = {"name": name, "description": description}
    if rule is not None:
        body |= {"type": "Dynamic", "rule": parse_rule(rule)}
    api = open_api(server, token_file)
    print_document(api.post("/device-groups", body), as_json=as_json)


@app.command()
def preview(
    rule: Annotated[str, typer.Argument(metavar="RULE", help="The rule, as JSON.")],
    *,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Count the devices that a rule fits, and name some of them."""
    api = open_api(server, token_file)
    body = {"type": "Dynamic", "rule": parse_rule(rule)}
    print_document(api.post("/device-groups/preview", body), as_json=as_json)


@app.command()
def add(
    group: Reference,
    device_ids: DeviceIds = None,
    *,
    file: IdsFile = None,
    acknowledge_audience: Acknowledge = False,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Put devices into a static group."""
    names = _names(device_ids, file)
    _members("POST", group, names, acknowledge_audience, server, token_file)


@app.command()
def remove(
    group: Reference,
    device_ids: DeviceIds = None,
    *,
    file: IdsFile = None,
    acknowledge_audience: Acknowledge = False,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Take devices out of a static group."""
    names = _names(device_ids, file)
    _members("DELETE", group, names, acknowledge_audience, server, token_file)


@app.command()
def delete(
    group: Reference,
    *,
    yes: Yes = False,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Remove a group; its devices stay."""
    api = open_api(server, token_file)
    found = find_group(api, group)
    if not yes:
        confirm(f"Remove the group {found['name']}?")
    api.request("DELETE", f"/device-groups/{found['id']}")
    say(f"{found['name']} is removed.")


def find_group(api: Api, reference: str) -> dict[str, Any]:
    """Return a group by its id or name.

    Raises:
        RefusedError: there is none.
    """
    try:
        return dict(api.get(f"/device-groups/{UUID(reference)}"))
    except ValueError:
        pass
    for row in api.results("/device-groups"):
        if row["name"] == reference:
            return row
    raise RefusedError(f"there is no group {reference!r}")


def parse_rule(text: str) -> dict[str, Any]:
    """Read a rule; the server judges what is in it.

    Raises:
        UsageError: it is not a JSON object.
    """
    try:
        rule = json.loads(text)
    except ValueError as error:
        raise UsageError(f"the rule is not JSON: {error}") from error
    if not isinstance(rule, dict):
        raise UsageError("the rule must be a JSON object")
    return rule


def _names(device_ids: list[str] | None, file: Path | None) -> list[str]:
    names = list(device_ids or [])
    if file is not None:
        lines = file.read_text(encoding="utf-8").splitlines()
        names += [line.strip() for line in lines if line.strip()]
    if not names:
        raise UsageError("name the devices, or a --file of their ids")
    return names


def _members(
    method: str,
    group: str,
    names: list[str],
    is_acknowledged: bool,
    server: str | None,
    token_file: Path | None,
) -> None:
    api = open_api(server, token_file)
    found = find_group(api, group)
    path = f"/device-groups/{found['id']}/devices"
    known = {"acknowledge": "audience"} if is_acknowledged else {}
    for start in range(0, len(names), IDS_A_REQUEST):
        part = names[start : start + IDS_A_REQUEST]
        found = api.request(method, path, json={"deviceIds": part}, params=known).json()
    say(f"{found['name']} has {counted(found['deviceCount'], 'device')}.")
