"""How a property, a run or a cell of the matrix stands: the verdict, set beside what the system promises."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from evaluation.checking.promised import promised
from evaluation.checking.verdict import Finding, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Standing(StrEnum):
    """From worst to best; the worst one present is the standing of a whole."""

    BROKEN = "promise broken"
    UNCONVICTED = "not convicted"
    UNKNOWN = "unknown"
    ANOMALY = "anomaly"
    """A violation of something that the system never promised."""
    ERROR = "error"
    OK = "ok"
    NOT_CHECKED = "not checked"
    ABSENT = "not run"
    INAPPLICABLE = "does not apply"

    @property
    def symbol(self) -> str:
        """So that no table is told apart by colour alone."""
        return _SYMBOLS[self]

    @property
    def short(self) -> str:
        """In a narrow cell, beside the symbol."""
        return {"promise broken": "broken", "not convicted": "no proof"}.get(self.value, self.value)

    @property
    def css(self) -> str:
        return self.value.replace(" ", "-")

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_SYMBOLS = {
    Standing.BROKEN: "✖",
    Standing.UNCONVICTED: "∅",
    Standing.UNKNOWN: "?",
    Standing.ANOMALY: "▲",
    Standing.ERROR: "!",
    Standing.OK: "✔",
    Standing.NOT_CHECKED: "\N{EN DASH}",
    Standing.ABSENT: "·",
    Standing.INAPPLICABLE: "\N{MULTIPLICATION SIGN}",
}

_MEANINGS = {
    Standing.BROKEN: "the history contradicts something that the system promises",
    Standing.UNCONVICTED: (
        "a weak system showed nothing where it must: the fault did not bite, which proves nothing"
    ),
    Standing.ANOMALY: "the history shows a defect, in something that the system does not promise",
    Standing.UNKNOWN: "the checker's budget was spent before it found an answer: not a pass",
    Standing.ERROR: "the set-up or a health check failed: says nothing about the system",
    Standing.OK: "everything that was checked holds; what was not checked is marked so",
    Standing.NOT_CHECKED: "nothing in the history could have shown a violation: not a pass",
    Standing.ABSENT: "no run in this folder",
    Standing.INAPPLICABLE: "the system has nothing that this fault could strike",
}


def standing_of(finding: Finding, promises: Mapping[str, Any]) -> Standing:
    match finding.verdict:
        case Verdict.OK:
            return Standing.OK
        case Verdict.UNKNOWN:
            return Standing.UNKNOWN
        case Verdict.NOT_CHECKED:
            return Standing.NOT_CHECKED
        case Verdict.VIOLATION:
            return Standing.BROKEN if promised(finding.property, promises) else Standing.ANOMALY


_ORDER = list(Standing)


def worst(standings: Iterable[Standing]) -> Standing:
    """Of several; `not checked` only if there is nothing else, `not run` of none."""
    return min(standings, key=_ORDER.index, default=Standing.ABSENT)
