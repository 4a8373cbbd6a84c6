"""How a property's violations become one `Finding`."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from evaluation.checking.verdict import Finding, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from evaluation.history import Operation


@dataclass(slots=True)
class Tally:
    """What was looked at for one property, and what was wrong."""

    property: str
    checked: int = 0
    violations: list[tuple[str, tuple[int, ...]]] = field(default_factory=list[tuple[str, tuple[int, ...]]])
    undecided: int = 0
    """Looked at without an answer within the budget."""

    def blame(self, detail: str, witnesses: Iterable[int | None]) -> None:
        ids = {witness for witness in witnesses if witness is not None}
        self.violations.append((detail, tuple(sorted(ids))))

    def finding(self) -> Finding:
        if self.violations:
            detail, example = self.violations[0]
            return Finding(
                self.property, Verdict.VIOLATION, self.checked, len(self.violations), detail, example
            )
        if self.undecided:
            detail = f"{self.undecided} of {self.checked} could not be decided within the budget"
            return Finding(self.property, Verdict.UNKNOWN, self.checked, 0, detail)
        return Finding(self.property, Verdict.OK if self.checked else Verdict.NOT_CHECKED, self.checked)


def by_key(operations: Iterable[Operation]) -> dict[tuple[str, str], list[Operation]]:
    """(workload, key) -> its operations, in the order given."""
    groups: dict[tuple[str, str], list[Operation]] = defaultdict(list)
    for operation in operations:
        groups[operation.workload, operation.key].append(operation)
    return groups


def shown(value: Any) -> str:
    """A value in a sentence."""
    if value is None:
        return "nothing"
    text = str(value) if not isinstance(value, str) else f"'{value}'"
    return text if len(text) <= 60 else text[:57] + "..."


def ms(time_ns: float | None) -> str:
    """A time of the run in a sentence."""
    return "never" if time_ns is None else f"{time_ns / 1e6:.1f} ms"
