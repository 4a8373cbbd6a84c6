"""The balancer over real sockets: where requests go, what nodes and clients see of them."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from tests.integration.lb_nodes import (
    COLLECTION,
    DATABASE,
    OTHER,
    SECRET,
    Node,
    answer,
    answers,
    bench,
    break_off,
    hangs,
)
from wire.addresses import split_address
from wire.proof import CHALLENGE, HEADER, is_challenge
from wire.prover import Prover

KIB = 1024
MIB = 1024 * KIB


def test_reads_rotate_over_all_nodes_and_writes_go_to_the_leader() -> None:
    async def scenario() -> None:
        async with bench() as b:
            reads = [(await b.get())[1]["node"] for _ in range(6)]
            writes = [(await b.post())[1]["node"] for _ in range(3)]
            assert sorted(reads) == ["node-1", "node-1", "node-2", "node-2", "node-3", "node-3"]
            assert writes == ["node-1"] * 3

    asyncio.run(scenario())


def test_a_clients_own_token_is_a_session_across_balancers() -> None:
    async def scenario() -> None:
        async with bench() as b:
            b.nodes[1].become(applied_index=9)
            await b.until(lambda: b.balancer.status()["nodes"][1]["applied_index"] == 9, "told")
            # Nobody asked this balancer before: without the token any node would do.
            read_at = [await b.get(X_Chroma_Min_Index="9") for _ in range(4)]
            assert {body["node"] for _, body in read_at} == {"node-2"}
            tokens = [r.headers["X-Chroma-Min-Index"] for node in b.nodes for r in node.received]
            assert tokens == ["9"] * 4
            # A token that is none is for the node to refuse, and not to be replaced.
            for token in ("x", "9" * 5_000):
                b.nodes[1].received.clear()
                assert (await b.get(X_Chroma_Min_Index=token))[0] == 200
                sent = [r.headers["X-Chroma-Min-Index"] for node in b.nodes for r in node.received]
                assert token in sent

    asyncio.run(scenario())


def test_bytes_that_are_no_text_do_not_leave_another_key_behind() -> None:
    async def scenario() -> None:
        async with bench(1) as b:
            for key in (b"a\xe9b", b"a\xed\xa0\x80b", "aéb".encode()):
                reader, writer = await asyncio.open_connection(*split_address(b.balancer.url[7:]))
                writer.write(
                    f"POST {COLLECTION}/add HTTP/1.1\r\nHost: x\r\nConnection: close\r\n".encode()
                    + b"Content-Length: 2\r\nIdempotency-Key: %s\r\nX-Other: %s\r\n\r\n{}" % (key, key)
                )
                assert b" 200 " in await reader.readline()
                writer.close()
            for name in ("Idempotency-Key", "X-Other"):
                sent = [r.headers[name] for r in b.nodes[0].received]
                assert sent == ["a\ufffdb", "a\ufffd\ufffd\ufffdb", "aéb"]

    asyncio.run(scenario())


def test_a_session_read_carries_what_was_seen_of_its_collection() -> None:
    async def scenario() -> None:
        async with bench() as b:
            leader, *followers = b.nodes
            leader.applied_index = 7  # told by its answer, before any status line
            await b.post()
            await b.get()
            await b.get(f"{OTHER}/count")
            await b.get(f"{DATABASE}/collections/by-name")
            got = [r for node in b.nodes for r in node.received if r.method == "GET"]
            minimum = {r.target: r.headers.get("X-Chroma-Min-Index") for r in got}
            assert minimum == {
                f"{COLLECTION}/count": "7",
                f"{OTHER}/count": None,
                f"{DATABASE}/collections/by-name": "7",
            }
            assert all(r.headers["X-Chroma-Consistency"] == "session" for r in got)
            # Nobody's status shows 7 yet, so the leader was asked; now one follower shows it.
            followers[0].become(applied_index=7)
            leader.become(applied_index=7)
            await b.until(
                lambda: [n["applied_index"] for n in b.balancer.status()["nodes"]] == [7, 7, 0], "seen"
            )
            assert {(await b.get())[1]["node"] for _ in range(6)} == {"node-1", "node-2"}

    asyncio.run(scenario())


def test_a_catalogue_change_binds_reads_of_every_collection() -> None:
    async def scenario() -> None:
        async with bench() as b:
            b.nodes[0].become(applied_index=9)
            await b.post(f"{DATABASE}/collections")
            await b.get(f"{OTHER}/count")
            received = [r for node in b.nodes for r in node.received if r.method == "GET"]
            assert [r.headers["X-Chroma-Min-Index"] for r in received] == ["9"]

    asyncio.run(scenario())


@pytest.mark.parametrize("level", ["eventual", "linearizable"])
def test_other_levels_carry_no_index_and_reach_the_node_as_they_are(level: str) -> None:
    async def scenario() -> None:
        async with bench() as b:
            b.nodes[0].become(applied_index=9)
            await b.post()
            await b.get(X_Chroma_Consistency=level, X_Max_Staleness_Ms="250")
            (read,) = [r for node in b.nodes for r in node.received if r.method == "GET"]
            assert read.headers["X-Chroma-Consistency"] == level
            assert read.headers["X-Max-Staleness-Ms"] == "250"
            assert "X-Chroma-Min-Index" not in read.headers

    asyncio.run(scenario())


def test_the_configured_level_is_the_default() -> None:
    async def scenario() -> None:
        async with bench(1, consistency="linearizable") as b:
            await b.get()
            await b.get(X_Chroma_Consistency="session")
            sent = [r.headers["X-Chroma-Consistency"] for r in b.nodes[0].received]
            assert sent == ["linearizable", "session"]

    asyncio.run(scenario())


def test_a_client_that_has_seen_more_elsewhere_is_believed() -> None:
    async def scenario() -> None:
        async with bench(1) as b:
            b.nodes[0].become(applied_index=5)
            await b.post()
            await b.get(X_Chroma_Min_Index="90")
            await b.get(X_Chroma_Min_Index="2")
            sent = [r.headers["X-Chroma-Min-Index"] for r in b.nodes[0].received if r.method == "GET"]
            assert sent == ["90", "5"]

    asyncio.run(scenario())


def test_a_new_balancer_starts_from_the_leaders_read_index() -> None:
    async def scenario() -> None:
        async with bench(wait=False) as b:
            b.nodes[0].read_index = None
            await b.until(lambda: len(b.usable()) == 3, "all nodes in rotation")
            held = asyncio.create_task(b.get())
            assert (await b.get(X_Chroma_Consistency="eventual"))[0] == 200
            assert not held.done()
            b.nodes[0].read_index = 40
            assert (await held)[0] == 200
            sent = [r.headers.get("X-Chroma-Min-Index") for node in b.nodes for r in node.received]
            assert sorted(sent, key=str) == ["40", None]

    asyncio.run(scenario())


def test_without_a_leader_a_new_balancer_serves_eventual_reads_only() -> None:
    async def scenario() -> None:
        async with bench(wait=False, hold_ms=300) as b:
            b.nodes[0].become(role="follower", read_index=None)
            await b.until(lambda: len(b.usable()) == 3, "all nodes in rotation")
            status, body = await b.get()
            assert (status, body["error"]) == (503, "UnavailableError")
            assert (await b.get(X_Chroma_Consistency="eventual"))[0] == 200
            assert (await b.get("/api/v2/heartbeat"))[0] == 200

    asyncio.run(scenario())


def test_indices_of_another_cluster_are_forgotten() -> None:
    async def scenario() -> None:
        async with bench(1) as b:
            b.nodes[0].become(applied_index=1000)
            await b.post()
            b.nodes[0].become(applied_index=3, read_index=3, cluster="restored")
            await b.until(lambda: b.balancer.status()["highest_index"] == 3, "the new cluster's floor")
            await b.get()
            assert b.nodes[0].received[-1].headers["X-Chroma-Min-Index"] == "3"

    asyncio.run(scenario())


def test_every_write_gets_a_key_and_a_clients_own_is_kept() -> None:
    async def scenario() -> None:
        async with bench(1) as b:
            await b.post()
            await b.post()
            await b.post(Idempotency_Key="mine")
            await b.get()
            keys = [r.headers.get("Idempotency-Key") for r in b.nodes[0].received]
            assert len({*keys[:2]}) == 2
            assert all(key and key.startswith("lb-") for key in keys[:2])
            assert keys[2:] == ["mine", None]

    asyncio.run(scenario())


def test_requests_and_answers_pass_unchanged() -> None:
    body = gzip.compress(b'{"ids": ["1"]}')
    reply = gzip.compress(b'{"ok": true}')

    async def odd(node: Node, request: Any) -> web.StreamResponse:
        del node, request
        headers = {"Content-Encoding": "gzip", "Content-Type": "application/json", "X-Chroma-Node": "n"}
        return web.Response(status=418, reason="Odd", body=reply, headers=headers)

    async def scenario() -> None:
        async with bench(1) as b:
            b.nodes[0].behaviour = odd
            target = f"{DATABASE}/collections/a%20b%2Fc?limit=1&x=%C3%A9"
            url = URL(b.balancer.url + target, encoded=True)
            headers = {
                "Content-Type": "application/json",
                "Content-Encoding": "gzip",
                "X-Chroma-Forwarded": "1",
                "X-Chroma-Ack": "committed",
                "Connection": "X-Mine",
                "X-Mine": "1",
            }
            async with aiohttp.ClientSession(auto_decompress=False) as raw:
                response = await raw.put(url, data=body, headers=headers)
                assert (response.status, response.reason) == (418, "Odd")
                assert await response.read() == reply
                assert response.headers["Content-Encoding"] == "gzip"
                assert response.headers["X-Chroma-Node"] == "n"
            (got,) = b.nodes[0].received
            assert (got.method, got.target, got.body) == ("PUT", target, body)
            assert got.headers["Content-Encoding"] == "gzip"
            assert got.headers["X-Chroma-Ack"] == "committed"
            assert "X-Chroma-Forwarded" not in got.headers
            assert "X-Mine" not in got.headers

    asyncio.run(scenario())


def test_a_request_without_content_type_reaches_the_node_without_one() -> None:
    async def scenario() -> None:
        async with bench(1) as b:
            url = b.balancer.url + f"{COLLECTION}/get"
            async with b.session.post(url, data=b"{}", skip_auto_headers=["Content-Type"]) as response:
                assert response.status == 200
            assert "Content-Type" not in b.nodes[0].received[0].headers
            assert b.nodes[0].received[0].body == b"{}"

    asyncio.run(scenario())


def test_head_has_the_length_of_get_and_no_body() -> None:
    async def scenario() -> None:
        async with bench(1) as b, b.request("HEAD", "/api/v2/heartbeat") as response:
            assert response.status == 200
            assert await response.read() == b""
            assert response.headers["Content-Length"] == str(len('{"node": "node-1"}'))

    asyncio.run(scenario())


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_above_the_limit_is_refused_in_chromas_words_and_one_at_the_limit_passes(
    chunked: bool,
) -> None:
    async def parts(size: int) -> Any:
        for _ in range(size // KIB):
            yield b"x" * KIB
        yield b"x" * (size % KIB)

    async def scenario() -> None:
        async with bench(1, max_request_bytes=MIB) as b:

            async def send(size: int) -> tuple[int, Any]:
                data = parts(size) if chunked else io.BytesIO(b"x" * size)
                async with b.request("POST", f"{COLLECTION}/add", data=data) as response:
                    return response.status, await response.json()

            assert (await send(MIB))[0] == 200
            assert len(b.nodes[0].received[0].body) == MIB
            assert await send(MIB + 1) == (
                413,
                {
                    "error": "ChromaError",
                    "message": "Failed to buffer the request body: length limit exceeded",
                },
            )
            assert len(b.nodes[0].received) == 1
            assert b.balancer.status()["buffered_bytes"] == 0

    asyncio.run(scenario())


def test_expect_continue_is_answered() -> None:
    async def scenario() -> None:
        async with (
            bench(1) as b,
            b.request("POST", f"{COLLECTION}/add", data=b"{}", expect100=True) as response,
        ):
            assert response.status == 200
            assert b.nodes[0].received[0].body == b"{}"
            assert "Expect" not in b.nodes[0].received[0].headers

    asyncio.run(scenario())


def test_bodies_above_the_common_budget_are_refused_and_taken_later() -> None:
    async def scenario() -> None:
        async with bench(1, max_buffered_bytes=MIB) as b:
            b.nodes[0].behaviour = hangs
            size = 700 * KIB
            waiting = asyncio.create_task(_add(b, size))
            await b.until(lambda: bool(b.nodes[0].received), "the first one to arrive")
            status, body = await _add(b, size)
            assert (status, body["error"]) == (429, "OverloadedError")
            assert "Nothing was changed" in body["message"]
            b.nodes[0].behaviour = answers
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            b.nodes[0].become(healthy=False)
            await b.until(lambda: not b.usable(), "it to be ejected")

    asyncio.run(scenario())


def test_too_many_requests_at_one_time_are_refused() -> None:
    async def scenario() -> None:
        async with bench(1, max_in_flight=1) as b:
            b.nodes[0].behaviour = hangs
            waiting = asyncio.create_task(b.get())
            await b.until(lambda: bool(b.nodes[0].received), "the first one to arrive")
            status, body = await b.get()
            assert (status, body["error"]) == (429, "OverloadedError")
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(scenario())


@pytest.mark.parametrize("known_length", [True, False])
def test_a_large_answer_is_streamed_whole(known_length: bool) -> None:
    size = 5 * MIB + 3

    async def large(node: Node, request: Any) -> web.StreamResponse:
        del node
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        if known_length:
            response.content_length = size
        await response.prepare(request)
        for start in range(0, size, 64 * KIB):
            await response.write(b"y" * min(64 * KIB, size - start))
        return response

    async def scenario() -> None:
        async with bench(1) as b:
            b.nodes[0].behaviour = large
            async with b.request("POST", f"{COLLECTION}/get", json={}) as response:
                assert await response.read() == b"y" * size
                assert ("Content-Length" in response.headers) is known_length
            b.nodes[0].behaviour = answers
            assert (await b.get())[0] == 200

    asyncio.run(scenario())


def test_a_large_answer_that_breaks_off_is_never_taken_for_whole() -> None:
    async def large(node: Node, request: Any) -> web.StreamResponse:
        del node
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        for _ in range(40):
            await response.write(b"y" * 64 * KIB)
        break_off(request)
        return response

    async def scenario() -> None:
        async with bench(1) as b:
            b.nodes[0].behaviour = large
            with pytest.raises(aiohttp.ClientError):
                async with b.request("POST", f"{COLLECTION}/get", json={}) as response:
                    await response.read()

    asyncio.run(scenario())


def test_the_balancer_has_endpoints_of_its_own_and_hides_those_of_nodes() -> None:
    async def scenario() -> None:
        async with bench() as b:
            view = await b.whole_status(Prover(SECRET.encode()))
            assert view["url"] == b.balancer.url
            assert (view["healthy"], view["leader"], view["term"]) == (True, "node-1", 1)
            assert [node["id"] for node in view["nodes"]] == ["node-1", "node-2", "node-3"]
            assert view["nodes"][1]["role"] == "follower"
            assert (await b.get("/cluster/healthz")) == (200, {"healthy": True})
            for path in ("/cluster/read-index", "/cluster/embed", "/cluster", "/cluster/status/x"):
                status, body = await b.post(path)
                assert (status, body["error"]) == (404, "NotFoundError")
            assert (await b.post("/cluster/status"))[0] == 405
            assert not any(node.received for node in b.nodes)
            b.nodes[0].become(role="follower")
            await b.until(lambda: not b.balancer.status()["healthy"], "no leader known")
            assert (await b.get("/cluster/healthz")) == (503, {"healthy": False})

    asyncio.run(scenario())


def test_a_stranger_sees_no_address_of_a_balancers_nodes_and_no_process_id() -> None:
    async def scenario() -> None:
        async with bench() as b:
            await b.nodes[2].kill()
            await b.until(lambda: b.usable() == {"node-1", "node-2"}, "node-3 is gone")
            for target in ("/cluster/status", "/cluster/status?watch=1", "/cluster/status?x=%2f"):
                async with b.request("GET", target) as response:
                    told = await response.text()
                    assert response.status == 200
                    assert is_challenge(response.headers[CHALLENGE])
                view = json.loads(told)
                assert set(view) == {"healthy", "nodes"}
                assert all(set(node) == {"id", "role", "state", "healthy", "ready"} for node in view["nodes"])
                assert not any(word in told for word in ("127.0.0.1", "http", "pid", "connect"))
            rows = {node["id"]: node for node in view["nodes"]}
            assert rows["node-1"] == {
                "id": "node-1", "role": "leader", "state": "ready", "healthy": True, "ready": True
            }  # fmt: skip
            assert (rows["node-3"]["state"], rows["node-3"]["healthy"]) == (None, False)

    asyncio.run(scenario())


def test_who_proves_the_secret_sees_all_of_a_balancers_status_and_a_proof_opens_once() -> None:
    async def scenario() -> None:
        async with bench() as b:
            prover = Prover(SECRET.encode())
            assert {"pid", "url", "leader", "buffered_bytes"} <= set(await b.whole_status(prover))
            proof = prover.headers(b.balancer.url, "GET", "/cluster/status")
            async with b.request("GET", "/cluster/status", headers=proof) as response:
                assert response.status == 200
                assert "url" in (await response.json())["nodes"][0]
            wrong = Prover(b"another")
            wrong.learn(b.balancer.url, 200, response.headers)
            others = (
                proof,  # once more
                prover.headers(b.balancer.url, "GET", "/cluster/healthz"),
                prover.headers(b.balancer.url, "HEAD", "/cluster/status"),
                wrong.headers(b.balancer.url, "GET", "/cluster/status"),
                {HEADER: ""},
                {HEADER: "x" * 5000},
            )
            for headers in others:
                async with b.request("GET", "/cluster/status", headers=headers) as response:
                    told = await response.json()
                    assert (response.status, set(told)) == (403, {"error", "message"})
                    assert response.headers["X-Chroma-Outcome"] == "unchanged"
                    assert is_challenge(response.headers[CHALLENGE])
            # One that knew an earlier challenge of this address learns the new one from the refusal.
            earlier = Prover(SECRET.encode())
            earlier.learn(b.balancer.url, 200, {CHALLENGE: "0" * 32})
            assert "pid" in await b.whole_status(earlier)

    asyncio.run(scenario())


async def _add(b: Any, size: int) -> tuple[int, Any]:
    data = io.BytesIO(b"x" * size)
    async with b.request("POST", f"{COLLECTION}/add", data=data) as response:
        return response.status, await response.json()


def test_answers_name_their_node_and_index() -> None:
    async def named(node: Node, request: Any) -> web.StreamResponse:
        del request
        return answer(node, {}, status=201)

    async def scenario() -> None:
        async with bench(1) as b:
            b.nodes[0].behaviour = named
            b.nodes[0].become(applied_index=12)
            async with b.request("POST", f"{COLLECTION}/add", json={}) as response:
                assert response.status == 201
                assert response.headers["X-Chroma-Node"] == "node-1"
                assert response.headers["X-Chroma-Log-Index"] == "12"

    asyncio.run(scenario())
