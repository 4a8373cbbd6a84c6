"""What nodes say to each other: frozen values, each stamped with its sender's term, and their msgpack form.

`decode` accepts exactly what `encode` makes: any other bytes raise ValueError, so that a message that
exists has fields of the right types and entries whose checksums match.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import msgpack

from cluster.raft.journal import checksum

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_INTEGER = 2**62
MAX_NAME = 64


@dataclass(frozen=True, slots=True)
class PreVote:
    """Would you vote for me in term `proposed`? Changes nothing on either side. `needed`: see `Vote`."""

    term: int
    proposed: int
    last_index: int
    last_term: int
    needed: bool = False


@dataclass(frozen=True, slots=True)
class PreVoteReply:
    term: int
    proposed: int
    granted: bool


@dataclass(frozen=True, slots=True)
class Vote:
    """`transfer` marks an election that the leader itself asked for: it overrides leader stickiness.

    `needed`: the candidate is in every majority, so it holds all that was ever committed, and nobody was
    elected without its vote: a receiver that has forgotten what it promised may vote for it.
    """

    term: int
    last_index: int
    last_term: int
    transfer: bool
    needed: bool = False


@dataclass(frozen=True, slots=True)
class VoteReply:
    term: int
    granted: bool


@dataclass(frozen=True, slots=True)
class WireEntry:
    term: int
    crc: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Append:
    """Entries that follow (prev_index, prev_term). `floor`: every member holds all entries up to it."""

    term: int
    prev_index: int
    prev_term: int
    commit: int
    floor: int
    entries: tuple[WireEntry, ...]


@dataclass(frozen=True, slots=True)
class Accepted:
    """The sender's log equals the leader's up to `match`, durably."""

    term: int
    match: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """The entry at prev_index is not the leader's; the run of `conflict_term` starts at `conflict_index`.

    conflict_term 0: the log ends before prev_index, at conflict_index - 1. Also the answer to a message
    of an old term: then only the term counts.
    """

    term: int
    prev_index: int
    conflict_index: int
    conflict_term: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """`round` numbers the leader's quorum rounds; 0 only brings the commit index and wants no reply.

    The rest says how old `commit` is (see `freshness.py`): `echo` is the newest round that the receiver has
    answered as far as the leader knows, `heard_us` how long ago that answer came in, `led_us` how long ago
    the leader surely led, in microseconds by its clock at sending. Echo 0: it claims nothing.
    """

    term: int
    commit: int
    floor: int
    round: int
    echo: int = 0
    heard_us: int = 0
    led_us: int = 0


@dataclass(frozen=True, slots=True)
class HeartbeatReply:
    term: int
    round: int


@dataclass(frozen=True, slots=True)
class TimeoutNow:
    """The leader asks the receiver to stand for election at once."""

    term: int


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message on a connection, and again when it changes: who the sender is, as a memory.

    `incarnation` names the life of the sender's journal, `standing` what its word counts (see
    `standing.py`), `last_index` how far its log goes, `knows` the receiver's incarnation as the sender has it
    on record, "" for none; `number` is that of the configuration in force at the sender.
    """

    term: int
    incarnation: str
    standing: int
    last_index: int
    knows: str
    number: int = 0


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The receiver's journal, in this incarnation, lacks what the sender has seen it promise."""

    term: int
    incarnation: str


@dataclass(frozen=True, slots=True)
class Admitted:
    """The leader: this incarnation of the receiver holds all that it can ever have promised. It may vote."""

    term: int
    incarnation: str


@dataclass(frozen=True, slots=True)
class Unservable:
    """The receiver needs entries from `needs` on; the leader has compacted them away up to `compacted`."""

    term: int
    needs: int
    compacted: int


@dataclass(frozen=True, slots=True)
class Removed:
    """The receiver is no member any more, by the committed configuration `number` (0: it never was one)."""

    term: int
    number: int


Message: TypeAlias = (
    Hello
    | Removed
    | Forgotten
    | Admitted
    | Unservable
    | PreVote
    | PreVoteReply
    | Vote
    | VoteReply
    | Append
    | Accepted
    | Rejected
    | Heartbeat
    | HeartbeatReply
    | TimeoutNow
)


