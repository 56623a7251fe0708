"""A real nginx with the shipped configuration."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
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
    with Nginx(
        folder,
        upstream_ports=[upstream_port],
        secret=secret,
        server=server,
        device_ca=device_ca,
        underscores=underscores,
        name=name,
    ) as nginx:
        yield nginx.port


class Nginx:
    """An nginx with the shipped configuration, in front of one web server or several.

    Args:
        folder: where everything that it reads and writes lies.
        server: files of its certificate and key.
        name: of the server, as clients call it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        upstream_ports: Sequence[int],
        secret: str,
        server: tuple[Path, Path],
        device_ca: Path | None = None,
        underscores: str = "off",
        name: str = "localhost",
    ) -> None:
        program = find_nginx()
        assert program, "no nginx: run `make proxy`"
        self._command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf")]
        self._folder = folder
        self._ports = (free_port(), free_port())
        self.port = self._ports[0]
        self._underscores = underscores
        self._name = name
        self._process: subprocess.Popen[bytes] | None = None
        own = folder / "own"
        own.mkdir()
        shutil.copy(server[0], own / "server.crt")
        shutil.copy(server[1], own / "server.key")
        (own / "secret.conf").write_text(f'set $hotswap_secret "{secret}";\n')
        if device_ca is not None:
            shutil.copy(device_ca, own / "device-ca.crt")
            self._write("client-certificates.conf", own, upstream_ports)
        self._write("hotswap.conf.template", folder / "hotswap.conf", upstream_ports)
        (folder / "nginx.conf").write_text(FRAME.format(folder=folder))

    def __enter__(self) -> "Nginx":
        output = self._folder / "output.txt"
        with output.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                env={"PATH": os.environ.get("PATH", "")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        process = self._process
        wait_until(
            lambda: listens(self.port) or process.poll() is not None,
            what="nginx listens",
        )
        assert process.poll() is None, output.read_text(errors="replace")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(180)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def name_upstreams(self, ports: Sequence[int]) -> None:
        """Have other web servers behind it from now on, without a stop."""
        self._write("hotswap.conf.template", self._folder / "hotswap.conf", ports)
        os.kill(self.pid, signal.SIGHUP)

    def _write(self, name: str, target: Path, upstream_ports: Sequence[int]) -> None:
        servers = "; server ".join(f"127.0.0.1:{port}" for port in upstream_ports)
        changes = {
            "/etc/hotswap/proxy": str(self._folder / "own"),
            "/var/www/acme": str(self._folder / "acme"),
            "${HOTSWAP_UPSTREAM}": servers,
            "${HOTSWAP_SERVER_NAME}": self._name,
            "listen 80;": f"listen 127.0.0.1:{self._ports[1]};",
            "listen 443 ssl": f"listen 127.0.0.1:{self.port} ssl",
            "underscores_in_headers  off;": (
                f"underscores_in_headers {self._underscores};"
            ),
        }
        text = adapted((SHIPPED / name).read_text(), changes)
        (target / name if target.is_dir() else target).write_text(text)


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
