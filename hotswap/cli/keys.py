"""`hotswap keys ...`: the rings of keys, from the server's own machine.

Rules:
- It acts on the database and the key files of the server, found as `hotswap manage`
  finds them, and needs no login: whoever may read the key files is trusted.
- With `--json`, standard output is one JSON value; what goes wrong is told on standard
  error as one, too: `{"code", "detail"}`.
- Exit codes: 0 done; 1 refused, nothing has changed; 2 wrong usage; 3 the database, the
  key files or the store cannot be used; 5 not confirmed; 6 done in part, run it again.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from hotswap.common.pluralize import counted
from hotswap.paths import DEFAULT_DATA_DIR

if TYPE_CHECKING:
    from firmware.models import SigningKey, StorageKey
    from hotswap.common.models import User

REFUSED, UNUSABLE, NOT_CONFIRMED, IN_PART = 1, 3, 5, 6

app = typer.Typer(
    name="keys",
    help="Rotate, retire and revoke the keys that sign and store firmware.",
    no_args_is_help=True,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
KeyId = Annotated[str, typer.Argument(help="Its id, as `hotswap keys list` shows it.")]
Person = Annotated[
    str,
    typer.Option(
        "--as",
        help="Name the Admin who does this in the audit trail; else it is the server.",
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", envvar="HOTSWAP_DATA_DIR", help="The server's data folder."
    ),
]


@app.callback()
def find_server(data_dir: DataDir = None) -> None:
    """Rotate, retire and revoke the keys that sign and store firmware."""
    if data_dir is not None:
        os.environ["HOTSWAP_DATA_DIR"] = str(data_dir)


# --- Commands ----------------------------------------------------------------------


@app.command("list")
def list_keys(*, as_json: AsJson = False) -> None:
    """Show both rings."""
    with on_the_server(as_json):
        from firmware.models import SigningKey, StorageKey

        signing = [describe(key) for key in SigningKey.objects.order_by("created_at")]
        storage = [describe(key) for key in StorageKey.objects.order_by("created_at")]
    print_result(
        as_json,
        {"signingKeys": signing, "storageKeys": storage},
        *("Signing keys", *map(line, signing)),
        *("Storage keys", *map(line, storage)),
    )


@app.command()
def create_signing(*, person: Person = "", as_json: AsJson = False) -> None:
    """Publish the next signing key; it signs after `rotate-signing`."""
    with on_the_server(as_json):
        from firmware.services import key_rotation

        shown = describe(key_rotation.create_signing_key(actor=acting(person)))
    print_result(
        as_json,
        shown,
        f"{shown['keyId']} is published as the next signing key.",
        "Pin it on the devices, then run: hotswap keys rotate-signing",
    )


@app.command()
def rotate_signing(
    *,
    overlap_days: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=3650,
            help="How long the former key stays trusted; 0 retires it at once. "
            "By default HOTSWAP_SIGNING_KEY_OVERLAP_DAYS.",
        ),
    ] = None,
    person: Person = "",
    as_json: AsJson = False,
) -> None:
    """Let the next key sign (a new one if there is none), and re-sign the images."""
    with on_the_server(as_json):
        from firmware.services import key_rotation

        actor = acting(person)
        overlap = None if overlap_days is None else timedelta(days=overlap_days)
        shown = describe(key_rotation.rotate_signing_key(actor=actor, overlap=overlap))
        with progress("Signing images", as_json) as on_progress:
            signed = key_rotation.sign_missing(actor=actor, on_progress=on_progress)
    print_result(
        as_json,
        {**shown, "imagesSigned": signed},
        f"{shown['keyId']} signs now; {counted(signed, 'image was', 'images were')}"
        " signed again.",
    )


@app.command()
def re_sign(
    *,
    after_revocation: Annotated[
        bool,
        typer.Option(
            "--after-revocation",
            help="Also sign what only a revoked key has signed, after comparing each "
            "stored image with the checksum of its upload.",
        ),
    ] = False,
    person: Person = "",
    as_json: AsJson = False,
    yes: Yes = False,
) -> None:
    """Sign under the active key every image that it has not signed yet."""
    with on_the_server(as_json):
        from firmware.services import key_rotation

        actor = acting(person)
        if after_revocation:
            confirm("Trust the images in the store, and sign them again?", yes)
        with progress("Signing images", as_json) as on_progress:
            signed = key_rotation.sign_missing(actor=actor, on_progress=on_progress)
            held = key_rotation.SignedAgain(0, {})
            if after_revocation:
                held = key_rotation.sign_held_back(actor=actor, on_progress=on_progress)
        waiting = key_rotation.images_held_back().count()
    refused = {str(pk): why for pk, why in held.refused.items()}
    print_result(
        as_json,
        {
            "imagesSigned": signed + held.signed,
            "imagesHeldBack": waiting,
            "refused": refused,
        },
        f"{counted(signed + held.signed, 'image was', 'images were')} signed again.",
        *(f"not signed: {pk}: {why}" for pk, why in refused.items()),
        *held_back_lines(waiting),
    )
    if refused:
        raise typer.Exit(IN_PART)


@app.command()
def retire(
    key_id: KeyId, *, person: Person = "", as_json: AsJson = False, yes: Yes = False
) -> None:
    """End the overlap of a signing key now, or withdraw the next one."""
    with on_the_server(as_json):
        from firmware.services import key_rotation

        actor = acting(person)
        confirm(
            f"Retire {key_id}? Devices that have pinned it alone accept no update any "
            "more.",
            yes,
        )
        shown = describe(key_rotation.retire_signing_key(actor=actor, key_id=key_id))
    print_result(as_json, shown, f"{key_id} is retired.")


@app.command()
def revoke(
    key_id: KeyId,
    *,
    reason: Annotated[str, typer.Option(help="Kept in the audit trail.")],
    re_sign: Annotated[
        bool,
        typer.Option(
            "--re-sign",
            help="Sign what only this key has signed under the active one, after "
            "comparing each stored image with the checksum of its upload.",
        ),
    ] = False,
    person: Person = "",
    as_json: AsJson = False,
    yes: Yes = False,
) -> None:
    """Trust a signing key no more, nor what it alone has signed."""
    if not reason.strip():
        raise typer.BadParameter("must not be empty", param_hint="--reason")
    with on_the_server(as_json):
        from firmware.services import key_rotation

        actor = acting(person)
        count = key_rotation.held_back_if_revoked(key_id=key_id)
        fate = "compared and signed again" if re_sign else "held back"
        confirm(
            f"Revoke {key_id}? This cannot be undone. {counted(count, 'image')}"
            " that no other key "
            f"has signed are {fate}.",
            yes,
        )
        done = key_rotation.revoke_signing_key(
            actor=actor, key_id=key_id, reason=reason
        )
        shown = describe(done.key)
        held = key_rotation.SignedAgain(0, {})
        if re_sign:
            with progress("Signing images", as_json) as on_progress:
                held = key_rotation.sign_held_back(actor=actor, on_progress=on_progress)
        waiting = key_rotation.images_held_back().count()
    refused = {str(pk): why for pk, why in held.refused.items()}
    print_result(
        as_json,
        {
            **shown,
            "activeKeyId": done.active.key_id,
            "imagesSigned": held.signed,
            "imagesHeldBack": waiting,
            "refused": refused,
        },
        f"{key_id} is revoked; {done.active.key_id} signs.",
        *(
            [f"{counted(held.signed, 'image was', 'images were')} signed again."]
            if re_sign
            else []
        ),
        *(f"not signed: {pk}: {why}" for pk, why in refused.items()),
        *held_back_lines(waiting),
    )
    if refused:
        raise typer.Exit(IN_PART)


@app.command()
def rotate_storage(*, person: Person = "", as_json: AsJson = False) -> None:
    """Make a new storage key and wrap the keys of all stored images under it."""
    with on_the_server(as_json):
        from firmware.services import key_rotation

        actor = acting(person)
        shown = describe(key_rotation.rotate_storage_key(actor=actor))
        explain_wrapping(shown, actor, as_json)


@app.command()
def re_wrap(*, person: Person = "", as_json: AsJson = False) -> None:
    """Finish what an interrupted `rotate-storage` has left (the server does, too)."""
    with on_the_server(as_json):
        from firmware.services.keys import active_storage_key

        explain_wrapping(describe(active_storage_key()), acting(person), as_json)


@app.command()
def delete(
    key_id: KeyId, *, person: Person = "", as_json: AsJson = False, yes: Yes = False
) -> None:
    """Delete a storage key that wraps nothing any more."""
    with on_the_server(as_json):
        from firmware.services import key_rotation

        actor = acting(person)
        confirm(
            f"Delete {key_id}? A database restored from before its rotation brings it "
            "back; nothing else does.",
            yes,
        )
        key_rotation.delete_storage_key(actor=actor, key_id=key_id)
    print_result(as_json, {"keyId": key_id, "deleted": True}, f"{key_id} is deleted.")


@app.command()
def replace_tokens(
    *, person: Person = "", as_json: AsJson = False, yes: Yes = False
) -> None:
    """Make a new token key where the files of the old ones are lost for good."""
    with on_the_server(as_json, check=False):
        from hotswap.common.services import replace_token_keys

        confirm("Everybody has to log in again. Make a new token key?", yes)
        name = replace_token_keys(actor=acting(person))
    print_result(
        as_json, {"keyId": name}, f"{name} signs tokens from the next start on."
    )


@app.command()
def rotate_master(*, person: Person = "", as_json: AsJson = False) -> None:
    """Make a new master key and seal anew all that the former one has sealed."""
    with on_the_server(as_json):
        from hotswap.master_key import rotate_master_key

        actor = acting(person)
        with progress("Sealing anew", as_json) as on_progress:
            done = rotate_master_key(actor=actor, on_progress=on_progress)
    print_result(
        as_json,
        {"sealedAnew": done.resealed, "unreadable": list(done.unreadable)},
        f"A new master key seals; {counted(done.resealed, 'secret')} of the database "
        + ("was" if done.resealed == 1 else "were")
        + " sealed anew, and the former key is gone.",
        "Copy the folder of keys: an older copy of master.key opens nothing any more.",
        *(f"no master key opens: {name}" for name in done.unreadable),
    )


@app.command()
def replace_audit(
    *, person: Person = "", as_json: AsJson = False, yes: Yes = False
) -> None:
    """Make a new key for anchors where the file of the old one is lost for good."""
    with _embedded_database(as_json), on_the_server(as_json, check=False):
        from hotswap.common.services import replace_audit_key

        confirm(
            "The anchors that there are prove nothing any more, for good, and evidence "
            "packs are checked with the public key of their time. Make a new key?",
            yes,
        )
        name = replace_audit_key(actor=acting(person))
    print_result(
        as_json,
        {"keyId": name},
        f"{name} signs anchors from the next start on: restart HotSwap, and hand out "
        "its public half (`hotswap audit public-key`).",
    )


# --- Parts -------------------------------------------------------------------------


@contextmanager
def _embedded_database(as_json: bool) -> Iterator[None]:
    """Run the embedded database if it does not run: nothing starts without the key."""
    from django.apps import apps

    from hotswap.cli.backup import database_url_of
    from hotswap.stack.backup import embedded_database
    from hotswap.stack.errors import StackError

    data = Path(os.environ.get("HOTSWAP_DATA_DIR") or DEFAULT_DATA_DIR)
    is_there = (data / "postgres").is_dir()
    if apps.ready or not is_there or database_url_of(data) is not None:
        yield
        return
    try:
        with embedded_database(data) as url:
            os.environ["HOTSWAP_DATABASE_URL"] = url
            yield
    except StackError as error:
        fail(as_json, UNUSABLE, "database_unavailable", str(error))


@contextmanager
def on_the_server(as_json: bool, *, check: bool = True) -> Iterator[None]:
    """Load Django, check the key files, and turn what goes wrong into an exit code."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hotswap.settings.local")
    # People read this; what the services log is in the audit trail, too.
    os.environ.setdefault("HOTSWAP_LOG_LEVEL", "CRITICAL")
    import django
    from django.apps import apps
    from django.core.exceptions import ImproperlyConfigured
    from django.db import DatabaseError

    try:
        import hotswap.celery  # noqa: F401

        # Another set-up would send the logs of this process elsewhere.
        if not apps.ready:
            django.setup()
    except ImproperlyConfigured as error:
        fail(as_json, UNUSABLE, "settings_refused", str(error))
    from firmware.exceptions import StoreUnavailableError
    from hotswap.common.errors import HotSwapError
    from hotswap.common.services import check_keys

    try:
        if check:
            check_keys()
        yield
    except StoreUnavailableError as error:
        fail(
            as_json,
            UNUSABLE,
            error.code,
            f"{error.detail}; what was done stays done, go on later with "
            "`hotswap keys re-wrap` or `hotswap keys re-sign --after-revocation`",
        )
    except HotSwapError as error:
        fail(as_json, REFUSED, error.code, error.detail)
    except ImproperlyConfigured as error:
        fail(as_json, UNUSABLE, "keys_unusable", str(error))
    except DatabaseError as error:
        said = " ".join(str(error).split())
        fail(
            as_json,
            UNUSABLE,
            "database_unavailable",
            f"the database cannot be used: {said}",
        )


