"""Questions put through a proxied link: whether bytes get there and an answer comes back.

Toxiproxy accepts before it dials on, so "connected" proves nothing: a probe asks what every server of that
kind answers at once, whoever asks, and changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from typing import TYPE_CHECKING, Final

from cluster.raft.framing import HANDSHAKE, FrameWriter
from cluster.raft.handshake import NONCE_BYTES, Dialer, Identity
from evaluation.failure import SystemFailure

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from evaluation.systems.interface import Link
    from evaluation.systems.proxies import Proxies

SILENCE_S: Final = 0.5
_LENIENT_S: Final = 2.0
_GONE_S: Final = 60.0

_HTTP: Final = b"GET /api/v2/heartbeat HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n"
#: Asks a Postgres server (or PgBouncer) whether it speaks TLS: one byte comes back.
_POSTGRES: Final = struct.pack("!ii", 8, 80877103)


def _raft() -> bytes:
    """The hello of a stranger: a node answers why it refuses it."""
    writer = FrameWriter(1024)
    stranger = Identity("probe", "probe", b"probe")
    writer.put_urgent(HANDSHAKE, Dialer(stranger, "probe", bytes(NONCE_BYTES)).hello())
    frame = writer.next_frame()
    assert frame is not None
    return frame


_QUESTIONS: Final = {"raft": _raft(), "replication": _POSTGRES, "sql": _POSTGRES, "pool": _POSTGRES}


def http_links(links: Iterable[Link]) -> list[Link]:
    """Those that speak HTTP."""
    return [link for link in links if link.plane not in _QUESTIONS]


def _question(plane: str, pad: int) -> bytes:
    padding = b"X-Pad: " + b"x" * pad + b"\r\n" if pad else b""
    return _QUESTIONS.get(plane, _HTTP + padding + b"\r\n")


async def answers(address: str, plane: str, timeout_s: float, *, pad: int = 0, whole: bool = False) -> bool:
    """Whether a first byte of an answer (`whole`: its end) comes back within the time.

    `pad`: make a question by HTTP longer by so many bytes.
    """
    host, _, port = address.rpartition(":")
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(_question(plane, pad))
            return bool(await reader.read(-1 if whole else 1))
    except (OSError, TimeoutError):
        return False
    finally:
        if writer is not None:
            writer.transport.abort()


async def alive(proxies: Proxies, links: Iterable[Link], timeout_s: float, *, pad: int = 0) -> set[str]:
    """The proxies of those links through which an answer comes."""
    return await _asked(proxies, links, timeout_s, pad=pad, whole=False)


async def ending(proxies: Proxies, links: Iterable[Link], timeout_s: float) -> set[str]:
    """The proxies of those links through which an answer and the end of its connection come."""
    return await _asked(proxies, links, timeout_s, pad=0, whole=True)


async def _asked(
    proxies: Proxies, links: Iterable[Link], timeout_s: float, *, pad: int, whole: bool
) -> set[str]:
    asked = list(links)
    found = await asyncio.gather(
        *(answers(proxies.listen(link.proxy), link.plane, timeout_s, pad=pad, whole=whole) for link in asked)
    )
    return {link.proxy for link, answer in zip(asked, found, strict=True) if answer}


async def until_alive(proxies: Proxies, links: Sequence[Link], deadline_s: float = _GONE_S) -> None:
    """Until all of them answer.

    Raises:
        SystemFailure: which do not.
    """
    end = time.monotonic() + deadline_s
    waiting = list(links)
    while waiting:
        found = await alive(proxies, waiting, _LENIENT_S)
        waiting = [link for link in waiting if link.proxy not in found]
        if waiting and time.monotonic() > end:
            raise SystemFailure(f"no answer through {', '.join(link.proxy for link in waiting)}")


async def server_date(url: str, timeout_s: float = 5.0) -> float:
    """The wall clock of an HTTP server, from the Date of its answer; seconds since 1970.

    Raises:
        SystemFailure: no answer with a date.
    """
    import email.utils

    import aiohttp

    with contextlib.suppress(aiohttp.ClientError, TimeoutError, KeyError, ValueError):
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
            return email.utils.parsedate_to_datetime(response.headers["Date"]).timestamp()
    raise SystemFailure(f"{url} does not say what time it is")
