"""A request as handlers get it, and what they reply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping


@dataclass(slots=True)
class Request:
    """`parameters` are the named parts of the path; `node` is set to the server that answered."""

    parameters: Mapping[str, str]
    query: str
    body: bytes
    node: str | None = None


@dataclass(slots=True)
class Reply:
    """`body` is JSON."""

    body: bytes
    status: int = 200


Handler: TypeAlias = "Callable[[Request], Awaitable[Reply]]"
"""Raises `cluster.errors.ClusterError`s, `Undecodable` and `writing.Rejected`."""
