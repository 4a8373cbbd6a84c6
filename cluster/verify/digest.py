"""What a node says of a collection at one place of the log: digests by bucket, whatever the order; pure.

Digests of records are added up, modulo 2**128, so that the order in which they are read does not count; twice
the same record counts twice. A bucket holds the records whose ids hash to it: two nodes whose buckets are
equal have the same records there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cluster.chroma.digesting import BUCKETS, bucket_of, digest_value

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from cluster.chroma.interface import RecordDigest

#: In place of a collection: the node as a whole, its replicated state or what else is in its Chroma.
NODE: Final = "*"

#: Why a collection need not be compared: it is gone by now, or nobody reads it any more.
DELETED: Final = "it was deleted while it was digested"
SET_ASIDE: Final = "the cluster has set it aside: it cannot be read"

_MODULUS: Final = 1 << 128

#: What of a collection itself is compared, and where it is in `Engine.collection`.
HEADER: Final = {
    "name": ("tenant", "database", "name"),
    "metadata": ("metadata",),
    "configuration": ("configuration_json", "schema"),
    "dimension": ("dimension",),
}


def header_of(rendered: Mapping[str, Any]) -> dict[str, str]:
    """Digests of the parts of a collection as `Engine.collection` gives it."""
    return {
        part: digest_value([rendered.get(name) for name in names]).hex() for part, names in HEADER.items()
    }


@dataclass(slots=True)
class Tally:
    """The records of one collection, added one by one."""

    count: int = 0
    buckets: dict[int, int] = field(default_factory=dict[int, int])

    def add(self, digests: Iterable[RecordDigest]) -> None:
        """Count these records in; each of them once in the life of a tally."""
        for digest in digests:
            bucket = bucket_of(digest.id)
            self.buckets[bucket] = (self.buckets.get(bucket, 0) + int.from_bytes(digest.whole) + 1) % _MODULUS
            self.count += 1

    def told(self) -> dict[int, str]:
        """The buckets that are not empty, in a form that can be sent."""
        return {bucket: f"{total:032x}" for bucket, total in sorted(self.buckets.items())}

    def root(self, header: Mapping[str, str]) -> str:
        """One digest of the whole collection."""
        told = [[bucket, total] for bucket, total in self.told().items()]
        return digest_value([dict(header), self.count, told]).hex()


@dataclass(frozen=True, slots=True)
class CollectionDigest:
    """One collection on one node.

    `trouble` says why it cannot be read there: then the rest is of no use. `skipped` says why it could not be
    compared this time: it was dropped since, or Chroma was being restarted. `asked` and `found` are how many
    records were looked for by their own vectors, and how many were among the nearest ten.
    """

    root: str = ""
    count: int = 0
    header: dict[str, str] = field(default_factory=dict[str, str])
    trouble: str | None = None
    skipped: str | None = None
    asked: int = 0
    found: int = 0

    def encode(self) -> list[Any]:
        """As JSON has it."""
        return [self.root, self.count, self.header, self.trouble, self.skipped, self.asked, self.found]

    @staticmethod
    def decode(told: Any) -> CollectionDigest:
        """Inverse of `encode`.

        Raises:
            ValueError, TypeError: it is none.
        """
        root, count, header, trouble, skipped, asked, found = told
        names = {str(part): str(digest) for part, digest in dict(header).items()}
        return CollectionDigest(
            str(root),
            int(count),
            names,
            None if trouble is None else str(trouble),
            None if skipped is None else str(skipped),
            int(asked),
            int(found),
        )


def differing_buckets(told: Collection[Mapping[int, str]]) -> list[int]:
    """The buckets in which nodes differ, sorted; `told` are their non-empty ones."""
    return [bucket for bucket in range(BUCKETS) if len({buckets.get(bucket, "") for buckets in told}) > 1]
