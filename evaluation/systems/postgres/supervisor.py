"""Who is primary, and failover: `python -m evaluation.systems.postgres.supervisor --config FILE`.

It asks all servers a few times a second, through the same links as everybody. When the primary has not
answered for `patience_s`:

1. it stops giving out the primary's name, and waits until no API server holds its word any more (fenced);
2. it parts the replicas from the old primary, which may still send to them although nobody else hears of it,
   and compares how far they have received the log; it stops here if too few answer for the profile;
3. on the most advanced one: `synchronous_standby_names` is emptied, then `pg_promote`;
4. the other replica is pointed at the new primary;
5. the profile's `synchronous_standby_names` are set on the new primary, and only then its name is given out.

Fenced also means that an old primary that is seen again is made read-only and its sessions are ended. From
then on it is named as `fenced`, by which the agent on its machine knows that it is to be rewound (see
`rejoining`): nothing is done to its files from here. While it cannot be reached, nothing can be done to it at
all: what keeps clients from it is that the API servers' word from here has run out.

It is alone: two of them would need a vote. Who was made primary last is in a file, for its next life. While
it is away nothing fails over, and where it fences, no write is acknowledged either: nobody gives its word.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson
from aiohttp import web

from evaluation.systems.postgres import orders, serving
from evaluation.systems.postgres.connection import FAILURES, Pool
from evaluation.systems.postgres.election import Candidate, choose, lease_over
from evaluation.systems.postgres.profiles import PROFILES
from evaluation.systems.postgres.seen import ABSENT, Seen, fenced, look
from evaluation.systems.postgres.settings import SupervisorSettings
from evaluation.systems.postgres.source import Source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evaluation.systems.postgres.profiles import Profile

log = logging.getLogger(__name__)

_CHECK_PAUSE_S: Final = 0.15
_CHECK_TIMEOUT_S: Final = 0.5
_COMMAND_TIMEOUT_S: Final = 3.0
_PROMOTE_TIMEOUT_S: Final = 15.0


class Supervisor:
    """Its state is what `word` tells: the primary (None while there is none) and the term."""

    def __init__(self, settings: SupervisorSettings) -> None:
        self._settings = settings
        self._profile: Profile = PROFILES[settings.profile]
        self._pools = {name: Pool(address, "postgres") for name, address in settings.servers.items()}
        self._given: dict[str, float] = {}
        """API server -> when it last was told a primary's name."""
        self.primary: str | None = None
        self.last_primary = settings.primary
        self.term = 0
        self._state = Path(settings.state)
        if self._state.exists():
            known: dict[str, Any] = orjson.loads(self._state.read_bytes())
            self.last_primary, self.term = known["primary"], known["term"]
        self._stale: set[str] = set()
        self._parted: dict[str, str] = {}
        """Replica -> the primary that it does not follow any more, while a failover is under way."""
        self._old: tuple[str, ...] = ()
        self._chosen: str | None = None
        self._healthy_at = time.monotonic()
        self.events: list[dict[str, Any]] = []

    # ---------------------------------------------------------------------------- what it says

    def word(self, api: str | None) -> dict[str, Any]:
        """For an API server; what it is told counts from when it is told."""
        if api is not None:
            if self.primary is None:
                self._given.pop(api, None)
            else:
                self._given[api] = time.monotonic()
        readable = [member for member in self._pools if member not in self._stale]
        return {
            "primary": self.primary,
            "last_primary": self.last_primary,
            "term": self.term,
            "readable": readable,
            "fenced": self._old,
            "events": self.events,
        }

    def _note(self, text: str) -> None:
        log.info("%s", text)
        self.events.append({"at_ns": time.monotonic_ns(), "text": text})

    # ------------------------------------------------------------------------------- what it does

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            seen = await self._look_at_all()
            await self._judge(seen)
            await self._tend(seen)
            await asyncio.sleep(_CHECK_PAUSE_S)

    async def close(self) -> None:
        for pool in self._pools.values():
            await pool.close()

    async def _look_at_all(self) -> Mapping[str, Seen]:
        found = await asyncio.gather(
            *(look(member, pool, _CHECK_TIMEOUT_S) for member, pool in self._pools.items())
        )
        return {one.member: one for one in found if one is not None}

    async def _judge(self, seen: Mapping[str, Seen]) -> None:
        now = time.monotonic()
        current = seen.get(self.last_primary)
        if current is not None and not current.replica and self._chosen is None:
            self._healthy_at = now
            self._remember(current.member, max(self.term, current.timeline))
            if self.primary is None and (current.names == self._names(current.member) or not self._fenced):
                self.primary = current.member
                self._note(f"{self.primary} is primary, timeline {self.term}")
            return
        if now - self._healthy_at >= self._settings.patience_s:
            await self._fail_over()

    def _remember(self, primary: str, term: int) -> None:
        if (primary, term) != (self.last_primary, self.term):
            self.last_primary, self.term = primary, term
            new = self._state.with_suffix(".new")
            new.write_bytes(orjson.dumps({"primary": primary, "term": term}))
            new.replace(self._state)

    @property
    def _fenced(self) -> bool:
        return self._profile.fenced

    def _names(self, primary: str) -> str:
        return self._profile.standby_names(primary, tuple(self._pools))

    async def _fail_over(self) -> None:
        old = self.last_primary
        if self.primary is not None:
            self._note(f"{old} does not answer")
            self.primary = None
        if self._fenced:
            given = self._given.copy()
            while not lease_over(list(given.values()), time.monotonic(), self._settings.lease_s):
                await asyncio.sleep(0.02)
                given = {api: at for api, at in given.items() if api in self._given}
        found = await self._look_at_all()
        if not found.get(old, ABSENT).replica and self._chosen is None:
            return  # it is back
        # What is compared must not grow any more: a replica that went on receiving could not follow.
        await asyncio.gather(*(self._part(one, old) for one in found.values() if one.replica))
        found = await self._look_at_all()
        if not found.get(old, ABSENT).replica and self._chosen is None:
            return  # it is back, and the replicas are pointed at it again
        candidates = [
            Candidate(one.member, one.position)
            for one in found.values()
            if one.replica and not one.follows and self._parted.get(one.member) == old
        ]
        chosen = self._chosen
        if chosen is None:
            chosen = choose(candidates, len(self._pools) - 1, self._profile.acknowledging)
        if chosen is None:
            return
        # Once asked to become primary, it may do so at any time: from here on there is only this way.
        self._chosen = chosen
        self._note(f"promoting {chosen}, seen: {sorted((one.member, one.received) for one in candidates)}")
        try:
            await self._promote(chosen)
        except FAILURES as error:
            self._note(f"promoting {chosen} failed: {error!r}")
            return
        self._chosen = None
        self._remember(chosen, self.term + 1)
        for other in candidates:
            if other.member != chosen:
                await self._point(other.member, chosen)
        try:
            await self._set_names(chosen)
        except FAILURES as error:
            self._note(f"{chosen} was promoted, but cannot be set up: {error!r}")
        self._stale.add(old)
        self._healthy_at = time.monotonic()
        # Its name is given out when it is seen with the names set: at the next look.

    async def _part(self, one: Seen, old: str) -> None:
        """Let a replica of the old primary follow nobody, and wait until it receives no more."""
        member = one.member
        if member == old or not self._source(member, old).is_in(one.follows):
            return
        try:
            async with self._pools[member].use(_COMMAND_TIMEOUT_S) as connection:
                await orders.part(connection, member, _COMMAND_TIMEOUT_S)
            self._parted[member] = old
        except FAILURES as error:
            self._note(f"{member} cannot be parted from {old}: {error!r}")

    async def _promote(self, member: str) -> None:
        async with self._pools[member].use(_PROMOTE_TIMEOUT_S + 2) as connection:
            others = [other for other in self._pools if other != member]
            await orders.promote(connection, member, others, _PROMOTE_TIMEOUT_S)

    async def _set_names(self, member: str) -> None:
        names = self._names(member)
        async with self._pools[member].use(_COMMAND_TIMEOUT_S) as connection:
            await orders.set_standby_names(connection, names)
        # That it has taken effect is seen at the next look, before which the name is not given out.

    async def _point(self, member: str, primary: str) -> None:
        """Let a replica follow this primary."""
        source = self._source(member, primary)
        try:
            async with self._pools[member].use(_COMMAND_TIMEOUT_S) as connection:
                await orders.point(connection, source)
            self._parted.pop(member, None)
            self._note(f"{member} follows {primary}")
        except FAILURES as error:
            self._note(f"{member} cannot be pointed at {primary}: {error!r}")

    def _source(self, member: str, primary: str) -> Source:
        return Source(self._settings.sources[f"{member} {primary}"], member)

    async def _tend(self, seen: Mapping[str, Seen]) -> None:
        """What a failover could not do for servers that were out of reach then."""
        primary = self.last_primary
        # Without fencing nobody tells an old primary that it is one: that is what this profile shows.
        self._old = fenced(seen, primary) if self._fenced else ()
        if primary not in seen or seen[primary].replica:
            return
        if seen[primary].names != self._names(primary):
            with contextlib.suppress(*FAILURES):
                await self._set_names(primary)
        for one in seen.values():
            if one.member == primary:
                continue
            if one.replica:
                if not self._source(one.member, primary).is_in(one.follows):
                    await self._point(one.member, primary)
                self._stale.discard(one.member)
            elif self._fenced:
                self._stale.add(one.member)
                if not one.read_only:
                    await self._fence(one.member)

    async def _fence(self, member: str) -> None:
        """Make an old primary read-only, and end the sessions that it has."""
        try:
            async with self._pools[member].use(_COMMAND_TIMEOUT_S) as connection:
                await orders.fence(connection)
            self._note(f"{member} is an old primary: fenced")
        except FAILURES as error:
            self._note(f"{member} is an old primary and cannot be fenced: {error!r}")


async def serve(settings: SupervisorSettings) -> None:
    """Until SIGTERM or SIGINT."""
    supervisor = Supervisor(settings)

    async def state(request: web.Request) -> web.Response:
        found = orjson.dumps(supervisor.word(request.query.get("api")))
        return web.Response(body=found, content_type="application/json")

    app = web.Application()
    app.router.add_get("/state", state)
    try:
        await serving.answer(app, settings.listen, supervisor.run())
    finally:
        await supervisor.close()


def main() -> None:
    serving.run(__doc__, SupervisorSettings, serve)


if __name__ == "__main__":
    main()
