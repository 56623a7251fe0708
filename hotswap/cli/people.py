"""`hotswap people ...` over the API, and `hotswap set-password` on the server itself.

Rules:
- `set-password` acts on the database of the server, as `hotswap keys` does, and needs
  no login: whoever may read the key files is trusted.
- A password comes from a file or is made up, never from the command line, where every
  user of the machine could read it.
"""

import os
import secrets
from pathlib import Path
from typing import Annotated, Any

import typer

from hotswap.cli.client import Api, RefusedError
from hotswap.cli.keys import AsJson, DataDir, on_the_server, print_result
from hotswap.cli.login import open_api
from hotswap.cli.options import Json, Limit, Server, TokenFile, Yes
from hotswap.cli.output import confirm, print_document, print_json, print_rows, say
from hotswap.cli.signing import delete_signed

app = typer.Typer(
    help="Let people in, change them, shut them out.", no_args_is_help=True
)
COLUMNS = ("username", "role", "enabled", "secondFactor", "lastLoginAt", "email", "id")

Reference = Annotated[str, typer.Argument(metavar="PERSON", help="Their name or id.")]
Role = Annotated[
    str, typer.Option("--role", help="Admin, Operator or Viewer.", show_default=True)
]
Email = Annotated[str | None, typer.Option("--email", help="Their address.")]


@app.command("list")
def list_people(
    *,
    role: Annotated[str | None, typer.Option(help="Of this role alone.")] = None,
    search: Annotated[
        str | None, typer.Option(help="A part of the name or address.")
    ] = None,
    limit: Limit = None,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """List people."""
    api = open_api(server, token_file)
    rows = api.results("/people", limit=limit, role=role, search=search)
    print_rows(rows, COLUMNS, as_json=as_json)


@app.command()
def show(
    person: Reference,
    *,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show one person."""
    print_document(find_person(open_api(server, token_file), person), as_json=as_json)


@app.command()
def create(
    username: Annotated[str, typer.Argument(help="Name of the new person.")],
    *,
    role: Role = "Viewer",
    email: Email = None,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Create a person; the password printed is for the first login alone."""
    api = open_api(server, token_file)
    print_document(_create(api, username, role, email), as_json=as_json)


@app.command()
def invite(
    username: Annotated[str, typer.Argument(help="A new name, or that of a person.")],
    *,
    role: Role = "Viewer",
    email: Email = None,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Mail a person a link to choose a password by; create the person if need be.

    A new person needs an address (--email).
    """
    api = open_api(server, token_file)
    found = _find(api, username)
    if found is None:
        created = _create(api, username, role, email)
        found = {name: value for name, value in created.items() if name != "password"}
    api.request("POST", f"/people/{found['id']}/invite", json={})
    print_document(found, as_json=as_json)
    say(f"The invitation is on its way to {found['email']}.")


@app.command()
def edit(
    person: Reference,
    *,
    role: Annotated[str | None, typer.Option(help="The new role.")] = None,
    email: Annotated[
        str | None, typer.Option(help="The new address; empty for none.")
    ] = None,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Give a person another role or address."""
    api = open_api(server, token_file)
    given = {"role": role, "email": email}
    body = {name: value for name, value in given.items() if value is not None}
    path = f"/people/{find_person(api, person)['id']}"
    print_document(api.request("PATCH", path, json=body).json(), as_json=as_json)


@app.command()
def reset(
    person: Reference,
    *,
    second_factors: Annotated[
        bool, typer.Option(help="Take their second factors away instead.")
    ] = False,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Give a person a password for one login; every other login of theirs ends."""
    api = open_api(server, token_file)
    what = "reset-second-factors" if second_factors else "reset-password"
    path = f"/people/{find_person(api, person)['id']}/{what}"
    print_document(api.post(path), as_json=as_json)


@app.command()
def disable(
    person: Reference,
    *,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Shut a person out everywhere at once."""
    api = open_api(server, token_file)
    path = f"/people/{find_person(api, person)['id']}/disable"
    print_document(api.post(path), as_json=as_json)


@app.command()
def enable(
    person: Reference,
    *,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Let a person in again."""
    api = open_api(server, token_file)
    path = f"/people/{find_person(api, person)['id']}/enable"
    print_document(api.post(path), as_json=as_json)


@app.command()
def export(
    person: Reference,
    *,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Print all that is held about a person, as JSON without secrets."""
    api = open_api(server, token_file)
    print_json(api.get(f"/people/{find_person(api, person)['id']}/export"))


@app.command()
def erase(
    person: Reference,
    *,
    yes: Yes = False,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    """Destroy the name behind a pseudonym; what the person did stays in the trail."""
    api = open_api(server, token_file)
    found = find_person(api, person)
    if not yes:
        confirm(f"Erase {found['username']}? This cannot be undone.")
    delete_signed(api, f"/people/{found['id']}", "erasure")
    say(f"{found['username']} is erased; the pseudonym {found['id']} stays.")


def find_person(api: Api, reference: str) -> dict[str, Any]:
    """Return the person of a name or an id.

    Raises:
        RefusedError: there is none.
    """
    found = _find(api, reference)
    if found is None:
        raise RefusedError(f"there is no person {reference!r}")
    return found


def _find(api: Api, reference: str) -> dict[str, Any] | None:
    for row in api.results("/people"):
        if reference in (row["username"], row["id"]):
            return row
    return None


def _create(api: Api, username: str, role: str, email: str | None) -> dict[str, Any]:
    body = {"username": username, "role": role}
    if email is not None:
        body["email"] = email
    made: dict[str, Any] = api.post("/people", body)
    return made


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
