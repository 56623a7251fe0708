"""Options that many commands share."""

from pathlib import Path
from typing import Annotated

import typer

Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="Address of the server. [env: HOTSWAP_SERVER]",
        show_default=False,
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        help="File that holds an access token. [env: HOTSWAP_TOKEN_FILE]",
        show_default=False,
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print the documents of the API as JSON.")
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", min=1, help="At most so many rows.", show_default=False),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
