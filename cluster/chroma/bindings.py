"""Chroma's Rust bindings, opened as chromadb's own client opens them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import chromadb_rust_bindings as rust

from cluster.descriptors import indexes, open_files

if TYPE_CHECKING:
    from pathlib import Path


def open_bindings(directory: Path | None) -> rust.Bindings:
    """Chroma over `directory`, or in memory if None; arguments as chromadb's own client gives them."""
    config = rust.SqliteDBConfig(
        hash_type=rust.MigrationHash.MD5,
        migration_mode=rust.MigrationMode.Apply,
        url=None if directory is None else str(directory / "chroma.sqlite3"),
    )
    # As many indexes in memory as there are files to open. chromadb's own client wants 128 at least, also
    # where their files are more than may be open, and then fails.
    return rust.Bindings(
        allow_reset=True,
        sqlite_db_config=config,
        hnsw_cache_size=indexes(open_files()),
        persist_path=None if directory is None else str(directory),
    )


def import_exceptions() -> None:
    """The bindings import their exception classes when they first raise one: 1.8 s in the middle of
    serving, holding Python's global lock. Better now, beside the rest of the start."""
    importlib.import_module("chromadb.errors")
