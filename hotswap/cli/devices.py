"""`hotswap device ...`: register, import and look after devices."""

import json
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import typer

from hotswap.cli.client import (
    Api,
    CliError,
    NotConfirmedError,
    RefusedError,
    UsageError,
    write_private,
)
from hotswap.cli.login import open_api
from hotswap.cli.options import Json, Limit, Server, TokenFile, Yes
from hotswap.cli.output import (
    byte_progress,
    confirm,
    count_progress,
    print_document,
    print_json,
    print_rows,
    say,
)
from hotswap.cli.signing import delete_signed

app = typer.Typer(
    help="Register, import, list and revoke devices.", no_args_is_help=True
)
COLUMNS = ("deviceId", "model", "region", "firmwareVersion", "status", "lastSeenAt")
CONTENT_TYPES = {
    ".csv": "text/csv",
    ".tsv": "text/csv",
    ".ndjson": "application/x-ndjson",
} | {".jsonl": "application/x-ndjson"}
POLL_SECONDS = 0.5
SHOWN_REJECTIONS = 20
LOOKED_AT = ("created", "updated", "unchanged", "rejected")
SUMMARY = ("status", "total", *LOOKED_AT)

DeviceId = Annotated[str, typer.Argument(metavar="DEVICE", help="The device's own id.")]
Tags = Annotated[
    list[str] | None,
    typer.Option("--tag", metavar="KEY=VALUE", help="May be repeated."),
]


def path_of(device_id: str, verb: str = "") -> str:
    """Return the route of a device."""
    return f"/devices/{quote(device_id, safe='')}" + (f"/{verb}" if verb else "")


