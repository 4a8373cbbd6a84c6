"""What a fault is: it strikes a running system, proves that it bites, and proves that it is gone.

A scenario does: `if not fault.why_not(system)`, `struck = await fault.apply(context)`, traffic for at least
`fault.min_seconds`, `await fault.heal(context, struck)` (also after an error), then the system's health.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

from evaluation.failure import SystemFailure

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from evaluation.systems.interface import System
    from evaluation.systems.proxies import Proxies


_TASK_S = 150.0


def _ignore(_: str) -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a fault works on."""

    system: System
    proxies: Proxies
    rng: random.Random
    """The only source of chance, seeded by the run."""
    note: Callable[[str], None] = _ignore
    """Told what happens while the fault lasts (a member killed, a link cut), for the run's events."""
    lenient: bool = False
    """Within a compound of faults: a probe that another fault may have spoilt proves nothing."""


@dataclass(slots=True, kw_only=True)
class Struck:
    """An applied fault: whom it struck, and how to take it back."""

    members: tuple[str, ...]
    """Members and other participants that it struck."""
    sides: Mapping[str, str]
    """Participant -> majority, minority or all, as long as the fault lasts."""
    detail: dict[str, Any] = field(default_factory=dict[str, Any])
    """Numbers, for the record and the report."""
    undo: list[Callable[[], Awaitable[None]]] = field(default_factory=list["Callable[[], Awaitable[None]]"])
    """Done from the last to the first, each once."""
    task: asyncio.Task[None] | None = None
    """Goes on until `stop` is set, where the fault is a course of events: flapping, storms, compounds."""
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def stopped_within(self, seconds: float) -> bool:
        """Sleep so long, or until the fault is to end; whether it is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stop.wait()
        return self.stop.is_set()

    def record(self) -> dict[str, Any]:
        """For `RunRecord.fault_detail`."""
        return {"struck": list(self.members), "sides": dict(self.sides), **self.detail}


class Fault(Protocol):
    """One named fault. It holds no state of a run: that is in `Struck`."""

    @property
    def name(self) -> str: ...

    @property
    def summary(self) -> str:
        """One plain sentence for the report."""
        ...

    @property
    def min_seconds(self) -> float:
        """It must last at least so long to mean what its name says."""
        ...

    def why_not(self, system: System) -> str:
        """Why it cannot strike this system (or machine); empty if it can. Before `start` only what is known
        then is asked; ask again after it."""
        ...

    def applies_to(self, system: System) -> bool: ...

    async def apply(self, context: Context) -> Struck:
        """Strike, and prove that it bites.

        Raises:
            SystemFailure: it did not bite; what had been done is taken back.
        """
        ...

    async def heal(self, context: Context, struck: Struck) -> None:
        """Take it back and prove that it is gone. Killed processes are started again.

        Raises:
            SystemFailure: it is still there.
        """
        ...


async def take_back(struck: Struck) -> None:
    """End its task and undo all, each step even if another fails; the first error is raised at the end."""
    errors: list[Exception] = []
    struck.stop.set()
    if struck.task is not None:
        try:
            # Not cancelled at once: what it is in the middle of must be in `undo`.
            async with asyncio.timeout(_TASK_S):
                await struck.task
        except Exception as error:
            errors.append(error)
        struck.task = None
    while struck.undo:
        try:
            await struck.undo.pop()()
        except Exception as error:
            errors.append(error)
    if errors:
        first: BaseException = errors[0]
        while isinstance(first, BaseExceptionGroup):
            first = cast("BaseExceptionGroup[BaseException]", first).exceptions[0]
        raise SystemFailure(f"could not be healed: {first!r}") from errors[0]


@contextlib.asynccontextmanager
async def undone_on_failure(struck: Struck) -> AsyncGenerator[None]:
    """Around what strikes: if it fails or is cancelled halfway, what it did so far is taken back."""
    try:
        yield
    except BaseException:
        await take_back(struck)
        raise
