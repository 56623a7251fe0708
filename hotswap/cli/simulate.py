"""`hotswap simulate`: its options; what it does is in `hotswap.cli.simulated_fleet`."""

from pathlib import Path
from typing import Annotated

import typer

from hotswap.cli.client import UsageError
from hotswap.cli.login import open_api
from hotswap.cli.options import Json, Server, TokenFile


def simulate(
    *,
    devices: Annotated[int, typer.Option(min=1, max=5000, help="How many.")] = 10,
    model: Annotated[str, typer.Option(help="Their device model.")],
    region: Annotated[
        list[str] | None,
        typer.Option(help="Their region; may be repeated, they are dealt out in turn."),
    ] = None,
    prefix: Annotated[
        str | None, typer.Option(help="How their ids begin. By default a new one.")
    ] = None,
    factory_version: Annotated[
        str, typer.Option(help="The version they are delivered with.")
    ] = "1.0.0",
    fail_rate: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share on which a new image never comes up."),
    ] = 0.0,
    sick_rate: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share on which it comes up and errs."),
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Chooses which devices those are.")] = 1,
    seconds: Annotated[
        float | None, typer.Option(min=1, help="End after so long.", show_default=False)
    ] = None,
    until_version: Annotated[
        str | None,
        typer.Option(help="End when every device that can runs this version."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write the summary to this file, as JSON.")
    ] = None,
    erase: Annotated[
        bool, typer.Option("--erase", help="Erase the devices at the end.")
    ] = False,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Run a fleet of simulated devices until Ctrl+C, or until it is done.

    They are registered first. Nothing is launched: deploy to them as to others. With
    --until-version it ends with 1 if time was up before all that can had that version.
    """
    if fail_rate + sick_rate > 1:
        raise UsageError("--fail-rate and --sick-rate are more than 1 together")
    # Loads the agent, which no other command needs.
    from hotswap.cli.simulated_fleet import Simulation, run_simulation

    run_simulation(
        open_api(server, token_file),
        Simulation(
            device_count=devices,
            model=model,
            regions=region or [],
            prefix=prefix,
            factory_version=factory_version,
            fail_rate=fail_rate,
            sick_rate=sick_rate,
            seed=seed,
            seconds=seconds,
            until_version=until_version,
        ),
        report=report,
        erases=erase,
        as_json=as_json,
    )
