"""Tables of costs and of the compactor, also where parts are missing."""

from __future__ import annotations

from typing import Any

from evaluation.report import storage, style
from evaluation.report.costs import cost_tables

DASH = "\N{EN DASH}"
LOAD = {
    "load": "write-1",
    "mode": "default",
    "per_second": 120.4,
    "p50_ms": 8.1,
    "p99_ms": 31.0,
    "errors": {},
}
FAILOVER = {
    "commands": [],
    "outage": "an election",
    "loses": "nothing",
    "needs": "a majority",
    "drill": {"commands": 0, "pause_ms": 270.0, "acknowledged": 139, "lost": 0},
}
COST: dict[str, Any] = {
    "command": "python -m evaluation.costs.cost",
    "titles": {"write-1": "one client, one document"},
    "systems": [
        {"system": "single", "loads": [{**LOAD, "ratio": 1.0}], "memory_mib_total": 126.4, "operations": {}},
        {
            "system": "cluster",
            "loads": [{**LOAD, "mode": "applied", "ratio": 0.5, "errors": {"503": 2}}],
            "operations": {"failover": FAILOVER, "backup": {"commands": ["stop", "copy"], "drill": None}},
        },
        {"system": "naive-lww", "error": "SystemFailure: " + "x" * 300},
    ],
}


def test_nothing_measured_is_no_table() -> None:
    assert cost_tables({}) == []
    assert cost_tables({"systems": []}) == []
    assert storage.tables({}) == []
    assert storage.draw([]) is None


def test_systems_stand_one_above_the_other_for_each_load() -> None:
    speed = cost_tables(COST)[0]
    assert [row[:4] for row in speed.rows] == [
        ("one client, one document", "single", "120", "1.00 x"),
        ("one client, one document", "cluster (applied)", "120", "0.50 x"),
    ]
    assert [row[-1] for row in speed.rows] == ["none", "2 503"]
    assert "python -m evaluation.costs.cost" in speed.note


def test_what_was_not_measured_is_a_dash_and_an_error_is_said() -> None:
    weight = cost_tables(COST)[1]
    rows = {row[0]: row for row in weight.rows}
    assert rows["single"][weight.columns.index("memory")] == "126 MiB"
    assert set(rows["naive-lww"][1:-1]) == {DASH}
    assert rows["naive-lww"][-1].startswith("SystemFailure")
    assert len(rows["naive-lww"][-1]) <= 90


def test_drills_stand_beside_what_is_typed() -> None:
    failover, backup = cost_tables(COST)[2:]
    assert failover.rows == [
        ("cluster", "nothing", "an election", "nothing", "a majority", "270 ms", "0 of 139")
    ]
    assert backup.rows == [("cluster", "stop; copy", DASH, DASH, DASH, DASH, DASH, DASH)]


def test_a_failover_that_waits_for_a_person_says_so() -> None:
    drill = {"commands": 1, "pause_ms": None, "after_command_ms": 1500.0, "acknowledged": 21, "lost": 0}
    raw = {"systems": [{"system": "single", "operations": {"failover": {**FAILOVER, "drill": drill}}}]}
    assert cost_tables(raw)[2].rows[0][5] == "until a person acts, then 1.5 s"


def holding(worker: str, locked: int, ended: int | None, **more: Any) -> dict[str, Any]:
    return {
        "worker": worker,
        "token": 1,
        "locked_ns": locked,
        "expires_ns": locked + 2_000_000_000,
        "ended_ns": ended,
        "end": "done",
        "paused_ns": None,
        "awake_ns": None,
    } | more


def run(variant: str, seed: int, lost: int, *holdings: dict[str, Any]) -> dict[str, Any]:
    return {"variant": variant, "seed": seed, "lost": lost, "acknowledged": 9, "holdings": list(holdings)}


def test_the_telling_runs_have_a_paused_holder_and_the_greatest_loss() -> None:
    paused = holding("worker-1", 0, 3_000_000_000, paused_ns=500_000_000, awake_ns=2_900_000_000)
    runs = [
        run("fenced", 1, 0, paused),
        run("unfenced", 1, 1, paused),
        run("unfenced", 2, 5, paused, holding("worker-2", 2_100_000_000, None)),
        run("unfenced", 3, 9, holding("worker-1", 0, 1_000_000_000)),
        {"variant": "checked", "seed": 1, "error": "too busy"},
    ]
    telling = storage.telling({"runs": runs})
    assert [(one["variant"], one["seed"]) for one in telling] == [("unfenced", 2), ("fenced", 1)]
    with style.styled():
        figure = storage.draw(telling)
        assert figure is not None
        assert style.to_svg(figure).startswith("<svg")


def test_variants_without_a_valid_run_show_dashes() -> None:
    row = {
        "variant": "fenced",
        "fault": "pause-holder",
        "runs": 0,
        "runs_with_loss": 0,
        "acknowledged": 0,
        "lost": 0,
        "expected": "ok",
        "as_expected": False,
        "errors": 1,
    }
    table = storage.tables({"summary": [row]})[0]
    assert table.rows == [("fenced", "pause-holder", "0", DASH, DASH, DASH, "ok", DASH, "1")]
