"""The server's certificate, signed by a certificate authority of its own, for the names by which a machine calls
itself.

Both are made once and kept: clients are given the authority's certificate, so the server's may be renewed under them.
Keys are ECDSA P-256; private keys and folder can be read by their owner only. A certificate from elsewhere needs
nothing of this.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from michelangelo import errors
from michelangelo.meta import timestamps

__all__ = ["HOSTS", "Certificate", "ensure"]

HOSTS: Final = ("localhost", "127.0.0.1", "::1")
_AUTHORITY_LIFETIME: Final = timedelta(days=3650)
_SERVER_LIFETIME: Final = timedelta(days=397)
_RENEW_BEFORE: Final = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files in PEM."""

    certificate: Path
    key: Path
    authority: Path
    """What clients trust."""


def ensure(
    folder: Path, *, hosts: tuple[str, ...] = HOSTS, clock: timestamps.Clock = timestamps.system_clock
) -> Certificate:
    """The certificate in `folder`, made or renewed where there is none for these hosts, or it expires within 30 days.

    Raises SettingsError when the folder cannot be written.
    """
    files = Certificate(folder / "server.crt", folder / "server.key", folder / "ca.crt")
    authority_key = folder / "ca.key"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        now = clock()
        if not _good_authority(files.authority, authority_key, now):
            _make_authority(files.authority, authority_key, now)
            files.certificate.unlink(missing_ok=True)
        if not _good_server(files, hosts, now):
            _make_server(files, authority_key, hosts, now)
    except OSError as e:
        raise errors.SettingsError(f"cannot make the server's certificate in {folder}: {e.strerror}") from e
    return files


def _good_authority(certificate: Path, key: Path, now: datetime) -> bool:
    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
        _load_key(key)
    except (FileNotFoundError, ValueError, TypeError):
        return False
    return found.not_valid_after_utc - now > _SERVER_LIFETIME


def _good_server(files: Certificate, hosts: tuple[str, ...], now: datetime) -> bool:
    try:
        found = x509.load_pem_x509_certificate(files.certificate.read_bytes())
        authority = x509.load_pem_x509_certificate(files.authority.read_bytes())
        key = _load_key(files.key)
        found.verify_directly_issued_by(authority)
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (FileNotFoundError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    if key.public_key() != found.public_key() or found.not_valid_after_utc - now < _RENEW_BEFORE:
        return False
    return set(_general_names(hosts)) <= set(names)


def _make_authority(certificate: Path, key: Path, now: datetime) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    # The serial in the name keeps authorities of two servers apart in one trust store.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"michelangelo-ca-{secrets.token_hex(4)}")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(private.public_key())
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(private, hashes.SHA256())
    )
    _write(key, _key_pem(private))
    _write(certificate, signed.public_bytes(serialization.Encoding.PEM))


def _make_server(files: Certificate, authority_key: Path, hosts: tuple[str, ...], now: datetime) -> None:
    authority = x509.load_pem_x509_certificate(files.authority.read_bytes())
    signer = _load_key(authority_key)
    private = ec.generate_private_key(ec.SECP256R1())
    signed = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "michelangelo")]))
        .issuer_name(authority.subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _SERVER_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(_general_names(hosts)), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    _write(files.key, _key_pem(private))
    _write(files.certificate, signed.public_bytes(serialization.Encoding.PEM))


def _general_names(hosts: tuple[str, ...]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for host in hosts:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            found.append(x509.DNSName(host))
    return found


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path} holds no key of an elliptic curve")
    return key


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes) -> None:
    """Replace the file as a whole, readable by its owner only from the first moment."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
