"""What a round of verification comes to: from the nodes' answers to a result and a verdict for each; pure.

A round looks once at everything. What differs is looked at a second time, at a later place of the log, down
to the records: only what differs both times is believed, so that an engine that stumbled raises no alarm.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

from cluster.chroma.digesting import BUCKETS
from cluster.verify.comparison import Finding, copies_of, findings, judge, poor_indexes
from cluster.verify.digest import DELETED, NODE, SET_ASIDE, CollectionDigest, differing_buckets

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Standing: TypeAlias = Literal["same", "differs", "incomplete"]

_NOT_AGAIN: Final = "it differed, and could not be looked at again: verify once more"
#: So many records, as far as can be foreseen, are looked at one by one in each collection.
_LOOKED_AT: Final = 50_000


@dataclass(frozen=True, slots=True)
class Report:
    """One node's answer to the first look, or to the second (then with the `parts` of records)."""

    digests: dict[str, CollectionDigest]
    replicated_state: str = ""
    strangers: tuple[str, ...] = ()
    parts: dict[str, dict[str, bytes]] = field(default_factory=dict[str, dict[str, bytes]])

    @staticmethod
    def decode(told: Mapping[str, Any], parts: Mapping[str, Any] | None = None) -> Report:
        """From what `cluster.verify.scanner.Scanner.answer` told.

        Raises:
            ValueError, TypeError, KeyError: it is no such answer.
        """
        digests = cast("dict[str, Any]", told["digests"])
        return Report(
            {str(name): CollectionDigest.decode(one) for name, one in digests.items()},
            str(told["replicated_state"]),
            tuple(str(name) for name in told["strangers"]),
            {
                str(name): {str(record): bytes.fromhex(one) for record, one in records.items()}
                for name, records in (parts or {}).items()
            },
        )


@dataclass(frozen=True, slots=True)
class Result:
    """What is told of a round that has ended.

    `not_compared` says of nodes why they had no part in it, `skipped` of collections why they could not be
    compared on a node, `passed` names collections that differed at the first look only, `poor_indexes` the
    nodes whose index finds markedly less than the others' (asked, found), by collection.
    """

    standing: Standing
    findings: tuple[Finding, ...] = ()
    compared: tuple[str, ...] = ()
    not_compared: dict[str, str] = field(default_factory=dict[str, str])
    skipped: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    passed: tuple[str, ...] = ()
    poor_indexes: dict[str, dict[str, tuple[int, int]]] = field(
        default_factory=dict[str, dict[str, tuple[int, int]]]
    )
    found_by_vector: dict[str, dict[str, tuple[int, int]]] = field(
        default_factory=dict[str, dict[str, tuple[int, int]]]
    )
    collections: int = 0
    records: int = 0

    def as_json(self) -> dict[str, Any]:
        """As `verify --json` prints it."""
        return {
            "standing": self.standing,
            "findings": [finding.as_json() for finding in self.findings],
            "compared": list(self.compared),
            "not_compared": self.not_compared,
            "skipped": self.skipped,
            "passed": list(self.passed),
            "poor_indexes": self.poor_indexes,
            "found_by_vector": self.found_by_vector,
            "collections": self.collections,
            "records": self.records,
        }


def by_collection(reports: Mapping[str, Report]) -> dict[str, dict[str, CollectionDigest]]:
    """The digests of each collection, by node; a node without it cannot read it."""
    names = sorted({name for report in reports.values() for name in report.digests})
    absent = CollectionDigest(trouble="this node has no such collection")
    return {
        name: {node: report.digests.get(name, absent) for node, report in reports.items()} for name in names
    }


def doubtful(reports: Mapping[str, Report]) -> list[str]:
    """The collections to look at a second time."""
    return [name for name, digests in by_collection(reports).items() if judge(copies_of(digests)).wrong]


