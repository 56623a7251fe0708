"""Signing at the terminal what the server wants signed."""

import sys
from collections.abc import Mapping
from typing import Any

import typer

from hotswap.cli.client import Api, NotAllowedError

REQUIRED = "signature_required"
# Of a recovery code; those of an app have six, and passwords are longer.
MAX_CODE_DIGITS = 8


def post_signed(api: Api, path: str, body: Mapping[str, Any], meaning: str) -> Any:
    """Post a body, with a signature if the server asks for one.

    Args:
        meaning: of the signature, as the route has it.

    Raises:
        RefusedError, NotAllowedError, UnreachableError: as every request; also where a
            signature is asked for and nobody is at the terminal.
    """
    try:
        return api.post(path, body)
    except NotAllowedError as error:
        signature = _asked_for(error, meaning)
    return api.post(path, {**body, "signature": signature})


def delete_signed(api: Api, path: str, meaning: str) -> None:
    """Delete something as `post_signed` posts it."""
    try:
        api.request("DELETE", path)
    except NotAllowedError as error:
        signature = _asked_for(error, meaning)
        api.request("DELETE", path, json={"signature": signature})


def _asked_for(error: NotAllowedError, meaning: str) -> dict[str, str]:
    """Return the signature that a refusal asks for, or raise the refusal again."""
    is_asked = (error.document or {}).get("code") == REQUIRED
    if not is_asked or not sys.stdin.isatty():
        raise error
    typer.echo((error.document or {}).get("detail", ""), err=True)
    typed = typer.prompt(
        "Your password, or the code of your authenticator app",
        hide_input=True,
        err=True,
    )
    is_code = typed.isdecimal() and len(typed) <= MAX_CODE_DIGITS
    return {"meaning": meaning, "code" if is_code else "password": typed}
