"""A started system on which one fault after the other is played, and each run judged."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluation.history import Operation, read_history
from evaluation.run import campaign, matrix, secluded
from evaluation.run.matrix import Conclusion, Result
from evaluation.run.plan import RunPlan, Timing
from evaluation.run.scenario import run_on
from evaluation.run.stage import Stage, staged
from evaluation.systems.catalogue import SYSTEMS

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from evaluation.checking.verdict import Judgement, Verdict
    from evaluation.record import RunRecord

#: `CHAOS_SEED=2 make chaos-tests` makes other decisions.
SEED = int(os.environ.get("CHAOS_SEED", "1"))
#: A member that has lost its disk replays the whole log: that of a new system is short.
ANEW = frozenset({"disk-lost"})
#: They leave logs without their beginning, which are worth less as evidence of the runs that follow, or a
#: node that the others and the balancer reach past the proxies.
SPOILS = frozenset({"disk-lost-leader", "disk-lost-compacted", "clock-step-filling", "replace-node"})
TIMING = Timing(fault_s=6.0, after_s=1.5)


@dataclass(frozen=True)
class Judged:
    """One run, what it came to, and where it is."""

    record: RunRecord
    operations: list[Operation]
    judgement: Judgement | None
    conclusion: Conclusion
    folder: Path

    def story(self) -> str:
        """What a failing test says: why, the seed, how to repeat it, where the history is."""
        reasons = "\n  ".join(self.conclusion.reasons)
        return (
            f"{self.record.system} under {self.record.fault}, seed {self.record.seed}: "
            f"{self.conclusion.result.value}\n  {reasons}\n"
            f"again: {self.record.command} --out DIR\nhistory: {self.folder}\n"
            f"struck: {self.record.fault_detail}\noperations: {self.record.measured.get('operations')}"
        )

    def verdicts(self) -> dict[str, Verdict]:
        assert self.judgement is not None, self.story()
        return {finding.property: finding.verdict for finding in self.judgement.findings}


class Theatre:
    """`play` starts the system if it does not run; after a run that was not as it should be, anew."""

    def __init__(self, system: str) -> None:
        self._system = system
        self._runner = asyncio.Runner()
        self._entered: AbstractAsyncContextManager[Stage] | None = None
        self._stage: Stage | None = None

    def play(self, fault: str, folder: Path, seed: int = SEED) -> Judged:
        plan = RunPlan(self._system, fault, seed, timing=TIMING)
        if secluded.needed(fault):
            record = self._runner.run(secluded.run(plan, folder))
        else:
            if fault in ANEW:
                self._leave()
            if self._stage is None:
                self._entered = staged(SYSTEMS[self._system])
                self._stage = self._runner.run(self._entered.__aenter__())
            record = self._runner.run(run_on(self._stage, plan, folder))
        judgement = campaign.judge(folder)
        conclusion = matrix.conclude(record, judgement)
        if conclusion.result in (Result.ERROR, Result.BROKEN) or fault in SPOILS:
            self._leave()
        operations = list(read_history(folder / "history.jsonl"))
        return Judged(record, operations, judgement, conclusion, folder)

    def close(self) -> None:
        try:
            self._leave()
        finally:
            self._runner.close()

    def _leave(self) -> None:
        entered, self._entered, self._stage = self._entered, None, None
        if entered is not None:
            self._runner.run(entered.__aexit__(None, None, None))
