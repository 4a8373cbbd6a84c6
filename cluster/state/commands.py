"""Frozen commands, the only things that change state, and their msgpack form.

What could differ between nodes is in the command before it is proposed: vectors as float32 bytes,
ids, collection ids, the fingerprint of the model that embedded. One thing each replica finds out for
itself: which records a delete by filter removes. They are the same ones on every replica, for they
follow from the records before it and their order of insertion, which the log fixes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import msgpack

from cluster.levels import FIRST_LEVEL

WIRE_VERSION: Final = 1

#: A metadata value as JSON has it: str, int, float, bool, None, a list of one scalar kind, or a
#: sparse vector `{"#type": "sparse_vector", "indices": [...], "values": [...], "tokens"?: [...]}`.
MetadataValue: TypeAlias = Any
Metadata: TypeAlias = dict[str, MetadataValue]


@dataclass(frozen=True, slots=True)
class CreateTenant:
    name: str


@dataclass(frozen=True, slots=True)
class UpdateTenant:
    name: str
    resource_name: str


@dataclass(frozen=True, slots=True)
class CreateDatabase:
    tenant: str
    name: str
    database_id: str


@dataclass(frozen=True, slots=True)
class DeleteDatabase:
    tenant: str
    name: str


@dataclass(frozen=True, slots=True)
class CreateCollection:
    """`configuration` and `schema` are JSON texts as Chroma's engine takes them, or None."""

    tenant: str
    database: str
    name: str
    collection_id: str
    get_or_create: bool
    metadata: Metadata | None
    configuration: str | None
    schema: str | None


@dataclass(frozen=True, slots=True)
class UpdateCollection:
    collection_id: str
    new_name: str | None
    new_metadata: Metadata | None
    new_configuration: str | None


@dataclass(frozen=True, slots=True)
class DeleteCollection:
    tenant: str
    database: str
    name: str


WriteKind: TypeAlias = Literal["add", "upsert", "update"]


@dataclass(frozen=True, slots=True)
class WriteRecords:
    """Add, upsert or update of records; all sequences have the length of `ids`.

    `embeddings` holds one entry a record: float32 little-endian bytes of `dimension` values, or
    None (only in an update). `embeddings` itself is None for an update without vectors.
    `model` is the fingerprint of the model if this cluster embedded the documents, else None.
    """

    kind: WriteKind
    collection_id: str
    ids: tuple[str, ...]
    dimension: int | None
    embeddings: tuple[bytes | None, ...] | None
    metadatas: tuple[Metadata | None, ...] | None
    documents: tuple[str | None, ...] | None
    uris: tuple[str | None, ...] | None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class DeleteRecords:
    """`where` and `where_document` are JSON texts; `limit` caps the records deleted."""

    collection_id: str
    ids: tuple[str, ...] | None
    where: str | None
    where_document: str | None
    limit: int | None


@dataclass(frozen=True, slots=True)
class Reset:
    """Forget everything and start again with the default tenant and database."""


@dataclass(frozen=True, slots=True)
class RefuseEntry:
    """A majority's engines fail on one write, and the cluster agrees to answer it with an error.

    The write is proposal `position` of the earlier log entry `index`, of which `part` engine calls were
    done before. It is answered with `status`, `error` and `message`. `broken` says that its collection
    could not be read afterwards: it is set aside. Only a leader proposes this, no client can.
    """

    index: int
    position: int
    part: int
    status: int
    error: str
    message: str
    broken: bool


@dataclass(frozen=True, slots=True)
class Verify:
    """Every node digests what it has at this place of the log, so that replicas can be compared.

    Changes nothing. `narrow` maps collections to those buckets of their records (`cluster.chroma.digesting`)
    whose records are to be told one by one; None: digests of all collections. Only a leader proposes this.
    """

    round_id: str
    narrow: dict[str, list[int]] | None


@dataclass(frozen=True, slots=True)
class RaiseLevel:
    """Every member understands the kinds of commands up to `level`: from here on they may be proposed.

    Only a leader proposes this (`cluster.levels`). The level in force never falls.
    """

    level: int


Command: TypeAlias = (
    CreateTenant
    | UpdateTenant
    | CreateDatabase
    | DeleteDatabase
    | CreateCollection
    | UpdateCollection
    | DeleteCollection
    | WriteRecords
    | DeleteRecords
    | Reset
    | RefuseEntry
    | Verify
    | RaiseLevel
)

