"""The real transport over sockets in memory, under broken, silent and slow links."""

from __future__ import annotations

import pytest

from tests.simulation.links import run_links


@pytest.mark.parametrize("batch", range(4))
def test_a_node_knows_its_links_and_gets_what_was_sent_on_them(batch: int) -> None:
    first = 1 + batch * 10
    broken = {seed: run_links(seed) for seed in range(first, first + 10)}
    assert not {seed: str(violation) for seed, violation in broken.items() if violation is not None}


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_many_runs_of_links() -> None:
    broken = {seed: run_links(seed) for seed in range(1000, 3000)}
    assert not {seed: str(violation) for seed, violation in broken.items() if violation is not None}
