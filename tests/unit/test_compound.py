"""A compound of faults strikes, like each fault, before it says that it has; its parts are stand-ins."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from evaluation.failure import SystemFailure
from evaluation.faulting.compound import Compound
from evaluation.faulting.interface import Context, Struck
from evaluation.systems.single import Single


@dataclass
class Part:
    """Does not bite the first `fails` times."""

    name: str = "kill-leader"
    summary: str = ""
    min_seconds: float = 0.0
    fails: int = 0
    struck: int = 0
    healed: int = 0
    error: Exception = field(default_factory=lambda: SystemFailure("nothing to strike"))

    def why_not(self, system: Any) -> str:
        return ""

    def applies_to(self, system: Any) -> bool:
        return True

    async def apply(self, context: Context) -> Struck:
        await asyncio.sleep(0)
        if self.fails > 0:
            self.fails -= 1
            raise self.error
        self.struck += 1
        return Struck(members=("one",), sides={"one": "minority"})

    async def heal(self, context: Context, struck: Struck) -> None:
        self.healed += 1


def compound(*parts: Part, first_s: float = 30.0) -> Compound:
    return Compound(parts, mean_wait_s=0.001, mean_for_s=0.001, first_s=first_s)


def context(seed: int = 1) -> Context:
    return Context(system=Single(), proxies=cast("Any", None), rng=random.Random(seed))


def run_once(whole: Compound) -> Struck:
    async def scenario() -> Struck:
        struck = await whole.apply(context())
        assert any(not step["error"] for step in struck.detail["steps"]), "it said so too early"
        await whole.heal(context(), struck)
        assert struck.task is None
        return struck

    return asyncio.run(scenario())


def test_it_is_applied_when_a_part_has_struck_and_may_be_healed_at_once() -> None:
    part = Part(fails=3)
    struck = run_once(compound(part))
    assert [bool(step["error"]) for step in struck.detail["steps"]][:4] == [True, True, True, False]
    assert part.struck == part.healed > 0


def test_it_waits_for_one_of_its_lanes_only() -> None:
    run_once(compound(Part("kill-leader", fails=10**9), Part("leader-isolated")))


def test_one_of_which_no_part_bites_is_an_error_and_nothing_of_it_goes_on() -> None:
    async def scenario() -> None:
        with pytest.raises(SystemFailure, match="does not bite: none of its parts struck"):
            await compound(Part(fails=10**9), first_s=0.05).apply(context())
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())


def test_a_part_that_breaks_is_told_at_once() -> None:
    async def scenario() -> None:
        with pytest.raises(SystemFailure, match="broken"):
            await compound(Part(fails=1, error=RuntimeError("broken"))).apply(context())

    asyncio.run(scenario())
