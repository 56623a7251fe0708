#!/usr/bin/env python3
r"""Switch traffic with a blue-green deployment: nginx or HAProxy follow its live fleet.

    switch_traffic.py https://updates.example.com DEPLOYMENT --token-file token \
        --addresses addresses.json --nginx /etc/nginx/devices.conf

Asks `GET /api/v1/deployments/DEPLOYMENT/fleets` every second; whatever it knows already
is answered with 304. Traffic goes to the devices of the fleet that serves; while that
is to drain, to the other. Standard library alone; see docs/deployments.md.

- `--addresses` names a JSON file: `{"pump-17": "10.0.0.17:8080", ...}`.
- `--nginx FILE` writes an `upstream` to include, and runs `--reload` (`nginx -s
  reload`) when it has changed.
- `--haproxy SOCKET` tells the runtime API of HAProxy the state of each server of
  `--backend`, whose servers are called as the devices are.

The token is a personal access token of a Viewer (docs/people.md).
"""

import argparse
import json
import logging
import shlex
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urljoin

logger = logging.getLogger("switch_traffic")
SECONDS = 1.0
PAGE = 200


class Api:
    """The API of a HotSwap, read with a token."""

    def __init__(self, site: str, token_file: Path) -> None:
        self.site = site
        self.token_file = token_file

    def get(self, url: str, etag: str = "") -> tuple[dict, str] | None:
        """Return what is there, and its ETag; None where it is what is known."""
        request = urllib.request.Request(urljoin(self.site, url))  # noqa: S310
        # Read each time, so that somebody else may renew it.
        token = self.token_file.read_text().strip()
        request.add_header("Authorization", f"Bearer {token}")
        if etag:
            request.add_header("If-None-Match", etag)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return json.load(answer), answer.headers.get("ETag", "")
        except urllib.error.HTTPError as error:
            if error.code == 304:
                return None
            raise

    def devices(self, url: str) -> list[str]:
        """Return the ids of all devices of a fleet."""
        found: list[str] = []
        page = f"{url}&pageSize={PAGE}"
        while page:
            body, _ = self.get(page) or ({}, "")
            found += [row["deviceId"] for row in body["results"]]
            page = body["next"]
        return found


def serving(fleets: dict, members: dict[str, list[str]]) -> dict[str, bool]:
    """Tell of each device whether it gets traffic: those of the fleet that serves do.

    A fleet that is held is to drain. Where it serves, the other has been verified and
    takes over.
    """
    held = fleets["hold"]["fleet"] if fleets["hold"] else None
    live = fleets["liveFleet"]
    if held == live:
        live = next((name for name in members if name != held), live)
    return {
        device: name == live for name, devices in members.items() for device in devices
    }


def write_nginx(path: Path, states: dict[str, bool], addresses: dict[str, str]) -> bool:
    """Write the upstream; tell whether it has changed."""
    lines = ["# Written by switch_traffic.py.", "upstream devices {"]
    for device, is_up in sorted(states.items()):
        if device in addresses:
            down = "" if is_up else " down"
            lines.append(f"    server {addresses[device]}{down};  # {device}")
    text = "\n".join([*lines, "}", ""])
    if path.exists() and path.read_text() == text:
        return False
    draft = path.with_suffix(".new")
    draft.write_text(text)
    # nginx never reads half of it.
    draft.replace(path)
    return True


def tell_haproxy(place: str, backend: str, states: dict[str, bool]) -> None:
    """Set the state of each server: one that drains finishes what it has."""
    for device, is_up in sorted(states.items()):
        state = "ready" if is_up else "drain"
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(place)
            connection.sendall(
                f"set server {backend}/{device} state {state}\n".encode()
            )
            said = connection.makefile().read().strip()
        if said:
            logger.error("HAProxy: %s", said)


def switch(
    api: Api, fleets: dict, addresses: dict[str, str], options: argparse.Namespace
) -> None:
    """Send traffic where it belongs."""
    members = {
        fleet["name"]: api.devices(fleet["devicesUrl"]) for fleet in fleets["fleets"]
    }
    states = serving(fleets, members)
    if options.nginx and write_nginx(options.nginx, states, addresses):
        subprocess.run(shlex.split(options.reload), check=True)
    if options.haproxy:
        tell_haproxy(options.haproxy, options.backend, states)


def follow(options: argparse.Namespace) -> None:
    """Follow the fleets until the end of the world, or once."""
    api = Api(options.site, options.token_file)
    addresses = json.loads(options.addresses.read_text()) if options.addresses else {}
    url, etag = f"/api/v1/deployments/{options.deployment}/fleets", ""
    while True:
        try:
            found = api.get(url, etag)
            if found is not None:
                switch(api, found[0], addresses, options)
                # Only what was acted on is known.
                etag = found[1]
        except (OSError, subprocess.CalledProcessError):
            if options.once:
                raise
            # What was true last stays so until it is known to be otherwise.
            logger.exception("not switched, and tried again")
        if options.once:
            return
        time.sleep(SECONDS)


def main() -> None:
    parser = argparse.ArgumentParser(description="switch traffic with a deployment")
    parser.add_argument("site")
    parser.add_argument("deployment")
    parser.add_argument("--token-file", type=Path, required=True)
    parser.add_argument("--addresses", type=Path)
    parser.add_argument("--nginx", type=Path, metavar="FILE")
    parser.add_argument("--reload", default="nginx -s reload")
    parser.add_argument("--haproxy", metavar="SOCKET")
    parser.add_argument("--backend", default="devices")
    parser.add_argument("--once", action="store_true")
    follow(parser.parse_args())


if __name__ == "__main__":
    main()
