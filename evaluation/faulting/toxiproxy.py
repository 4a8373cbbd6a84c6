"""The real Toxiproxy server and its proxies, each change verified by reading it back.

Changes are made with toxiproxy-python. It knows one server per process (host and port belong to its
class), never times out, takes any answer from 500 on for success and cannot update a toxic. So each of
its calls runs in a thread, together only with calls to the same server, under a deadline, and what counts is
what the server says afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import aiohttp
from toxiproxy import Proxy, Toxiproxy
from toxiproxy.exceptions import InvalidToxic, NotFound, ProxyExists

from evaluation.failure import SystemFailure
from evaluation.processes import Child, free_port, wait_until
from evaluation.systems.proxies import Toxic

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

#: Removing a toxic may take long: the server waits 5 s for each connection that holds bytes for nobody.
DEADLINE_S: Final = 60.0
_HOST: Final = "127.0.0.1"
#: Chunks that a connection may hold before a toxic without a buffer, and the pause after letting go of one.
_HELD: Final = 3
_PAUSE_S: Final = 0.1


class _Turns:
    """Calls to one server run together, calls to another wait until none of them is under way."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._port = 0
        self._calls = 0

    @contextlib.contextmanager
    def to(self, port: int) -> Generator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._calls == 0 or self._port == port)
            if self._port != port:
                Toxiproxy().update_api_consumer(_HOST, port)
                self._port = port
            self._calls += 1
        try:
            yield
        finally:
            with self._changed:
                self._calls -= 1
                self._changed.notify_all()


_TURNS = _Turns()


def find_server() -> Path:
    """The Toxiproxy server's program: $TOXIPROXY, this checkout's .cache/bin/server, or on the PATH.

    Raises:
        SystemFailure: there is none, and how to get it.
    """
    named = os.environ.get("TOXIPROXY")
    if named:
        if os.access(named, os.X_OK):
            return Path(named)
        raise SystemFailure(f"TOXIPROXY names {named}, which is not a program that can be run")
    built = Path(__file__).parents[2] / ".cache" / "bin" / "server"
    if os.access(built, os.X_OK):
        return built
    on_path = shutil.which("toxiproxy-server")
    if on_path:
        return Path(on_path)
    raise SystemFailure(
        "The Toxiproxy server, through which all links go, was not found. `make toxiproxy` builds it "
        f"into {built}; or name its program in the variable TOXIPROXY."
    )


