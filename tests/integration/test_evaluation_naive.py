"""The home-made system on real servers: it copies, stays available on both sides, and loses what it must."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import chromadb
import pytest

from evaluation.systems.naive.system import Naive
from evaluation.systems.proxies import Toxic
from tests.integration.evaluation_client import Documents, Started, started

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.slow

#: So long that only the rounds that a test asks for bring copies.
NEVER_S = 3600.0


@contextlib.asynccontextmanager
async def apart(run: Started, member: str) -> AsyncIterator[None]:
    """`member` and the clients beside it on one side, everybody else on the other."""
    links = [link for link in run.system.links if link.acceptor == member and link.plane != "client"]
    for link in links:
        for stream in ("upstream", "downstream"):
            await run.proxies.add(link.proxy, Toxic(f"cut-{stream}", "bandwidth", stream, {"rate": 0}))
    try:
        yield
    finally:
        await run.proxies.reset()


async def with_document(run: Started) -> Documents:
    """A collection with the document `x`, known to all members."""
    docs = await run.collection("lb", "docs")
    await run.system.settle()
    assert await docs.upsert("lb", "x", "base", kept=1) == 200
    texts = await docs.texts("x")
    assert sorted(texts, key=str) == [None, None, "base"], "written to one, not yet copied: stale reads"
    await run.system.settle()
    assert await docs.texts("x") == ["base"] * 3
    status, raw = await docs.ask("chroma-2", "get", {"ids": ["x"]})
    assert (status, raw["metadatas"]) == (200, [{"kept": 1}]), "the strategy's own metadata is hidden"
    return docs


async def write_on_both_sides(run: Started, docs: Documents) -> None:
    """`left` alone on its side, then, later, `right` on the other: all acknowledged."""
    async with apart(run, "chroma-1"):
        assert await docs.upsert("chroma-1", "x", "left", side="left") == 200
        assert await docs.upsert("chroma-2", "x", "right") == 200
        assert await docs.upsert("chroma-1", "only-left", "l") == 200
        assert await docs.upsert("chroma-3", "only-right", "r") == 200
    await run.system.settle()
    assert await docs.texts("only-left") == ["l"] * 3
    assert await docs.texts("only-right") == ["r"] * 3


def test_last_write_wins_loses_writes_undoes_deletes_and_trusts_clocks(tmp_path: Path) -> None:
    async def run() -> None:
        system = Naive("lww", sync_s=NEVER_S)
        async with started(system, tmp_path) as run:
            docs = await with_document(run)
            await write_on_both_sides(run, docs)
            assert await docs.texts("x") == ["right"] * 3, "an acknowledged write is gone"

            assert await docs.delete("chroma-1", "x") == 200
            assert await docs.text("chroma-1", "x") is None
            await system.settle()
            assert await docs.texts("x") == ["right"] * 3, "an acknowledged delete is undone"

            system.set_clock("chroma-1", 60_000)
            assert await docs.upsert("chroma-1", "y", "first") == 200
            await system.settle()
            assert await docs.upsert("chroma-2", "y", "second") == 200
            assert await docs.text("chroma-2", "y") == "second"
            await system.settle()
            assert await docs.texts("y") == ["first"] * 3, "the later of two sequential writes is gone"

            await killed_and_back(run, docs)

    asyncio.run(run())


async def killed_and_back(run: Started, docs: Documents) -> None:
    """A member that was killed is missed by the health check, comes back and catches up."""
    import os
    import signal

    for pid in run.system.pids("chroma-3"):
        os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        while run.system.pids("chroma-3"):  # noqa: ASYNC110 (until they are gone, which the kernel tells nobody)
            await asyncio.sleep(0.01)
    assert "chroma-3" in str(await run.system.health())
    assert [seen.role for seen in await run.system.observe()] == ["peer", "peer", "stopped"]
    assert await docs.upsert("chroma-1", "z", "meanwhile") == 200
    await run.system.restart("chroma-3")
    await run.system.settle()
    assert await docs.texts("z") == ["meanwhile"] * 3
    assert await run.system.health() is None


def test_vector_clocks_keep_both_versions_and_show_one(tmp_path: Path) -> None:
    async def run() -> None:
        system = Naive("vector-clock", sync_s=NEVER_S)
        async with started(system, tmp_path) as run:
            docs = await with_document(run)
            async with apart(run, "chroma-1"):
                assert await docs.upsert("chroma-1", "x", "left") == 200
                assert await docs.upsert("chroma-2", "x", "right") == 200
            await system.settle()
            assert await docs.texts("x") == ["right"] * 3
            assert (await system.siblings("docs"))["x"] == 2, "the other one lies beside it"

            assert await docs.upsert("lb", "x", "after") == 200
            await system.settle()
            assert await docs.texts("x") == ["after"] * 3
            assert "x" not in await system.siblings("docs")

            assert await docs.delete("chroma-3", "x") == 200
            await system.settle()
            assert await docs.texts("x") == [None] * 3

    asyncio.run(run())


def test_the_crdt_converges_adds_win_and_a_field_has_one_value(tmp_path: Path) -> None:
    async def run() -> None:
        system = Naive("crdt", sync_s=NEVER_S)
        async with started(system, tmp_path) as run:
            docs = await with_document(run)
            await write_on_both_sides(run, docs)
            assert await docs.texts("x") == ["right"] * 3, "of one field's two values one is gone"
            _, raw = await docs.ask("chroma-3", "get", {"ids": ["x"]})
            assert raw["metadatas"] == [{"kept": 1, "side": "left"}], "of different fields both live"

            async with apart(run, "chroma-1"):
                assert await docs.upsert("chroma-1", "x", "again") == 200
                assert await docs.delete("chroma-2", "x") == 200
            await system.settle()
            assert await docs.texts("x") == ["again"] * 3, "the delete had not seen this write"

            assert await docs.delete("chroma-2", "x") == 200
            assert (await run.ask("chroma-1", "POST", "/collections", {"name": "gone"}))[0] == 200
            await system.settle()
            assert await docs.texts("x") == [None] * 3
            assert (await run.ask("chroma-3", "DELETE", "/collections/gone"))[0] == 200
            await system.settle()
            assert (await run.ask("chroma-1", "GET", "/collections/gone"))[0] == 404

    asyncio.run(run())


def test_the_manual_queue_leaves_both_sides_as_they_are_until_somebody_decides(tmp_path: Path) -> None:
    async def run() -> None:
        system = Naive("manual", sync_s=NEVER_S)
        async with started(system, tmp_path) as run:
            docs = await with_document(run)
            await write_on_both_sides(run, docs)
            assert await docs.texts("x") == ["left", "right", "base"]
            assert (await system.counters())["waiting"] == 1
            assert set((await system.queue())["docs"]["x"]) == {"chroma-1", "chroma-2", "chroma-3"}

            assert await system.resolve("docs", "x", "chroma-1")
            await system.settle()
            assert await docs.texts("x") == ["left"] * 3
            assert await system.queue() == {}

    asyncio.run(run())


@pytest.mark.soak
def test_copying_whole_stores_loses_what_the_others_took(tmp_path: Path) -> None:
    async def run() -> None:
        system = Naive("lww", scope="store", sync_s=NEVER_S)
        async with started(system, tmp_path) as run:
            docs = await run.collection("lb", "docs")
            await system.settle()
            for number, member in enumerate(system.members):
                assert await docs.upsert(member, f"d{number}", member) == 200
            await system.settle()
            assert await docs.texts("d2") == ["chroma-3"] * 3, "the most up-to-date one had this"
            assert await docs.texts("d0") == await docs.texts("d1") == [None] * 3, "and not these"

    asyncio.run(run())


@pytest.mark.soak
def test_tombstones_make_deletes_last(tmp_path: Path) -> None:
    async def run() -> None:
        system = Naive("lww", tombstones=True, sync_s=NEVER_S)
        async with started(system, tmp_path) as run:
            docs = await with_document(run)
            assert await docs.delete("chroma-2", "x") == 200
            await system.settle()
            assert await docs.texts("x") == [None] * 3
            assert await docs.upsert("chroma-3", "x", "again") == 200
            await system.settle()
            assert await docs.texts("x") == ["again"] * 3

    asyncio.run(run())


@pytest.mark.soak
def test_chromas_own_client_works_through_it(tmp_path: Path) -> None:
    async def run() -> None:
        system = Naive("crdt", sync_s=NEVER_S)
        async with started(system, tmp_path) as run:
            await asyncio.to_thread(use, run.system.entries[1].url)

    def use(url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        client = chromadb.HttpClient(host=host, port=int(port))
        collection = client.create_collection("docs", embedding_function=None, metadata={"k": 1})
        collection.add(
            ids=["a", "b"],
            embeddings=[[1.0, 0.0], [0.0, 1.0]],
            documents=["A", "B"],
            metadatas=[{"x": 1}, {"x": 2}],
        )
        assert collection.query(query_embeddings=[[1.0, 0.1]], n_results=1)["ids"] == [["a"]]
        assert collection.get(where={"x": 2})["metadatas"] == [{"x": 2}]
        collection.update(ids=["a"], metadatas=[{"y": True}])
        assert collection.get(ids=["a"])["metadatas"] == [{"x": 1, "y": True}]
        collection.delete(where={"x": 2})
        assert collection.count() == 1
        assert [each.name for each in client.list_collections()] == ["docs"]
        client.delete_collection("docs")
        assert client.list_collections() == []

    asyncio.run(run())
