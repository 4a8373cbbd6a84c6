"""The whole cost measurement once, small, on the smallest system."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from evaluation.costs.cost import FORM, measure
from evaluation.costs.loads import TITLES

pytestmark = pytest.mark.slow


def test_single_is_measured_and_drilled(tmp_path: Path) -> None:
    saved: list[dict[str, Any]] = []
    result = measure(["single"], documents=200, seconds=0.3, rounds=1, save=saved.append)
    assert orjson.loads(orjson.dumps(saved[-1])) == orjson.loads(orjson.dumps(result))
    assert result["form"] == FORM
    (row,) = result["systems"]
    assert row["error"] == ""
    assert {one["load"] for one in row["loads"]} == set(TITLES)
    for one in row["loads"]:
        assert one["errors"] == {}
        assert one["per_second"] > 0
        assert 0 < one["p50_ms"] <= one["p99_ms"]
        assert one["ratio"] == 1.0
    assert row["recall_at_10"] > 0.9
    assert row["processes_total"] >= 1
    assert row["memory_mib_total"] > 10
    assert row["disk_mib_total"] > 0
    backup, failover = (row["operations"][kind]["drill"] for kind in ("backup", "failover"))
    assert backup["missing"] == 0
    assert backup["documents"] >= backup["acknowledged_before"] > 0
    assert (failover["commands"], failover["lost"]) == (1, 0)


def test_a_system_that_cannot_be_measured_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise RuntimeError("it is broken")

    monkeypatch.setattr("evaluation.costs.round.SYSTEMS", {"single": broken})
    result = measure(["single"], documents=50, seconds=0.1, rounds=1)
    assert "it is broken" in result["systems"][0]["error"]
