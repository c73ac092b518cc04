"""The cluster's own certificate authority and the certificates that it signs.

Stands for `kubeadm init phase certs`. Keys never leave KIT_HOME/pki (mode 0700, files 0600). Left out: client
certificates (users come with bearer tokens) and rotation (certificates are valid for ten years). `kit up` needs this;
a running control plane does not, and is spared what it imports.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kitlib.cluster.apiserver.keys import pem
from kitlib.cluster.files import write_private

NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
_VALID = timedelta(days=3650)


def ensure_certificates(pki: Path, addresses: Iterable[str] = ()) -> None:
    """Make the authority (`ca.crt`, `ca.key`) and the server's certificate (`apiserver.crt`, `apiserver.key`).

    What is there and still fits is kept, so clients that trust the authority stay connected over restarts.

    Args:
        pki: Folder; made with mode 0700.
        addresses: IP addresses that the certificate names beside 127.0.0.1, such as those of the nodes.
    """
    pki.mkdir(mode=0o700, parents=True, exist_ok=True)
    pki.chmod(0o700)
    wanted = ["127.0.0.1", *addresses]
    if not _fits(pki, "ca"):
        _make_authority(pki)
        _sign_server(pki, wanted)
    elif not _fits(pki, "apiserver") or not set(wanted) <= _named(pki / "apiserver.crt"):
        _sign_server(pki, wanted)


def _fits(pki: Path, name: str) -> bool:
    """Whether certificate and key are there, belong together and are valid now.

    A kill can come between the writing of the two, and a clock that was years off can be put right.
    """
    try:
        public = serialization.load_pem_private_key((pki / f"{name}.key").read_bytes(), None).public_key()
        certificate = x509.load_pem_x509_certificate((pki / f"{name}.crt").read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    valid = certificate.not_valid_before_utc <= datetime.now(timezone.utc) < certificate.not_valid_after_utc
    return valid and certificate.public_key() == public


def _named(path: Path) -> set[str]:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(address) for address in names.get_values_for_type(x509.IPAddress)}


def _builder(subject: str, issuer: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    start = datetime.now(timezone.utc) - timedelta(days=1)  # a clock may be set back by a time zone
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + _VALID)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _make_authority(pki: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    certificate = (
        _builder("kubernetes", "kubernetes", key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    write_private(pki / "ca.key", pem(key))
    write_private(pki / "ca.crt", certificate.public_bytes(serialization.Encoding.PEM))


def _sign_server(pki: Path, addresses: Iterable[str]) -> None:
    authority = serialization.load_pem_private_key((pki / "ca.key").read_bytes(), None)
    assert isinstance(authority, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in NAMES]
    names += [x509.IPAddress(ip_address(address)) for address in addresses]
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())
    certificate = (
        _builder("kube-apiserver", "kubernetes", key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(issuer, critical=False)
        .sign(authority, hashes.SHA256())
    )
    write_private(pki / "apiserver.key", pem(key))
    write_private(pki / "apiserver.crt", certificate.public_bytes(serialization.Encoding.PEM))
