"""Certificates made for a test: an authority, and what it signs."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

KEYS = serialization.PrivateFormat.PKCS8


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


@dataclass(frozen=True, slots=True)
class Credential:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def key_pem(self) -> str:
        return self.key.private_bytes(
            serialization.Encoding.PEM, KEYS, serialization.NoEncryption()
        ).decode()

    @property
    def fingerprint(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Write both as files; return that of the certificate and that of the key."""
        files = folder / f"{name}.crt", folder / f"{name}.key"
        files[0].write_text(self.pem)
        files[1].write_text(self.key_pem)
        return files


class Authority:
    """Signs certificates, with itself at the root."""

    def __init__(self, name: str = "Test CA") -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        self.root = Credential(
            self._builder(name, key, now - timedelta(days=1), now + timedelta(days=30))
            .issuer_name(_name(name))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256()),
            key,
        )

    @staticmethod
    def _builder(
        name: str, key: ec.EllipticCurvePrivateKey, start: datetime, end: datetime
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
        )

    def issue(
        self,
        name: str,
        *,
        host: str = "localhost",
        starts_in: timedelta = timedelta(days=-1),
        ends_in: timedelta = timedelta(days=20),
    ) -> Credential:
        """Sign a certificate; for servers it names their host as well."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        names = x509.SubjectAlternativeName(
            [x509.DNSName(host), x509.IPAddress(ip_address("127.0.0.1"))]
        )
        return Credential(
            self._builder(name, key, now + starts_in, now + ends_in)
            .issuer_name(self.root.certificate.subject)
            .add_extension(names, critical=False)
            .sign(self.root.key, hashes.SHA256()),
            key,
        )
