"""Measures: staleness, windows with a success, pauses, latency, stable latency, counts, quality."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from evaluation.checking.judge import judge
from evaluation.checking.verdict import Judgement
from tests.unit.checker_histories import history, record

SIDES = {"node-1": ("node-1", "majority"), "node-3": ("node-3", "minority")}


def measures(text: str, workload: str = "register", **about: Any) -> dict[str, Any]:
    return judge(record(**about), history(text, workload)).measures


STALE = """
    A upsert c 1 0-10
    A upsert c 2 20-30
    A upsert c 3 40-50
    B get c 1 130-131 eventual
    B get c 2 45-46 eventual
    C get c 3 60-61 session @node-1
"""


def test_staleness_is_the_age_of_the_oldest_missed_acknowledgement_and_their_number() -> None:
    levels = measures(STALE, "counter")["staleness"]["levels"]
    eventual, session = levels["eventual"], levels["session"]
    assert (eventual["reads"], eventual["stale"], session["stale"]) == (2, 1, 0)
    # At 130 ms, 2 had been acknowledged 100 ms ago and 3 80 ms ago.
    assert eventual["samples"] == [[130.0, 100.0, 2]]
    assert (eventual["t_ms"]["p100"], eventual["k"]["p100"]) == (100.0, 2)
    assert eventual["never_seen"] == 2
    assert eventual["never_seen_ms"] == 100.0
    assert session["t_ms"]["p100"] == 0


def test_the_curve_counts_pairs_of_an_acknowledgement_and_a_later_read() -> None:
    curve = measures(STALE, "counter")["staleness"]["levels"]["eventual"]["curve"]
    by_time = {point["t_ms"]: point for point in curve}
    # Delays of the read at 130: 120, 100 and 80; of the read at 45: 35 and 15.
    assert (by_time[0]["pairs"], by_time[0]["missed"], by_time[0]["p"]) == (5, 2, 0.4)
    assert (by_time[100]["pairs"], by_time[100]["missed"]) == (2, 1)
    assert (by_time[50]["pairs_here"], by_time[50]["missed_here"], by_time[50]["p_here"]) == (1, 1, 1.0)
    assert (by_time[200]["pairs"], by_time[200]["p"]) == (0, None)


def test_staleness_by_entry() -> None:
    entries = measures(STALE, "counter")["staleness"]["entries"]
    assert set(entries) == {"lb", "node-1"}
    assert entries["node-1"]["session"]["reads"] == 1


@pytest.mark.parametrize(
    ("text", "stale", "unplaced"),
    [
        ("A upsert x a 0-1\nA upsert x b 2-3\nB get x a 3-4", 0, 0),  # acknowledged as the read began
        ("A upsert x a 0-1\nA upsert x b 2-3\nB get x a 4-5", 1, 0),
        ("A upsert x a 0-1\nA upsert x b 2-?\nB get x a 4-5", 0, 0),
        ("A upsert x a 0-?\nA upsert x b 2-3\nB get x a 4-5", 0, 1),  # may be the newer one
        ("A upsert x a 0-1\nA delete x - 2-3\nB get x a 4-5", 1, 0),
        ("A upsert x a 0-1\nA delete x - 2-3\nA upsert x b 4-5\nB get x null 6-7", 1, 0),
        ("A upsert x a 0-1\nA delete x - 2-?\nA upsert x b 4-5\nB get x null 6-7", 0, 1),
        ("A upsert x a 0-1\nA update x b 2-3\nB get x a 4-5", 0, 0),  # an update may change nothing
        ("A upsert x a 0-1\nB get x null 4-5", 1, 0),
        ("A upsert x a 0-1\nB get x null 4-5 final", 0, 0),  # final reads are no measure of it
    ],
)
def test_only_what_is_certainly_newer_makes_a_read_stale(text: str, stale: int, unplaced: int) -> None:
    levels = measures(text)["staleness"]["levels"]
    found = levels.get("default", {"stale": 0, "unplaced": 0})
    assert (found["stale"], found["unplaced"]) == (stale, unplaced)


AVAILABILITY = """
    A upsert x a 10-50 @node-1
    B upsert x b 20-150 @node-3
    A upsert x c 210-250 @node-1 fault
    A upsert x d 260-450 @node-1 fault
    B upsert x e 210-390 @node-3 fault refused
    B get x a 395-430 @node-3 fault
    A get x d 455-550 @node-1 healed
    B upsert x f 510-580 @node-3 healed
    A get x f 590-595 @node-1 healed refused
    A get x f 900-901 final
