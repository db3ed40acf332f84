"""A certificate authority for one test, made with the ``openssl`` program."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class OpensslNotFound(Exception):
    """There is no ``openssl`` program on this machine."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A server's certificate and its private key."""

    certificate: Path
    key: Path


class Authority:
    """Signs server certificates.

    Args:
        folder: Where its files go.
        name: Its common name, also the name of its files.

    Attributes:
        certificate: The file that clients are to trust.
    """

    def __init__(self, folder: Path, name: str = "ca") -> None:
        if shutil.which("openssl") is None:
            raise OpensslNotFound("openssl is not installed")
        self._folder, self._name = folder, name
        self.certificate = folder / f"{name}.pem"
        self._openssl(
            "req",
            "-x509",
            *_NEW_KEY,
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.pem",
            "-subj",
            f"/CN={name}",
            "-days",
            "2",
            # Python 3.13 and later refuse an authority that does not say what its key is for.
            "-addext",
            "keyUsage=critical,keyCertSign,cRLSign",
        )

    def issue(self, hosts: Sequence[str] = ("DNS:localhost", "IP:127.0.0.1"), *, days: int = 2) -> Issued:
        """A new certificate for `hosts`; one with negative `days` has expired."""
        name = f"{self._name}-server-{len(list(self._folder.glob('*.key')))}"
        self._openssl("req", *_NEW_KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", "/CN=server")
        extensions = self._folder / f"{name}.ext"
        extensions.write_text(
            f"subjectAltName={','.join(hosts)}\nbasicConstraints=critical,CA:FALSE\n"
            "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
        )
        self._openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", "-extfile", extensions.name),
            *("-CA", f"{self._name}.pem", "-CAkey", f"{self._name}.key", "-CAcreateserial", "-days", str(days)),
        )
        return Issued(self._folder / f"{name}.pem", self._folder / f"{name}.key")

    def _openssl(self, *arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], cwd=self._folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"openssl {arguments[0]} failed: {done.stderr[-500:]}")


def tls_config(issued: Issued, authority: Authority) -> dict[str, str | int]:
    """What `LocalServer` needs to speak TLS with that certificate."""
    return {
        "tls-cert-file": str(issued.certificate),
        "tls-key-file": str(issued.key),
        "tls-ca-cert-file": str(authority.certificate),
        "tls-auth-clients": "no",
    }
