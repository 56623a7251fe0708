"""`hotswap audit ...`: the chain of the audit trail, from the server's own machine.

Exit codes: 0 done, nothing was found; 1 something was done to the trail; 2 the file is
no export, or there is no key to check it with; 3 the database
or the key files cannot be used.
"""

import os
import zipfile
from pathlib import Path
from typing import Annotated

import typer

from hotswap.cli.evidence import UNREADABLE, load_public_key
from hotswap.cli.keys import (
    UNUSABLE,
    AsJson,
    DataDir,
    fail,
    on_the_server,
    print_result,
)
from hotswap.common.pluralize import counted

TAMPERED = 1

app = typer.Typer(
    name="audit",
    help="Check and anchor the chain of the audit trail.",
    no_args_is_help=True,
)


@app.callback()
def find_server(data_dir: DataDir = None) -> None:
    """Check and anchor the chain of the audit trail."""
    if data_dir is not None:
        os.environ["HOTSWAP_DATA_DIR"] = str(data_dir)


@app.command()
def verify(
    *,
    since_anchor: Annotated[
        bool,
        typer.Option(
            "--since-anchor",
            help="Check only what was sealed after the last anchor.",
        ),
    ] = False,
    export: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Check this export of the trail instead, on any machine.",
        ),
    ] = None,
    public_key: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="PEM of the server's key, for --export: `hotswap audit public-key`.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Hold every row against the chain, and the chain against its anchors."""
    if export is not None:
        if public_key is None or since_anchor:
            raise typer.BadParameter("--export goes with --public-key alone")
        _verify_export(export, public_key, as_json)
        return
    with on_the_server(as_json):
        from hotswap.common.api.audit_chain import verification_output
        from hotswap.common.trail import verifier

        found = verifier.verify(start=None if since_anchor else 1)
        shown = verification_output(found)
        state = found.state
    at = state.sealed_at
    shown["sealedAt"] = None if at is None else f"{at:%Y-%m-%dT%H:%M:%SZ}"
    checked = max(found.last - found.first + 1, 0)
    hidden = found.total - len(found.findings)
    print_result(
        as_json,
        shown,
        f"Sealed up to #{state.position:,}"
        + (f" at {shown['sealedAt']}" if at else "")
        + f"; {counted(state.waiting, 'row waits', 'rows wait')}.",
        f"{counted(checked, 'link')} checked, "
        f"compared with {counted(found.anchors, 'anchor')}.",
        *(
            f"The anchors in the bucket {bucket} were not compared: it does not answer."
            for bucket in found.unread_buckets
        ),
        *_unproved_lines(found.unproved_to),
        *(f"{each.kind.value}: {each.detail}" for each in found.findings),
        *([f"and {hidden:,} more"] if hidden else []),
        "Nothing was changed." if found.is_intact else "THE TRAIL WAS CHANGED.",
    )
    if not found.is_intact:
        raise typer.Exit(TAMPERED)


def _unproved_lines(position: int | None) -> list[str]:
    if position is None:
        return []
    text = (
        f"Up to #{position:,} only the key that was lost has vouched: those rows and "
        "links agree, and nothing proves more of them."
    )
    return [text]


def _verify_export(export: Path, public_key: Path, as_json: bool) -> None:
    from hotswap.common.trail.export_check import NoExportError, check_export

    public = load_public_key(public_key, as_json)
    try:
        with export.open("rb") as file:
            report = check_export(file, public)
    except NoExportError as error:
        is_pack = zipfile.is_zipfile(export)
        hint = "; `hotswap evidence verify` checks exports as CSV" if is_pack else ""
        fail(as_json, UNREADABLE, "no_export", f"{export}: {error}{hint}")
    print_result(
        as_json,
        {
            "genuine": report.is_genuine,
            "faults": report.faults,
            "rows": report.rows,
            "start": report.start,
        },
        f"An export of {counted(report.rows, 'row')}, "
        f"made at {report.start.get('at')}.",
        *report.faults,
        "It is what the server has signed."
        if report.is_genuine
        else "IT IS NOT WHAT THE SERVER HAS SIGNED.",
    )
    if not report.is_genuine:
        raise typer.Exit(TAMPERED)


@app.command()
def anchor(*, as_json: AsJson = False) -> None:
    """Seal what waits and sign the end of the chain now."""
    with on_the_server(as_json):
        from django.utils import timezone

        from hotswap.common import keyring
        from hotswap.common.trail import anchors, chain, sealer

        now = timezone.now()
        sealer.seal_all(now=now, is_awaited=True)
        try:
            made = anchors.make_anchor(now=now)
            anchors.write_anchor_files()
            anchors.write_head(now=now)
        except OSError as error:
            fail(as_json, UNUSABLE, "folder_unusable", f"the anchor: {error}")
        if made is None:
            fail(as_json, TAMPERED, "trail_empty", "there is nothing to anchor yet")
        shown = chain.anchor_document(made, keyring.audit_key().public_key())
    print_result(
        as_json,
        shown,
        f"Anchored at #{made.position:,}, in {anchors.folder()}.",
    )


@app.command("public-key")
def print_public_key(*, as_json: AsJson = False) -> None:
    """Print the public key that anchors and evidence are checked with."""
    with on_the_server(as_json):
        from hotswap.common.api.audit_chain import public_key_pem

        pem = public_key_pem()
    print_result(as_json, {"publicKey": pem}, pem.rstrip())
