"""One run: a system under traffic, one fault that strikes and is healed, final reads, the record.

What it is to be: `run.plan`; what happens in it: `run.phases`; what is kept of it: `run.result`.
"""

from __future__ import annotations

import asyncio
import sqlite3
import traceback
from typing import TYPE_CHECKING

from evaluation.failure import SystemFailure
from evaluation.record import RunRecord
from evaluation.run.phases import Phases, RunError
from evaluation.run.result import new_record, save
from evaluation.run.stage import silent, staged

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from evaluation.run.plan import RunPlan
    from evaluation.run.stage import Stage


async def run(plan: RunPlan, folder: Path, progress: Callable[[str], None] = silent) -> RunRecord:
    """The whole run, on a system of its own; record and history are in `folder` afterwards."""
    from evaluation.systems.catalogue import SYSTEMS

    record = new_record(plan)
    try:
        async with staged(SYSTEMS[plan.system], progress) as stage:
            return await run_on(stage, plan, folder, progress)
    except (SystemFailure, TimeoutError, OSError) as error:
        if not (folder / "run.json").exists():
            record.error = f"start: {error}"
            record.save(folder)
            return record
        # The run is over and saved; the system did not stop as it should.
        record = RunRecord.load(folder)
        record.error = record.error or f"stop: {error}"
        record.save(folder)
        return record


async def run_on(
    stage: Stage, plan: RunPlan, folder: Path, progress: Callable[[str], None] = silent
) -> RunRecord:
    """The run on a started system, which must be in good health; saves record and history."""
    from evaluation.faulting.catalogue import FAULTS

    stage.runs += 1
    record = new_record(plan)
    phases = Phases(stage, plan, FAULTS[plan.fault], record, progress)
    try:
        await phases.everything()
    except (RunError, SystemFailure, TimeoutError, OSError, sqlite3.Error) as error:
        record.error = f"{phases.doing}: {error}"
    except Exception:
        record.error = f"{phases.doing}: {traceback.format_exc(limit=8)}"
    finally:
        await phases.end()
    await asyncio.to_thread(save, record, phases.recorder.operations, phases.evidence, stage.folder, folder)
    return record
