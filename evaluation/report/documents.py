"""The generated parts of a Markdown document: tables and figures between markers, from saved runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def write_documents(folder: Path, document: Path) -> list[Path]:
    return []
