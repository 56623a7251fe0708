"""What stands between a device and an image is told apart from the image itself."""

import socket
from collections.abc import Iterator

import pytest

from devices.agent.download import code_of
from devices.agent.protocol import ErrorCode
from devices.agent.transport import (
    HttpTransport,
    RefusedError,
    TransportError,
    UnavailableError,
    looks_like_page,
)
from tests.devices.agent.device_process import DeviceProcess, program, sha256
from tests.devices.agent.protocol_server import Signer, serving
from tests.devices.agent.test_process import order_and_wait

PAGE = b"<!DOCTYPE html><title>Welcome to the guest network</title>" + b"." * 300
HTML = {"Content-Type": "text/html; charset=utf-8"}


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of this machine at which nobody answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def assert_untouched(device: DeviceProcess) -> None:
    assert device.current_sha256() == sha256(device.factory)
    assert not any(each["status"] == "installing" for each in device.server.reports)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "path_unauthorized"),
        (403, "path_unauthorized"),
        (407, "path_unauthorized"),
        (404, "path_not_found"),
        (410, "path_not_found"),
    ],
)
def test_refusal_on_the_way_is_told_as_such(
    device: DeviceProcess, status: int, code: str
) -> None:
    device.server.faults.refuse_with["/download"] = [status] * 50
    device.start()

    report = order_and_wait(device, program("2.0.0"), "2.0.0")

    assert report["errorCode"] == code
    assert str(status) in report["message"]
    assert_untouched(device)


def test_images_that_fail_while_the_server_answers_are_given_up_in_time(
    device: DeviceProcess,
) -> None:
    device.limits["path_patience_seconds"] = 0.5
    device.provision()
    device.server.faults.refuse_with["/download"] = [503] * 10_000
    device.start()

    report = order_and_wait(device, program("2.0.0"), "2.0.0")

    assert report["errorCode"] == "path_server_error"
    assert_untouched(device)


def test_server_that_fails_as_a_whole_is_waited_for(device: DeviceProcess) -> None:
    device.limits["path_patience_seconds"] = 0.2
    device.provision()
    image = program("2.0.0")
    faults = device.server.faults
    faults.refuse_with["/download"] = [503] * 20
    # From its first try on nothing else is answered either.
    faults.refuse_then["/download"] = {"/health": [503] * 10_000}
    update_id = device.server.order(device.device_id, image, "2.0.0")
    device.start()

    report = device.server.wait_for(update_id, "confirming", "failed")

    assert report["status"] == "confirming"


@pytest.mark.parametrize("says_length", [True, False])
@pytest.mark.parametrize("headers", [HTML, {}])
def test_page_of_a_portal_is_told_as_such(
    device: DeviceProcess, headers: dict[str, str], says_length: bool
) -> None:
    length = {"Content-Length": str(len(PAGE))} if says_length else {}
    device.server.faults.instead_of_images = [({**headers, **length}, PAGE)] * 50
    device.start()

    report = order_and_wait(device, program("2.0.0"), "2.0.0")

    assert report["errorCode"] == "path_not_firmware"
    assert "web page" in report["message"]
    assert_untouched(device)


def test_page_as_long_as_the_image_is_told_as_such(device: DeviceProcess) -> None:
    image = program("2.0.0")
    page = PAGE.ljust(len(image), b".")
    headers = {**HTML, "Content-Length": str(len(page))}
    device.server.faults.instead_of_images = [(headers, page)] * 50
    device.start()

    report = order_and_wait(device, image, "2.0.0")

    assert report["errorCode"] == "path_not_firmware"
    assert_untouched(device)


def test_image_comes_once_the_portal_has_let_the_device_through(
    device: DeviceProcess,
) -> None:
    device.server.faults.instead_of_images = [(HTML, PAGE)] * 3
    device.start()

    report = order_and_wait(device, program("2.0.0"), "2.0.0")

    assert report["status"] == "confirming"


def test_image_that_is_a_web_page_is_an_image(device: DeviceProcess) -> None:
    image = PAGE.ljust(9000, b" ")
    device.start()

    report = order_and_wait(device, image, "2.0.0")

    # It cannot run, but it was fetched, verified and tried.
    assert report["errorCode"] == "self_test_failed"


