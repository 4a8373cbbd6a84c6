"""Commands survive their wire form exactly, and what cannot be read is refused, never guessed."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.state.commands import (
    Command,
    CreateCollection,
    CreateDatabase,
    CreateTenant,
    DeleteCollection,
    DeleteDatabase,
    DeleteRecords,
    Group,
    Proposal,
    Reset,
    UpdateCollection,
    UpdateTenant,
    WriteRecords,
    decode_command,
    decode_group,
    decode_proposal,
    encode_command,
    encode_group,
    encode_proposal,
)

texts = st.text(max_size=12)
optional_texts = st.none() | texts
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | texts
metadata = st.none() | st.dictionaries(texts, scalars | st.lists(st.integers(0, 9), max_size=3), max_size=3)
ids = st.lists(texts, max_size=4).map(tuple)


def columns(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | st.lists(values, max_size=4).map(tuple)


commands = st.one_of(
    st.builds(CreateTenant, texts),
    st.builds(UpdateTenant, texts, texts),
    st.builds(CreateDatabase, texts, texts, texts),
    st.builds(DeleteDatabase, texts, texts),
    st.builds(
        CreateCollection,
        texts,
        texts,
        texts,
        texts,
        st.booleans(),
        metadata,
        optional_texts,
        optional_texts,
    ),
    st.builds(UpdateCollection, texts, optional_texts, metadata, optional_texts),
    st.builds(DeleteCollection, texts, texts, texts),
    st.builds(
        WriteRecords,
        st.sampled_from(["add", "upsert", "update"]),
        texts,
        ids,
        st.none() | st.integers(1, 2**16),
        columns(st.none() | st.binary(max_size=16)),
        columns(metadata),
        columns(optional_texts),
        columns(optional_texts),
        optional_texts,
    ),
    st.builds(
        DeleteRecords,
        texts,
        st.none() | ids,
        optional_texts,
        optional_texts,
        st.none() | st.integers(0, 2**32 - 1),
    ),
    st.just(Reset()),
)
proposals = st.builds(Proposal, texts, st.binary(max_size=32), commands)


@given(proposals)
def test_a_proposal_comes_back_as_it_was(proposal: Proposal) -> None:
    decoded = decode_proposal(encode_proposal(proposal))
    assert decoded == proposal
    assert repr(decoded) == repr(proposal)  # 1 and True and 1.0 are equal, but not the same


@given(commands)
def test_a_command_alone_comes_back_as_it_was(command: Command) -> None:
    decoded = decode_command(encode_command(command))
    assert repr(decoded) == repr(command)


@given(st.integers(0, 2**62), st.lists(proposals, max_size=4).map(tuple))
def test_a_group_comes_back_as_it_was(time_ms: int, members: tuple[Proposal, ...]) -> None:
    payload = encode_group(time_ms, [encode_proposal(proposal) for proposal in members])
    assert decode_group(payload) == Group(time_ms, members)


def test_float32_bytes_and_signed_zeros_are_kept_bit_for_bit() -> None:
    vector = b"\x00\x00\x00\x80\x00\x00\xc0\x7f"
    command = WriteRecords("add", "c", ("a",), 2, (vector,), ({"zero": -0.0},), None, None)
    decoded = decode_proposal(encode_proposal(Proposal("r", b"", command))).command
    assert isinstance(decoded, WriteRecords)
    assert decoded.embeddings == (vector,)
    assert str(decoded.metadatas) == "({'zero': -0.0},)"


def test_a_newer_wire_version_is_not_read() -> None:
    with pytest.raises(ValueError, match="wire version 2"):
        decode_group(msgpack.packb([2, 0, []]))


def test_a_newer_command_is_not_read() -> None:
    with pytest.raises(ValueError, match="unknown tag 99"):
        decode_proposal(msgpack.packb(["r", b"", 99, []]))
    with pytest.raises(ValueError, match="tag 99"):
        decode_command(msgpack.packb([99, []]))


def test_a_command_with_too_few_fields_is_not_read() -> None:
    with pytest.raises(ValueError, match="zip"):
        decode_proposal(msgpack.packb(["r", b"", 3, ["tenant"]]))


def test_the_tags_on_disk_stay_what_they_are() -> None:
    samples = [
        CreateTenant("t"),
        UpdateTenant("t", "r"),
        CreateDatabase("t", "d", "i"),
        DeleteDatabase("t", "d"),
        CreateCollection("t", "d", "n", "i", False, None, None, None),
        UpdateCollection("i", None, None, None),
        DeleteCollection("t", "d", "n"),
        WriteRecords("add", "i", (), None, None, None, None, None),
        DeleteRecords("i", None, None, None, None),
        Reset(),
    ]
    tags = [msgpack.unpackb(encode_proposal(Proposal("r", b"", command)))[2] for command in samples]
    assert tags == list(range(1, 11))
