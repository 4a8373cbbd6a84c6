"""What a node and its engine's process say to each other arrives as it was meant."""

from __future__ import annotations

import socket
import threading
from typing import Any

import numpy as np
import pytest

from cluster.chroma.channel import (
    pack_call,
    pack_error,
    pack_get,
    pack_neighbours,
    pack_query,
    pack_records,
    pack_resolve,
    receive,
    send,
    unpack_answer,
    unpack_call,
    unpack_get,
    unpack_neighbours,
    unpack_query,
    unpack_records,
    unpack_resolve,
)
from cluster.chroma.interface import Get, Neighbours, Query, Records
from cluster.errors import ClusterError, Fault, Refusal, Unavailable
from cluster.state.commands import CreateTenant, DeleteRecords
from cluster.state.work import Call, Resolve, Target

TARGET = Target("tenant", "database", "name", "c1")


def over_the_wire(message: list[Any]) -> Any:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender = threading.Thread(target=send, args=(ours, message))
        sender.start()
        received = receive(theirs)
        sender.join()
    return received


def test_a_long_message_arrives_whole_and_an_end_is_told() -> None:
    assert over_the_wire(["x" * 3_000_000, [b"\0" * 9]]) == ["x" * 3_000_000, [b"\0" * 9]]
    ours, theirs = socket.socketpair()
    with theirs:
        ours.close()
        assert receive(theirs) is None


@pytest.mark.parametrize(
    "call",
    [
        Call(CreateTenant("t"), None, 3),
        Call(DeleteRecords("c1", ("a", "b"), None, None, None), TARGET, 2**40, ("c1", "c2")),
    ],
)
def test_calls(call: Call) -> None:
    assert unpack_call(over_the_wire(pack_call(call))) == call


def test_resolves() -> None:
    work = Resolve(DeleteRecords("c1", None, '{"k": 1}', None, 5), TARGET, 7)
    assert unpack_resolve(over_the_wire(pack_resolve(work))) == work
    with pytest.raises(ValueError, match="CreateTenant"):
        unpack_resolve(pack_call(Call(CreateTenant("t"), TARGET, 7))[:3])


@pytest.mark.parametrize("wanted", [Get(include=[]), Get(["a"], "{}", '{"$contains": "x"}', 3, 4, ["uris"])])
def test_gets(wanted: Get) -> None:
    assert unpack_get(over_the_wire(pack_get(wanted))) == wanted


def test_queries_carry_float32() -> None:
    wanted = Query([[0.1, 1e39], [1.0]], 3, ["a"], "{}", None, ["distances"])
    arrived = unpack_query(over_the_wire(pack_query(wanted)))
    rows = [np.asarray(row).tolist() for row in arrived.embeddings]
    assert rows == [[float(np.float32(0.1)), float("inf")], [1.0]]
    rest = ("n_results", "ids", "where", "where_document", "include")
    assert [getattr(arrived, name) for name in rest] == [getattr(wanted, name) for name in rest]


@pytest.mark.parametrize("vectors", [None, [[0.5, 1.5], [2.0, 3.0]]])
def test_answers(vectors: Any) -> None:
    records = Records(["a", "b"], vectors, ["text", None], None, [{"k": 1}, None])
    assert unpack_records(over_the_wire(pack_records(records))) == records
    found = None if vectors is None else [[vectors[0], None]]
    near = Neighbours([["a", "b"]], found, [["text", None]], None, None, [[0.5, None]])
    assert unpack_neighbours(over_the_wire(pack_neighbours(near))) == near


@pytest.mark.parametrize(
    "error",
    [Refusal(409, "ChromaError", "taken"), Fault("full"), Unavailable("stopping"), ClusterError("odd")],
)
def test_errors_are_raised_as_what_they_were(error: ClusterError) -> None:
    with pytest.raises(ClusterError) as raised:
        unpack_answer(over_the_wire(pack_error(error)))
    assert type(raised.value) is type(error)
    assert (raised.value.status, raised.value.error, raised.value.message) == (
        error.status,
        error.error,
        error.message,
    )
    assert unpack_answer(["ok", 1]) == 1