def test_compressed_answer_is_told_as_such(device: DeviceProcess) -> None:
    headers = {"Content-Encoding": "gzip", "Content-Length": "5"}
    device.server.faults.instead_of_images = [(headers, b"12345")] * 50
    device.start()

    report = order_and_wait(device, program("2.0.0"), "2.0.0")

    assert report["errorCode"] == "path_not_firmware"
    assert "compressed (gzip)" in report["message"]
    assert "compressed (gzip)" in device.log()
    assert_untouched(device)


def test_address_of_another_host_gets_no_credentials_and_says_so(
    device: DeviceProcess, signer: Signer
) -> None:
    with serving(signer) as elsewhere:
        port = elsewhere.url.rpartition(":")[2]
        device.start()
        report = order_and_wait(
            device,
            program("2.0.0"),
            "2.0.0",
            firmware_changes={
                "downloadUrl": f"http://localhost:{port}/api/v1/firmware/x/download"
            },
        )

    assert report["errorCode"] == "path_foreign_host"
    assert "localhost" in report["message"]
    assert "got no credentials" in report["message"]
    assert device.log().count("names another host than the configured server") == 1
    assert elsewhere.requests
    assert all("Authorization" not in each.headers for each in elsewhere.requests)


@pytest.mark.parametrize("by_redirect", [True, False])
def test_other_host_that_is_not_there_is_given_up_in_time(
    device: DeviceProcess, closed_port: int, by_redirect: bool
) -> None:
    device.limits["path_patience_seconds"] = 0.5
    device.provision()
    elsewhere = f"http://localhost:{closed_port}"
    changes = {} if by_redirect else {"downloadUrl": f"{elsewhere}/x"}
    if by_redirect:
        device.server.faults.redirect_downloads_to = elsewhere
    device.start()

    report = order_and_wait(device, program("2.0.0"), "2.0.0", firmware_changes=changes)

    assert report["errorCode"] == "path_foreign_host"
    assert_untouched(device)


def test_redirect_to_the_plain_http_of_a_portal_is_told_as_another_host(
    device: DeviceProcess,
) -> None:
    device.server.faults.redirect_downloads_to = "http://portal.example"
    device.start()

    report = order_and_wait(device, program("2.0.0"), "2.0.0")

    assert report["errorCode"] == "path_foreign_host"
    assert "portal.example" in report["message"]


# Pure parts


@pytest.mark.parametrize(
    ("server", "url", "address"),
    [
        ("https://a.example", "/api/v1/x", "https://a.example/api/v1/x"),
        ("https://a.example/under/", "/api/v1/x", "https://a.example/under/api/v1/x"),
        ("https://a.example", "https://b.example/x", "https://b.example/x"),
        ("https://a.example", "//b.example/x", "https://b.example/x"),
    ],
)
def test_path_of_a_download_lies_below_the_server(
    server: str, url: str, address: str
) -> None:
    assert HttpTransport(server, "device-1", "key")._absolute(url) == address


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnavailableError("away"), ErrorCode.DOWNLOAD_FAILED),
        (UnavailableError("busy", status=429), ErrorCode.DOWNLOAD_FAILED),
        (UnavailableError("busy", status=503), ErrorCode.PATH_SERVER_ERROR),
        (UnavailableError("log in", status=511), ErrorCode.PATH_UNAUTHORIZED),
        (UnavailableError("away", foreign_host="b"), ErrorCode.PATH_FOREIGN_HOST),
        (
            UnavailableError("busy", status=502, foreign_host="b"),
            ErrorCode.PATH_SERVER_ERROR,
        ),
        (RefusedError(403, "", is_elsewhere=True), ErrorCode.PATH_UNAUTHORIZED),
        (RefusedError(403, "", foreign_host="b"), ErrorCode.PATH_FOREIGN_HOST),
        (RefusedError(404, "", foreign_host="b"), ErrorCode.PATH_NOT_FOUND),
        (RefusedError(302, ""), ErrorCode.PATH_FOREIGN_HOST),
        (RefusedError(416, ""), ErrorCode.DOWNLOAD_FAILED),
    ],
)
def test_each_failure_of_a_download_has_its_code(
    error: TransportError, code: ErrorCode
) -> None:
    assert code_of(error) is code


@pytest.mark.parametrize(
    ("content", "is_page"),
    [
        (b"<!DOCTYPE HTML>", True),
        (b"\xef\xbb\xbf\r\n <html lang=en>", True),
        (b"#!/usr/bin/env python3\n", False),
        (b"PK\x03\x04<html>", False),
        (b"", False),
    ],
)
def test_page_is_known_by_its_beginning(content: bytes, is_page: bool) -> None:
    assert looks_like_page(content) is is_page
