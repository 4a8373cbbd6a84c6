"""A run in a child process with a network of its own, for the fault that drops real packets.

The child has to enter its namespace before it has threads or sockets, so it is a new program:
`python -m evaluation.faulting.netns python -m evaluation.run.secluded PLAN FOLDER`. It saves the run as any
other, says on its standard output what it does, and ends, with all that it started, when its standard input
is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from evaluation import stopping
from evaluation.faulting import netns
from evaluation.faulting.packets import PacketLoss
from evaluation.record import RunRecord
from evaluation.run import scenario
from evaluation.run.plan import RunPlan, Timing
from evaluation.run.result import new_record
from evaluation.run.stage import silent
from evaluation.traffic.clients import Pace

if TYPE_CHECKING:
    from collections.abc import Callable

_ROOT = Path(__file__).parents[2]
_LINES = 20


def needed(fault: str) -> bool:
    """Whether a run with this fault must not be made in this process."""
    from evaluation.faulting.catalogue import FAULTS

    return isinstance(FAULTS[fault], PacketLoss) and not netns.is_own()


async def run(plan: RunPlan, folder: Path, progress: Callable[[str], None] = silent) -> RunRecord:
    """`scenario.run`, in a namespace. Needs root and iptables: ask the fault's `why_not` first."""
    python = [sys.executable, "-m"]
    child = await asyncio.create_subprocess_exec(
        *python,
        "evaluation.faulting.netns",
        *python,
        "evaluation.run.secluded",
        orjson.dumps(asdict(plan)).decode(),
        str(folder),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        # Ctrl-C reaches all processes of a terminal: this one alone is to answer it.
        start_new_session=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    words: deque[str] = deque(maxlen=_LINES)
    said = asyncio.create_task(_read(child.stderr, words.append))
    try:
        await _read(child.stdout, progress)
        code = await child.wait()
    finally:
        child.stdin.close()
        # Not cut short by a cancellation: it is stopping its processes.
        await child.wait()
        await said
    if (folder / "run.json").exists():
        return RunRecord.load(folder)
    record = new_record(plan)
    record.error = f"start: the process in the namespace ended with {code}: " + "\n".join(words)
    record.save(folder)
    return record


async def _read(stream: asyncio.StreamReader, each: Callable[[str], None]) -> None:
    async for line in stream:
        each(line.decode(errors="replace").rstrip())


def plan_of(raw: dict[str, Any]) -> RunPlan:
    """The reverse of `asdict`, as it comes back from JSON."""
    read: dict[str, Any] = {
        "workloads": tuple(raw["workloads"]),
        "timing": Timing(**raw["timing"]),
        "pace": Pace(**raw["pace"]),
    }
    return RunPlan(**raw | read)


async def _here(plan: RunPlan, folder: Path) -> None:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()

    def closed() -> None:
        loop.remove_reader(sys.stdin)
        task.cancel()

    loop.add_reader(sys.stdin, closed)
    await scenario.run(plan, folder, lambda what: print(what, flush=True))


def main() -> None:
    plan, folder = plan_of(orjson.loads(sys.argv[1])), Path(sys.argv[2])
    with contextlib.suppress(asyncio.CancelledError):
        stopping.run(_here(plan, folder))


if __name__ == "__main__":
    main()
