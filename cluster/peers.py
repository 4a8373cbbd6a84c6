"""What one node asks of another over HTTP: the leader for a read index and for vectors of texts, all for
how they are; and what it tells them."""

from __future__ import annotations

import base64
import contextlib
from typing import TYPE_CHECKING, Any, Final, cast

import aiohttp
import orjson

from cluster.errors import ClusterError, NotLeader, OutcomeUnknown, Refusal, Unavailable
from wire.calls import proven

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wire.prover import Prover


#: For what is only of use at once.
_SHORT: Final = aiohttp.ClientTimeout(total=1.0, sock_connect=0.5)
#: For answers of some size.
_SIZED: Final = aiohttp.ClientTimeout(total=10.0, sock_connect=0.5)
#: Until a snapshot is taken; and until a part of one arrives, from a donor that may be bound to be slow.
_LONG: Final = aiohttp.ClientTimeout(total=None, sock_connect=2.0, sock_read=90.0)
_PART: Final = aiohttp.ClientTimeout(total=None, sock_connect=2.0, sock_read=10.0)
_JSON: Final = {"Content-Type": "application/json"}


class Peers:
    """A small HTTP client for the other members; open it on the event loop that uses it."""

    def __init__(self, *, timeout_ms: int, prover: Prover) -> None:
        self._prover = prover
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
        answer = await self._ask(leader_url, "/cluster/read-index", {})
        return int(answer["index"])

    async def embed(
        self, leader_url: str, collection_id: str, texts: Sequence[str], *, query: bool
    ) -> tuple[list[bytes], str, int]:
        """Vectors (float32 bytes), fingerprint of the model and dimension, made at the leader."""
        answer = await self._ask(
            leader_url,
            "/cluster/embed",
            {"collection_id": collection_id, "texts": list(texts), "query": query},
        )
        vectors = [base64.b64decode(vector) for vector in answer["vectors"]]
        return vectors, str(answer["model"]), int(answer["dimension"])

    async def change_members(self, leader_url: str, words: dict[str, Any]) -> dict[str, Any]:
        """A change of the members, made at the leader; see `cluster.service.membership`.

        Raises:
            ClusterError: it was refused; or the leader did not answer: then it may or may not be made.
        """
        try:
            return await self._ask(leader_url, "/cluster/members", words)
        except Unavailable as error:
            if error.__cause__ is None:
                raise
            raise OutcomeUnknown(
                f"The leader did not answer ({error.__cause__}): whether the change was made is not known. "
                "Look at the members before you ask again."
            ) from error

    async def progress(self, url: str, question: dict[str, Any]) -> Any:
        """How far the node at `url` says it is and where it is stuck, undecoded; None: no answer."""
        if self._session is None:
            return None
        path, body = "/cluster/progress", orjson.dumps(question)
        try:
            async with self._post(self._session, url, path, body, timeout=_SHORT) as response:
                return orjson.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None

    async def digests(self, url: str, question: dict[str, Any]) -> dict[str, Any] | None:
        """What the node at `url` knows of a round of verification; None: no answer."""
        try:
            return await self._ask(url, "/cluster/digests", question, _SIZED)
        except ClusterError:
            return None

    async def verdict(self, url: str, told: dict[str, Any]) -> bool:
        """Tell a node what a verification found about its copies; whether it heard."""
        try:
            await self._ask(url, "/cluster/verdict", told, _SIZED)
        except ClusterError:
            return False
        return True

    async def verify(self, url: str, *, start: bool) -> dict[str, Any]:
        """Have the leader begin a verification, or only tell how far it is.

        Raises:
            ClusterError: it refused, or did not answer.
        """
        return await self._ask(url, "/cluster/verify", {"start": start}, _SIZED)

    async def status(self, url: str) -> dict[str, Any] | None:
        """What a node says of itself, None if it does not answer at once."""
        if self._session is None:
            return None
        try:
            async with proven(
                self._session, self._prover, "GET", url, "/cluster/status", timeout=_SHORT
            ) as response:
                answer: Any = orjson.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None
        return cast("dict[str, Any]", answer) if isinstance(answer, dict) else None

    async def why_unreachable(self, url: str) -> str | None:
        """None if a node answers at all, whatever it says; else why it could not be asked, in a few words."""
        if self._session is None:
            return None
        try:
            async with self._session.get(f"{url}/api/v2/heartbeat", timeout=_SHORT) as response:
                await response.read()
        except TimeoutError:
            return "no answer in time"
        except aiohttp.ClientConnectorError as error:
            return error.strerror or str(error)
        except aiohttp.ClientError as error:
            return str(error) or type(error).__name__
        return None

    async def tell_suspect(self, url: str, digest: bytes, cause: str, for_s: float) -> None:
        """Tell a node to refuse a request for a while; whether it hears is not known."""
        if self._session is None:
            return
        path = "/cluster/suspect"
        body = orjson.dumps({"digest": digest.hex(), "cause": cause, "for_s": for_s})
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with self._post(self._session, url, path, body, timeout=_SHORT):
                pass

    async def snapshot(self, url: str, question: Mapping[str, Any]) -> bytes:
        """The manifest of a snapshot of the node at `url`; see `cluster.snapshot.donating`.

        Raises:
            ClusterError: the node gives none.
        """
        return await self._fetch(url, "/cluster/snapshots", question, _LONG)

    async def snapshot_part(self, url: str, snapshot_id: str, number: int, offset: int) -> bytes:
        """Bytes of a file of a snapshot, from `offset` on.

        Raises:
            ClusterError: the node gives none.
        """
        question = {"id": snapshot_id, "file": number, "offset": offset}
        return await self._fetch(url, "/cluster/snapshot-part", question, _PART)

    async def hold_log(self, url: str, node: str, index: int, seconds: float) -> None:
        """Tell a node to keep its log from `index` on for so long; whether it hears is not known."""
        with contextlib.suppress(ClusterError):
            question = {"node": node, "index": index, "seconds": seconds}
            await self._fetch(url, "/cluster/hold-log", question, _SHORT)

    async def _fetch(
        self, url: str, path: str, question: Mapping[str, Any], patience: aiohttp.ClientTimeout
    ) -> bytes:
        if self._session is None:
            raise RuntimeError("Peers.open() was not called")
        body = orjson.dumps(question)
        try:
            async with self._post(self._session, url, path, body, timeout=patience) as response:
                answer = await response.read()
                if response.status == 200:
                    return answer
                status = response.status
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(f"{url} did not answer ({type(error).__name__}: {error})") from error
        try:
            raise _error(status, orjson.loads(answer))
        except (ValueError, AttributeError):
            raise Unavailable(f"{url} answered {status}") from None

    def _post(
        self, session: aiohttp.ClientSession, url: str, path: str, body: bytes, **options: Any
    ) -> contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return proven(session, self._prover, "POST", url, path, body=body, headers=_JSON, **options)

    async def _ask(
        self,
        url: str,
        path: str,
        question: dict[str, Any],
        patience: aiohttp.ClientTimeout | None = None,
    ) -> dict[str, Any]:
        if self._session is None:
            raise RuntimeError("Peers.open() was not called")
        body = orjson.dumps(question)
        try:
            async with self._post(
                self._session, url, path, body, timeout=patience or self._timeout
            ) as response:
                status, body = response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(
                f"The node asked did not answer {path.rpartition('/')[2]} ({type(error).__name__}). "
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
