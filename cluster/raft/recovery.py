"""A majority is lost for good: one of the nodes that are left goes on alone, as another cluster. Offline.

What that node has in its log is kept, committed or not; what only the lost ones had is gone, also what was
acknowledged. The new cluster has another id, so that no node of the old one can come back into it: neither
side lets the other in, and their journals do not start under it.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cluster.errors import Fault
from cluster.raft.configuration import encode_configuration
from cluster.raft.interface import Configuration, Member
from cluster.raft.journal import Journal
from cluster.raft.meta import Meta

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Remains:
    """What a stopped node's journal holds. `committed` is what it knows to be; `last` is its last entry."""

    cluster_id: str
    node_id: str
    committed: int
    last: int
    term: int
    configuration: Configuration


def remains(path: Path) -> Remains:
    """Look at the journal of a stopped node; nothing is changed.

    Raises:
        Fault: it is missing or damaged.
    """
    with closing(_open(path)) as journal:
        meta = journal.meta
        ids, ends = (meta.cluster_id, meta.node_id), (meta.commit_index, meta.last_index, meta.term)
        return Remains(*ids, *ends, journal.configuration)


def refound(path: Path, cluster_id: str, incarnation: str) -> Remains:
    """Make the journal's node the only voter of a new cluster, which begins with all that it holds.

    Raises:
        Fault: the journal is missing or damaged; nothing was changed.
    """
    with closing(_open(path)) as journal:
        held = journal.configuration.member(journal.meta.node_id)
        alone = replace(held or Member(journal.meta.node_id), is_voter=True, incarnation=incarnation)
        configuration = Configuration(journal.configuration.number + 1, (alone,))
        journal.refound(cluster_id, incarnation, encode_configuration(configuration))
        journal.flush()
    return remains(path)


def _open(path: Path) -> Journal:
    """Raises Fault."""
    if not path.exists():
        raise Fault(f"There is no journal {path}. Nothing was changed. Name the directory of a node.")
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as connection:
            row = connection.execute("SELECT body FROM meta").fetchone()
        meta, _ = Meta.decode(bytes(row[0])) if row else (None, False)
    except (sqlite3.Error, ValueError, TypeError, IndexError) as error:
        raise Fault(f"The journal {path} cannot be read ({error}). Nothing was changed.") from error
    if meta is None:
        raise Fault(f"The journal {path} is empty. Nothing was changed.")
    return Journal.open(path, meta.cluster_id, meta.node_id)
