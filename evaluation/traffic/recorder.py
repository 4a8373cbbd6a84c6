"""The history in the making: ids and times of operations, in the order of their invocation."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from evaluation.history import Fate, Operation, Phase

if TYPE_CHECKING:
    from evaluation.traffic.decision import Decision, Session


@dataclass(frozen=True, slots=True)
class Completion:
    """What came of one request."""

    outcome: Fate
    value: Any = None
    """What was read; for catalogue operations whether it was so; else None."""
    returned: bool = True
    """False: no answer ever came."""
    status: int | None = None
    error: str = ""
    node: str | None = None
    index: int | None = None


@dataclass
class Recorder:
    """One a run; belongs to one event loop."""

    start_ns: int = field(default_factory=time.monotonic_ns)
    phase: Phase = Phase.WARMUP
    operations: list[Operation] = field(default_factory=list[Operation])
    _processes: int = 0

    def now_ns(self) -> int:
        """Nanoseconds since the start of the run."""
        return time.monotonic_ns() - self.start_ns

    def new_process(self) -> int:
        self._processes += 1
        return self._processes

    def invoke(
        self, session: Session, process: int, decision: Decision, request_id: str | None = None
    ) -> Operation:
        """An operation that begins now. Until `complete` it counts as one that never got an answer."""
        write = decision.action.is_write
        operation = Operation(
            id=len(self.operations),
            workload=decision.workload,
            process=process,
            session=session.name,
            entry=session.entry,
            action=decision.action,
            key=decision.key,
            value=decision.value,
            level=session.ack if write else session.level,
            phase=self.phase,
            invoked_ns=self.now_ns(),
            returned_ns=None,
            outcome=Fate.UNKNOWN,
            request_id=request_id if write else None,
        )
        self.operations.append(operation)
        return operation

    def complete(self, operation: Operation, answer: Completion) -> Operation:
        """The same operation with what came of it. It returns now."""
        keeps_value = operation.is_write and answer.value is None
        done = replace(
            operation,
            returned_ns=self.now_ns() if answer.returned else None,
            outcome=answer.outcome,
            value=operation.value if keeps_value else answer.value,
            status=answer.status,
            error=answer.error[:200],
            node=answer.node,
            index=answer.index,
        )
        self.operations[operation.id] = done
        return done

    def since(self, begin_ns: int) -> list[Operation]:
        """Operations invoked from `begin_ns` on."""
        # Ordered by invocation: the newest are at the end.
        first = len(self.operations)
        while first and self.operations[first - 1].invoked_ns >= begin_ns:
            first -= 1
        return self.operations[first:]