def narrowed(
    names: Iterable[str], reports: Mapping[str, Report], told: Mapping[str, Mapping[str, Mapping[int, str]]]
) -> dict[str, list[int]]:
    """Which buckets of which collections to look at record by record; `told` are the nodes' buckets."""
    wanted: dict[str, list[int]] = {}
    for name in names:
        digests = by_collection(reports)[name]
        readable = [node for node, digest in digests.items() if digest.trouble is None and node in told]
        buckets = differing_buckets([told[node].get(name, {}) for node in readable])
        if len(readable) < len(digests):
            buckets = list(range(BUCKETS))  # what a node cannot read may be in any of them
        size = max((digests[node].count for node in readable), default=0)
        affordable = max(1, _LOOKED_AT * BUCKETS // max(size, 1))
        wanted[name] = buckets[:affordable]
    return wanted


def conclude(
    first: Mapping[str, Report],
    second: Mapping[str, Report],
    not_compared: Mapping[str, str],
) -> Result:
    """The result; `second` has those collections only that were looked at again (nothing: none was)."""
    looked_at = by_collection(first)
    again = by_collection(second)
    found = _of_nodes(first)
    skipped = _skipped(first, second)
    passed: list[str] = []
    for name in doubtful(first):
        if second and name not in again:
            passed.append(name)  # it was deleted between the looks
            continue
        records = {node: report.parts.get(name, {}) for node, report in second.items()}
        believed = findings(name, again.get(name, {}), records)
        before = copies_of(looked_at[name])
        unsettled = frozenset[str]()
        if DELETED not in skipped.get(name, {}).values():
            # A difference is settled by those who were there both times: who is missing may be the majority.
            missing = before.keys() - copies_of(again.get(name, {})).keys()
            unsettled = judge(before).wrong & missing
            if missing and any(finding.undecided for finding in believed):
                unsettled, believed = frozenset(before), []
        if unsettled:
            nodes = skipped.setdefault(name, {})
            nodes |= {node: nodes.get(node, _NOT_AGAIN) for node in unsettled}
        elif not believed:
            passed.append(name)
        found += believed
    standing: Standing = (
        "differs" if found else "incomplete" if _is_incomplete(skipped, not_compared) else "same"
    )
    poor = {name: poor_indexes(digests) for name, digests in looked_at.items()}
    return Result(
        standing,
        tuple(found),
        tuple(sorted(first)),
        dict(not_compared),
        skipped,
        tuple(passed),
        {name: nodes for name, nodes in poor.items() if nodes},
        {
            name: {node: (digest.asked, digest.found) for node, digest in digests.items() if digest.asked}
            for name, digests in looked_at.items()
        },
        len(looked_at),
        sum(max(digest.count for digest in digests.values()) for digests in looked_at.values()),
    )


def _skipped(first: Mapping[str, Report], second: Mapping[str, Report]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for reports in (first, second):
        for name, digests in by_collection(reports).items():
            for node, digest in digests.items():
                if digest.skipped is not None:
                    found.setdefault(name, {})[node] = digest.skipped
    return found


def _is_incomplete(skipped: Mapping[str, Mapping[str, str]], not_compared: Mapping[str, str]) -> bool:
    return bool(not_compared) or any(
        why not in (DELETED, SET_ASIDE) for nodes in skipped.values() for why in nodes.values()
    )


def _of_nodes(first: Mapping[str, Report]) -> list[Finding]:
    """Whose replicated state differs, and who has collections that the cluster never made."""
    found: list[Finding] = []
    states = judge({node: report.replicated_state for node, report in first.items()})
    for node in sorted(states.wrong):
        found.append(Finding(node, NODE, ("replicated state",), undecided=not states.right))
    for node, report in sorted(first.items()):
        if report.strangers:
            named = {name: ("not the cluster's",) for name in report.strangers}
            found.append(Finding(node, NODE, ("strange collections",), named, len(named)))
    return found


def verdict_for(node: str, result: Result, first: Mapping[str, Report]) -> dict[str, Any]:
    """What a node that had a part in the round is told: what differs, and what is equal to the others'.

    `complete`: nothing of it was left out.
    """
    differs: dict[str, dict[str, Any]] = {}
    for finding in result.findings:
        if finding.node == node:
            known = differs.get(finding.collection_id)
            told = finding.as_json()
            if known is not None:
                told["parts"] = [*known["parts"], *told["parts"]]
            differs[finding.collection_id] = told
    looked_at = by_collection(first)
    unknown = {name for name, nodes in result.skipped.items() if node in nodes}
    alone = len(first) < 2
    equal = [] if alone else [name for name in looked_at if name not in differs and name not in unknown]
    if NODE not in differs and not alone:
        equal.append(NODE)
    return {"differs": differs, "equal": equal, "known": sorted(looked_at), "complete": not unknown}


def donors_for(node: str, result: Result, members: Sequence[str]) -> list[str]:
    """The nodes that were compared, and of which nothing is known to differ."""
    bad = {finding.node for finding in result.findings} | {node}
    return [member for member in members if member in result.compared and member not in bad]