def encode(message: Message) -> bytes:
    """The msgpack form: an array of the kind's number and the fields in their order."""
    match message:
        case Append(term, prev_index, prev_term, commit, floor, entries):
            rows = [[entry.term, entry.crc, entry.payload] for entry in entries]
            fields = [1, term, prev_index, prev_term, commit, floor, rows]
        case Accepted(term, match_index):
            fields = [2, term, match_index]
        case Heartbeat(term, commit, floor, number, echo, heard_us, led_us):
            fields = [3, term, commit, floor, number, echo, heard_us, led_us]
        case HeartbeatReply(term, number):
            fields = [4, term, number]
        case Rejected(term, prev_index, conflict_index, conflict_term):
            fields = [5, term, prev_index, conflict_index, conflict_term]
        case PreVote(term, proposed, last_index, last_term, needed):
            fields = [6, term, proposed, last_index, last_term, needed]
        case PreVoteReply(term, proposed, granted):
            fields = [7, term, proposed, granted]
        case Vote(term, last_index, last_term, transfer, needed):
            fields = [8, term, last_index, last_term, transfer, needed]
        case VoteReply(term, granted):
            fields = [9, term, granted]
        case TimeoutNow(term):
            fields = [10, term]
        case Hello(term, incarnation, standing, last_index, knows, number):
            fields = [11, term, incarnation, standing, last_index, knows, number]
        case Forgotten(term, incarnation):
            fields = [12, term, incarnation]
        case Admitted(term, incarnation):
            fields = [13, term, incarnation]
        case Unservable(term, needs, compacted):
            fields = [14, term, needs, compacted]
        case Removed(term, number):
            fields = [15, term, number]
    return msgpack.packb(fields)


_KINDS: dict[int, tuple[type[Any], str]] = {
    2: (Accepted, "ii"),
    3: (Heartbeat, "iiiiiii"),
    4: (HeartbeatReply, "ii"),
    5: (Rejected, "iiii"),
    6: (PreVote, "iiiib"),
    7: (PreVoteReply, "iib"),
    8: (Vote, "iiibb"),
    9: (VoteReply, "ib"),
    10: (TimeoutNow, "i"),
    11: (Hello, "isiisi"),
    12: (Forgotten, "is"),
    13: (Admitted, "is"),
    14: (Unservable, "iii"),
    15: (Removed, "ii"),
}


def decode(data: bytes) -> Message:
    """The message in `data`.

    Raises:
        ValueError: the bytes are not a message, or an entry fails its checksum.
    """
    try:
        unpacked: Any = msgpack.unpackb(data)
    except Exception as error:  # msgpack raises several unrelated types on foreign bytes
        raise ValueError(f"not a msgpack message: {error}") from error
    if not isinstance(unpacked, list) or not unpacked:
        raise ValueError("not an array")
    kind, *fields = cast("list[Any]", unpacked)
    if kind == 1 and type(kind) is int:
        return _decode_append(fields)
    known = _KINDS.get(kind) if type(kind) is int else None
    if known is None:
        raise ValueError("of an unknown kind")
    make, types = known
    if len(fields) != len(types):
        raise ValueError(f"{make.__name__} with {len(fields)} fields")
    for value, wanted in zip(fields, types, strict=True):
        if not _FITS[wanted](value):
            raise ValueError(f"{make.__name__} with a field that is out of range")
    return make(*fields)


def _decode_append(fields: list[Any]) -> Append:
    if len(fields) != 6 or not all(_is_count(value) for value in fields[:5]) or type(fields[5]) is not list:
        raise ValueError("Append with wrong fields")
    term, prev_index, prev_term, commit, floor = fields[:5]
    entries: list[WireEntry] = []
    last_term = prev_term
    for offset, row in enumerate(cast("list[Any]", fields[5])):
        if type(row) is not list or len(cast("list[Any]", row)) != 3:
            raise ValueError("Append with a wrong entry")
        entry_term, crc, payload = cast("list[Any]", row)
        if not (_is_count(entry_term) and _is_count(crc) and type(payload) is bytes):
            raise ValueError("Append with a wrong entry")
        if not last_term <= entry_term <= term:
            raise ValueError("Append with terms out of order")
        if checksum(prev_index + 1 + offset, entry_term, payload) != crc:
            raise ValueError(f"Append with a damaged entry at index {prev_index + 1 + offset}")
        entries.append(WireEntry(entry_term, crc, payload))
        last_term = entry_term
    return Append(term, prev_index, prev_term, commit, floor, tuple(entries))


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < MAX_INTEGER


def _is_bool(value: Any) -> bool:
    return type(value) is bool


def _is_name(value: Any) -> bool:
    return type(value) is str and len(value) <= MAX_NAME


_FITS: dict[str, Callable[[Any], bool]] = {"i": _is_count, "b": _is_bool, "s": _is_name}