@app.command()
def register(
    device_id: DeviceId,
    model: Annotated[str, typer.Option(help="Its device model.")],
    *,
    region: Annotated[str | None, typer.Option(help="Where it stands.")] = None,
    tag: Tags = None,
    key_file: Annotated[
        Path | None, typer.Option(help="Write the API key there, not to the screen.")
    ] = None,
    agent_dir: Annotated[
        Path | None,
        typer.Option(help="Write all that an agent needs into this new folder."),
    ] = None,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Register a device. Its API key is told this once."""
    if key_file is not None and agent_dir is not None:
        raise UsageError("--key-file and --agent-dir cannot be given together")
    body: dict[str, Any] = {"deviceId": device_id, "model": model}
    if region is not None:
        body["region"] = region
    if tag:
        body["tags"] = parse_tags(tag)
    api = open_api(server, token_file)
    if agent_dir is not None:
        try:
            agent_dir.mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise UsageError(f"{agent_dir}: {error.strerror}") from error
        key_file = agent_dir / "api-key"
    if key_file is not None:
        # Before the device exists: a key that cannot be kept must not be made.
        write_private(key_file, "")
    try:
        device = api.post("/devices", body)
    except CliError:
        if key_file is not None:
            key_file.unlink()
        if agent_dir is not None:
            agent_dir.rmdir()
        raise
    if key_file is not None:
        write_private(key_file, device.pop("apiKey"), replace=True)
    print_document(device, as_json=as_json)
    if agent_dir is not None:
        _write_agent(api, agent_dir, device)
        say(f"Its agent is started with:\n  {command_of(agent_dir / 'agent.toml')}")


def command_of(config: Path) -> str:
    """Return the command that starts an agent, to be typed in any folder."""
    beside = Path(sys.executable).with_name("hotswap-agent")
    program = "hotswap-agent" if shutil.which("hotswap-agent") else str(beside)
    return shlex.join([program, "--config", str(config.resolve())])


def _write_agent(api: Api, folder: Path, device: dict[str, Any]) -> None:
    lines = {
        "server": api.connection.server,
        "device_id": device["deviceId"],
        "model": device["model"],
        "api_key_file": "api-key",
        "data_dir": "data",
        "trusted_keys": [path.name for path in write_trusted_keys(api, folder)],
    }
    if api.connection.ca_file is not None:
        lines["certificate_authorities"] = str(api.connection.ca_file.resolve())
    # JSON strings and arrays of strings are TOML as well.
    text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in lines.items())
    (folder / "agent.toml").write_text(text, encoding="utf-8")


def write_trusted_keys(api: Api, folder: Path) -> list[Path]:
    """Write the public keys that the server signs with, and return their files."""
    paths = []
    for key in api.get("/signing-keys"):
        if key["status"].lower() not in {"retired", "revoked"}:
            paths.append(folder / f"{key['keyId']}.pem")
            paths[-1].write_text(key["publicKey"], encoding="utf-8")
    return paths


def parse_tags(texts: list[str]) -> dict[str, str]:
    """Read KEY=VALUE words.

    Raises:
        UsageError: one is not of this form.
    """
    tags = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise UsageError(f"--tag {text!r} must be KEY=VALUE")
        tags[name] = value
    return tags


@app.command("list")
def list_devices(
    *,
    model: Annotated[str | None, typer.Option()] = None,
    region: Annotated[str | None, typer.Option()] = None,
    status: Annotated[
        str | None, typer.Option(help="online, offline, never_seen or revoked.")
    ] = None,
    group: Annotated[str | None, typer.Option(help="Name or id of a group.")] = None,
    firmware_version: Annotated[str | None, typer.Option()] = None,
    search: Annotated[str | None, typer.Option(help="Part of the id.")] = None,
    limit: Limit = None,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """List devices by their id."""
    rows = open_api(server, token_file).results(
        "/devices",
        limit=limit,
        model=model,
        region=region,
        status=status,
        group=group,
        firmwareVersion=firmware_version,
        search=search,
    )
    print_rows(rows, COLUMNS, as_json=as_json)


@app.command()
def show(
    device_id: DeviceId,
    *,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show one device."""
    api = open_api(server, token_file)
    print_document(api.get(path_of(device_id)), as_json=as_json)


@app.command()
def enable(
    device_id: DeviceId,
    *,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Enable updates of a device."""
    api = open_api(server, token_file)
    print_document(api.post(path_of(device_id, "enable")), as_json=as_json)


@app.command()
def disable(
    device_id: DeviceId,
    *,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Keep a device out of updates."""
    api = open_api(server, token_file)
    print_document(api.post(path_of(device_id, "disable")), as_json=as_json)


@app.command()
def revoke(
    device_id: DeviceId,
    *,
    yes: Yes = False,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Shut a device out of every route, for good."""
    api = open_api(server, token_file)
    if not yes:
        confirm(f"Shut {device_id} out for good?")
    print_document(api.post(path_of(device_id, "revoke")), as_json=as_json)


@app.command("rotate-key")
def rotate_key(
    device_id: DeviceId,
    *,
    key_file: Annotated[
        Path | None, typer.Option(help="Write the new key there, not to the screen.")
    ] = None,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Make a new API key; the former one stays valid for a while."""
    api = open_api(server, token_file)
    if key_file is not None:
        write_private(key_file, "")
    try:
        answer = api.post(path_of(device_id, "api-key"))
    except CliError:
        if key_file is not None:
            key_file.unlink()
        raise
    if key_file is not None:
        write_private(key_file, answer.pop("apiKey"), replace=True)
        answer["keyFile"] = str(key_file)
    print_document(answer, as_json=as_json)


@app.command()
def erase(
    device_id: DeviceId,
    *,
    yes: Yes = False,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Erase a device and all personal data about it."""
    api = open_api(server, token_file)
    if not yes:
        if not sys.stdin.isatty():
            raise NotConfirmedError(f"Erase {device_id}? Not confirmed: say --yes.")
        typed = typer.prompt(f"Type {device_id} to erase it", err=True)
        if typed != device_id:
            raise NotConfirmedError("that is another name; nothing was erased")
    delete_signed(api, path_of(device_id), "device_erasure")
    say(f"{device_id} is erased.")


@app.command()
def export(
    device_id: Annotated[
        str | None, typer.Argument(metavar="[DEVICE]", help="The device's own id.")
    ] = None,
    *,
    output: Annotated[
        Path | None, typer.Option(help="Write the list there, not to the screen.")
    ] = None,
    model: Annotated[str | None, typer.Option()] = None,
    region: Annotated[str | None, typer.Option()] = None,
    status: Annotated[
        str | None, typer.Option(help="online, offline, never_seen or revoked.")
    ] = None,
    group: Annotated[str | None, typer.Option(help="Name or id of a group.")] = None,
    firmware_version: Annotated[str | None, typer.Option()] = None,
    search: Annotated[str | None, typer.Option(help="Part of the id.")] = None,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Print devices as CSV, to be edited and imported again with --mode upsert.

    With a DEVICE, print all that is held about it, as JSON.
    """
    filters = {
        "model": model,
        "region": region,
        "status": status,
        "group": group,
        "firmwareVersion": firmware_version,
        "search": search,
    }
    given = {name: value for name, value in filters.items() if value is not None}
    if device_id is not None:
        if given or output is not None:
            raise UsageError("filters and --output are for a list, not for one device")
        print_json(open_api(server, token_file).get(path_of(device_id, "export")))
        return
    api = open_api(server, token_file)
    if output is None:
        api.copy_to(sys.stdout.buffer, "/devices/export", params=given)
        return
    try:
        with output.open("xb") as file:
            api.copy_to(file, "/devices/export", params=given)
    except OSError as error:
        raise UsageError(f"{output}: {error.strerror}") from error
    except BaseException:
        # Half a list looks like a whole one.
        output.unlink(missing_ok=True)
        raise


@app.command("import")
def import_devices(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True)],
    *,
    keys_file: Annotated[
        Path | None,
        typer.Option(
            help="Where the API keys of the new devices are written. "
            "A dry run needs none."
        ),
    ] = None,
    mode: Annotated[
        str,
        typer.Option(
            help="upsert changes devices that are registered; create refuses them."
        ),
    ] = "create",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what it would change, and stop.")
    ] = False,
    acknowledge_audience: Annotated[
        bool,
        typer.Option(help="It may change whom deployments to come reach."),
    ] = False,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Register or change many devices from a .csv or .ndjson file.

    Ends with 1 if a line was rejected; the other lines are registered all the same.
    """
    query = {"mode": mode, "dryRun": "true" if dry_run else "false"}
    if acknowledge_audience:
        query["acknowledge"] = "audience"
    if keys_file is None and not dry_run:
        raise UsageError("--keys-file is needed: devices may be registered")
    content_type = CONTENT_TYPES.get(file.suffix.lower())
    if content_type is None:
        raise UsageError(f"{file}: must end in {', '.join(CONTENT_TYPES)}")
    api = open_api(server, token_file)
    if dry_run:
        _show_dry_run(api, *_import(api, file, content_type, query), as_json=as_json)
        return
    assert keys_file is not None
    write_private(keys_file, "")
    try:
        place, done = _import(api, file, content_type, query)
        if done["created"]:
            _fetch_keys(api, place, keys_file)
    except BaseException:
        if not keys_file.stat().st_size:
            keys_file.unlink()
        raise
    rejected = list(
        api.results(
            place,
            limit=None if as_json else SHOWN_REJECTIONS,
            outcome="rejected",
        )
        if done["rejected"]
        else []
    )
    summary = {name: done[name] for name in SUMMARY}
    if as_json:
        print_json(summary | {"rejections": rejected, "keysFile": str(keys_file)})
    else:
        print_document(summary | {"keysFile": str(keys_file)}, as_json=False)
        for row in rejected:
            say(f"line {row['line']}: {row['deviceId'] or '-'}: {row['detail']}")
        if done["rejected"] > len(rejected):
            say(f"... and {done['rejected'] - len(rejected)} more")
    if done["status"] == "Failed":
        raise RefusedError("the import failed")
    if done["rejected"]:
        raise typer.Exit(RefusedError.exit_code)


def _show_dry_run(api: Api, place: str, done: dict[str, Any], *, as_json: bool) -> None:
    summary = {name: done[name] for name in SUMMARY}
    rows = (row for row in api.results(place) if row["action"] != "unchanged")
    if as_json:
        print_json(summary | {"results": list(rows)})
    else:
        print_document(summary, as_json=False)
        for row in rows:
            say(f"line {row['line']}: {row['action']} {row['deviceId'] or '-'}")
            for each in row["changes"]:
                old, new = json.dumps(each["from"]), json.dumps(each["to"])
                say(f"    {each['field']}: {old} -> {new}")
            if row["action"] == "reject":
                say(f"    {row['detail']}")
    if done["status"] == "Failed":
        raise RefusedError("the dry run failed")
    if done["rejected"]:
        raise typer.Exit(RefusedError.exit_code)


@app.command("import-keys")
def import_keys(
    import_id: Annotated[str, typer.Argument(metavar="IMPORT", help="Its id.")],
    *,
    keys_file: Annotated[Path, typer.Option(help="Where the keys are written.")],
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Fetch the keys of an import whose command was cut short."""
    api = open_api(server, token_file)
    write_private(keys_file, "")
    try:
        _fetch_keys(api, f"/device-imports/{quote(import_id, safe='')}", keys_file)
    except BaseException:
        keys_file.unlink()
        raise


def _fetch_keys(api: Api, place: str, keys_file: Path) -> None:
    keys = api.request("GET", f"{place}/keys").text
    write_private(keys_file, keys, replace=True)
    # They have arrived, and are on disk: the server need not keep them any longer.
    api.request("DELETE", f"{place}/keys")


def _import(
    api: Api, file: Path, content_type: str, query: dict[str, str]
) -> tuple[str, dict[str, Any]]:
    with byte_progress() as progress:
        task = progress.add_task(f"Sending {file.name}", total=file.stat().st_size)

        def pieces() -> Iterator[bytes]:
            with file.open("rb") as lines:
                while piece := lines.read(256 * 1024):
                    yield piece
                    progress.advance(task, len(piece))

        answer = api.request(
            "POST",
            "/devices/import",
            params=query,
            content=pieces(),
            headers={
                "Content-Type": content_type,
                "Content-Length": str(file.stat().st_size),
            },
        )
    place = httpx.URL(answer.headers["Location"]).path.removeprefix("/api/v1")
    say(f"Import {place.rpartition('/')[2]}")
    with count_progress() as progress:
        task = progress.add_task("Registering", total=None)
        while True:
            state = dict(api.get(place))
            done = sum(state[name] for name in LOOKED_AT)
            progress.update(task, total=state["total"], completed=done)
            if state["status"] in {"Completed", "Failed"}:
                return place, state
            time.sleep(POLL_SECONDS)
