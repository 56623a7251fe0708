"""A scripted server that speaks the device protocol over real HTTP.

It is the fake at the edge: it signs with real RSA keys, records what devices say and
misbehaves on demand.
"""

import base64
import hashlib
import itertools
import json
import re
import ssl
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.waiting import wait_until

API_KEY = "key-of-the-device"
MODEL = "sensor-v1"


class Signer:
    """One RSA key pair and what can be signed with it."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = self._key.public_key()
        der = public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.key_id = hashlib.sha256(der).hexdigest()[:16]
        self.pem = public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def sign(self, content: bytes) -> str:
        signature = self._key.sign(content, padding.PKCS1v15(), hashes.SHA256())
        return base64.b64encode(signature).decode()


@dataclass
class Seen:
    """One request as it came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any] | None
    at: float


@dataclass
class Faults:
    """What the server does wrong.

    Attributes:
        cut_download_at: the answer ends at this byte of the image, once.
        flip_downloads: so many downloads get one byte flipped.
        flip_at: which byte is flipped.
        close_on: reports with this status get 409 and the order is withdrawn.
        answer_enrolments: the statuses of the next enrolments, used up in order; 201
            when there are none left.
        lose_key_answers: so many new keys are made and their answers lost.
        lose_answers_to: for each entry one report with that status is recorded, then
            its connection is closed without an answer.
        refuse_with: answers by path fragment: a list of statuses, used up in order.
        refuse_then: what else is refused from the first refusal of a fragment on.
        busy_for: for each entry one report with that status gets 503.
        retry_after: the value of `Retry-After` of these answers.
        redirects_left: so many downloads are redirected, None for all.
        raw_answers: whole answers as they go over the wire, by the end of the path,
            used up in order; what follows them is answered as ever.
        instead_of_images: what something on the way answers to the next downloads:
            headers and content, used up in order. Without a length it says none.
    """

    cut_download_at: int | None = None
    flip_downloads: int = 0
    flip_at: int = 100
    close_on: str | None = None
    lose_answers_to: list[str] = field(default_factory=list)
    answer_enrolments: list[int] = field(default_factory=list)
    lose_key_answers: int = 0
    busy_for: list[str] = field(default_factory=list)
    refuse_with: dict[str, list[int]] = field(default_factory=dict)
    refuse_then: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    retry_after: str | None = None
    ignore_ranges: bool = False
    raw_answers: dict[str, list[bytes]] = field(default_factory=dict)
    redirect_downloads_to: str | None = None
    redirect_status: int = 302
    redirects_left: int | None = None
    instead_of_images: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    block_bytes: int = 4096
    block_delay_seconds: float = 0.0


