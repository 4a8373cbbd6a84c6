"""Which version serves when members have several."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.apply.impasse import Impasse
from cluster.errors import Unavailable
from cluster.service.health import Health
from cluster.service.versions import Versions, difference, own_versions

OWN = {"chromadb": "1.0.0"}


@pytest.mark.parametrize(
    ("status", "differs"),
    [
        ({"versions": {"chromadb": "1.0.1"}}, True),
        ({"versions": {"chromadb": "1.0.0", "other": "2"}}, False),
        ({"versions": {}}, False),
        ({"versions": None}, False),
        ({}, False),
        (None, False),
    ],
)
def test_only_what_the_leader_says_differs(status: dict[str, Any] | None, differs: bool) -> None:
    assert (difference(OWN, status) is not None) is differs


@pytest.mark.parametrize("mixed", [False, True])
def test_a_follower_of_another_version_does_not_serve_until_it_is_the_same_or_leads(mixed: bool) -> None:
    leader = SimpleNamespace(here=False, is_here=lambda: leader.here, url=lambda: "http://leader")
    condition = SimpleNamespace(state="serving")
    health = Health(
        "node-1",
        SimpleNamespace(status=lambda: SimpleNamespace(lacks=None)),  # type: ignore[arg-type]
        SimpleNamespace(condition=lambda: condition),  # type: ignore[arg-type]
        Impasse(lambda: 0.0),
    )
    same: Any = {"versions": own_versions()}
    answers: list[Any] = []

    async def status(url: str) -> Any:
        assert url == "http://leader"
        return answers[-1]

    versions = Versions(leader, health, SimpleNamespace(status=status), mixed=mixed)  # type: ignore[arg-type]
    told: list[None] = []

    async def look(answer: Any) -> str | None:
        answers.append(answer)
        await versions.look(lambda: told.append(None))
        return health.reason

    async def scenario() -> None:
        assert await look(same) is None
        reason = await look({"versions": {"chromadb": "0.0.1"}})
        assert (reason is None) is mixed
        assert len(told) == 1
        if not mixed:
            assert "0.0.1" in (reason or "")
            assert "allow_mixed_versions" in (reason or "")
            with pytest.raises(Unavailable, match="Nothing was read"):
                health.require_serving()
        assert await look(None) == reason, "a leader that does not answer proves nothing"
        leader.here = True
        assert await look(None) is None, "who leads serves"
        leader.here = False
        await look({"versions": {"chromadb": "0.0.1"}})
        assert await look(same) is None
        health.require_serving()

    asyncio.run(scenario())
