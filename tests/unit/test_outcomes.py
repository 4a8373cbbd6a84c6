"""What each error says became of a write."""

from __future__ import annotations

import pytest

from cluster import errors
from lb.proxy import OUTCOME, error_response

SAID = {
    "Refusal": "unchanged",
    "NotLeader": "unchanged",
    "Overloaded": "unchanged",
    "Unavailable": "unchanged",
    "EngineUnavailable": "unchanged",
    "Quarantined": "unchanged",
    "OutcomeUnknown": "unknown",
    "EngineDied": None,
    "Fault": None,
    "ClusterError": None,
}


@pytest.mark.parametrize(("name", "outcome"), SAID.items())
def test_each_error_knows_its_outcome(name: str, outcome: str | None) -> None:
    assert getattr(errors, name).outcome == outcome


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (400, "unchanged"),
        (408, "unchanged"),
        (429, "unchanged"),
        (503, "unchanged"),
        (504, "unknown"),
        (500, "unknown"),
    ],
)
def test_the_balancers_own_answers_say_it_too(status: int, outcome: str) -> None:
    assert error_response(status, "Error", "words").headers[OUTCOME] == outcome