"""


def test_windows_with_a_success_by_side_and_kind() -> None:
    found = measures(AVAILABILITY, entries=SIDES, fault=(200, 500), quiet=600)["availability"]
    assert (found["window_ms"], found["fault_begin_ms"], found["fault_end_ms"]) == (100, 200, 500)
    sides = found["sides"]
    assert set(sides) == {"majority", "minority", "total"}
    assert sides["majority"]["write"]["ok"] == [1, 0, 1, 0, 1]
    assert sides["majority"]["write"]["during"] == pytest.approx(2 / 3)
    assert sides["minority"]["write"]["failed"] == [0, 0, 0, 1, 0]
    assert sides["minority"]["write"]["during"] == 0
    assert sides["minority"]["read"]["during"] == pytest.approx(1 / 3)
    assert sides["minority"]["write"]["before"] == 0.5
    assert sides["total"]["any"]["ok"] == [1, 1, 1, 0, 2]


def test_first_successes_and_the_longest_pause() -> None:
    found = measures(AVAILABILITY, entries=SIDES, fault=(200, 500), quiet=600)
    assert found["first_success_after_fault_ms"]["majority"]["write"] == 50
    assert found["first_success_after_fault_ms"]["minority"]["write"] == 380  # after the heal
    assert found["first_success_after_heal_ms"]["minority"]["write"] == 80
    assert found["first_success_after_heal_ms"]["majority"]["write"] is None
    # The read that returned at 550 began before the heal.
    assert found["first_success_after_heal_ms"]["majority"]["read"] is None
    assert found["longest_pause_ms"]["minority"]["write"] == {"ms": 430, "from_ms": 150, "to_ms": 580}


def test_waiting_for_the_last_answers_is_no_pause() -> None:
    found = measures("A upsert x a 0-100\nB get x a 110-4110\nA upsert x b 150-250\nA upsert x c 260-400")
    assert found["longest_pause_ms"]["total"]["write"] == {"ms": 150, "from_ms": 100, "to_ms": 250}
    assert len(found["availability"]["sides"]["total"]["write"]["ok"]) == 2


def test_the_longest_pause_in_the_fault() -> None:
    found = measures(AVAILABILITY, entries=SIDES, fault=(200, 500), quiet=600)["longest_pause_in_fault_ms"]
    recovered = measures(AVAILABILITY, entries=SIDES, fault=(200, 500), quiet=600)["recovered_after_fault_ms"]
    assert (recovered["majority"]["write"], recovered["minority"]["write"]) == (50, 380)
    assert found["majority"]["write"] == {"ms": 200, "from_ms": 50, "to_ms": 250}
    assert found["minority"]["write"] == {"ms": 430, "from_ms": 150, "to_ms": 580}
    assert found["minority"]["read"] is None or found["minority"]["read"]["from_ms"] == 430


def test_a_run_without_a_fault_has_no_during() -> None:
    found = measures("A upsert x a 0-150\nA upsert x b 160-350\nA upsert x c 350-360 refused")
    total = found["availability"]["sides"]["total"]["write"]
    assert (total["before"], total["during"], total["after"]) == (pytest.approx(1 / 3), None, None)
    assert found["first_success_after_fault_ms"]["total"]["write"] is None
    assert found["longest_pause_ms"]["total"]["write"]["ms"] == 200
    assert found["longest_pause_ms"]["total"]["read"] is None


def test_latency_of_successes_by_phase_and_kind() -> None:
    text = "\n".join(f"A get x null {at * 10}-{at * 10 + at}" for at in range(1, 10))
    found = measures(f"{text}\nA upsert x a 200-299 fault\nA upsert x b 300-399 fault unknown")["latency_ms"]
    assert found["warmup"]["read"] == {
        "count": 9, "mean": 5.0, "p50": 5.0, "p90": 9.0, "p95": 9.0, "p99": 9.0, "max": 9.0
    }  # fmt: skip
    assert found["warmup"]["read:default"]["count"] == 9
    assert found["fault"]["write"]["count"] == 1


def test_operations_are_counted() -> None:
    found = measures(AVAILABILITY, entries=SIDES, fault=(200, 500), quiet=600)["operations"]
    assert (found["total"], found["by_outcome"]) == (10, {"ok": 8, "refused": 2})
    assert found["by_side"] == {"majority": {"ok": 2}, "minority": {"refused": 1, "ok": 1}}
    assert found["by_kind"] == {"read": {"ok": 3, "refused": 1}, "write": {"ok": 5, "refused": 1}}
    assert found["by_phase"]["final"] == {"ok": 1}
    assert found["by_action"]["get"] == {"ok": 3, "refused": 1}


def test_stable_latency_of_adds() -> None:
    found = measures(
        "A add s a 0-10\nA add s b 20-30\nA add s c 40-50\n"
        "B get_all s [] 20-21 eventual\nB get_all s [a] 70-71 eventual\nB get_all s [a,b] 90-91 eventual",
        "set",
    )["set_stability"]["eventual"]
    assert (found["samples"], found["never"], found["p100"], found["p50"]) == (2, 1, 40.0, 10.0)


def test_lost_writes_and_the_time_that_they_span() -> None:
    found = measures(
        "A upsert x a 0-1\nA upsert x b 2-3\nA upsert x c 40-50\nB get x a 90-91 final\n"
        "A upsert y a2 0-1\nB get y a2 90-91 final"
    )["loss"]
    assert found == {"writes": 2, "from_ms": 3.0, "to_ms": 50.0}


def test_quality_of_neighbours() -> None:
    found = measures("A query q1 [q1,q2] 0-1\nA query q2 [q3] 2-3\nA query q3 null 4-?", "query")
    assert found["quality"] == {"queries": 2, "self_hits": 1}


def test_a_judgement_survives_json() -> None:
    judgement = judge(record(entries=SIDES, fault=(200, 500), quiet=600), history(AVAILABILITY))
    again = Judgement.from_json(orjson.loads(orjson.dumps(judgement.to_json())))
    assert again.findings == judgement.findings
    assert again.measures["availability"] == judgement.measures["availability"]
