"""What one node asks of another over HTTP: a read index, and vectors for texts; both of the leader."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson

from cluster.errors import ClusterError, NotLeader, Refusal, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence


class Peers:
    """A small HTTP client for the other members; open it on the event loop that uses it."""

    def __init__(self, *, timeout_ms: int) -> None:
        self._timeout = aiohttp.ClientTimeout(total=timeout_ms / 1000, sock_connect=0.5)
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Create the connection pool."""
        self._session = aiohttp.ClientSession(timeout=self._timeout)

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def read_index(self, leader_url: str) -> int:
        """The leader's read index, from a quorum round that starts after this call.

        Raises:
            Unavailable: the leader did not answer in time, or is no leader any more.
        """
        answer = await self._ask(f"{leader_url}/cluster/read-index", {})
        return int(answer["index"])

    async def embed(
        self, leader_url: str, collection_id: str, texts: Sequence[str], *, query: bool
    ) -> tuple[list[bytes], str, int]:
        """Vectors (float32 bytes), fingerprint of the model and dimension, made at the leader."""
        answer = await self._ask(
            f"{leader_url}/cluster/embed",
            {"collection_id": collection_id, "texts": list(texts), "query": query},
        )
        vectors = [base64.b64decode(vector) for vector in answer["vectors"]]
        return vectors, str(answer["model"]), int(answer["dimension"])

    async def _ask(self, url: str, question: dict[str, Any]) -> dict[str, Any]:
        if self._session is None:
            raise RuntimeError("Peers.open() was not called")
        try:
            async with self._session.post(
                url, data=orjson.dumps(question), headers={"content-type": "application/json"}
            ) as response:
                status, body = response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(
                f"The leader did not answer {url.rpartition('/')[2]} ({type(error).__name__}). "
                "Nothing was read or changed; try again."
            ) from error
        answer: dict[str, Any] = orjson.loads(body)
        if status != 200:
            raise _error(status, answer)
        return answer


def _error(status: int, answer: dict[str, Any]) -> ClusterError:
    name, message = str(answer.get("error", "InternalError")), str(answer.get("message", ""))
    if name == NotLeader.error:
        return NotLeader(None)
    if 400 <= status < 500:
        return Refusal(status, name, message)
    return Unavailable(message or f"The leader answered {status}. Nothing was read or changed; try again.")
