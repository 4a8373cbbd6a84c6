"""A call that reaches an engine's process only after its end was settled has not begun anywhere."""

from __future__ import annotations

import pytest

from cluster.chroma.death import death_of
from cluster.chroma.process import ChildProcess, Gone

pytestmark = pytest.mark.slow


def test_a_call_after_the_sockets_are_closed_has_not_begun() -> None:
    life = ChildProcess("engine", 1)
    life.kill()
    life.judge(death_of(life.pid, life.wait(), frozenset(), None, "the test ended it"))
    life.release()
    for number, ask in enumerate((life.write, life.read)):
        with pytest.raises(Gone) as gone:
            ask(number, "count", ("c",))
        assert not gone.value.begun
        life.finish(number)
    assert not life.underway()
