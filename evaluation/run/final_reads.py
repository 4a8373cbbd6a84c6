"""The last reads of a run: everything, at every entry, at each level that says something there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from evaluation.history import Fate
from evaluation.run.decisions import final_levels
from evaluation.traffic.decision import Session

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evaluation.systems.interface import System
    from evaluation.traffic.decision import Decision
    from evaluation.traffic.driver import Driver
    from evaluation.traffic.recorder import Recorder

_ATTEMPTS = 3


async def read_everywhere(
    system: System, drivers: Mapping[str, Driver], recorder: Recorder, wanted: Sequence[Decision]
) -> None:
    """`wanted` at all entries of the system, together."""
    await asyncio.gather(
        *(
            _read_all(
                drivers[entry.name],
                Session(f"final-{entry.name}-{level}", 0, entry.name, level, "default"),
                recorder,
                wanted,
            )
            for entry in system.entries
            for level in final_levels(system.levels, entry.member)
        )
    )


async def _read_all(driver: Driver, session: Session, recorder: Recorder, wanted: Sequence[Decision]) -> None:
    """Everything at one entry; what gets no answer is asked again, twice."""
    left = list(wanted)
    for attempt in range(_ATTEMPTS):
        if attempt:
            await asyncio.sleep(1.0)
        # A process of its own for each: many keys are read by one request.
        begun = [recorder.invoke(session, recorder.new_process(), decision) for decision in left]
        answers = await driver.read_all(session, left)
        for operation, answer in zip(begun, answers, strict=True):
            recorder.complete(operation, answer)
        left = [
            decision for decision, answer in zip(left, answers, strict=True) if answer.outcome is not Fate.OK
        ]
        if not left:
            return
