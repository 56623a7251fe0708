"""`hotswap set-password`: let a person in again, from the server's own machine.

Rules:
- It acts on the database of the server, as `hotswap keys` does, and needs no login:
  whoever may read the key files is trusted.
- A password comes from a file or is made up, never from the command line, where every
  user of the machine could read it.
"""

import os
import secrets
from pathlib import Path
from typing import Annotated

import typer

from hotswap.cli.keys import AsJson, DataDir, on_the_server, print_result


def set_password(
    username: Annotated[
        str,
        typer.Argument(envvar="HOTSWAP_ADMIN_USERNAME", help="Their name."),
    ] = "admin",
    *,
    password_file: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            readable=True,
            help="Read the password from there; else one is made up and printed once.",
        ),
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Set the password of a person anew, by default that of the first Admin.

    Every login of theirs ends; a password that was made up must be changed after the
    next one. Run it on the machine of the server, as its user, with
    the settings of the server.
    """
    if data_dir is not None:
        os.environ["HOTSWAP_DATA_DIR"] = str(data_dir)
    given = None
    if password_file is not None:
        given = password_file.read_text(encoding="utf-8").removesuffix("\n")
    password = given if given is not None else secrets.token_urlsafe(12)
    with on_the_server(as_json):
        from hotswap.common import people

        people.set_password(
            username=username,
            password=password,
            actor=None,
            must_change=given is None,
        )
    shown = {"username": username}
    if given is None:
        shown["password"] = password
    print_result(
        as_json,
        shown,
        f"The password of {username} is new; every login of theirs has ended.",
        *([] if given is not None else [f"Password: {password}"]),
    )
