"""What stands at the other end: a real HTTP endpoint that remembers what it got."""

import base64
import hashlib
import hmac
import json
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from deployments.models import Webhook
from deployments.notifications import outbox
from deployments.services.receivers import create_webhook
from tests.deployments.world import World

# Runs what sends by gateways in a place where the library is not.
WITHOUT_APPRISE = """
import runpy, sys
sys.modules["apprise"] = None
runpy.run_module("deployments.notifications.gateway_process", run_name="__main__")
"""


@dataclass
class Receiver:
    """A real HTTP endpoint that answers as it is told, and remembers."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    hold: threading.Event | None = None
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    @property
    def types(self) -> list[str]:
        return [json.loads(body)["type"] for _, body in self.got]


def serving(
    receiver: Receiver, *, tls: ssl.SSLContext | None = None
) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): text for name, text in self.headers.items()}
            receiver.paths.append(self.path)
            receiver.got.append((headers, body))
            if receiver.hold is not None:
                receiver.hold.wait(180)
            status = receiver.answers.pop(0) if receiver.answers else 204
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", f"{receiver.url}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def hook(world: World, url: str, *events: str) -> tuple[Webhook, str]:
    return create_webhook(actor=world.admin, url=f"{url}/hook", events=events)


def launch(world: World) -> Any:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(1, old)
    return world.launch(new)


def send(world: World) -> None:
    outbox.send_due(clock=lambda: world.now)


def verified(headers: dict[str, str], body: bytes, secret: str) -> bool:
    """Verify as the Standard Webhooks description tells receivers to."""
    kind, encoded = secret.split("_", 1)
    assert kind == "whsec"
    signed = b".".join(
        (headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body)
    )
    digest = hmac.digest(base64.b64decode(encoded), signed, hashlib.sha256)
    expected = "v1," + base64.b64encode(digest).decode()
    return expected in headers["webhook-signature"].split(" ")
