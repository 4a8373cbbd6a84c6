"""Certificate authorities and certificates for tests, made by the `openssl` command."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_CONFIG = """
[req]
distinguished_name = name
prompt = no
[name]
CN = test
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[node]
basicConstraints = CA:FALSE
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


class Authority:
    """Signs certificates for nodes; all files are in `folder`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._config = folder / f"{name}.cnf"
        self._config.write_text(_CONFIG)
        self.cert = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        self._openssl(
            "req",
            "-x509",
            *self._new_key(self._key, name),
            "-extensions",
            "authority",
            "-days",
            "2",
            "-out",
            str(self.cert),
        )

    def node(self, name: str, *, days: int = 2) -> tuple[Path, Path]:
        """Certificate and key for `name`; a negative number of `days` makes it expired."""
        request, key, cert = (self._folder / f"{name}.{end}" for end in ("csr", "key", "pem"))
        self._openssl("req", "-new", *self._new_key(key, name), "-out", str(request))
        self._openssl(
            "x509",
            "-req",
            "-in",
            str(request),
            "-CA",
            str(self.cert),
            "-CAkey",
            str(self._key),
            "-CAcreateserial",
            "-days",
            str(days),
            "-extfile",
            str(self._config),
            "-extensions",
            "node",
            "-out",
            str(cert),
        )
        return cert, key

    def _new_key(self, key: Path, name: str) -> tuple[str, ...]:
        return (
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-noenc",
            "-keyout",
            str(key),
            "-config",
            str(self._config),
            "-subj",
            f"/CN={name}",
        )

    @staticmethod
    def _openssl(*arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
