"""What one member's gateway holds: for its clients and for the agent the same, under one lock."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.systems.naive.clock import MemberClock
from evaluation.systems.naive.store import Store
from evaluation.systems.naive.strategies import strategy
from evaluation.systems.naive.tombs import Tombs

if TYPE_CHECKING:
    import aiohttp


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One gateway's settings, given as JSON."""

    member: str
    port: int
    chroma: str
    strategy: str
    folder: str
    """Where the member keeps its data; tombstones lie there too."""
    clock_offset_file: str
    tombstones: bool = False
    timeout_s: float = 30.0


class MemberState:
    """Everything that changes documents holds `lock`: a merge never runs into a client's write."""

    def __init__(self, options: Options, session: aiohttp.ClientSession) -> None:
        folder = Path(options.folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.member = options.member
        self.strategy = strategy(options.strategy, tombstones=options.tombstones)
        self.tombs = Tombs(folder / "tombstones.jsonl")
        self.store = Store(session, options.chroma, self.strategy, self.tombs)
        node = f"{options.member}.{_incarnation(folder / 'incarnation')}"
        self.clock = MemberClock(node, Path(options.clock_offset_file), hybrid=self.strategy.hybrid)
        self.keeps_catalogue = options.strategy != "lww" or options.tombstones
        self.lock = asyncio.Lock()


def _incarnation(path: Path) -> str:
    """Lives and dies with the member's data: after a lost directory, counts start again as someone else's."""
    if not path.exists():
        path.write_text(secrets.token_hex(3))
    return path.read_text()
