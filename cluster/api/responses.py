"""The shapes that answers have: JSON, Chroma's errors, and what goes out without a content type."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from cluster.api.encode import encode_error

JSON: Final = "application/json"
#: Mark of a response that goes out without a content type, for which aiohttp would make one up.
UNTYPED: Final = web.ResponseKey("untyped", bool)


def json_response(body: bytes, status: int, headers: dict[str, str]) -> web.Response:
    """JSON that is encoded already."""
    return web.Response(status=status, body=body, content_type=JSON, headers=headers)


def error_response(status: int, error: str, message: str, headers: dict[str, str]) -> web.Response:
    """An error in the shape of Chroma's own."""
    return json_response(encode_error(error, message), status, headers)


def empty_response(status: int, headers: dict[str, str] | None = None) -> web.Response:
    """No body and no content type, as Chroma answers what it has no route for."""
    return bare_response(status, b"", headers)


def bare_response(status: int, body: bytes, headers: dict[str, str] | None = None) -> web.Response:
    """A body without a content type, unless `headers` name one."""
    found = headers or {}
    response = web.Response(status=status, body=body, headers=found)
    if "Content-Type" not in found:
        response[UNTYPED] = True
    return response
