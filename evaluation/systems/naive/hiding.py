"""What clients are shown of Chroma's answers: their own documents, and ids that are the same everywhere."""

from __future__ import annotations

from typing import Any, Final, cast

import orjson
from aiohttp import web

from evaluation.systems.naive.store import STATE, logical_id, without_state

JSON: Final = {"Content-Type": "application/json"}


def answer(body: Any) -> web.Response:
    """200 with this as JSON."""
    return web.Response(body=orjson.dumps(body), headers=JSON)


def collections(response: web.Response) -> web.Response:
    """With the ids that clients know."""
    if response.status != 200:
        return response
    raw = _parsed(response)
    if isinstance(raw, list):
        return answer([known_to_clients(one) for one in cast("list[dict[str, Any]]", raw)])
    return answer(known_to_clients(raw))


def known_to_clients(raw: dict[str, Any]) -> dict[str, Any]:
    """A collection with the id that clients know, and without the strategy's key in its schema."""
    schema: dict[str, Any] = raw.get("schema") or {}
    schema.get("keys", {}).pop(STATE, None)
    return {**raw, "id": logical_id(raw["name"])}


def documents(response: web.Response) -> web.Response:
    """Without the strategy's metadata."""
    if response.status != 200:
        return response
    raw = _parsed(response)
    if raw.get("metadatas") is not None:
        # A list of documents, or for a query a list of those for each vector asked for.
        raw["metadatas"] = [_visible(one) for one in raw["metadatas"]]
    return answer(raw)


def _visible(one: Any) -> Any:
    if isinstance(one, list):
        return [_visible(each) for each in cast("list[Any]", one)]
    return without_state(one)


def _parsed(response: web.Response) -> Any:
    assert isinstance(response.body, bytes)
    return orjson.loads(response.body)
