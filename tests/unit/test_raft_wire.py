"""Bytes from the wire: what nodes say comes back as it was, and nothing else gets through."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import msgpack
import pytest

from cluster.levels import Levels
from cluster.raft.framing import (
    HANDSHAKE,
    LAST_PIECE,
    MESSAGE,
    PIECE,
    PING,
    FrameReader,
    FrameWriter,
    FramingError,
)
from cluster.raft.handshake import PROTOCOL, Acceptor, Dialer, Identity, Refused, refusal
from cluster.raft.journal import checksum
from cluster.raft.messages import (
    Accepted,
    Append,
    Heartbeat,
    HeartbeatReply,
    Message,
    PreVote,
    PreVoteReply,
    Rejected,
    TimeoutNow,
    Unservable,
    Vote,
    VoteReply,
    WireEntry,
    decode,
    encode,
)

EVERY_KIND: list[Message] = [
    Append(5, 6, 4, 3, 2, (WireEntry(4, checksum(7, 4, b"x"), b"x"), WireEntry(5, checksum(8, 5, b""), b""))),
    Append(1, 0, 0, 0, 0, ()),
    Accepted(3, 9),
    Rejected(3, 9, 4, 2),
    Heartbeat(1, 2, 3, 4),
    Heartbeat(1, 2, 3, 4, 3, 1500, 90_000_000_000),
    HeartbeatReply(1, 4),
    PreVote(1, 2, 3, 1),
    PreVoteReply(1, 2, True),
    Vote(1, 2, 1, False),
    VoteReply(1, False),
    TimeoutNow(8),
    Unservable(8, 1, 40),
]


@pytest.mark.parametrize("message", EVERY_KIND, ids=lambda message: type(message).__name__)
def test_messages_come_back_as_they_were(message: Message) -> None:
    assert decode(encode(message)) == message


def test_damaged_messages_are_refused_or_whole() -> None:
    """Every flip, cut and random string is a ValueError or a well-typed message; nothing else is raised."""
    rng = random.Random(1)
    for message in EVERY_KIND:
        data = encode(message)
        for _ in range(300):
            damaged = bytearray(data)
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            for candidate in (bytes(damaged), bytes(damaged[: rng.randrange(len(damaged) + 1)])):
                try:
                    found = decode(candidate)
                except ValueError:
                    continue
                assert type(found) in {type(kind) for kind in EVERY_KIND}
    for _ in range(3000):
        try:
            decode(rng.randbytes(rng.randrange(64)))
        except ValueError:
            continue


def test_a_damaged_entry_is_refused() -> None:
    data = encode(Append(1, 0, 0, 0, 0, (WireEntry(1, checksum(1, 1, b"payload"), b"payload"),)))
    with pytest.raises(ValueError, match="damaged entry at index 1"):
        decode(data.replace(b"payload", b"pAyload"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc0",
        b"\x90",
        b"\x91\x63",
        b"\x92\x0a\xc3",
        b"\x92\x0a\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 5000,
    ],
)
def test_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode(data)


def frames(writer: FrameWriter) -> list[bytes]:
    found: list[bytes] = []
    while (frame := writer.next_frame()) is not None:
        found.append(frame)
    return found


def read_all(reader: FrameReader) -> None:
    while reader.next_message() is not None:
        pass


def pair(key: bytes = b"k") -> tuple[FrameWriter, FrameReader]:
    writer, reader = FrameWriter(1000), FrameReader(1000, 50_000)
    writer.set_key(key)
    reader.set_key(key)
    return writer, reader


def test_long_messages_come_in_pieces_with_urgent_ones_between() -> None:
    writer, reader = pair()
    long = random.Random(2).randbytes(20_500)
    writer.put_bulk(long)
    out: list[tuple[int, bytes]] = []
    sent = 0
    while (frame := writer.next_frame()) is not None:
        sent += 1
        if sent == 5:
            writer.put_urgent(MESSAGE, b"heartbeat")
        for at in range(0, len(frame), 77):
            reader.feed(frame[at : at + 77])
            while (found := reader.next_message()) is not None:
                out.append(found)
    assert out == [(MESSAGE, b"heartbeat"), (MESSAGE, long)]
    assert (writer.bulk_bytes, writer.urgent_bytes) == (0, 0)


@pytest.mark.parametrize("damage", ["flip", "drop", "swap", "repeat", "other key"])
def test_a_changed_dropped_moved_or_repeated_frame_ends_the_connection(damage: str) -> None:
    writer, reader = pair()
    for number in range(5):
        writer.put_urgent(MESSAGE, b"message %d" % number)
    sent = frames(writer)
    if damage == "flip":
        sent[2] = sent[2][:8] + bytes([sent[2][8] ^ 1]) + sent[2][9:]
    elif damage == "drop":
        del sent[2]
    elif damage == "swap":
        sent[2], sent[3] = sent[3], sent[2]
    elif damage == "repeat":
        sent.insert(2, sent[2])
    else:
        reader.set_key(b"other")
    reader.feed(b"".join(sent))
    with pytest.raises(FramingError):
        read_all(reader)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff\x01",
        b"\x00\x00\x10\x00\x00",
        b"\x00\x00\x00\x05\x01abcd",
        b"\x00\x00\x00\x05\x09abcd",
        b"\x00\x00\x00\x00\x00",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_before_the_handshake_only_small_handshake_frames_pass(data: bytes) -> None:
    reader = FrameReader(1000, 50_000)
    reader.feed(data)
    with pytest.raises(FramingError):
        reader.next_message()


def test_a_message_above_the_limit_is_refused_before_it_is_whole() -> None:
    writer, reader = pair()
    writer.put_bulk(bytes(60_000))
    sent = frames(writer)
    for frame in sent[:49]:
        reader.feed(frame)
        assert reader.next_message() is None
    for frame in sent[49:51]:
        reader.feed(frame)
    with pytest.raises(FramingError, match="more than 50000"):
        read_all(reader)


def test_random_bytes_never_do_more_than_end_the_connection() -> None:
    rng = random.Random(3)
    for _ in range(500):
        reader = FrameReader(1000, 50_000)
        if rng.random() < 0.5:
            reader.set_key(b"k")
        data = rng.randbytes(rng.randrange(200))
        if rng.random() < 0.5:
            kind = rng.choice([HANDSHAKE, MESSAGE, PIECE, LAST_PIECE, PING])
            data = len(data).to_bytes(4, "big") + bytes((kind,)) + data
        reader.feed(data)
        try:
            while reader.next_message() is not None:
                pass
        except FramingError:
            continue


A, B = Identity("c", "a", b"secret"), Identity("c", "b", b"secret")


def only_ab(peer: str, run: str) -> str | None:
    return None if peer in ("a", "b") and run != "copy" else "not let in"


def shake(dialer: Identity, acceptor: Identity, wanted: str | None = None) -> bool:
    caller = Dialer(dialer, wanted or acceptor.node_id, b"d" * 32)
    called = Acceptor(acceptor, only_ab, b"a" * 32)
    proof, keys = caller.on_challenge(called.on_hello(caller.hello()))
    return called.on_proof(proof) == (dialer.node_id, keys) and keys.dialer != keys.acceptor


def test_two_with_one_secret_agree_on_keys() -> None:
    assert shake(B, A)


@pytest.mark.parametrize(
    ("dialer", "acceptor", "wanted", "why"),
    [
        (Identity("c", "b", b"wrong"), A, None, "secret"),
        (Identity("other", "b", b"secret"), A, None, "another cluster"),
        (Identity("c", "x", b"secret"), A, None, "not let in"),
        (Identity("c", "b", b"secret", "copy"), A, None, "not let in"),
        (Identity("c", "b" * 65, b"secret"), A, None, "cannot be a member"),
        (B, A, "z", "wanted node"),
        (Identity("c", "a", b"secret"), A, None, "cannot be a member"),
    ],
)
def test_a_wrong_secret_cluster_or_node_is_refused(
    dialer: Identity, acceptor: Identity, wanted: str | None, why: str
) -> None:
    with pytest.raises(Refused, match=why):
        shake(dialer, acceptor, wanted)


def test_a_dialer_without_the_secret_is_refused_by_the_acceptor_too() -> None:
    called = Acceptor(A, only_ab, b"a" * 32)
    thief = Identity("c", "b", b"wrong")
    called.on_hello(Dialer(thief, "a", b"d" * 32).hello())
    own = Acceptor(Identity("c", "a", b"wrong"), only_ab, b"a" * 32)
    caller = Dialer(thief, "a", b"d" * 32)
    proof, _ = caller.on_challenge(own.on_hello(caller.hello()))
    with pytest.raises(Refused, match="secret"):
        called.on_proof(proof)


def test_a_recorded_handshake_cannot_be_replayed() -> None:
    caller = Dialer(B, "a", b"d" * 32)
    hello = caller.hello()
    first = Acceptor(A, only_ab, b"1" * 32)
    proof, _ = caller.on_challenge(first.on_hello(hello))
    first.on_proof(proof)
    second = Acceptor(A, only_ab, b"2" * 32)
    second.on_hello(hello)
    with pytest.raises(Refused):
        second.on_proof(proof)


def test_an_acceptors_proof_cannot_be_reflected_as_a_dialers() -> None:
    called = Acceptor(A, only_ab, b"a" * 32)
    caller = Dialer(B, "a", b"d" * 32)
    challenge = called.on_hello(caller.hello())
    with pytest.raises(Refused):
        called.on_proof(b"\x92\xa5proof\xc4\x20" + challenge[-32:])


def of_build(node: Identity, oldest: int, newest: int, levels: Levels | None = None) -> Identity:
    """A node whose build speaks these versions of the protocol, and says these command levels."""
    return replace(node, versions=(oldest, newest), levels=lambda: levels or Levels())


@pytest.mark.parametrize(
    ("dialers", "acceptors", "spoken"),
    [((5, 5), (5, 5), 5), ((5, 6), (5, 5), 5), ((5, 5), (5, 6), 5), ((5, 7), (6, 9), 7), ((6, 9), (5, 7), 7)],
)
def test_two_builds_speak_the_newest_version_that_both_know(
    dialers: tuple[int, int], acceptors: tuple[int, int], spoken: int
) -> None:
    caller = Dialer(of_build(B, *dialers), "a", b"d" * 32)
    called = Acceptor(of_build(A, *acceptors), only_ab, b"a" * 32)
    proof, _ = caller.on_challenge(called.on_hello(caller.hello()))
    called.on_proof(proof)
    assert caller.link is not None
    assert called.link is not None
    assert caller.link.version == called.link.version == spoken


@pytest.mark.parametrize(("dialers", "acceptors"), [((5, 5), (6, 7)), ((8, 9), (6, 7))])
def test_builds_that_speak_no_common_version_say_which_ones(
    dialers: tuple[int, int], acceptors: tuple[int, int]
) -> None:
    with pytest.raises(Refused, match="run builds that have one in common") as refused:
        shake(of_build(B, *dialers), of_build(A, *acceptors))
    assert str(dialers[1]) in refused.value.reason
    assert f"a versions {acceptors[0]} to {acceptors[1]}" in refused.value.reason
    assert refused.value.peer == "b"


def test_a_build_from_before_ranges_is_told_which_versions_there_are() -> None:
    old = msgpack.packb(["hello", PROTOCOL, 4, "c", "b", "a", b"d" * 32, "run"])
    with pytest.raises(Refused, match="it speaks version 4 of the protocol between nodes, a version 5"):
        Acceptor(A, only_ab, b"a" * 32).on_hello(old)


def test_a_later_version_may_say_more() -> None:
    """Fields at the end are passed over, and proven all the same."""
    caller = Dialer(of_build(B, 5, 6), "a", b"d" * 32)
    caller._hello = msgpack.packb([*msgpack.unpackb(caller.hello()), "something new"])
    called = Acceptor(A, only_ab, b"a" * 32)
    proof, _ = caller.on_challenge(called.on_hello(caller.hello()))
    assert called.on_proof(proof)[0] == "b"


@pytest.mark.parametrize("field", range(2, 9))
def test_nobody_between_them_changes_what_is_said(field: int) -> None:
    """Each field of the hello is in the proofs: an older version or a lower level cannot be put in."""
    caller = Dialer(of_build(B, 5, 6, Levels(1, 3, 1)), "a", b"d" * 32)
    called = Acceptor(of_build(A, 5, 6, Levels(1, 3, 1)), only_ab, b"a" * 32)
    said = msgpack.unpackb(caller.hello())
    others = {2: [5, 5], 3: "other", 4: "x", 5: "z", 6: b"e" * 32, 7: "another run", 8: [1, 2, 1]}
    said[field] = others[field]
    with pytest.raises(Refused):
        caller.on_challenge(called.on_hello(msgpack.packb(said)))


@pytest.mark.parametrize("field", range(4))
def test_nor_what_is_answered(field: int) -> None:
    caller = Dialer(of_build(B, 5, 6), "a", b"d" * 32)
    called = Acceptor(of_build(A, 5, 6), only_ab, b"a" * 32)
    kind, answer, proof = msgpack.unpackb(called.on_hello(caller.hello()))
    fields = msgpack.unpackb(answer)
    fields[field] = [b"e" * 32, "another run", 5, [1, 2, 1]][field]
    with pytest.raises(Refused):
        caller.on_challenge(msgpack.packb([kind, msgpack.packb(fields), proof]))


def test_both_learn_the_others_levels() -> None:
    caller = Dialer(of_build(B, 5, 5, Levels(1, 2, 1)), "a", b"d" * 32)
    called = Acceptor(of_build(A, 5, 5, Levels(1, 3, 2)), only_ab, b"a" * 32)
    proof, _ = caller.on_challenge(called.on_hello(caller.hello()))
    called.on_proof(proof)
    assert caller.link is not None
    assert called.link is not None
    assert caller.link.peer_levels == Levels(1, 3, 2)
    assert called.link.peer_levels == Levels(1, 2, 1)


@pytest.mark.parametrize(
    ("dialers", "acceptors", "who"),
    [(Levels(1, 1, 1), Levels(1, 2, 2), "b"), (Levels(1, 2, 2), Levels(1, 1, 1), "a")],
)
def test_who_does_not_understand_the_level_in_force_is_refused(
    dialers: Levels, acceptors: Levels, who: str
) -> None:
    """Whichever side dials, both hear the same sentence."""
    why = f"{who} understands command levels up to 1, the cluster is at level 2, .*: start {who} with a build"
    with pytest.raises(Refused, match=why) as refused:
        shake(of_build(B, 5, 5, dialers), of_build(A, 5, 5, acceptors))
    caller = Dialer(of_build(B, 5, 5, dialers), "a", b"d" * 32)
    with pytest.raises(Refused, match=f"it refused this node: {why}") as told:
        caller.on_challenge(refusal(refused.value.reason))
    assert told.value.peer == "a"


@pytest.mark.parametrize("levels", [None, 7, [], [1, 2], ["1", 2, 1], [2, 1, 1]])
def test_malformed_levels_are_refused(levels: Any) -> None:
    hello = msgpack.packb(["hello", PROTOCOL, [5, 5], "c", "b", "a", b"d" * 32, "run", levels])
    with pytest.raises(Refused, match="does not speak this protocol"):
        Acceptor(A, only_ab, b"a" * 32).on_hello(hello)


@pytest.mark.parametrize("versions", [None, "5", [], [5], ["a", "b"], {}, 5.0, [True, True]])
def test_malformed_versions_are_refused(versions: Any) -> None:
    hello = msgpack.packb(["hello", PROTOCOL, versions, "c", "b", "a", b"d" * 32, "run", [1, 1, 1]])
    with pytest.raises(Refused):
        Acceptor(A, only_ab, b"a" * 32).on_hello(hello)
