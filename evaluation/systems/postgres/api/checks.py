"""What Chroma refuses in a request, in its order and its words; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.api.fields import ASK, Undecodable
from cluster.api.names import check_database_name, invalid, parse_collection_id
from cluster.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cluster.api.bodies import RecordsBody
    from evaluation.systems.postgres.api.exchange import Request


def home_of(request: Request) -> tuple[str, str]:
    """Tenant and database."""
    check_database_name(request.parameters["database"])
    return request.parameters["tenant"], request.parameters["database"]


def collection_id_of(request: Request) -> str:
    check_database_name(request.parameters["database"])
    return parse_collection_id(request.parameters["collection_id"])


def check_form(given: RecordsBody, dimension: int | None) -> None:
    """What Chroma refuses once it has found the collection, in its order."""
    if given.problem == ASK:
        raise Undecodable
    if isinstance(given.problem, Refusal):
        raise given.problem
    vectors = given.vectors
    if vectors is not None and vectors.ragged:
        raise invalid("Inconsistent dimensions in provided embeddings")
    if given.uneven:
        check_dimension(dimension, vectors.dimension if vectors is not None else None)
        raise invalid("Inconsistent number of IDs, embeddings, documents, URIs and metadatas")


def check_dimension(known: int | None, given: int | None) -> None:
    if None not in (known, given) and known != given:
        raise invalid(f"Collection expecting embedding with dimension of {known}, got {given}")


def check_queries(rows: Sequence[NDArray[np.float32]], dimension: int | None) -> None:
    if len({row.shape[0] for row in rows}) > 1:
        raise invalid("Inconsistent dimensions in provided embeddings")
    for row in rows:
        check_dimension(dimension, row.shape[0])
        if not np.isfinite(row).all():
            raise invalid("Postgres does not compare vectors with NaN or infinity in them.")


def check_records(given: RecordsBody) -> None:
    if "" in given.ids:
        raise invalid("Empty ID, ID must have at least one character")
    metadatas: Sequence[Any] = given.metadatas or ()
    for metadata in metadatas:
        for key, value in (metadata or {}).items():
            if isinstance(value, dict):
                message = f"Unimplemented: Sparse vector is not supported for local chroma: {key}"
                raise Refusal(501, "ChromaError", message)
