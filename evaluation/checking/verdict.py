"""What the checker concludes. *Not checked* is a verdict of its own and never counts as ok."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    OK = "ok"
    VIOLATION = "violation"
    UNKNOWN = "unknown"
    """The budget was spent before an answer was found."""
    NOT_CHECKED = "not checked"
    """Nothing in the history could have shown it."""


#: property -> what its violation means. These names are the columns of the report.
PROPERTIES: dict[str, str] = {
    "linearizable": "reads and writes of single documents do not fit any order that respects real time",
    "read-your-writes": "a session did not see its own acknowledged write",
    "monotonic-reads": "a session saw an older state after a newer one",
    "monotonic-writes": "two writes of one session were seen in the other order",
    "writes-follow-reads": "a write was seen without what its session had read before it",
    "lost": "acknowledged writes are missing at the end",
    "duplicated": "one write is there twice",
    "phantom": "something is there that nobody wrote, or whose write was refused",
    "resurrected": "something deleted is there again",
    "lost-updates": "acknowledged appends of a list's only writer are missing from it",
    "fractured": "a read saw part of one request's records",
    "diverged": "members hold different records at the end",
    "split-brain": "two members acknowledged writes as leader or primary at overlapping times",
    "log": "acknowledgements and the replicated log contradict each other",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One property of one run."""

    property: str
    verdict: Verdict
    checked: int = 0
    """How many operations, keys or records were looked at."""
    count: int = 0
    """How many violate it."""
    detail: str = ""
    """One sentence for people: the first violation in words."""
    example: tuple[int, ...] = ()
    """Ids of the operations of the smallest sub-history that shows it."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """All findings of one run, and its measures (staleness, availability, latency: `checking.judge`)."""

    findings: tuple[Finding, ...]
    measures: dict[str, Any] = field(default_factory=dict[str, Any])

    def of(self, name: str) -> Finding:
        return next(finding for finding in self.findings if finding.property == name)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(raw: dict[str, Any]) -> Judgement:
        """The reverse of `to_json`, as it comes back from a JSON file."""
        findings: list[Finding] = []
        for item in raw["findings"]:
            finding = Finding(**item)
            findings.append(
                replace(finding, verdict=Verdict(finding.verdict), example=tuple(finding.example))
            )
        return Judgement(tuple(findings), raw["measures"])