class ProtocolServer:
    """Serves any number of devices; orders are given per device."""

    def __init__(
        self, signer: Signer | None = None, *, tls: ssl.SSLContext | None = None
    ) -> None:
        self.signer = signer or Signer()
        self.faults = Faults()
        self.images: dict[str, bytes] = {}
        self.orders: dict[str, dict[str, Any]] = {}
        self.reports: list[dict[str, Any]] = []
        self.heartbeats: list[dict[str, Any]] = []
        self.requests: list[Seen] = []
        self.heartbeat_seconds = 0.2
        self.poll_seconds = 0.2
        self.expires_in = 900
        self.key_ends_in_seconds: float | None = None
        self.new_key_ends_in_seconds = 90 * 86400.0
        self.enrolments: list[dict[str, Any]] = []
        self._keys: dict[str, list[str]] = {}
        self._secrets: dict[str, str] = {}
        self._used: set[str] = set()
        self._token = uuid.uuid4().hex
        self._sequence = 0
        self._lock = threading.RLock()
        handler = type("BoundHandler", (_Handler,), {"protocol": self})
        self._http = _QuietServer(("127.0.0.1", 0), handler)
        self._http.tls = tls
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(5)

    # Orders

    def next_sequence(self) -> int:
        with self._lock:
            self._sequence += 1
            return self._sequence

    def order(
        self,
        device_id: str,
        image: bytes,
        version: str,
        *,
        action: str = "install",
        reboot_required: bool = True,
        model: str = MODEL,
        sequence: int | None = None,
        security_version: int = 1,
        signer: Signer | None = None,
        image_signer: Signer | None = None,
        manifest_changes: dict[str, Any] | None = None,
        order_changes: dict[str, Any] | None = None,
        firmware_changes: dict[str, Any] | None = None,
    ) -> str:
        """Give an order to a device and return its update id."""
        signer = signer or self.signer
        image_signer = image_signer or self.signer
        sha256 = hashlib.sha256(image).hexdigest()
        manifest = {
            "type": "firmware",
            "model": model,
            "version": version,
            "sequence": self.next_sequence() if sequence is None else sequence,
            "securityVersion": security_version,
            "sha256": sha256,
            "size": len(image),
            "keyId": signer.key_id,
            "issuedAt": "2025-01-01T00:00:00Z",
            **(manifest_changes or {}),
        }
        raw = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
        update_id = str(uuid.uuid4())
        order = {
            "updateId": update_id,
            "deploymentId": str(uuid.uuid4()),
            "action": action,
            "firmware": {
                "id": str(uuid.uuid4()),
                "version": version,
                "model": model,
                "size": len(image),
                "checksum": sha256,
                "signature": image_signer.sign(image),
                "signatureAlgorithm": "RSA-PKCS1v15-SHA256",
                "keyId": image_signer.key_id,
                "downloadUrl": f"/api/v1/firmware/{sha256}/download",
                **(firmware_changes or {}),
            },
            "manifest": base64.b64encode(raw).decode(),
            "manifestSignature": signer.sign(raw),
            "rebootRequired": reboot_required,
            "deadline": "2035-01-01T00:00:00Z",
            "confirmationSeconds": 1,
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            **(order_changes or {}),
        }
        with self._lock:
            self.images[sha256] = image
            self.orders[device_id] = order
        return update_id

    def order_slot_return(
        self,
        device_id: str,
        digest: str,
        version: str,
        *,
        sequence: int | None = None,
        signer: Signer | None = None,
        leave_changes: dict[str, Any] | None = None,
        order_changes: dict[str, Any] | None = None,
    ) -> str:
        """Order a device back to its other slot and return the update id."""
        signer = signer or self.signer
        leave = {
            "type": "slot-return",
            "deviceId": device_id,
            "model": MODEL,
            "version": version,
            "sequence": self.next_sequence() if sequence is None else sequence,
            "sha256": digest,
            "keyId": signer.key_id,
            "issuedAt": "2025-01-01T00:00:00Z",
            **(leave_changes or {}),
        }
        raw = json.dumps(leave, sort_keys=True, separators=(",", ":")).encode()
        update_id = str(uuid.uuid4())
        order = {
            "updateId": update_id,
            "deploymentId": str(uuid.uuid4()),
            "action": "rollback",
            "source": "slot",
            "firmware": {"version": version, "model": MODEL, "checksum": digest},
            "manifest": base64.b64encode(raw).decode(),
            "manifestSignature": signer.sign(raw),
            "rebootRequired": True,
            "deadline": "2035-01-01T00:00:00Z",
            "confirmationSeconds": 1,
            "traceparent": "",
            **(order_changes or {}),
        }
        with self._lock:
            self.orders[device_id] = order
        return update_id

    # What was seen

    def statuses(self, update_id: str) -> list[str]:
        """Give the statuses of an update in the order of arrival.

        A long download tells its progress again and again: that is one.
        """
        statuses = [each["status"] for each in self.reports_of(update_id)]
        return [
            status
            for before, status in itertools.pairwise(["", *statuses])
            if (before, status) != ("downloading", "downloading")
        ]

    def reports_of(self, update_id: str) -> list[dict[str, Any]]:
        with self._lock:
            return [each for each in self.reports if each["updateId"] == update_id]

    def last(self, update_id: str, *statuses: str) -> dict[str, Any] | None:
        """Give the latest report if it has one of these statuses."""
        reports = self.reports_of(update_id)
        return reports[-1] if reports and reports[-1]["status"] in statuses else None

    def wait_for(self, update_id: str, *statuses: str) -> dict[str, Any]:
        """Wait until the latest report has one of these statuses and give it."""
        report = wait_until(
            lambda: self.last(update_id, *statuses), what=f"a report {statuses}"
        )
        assert report is not None
        return report

    def heartbeats_of(self, device_id: str) -> list[dict[str, Any]]:
        with self._lock:
            return [each for each in self.heartbeats if each["deviceId"] == device_id]

    def wait_for_heartbeat(
        self,
        is_it: Callable[[dict[str, Any]], object],
        *,
        device_id: str = "device-1",
    ) -> dict[str, Any]:
        """Wait for a heartbeat of a device that fits and give the first one."""
        found = wait_until(
            lambda: [each for each in self.heartbeats_of(device_id) if is_it(each)],
            what="a certain heartbeat",
        )
        return found[0]

    def downloads(self) -> list[Seen]:
        with self._lock:
            return [each for each in self.requests if each.path.endswith("/download")]

    # Used by the handler

    def note(self, seen: Seen) -> None:
        with self._lock:
            self.requests.append(seen)

    def take_refusal(self, path: str) -> int | None:
        faults = self.faults
        with self._lock:
            for fragment, statuses in faults.refuse_with.items():
                if fragment in path and statuses:
                    status = statuses.pop(0)
                    faults.refuse_with |= faults.refuse_then.pop(fragment, {})
                    return status
        return None

    def take_raw_answer(self, path: str) -> bytes | None:
        with self._lock:
            for end, answers in self.faults.raw_answers.items():
                if path.endswith(end) and answers:
                    return answers.pop(0)
        return None

    def heartbeat(self, device_id: str, body: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self.heartbeats.append({"deviceId": device_id, **body})
            return {
                "updateAvailable": device_id in self.orders,
                "nextHeartbeatSeconds": self.heartbeat_seconds,
            }

    def report(self, device_id: str, update_id: str, body: dict[str, Any]) -> int:
        """Record a report and give the status of the answer, 0 for none at all."""
        with self._lock:
            status = body["status"]
            if status in self.faults.busy_for:
                self.faults.busy_for.remove(status)
                return 503
            known = [each["sequence"] for each in self.reports_of(update_id)]
            is_repeated = body["sequence"] in known
            open_order = self.orders.get(device_id)
            is_open = open_order is not None and open_order["updateId"] == update_id
            if self.faults.close_on == status:
                self.orders.pop(device_id, None)
                is_open = False
            if not is_open and not is_repeated:
                return 409
            self.reports.append({"deviceId": device_id, "updateId": update_id, **body})
            if status in {"confirming", "failed"}:
                # Kept open for a repeated claim would be right as well; the agent
                # must live with either.
                self.orders.pop(device_id, None)
            if status in self.faults.lose_answers_to:
                self.faults.lose_answers_to.remove(status)
                return 0
            return 200

    def keys_of(self, device_id: str) -> list[str]:
        """Give the keys that open a device, the newest last."""
        with self._lock:
            return self._keys.setdefault(device_id, [API_KEY])

    def log_in(self, body: dict[str, Any]) -> dict[str, Any] | None:
        with self._lock:
            keys = self.keys_of(body["deviceId"])
            if body["apiKey"] not in keys:
                return None
            self._used.add(body["deviceId"])
            # Harder than the real server, which lets the former keys overlap: the first
            # use of a key ends those before it.
            del keys[: keys.index(body["apiKey"])]
            answer: dict[str, Any] = {
                "access": self.token(),
                "expiresIn": self.expires_in,
            }
            ends_in_seconds = (
                self.key_ends_in_seconds
                if body["apiKey"] == API_KEY
                else self.new_key_ends_in_seconds
            )
            if ends_in_seconds is not None:
                answer["keyExpiresAt"] = _in_seconds(ends_in_seconds)
            return answer

    def make_key(self, device_id: str) -> dict[str, Any]:
        with self._lock:
            key = f"key-{uuid.uuid4().hex}"
            self.keys_of(device_id).append(key)
            expires_at = _in_seconds(self.new_key_ends_in_seconds)
            return {"apiKey": key, "expiresAt": expires_at}

    def enrol(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self._lock:
            self.enrolments.append(body)
            device_id, secret = body["deviceId"], body["secret"]
            scripted = self.faults.answer_enrolments
            status = scripted.pop(0) if scripted else 201
            if self._secrets.setdefault(device_id, secret) != secret:
                return 409, {"code": "enrolment_conflict"}
            if status == 202:
                return 202, {"status": "Pending"}
            if status != 201:
                return status, {"code": "enrolment_rejected"}
            if device_id in self._used:
                return 409, {"code": "already_enrolled"}
            # A repeated call voids the key of the answer that was lost.
            key = f"key-{uuid.uuid4().hex}"
            self._keys[device_id] = [key]
            return 201, {
                "status": "Completed",
                "deviceId": device_id,
                "apiKey": key,
                "keyExpiresAt": _in_seconds(90 * 86400),
            }

    def is_token(self, header: str | None) -> bool:
        return header == f"Bearer {self._token}"

    def token(self) -> str:
        return self._token

    def change_token(self) -> None:
        """Make every token given so far worthless."""
        self._token = uuid.uuid4().hex


def _in_seconds(seconds: float) -> str:
    moment = datetime.now(UTC) + timedelta(seconds=seconds)
    return moment.isoformat().replace("+00:00", "Z")


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    tls: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        # In the thread of this connection: a handshake must not hold up the others.
        if self.tls is not None:
            with self.tls.wrap_socket(request, server_side=True) as secured:
                super().finish_request(secured, client_address)
        else:
            super().finish_request(request, client_address)

    def handle_error(self, request: object, client_address: object) -> None:
        # Devices are killed in the middle of requests here; that is no news.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol: ProtocolServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments: object) -> None:
        pass

    def do_POST(self) -> None:
        length_bytes = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length_bytes)
        if len(raw) < length_bytes:
            self.close_connection = True
            return
        self._serve(json.loads(raw))

    def do_GET(self) -> None:
        self._serve(None)

    def _serve(self, body: dict[str, Any] | None) -> None:
        server = self.protocol
        server.note(
            Seen(
                self.command or "",
                self.path,
                dict(self.headers.items()),
                body,
                time.monotonic(),
            )
        )
        raw_answer = server.take_raw_answer(self.path)
        if raw_answer is not None:
            self.wfile.write(raw_answer)
            self.close_connection = True
            return
        refusal = server.take_refusal(self.path)
        if refusal is not None:
            headers = {}
            if server.faults.retry_after is not None:
                headers["Retry-After"] = server.faults.retry_after
            self._answer(refusal, {"code": "scripted"}, headers)
            return
        if self.path == "/api/v1/auth/device-token":
            token = server.log_in(body or {})
            self._answer(200 if token else 401, token or {"code": "bad_credentials"})
            return
        if self.path == "/api/v1/enrolments":
            status, answer = server.enrol(body or {})
            headers = {"Retry-After": "1"} if status == 202 else {}
            self._answer(status, answer, headers)
            return
        if not server.is_token(self.headers.get("Authorization")):
            self._answer(401, {"code": "no_token"})
            return
        self._serve_device(body or {})

    def _serve_device(self, body: dict[str, Any]) -> None:
        server = self.protocol
        poll = {"Poll-Interval": str(server.poll_seconds)}
        if found := re.fullmatch(r"/api/v1/devices/([^/]+)/health", self.path):
            self._answer(200, server.heartbeat(found[1], body))
        elif found := re.fullmatch(r"/api/v1/devices/([^/]+)/update", self.path):
            order = server.orders.get(found[1])
            self._answer(200 if order else 204, order, poll)
        elif found := re.fullmatch(
            r"/api/v1/devices/([^/]+)/updates/([^/]+)/reports", self.path
        ):
            status = server.report(found[1], found[2], body)
            if status == 0:
                self.close_connection = True
                return
            self._answer(status, {"code": "closed"} if status == 409 else {})
        elif found := re.fullmatch(r"/api/v1/devices/([^/]+)/api-key", self.path):
            if body.get("apiKey") not in server.keys_of(found[1]):
                self._answer(401, {"code": "login_failed"})
                return
            key = server.make_key(found[1])
            if server.faults.lose_key_answers:
                server.faults.lose_key_answers -= 1
                self.close_connection = True
                return
            self._answer(201, key)
        elif found := re.fullmatch(r"/api/v1/firmware/([0-9a-f]+)/download", self.path):
            self._download(server.images[found[1]])
        else:
            self._answer(404, {"code": "not_found"})

    def _download(self, image: bytes) -> None:
        faults = self.protocol.faults
        if faults.instead_of_images:
            headers, other = faults.instead_of_images.pop(0)
            self.send_response(200)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(other)
            self.close_connection = True
            return
        if faults.redirect_downloads_to is not None and faults.redirects_left != 0:
            if faults.redirects_left is not None:
                faults.redirects_left -= 1
            location = faults.redirect_downloads_to + self.path
            self._answer(faults.redirect_status, None, {"Location": location})
            return
        etag = f'"{hashlib.sha256(image).hexdigest()}"'
        first, last, status = 0, len(image) - 1, 200
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if_range = self.headers.get("If-Range", etag)
        if span and if_range == etag and not faults.ignore_ranges:
            first = int(span[1])
            last = min(last, int(span[2] or last))
            status = 206
            if first > last:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(image)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        self.send_response(status)
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("ETag", etag)
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(image)}")
        self.end_headers()
        content = bytearray(image[first : last + 1])
        if faults.flip_downloads and first <= faults.flip_at <= last:
            faults.flip_downloads -= 1
            content[faults.flip_at - first] ^= 1
        self._send_slowly(first, bytes(content))

    def _send_slowly(self, first: int, content: bytes) -> None:
        faults = self.protocol.faults
        cut = faults.cut_download_at
        if cut is not None and first <= cut < first + len(content):
            faults.cut_download_at = None
            content = content[: cut - first]
            self.close_connection = True
        try:
            for start in range(0, len(content), faults.block_bytes):
                self.wfile.write(content[start : start + faults.block_bytes])
                if faults.block_delay_seconds:
                    time.sleep(faults.block_delay_seconds)
        except OSError:
            self.close_connection = True

    def _answer(
        self,
        status: int,
        body: dict[str, Any] | None,
        headers: dict[str, str] | None = None,
    ) -> None:
        content = b"" if body is None or status == 204 else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def serving(
    signer: Signer | None = None, *, tls: ssl.SSLContext | None = None
) -> Iterator[ProtocolServer]:
    """Run a server for the length of a block."""
    server = ProtocolServer(signer, tls=tls)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def write_keys(folder: Path, *signers: Signer) -> list[Path]:
    """Write public keys for an agent to pin."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for signer in signers:
        path = folder / f"{signer.key_id}.pem"
        path.write_bytes(signer.pem)
        paths.append(path)
    return paths
