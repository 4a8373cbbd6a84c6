"""Each fault on a real cluster: it bites (so say its own probes), it heals, the cluster is whole again."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import random
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from evaluation.failure import SystemFailure
from evaluation.faulting import clock, netns, network, processes
from evaluation.faulting.catalogue import FAULTS, Context
from evaluation.faulting.partition import Partition
from evaluation.faulting.toxiproxy import ToxiproxyServer
from evaluation.processes import wait_until
from evaluation.systems import http
from evaluation.systems.catalogue import SYSTEMS
from evaluation.systems.cluster import Cluster
from evaluation.systems.single import Single

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    from evaluation.faulting.interface import Struck
    from evaluation.systems.interface import System
    from evaluation.systems.proxies import Toxic

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SOON_S = 60.0

#: Each costs some seconds; what takes longer or is alike to one of these is in the soak.
QUICK = (
    "leader-isolated",
    "leader-refused",
    "leader-blackhole",
    "minority-isolated",
    "majority-lost",
    "one-way-out",
    "one-way-in",
    "one-way-http",
    "bridge",
    "flapping-link",
    "latency-50",
    "slow-close",
    "bandwidth",
    "reset-peer",
    "cut-mid-frame",
    "slicer",
    "pause-leader",
    "kill-leader",
    "kill-balancer",
    "slow-fsync",
)

#: These leave logs without their beginning, or another node: not on the cluster of the other tests.
SPOILING = ("disk-lost-leader", "disk-lost-compacted", "clock-step-filling", "replace-node")


@dataclass
class Stage:
    """A running cluster and the event loop that it lives on."""

    runner: asyncio.Runner
    system: System
    proxies: ToxiproxyServer
    notes: list[str] = field(default_factory=list)

    def do(self, what: Awaitable[Any]) -> Any:
        async def whole() -> Any:
            async with asyncio.timeout(280):
                return await what

        return self.runner.run(whole())

    @property
    def context(self) -> Context:
        return Context(system=self.system, proxies=self.proxies, rng=random.Random(5), note=self.notes.append)


def staged(folder: Path, system: System) -> Iterator[Stage]:
    with asyncio.Runner() as runner:
        stage = Stage(runner, system, ToxiproxyServer())
        try:
            stage.do(stage.proxies.start(None, folder / "toxiproxy.log"))
            stage.do(system.start(folder / "system", stage.proxies))
            yield stage
        finally:
            stage.do(system.stop())
            stage.do(stage.proxies.stop())


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    yield from staged(tmp_path_factory.mktemp("faults"), Cluster())


async def takes_writes(stage: Stage) -> bool:
    async with aiohttp.ClientSession() as session:
        return await http.takes_writes(session, stage.system.entries[0].url, 5.0)


def wait_for_writes(stage: Stage) -> None:
    stage.do(wait_until("writes are answered", lambda: takes_writes(stage), SOON_S))


def wait_for_health(stage: Stage) -> None:
    last: list[str | None] = [None]

    async def healthy() -> bool:
        last[0] = await stage.system.health()
        return last[0] is None

    stage.do(wait_until("health", healthy, SOON_S, context=lambda: str(last[0])))


def strike(stage: Stage, name: str) -> Struck:
    fault = FAULTS[name]
    assert fault.why_not(stage.system) == ""
    stage.do(stage.system.settle())
    return stage.do(fault.apply(stage.context))


def recover(stage: Stage, name: str, struck: Struck) -> None:
    stage.do(FAULTS[name].heal(stage.context, struck))
    stage.do(stage.system.settle())
    wait_for_health(stage)
    wait_for_writes(stage)


def check(stage: Stage, name: str) -> None:
    """Apply and heal prove by themselves that it bites and is gone; here what it means for the cluster."""
    struck = strike(stage, name)
    try:
        assert set(struck.sides) >= {"client", "balancer", *stage.system.members}
        record = struck.record()
        assert record["struck"]
        assert set(record["sides"].values()) <= {"majority", "minority", "all"}
        if "majority" in struck.sides.values():
            wait_for_writes(stage)
        if set(struck.sides.values()) == {"minority"}:
            assert not stage.do(takes_writes(stage))
        if name in ("leader-isolated", "leader-refused", "leader-blackhole", "one-way-out", "one-way-in"):
            assert stage.do(stage.system.leader()) not in struck.members
    finally:
        recover(stage, name, struck)


@pytest.mark.parametrize("name", QUICK)
def test_fault_bites_and_heals(stage: Stage, name: str) -> None:
    check(stage, name)


@pytest.mark.soak
@pytest.mark.parametrize(
    "name",
    [
        name
        for name in FAULTS
        if name not in (*QUICK, *SPOILING, "packet-loss") and FAULTS[name].applies_to(Cluster())
    ],
)
def test_every_other_fault_bites_and_heals(stage: Stage, name: str) -> None:
    check(stage, name)


@pytest.mark.soak
@pytest.mark.parametrize("name", SPOILING)
def test_a_fault_that_leaves_another_cluster_bites_and_heals(tmp_path: Path, name: str) -> None:
    for own in staged(tmp_path, Cluster()):
        check(own, name)


@pytest.mark.soak
def test_ring_of_five(tmp_path: Path) -> None:
    for five in staged(tmp_path, Cluster(5)):
        check(five, "ring")


def test_the_log_is_evidence_of_what_was_acknowledged(stage: Stage) -> None:
    key = "evidence-of-the-log"

    async def write() -> None:
        url = f"{stage.system.entries[0].url}{http.DATABASE}/collections"
        async with aiohttp.ClientSession() as session:
            for _ in range(2):  # the repeat is no second request
                body = {"name": "evidence", "get_or_create": True}
                async with session.post(url, json=body, headers={"Idempotency-Key": key}) as response:
                    assert response.status == 200

    stage.do(write())
    stage.do(stage.system.settle())
    assert isinstance(stage.system, Cluster)
    evidence = stage.do(stage.system.log_evidence())
    assert set(evidence.members) == set(stage.system.members)
    logs = [[(each.index, each.term, each.request_ids) for each in log] for log in evidence.members.values()]
    assert logs[0] == logs[1] == logs[2]
    assert [index for index, _, _ in logs[0]] == list(range(1, len(logs[0]) + 1))
    assert [request for _, _, requests in logs[0] for request in requests].count(key) == 1


def test_a_clock_two_days_ahead_makes_no_leader_forget_what_it_answered(stage: Stage) -> None:
    """Log time came from the leader's wall clock once: a write sent again was applied again."""
    ahead = dataclasses.replace(clock.Step(), offsets_s=(2 * 86_400, 2 * 86_400))
    if ahead.why_not(stage.system):
        assert "faketime" in ahead.why_not(stage.system)
        return
    stage.do(stage.system.settle())

    async def whole() -> None:
        url = f"{stage.system.entries[0].url}{http.DATABASE}/collections"
        async with aiohttp.ClientSession() as session:

            async def post(path: str, body: Any, key: str) -> Any:
                async with session.post(url + path, json=body, headers={"Idempotency-Key": key}) as response:
                    assert response.status in (200, 201)
                    return await response.json()

            created = await post("", {"name": "clock"}, "create")
            records = {"ids": ["a"], "embeddings": [[1.0, 2.0]]}
            await post(f"/{created['id']}/add", records, "once")
            await post(f"/{created['id']}/delete", {"ids": ["a"]}, "delete")
            struck = await ahead.apply(stage.context)
            try:
                await post(f"/{created['id']}/add", records, "once")
                got = await post(f"/{created['id']}/get", {"ids": ["a"]}, "get")
            finally:
                await ahead.heal(stage.context, struck)
            assert struck.detail["leads"], "no election was won by the node whose clock is wrong"
            assert got["ids"] == []

    stage.do(whole())


