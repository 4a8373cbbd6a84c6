"""What a stock client makes of errors that only a cluster has: their texts are not lost on the way."""

from __future__ import annotations

import httpx
import pytest
from chromadb import errors
from chromadb.api.base_http_client import BaseHTTPClient

from cluster.api.doors import NotProven
from cluster.api.encode import encode_error
from cluster.errors import ClusterError, EngineDied, Fault, NotLeader, OutcomeUnknown, Overloaded, Refusal


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NotProven("f" * 32, of_chroma=True), errors.ChromaAuthError),
        (Refusal(400, "InvalidArgumentError", "Too many clauses."), errors.InvalidArgumentError),
        (NotLeader("node-2"), Exception),
        (Overloaded("The queue is full."), Exception),
        (OutcomeUnknown("Outcome unknown."), Exception),
        (EngineDied("Chroma's process crashed.", proven=True), Exception),
        (Fault("The disk is full."), Exception),
    ],
)
def test_python_shows_our_words(error: ClusterError, kind: type[Exception]) -> None:
    request = httpx.Request("POST", "http://x/add")
    answer = httpx.Response(error.status, content=encode_error(error.error, error.message), request=request)
    with pytest.raises(kind) as raised:
        BaseHTTPClient._raise_chroma_error(answer)  # pyright: ignore[reportPrivateUsage]
    assert type(raised.value) is kind
    assert error.message in str(raised.value)
