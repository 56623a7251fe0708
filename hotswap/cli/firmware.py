"""`hotswap firmware ...`: what a build pipeline needs to publish an image."""

import hashlib
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from hotswap.cli.client import Api, RefusedError, UsageError
from hotswap.cli.login import open_api
from hotswap.cli.options import Json, Limit, Server, TokenFile
from hotswap.cli.output import byte_progress, print_document, print_rows, say
from hotswap.cli.signing import post_signed

app = typer.Typer(help="Upload, approve and retire firmware.", no_args_is_help=True)
COLUMNS = ("id", "model", "version", "status", "size", "uploadedBy", "createdAt")

Reference = Annotated[
    str,
    typer.Argument(
        metavar="FIRMWARE", help="Its id, or MODEL:VERSION as in sensor-v1:2.5.0."
    ),
]


@app.command()
def upload(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True)],
    model: Annotated[str, typer.Option(help="The device model it is built for.")],
    version: Annotated[
        str, typer.Option(help="Its version, in the scheme of the model.")
    ],
    *,
    notes: Annotated[str, typer.Option(help="Release notes.")] = "",
    notes_file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="File of the release notes."),
    ] = None,
    security_version: Annotated[
        int | None,
        typer.Option(min=0, help="Devices never go back below a proved one."),
    ] = None,
    reboot: Annotated[
        bool, typer.Option(help="Whether the device must reboot to run it.")
    ] = True,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Upload an image as a Draft; the same image again changes nothing."""
    if notes and notes_file is not None:
        raise UsageError("--notes and --notes-file cannot be given together")
    if notes_file is not None:
        notes = notes_file.read_text(encoding="utf-8")
    fields = {"model": model, "version": version, "rebootRequired": str(reboot).lower()}
    if notes:
        fields["releaseNotes"] = notes
    if security_version is not None:
        fields["securityVersion"] = str(security_version)
    api = open_api(server, token_file)
    with file.open("rb") as image:
        checksum = hashlib.file_digest(image, "sha256").hexdigest()
    fields["checksum"] = checksum
    with (
        byte_progress() as progress,
        progress.open(file, "rb", description=f"Uploading {file.name}") as image,
    ):
        answer = api.request(
            "POST",
            "/firmware",
            data=fields,
            files={"file": (file.name, image)},
        )
    print_document(answer.json(), as_json=as_json)
    if answer.status_code == 200:
        say("It was there already, with the same bytes.")


@app.command("list")
def list_firmware(
    *,
    model: Annotated[str | None, typer.Option(help="Of this model only.")] = None,
    status: Annotated[
        str | None, typer.Option(help="Draft, Approved, Deprecated or Rejected.")
    ] = None,
    limit: Limit = None,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """List firmware."""
    api = open_api(server, token_file)
    rows = api.results("/firmware", limit=limit, model=model, status=status)
    print_rows(rows, COLUMNS, as_json=as_json)


@app.command()
def show(
    firmware: Reference,
    *,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show one firmware."""
    api = open_api(server, token_file)
    print_document(find_firmware(api, firmware), as_json=as_json)


@app.command()
def approve(
    firmware: Reference,
    *,
    comment: Annotated[str, typer.Option(help="Why it may be deployed.")] = "",
    checksum: Annotated[
        str | None,
        typer.Option(help="Approve only if this is the SHA-256 of the image."),
    ] = None,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Approve a Draft, so that it can be deployed."""
    api = open_api(server, token_file)
    found = find_firmware(api, firmware)
    if checksum is not None and checksum.lower() != found["checksum"]:
        raise RefusedError(f"the image is {found['checksum']}, not {checksum}")
    body = {"comment": comment}
    _execute(api, found, "approve", body, "approval", as_json=as_json)


@app.command()
def reject(
    firmware: Reference,
    *,
    comment: Annotated[str, typer.Option(help="Why it must not be deployed.")],
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Reject a Draft, for good."""
    api = open_api(server, token_file)
    found = find_firmware(api, firmware)
    _execute(api, found, "reject", {"comment": comment}, "rejection", as_json=as_json)


@app.command()
def deprecate(
    firmware: Reference,
    *,
    reason: Annotated[str, typer.Option(help="Why nobody should deploy it any more.")],
    cancel_deployments: Annotated[
        bool,
        typer.Option(
            "--cancel-deployments", help="Recall it: cancel what deploys it now, too."
        ),
    ] = False,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Close an approved firmware to new deployments; `usage` tells what has it."""
    api = open_api(server, token_file)
    found = find_firmware(api, firmware)
    body = {"reason": reason, "cancelDeployments": cancel_deployments}
    _execute(api, found, "deprecate", body, "withdrawal", as_json=as_json)


@app.command()
def reinstate(
    firmware: Reference,
    *,
    reason: Annotated[str, typer.Option(help="Why it may be deployed again.")],
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Open a deprecated firmware to new deployments again."""
    api = open_api(server, token_file)
    found = find_firmware(api, firmware)
    body = {"reason": reason}
    _execute(api, found, "reinstate", body, "reinstatement", as_json=as_json)


@app.command()
def delete(
    firmware: Reference,
    *,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Delete a Draft or rejected firmware, with its image."""
    api = open_api(server, token_file)
    found = find_firmware(api, firmware)
    api.request("DELETE", f"/firmware/{found['id']}")
    say(f"{found['model']} {found['version']} is deleted.")


@app.command()
def usage(
    firmware: Reference,
    *,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show how many devices run a firmware, and what deploys it."""
    api = open_api(server, token_file)
    found = find_firmware(api, firmware)
    print_document(api.get(f"/firmware/{found['id']}/usage"), as_json=as_json)


def find_firmware(api: Api, reference: str) -> dict[str, Any]:
    """Return a firmware by its id or by model and version.

    Raises:
        RefusedError: there is none.
        UsageError: the reference is neither.
    """
    try:
        return dict(api.get(f"/firmware/{UUID(reference)}"))
    except ValueError:
        pass
    model, colon, version = reference.partition(":")
    if not (model and colon and version):
        raise UsageError(f"{reference!r} is neither an id nor MODEL:VERSION")
    for row in api.results("/firmware", model=model, version=version):
        return row
    raise RefusedError(f"there is no firmware {version} of {model}")


def _execute(
    api: Api,
    firmware: dict[str, Any],
    verb: str,
    body: dict[str, Any],
    meaning: str,
    *,
    as_json: bool,
) -> None:
    """Decide about a firmware, with a signature if the server asks for one."""
    done = post_signed(api, f"/firmware/{firmware['id']}/{verb}", body, meaning)
    print_document(done, as_json=as_json)
