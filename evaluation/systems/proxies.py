"""The proxies on all links, as systems, faults and costs need them; `ToxiproxyServer` is what makes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Toxic:
    """One toxic of Toxiproxy 2.12: its kind, stream (`upstream` is dialer -> acceptor) and attributes."""

    name: str
    kind: str
    stream: str
    attributes: Mapping[str, int] = field(default_factory=dict[str, int])
    toxicity: float = 1.0


class Proxies(Protocol):
    """What systems and faults need of a Toxiproxy server."""

    async def create(self, name: str, upstream: str) -> str:
        """A proxy to `upstream`; returns where it listens. Both are host:port. The name must be new."""
        ...

    async def enable(self, name: str, enabled: bool) -> None:
        """Disabled: live connections are closed and new ones refused."""
        ...

    async def add(self, name: str, toxic: Toxic) -> None: ...

    async def remove(self, name: str, toxic: str) -> None: ...

    async def reset(self) -> None:
        """All proxies enabled, all toxics gone."""
        ...

    def listen(self, name: str) -> str:
        """Where the proxy listens, host:port.

        Raises:
            SystemFailure: there is no such proxy.
        """
        ...
