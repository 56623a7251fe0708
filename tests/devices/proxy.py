"""A real nginx with the shipped configuration."""

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from hotswap.stack.folder import free_port
from tests.nginx import find_nginx
from tests.waiting import wait_until

SHIPPED = Path(__file__).resolve().parents[2] / "deploy" / "nginx"
# Everything that nginx writes stays below its folder; it needs no rights.
FRAME = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/hotswap.conf;
}}
"""


def adapted(text: str, changes: dict[str, str]) -> str:
    """Put values of a test into a shipped file."""
    for old, new in changes.items():
        text = text.replace(old, new)
    return text


@contextlib.contextmanager
def running_nginx(
    folder: Path,
    *,
    upstream_port: int,
    secret: str,
    server: tuple[Path, Path],
    device_ca: Path,
    underscores: str = "off",
    name: str = "localhost",
) -> Iterator[int]:
    """Run it on a free port of the loopback; give the port.

    Args:
        name: of the server, as clients call it.
    """
    program = find_nginx()
    assert program, "no nginx: run `make proxy`"
    port = free_port()
    own = folder / "own"
    own.mkdir()
    for source, name_here in (
        (server[0], "server.crt"),
        (server[1], "server.key"),
        (device_ca, "device-ca.crt"),
    ):
        shutil.copy(source, own / name_here)
    (own / "secret.conf").write_text(f'set $hotswap_secret "{secret}";\n')
    changes = {
        "/etc/hotswap/proxy": str(own),
        "/var/www/acme": str(folder / "acme"),
        "${HOTSWAP_UPSTREAM}": f"127.0.0.1:{upstream_port}",
        "${HOTSWAP_SERVER_NAME}": name,
        "listen 80;": f"listen 127.0.0.1:{free_port()};",
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "underscores_in_headers  off;": f"underscores_in_headers {underscores};",
    }
    for source_name, target in (
        ("hotswap.conf.template", folder / "hotswap.conf"),
        ("client-certificates.conf", own / "client-certificates.conf"),
    ):
        target.write_text(adapted((SHIPPED / source_name).read_text(), changes))
    (folder / "nginx.conf").write_text(FRAME.format(folder=folder))
    output = folder / "output.txt"
    with output.open("wb") as log:
        process = subprocess.Popen(
            [program, "-p", str(folder), "-c", str(folder / "nginx.conf")],
            env={"PATH": os.environ.get("PATH", "")},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(
            lambda: listens(port) or process.poll() is not None, what="nginx listens"
        )
        assert process.poll() is None, output.read_text(errors="replace")
        yield port
    finally:
        process.terminate()
        process.wait(180)


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
