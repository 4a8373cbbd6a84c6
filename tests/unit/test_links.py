"""A cut stops exactly what one side sends to the other, whoever dialled the link that carries it."""

from __future__ import annotations

import random
from itertools import combinations, islice, permutations

import pytest

from evaluation.faulting import links, schedules
from evaluation.faulting.links import Stream
from evaluation.systems.cluster import Cluster
from evaluation.systems.interface import Link

THREE = ("a", "b", "c")
FIVE = ("a", "b", "c", "d", "e")
#: b dials a, as of a Raft pair; HTTP is dialled both ways; the balancer and clients dial.
TABLE = (
    Link("raft.b.a", "b", "a", "raft"),
    Link("raft.c.a", "c", "a", "raft"),
    Link("raft.c.b", "c", "b", "raft"),
    *(Link(f"http.{i}.{j}", i, j, "http") for i, j in permutations(THREE, 2)),
    *(Link(f"lb.{i}", "balancer", i, "balancer") for i in THREE),
    *(Link(f"client.{i}", f"client@{i}", i, "client") for i in THREE),
    Link("client.lb", "client", "balancer", "client"),
)
BESIDE = {f"client@{i}": i for i in THREE}


def carries(stream: Stream) -> tuple[str, str]:
    """From whom to whom the bytes of a stream flow."""
    link = next(link for link in TABLE if link.proxy == stream.proxy)
    ends = (link.dialer, link.acceptor)
    return ends if stream.stream == "upstream" else ends[::-1]


def everything() -> list[Stream]:
    return [Stream(link.proxy, stream) for link in TABLE for stream in ("upstream", "downstream")]


@pytest.mark.parametrize("cut", list(permutations(THREE, 2)))
def test_one_way_cut_stops_both_halves_of_what_one_sends(cut: tuple[str, str]) -> None:
    found = links.streams(TABLE, {cut})
    assert {carries(stream) for stream in found} == {cut}
    # Requests that the sender dials, answers on what the receiver dials, and the one Raft link.
    assert len(found) == 3


@pytest.mark.parametrize("cut", list(permutations((*THREE, "balancer", "client", "client@a"), 2)))
def test_a_cut_stops_all_of_one_direction_and_nothing_else(cut: tuple[str, str]) -> None:
    assert links.streams(TABLE, {cut}) == sorted(each for each in everything() if carries(each) == cut)


def test_groups_place_everybody_once() -> None:
    everybody = links.participants(TABLE, THREE)
    assert set(everybody) == {*THREE, "balancer", "client", *BESIDE}
    major, minor = links.groups(everybody, [["b", "c"], ["a"]], BESIDE)
    assert minor == {"a", "client@a"}
    assert major == {"b", "c", "client@b", "client@c", "client", "balancer"}
    # Given in another order, the larger is still theirs who stand with nobody.
    minor, major = links.groups(everybody, [["a"], ["b", "c"]], BESIDE)
    assert "balancer" in major
    assert "balancer" not in minor


def test_a_partition_leaves_a_side_whole_and_the_other_reachable_by_its_own_clients_only() -> None:
    parts = links.groups(links.participants(TABLE, THREE), [["b", "c"], ["a"]], BESIDE)
    cut = {stream.proxy for stream in links.streams(TABLE, links.between(parts))}
    assert cut == {
        "raft.b.a",
        "raft.c.a",
        "http.a.b",
        "http.b.a",
        "http.a.c",
        "http.c.a",
        "lb.a",
    }


def test_sides_of_a_partition() -> None:
    everybody = links.participants(TABLE, THREE)
    cuts = links.between(links.groups(everybody, [["b", "c"], ["a"]], BESIDE))
    found = links.sides(everybody, THREE, cuts, BESIDE)
    assert {name for name, side in found.items() if side == "minority"} == {"a", "client@a"}
    assert set(found) == set(everybody)


def test_without_cuts_there_are_no_sides() -> None:
    assert set(links.sides(THREE, THREE, (), {}).values()) == {"all"}


def test_with_everybody_alone_all_are_minorities() -> None:
    cuts = links.between(links.groups(THREE, [["a"], ["b"], ["c"]], BESIDE))
    assert set(links.sides(THREE, THREE, cuts, BESIDE).values()) == {"minority"}


def test_who_cannot_be_heard_or_cannot_hear_is_a_minority() -> None:
    for cuts in (links.one_way(["a"], ["b", "c"]), links.one_way(["b", "c"], ["a"])):
        assert links.sides(THREE, THREE, cuts, {}) == {"a": "minority", "b": "majority", "c": "majority"}


@pytest.mark.parametrize("members", [THREE, FIVE])
def test_bridge_is_seen_by_all_and_joins_halves_that_do_not_see_each_other(members: tuple[str, ...]) -> None:
    cuts = links.bridge(members, "a")
    assert not any("a" in cut for cut in cuts)
    halves = [member for member in members if member != "a"]
    seen = {frozenset(pair) for pair in combinations(halves, 2) if pair not in cuts}
    assert all((pair[1], pair[0]) in cuts for pair in cuts)
    assert len(seen) == {3: 0, 5: 2}[len(members)]
    assert set(links.sides(members, members, cuts, {}).values()) == {"majority"}


def test_in_a_ring_of_five_each_sees_another_majority() -> None:
    cuts = links.ring(FIVE)
    views = {
        member: frozenset(other for other in FIVE if other == member or (member, other) not in cuts)
        for member in FIVE
    }
    assert {len(view) for view in views.values()} == {3}
    assert len(set(views.values())) == 5
    assert set(links.sides(FIVE, FIVE, cuts, {}).values()) == {"majority"}


def test_the_cluster_has_every_link_once() -> None:
    for nodes, count in ((3, 3 + 6 + 3 + 3 + 1), (5, 10 + 20 + 5 + 5 + 1)):
        cluster = Cluster(nodes)
        assert len({link.proxy for link in cluster.links}) == len(cluster.links) == count
        pairs = {frozenset((link.dialer, link.acceptor)) for link in cluster.links if link.plane == "raft"}
        assert pairs == {frozenset(pair) for pair in combinations(cluster.members, 2)}


def test_schedules_repeat_by_seed_and_never_strike_twice_with_one_fault() -> None:
    faults = ("x", "y", "z")

    def plan(seed: int) -> list[schedules.Step]:
        found = schedules.steps(random.Random(seed), faults, mean_wait_s=2.0, mean_for_s=4.0)
        return list(islice(found, 200))

    assert plan(1) == plan(1) != plan(2)
    for before, after in zip(plan(3), plan(3)[1:], strict=False):
        assert before.fault != after.fault
    assert {step.fault for step in plan(4)} == set(faults)
    assert all(0.2 <= step.wait_s <= 6.0 and 0.4 <= step.for_s <= 12.0 for step in plan(5))
