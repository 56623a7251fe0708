"""The agent's TLS against real servers: whom it trusts and what it shows."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509

from devices.agent.tls import TlsContexts, TlsFiles, TlsFilesError
from devices.agent.transport import HttpTransport, UnavailableError
from tests.devices.agent.certificates import Authority
from tests.devices.agent.device_process import DeviceProcess
from tests.devices.agent.protocol_server import (
    API_KEY,
    ProtocolServer,
    Signer,
    serving,
    write_keys,
)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@contextmanager
def answering(context: ssl.SSLContext, signer: Signer) -> Iterator[ProtocolServer]:
    with serving(signer, tls=context) as server:
        yield server


def poll(server: ProtocolServer, files: TlsFiles) -> None:
    HttpTransport(server.url, "device-1", API_KEY, tls=files).poll()


def test_server_of_the_chosen_authority_is_trusted(
    authority: Authority, signer: Signer
) -> None:
    context = authority.server_context(*authority.issue("server"))
    with answering(context, signer) as server:
        poll(server, TlsFiles(authority.path))

        assert server.requests[-1].path == "/api/v1/devices/device-1/update"


def test_certificate_for_another_host_is_refused(
    authority: Authority, signer: Signer
) -> None:
    files = authority.issue("server", host=x509.DNSName("updates.example.com"))
    with answering(authority.server_context(*files), signer) as server:
        with pytest.raises(UnavailableError, match=r"(?i)certificate.*127\.0\.0\.1"):
            poll(server, TlsFiles(authority.path))

        assert server.requests == []


def test_foreign_authority_is_refused(
    authority: Authority, signer: Signer, tmp_path: Path
) -> None:
    foreign = Authority(tmp_path / "foreign", "foreign")
    context = foreign.server_context(*foreign.issue("server"))
    with answering(context, signer) as server:
        for files in (TlsFiles(authority.path), TlsFiles()):
            with pytest.raises(UnavailableError, match="certificate verify failed"):
                poll(server, files)

        assert server.requests == []


def test_expired_certificate_is_refused(authority: Authority, signer: Signer) -> None:
    context = authority.server_context(*authority.issue("server", expired=True))
    with answering(context, signer) as server:
        with pytest.raises(UnavailableError, match="expired"):
            poll(server, TlsFiles(authority.path))

        assert server.requests == []


def test_tls_1_2_is_refused_unless_it_is_chosen(
    authority: Authority, signer: Signer
) -> None:
    context = authority.server_context(*authority.issue("server"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with answering(context, signer) as server:
        with pytest.raises(UnavailableError, match=r"(?i)protocol|version"):
            poll(server, TlsFiles(authority.path))
        assert server.requests == []

        poll(server, TlsFiles(authority.path, minimum="1.2"))

    assert server.requests[-1].path == "/api/v1/devices/device-1/update"


@pytest.mark.filterwarnings("ignore:.*TLSv1_1.*:DeprecationWarning")
def test_tls_1_1_is_refused_even_then(authority: Authority, signer: Signer) -> None:
    context = authority.server_context(*authority.issue("server"))
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    lenient = ssl.create_default_context(cafile=str(authority.path))
    lenient.set_ciphers("ALL:@SECLEVEL=0")
    lenient.minimum_version = ssl.TLSVersion.TLSv1_1
    with answering(context, signer) as server:
        with pytest.raises(UnavailableError, match=r"(?i)protocol|version"):
            poll(server, TlsFiles(authority.path, minimum="1.2"))

        # The server does speak it, to whoever takes it.
        assert handshake(server, lenient) == "TLSv1.1"


def test_tls_1_3_is_spoken(authority: Authority, signer: Signer) -> None:
    context = authority.server_context(*authority.issue("server"))
    own = TlsContexts(TlsFiles(authority.path)).current()
    with answering(context, signer) as server:
        assert handshake(server, own) == "TLSv1.3"


def handshake(server: ProtocolServer, context: ssl.SSLContext) -> str | None:
    """Connect and give the version that both ends agreed on."""
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    with (
        socket.create_connection(address, timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
    ):
        return secured.version()


def test_server_that_demands_a_client_certificate_gets_it(
    authority: Authority, signer: Signer
) -> None:
    context = authority.server_context(*authority.issue("server"), demands_client=True)
    certificate, key = authority.issue("device-1")
    with answering(context, signer) as server:
        with pytest.raises(UnavailableError):
            poll(server, TlsFiles(authority.path))
        assert server.requests == []

        poll(server, TlsFiles(authority.path, certificate, key))

        assert server.requests


def test_client_certificate_is_for_the_own_server_alone(
    authority: Authority, signer: Signer
) -> None:
    certificate, key = authority.issue("device-1")
    own = authority.server_context(*authority.issue("server"), demands_client=True)
    other = authority.server_context(*authority.issue("other"), demands_client=True)
    with answering(own, signer) as server, answering(other, signer) as elsewhere:
        transport = HttpTransport(
            server.url,
            "device-1",
            API_KEY,
            tls=TlsFiles(authority.path, certificate, key),
        )

        with (
            pytest.raises(UnavailableError),
            transport.download(f"{elsewhere.url}/x", first=0, last=1, etag=""),
        ):
            pass

        assert elsewhere.requests == []


def test_certificate_and_key_may_be_one_file(
    authority: Authority, signer: Signer, tmp_path: Path
) -> None:
    context = authority.server_context(*authority.issue("server"), demands_client=True)
    certificate, key = authority.issue("device-1")
    both = tmp_path / "both.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    with answering(context, signer) as server:
        poll(server, TlsFiles(authority.path, both))

        assert server.requests


def test_renewed_client_certificate_is_used_from_the_next_connection_on(
    authority: Authority, signer: Signer
) -> None:
    context = authority.server_context(*authority.issue("server"), demands_client=True)
    certificate, key = authority.issue("device-1", expired=True)
    transport_files = TlsFiles(authority.path, certificate, key)
    with answering(context, signer) as server:
        transport = HttpTransport(server.url, "device-1", API_KEY, tls=transport_files)
        with pytest.raises(UnavailableError):
            transport.poll()

        authority.issue("device-1")
        transport.poll()

        assert server.requests


def test_half_of_a_renewal_leaves_the_former_files_in_use(
    authority: Authority, signer: Signer
) -> None:
    context = authority.server_context(*authority.issue("server"), demands_client=True)
    certificate, key = authority.issue("device-1")
    with answering(context, signer) as server:
        files = TlsFiles(authority.path, certificate, key)
        transport = HttpTransport(server.url, "device-1", API_KEY, tls=files)
        other_key = authority.issue("other")[1]
        other_key.replace(key)

        transport.poll()

        assert server.requests


def test_key_that_needs_a_passphrase_is_refused_without_asking(
    authority: Authority,
) -> None:
    certificate, key = authority.issue("device-1", passphrase=b"secret")

    with pytest.raises(TlsFilesError, match=r"client_key.*passphrase"):
        TlsContexts(TlsFiles(authority.path, certificate, key))


def test_files_that_cannot_be_used_end_the_start_with_their_key(
    device: DeviceProcess, tmp_path: Path
) -> None:
    (tmp_path / "empty.pem").write_text("")
    device.settings["certificate_authorities"] = str(tmp_path / "empty.pem")
    device.provision()

    code = device.start().wait(180)

    assert code == 2
    assert "certificate_authorities" in device.log()


def test_agent_updates_over_tls_with_its_own_certificate(
    authority: Authority, signer: Signer, tmp_path: Path
) -> None:
    context = authority.server_context(*authority.issue("server"), demands_client=True)
    certificate, key = authority.issue("device-1")
    with answering(context, signer) as server:
        device = DeviceProcess(
            tmp_path / "device", server, write_keys(tmp_path / "keys", signer)
        )
        device.settings = {
            "certificate_authorities": str(authority.path),
            "client_certificate": str(certificate),
            "client_key": str(key),
        }
        device.provision()

        code = device.start("--once").wait(180)

    assert code == 0
