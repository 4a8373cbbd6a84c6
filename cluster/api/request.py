"""What a client asked: one request whose route is known and whose body is read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from multidict import CIMultiDict, CIMultiDictProxy

from cluster.api.names import invalid

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Request:
    """`target` is the path with its query string as the client sent it, `route` the parts of the path.

    `parameters` are the values of those parts that the route only names, decoded.
    """

    method: str
    target: str
    query: str
    route: tuple[str, ...]
    parameters: dict[str, str]
    headers: CIMultiDictProxy[str]
    body: bytes

    def with_header(self, name: str, value: str) -> Request:
        """The same request with one header more, or with another value in it."""
        changed = CIMultiDict(self.headers)
        changed[name] = value
        return replace(self, headers=CIMultiDictProxy(changed))


def decode_parameters(names: Mapping[str, str]) -> dict[str, str]:
    """The named parts of a path, percent-decoded.

    Raises:
        Refusal: 400, one is not UTF-8.
    """
    decoded: dict[str, str] = {}
    for name, raw in names.items():
        try:
            decoded[name] = unquote_to_bytes(raw).decode() if "%" in raw else raw
        except UnicodeDecodeError:
            raise invalid(f"Invalid URL: Invalid UTF-8 in `{name}`") from None
    return decoded
