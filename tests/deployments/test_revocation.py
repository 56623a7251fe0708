"""A device that is revoked in the middle of a download, over real sockets."""

import contextlib
import secrets
import socket
import time

import httpx

from tests.deployments.live import LiveAdmin
from tests.live import LiveStack

SIZE = 32_000_000
PIECE = 64 * 1024
# What a client of this pace fetches in 1 s, and what may reach it after the revocation:
# far more than the 5 s of the promise, so that a busy machine fails nothing.
PACE = 1_300_000
MOST_AFTER = 20_000_000
SMALL_BUFFER = (socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)


def test_a_revoked_device_is_cut_off_in_the_middle_of_a_download(
    live_stack: LiveStack,
) -> None:
    admin = LiveAdmin(live_stack)
    model = f"cut-{secrets.token_hex(3)}"
    admin.post("/device-models", {"name": model})
    old = admin.upload(model, "1.0.0", b"old")
    new = admin.upload(model, "2.0.0", secrets.token_bytes(SIZE))
    (device,) = admin.register(model, 1, old)
    device.beat()
    admin.post(
        "/deployments",
        {
            "firmwareId": new["id"],
            "strategy": "Direct",
            "targetDevices": [device.name],
        },
    )
    device.wait_for_order()
    received = at_revocation = 0
    # What the client's own system takes in ahead of it is not what is being tried.
    narrow = httpx.HTTPTransport(socket_options=[SMALL_BUFFER])

    with (
        contextlib.suppress(httpx.TransportError),
        httpx.Client(
            base_url=device.client.base_url,
            headers=device.client.headers,
            transport=narrow,
            timeout=120,
        ) as client,
        client.stream("GET", f"/firmware/{new['id']}/download") as answer,
    ):
        assert answer.status_code == 200
        for piece in answer.iter_bytes(PIECE):
            received += len(piece)
            if not at_revocation and received > PACE:
                admin.post(f"/devices/{device.name}/revoke", {}, 200)
                at_revocation = received
            # A client that takes its time: the pace is what is being tried.
            time.sleep(len(piece) / PACE)

    assert at_revocation
    assert received - at_revocation < MOST_AFTER
    assert received < SIZE
    refused = device.client.get(f"/firmware/{new['id']}/download")
    assert refused.status_code == 401
