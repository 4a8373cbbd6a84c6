"""What of pysyncobj runs in our nodes, or is replaced in them, is exactly what was reviewed."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect

import pytest
from pysyncobj.syncobj import SyncObj
from pysyncobj.transport import Transport

from cluster.raft.stock import OVERRIDDEN, RELIED_ON
from tests.unit.raft_net import Net

REVIEWED = {
    "__init__": "09df12cd7fd7d727",
    "_SyncObj__onNodeConnected": "2655afb481b4c69b",
    "_SyncObj__onNodeDisconnected": "a81c0475ba2218cc",
    "_SyncObj__setState": "2c1f239f7bd79b39",
    "_SyncObj__setCurrentTerm": "0ad5bf456ac06bd3",
    "_SyncObj__generateRaftTimeout": "92ed37d3620e781a",
    "_isLeader": "56c32c31db26cdc0",
    "doTick": "bef78c2ba06d784b",
    "isNodeConnected": "1a92111931e38d3c",
    "otherNodes": "1ece5f24616f498c",
    "raftCommitIndex": "24bac3a764286391",
    "raftCurrentTerm": "81cdf20c84c1b2a8",
    "_onTick": "cc9eb08232d005ba",
    "_applyCommand": "827f207d515b2d64",
    "_doDestroy": "8a6c9f892614a4b9",
    "_checkCommandsToApply": "a386a8079361d204",
    "_SyncObj__onMessageReceived": "ddfe34b6c0282179",
    "_SyncObj__sendAppendEntries": "9cb9073128c392fa",
    "_SyncObj__sendNextNodeIdx": "68aaeefc267b8896",
    "_SyncObj__onBecomeLeader": "5a3fd97bc17dc1cf",
    "_SyncObj__getEntries": "e29c4b33293b2101",
    "_SyncObj__deleteEntriesFrom": "3b23c411bb903d36",
    "_SyncObj__deleteEntriesTo": "b7b29988856a66b3",
    "_SyncObj__tryLogCompaction": "c2f8a0ec14cc7312",
    "_SyncObj__applyLogEntries": "073db677773b5a2d",
    "transferLeadership": "c3ac67963962d9aa",
}


def digest(name: str) -> str:
    member = inspect.getattr_static(SyncObj, name)
    function = member.fget if isinstance(member, property) else member
    return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16]


def test_the_version_is_pinned() -> None:
    assert importlib.metadata.version("pysyncobj") == "0.3.17"


def test_every_method_is_reviewed() -> None:
    assert sorted(REVIEWED) == sorted([*RELIED_ON, *OVERRIDDEN])


@pytest.mark.parametrize("name", [*RELIED_ON, *OVERRIDDEN])
def test_the_method_is_as_it_was_reviewed(name: str) -> None:
    assert digest(name) == REVIEWED[name], (
        f"SyncObj.{name} has changed upstream: read the change, see what it means for cluster/raft/node.py, "
        "then put the new digest here"
    )


def test_the_transports_seam_is_as_it_was_reviewed() -> None:
    source = inspect.getsource(Transport)
    assert hashlib.sha256(source.encode()).hexdigest()[:16] == "9b0212a7af6123e7"


def test_no_way_around_the_log() -> None:
    node = Net(1).nodes["n1"]
    with pytest.raises(TypeError, match="propose"):
        node._applyCommand(b"x", None)
    with pytest.raises(TypeError, match="transfer"):
        node.transferLeadership()
    with pytest.raises(Exception, match="dynamicMembershipChange"):
        node.addNodeToCluster("n9")  # type: ignore[attr-defined]


def test_what_is_inherited_tells_the_truth() -> None:
    net = Net(3)
    leader = net.leader()
    net.commit(b"x")
    net.run(1)
    status = leader.getStatus()
    assert status["raft_term"] == leader.term
    assert status["log_len"] == leader.journal.last_index
    assert status["commit_idx"] == leader.commit_index
    assert leader.hasQuorum
    assert leader._isLeader()
