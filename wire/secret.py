"""The secret of a cluster, as its members find it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def read_secret(given: str | None, file: Path | None, cluster_id: str) -> bytes:
    """`given`, else what stands in `file`, else the cluster's id: one node alone may have no secret.

    Raises:
        ValueError: the file is empty.
        OSError: the file cannot be read.
    """
    if given is not None:
        return given.encode()
    if file is None:
        return cluster_id.encode()
    text = file.read_text().strip()
    if not text:
        raise ValueError(f"the secret file {file} is empty")
    return text.encode()
