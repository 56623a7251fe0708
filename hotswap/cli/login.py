"""`hotswap login`, `logout`, and the connection of every other command."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from hotswap.cli.client import (
    Api,
    Connection,
    Login,
    NotAllowedError,
    UsageError,
    config_dir,
    find_connection,
)
from hotswap.cli.options import Server
from hotswap.cli.output import say


def open_api(server: str | None, token_file: Path | None) -> Api:
    """Return the API of the server that options and settings name."""
    return Api(find_connection(server, token_file), Login(config_dir()))


def login(
    username: Annotated[
        str | None, typer.Argument(help="Asked for if omitted.")
    ] = None,
    *,
    password_stdin: Annotated[
        bool, typer.Option(help="Read the password from standard input.")
    ] = False,
    server: Server = None,
) -> None:
    """Log in and keep the login in a file that only you can read."""
    if password_stdin:
        if username is None:
            raise UsageError("name the person beside --password-stdin")
        password = sys.stdin.readline().rstrip("\n")
    else:
        username = username or typer.prompt("User name", err=True)
        password = typer.prompt("Password", hide_input=True, err=True)
    found = find_connection(server, None)
    kept = Login(config_dir())
    api = Api(Connection(found.server, ca_file=found.ca_file), kept)
    try:
        tokens = api.sign_in(username, password)
    except NotAllowedError as error:
        needs_code = (error.document or {}).get("code") == "second_factor_required"
        if not needs_code or password_stdin:
            raise
        code = typer.prompt("Code of your second factor", err=True)
        tokens = api.sign_in(username, password, code)
    with kept.locked():
        kept.write(found.server, tokens)
    say(f"{username} is logged in at {found.server} as {tokens['role']}.")


def logout(*, server: Server = None) -> None:
    """End the login that was kept, here and on the server.

    It is forgotten here also where the server does not answer; that is said then.
    """
    found = find_connection(server, None)
    kept = Login(config_dir())
    api = Api(Connection(found.server, ca_file=found.ca_file), kept)
    with kept.locked():
        login = kept.read(found.server)
        had_one = kept.remove()
    if login is not None:
        api.sign_out(str(login["refresh"]))
    say("Logged out." if had_one else "Nobody was logged in.")