#: Wire tag of each command. Tags are for ever: a new command gets a new one.
_TAGS: Final[dict[type[Any], int]] = {
    CreateTenant: 1,
    UpdateTenant: 2,
    CreateDatabase: 3,
    DeleteDatabase: 4,
    CreateCollection: 5,
    UpdateCollection: 6,
    DeleteCollection: 7,
    WriteRecords: 8,
    DeleteRecords: 9,
    Reset: 10,
    RefuseEntry: 11,
    Verify: 12,
    RaiseLevel: 13,
}
#: The level that must be in force before a command is proposed; others: the first. A new kind, and a field
#: that earlier builds do not read, gets the next level, for ever: `NEWEST_LEVEL` rises with it.
_LEVELS: Final[dict[type[Any], int]] = {Verify: 2}
#: This build understands the commands of the levels up to this one.
NEWEST_LEVEL: Final = max(FIRST_LEVEL, *_LEVELS.values())
_TYPES: Final[dict[int, type[Any]]] = {tag: kind for kind, tag in _TAGS.items()}
_FIELDS: Final[dict[type[Any], tuple[str, ...]]] = {
    kind: tuple(field.name for field in dataclasses.fields(kind)) for kind in _TAGS
}
_SEQUENCES: Final = frozenset({"ids", "embeddings", "metadatas", "documents", "uris"})


@dataclass(frozen=True, slots=True)
class Proposal:
    """One client's write: its command, and the identity by which a retry is recognised.

    `request_id` is the client's Idempotency-Key (scoped by the API) or a fresh random id.
    `digest` is a hash of the client's request: the same key with another digest is refused.
    """

    request_id: str
    digest: bytes
    command: Command


@dataclass(frozen=True, slots=True)
class Group:
    """What one log entry carries: the proposals that waited together, and log time.

    `time_ms` is milliseconds of `cluster.propose.log_clock`, of no wall clock; every replica takes time from
    here, and the latest so far where an entry's is below it.
    """

    time_ms: int
    proposals: tuple[Proposal, ...]


class NotUnderstood(ValueError):
    """What is in the log is not of a level that this build understands."""


def level_of(command: Command) -> int:
    """The level that must be in force before this may be proposed."""
    return _LEVELS.get(type(command), FIRST_LEVEL)


def require_understood(group: Group, newest: int = NEWEST_LEVEL) -> None:
    """What a node does before it applies anything of a log entry; `newest` is the level that it understands.

    Raises:
        NotUnderstood: it cannot apply what is in it, or what will come after it.
    """
    for proposal in group.proposals:
        command = proposal.command
        level = command.level if isinstance(command, RaiseLevel) else level_of(command)
        if level > newest:
            raise NotUnderstood(
                f"it needs command level {level} ({type(command).__name__}), this build understands levels "
                f"up to {newest}"
            )


def encode_command(command: Command) -> bytes:
    """The msgpack form of one command alone, for a process of the same version."""
    return _pack(_tagged(command))


def decode_command(encoded: bytes) -> Command:
    """Inverse of `encode_command`.

    Raises:
        ValueError: not a command that this version of the program knows.
    """
    tag, values = _unpack(encoded)
    return _untagged(tag, values)


def encode_proposal(proposal: Proposal) -> bytes:
    """The msgpack form of one proposal; groups are put together from these without decoding."""
    return _pack([proposal.request_id, proposal.digest, *_tagged(proposal.command)])


def encode_group(time_ms: int, encoded: list[bytes]) -> bytes:
    """Payload of a log entry from proposals already encoded by `encode_proposal`."""
    return _pack([WIRE_VERSION, time_ms, encoded])


def encode_raise(time_ms: int, level: int) -> bytes:
    """Payload of the log entry that raises the level in force. A second one to the same level repeats it."""
    return encode_group(time_ms, [encode_proposal(Proposal(f"s:level:{level}", b"", RaiseLevel(level)))])


def decode_group(payload: bytes) -> Group:
    """The group in a log entry's payload.

    Raises:
        ValueError: not a payload this version of the program can read.
    """
    version, time_ms, encoded = _unpack(payload)
    if version != WIRE_VERSION:
        raise ValueError(f"log entry has wire version {version}, this program reads {WIRE_VERSION}")
    return Group(time_ms, tuple(decode_proposal(item) for item in encoded))


def decode_proposal(encoded: bytes) -> Proposal:
    """Inverse of `encode_proposal`.

    Raises:
        ValueError: not a proposal that this version of the program knows.
    """
    request_id, digest, tag, values = _unpack(encoded)
    return Proposal(request_id, digest, _untagged(tag, values))


def _tagged(command: Command) -> tuple[int, list[Any]]:
    kind = type(command)
    return _TAGS[kind], [getattr(command, name) for name in _FIELDS[kind]]


def _untagged(tag: int, values: list[Any]) -> Command:
    kind = _TYPES.get(tag)
    if kind is None:
        raise NotUnderstood(f"it has a command with the unknown tag {tag}")
    arguments = {
        name: tuple(value) if name in _SEQUENCES and value is not None else value
        for name, value in zip(_FIELDS[kind], values, strict=True)
    }
    return kind(**arguments)


def _pack(value: Any) -> bytes:
    return msgpack.packb(value, use_bin_type=True)


def _unpack(data: bytes) -> Any:
    return msgpack.unpackb(data, raw=False, strict_map_key=False, use_list=True)
