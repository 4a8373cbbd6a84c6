"""What became of a move, for programs and for people; pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from cluster.moving.comparison import Difference
    from cluster.moving.plan import Place

Outcome = Literal["moved", "replaced", "skipped", "differs", "failed"]
GOOD: Final = ("moved", "replaced", "skipped")
MOVED: Final = 0
DIFFERS: Final = 1
NOT_DONE: Final = 2
_SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class Result:
    """One collection; `records` were verified one by one unless it was skipped or failed."""

    place: Place
    outcome: Outcome
    records: int = 0
    reason: str = ""
    differences: tuple[Difference, ...] = ()
    differing: int = 0
    rounded: int = 0
    """Records that Chroma cannot keep as they are, only with other last bits in a vector or a number."""

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            **self.place._asdict(),
            "outcome": self.outcome,
            "records": self.records,
            "reason": self.reason,
            "rounded": self.rounded,
            "differing": self.differing,
            "differences": [{"id": one.key, "what": one.what} for one in self.differences],
        }


@dataclass(slots=True)
class Report:
    """The whole move."""

    source: str
    target: str
    resumed: bool = False
    tenants: list[str] = field(default_factory=list[str])
    databases: list[str] = field(default_factory=list[str])
    results: list[Result] = field(default_factory=list[Result])
    problems: list[str] = field(default_factory=list[str])
    """What could not be looked at or made, apart from collections."""
    changes: list[str] = field(default_factory=list[str])
    """How the source changed while it was moved."""
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether everything is there and verified."""
        return (
            not self.problems
            and not self.changes
            and all(one.outcome in GOOD and not one.rounded for one in self.results)
        )

    @property
    def records(self) -> int:
        """How many were moved and verified."""
        return sum(one.records for one in self.results if one.outcome in ("moved", "replaced"))

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "result": "moved" if self.is_good else "differs",
            "source": self.source,
            "target": self.target,
            "resumed": self.resumed,
            "records": self.records,
            "seconds": round(self.seconds, 3),
            "tenants_made": self.tenants,
            "databases_made": self.databases,
            "collections": [one.as_json() for one in self.results],
            "problems": self.problems,
            "source_changed": self.changes,
        }


def exit_code(report: dict[str, Any]) -> int:
    """Of the command whose report this is."""
    return MOVED if report["result"] == "moved" else DIFFERS


def lines(report: dict[str, Any]) -> list[str]:
    """The report of `as_json` for people."""
    found = [line for one in report["collections"] for line in _of_collection(one)]
    found += [f"PROBLEM  {problem}" for problem in report["problems"]]
    found += [f"CHANGED  {change}" for change in report["source_changed"]]
    moved = [one for one in report["collections"] if one["outcome"] in ("moved", "replaced")]
    made = [f"{len(report['tenants_made'])} tenants"] if report["tenants_made"] else []
    made += [f"{len(report['databases_made'])} databases"] if report["databases_made"] else []
    seconds = report["seconds"]
    rate = f", {report['records'] / seconds:,.0f} records/s" if seconds > 0 and report["records"] else ""
    summary = (
        f"{len(moved)} collections with {report['records']:,} records moved and verified one by one"
        f"{''.join(f', {words} made' for words in made)} in {seconds:.1f} s{rate}."
    )
    if report["result"] != "moved":
        summary += " NOT everything: see above."
    if report["source_changed"]:
        summary += " The source was written to meanwhile: stop its writers and move it again."
    return [*found, summary]


def _of_collection(one: dict[str, Any]) -> list[str]:
    place = "/".join((one["tenant"], one["database"], one["name"]))
    records = f"{one['records']:,} records"
    shown = [f"         {it['id']}: {it['what']}" for it in one["differences"][:_SHOWN]]
    more = one["differing"] + one["rounded"] - len(shown)
    shown += [f"         and {more:,} more"] if more > 0 else []
    if one["outcome"] in ("moved", "replaced"):
        rounded = (
            f"ROUNDED  {place}: {one['rounded']:,} records are there with other last bits (docs/migration.md)"
        )
        return [f"{one['outcome']}  {place}: {records}", *([rounded, *shown] if one["rounded"] else [])]
    if one["outcome"] == "skipped":
        return [f"skipped  {place}: it exists in the target and was left alone"]
    return [f"{one['outcome'].upper()}  {place}: {one['reason']}", *(shown if one["differing"] else [])]
