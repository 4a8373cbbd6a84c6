"""Links without proxies: what a system is given when its speed is measured and no fault is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluation.failure import SystemFailure

if TYPE_CHECKING:
    from evaluation.systems.proxies import Toxic


class DirectLinks:
    """A `Proxies` whose proxies are the upstreams themselves; nothing can be done to them."""

    def __init__(self) -> None:
        self._upstreams: dict[str, str] = {}

    async def create(self, name: str, upstream: str) -> str:
        if name in self._upstreams:
            raise SystemFailure(f"there is a link {name} already; nothing was changed")
        self._upstreams[name] = upstream
        return upstream

    async def enable(self, name: str, enabled: bool) -> None:
        if not enabled:
            raise SystemFailure(f"{name} is a link without a proxy, it cannot be cut; nothing was changed")

    async def add(self, name: str, toxic: Toxic) -> None:
        raise SystemFailure(
            f"{name} is a link without a proxy, it takes no {toxic.kind}; nothing was changed"
        )

    async def remove(self, name: str, toxic: str) -> None:
        raise SystemFailure(f"{name} is a link without a proxy, it has no {toxic}; nothing was changed")

    async def reset(self) -> None:
        """Nothing was ever changed."""

    def listen(self, name: str) -> str:
        try:
            return self._upstreams[name]
        except KeyError as error:
            raise SystemFailure(f"there is no link {name}") from error
