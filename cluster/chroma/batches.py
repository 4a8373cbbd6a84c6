"""The records of one write as Chroma's bindings take them: checked, and as arrays; no I/O."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, cast

import numpy as np

from cluster.errors import Refusal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cluster.state.commands import MetadataValue, WriteRecords

_DOCUMENT_KEY: Final = "chroma:document"


def check_records(command: WriteRecords) -> None:
    """Refuse what Chroma would notice only after it has written a part, or fixed the dimension.

    A request cannot get here like that, its JSON is checked long before: this is the last gate.

    Raises:
        Refusal: sequences of different lengths, or metadata that a local Chroma cannot store.
    """
    columns = (command.embeddings, command.metadatas, command.documents, command.uris)
    if any(column is not None and len(column) != len(command.ids) for column in columns):
        text = "Inconsistent number of IDs, embeddings, documents, URIs and metadatas"
        raise Refusal(400, "InvalidArgumentError", text)
    for at, metadata in enumerate(command.metadatas or ()):
        documented = command.documents is not None and command.documents[at] is not None
        if metadata and not documented and not isinstance(metadata.get(_DOCUMENT_KEY, ""), str):
            text = f"{_DOCUMENT_KEY} is where Chroma keeps the document: any value but a string stops it"
            raise Refusal(400, "InvalidArgumentError", text)
        for key, value in (metadata or {}).items():
            if isinstance(value, dict):
                text = f"Unimplemented: Sparse vector is not supported for local chroma: {key}"
                raise Refusal(501, "ChromaError", text)
            if not _is_storable(value, removal=command.kind != "add"):
                text = f"Metadata value of {key} is not a string, number, boolean or list of one of them"
                raise Refusal(400, "InvalidArgumentError", text)


def _is_storable(value: MetadataValue, *, removal: bool) -> bool:
    """Whether the bindings convert this value; None removes a key, which an add cannot do."""
    if isinstance(value, list):
        items = cast("list[MetadataValue]", value)
        kinds = (str,) if items and isinstance(items[0], str) else (bool, int, float)
        # An infinity in a list is stored, and stops the collection for good.
        return bool(items) and all(
            isinstance(item, kinds) and (isinstance(item, str) or math.isfinite(item)) for item in items
        )
    return isinstance(value, (str, int, float)) or (value is None and removal)


def vectors(command: WriteRecords) -> NDArray[np.float32] | list[NDArray[np.float32] | None] | None:
    """The vectors as float32 arrays over the command's own bytes, None if no record has one.

    Raises:
        Refusal: there is a NaN or an infinity among them.
    """
    embeddings, dimension = command.embeddings, command.dimension or 0
    if embeddings is None or (all(row is None for row in embeddings) and embeddings):
        return None
    given = [row for row in embeddings if row is not None]
    joined = np.frombuffer(b"".join(given), dtype="<f4").astype(np.float32, copy=False)
    if not bool(np.isfinite(joined).all()):
        text = "Validation error: embeddings: Embeddings must not contain NaN or Infinity values"
        raise Refusal(400, "InvalidArgumentError", text)
    matrix = joined.reshape(len(given), dimension)
    if len(given) == len(embeddings):
        return matrix
    rows = iter(matrix)
    return [None if row is None else next(rows) for row in embeddings]