def acting(person: str) -> "User | None":
    """Return the Admin who acts, or None for the server."""
    if not person:
        return None
    from hotswap.common.models import User
    from hotswap.common.roles import Role

    user = User.objects.filter(username=person).first()
    if user is None or not user.may(Role.ADMIN):
        raise typer.BadParameter(f"{person!r} is no Admin", param_hint="--as")
    return user


def describe(key: "SigningKey | StorageKey") -> dict[str, Any]:
    """Show a key as JSON, nothing secret in it."""
    from firmware.models import SigningKey

    shown: dict[str, Any] = {
        "keyId": key.key_id,
        "status": str(key.status),
        "createdAt": wire_time(key.created_at),
    }
    if isinstance(key, SigningKey):
        return shown | {
            "algorithm": key.algorithm,
            "publicKey": key.public_key,
            "notBefore": wire_time(key.not_before),
            "notAfter": wire_time(key.not_after),
            "comment": key.status_comment,
        }
    return shown | {"imagesWrapped": key.wrappedkey_set.count()}


def wire_time(at: Any) -> str | None:
    return None if at is None else f"{at:%Y-%m-%dT%H:%M:%SZ}"


def line(shown: dict[str, Any]) -> str:
    """Show a key as one line."""
    words = f"  {shown['keyId']}  {shown['status']:<8}  created {shown['createdAt']}"
    if shown.get("notAfter"):
        words += f", until {shown['notAfter']}"
    if "imagesWrapped" in shown:
        words += f", wraps {counted(shown['imagesWrapped'], 'image')}"
    return words


