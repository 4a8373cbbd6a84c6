"""What a case of the corpus is: the requests, where they go, and what must come back; pure.

Targets and raw requests may say `{id}` for the id of the case's own collection (each server has its own)
and raw ones `{host}`. A body that is large is a function, so that listing the corpus costs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

#: `as chroma`: status, content type and body of `chroma run`; where that gives no answer, any refusal.
#: `refused`: 4xx or 501. `accepted`: 2xx. `answered`: any of both. `unavailable`: 503, or refused.
#: `closed`: answered, or hung up. Only `as chroma` allows a 500, where Chroma has it too.
Required: TypeAlias = Literal["as chroma", "refused", "accepted", "answered", "unavailable", "closed"]

#: Where a case's requests go: the balancer, or one node past it.
Door: TypeAlias = Literal["balancer", "leader", "follower"]

#: What the case's collection holds beforehand; `none`: there is none.
Setup: TypeAlias = Literal["records", "empty", "none"]

Body: TypeAlias = bytes | Callable[[], bytes] | None

API: Final = "/api/v2"
DATABASES: Final = f"{API}/tenants/default_tenant/databases"
COLLECTIONS: Final = f"{DATABASES}/default_database/collections"
C: Final = f"{COLLECTIONS}/{{id}}"
TARGET: Final = "target"


@dataclass(frozen=True)
class Call:
    """One request. `raw` is all of it, without the other fields; `stream`: one line of the answer is read."""

    method: str
    target: str
    body: Body = None
    headers: tuple[tuple[str, str | bytes], ...] = ()
    chunked: bool = False
    stream: bool = False
    raw: Body = None

    def content(self) -> bytes | None:
        """The body's bytes."""
        return self.body() if callable(self.body) else self.body


@dataclass(frozen=True)
class Case:
    """One entry of the corpus; `kind` groups them. `difference` names the documented one from Chroma."""

    id: str
    kind: str
    calls: tuple[Call, ...]
    required: Required = "as chroma"
    door: Door = "balancer"
    setup: Setup = "records"
    difference: str = ""

    @property
    def compared(self) -> bool:
        """Whether the same requests go to `chroma run`."""
        return self.required == "as chroma" and not self.difference


@dataclass(frozen=True)
class Quantity:
    """One number that a request brings, from nothing over its limit to far beyond: a line of a table."""

    name: str
    values: Sequence[Any]
    calls: Callable[[Any], Sequence[Call]]
    required: Required = "as chroma"
    setup: Setup = "records"
    door: Door = "balancer"
    difference: str = ""
    shown: Callable[[Any], str] = field(default=lambda value: shown(value))

    def cases(self, kind: str) -> list[Case]:
        """A case for each value."""
        return [
            Case(
                f"{kind}/{self.name}={self.shown(value)}",
                kind,
                tuple(self.calls(value)),
                self.required,
                self.door,
                self.setup,
                self.difference,
            )
            for value in self.values
        ]


def shown(value: Any) -> str:
    """A value as it stands in an id: short, printable, and different from that of all others in a table."""
    plain = isinstance(value, str) and not value.isdigit()
    text: str = value if plain else json.dumps(value)
    if len(text) > 40:
        return f"{text[:24]}...{len(text)}"
    return text.encode("unicode_escape").decode()


def request(method: str, target: str, value: Any = None, *headers: tuple[str, str | bytes]) -> Call:
    """A request with JSON, `value` as bytes or a function as it is."""
    if value is None or isinstance(value, bytes) or callable(value):
        body: Body = value
    else:
        body = json.dumps(value).encode()
    return Call(method, target, body, headers)


def post(verb: str, value: Any, *headers: tuple[str, str | bytes]) -> Call:
    """A POST to one of the routes of the case's collection."""
    return request("POST", f"{C}/{verb}", value, *headers)


def lazily(build: Callable[..., Any], *arguments: Any) -> Callable[[], bytes]:
    """A JSON body made when it is sent."""

    def made() -> bytes:
        value = build(*arguments)
        return value if isinstance(value, bytes) else json.dumps(value).encode()

    return made
