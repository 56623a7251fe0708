"""The command line: `hotswap ...`.

Rules:
- A command imports what it needs when it runs, so that `hotswap --help` is quick.
- Values come from options, else from the variable named beside them.
- Exit codes: 0 done; 1 the server refused, or a part was refused; 2 options, files or
  settings are wrong; 3 the server does not answer, or cannot now; 4 nobody is logged
  in, or the role does not allow it; 5 not confirmed. How a watched deployment ended
  is 10 to 13, as `hotswap.cli.watching` says.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from hotswap.cli import (
    audit,
    deployments,
    devices,
    evidence,
    firmware,
    groups,
    keys,
    people,
)
from hotswap.cli.backup import backup, restore
from hotswap.cli.client import CliError
from hotswap.cli.doctor import doctor
from hotswap.cli.login import login, logout
from hotswap.cli.output import print_error
from hotswap.cli.simulate import simulate
from hotswap.paths import DEFAULT_DATA_DIR, PROJECT_DIR

app = typer.Typer(
    name="hotswap",
    help="HotSwap: firmware updates for fleets of devices.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(firmware.app, name="firmware")
app.add_typer(devices.app, name="device")
app.add_typer(groups.app, name="group")
app.add_typer(deployments.app, name="deployment")
app.add_typer(people.app, name="people")
app.command()(login)
app.command()(logout)
app.command()(simulate)
app.command()(people.set_password)
app.command()(doctor)
app.command()(backup)
app.command()(restore)
app.add_typer(keys.app)
app.add_typer(audit.app)
app.add_typer(evidence.app)

Port = Annotated[
    int,
    typer.Option(
        "--port",
        envvar="HOTSWAP_PORT",
        min=1,
        max=65535,
        help="Port of the web server.",
    ),
]
DataDir = Annotated[
    Path,
    typer.Option(
        "--data-dir", envvar="HOTSWAP_DATA_DIR", help="Folder that keeps everything."
    ),
]
DEFAULT_PORT = 8000


@app.command()
def serve(port: Port = DEFAULT_PORT, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Run HotSwap on this machine until Ctrl+C."""
    from hotswap.stack.serve import serve as run

    raise typer.Exit(run(data_dir=data_dir, port=port))


@app.command()
def demo(
    port: Port = DEFAULT_PORT,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir",
            envvar="HOTSWAP_DATA_DIR",
            help="Folder that keeps everything; by default one of the demo's own.",
        ),
    ] = None,
    *,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Play the story alone, from an emptied folder; exit 0 if it is right.",
        ),
    ] = False,
    reset: Annotated[
        bool, typer.Option("--reset", help="Begin with an empty data folder.")
    ] = False,
) -> None:
    """Run HotSwap with a seeded fleet that takes a good and then a bad update."""
    from hotswap.demo.main import run

    if data_dir is None:
        name = ".hotswap-demo-check" if check else ".hotswap-demo"
        data_dir = PROJECT_DIR / name
    code = run(check=check, reset=reset, port=port, data_dir=data_dir)
    raise typer.Exit(code or 0)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def manage(context: typer.Context) -> None:
    """Run a management command against the stack that runs on this machine."""
    import os

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hotswap.settings.local")
    from django.core.management import execute_from_command_line

    import hotswap.celery  # noqa: F401

    execute_from_command_line(["hotswap manage", *context.args])


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed_version

    try:
        number = installed_version("hotswap")
    except PackageNotFoundError:
        number = "unknown (the project is not installed)"
    sys.stdout.write(f"hotswap {number}\n")


def main() -> None:
    """Run a command; what a person can put right is said in a few lines."""
    try:
        app()
    except CliError as error:
        print_error(error)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
