"""Everything of a journal but its entries, as one checked record: whose it is, its promises, its standing."""

from __future__ import annotations

import logging
import zlib
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import msgpack

from cluster.errors import Fault
from cluster.raft.configuration import decode_configuration, encode_configuration, founding

if TYPE_CHECKING:
    from cluster.raft.interface import Configuration

logger = logging.getLogger(__name__)

FORMAT = 3
_FORMAT_1_FIELDS = 10


class Standing(IntEnum):
    """What a node's word counts (see `standing.py`)."""

    NEW = 0
    """Its journal was created and it has not been founded or admitted yet: it has no vote."""
    VOTER = 1
    """All that it ever promised is in its journal."""
    FORGETFUL = 2
    """It promised more than its journal holds: it has no vote until a leader admits it again."""


@dataclass(frozen=True, slots=True)
class Known:
    """What this node has seen a peer promise: up to which index it held committed entries, in which term."""

    incarnation: str
    term: int
    index: int


@dataclass(frozen=True, slots=True)
class Meta:
    """`base` is the last compacted entry (0, 0 at first). `configuration` is the one in force there, encoded:
    at first the members that the journal was founded with.
    """

    cluster_id: str
    node_id: str
    term: int = 0
    vote: str | None = None
    commit_index: int = 0
    base_index: int = 0
    base_term: int = 0
    last_index: int = 0
    last_term: int = 0
    sequence: int = 0
    configuration: bytes = b""
    incarnation: str = ""
    standing: Standing = Standing.NEW
    known: dict[str, Known] = field(default_factory=dict[str, Known])

    def encode(self) -> bytes:
        body: bytes = msgpack.packb(
            [
                FORMAT,
                self.cluster_id,
                self.node_id,
                self.term,
                self.vote,
                self.commit_index,
                self.base_index,
                self.base_term,
                self.last_index,
                self.last_term,
                self.sequence,
                self.configuration,
                self.incarnation,
                int(self.standing),
                [[peer, it.incarnation, it.term, it.index] for peer, it in sorted(self.known.items())],
            ]
        )
        return zlib.crc32(body).to_bytes(4, "big") + body

    @staticmethod
    def decode(data: bytes, new: Meta | None = None) -> tuple[Meta, bool]:
        """The record, and whether it has to be written anew: earlier formats knew less.

        Format 1 knew neither members nor standing. A journal of it that holds anything has voted and
        acknowledged: it gets the members of `new`, as configured now, its incarnation, and a vote. Format 2
        knew the ids that the cluster was founded with, which are its members still.

        Raises:
            ValueError: the bytes are not exactly what `encode` wrote.
        """
        body = data[4:]
        if len(data) < 5 or zlib.crc32(body) != int.from_bytes(data[:4], "big"):
            raise ValueError("the checksum of the meta record does not match")
        fields: list[Any] = msgpack.unpackb(body)
        if fields[0] == 1:
            old = Meta(*fields[1 : _FORMAT_1_FIELDS + 1])
            new = new or old
            was_used = old.term > 0 or old.last_index > 0
            standing = Standing.VOTER if was_used else Standing.NEW
            return replace(
                old, configuration=new.configuration, incarnation=new.incarnation, standing=standing
            ), True
        if fields[0] not in (2, FORMAT):
            raise ValueError(f"it has format {fields[0]}, this version reads formats 1 to {FORMAT}")
        *plain, members, incarnation, standing, known = fields[1:]
        configuration = members if fields[0] == FORMAT else encode_configuration(founding(members))
        decode_configuration(configuration)
        peers = {peer: Known(life, term, index) for peer, life, term, index in known}
        standing = Standing(standing)
        old = Meta(*plain)
        found = replace(
            old, configuration=configuration, incarnation=incarnation, standing=standing, known=peers
        )
        return found, fields[0] != FORMAT


def check_members(held: Configuration, configured: tuple[str, ...], node_id: str, name: str) -> None:
    """The members are those of the journal, whatever is configured. Told is what does not fit.

    A cluster whose members were never changed is not started with others: somebody takes the settings for the
    way to change them.

    Raises:
        Fault: the journal was founded with other members than those that are configured now.
    """
    if not configured or not held.members or configured == held.ids:
        return
    missing = [node for node in held.ids if node not in configured]
    extra = [node for node in configured if node not in held.ids]
    what = [f"{', '.join(missing)} missing"] if missing else []
    what += [f"{', '.join(extra)} too many"] if extra else []
    if held.number:
        logger.warning(
            "raft %s: the settings name other members than the cluster has: %s. Those of the cluster "
            "count (%s); they are changed with `chroma-cluster members`. "
            "Correct the setting `peers` when convenient",
            node_id,
            " and ".join(what),
            ", ".join(held.ids),
        )
        return
    raise Fault(
        f"The journal {name} was founded with the members {', '.join(held.ids)}, but node "
        f"{node_id} is started with {', '.join(configured)}: {' and '.join(what)}. Nothing was "
        "changed. Start it with the members that it knows (the setting `peers`, the flag `--peer`), also if "
        "others were added or removed while it was away: it learns that from them. Members are added and "
        "removed with `chroma-cluster members`, while the cluster runs."
    )


def damaged_advice() -> str:
    """What may be done about a journal that is lost; what is true of it is shown in docs/raft.md."""
    return (
        "If all other nodes are up and healthy, or a majority of the cluster without this node is, move the "
        "node's whole data directory away and start it again: it takes everything from the others and has "
        "no vote until it has done so. Otherwise start the others first. Do not put an old copy of the "
        "directory back: a copy has forgotten what was acknowledged after it was made."
    )
