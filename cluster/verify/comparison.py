"""From the digests of several nodes to who differs, where and in what; pure.

Nobody is named right but by agreement: a copy is right if more than half of those compared have it, two at
least, or if nobody that can read the collection has another. Where no copy is right, all are named.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cluster.chroma.digesting import PART_BYTES, PARTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cluster.verify.digest import CollectionDigest

#: How many records of one collection and node are named; all of them are counted.
NAMED: Final = 20
#: A node finds so much less of what it was asked, beside the best of the others, before it is warned of.
_WORSE: Final = 0.02
_WORSE_RECORDS: Final = 3


@dataclass(frozen=True, slots=True)
class Judgement:
    """`right` and `wrong` nodes; those of neither were not compared. No right one: nobody knows."""

    right: frozenset[str]
    wrong: frozenset[str]


def judge(copies: Mapping[str, str | None]) -> Judgement:
    """Who is right, from what each node has; None: it cannot read it."""
    unreadable = frozenset(node for node, copy in copies.items() if copy is None)
    groups: dict[str, set[str]] = {}
    for node, copy in copies.items():
        if copy is not None:
            groups.setdefault(copy, set()).add(node)
    readable = len(copies) - len(unreadable)
    largest = max(groups.values(), key=len, default=set[str]())
    agreed = len(groups) == 1 or (len(largest) >= 2 and 2 * len(largest) > readable)
    right = frozenset(largest) if agreed else frozenset[str]()
    return Judgement(right, frozenset(copies) - right)


@dataclass(frozen=True, slots=True)
class Finding:
    """In what one node's copy of one collection differs.

    `parts` are of the collection (`name`, `metadata`, `configuration`, `dimension`, `unreadable`) or of its
    records (`vector`, `document`, `metadata of records`, `uri`, `missing`, `extra`, `unreadable`).
    `records` names the first `NAMED` records and what differs in each, `differing` counts them (None: not
    looked at one by one).
    `undecided`: no majority says which copy is right.
    """

    node: str
    collection_id: str
    parts: tuple[str, ...]
    records: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    differing: int | None = None
    undecided: bool = False
    trouble: str | None = None

    def as_json(self) -> dict[str, Any]:
        """As it is told and kept."""
        return {
            "node": self.node,
            "collection": self.collection_id,
            "parts": list(self.parts),
            "records": {name: list(parts) for name, parts in self.records.items()},
            "differing_records": self.differing,
            "undecided": self.undecided,
            "trouble": self.trouble,
        }


def copies_of(digests: Mapping[str, CollectionDigest]) -> dict[str, str | None]:
    """What `judge` takes, of the nodes that could compare this collection."""
    return {
        node: None if digest.trouble is not None else digest.root
        for node, digest in digests.items()
        if digest.skipped is None
    }


def findings(
    collection_id: str,
    digests: Mapping[str, CollectionDigest],
    records: Mapping[str, Mapping[str, bytes]],
) -> list[Finding]:
    """What is wrong with a collection, node by node; nothing if all who could be compared are equal.

    `records` are the digests of the parts of those records that were looked at one by one, by node.
    """
    judgement = judge(copies_of(digests))
    found: list[Finding] = []
    for node in sorted(judgement.wrong):
        mine = digests[node]
        others = judgement.right or (judgement.wrong - {node})
        if mine.trouble is not None:
            unread = not judgement.right
            found.append(
                Finding(node, collection_id, ("unreadable",), undecided=unread, trouble=mine.trouble)
            )
            continue
        parts: list[str] = []
        differing: dict[str, tuple[str, ...]] = {}
        for other in sorted(others):
            theirs = digests[other]
            if theirs.trouble is not None or theirs.root == mine.root:
                continue
            parts += [part for part in mine.header if mine.header[part] != theirs.header.get(part)]
            differing |= _differences(records.get(node, {}), records.get(other, {}))
        parts += [what for one in differing.values() for what in one]
        named = dict(sorted(differing.items())[:NAMED])
        count = len(differing) if node in records else None
        kinds = tuple(dict.fromkeys(parts)) or ("records",)
        found.append(Finding(node, collection_id, kinds, named, count, undecided=not judgement.right))
    return found


def _differences(mine: Mapping[str, bytes], theirs: Mapping[str, bytes]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for record_id in mine.keys() | theirs.keys():
        here, there = mine.get(record_id), theirs.get(record_id)
        if here is None:
            found[record_id] = ("missing",)
        elif there is None:
            found[record_id] = ("extra",)
        elif not here:
            found[record_id] = ("unreadable",)
        elif here != there and there:
            found[record_id] = tuple(
                "metadata of records" if part == "metadata" else part
                for at, part in enumerate(PARTS)
                if here[at * PART_BYTES : (at + 1) * PART_BYTES]
                != there[at * PART_BYTES : (at + 1) * PART_BYTES]
            )
    return found


def poor_indexes(digests: Mapping[str, CollectionDigest]) -> dict[str, tuple[int, int]]:
    """Nodes whose index finds markedly fewer records by their own vectors than the best of the others:
    how many it was asked for, and how many it found. A warning: the records themselves are equal."""
    shares = {node: digest.found / digest.asked for node, digest in digests.items() if digest.asked}
    best = max(shares.values(), default=0.0)
    poor: dict[str, tuple[int, int]] = {}
    for node, share in shares.items():
        digest = digests[node]
        missed = best * digest.asked - digest.found
        if best - share > _WORSE and missed >= _WORSE_RECORDS:
            poor[node] = (digest.asked, digest.found)
    return poor


def odd_ones(values: Mapping[str, str]) -> Judgement:
    """Who differs in a value that every node has (its replicated state)."""
    return judge(dict(values))
