"""Makes Chroma's process fail on certain writes, for tests; without a test it does nothing.

`CHROMA_CLUSTER_POISON=DIRECTORY`: while the file `raise`, `die`, `hang` or `die-after` is in that directory,
every write with a record whose id begins with `poison-` fails in that way, `die-after` when all is done.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cluster.state.commands import WriteRecords

if TYPE_CHECKING:
    from cluster.state.commands import Command

VARIABLE: Final = "CHROMA_CLUSTER_POISON"
_PREFIX: Final = "poison-"

_directory = Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None


def meet(command: Command) -> None:
    """The call is about to be made."""
    if _directory is None or not _is_poison(command):
        return
    if (_directory / "raise").exists():
        raise RuntimeError("poison")
    if (_directory / "die").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    if (_directory / "hang").exists():
        threading.Event().wait()


def meet_after(command: Command) -> None:
    """The call is done; nobody was told."""
    if _directory is not None and _is_poison(command) and (_directory / "die-after").exists():
        os.kill(os.getpid(), signal.SIGKILL)


def _is_poison(command: Command) -> bool:
    return isinstance(command, WriteRecords) and any(name.startswith(_PREFIX) for name in command.ids)
