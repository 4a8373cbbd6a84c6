"""Requests with proof, sent again once if the node says what the proof must be bound to."""

from __future__ import annotations

import asyncio
import contextlib
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, Final

from yarl import URL

from wire.proof import CHALLENGE, digest_of
from wire.prover import EMPTY

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    import aiohttp

    from wire.prover import Prover

#: The digest of more takes longer than the switch to a thread.
_IN_THREAD_BYTES: Final = 128 * 1024


async def digest_in_time(body: bytes) -> str:
    """As `digest_of`, of a large body in a thread: the event loop goes on."""
    if not body:
        return EMPTY
    return await asyncio.to_thread(digest_of, body) if len(body) > _IN_THREAD_BYTES else digest_of(body)


@contextlib.asynccontextmanager
async def proven(
    session: aiohttp.ClientSession,
    prover: Prover,
    method: str,
    node: str,
    target: str,
    *,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    **options: Any,
) -> AsyncGenerator[aiohttp.ClientResponse]:
    """The answer of `node` (a base URL) to a request for `target`; raises what `session.request` does."""
    url = URL(f"{node}{target}", encoded=True)
    digest = await digest_in_time(body)
    again = True
    while True:
        said = {**(headers or {}), **prover.headers(node, method, url.raw_path_qs, digest)}
        async with session.request(method, url, data=body or None, headers=said, **options) as response:
            if prover.learn(node, response.status, response.headers) and again:
                again = False
                continue
            yield response
            return


def ask(
    prover: Prover,
    node: str,
    target: str,
    body: bytes | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    timeout_s: float,
) -> bytes:
    """What `node` answers to a GET, or to a POST of JSON; past all proxies of the environment.

    Raises:
        OSError: no answer, or none with 2xx (`urllib.error.HTTPError`).
        http.client.HTTPException: the answer is no HTTP.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    method = "GET" if body is None else "POST"
    kind = {} if body is None else {"Content-Type": "application/json"}
    again = True
    while True:
        proof = prover.headers(node, method, target, EMPTY if body is None else digest_of(body))
        request = urllib.request.Request(
            f"{node}{target}", data=body, headers={**kind, **(headers or {}), **proof}, method=method
        )
        try:
            with opener.open(request, timeout=timeout_s) as response:
                found = response.read()
                if not (prover.learn(node, response.status, response.headers) and again):
                    return found
        except urllib.error.HTTPError as refusal:
            if not (
                prover.learn(node, refusal.code, {CHALLENGE: refusal.headers.get(CHALLENGE, "")}) and again
            ):
                raise
            refusal.close()
        again = False
