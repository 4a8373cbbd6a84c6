"""What a request may ask of Chroma's engine: one table of bounds, and the refusal beyond one; pure.

Every replica would take the same blow, so what is beyond a bound is refused before an engine sees it. The
bounds lie well below what Chroma 1.5.9 survives, found by trying, and above what stock clients need; what
Chroma refuses by itself in time has no bound here. `docs/compatibility.md` shows this table, and a test holds
them together. What is counted against them is in `bounds`, `filters`, `patterns` and `settings`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cluster.api.names import invalid

if TYPE_CHECKING:
    from cluster.errors import Refusal

_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `most` of `what`; `fails` is where Chroma itself does, `advice` what to do instead."""

    what: str
    most: int
    fails: str
    advice: str

    def refuse(self, found: int, where: str = "") -> Refusal:
        """The refusal of a request that has `found`, more than `most`."""
        place = f" ({where})" if where else ""
        return invalid(
            f"Over a limit: {self.what}: {found:,}{place}, at most {self.most:,}. Nothing was changed. "
            f"{self.advice}"
        )

    def check(self, found: int, where: str = "") -> None:
        """Raises:
        Refusal: 400, `found` is more than allowed.
        """
        if found > self.most:
            raise self.refuse(found, where)


_FEWER_CONDITIONS: Final = "Use $in for a set of values, or ask in parts."
_IN_PARTS: Final = "Ask in parts."
_SPLIT: Final = "Send it in parts."
_ELSEWHERE: Final = "Keep it elsewhere and refer to it."

PARTS: Final = Limit(
    "lists, objects and named values in a request",
    1_000_000,
    "time only; here 14 million in a body of 40 MiB would stop a node for 6 s",
    _SPLIT,
)
CONDITIONS: Final = Limit(
    "conditions in the filters of a request",
    512,
    "a list of 992 raises, one of 8,125 kills the process; a tree of 4,096 computes for 10 s",
    _FEWER_CONDITIONS,
)
FILTER_VALUES: Final = Limit(
    "values in the lists of a request's filters",
    10_000,
    "16,625 numbers or 32,812 strings raise; a million takes 1 GB",
    _IN_PARTS,
)
FILTER_BYTES: Final = Limit(
    "bytes of a request's filters",
    _MIB,
    "memory is seven times the bytes",
    _IN_PARTS,
)
PHRASE_BYTES: Final = Limit(
    "bytes of a text in $contains or $not_contains of documents",
    10_000,
    "60,000 raise, of % and _ 24,000",
    "Look for a shorter text.",
)
REGEXES: Final = Limit(
    "regular expressions in a request", 16, "500 can compute for 40 s", "Join them by |, or ask in parts."
)
REGEX_BYTES: Final = Limit(
    "bytes of a regular expression",
    4_096,
    "437,500 raise; ten million take 1.6 GB",
    "Use a shorter expression.",
)
REGEX_COST: Final = Limit(
    "cost of a request's regular expressions",
    4_096,
    r"`(\w+ ){70}` computes for 5 s on a MB of text, `(\w+ ){100}` for 25 s; no client can stop it",
    r"A literal costs 1, a set like [a-z] 4, \d, \s or . 16, \w or \p 128, each as often as it is repeated: "
    r"repeat less, or use [A-Za-z0-9_] in place of \w.",
)
READ_IDS: Final = Limit("ids in a get or query", 10_000, "32,750 raise", _IN_PARTS)
QUERY_VECTORS: Final = Limit(
    "vectors or texts in a query",
    4_096,
    "time and memory only: 1,000 for 1,000 results each take 8 s",
    _IN_PARTS,
)
QUERY_RESULTS: Final = Limit(
    "results of a query (vectors times n_results, or times the records if they are fewer)",
    1_000_000,
    "time and memory only: 1,000,000 take 8 s and 130 MB",
    "Ask for fewer results, or in parts.",
)
DELETE_IDS: Final = Limit(
    "ids in a delete", 10_000, "100,000 hold up all writes for 5 s, a million for over 30 s", _SPLIT
)
RECORDS: Final = Limit(
    "records in a request", 20_000, "time only; `chroma run` takes more than its batch of 5,461", _SPLIT
)
RECORD_KEYS: Final = Limit(
    "metadata keys of a record, its document and uri among them",
    2_048,
    "5,462 are stored and stop the collection for good",
    _ELSEWHERE,
)
LIST_ITEMS: Final = Limit(
    "items in all metadata lists of a record",
    4_096,
    "5,462 are stored and stop the collection for good",
    _ELSEWHERE,
)
METADATA_VALUES: Final = Limit(
    "metadata values in a request", 400_000, "time only: 100,000 hold up all writes for 3 s", _SPLIT
)
KEY_BYTES: Final = Limit(
    "bytes of a metadata key", 4_096, "time and memory only, up to ten million", "Use a shorter key."
)
ID_BYTES: Final = Limit(
    "bytes of an id", 4_096, "time and memory only, up to ten million", "Use a shorter id, such as a hash."
)
TEXT_BYTES: Final = Limit(
    "bytes of a document, uri or metadata string",
    8 * _MIB,
    "each write reads again what is not in the index yet: 60 of 1.7 MB cost every write to them 2.5 s",
    "Split the text, or keep it elsewhere and refer to it.",
)
DIMENSION: Final = Limit(
    "dimensions of a vector",
    16_384,
    "a million: 3 s a record; ten million: each access takes over 30 s",
    "Use an embedding of fewer dimensions.",
)
COLLECTION_KEYS: Final = Limit("metadata keys of a collection", 2_048, "5,462 raise", _ELSEWHERE)
DEFINITION_BYTES: Final = Limit(
    "bytes of a collection's metadata, configuration or schema, each",
    512 * 1024,
    "memory only: every list of collections carries it",
    _ELSEWHERE,
)
SCHEMA_KEYS: Final = Limit(
    "keys of a schema", 1_000, "100,000: every add takes 5 s", "Set `defaults` for what keys have in common."
)
TENANT_BYTES: Final = Limit(
    "bytes of a tenant's name", 1_024, "takes a million; no tenant is ever deleted", "Use a shorter name."
)
RESOURCE_BYTES: Final = Limit(
    "bytes of a tenant's resource name", 4_096, "takes a million, and forgets it", "Use a shorter name."
)

#: In the order of the documentation.
LIMITS: Final = (
    PARTS,
    CONDITIONS,
    FILTER_VALUES,
    FILTER_BYTES,
    PHRASE_BYTES,
    REGEXES,
    REGEX_BYTES,
    REGEX_COST,
    READ_IDS,
    QUERY_VECTORS,
    QUERY_RESULTS,
    DELETE_IDS,
    RECORDS,
    RECORD_KEYS,
    LIST_ITEMS,
    METADATA_VALUES,
    KEY_BYTES,
    ID_BYTES,
    TEXT_BYTES,
    DIMENSION,
    COLLECTION_KEYS,
    DEFINITION_BYTES,
    SCHEMA_KEYS,
    TENANT_BYTES,
    RESOURCE_BYTES,
)


def check_text(limit: Limit, text: str, where: str = "") -> None:
    """Raises:
    Refusal: 400, `text` has more bytes than `limit` allows.
    """
    # A character has one to four bytes, so nearly all texts need not be encoded.
    if len(text) * 4 > limit.most:
        limit.check(len(text.encode()), where)
