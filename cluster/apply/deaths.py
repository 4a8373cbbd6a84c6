"""What becomes of an engine call that the engine did not survive; pure. The one place that decides it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cluster.errors import EngineDied

#: A process may end for reasons that have nothing to do with the call: once is no evidence.
_FORGIVEN: Final = 1


def failure_after(deaths: int, last: EngineDied) -> EngineDied | None:
    """What the applier is to fail with after the engine died `deaths` times over one and the same call.

    None: repeat the call, by itself, in the engine that was started again.
    """
    return None if deaths <= _FORGIVEN else last
