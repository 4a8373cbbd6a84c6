"""Waits for a leader's answer only as long as that node may still be the one to give it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

#: How often a waiting request looks at who leads: well below any election timeout.
LOOK_S: Final = 0.05


class LeaderChanged(Exception):
    """Another node leads, or none for too long, and the one that was asked has not answered."""


async def unless_leader_changes(
    asking: Coroutine[object, object, T],
    leader: str,
    leader_id: Callable[[], str | None],
    *,
    leaderless_s: float,
) -> T:
    """What `asking` gives, cancelled once `leader_id()` has named another node than `leader`.

    A cut-off leader's connection may hang for minutes after its successor was elected. While no
    leader is known there is nobody better to ask, so the answer is awaited for `leaderless_s` more.

    Raises:
        LeaderChanged: whatever was asked may or may not have arrived.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(asking)
    leaderless_since: float | None = None
    try:
        while not (await asyncio.wait((task,), timeout=LOOK_S))[0]:
            now_leads = leader_id()
            if now_leads == leader:
                leaderless_since = None
            elif now_leads is not None:
                raise LeaderChanged
            elif leaderless_since is None:
                leaderless_since = loop.time()
            elif loop.time() - leaderless_since >= leaderless_s:
                raise LeaderChanged
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))
