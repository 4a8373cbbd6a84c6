"""Named points at which a test may kill or hold up a process; without a test they do nothing.

For tests only: `CHROMA_CLUSTER_FAILPOINTS=journal.before_fsync=kill:3;api.decoded=pause:200`

    NAME=kill:N          the process kills itself with SIGKILL when it reaches NAME for the Nth time
    NAME=pause:MS        each thread that reaches NAME sleeps there for MS milliseconds
    NAME=...@PATH        the same, but only what is reached while the file PATH exists counts; a pause ends
                         when that file goes

`CHROMA_CLUSTER_MARKED_WORDS=1`: words of a request (a filter, a name) with `failpoint:engine:crash` in
them do that to the process of Chroma that is asked (`engine` or `scratch`): `crash` (SIGSEGV), `kill`
(SIGKILL), `hang` (waits and does nothing), `spin` (uses its processor and never answers).

A node and its engine's process read the variable when they start (`arm`) and refuse to start when they cannot
make sense of it. In any other process, and without the variable, a point costs a call and a look at a global.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE: Final = "CHROMA_CLUSTER_FAILPOINTS"
MARKED_WORDS: Final = "CHROMA_CLUSTER_MARKED_WORDS"

#: Every point there is, in the order in which a write, and then a snapshot, meets them: name -> what has just
#: (not) happened.
NAMES: Final[dict[str, str]] = {
    "forward.before_send": "a follower has a client's write and knows the leader; nothing is sent on",
    "api.decoded": "the leader has read the request; nothing is queued",
    "proposer.before_join": "somebody waits for the outcome; the write is not in the line",
    "proposer.after_join": "the write is in the line; it is in no entry",
    "proposer.before_propose": "the entry is made; the log has not been asked",
    "raft.appended": "the entry is in the leader's memory; nothing is sent or written",
    "raft.before_send": "one follower's message is made; that follower has not got it",
    "raft.after_send": "one follower has been sent the entry; the leader has not written it",
    "raft.append_received": "a follower has the message; nothing is changed there",
    "journal.before_write": "the transaction of this tick has not begun",
    "journal.before_fsync": "the transaction is written; it is not committed or synced",
    "journal.after_fsync": "the transaction is durable; the mark beside the journal is not moved",
    "journal.after_write": "journal and mark are written; nothing has been promised",
    "raft.before_ack": "the follower holds the entry durably; its leader does not know",
    "raft.after_ack": "the ack has left",
    "raft.before_commit": "a majority holds the entry; the commit index has not moved",
    "raft.after_commit": "the commit index has moved and this node's threads know",
    "applier.before_step": "committed entries are decoded; the machine has not planned the step",
    "applier.after_resolve": "the ids of a delete by filter are read; they are not durable",
    "applier.before_engine": "the step is planned; Chroma has not been called",
    "engine.before_call": "in Chroma's process: the call has arrived",
    "engine.after_call": "in Chroma's process: the call is done; nobody was told",
    "applier.after_engine": "Chroma has the write; the state file does not say so",
    "applier.before_stuck": "the engine failed twice on one write alone; nobody was told",
    "deliberation.before_propose": "everybody is stuck there and holds; nothing is proposed",
    "deliberation.after_propose": "the agreement is proposed; it may not be committed",
    "applier.before_refusal": "the agreement is known; the refusal is not durable",
    "store.before_commit": "state and marker are written; their transaction is not committed",
    "store.after_commit": "state and marker are durable; memory has the state before",
    "applier.half_written": "a write that takes several engine calls is begun; it is not finished",
    "applier.before_outcome": "the step is finished; who waits has not been told",
    "api.before_answer": "the outcome is known; no byte of the answer has left",
    "forward.after_receive": "the follower has the leader's answer; the client has nothing",
    "snapshot.copied_chroma": "a donor has copied Chroma's files; the state file is not copied",
    "snapshot.copied": "all files are copied and summed; the applier goes on; nothing is durable",
    "snapshot.sealed": "the snapshot is durable and has its name; nobody was told",
    "snapshot.before_part": "a donor is asked for a part of a file; it has read nothing",
    "fetch.part_written": "a part of a file is written; it is not synced",
    "fetch.file_done": "a file is complete and verified; it is not synced",
    "fetch.all_here": "all files are here; they are not synced",
    "fetch.synced": "all files are durable; nothing is decided",
    "install.before_decision": "the marker that decides is not written",
    "install.decided": "the marker is durable; the node still runs as before",
    "install.log_reset": "the journal goes on from the snapshot; the files are the old ones",
    "install.state_set_aside": "the old state file is set aside; the new one is not in its place",
    "install.state_placed": "the new state file is in its place; Chroma's directory is the old one",
    "install.chroma_set_aside": "the old Chroma directory is set aside; the new one is not in its place",
    "install.swapped": "all files are in their places; the marker still says to install",
    "install.done": "the marker is gone; the old files are still there",
}


@dataclass(slots=True)
class _Armed:
    action: Literal["kill", "pause"]
    number: int
    while_exists: str | None
    reached: int = 0


#: So often a pause looks whether its file is there still.
_LOOK_S: Final = 0.02

_armed: dict[str, _Armed] | None = None
_words_count = False
_lock = threading.Lock()


def failpoint(name: str) -> None:
    """Reach the point `name`, which is one of `NAMES`."""
    if _armed is not None:
        _reach(name, _armed.get(name))


def marked_words(process: str, words: str | None) -> None:
    """Do what `words`, which came with a request, ask of this process of Chroma; see above."""
    if not _words_count or words is None:
        return
    _, found, rest = words.partition(f"failpoint:{process}:")
    if not found:
        return
    if rest.startswith("crash"):
        os.kill(os.getpid(), signal.SIGSEGV)
    elif rest.startswith("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    while rest.startswith("hang"):
        time.sleep(3600)
    while rest.startswith("spin"):
        pass


def arm(environ: Mapping[str, str]) -> None:
    """Arm what the environment says; to be called once, when the process starts.

    Raises:
        ValueError: an unknown name or action; nothing is armed.
    """
    global _armed, _words_count
    _words_count = environ.get(MARKED_WORDS) == "1"
    text = environ.get(VARIABLE)
    _armed = None if not text else _parse(text)


def _parse(text: str) -> dict[str, _Armed]:
    found: dict[str, _Armed] = {}
    for part in text.split(";"):
        name, _, rest = part.strip().partition("=")
        if name not in NAMES:
            raise ValueError(f"{VARIABLE} has the unknown name {name!r}; known are: {', '.join(NAMES)}")
        action, _, path = rest.partition("@")
        verb, _, number = action.partition(":")
        is_valid = verb in ("kill", "pause") and number.isdecimal() and int(number) > 0
        if not is_valid or rest.endswith("@"):
            raise ValueError(
                f"{VARIABLE} has {part!r}; expected NAME=kill:N or NAME=pause:MS, then maybe @PATH"
            )
        if name in found:
            raise ValueError(f"{VARIABLE} has {name!r} twice; a point does one thing")
        found[name] = _Armed(cast("Literal['kill', 'pause']", verb), int(number), path or None)
    return found


def _reach(name: str, armed: _Armed | None) -> None:
    if armed is None or (armed.while_exists is not None and not os.path.exists(armed.while_exists)):
        return
    if armed.action == "pause":
        _pause(armed.number / 1000, armed.while_exists)
        return
    with _lock:
        armed.reached += 1
        if armed.reached == armed.number:
            # Past Python's buffers: nothing of this process runs after the next line but one.
            os.write(2, f"failpoint {name}: SIGKILL to process {os.getpid()}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)


def _pause(seconds: float, while_exists: str | None) -> None:
    if while_exists is None:
        time.sleep(seconds)
        return
    until = time.monotonic() + seconds
    while time.monotonic() < until and os.path.exists(while_exists):
        time.sleep(_LOOK_S)
