"""Raft nodes as processes on loopback, to load, kill, freeze and restart."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, TypeVar

from evaluation.processes import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

T = TypeVar("T")

MEMBER = "evaluation.raft.member"
"""The program of one node. Another one that speaks its commands can take its place."""


def eventually(
    check: Callable[[], T], within_s: float = 30.0, what: str = "condition", every_s: float = 0.01
) -> T:
    """What `check` returns, as soon as that is true."""
    deadline = time.monotonic() + within_s
    while True:
        found = check()
        if found:
            return found
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {within_s} s: {what}")
        time.sleep(every_s)


class Member:
    """One running process."""

    def __init__(self, options: dict[str, Any], log: Path, program: str = MEMBER) -> None:
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", program, json.dumps(options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=out,
                text=True,
            )
        if self._readline() != "{}":
            self.kill()
            raise AssertionError(f"node {options['id']} did not start: {log.read_text()[-2000:]}")

    def _readline(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, do: str, **values: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **values}) + "\n")
        self.process.stdin.flush()
        return json.loads(self._readline())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]


class RaftCluster:
    """Three nodes; `members` are the live ones."""

    def __init__(
        self,
        folder: Path,
        ids: tuple[str, ...] = ("a", "b", "c"),
        program: str = MEMBER,
        **settings: Any,
    ) -> None:
        self.folder = folder
        self.ids = ids
        self.program = program
        self.settings = settings
        self.ports = dict(zip(ids, free_ports(len(ids)), strict=True))
        self.dialled: dict[tuple[str, str], int] = {}
        """Where a node (first) finds another (second), if not at its port."""
        self.members: dict[str, Member] = {}

    def start(self, *ids: str, **options: Any) -> None:
        for node_id in ids or self.ids:
            members = {
                other: ("127.0.0.1", self.dialled.get((node_id, other), port))
                for other, port in self.ports.items()
            }
            self.members[node_id] = Member(
                {
                    "id": node_id,
                    "members": members,
                    "port": self.ports[node_id],
                    "journal": str(self.folder / f"{node_id}.sqlite"),
                    "settings": self.settings,
                    **options,
                },
                self.folder / f"{node_id}.log",
                self.program,
            )

    def kill(self, *ids: str) -> None:
        for node_id in ids:
            self.members.pop(node_id).kill()

    def freeze(self, node_id: str) -> None:
        self.members[node_id].process.send_signal(signal.SIGSTOP)

    def thaw(self, node_id: str) -> None:
        self.members[node_id].process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        for node_id in list(self.members):
            self.thaw(node_id)
            self.kill(node_id)

    def status(self, node_id: str) -> dict[str, Any]:
        return self.members[node_id].ask("status")

    def terms(self) -> dict[str, int]:
        return {node_id: self.status(node_id)["term"] for node_id in self.members}

    def leader(self, among: Iterable[str] | None = None, every_s: float = 0.01) -> str:
        """The leader that a majority of all follows."""
        ids = tuple(self.members if among is None else among)

        def find() -> str | None:
            seen = {node_id: self.status(node_id) for node_id in ids}
            for node_id, status in seen.items():
                followers = [
                    s
                    for s in seen.values()
                    if s["leader"] == status["leader"] and s["term"] == status["term"]
                ]
                if status["role"] == "leader" and 2 * len(followers) > len(self.ids):
                    return node_id
            return None

        found = eventually(find, 30, "a leader", every_s)
        assert found is not None
        return found

    def write(
        self, text: str, among: Iterable[str] | None = None, every_s: float = 0.01, **values: Any
    ) -> int:
        """Write through whoever leads, until it is acknowledged; its index."""
        ids = tuple(self.members if among is None else among)

        def attempt() -> int:
            leader = self.leader(ids, every_s)
            return self.members[leader].ask("propose", text=text, **values).get("index", 0)

        return eventually(attempt, 60, f"write {text}", every_s)

    def agree(self, within_s: float = 30.0) -> int:
        """Wait until every live node has committed the same last entry; its index."""

        def same() -> int:
            statuses = [self.status(node_id) for node_id in self.members]
            last = max(status["last"] for status in statuses)
            return last if all(status["commit"] == last == status["last"] for status in statuses) else 0

        return eventually(same, within_s, "agreement")

    def texts(self, node_id: str) -> list[str]:
        return self.members[node_id].ask("texts")["texts"]
