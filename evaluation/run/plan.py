"""What one run is to be: its cell of the matrix, its traffic, how long its parts take."""

from __future__ import annotations

from dataclasses import dataclass, field

from evaluation.traffic.clients import Pace
from evaluation.traffic.mix import NAMES


@dataclass(frozen=True, slots=True)
class Timing:
    """How long the parts of a run take."""

    warmup_s: float = 3.0
    """At least; then as long as it takes to reach the floor."""
    warmup_deadline_s: float = 45.0
    floor_per_second: float = 20.0
    """Acknowledged operations in the last `warmup_s`, every workload among them. Below it the run would
    say nothing: too few operations meet the fault."""
    fault_s: float = 7.0
    recovery_deadline_s: float = 30.0
    """For every entry to take writes again after the heal; what is later counts as never."""
    after_s: float = 2.0
    """Traffic after the recovery."""
    operation_s: float = 4.0
    """What a client waits for an answer."""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """One cell of the matrix."""

    system: str
    fault: str
    seed: int
    workloads: tuple[str, ...] = NAMES
    timing: Timing = field(default_factory=Timing)
    pace: Pace = field(default_factory=Pace)

    @property
    def name(self) -> str:
        return f"{self.system}/{self.fault}/{self.seed}"

    @property
    def command(self) -> str:
        workloads = "" if self.workloads == NAMES else f" --workloads {','.join(self.workloads)}"
        return (
            f"chroma-cluster evaluate --systems {self.system} --faults {self.fault}"
            f" --seed {self.seed} --seeds 1{workloads}"
        )
