"""Pure parts of the cost measurement."""

import asyncio
from pathlib import Path

import numpy as np
import orjson
import pytest

from evaluation.costs.cost import with_drills
from evaluation.costs.direct_links import DirectLinks
from evaluation.costs.drills import longest_pause_ms
from evaluation.costs.figures import LoadFigures, RoundFigures, recall, systems
from evaluation.costs.loads import TITLES, fill_bodies, loads, requests
from evaluation.costs.operations import operations_of
from evaluation.costs.texts import Texts, distinct, exact_neighbours, pieces, widen
from evaluation.failure import SystemFailure
from evaluation.run.footprint import disk_bytes
from evaluation.systems.catalogue import SYSTEMS
from evaluation.systems.proxies import Toxic


def texts(count: int = 7) -> Texts:
    rows = np.random.default_rng(1).normal(size=(count, 4)).astype(np.float32)
    return Texts([f"text {number}" for number in range(count)], rows, rows[:3] + 0.01)


def test_pieces_are_sentences_joined_until_they_are_long_enough() -> None:
    long = "This sentence is long enough to stand by itself, because it goes on and on and on, as some do."
    assert list(pieces(f"Short one. {long} Too short at the end.")) == [f"Short one. {long}"]


def test_distinct_texts_are_in_the_same_order_every_time() -> None:
    assert distinct(["b", "a", "b", "c"]) == distinct(["c", "b", "a"])
    assert sorted(distinct(["b", "a", "b", "c"])) == ["a", "b", "c"]


def test_widening_keeps_all_distances() -> None:
    rows = np.random.default_rng(2).normal(size=(20, 16)).astype(np.float32)
    wide = widen(rows, 24)
    before = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    after = np.linalg.norm(wide[:, None] - wide[None], axis=2)
    assert wide.shape == (20, 24)
    assert np.allclose(before, after, atol=1e-5)


def test_exact_neighbours_are_the_nearest_in_order() -> None:
    rows = np.array([[0.0], [1.0], [5.0], [2.0]], np.float32)
    assert exact_neighbours(rows, np.array([[1.2]], np.float32), 3).tolist() == [[1, 3, 0]]


def test_recall_is_the_mean_share_of_what_was_to_be_found() -> None:
    assert recall([["a", "b"], ["x", "c"]], [["b", "a"], ["c", "d"]]) == 0.75


def test_a_system_without_levels_gets_each_load_once_and_reads_come_first() -> None:
    plain = loads(("default",))
    assert {one.name for one in plain} == set(TITLES)
    assert len(plain) == len(TITLES)
    assert [one.writes for one in plain] == sorted(one.writes for one in plain)


def test_levels_and_acks_are_asked_for_by_header() -> None:
    found = loads(("linearizable", "eventual"))
    headers = {(one.name, one.mode.name): dict(one.mode.headers) for one in found}
    assert headers["get-8", "eventual"] == {"X-Chroma-Consistency": "eventual"}
    assert headers["write-1", "committed"] == {"X-Chroma-Ack": "committed"}
    assert ("batch-1", "committed") not in headers


@pytest.mark.parametrize("one", loads(("default",)), ids=lambda one: one.name)
def test_requests_are_valid_and_writes_never_repeat_an_id(one) -> None:  # type: ignore[no-untyped-def]
    request = requests(one, texts(), "http://x/c", "filled", "fresh")
    seen: set[str] = set()
    for client in range(one.clients):
        for turn in range(5):
            url, raw = request(client, turn)
            body = orjson.loads(raw)
            if one.writes:
                assert url == "http://x/c/fresh/add"
                assert len(body["ids"]) == len(body["embeddings"]) == one.documents_per_request
                assert not seen & set(body["ids"])
                seen.update(body["ids"])
            else:
                assert url in ("http://x/c/filled/get", "http://x/c/filled/query")


def test_filling_holds_every_document_once() -> None:
    bodies = [orjson.loads(body) for body in fill_bodies(texts(7), per_request=3)]
    assert [id for body in bodies for id in body["ids"]] == [f"d{number}" for number in range(7)]


def figures(per_second: float, mode: str = "default", error: str = "") -> RoundFigures:
    one = LoadFigures(
        load="get-8", mode=mode, clients=8, documents_per_request=1, per_second=per_second, p50_ms=1, p99_ms=2
    )
    return RoundFigures(start_s=1, fill_per_second=10, loads=[] if error else [one], error=error)


def test_ratios_are_taken_within_a_round() -> None:
    # The second round was twice as slow for both: the ratio must not notice.
    rows = systems(
        {"single": [figures(100), figures(50)], "cluster": [figures(40, "session"), figures(20, "session")]}
    )
    assert [row["loads"][0]["ratio"] for row in rows] == [1.0, 0.4]
    assert rows[1]["loads"][0]["rounds"] == [40, 20]


def test_a_round_that_failed_leaves_the_others_and_says_why() -> None:
    rows = systems(
        {"cluster": [figures(40), figures(0, error="it broke")], "single": [figures(0, error="no")]}
    )
    assert (rows[0]["rounds"], rows[0]["error"], rows[0]["loads"][0]["ratio"]) == (1, "it broke", None)
    assert (rows[1]["rounds"], rows[1]["error"], "loads" in rows[1]) == (0, "no", False)


def test_the_longest_pause_is_the_longest_that_touches_the_interval() -> None:
    at = [0.0, 1.0, 1.1, 3.1, 3.2, 9.0]
    assert longest_pause_ms(at, 1.05, 3.15) == 2000.0
    assert longest_pause_ms(at, 0.5, 0.6) == 1000.0
    assert longest_pause_ms([], 0, 1) == 0.0


def test_every_system_has_its_operations() -> None:
    for name in SYSTEMS:
        known = operations_of(name)
        assert set(known) == {"failover", "backup"}, name
        assert known["backup"]["commands"], name
    assert operations_of("postgres-async")["failover"] != operations_of("postgres-quorum")["failover"]
    assert operations_of("naive-crdt") == operations_of("naive-lww")
    assert operations_of("something else") == {}


def test_drills_stand_beside_the_facts_they_checked() -> None:
    one = figures(1)
    one.drills = {"failover": {"commands": 0}}
    found = with_drills("cluster", [figures(1), one])
    assert found["failover"]["drill"] == {"commands": 0}
    assert found["backup"]["drill"] is None
    one.drills = {"error": {"error": "no leader"}}
    assert with_drills("cluster", [one])["backup"]["drill"] == {"error": "no leader"}


def test_direct_links_lead_to_the_upstream_and_refuse_faults() -> None:
    async def course() -> None:
        links = DirectLinks()
        assert await links.create("a", "127.0.0.1:1") == links.listen("a") == "127.0.0.1:1"
        await links.enable("a", True)
        await links.reset()
        toxic = Toxic("t", "latency", "upstream")
        for refused in (
            links.create("a", "x:1"),
            links.enable("a", False),
            links.add("a", toxic),
            links.remove("a", "t"),
        ):
            with pytest.raises(SystemFailure):
                await refused
        with pytest.raises(SystemFailure):
            links.listen("b")

    asyncio.run(course())


def test_disk_is_what_is_allocated(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "file").write_bytes(b"x" * 5000)
    assert disk_bytes(tmp_path) >= 5000