class Blunt(ToxiproxyServer):
    """Accepts every toxic and does nothing with it."""

    def __init__(self, real: ToxiproxyServer) -> None:
        super().__init__()
        self.listen = real.listen

    async def add(self, name: str, toxic: Toxic) -> None:
        return None

    async def remove(self, name: str, toxic: str) -> None:
        return None


@pytest.mark.parametrize(
    "name", ["leader-isolated", "latency-500", "reset-peer", "cut-mid-frame", "slow-close"]
)
def test_a_fault_that_does_not_bite_is_an_error(stage: Stage, name: str) -> None:
    stage.do(stage.system.settle())
    context = Context(system=stage.system, proxies=Blunt(stage.proxies), rng=random.Random(1))
    with pytest.raises(SystemFailure, match="does not bite"):
        stage.do(FAULTS[name].apply(context))


def test_a_pause_stops_every_process_of_a_member(stage: Stage) -> None:
    struck = strike(stage, "pause-follower")
    try:
        pids = stage.system.pids(struck.members[0])
        assert len(pids) >= 2  # the node, and Chroma in a process of its own
        assert {processes.state(pid) for pid in pids} == {"T"}
    finally:
        recover(stage, "pause-follower", struck)
    assert "T" not in {processes.state(pid) for pid in pids}


