"""`hotswap evidence ...`: check what a server has handed out, on any machine.

Rules:
- It needs the file and the public key of the server, and neither server nor settings.
- Exit codes: 0 the pack is what the server has signed; 1 it is not; 2 a file cannot be
  read, or is no pack.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from hotswap.cli.keys import AsJson, fail, print_result
from hotswap.common.pluralize import counted

NOT_GENUINE, UNREADABLE = 1, 2

app = typer.Typer(
    name="evidence",
    help="Check evidence packs of firmware and deployments.",
    no_args_is_help=True,
)


@app.callback()
def about() -> None:
    """Check evidence packs of firmware and deployments."""


@app.command()
def verify(
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="The pack (zip).")
    ],
    *,
    public_key: Annotated[
        Path,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="PEM of the server's key: `hotswap audit public-key` prints it there.",
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Check signature, files and the slice of the audit trail up to its anchor."""
    from hotswap.common.evidence.check import UnreadableError, check_pack

    try:
        report = check_pack(file, load_public_key(public_key, as_json))
    except UnreadableError as error:
        fail(as_json, UNREADABLE, "unreadable", str(error))
    index = report.index
    print_result(
        as_json,
        {
            "genuine": report.is_genuine,
            "faults": report.faults,
            "auditEvents": report.rows,
            "auditLinks": report.links,
            "signatures": report.signatures,
            "index": index,
        },
        f"Evidence of {index.get('kind')} {index.get('name')} ({index.get('id')}), "
        f"made at {index.get('createdAt')}.",
        f"{counted(len(index.get('files', ())), 'file')}; "
        f"{counted(report.rows, 'row')} of the audit trail in "
        f"{counted(report.links, 'link')}, "
        f"{counted(report.signatures, 'signature')} of people.",
        *report.faults,
        "It is what the server has signed."
        if report.is_genuine
        else "IT IS NOT WHAT THE SERVER HAS SIGNED.",
    )
    if not report.is_genuine:
        raise typer.Exit(NOT_GENUINE)


def load_public_key(path: Path, as_json: bool) -> Any:
    """Return the Ed25519 key of a PEM file, or end the command with 2."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        fail(as_json, UNREADABLE, "no_key", f"{path}: {error}")
    if not isinstance(key, Ed25519PublicKey):
        fail(as_json, UNREADABLE, "no_key", f"{path} holds no Ed25519 key")
    return key
