"""Links between nodes of different builds, over real sockets: made, refused, and given up when outgrown."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest

from cluster.levels import Levels
from cluster.raft.handshake import Identity
from cluster.raft.settings import RaftSettings
from cluster.raft.transport import TcpTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEADLINE_S = 20


class Pair:
    """a listens, b dials; what each says of levels and versions is the test's."""

    def __init__(self) -> None:
        self.levels = {"a": Levels(1, 2, 1), "b": Levels(1, 2, 1)}
        self.versions = {"a": (5, 5), "b": (5, 5)}
        self.ends: dict[str, TcpTransport] = {}

    def connect(self) -> None:
        port = self._open("a", {"a": None, "b": None})
        self._open("b", {"a": ("127.0.0.1", port), "b": None})

    def _open(self, name: str, members: dict[str, tuple[str, int] | None]) -> int:
        identity = Identity(
            "c", name, b"secret", name, versions=self.versions[name], levels=lambda: self.levels[name]
        )
        self.ends[name] = TcpTransport(
            identity,
            members,
            ("127.0.0.1", 0),
            RaftSettings(),
            clock=time.monotonic,
            rng=random.Random(0),
        )
        return self.ends[name].open()

    def until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not done():
            assert time.monotonic() < deadline, {name: end.refused for name, end in self.ends.items()}
            for end in self.ends.values():
                end.poll(0.005)

    @property
    def connected(self) -> bool:
        return all(end.connected for end in self.ends.values())


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    for end in made.ends.values():
        end.destroy()


def test_both_ends_know_what_the_other_understands(pair: Pair) -> None:
    pair.levels["b"] = Levels(1, 3, 1)
    pair.connect()
    pair.until(lambda: pair.connected)
    assert pair.ends["a"].levels == {"b": Levels(1, 3, 1)}
    assert pair.ends["b"].levels == {"a": Levels(1, 2, 1)}
    assert pair.ends["a"].refused == pair.ends["b"].refused == {}


@pytest.mark.parametrize("old", ["a", "b"])
def test_who_does_not_understand_the_level_gets_no_link_until_it_does(pair: Pair, old: str) -> None:
    pair.levels = {name: Levels(1, 1, 1) if name == old else Levels(1, 2, 2) for name in "ab"}
    pair.connect()
    pair.until(lambda: all(end.refused for end in pair.ends.values()))
    said = f"{old} understands command levels up to 1, the cluster is at level 2"
    assert said in pair.ends["a"].refused["b"]
    assert f"it refused this node: {said}" in pair.ends["b"].refused["a"]
    assert not pair.ends["a"].levels
    assert not pair.ends["b"].levels
    pair.levels[old] = Levels(1, 2, 1)  # as a new build says, which is filled then
    pair.until(lambda: pair.connected)
    assert pair.ends["a"].refused == pair.ends["b"].refused == {}


def test_a_link_ends_when_the_level_rises_above_the_peer(pair: Pair) -> None:
    pair.levels["b"] = Levels(1, 1, 1)  # no member, or the level would not rise
    pair.connect()
    pair.until(lambda: pair.connected)
    pair.levels["a"] = Levels(1, 2, 2)
    pair.until(lambda: not pair.connected and bool(pair.ends["a"].refused))
    assert "b understands command levels up to 1" in pair.ends["a"].refused["b"]


def test_builds_without_a_common_version_say_so_at_both_ends(pair: Pair) -> None:
    pair.versions["b"] = (6, 7)
    pair.connect()
    pair.until(lambda: all(end.refused for end in pair.ends.values()))
    for refused in (pair.ends["a"].refused["b"], pair.ends["b"].refused["a"]):
        assert "it speaks versions 6 to 7 of the protocol between nodes, a version 5" in refused