class ToxiproxyServer:
    """`Proxies` on a server process of its own."""

    def __init__(self) -> None:
        self._child: Child | None = None
        self._port = 0
        self._session: aiohttp.ClientSession | None = None
        self._listen: dict[str, str] = {}
        self._removals: dict[str, asyncio.Lock] = {}

    async def start(self, binary: Path | None, log: Path) -> None:
        """Start the server; `binary` None: the one of `find_server`."""
        binary = find_server() if binary is None else binary
        self._port = free_port()
        self._session = aiohttp.ClientSession(
            f"http://{_HOST}:{self._port}", timeout=aiohttp.ClientTimeout(total=DEADLINE_S)
        )
        self._child = Child([str(binary), "-host", _HOST, "-port", str(self._port)], log)
        try:
            await wait_until("the Toxiproxy server's API", self._answers, DEADLINE_S)
        except TimeoutError as error:
            tail = self._child.log_tail()
            await self.stop()
            raise SystemFailure(f"{error}\n{tail}") from error

    async def stop(self) -> None:
        """Stop the server: all proxies are gone."""
        if self._session is not None:
            await self._session.close()
            self._session = None
        if self._child is not None:
            await asyncio.to_thread(self._child.stop)
            self._child = None
        self._listen.clear()

    @property
    def pid(self) -> int:
        return self._running().pid

    def listen(self, name: str) -> str:
        try:
            return self._listen[name]
        except KeyError:
            raise SystemFailure(f"there is no proxy {name!r}") from None

    async def create(self, name: str, upstream: str) -> str:
        if name in self._listen:
            raise SystemFailure(f"there is a proxy {name!r} already")
        said = ""
        # Not port 0: the kernel would choose one that, while the proxy is disabled, an outgoing connection
        # can take. The port below that range was free a moment ago; the server has the last word.
        for _ in range(20):
            listen = f"{_HOST}:{free_port()}"

            def create(client: Toxiproxy, listen: str = listen) -> None:
                client.create(upstream=upstream, name=name, listen=listen, enabled=True)

            said = await self._change(f"create the proxy {name}", create, may_fail=True)
            state = await self._get(f"/proxies/{name}", missing=True)
            if state is not None:
                if (state["listen"], state["upstream"], state["enabled"]) != (listen, upstream, True):
                    raise SystemFailure(f"proxy {name} is not as asked for: {state}")
                self._listen[name] = listen
                return listen
        raise SystemFailure(f"the proxy {name} to {upstream} could not be created: {said}\n{self._tail()}")

    async def enable(self, name: str, enabled: bool) -> None:
        proxy = self._proxy(name)
        verb = "enable" if enabled else "disable"
        await self._change(f"{verb} {name}", lambda _: proxy.enable() if enabled else proxy.disable())
        state = await self.state(name)
        if state["enabled"] is not enabled:
            raise SystemFailure(f"proxy {name} did not {verb}: {state}\n{self._tail()}")

    async def add(self, name: str, toxic: Toxic) -> None:
        """Add a toxic; one of the same name must not be there."""
        proxy = self._proxy(name)
        await self._change(
            f"add {toxic.kind} to {name}",
            lambda _: proxy.add_toxic(
                type=toxic.kind,
                stream=toxic.stream,
                name=toxic.name,
                toxicity=toxic.toxicity,
                attributes=dict(toxic.attributes),
            ),
        )
        found = (await self.toxics(name)).get(toxic.name)
        # An attribute that the server does not know is dropped without a word: it is missing here.
        if (
            found is None
            or (found.kind, found.stream) != (toxic.kind, toxic.stream)
            or not math.isclose(found.toxicity, toxic.toxicity, abs_tol=1e-6)
            or any(found.attributes.get(key) != value for key, value in toxic.attributes.items())
        ):
            raise SystemFailure(f"proxy {name} should have {toxic}, it has {found}\n{self._tail()}")

    async def remove(self, name: str, toxic: str) -> None:
        proxy = self._proxy(name)
        # One at a time for each proxy: a connection that ends must find the server's lock free in between.
        async with self._removals.setdefault(name, asyncio.Lock()):
            found = (await self.toxics(name)).get(toxic)
            if found is not None and found.kind == "bandwidth" and found.attributes.get("rate") == 0:
                await self._let_go(name, toxic)
            await self._change(f"remove {toxic} from {name}", lambda _: proxy.destroy_toxic(toxic))
            if toxic in await self.toxics(name):
                raise SystemFailure(f"proxy {name} still has the toxic {toxic}\n{self._tail()}")

    async def replace(self, name: str, toxic: Toxic) -> None:
        """Change the toxic of this name. Between the old and the new one traffic flows for a moment."""
        await self.remove(name, toxic.name)
        await self.add(name, toxic)

    async def reset(self) -> None:
        await self._change("reset all proxies", lambda client: client.reset())
        states = cast("dict[str, dict[str, Any]]", await self._get("/proxies"))
        bad = {name: state for name, state in states.items() if not state["enabled"] or state["toxics"]}
        if bad or states.keys() != self._listen.keys():
            missing = sorted(self._listen.keys() - states.keys())
            raise SystemFailure(
                f"after a reset some proxies are not clean: {bad}, missing: {missing}\n{self._tail()}"
            )

    async def state(self, name: str) -> dict[str, Any]:
        """What the server says of a proxy: name, listen, upstream, enabled, toxics."""
        state = await self._get(f"/proxies/{name}")
        assert state is not None
        return state

    async def toxics(self, name: str) -> dict[str, Toxic]:
        """The toxics of a proxy by name."""
        return {
            raw["name"]: Toxic(
                raw["name"], raw["type"], raw["stream"], raw["attributes"] or {}, raw["toxicity"]
            )
            for raw in (await self.state(name))["toxics"]
        }

    # ------------------------------------------------------------------ inside

    def _proxy(self, name: str) -> Proxy:
        # Made here, not fetched: the library would list all proxies for it.
        return Proxy(name=name, upstream="", enabled=True, listen=self.listen(name))

    async def _change(self, what: str, call: Callable[[Toxiproxy], object], *, may_fail: bool = False) -> str:
        """Do it with the library; "", or why it failed."""
        self._running()

        def run() -> None:
            with _TURNS.to(self._port):
                call(Toxiproxy())

        try:
            async with asyncio.timeout(DEADLINE_S):
                await asyncio.to_thread(run)
        except TimeoutError as error:
            raise SystemFailure(
                f"Toxiproxy hangs: {what} took over {DEADLINE_S} s\n{self._tail()}"
            ) from error
        except (ProxyExists, NotFound, InvalidToxic, ValueError, OSError, KeyError) as error:
            # ValueError: an answer that is not JSON; KeyError: one that is not a proxy.
            reason = error.args[0] if error.args else error
            text = reason.decode(errors="replace") if isinstance(reason, bytes) else repr(reason)
            if may_fail:
                return text.strip()
            raise SystemFailure(f"Toxiproxy refused to {what}: {text.strip()}\n{self._tail()}") from error
        return ""

    async def _let_go(self, name: str, toxic: str) -> None:
        """Let what a jam holds flow, chunk by chunk, before it is removed.

        An update that changes nothing makes every connection let go of one chunk. Between two of them those
        whose receiver is gone end and leave. Removed at once, the server would wait 5 s for each chunk that
        nobody takes, with the proxy locked; or for ever, if a connection ends meanwhile and waits for that
        lock. A rate other than 0 would end the server: it cuts a held chunk beyond its end (2.12.0).
        """
        assert self._session is not None
        path = f"/proxies/{name}/toxics/{toxic}"
        for _ in range(_HELD):
            try:
                async with self._session.post(path, json={"attributes": {"rate": 0}}) as response:
                    await response.read()
            except (aiohttp.ClientError, TimeoutError) as error:
                raise SystemFailure(
                    f"Toxiproxy does not answer POST {path}: {error!r}\n{self._tail()}"
                ) from error
            await asyncio.sleep(_PAUSE_S)

    async def _get(self, path: str, *, missing: bool = False) -> dict[str, Any] | None:
        assert self._session is not None
        try:
            async with self._session.get(path) as response:
                if missing and response.status == 404:
                    return None
                if response.status != 200:
                    text = await response.text()
                    raise SystemFailure(f"Toxiproxy answers {response.status} to GET {path}: {text}")
                return await response.json()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise SystemFailure(f"Toxiproxy does not answer GET {path}: {error!r}\n{self._tail()}") from error

    async def _answers(self) -> bool:
        child = self._running()
        if child.returncode is not None:
            raise SystemFailure(f"the Toxiproxy server ended with {child.returncode}\n{child.log_tail()}")
        assert self._session is not None
        try:
            async with self._session.get("/proxies") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    def _running(self) -> Child:
        if self._child is None:
            raise SystemFailure("the Toxiproxy server is not running")
        return self._child

    def _tail(self) -> str:
        return "" if self._child is None else self._child.log_tail(10)