def held_back_lines(waiting: int) -> list[str]:
    if not waiting:
        return []
    return [
        counted(waiting, "image is", "images are")
        + " held back: no key that can be trusted has signed.",
        "Once you trust what is stored: hotswap keys re-sign --after-revocation",
    ]


def explain_wrapping(
    shown: dict[str, Any], actor: "User | None", as_json: bool
) -> None:
    """Wrap what is left, and say how it went."""
    from firmware.services import key_rotation

    with progress("Wrapping keys", as_json) as on_progress:
        done = key_rotation.rewrap_images(actor=actor, on_progress=on_progress)
    print_result(
        as_json,
        {
            **shown,
            "keysWrapped": done.wrapped,
            "retired": list(done.retired),
            "unreadable": list(done.unreadable),
        },
        f"{shown['keyId']} wraps the keys of stored images; {done.wrapped} were "
        "wrapped again.",
        *(f"{key_id} is retired and may be deleted." for key_id in done.retired),
        *(f"does not open: {name}" for name in done.unreadable),
    )
    if done.unreadable:
        raise typer.Exit(IN_PART)


@contextmanager
def progress(what: str, as_json: bool) -> Iterator[Any]:
    """Count on standard error, where a person watches it."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn

    console = Console(stderr=True)
    if as_json or not console.is_terminal:
        yield lambda _: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}: {task.completed}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done: bar.update(task, completed=done)


def confirm(question: str, yes: bool) -> None:
    """Ask, unless told not to; without a person to ask, the answer is no."""
    if yes:
        return
    if not sys.stdin.isatty():
        sys.stderr.write(f"hotswap: {question} Not confirmed: say --yes.\n")
        raise typer.Exit(NOT_CONFIRMED)
    if not typer.confirm(question, err=True):
        raise typer.Exit(NOT_CONFIRMED)


def print_result(as_json: bool, value: dict[str, Any], *lines: str) -> None:
    """Print the JSON value, or the lines for people."""
    text = json.dumps(value, indent=2) if as_json else "\n".join(lines)
    sys.stdout.write(f"{text}\n")


def fail(as_json: bool, exit_code: int, code: str, detail: str) -> NoReturn:
    if as_json:
        sys.stderr.write(json.dumps({"code": code, "detail": detail}) + "\n")
    else:
        sys.stderr.write(f"hotswap: {detail} [{code}]\n")
    raise typer.Exit(exit_code)
