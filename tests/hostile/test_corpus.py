"""Hostile requests: after each, all nodes are well, hold the same, and answer as `chroma run` does.

The corpus itself is looked at in the default suite; sending it is marked `hostile`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cluster.api import routes
from cluster.api.cluster_routes import cluster_routes
from tests.hostile.corpus import TABLES, cases
from tests.hostile.runner import Runner, to_repeat

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.hostile.case import Case, Quantity

CASES = cases()
LEAST = 300


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """One cluster and one Chroma for all cases; each is made anew when a case has broken it."""
    with Runner(tmp_path_factory.mktemp("hostile")) as runner:
        yield runner


@pytest.mark.hostile
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_nodes_stay_well_and_answer_as_chroma(runner: Runner, case: Case) -> None:
    result = runner.run(case)
    assert not result.failures, "\n".join([*result.failures, *result.notes, f"To repeat: {to_repeat(case)}"])


# ------------------------------------------------------------------------- the corpus itself


def test_there_are_enough_cases_each_with_a_name_of_its_own() -> None:
    ids = [case.id for case in CASES]
    assert len(ids) >= LEAST
    assert len(set(ids)) == len(ids)
    assert all(name.isprintable() and len(name) < 120 for name in ids)


def test_the_corpus_is_the_same_every_time() -> None:
    again = cases()
    assert [case.id for case in again] == [case.id for case in CASES]
    small = [case for case in CASES if not any(callable(call.body) for call in case.calls)]
    assert [case for case in again if case.id in {one.id for one in small}] == small


def test_every_route_gets_hostile_requests() -> None:
    sent = {_route(call.method, call.target) for case in CASES for call in case.calls if call.raw is None}
    wanted = {(method, path) for path, methods in routes.ROUTES.items() for method in methods}
    assert wanted - sent == set()


def test_every_cluster_route_gets_hostile_requests_at_every_door() -> None:
    nothing: Any = None
    wanted = {
        (method, path, door)
        for path, methods in cluster_routes(nothing, nothing).items()
        for method in methods
        for door in ("balancer", "leader", "follower")
    }
    sent = {(call.method, call.target.partition("?")[0], case.door) for case in CASES for call in case.calls}
    assert wanted - sent == set()


@pytest.mark.parametrize("quantity", TABLES, ids=lambda quantity: quantity.name)
def test_every_quantity_has_its_cases(quantity: Quantity) -> None:
    found = [case for case in CASES if case.id.partition("/")[2].startswith(f"{quantity.name}=")]
    assert len(found) == len(quantity.values) >= 1
    assert all(case.calls for case in found)


@pytest.mark.parametrize("kind", ["quantities", "strings", "filters", "settings", "bodies", "wire", "ours"])
def test_every_kind_is_there(kind: str) -> None:
    assert len([case for case in CASES if case.kind == kind]) >= 50


def test_the_known_killers_are_in_it() -> None:
    ids = {case.id for case in CASES}
    killers = {
        "filters/get.or=10000",
        "filters/delete.or=10000",
        "quantities/add.metadata-ints=6000",
        "settings/configuration.max_neighbors=0",
        "settings/configuration.max_neighbors=100000000",
        "bodies/encoding.gzip-bomb-1.5GiB.add",
        "bodies/encoding.unknown.add",
        "ours/balancer.index=5000-digits",
        "ours/leader.embed.garbage",
        "wire/target.status-encoded",
        "wire/balancer.bare-lf",
        "wire/balancer.length-and-chunks",
        "quantities/add.body-bytes=41943040",
        "quantities/add.body-too-large=41943041",
    }
    assert killers - ids == set()


def _route(method: str, target: str) -> tuple[str, str]:
    found = routes.match(target.partition("?")[0])
    if found is None or not found.route:
        return method, ""
    named = list(found.raw)
    parts: list[str] = []
    for part in found.route:
        parts.append(f"{{{part}}}" if named and part == named[0] else part)
        if named and part == named[0]:
            named.pop(0)
    return method, "/" + "/".join(parts)
