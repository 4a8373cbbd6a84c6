"""The environment that the systems' processes get: this process's, without what would configure them."""

from __future__ import annotations

import os
from typing import Final

_CONFIGURE: Final = (
    "CHROMA_",
    "CHROMA_CLUSTER_",
    "FAKETIME",
    "LD_PRELOAD",
    "PG",
    "IS_PERSISTENT",
    "ALLOW_RESET",
)


def clean(**more: str) -> dict[str, str]:
    """A copy without variables that configure Chroma, the cluster or Postgres, and with `more`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_CONFIGURE)}
    return {**kept, "ANONYMIZED_TELEMETRY": "false", "PYTHONUNBUFFERED": "1", **more}