def test_compound_strikes_with_several_and_leaves_a_whole_cluster(stage: Stage) -> None:
    struck = strike(stage, "compound")

    async def struck_twice() -> bool:
        return sum(not step["error"] for step in struck.detail["steps"]) >= 2

    try:
        stage.do(wait_until("two of its parts struck", struck_twice, SOON_S))
    finally:
        recover(stage, "compound", struck)


def test_packets_are_lost_in_a_namespace_of_its_own(tmp_path: Path) -> None:
    if netns.is_own():
        for stage in staged(tmp_path, Cluster()):
            struck = strike(stage, "packet-loss")
            wait_for_writes(stage)
            recover(stage, "packet-loss", struck)
            assert struck.detail["packets_lost"] > 0
        return
    reason = netns.why_not()
    assert FAULTS["packet-loss"].why_not(Cluster()) == reason
    if reason:
        assert any(word in reason for word in ("needs", "not installed", "Linux", "cannot be dropped")), (
            reason
        )
        return
    # Here again, in a namespace: `enter` is for processes without threads.
    test = f"{__file__}::{test_packets_are_lost_in_a_namespace_of_its_own.__name__}"
    command = [sys.executable, "-m", "evaluation.faulting.netns", sys.executable, "-m", "pytest", "-q", test]
    done = subprocess.run(
        [*command, "--basetemp", str(tmp_path / "inner"), "-p", "no:cacheprovider"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_which_systems_a_fault_applies_to_follows_from_what_they_are_made_of() -> None:
    def applicable(name: str) -> set[str]:
        system = SYSTEMS[name]()
        return {fault for fault in FAULTS if FAULTS[fault].applies_to(system)}

    assert not {fault.name for fault in network.faults() if isinstance(fault, Partition)} & applicable(
        "single"
    )
    assert {"kill-all", "latency-50", "disk-full"} <= applicable("single")
    assert "ring" in applicable("cluster-5") - applicable("cluster")
    assert {"minority-isolated", "majority-lost", "disk-lost"} <= applicable("naive-lww")
    assert not {"leader-isolated", "kill-leader", "one-way-http", "flipped-byte"} & applicable("naive-lww")
    assert {"leader-isolated", "kill-leader", "pause-leader", "bridge"} <= applicable("postgres-async")
    assert not {"minority-isolated", "disk-lost"} & applicable("shared-dir")
    assert "kill-balancer" not in applicable("single")
    # `clock-step-filling` needs libfaketime besides.
    ours = {
        "rolling-restart",
        "hung-engine-leader",
        "hung-engine-follower",
        "poison-entry",
        "silent-corruption",
        *SPOILING,
    } - {"clock-step-filling"}
    assert ours <= applicable("cluster")
    for other in SYSTEMS:
        assert other in ("cluster", "cluster-5") or not ours & applicable(other), other


def test_one_chroma_comes_back_from_a_kill_with_what_it_had(tmp_path: Path) -> None:
    for alone in staged(tmp_path, Single()):
        struck = strike(alone, "kill-all")
        assert set(struck.sides.values()) == {"minority"}
        assert not alone.do(takes_writes(alone))
        recover(alone, "kill-all", struck)
