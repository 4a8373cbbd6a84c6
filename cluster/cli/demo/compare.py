"""Reads what each node holds by itself, past the balancer, so that nodes can be held against each other."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cluster.cli.demo.ledger import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cluster.cli.demo.local import LocalCluster

PAGE: Final = 500
#: The node answers from its own Chroma and asks nobody.
OWN_VIEW: Final = {"X-Chroma-Consistency": "eventual"}
API: Final = "/api/v2/tenants/default_tenant/databases/default_database"


@dataclass(frozen=True, slots=True)
class Digest:
    """A node's records in one line."""

    records: int
    vectors: int
    dimension: int
    value: str


def records_of(cluster: LocalCluster, url: str, collection_id: str) -> Iterator[tuple[str, Record]]:
    """Every record that the node at `url` holds, page by page, vectors included."""
    offset = 0
    while True:
        page = cluster.ask(
            url,
            f"{API}/collections/{collection_id}/get",
            {
                "limit": PAGE,
                "offset": offset,
                "include": ["documents", "metadatas", "embeddings", "uris"],
            },
            OWN_VIEW,
        )
        yield from records_in(page)
        if len(page["ids"]) < PAGE:
            return
        offset += PAGE


def records_in(page: Mapping[str, Any]) -> Iterator[tuple[str, Record]]:
    """The records in one answer to `get`.

    The JSON number of a float32 is long enough to give its bits back, so that equal bytes here are
    equal bits there.
    """
    ids = page["ids"]
    empty = [None] * len(ids)
    documents, metadatas = page.get("documents") or empty, page.get("metadatas") or empty
    vectors, uris = page.get("embeddings") or empty, page.get("uris") or empty
    for at, key in enumerate(ids):
        vector = None if vectors[at] is None else np.asarray(vectors[at], dtype="<f4").tobytes()
        yield key, Record(documents[at], metadatas[at], uris[at], vector)


def digest(records: Mapping[str, Record]) -> Digest:
    """One hash over all records in order of id."""
    total = hashlib.blake2b(digest_size=8)
    vectors = dimension = 0
    for key in sorted(records):
        record = records[key]
        text = json.dumps([key, record.document, record.metadata, record.uri], sort_keys=True)
        total.update(text.encode())
        if record.vector is not None:
            total.update(record.vector)
            vectors += 1
            dimension = len(record.vector) // 4
    return Digest(len(records), vectors, dimension, total.hexdigest())
