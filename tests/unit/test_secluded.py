"""What is passed to the process with a network of its own arrives there whole."""

from __future__ import annotations

from dataclasses import asdict

import orjson

from evaluation.faulting import netns
from evaluation.run import secluded
from evaluation.run.plan import RunPlan, Timing


def test_a_plan_comes_back_from_json() -> None:
    plan = RunPlan("cluster", "packet-loss", 7, ("register", "set"), Timing(fault_s=1.5))
    assert secluded.plan_of(orjson.loads(orjson.dumps(asdict(plan)))) == plan


def test_only_packet_loss_needs_it() -> None:
    assert secluded.needed("packet-loss") is not netns.is_own()
    assert not secluded.needed("leader-isolated")
