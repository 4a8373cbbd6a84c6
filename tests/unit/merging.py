"""States that real members can reach, made by random runs, and the laws a merge may claim."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from evaluation.systems.naive.records import Change, Stamp, canonical

if TYPE_CHECKING:
    from evaluation.systems.naive.strategy import Strategy

MEMBERS = ("m1", "m2", "m3")

#: (member, what, value, clock skew): a write, a delete, or a merge of what another member holds.
STEPS = st.lists(
    st.tuples(
        st.sampled_from(MEMBERS),
        st.sampled_from(["write", "write", "touch", "delete", "m1", "m2", "m3"]),
        st.integers(0, 3),
        st.integers(-3, 3),
    ),
    max_size=14,
)


@dataclass
class Members:
    """One document at three members."""

    strategy: Strategy[Any]
    states: dict[str, Any] = field(default_factory=dict[str, Any])
    time: int = 100

    def run(self, steps: list[tuple[str, str, int, int]]) -> Members:
        for member, what, value, skew in steps:
            # Never twice the same time at one member, whatever its clock is off by.
            self.time += 10
            at = Stamp(self.time + skew * 17, self.time, member)
            state = self.states.get(member)
            if what == "write":
                change = Change({"document": f"{value}", "m:v": value})
                self.states[member] = self.strategy.write(state, change, at)
            elif what == "touch":
                change = Change({"m:w": value or None})
                self.states[member] = self.strategy.write(state, change, at)
            elif what == "delete":
                after = self.strategy.delete(state, at)
                if after is None:
                    self.states.pop(member, None)
                else:
                    self.states[member] = after
            elif what in self.states:
                brought = self.states[what]
                self.states[member] = brought if state is None else self.strategy.merge(state, brought)
        return self

    def three(self) -> tuple[Any, Any, Any] | None:
        """The members' states, if all have one."""
        if len(self.states) < len(MEMBERS):
            return None
        a, b, c = (self.states[member] for member in MEMBERS)
        return a, b, c


def same(strategy: Strategy[Any], a: Any, b: Any) -> bool:
    """Equal for members, agent and clients."""
    return canonical(strategy.to_json(a)) == canonical(strategy.to_json(b)) and strategy.shown(
        a
    ) == strategy.shown(b)


def assert_semilattice(strategy: Strategy[Any], states: tuple[Any, Any, Any]) -> None:
    a, b, c = states
    merge = strategy.merge
    assert same(strategy, merge(a, a), a), "idempotent"
    assert same(strategy, merge(a, b), merge(b, a)), "commutative"
    assert same(strategy, merge(merge(a, b), c), merge(a, merge(b, c))), "associative"
    assert same(strategy, merge(merge(a, b), b), merge(a, b)), "absorbs what it has seen"


def assert_survives_storage(strategy: Strategy[Any], state: Any) -> None:
    restored = strategy.from_json(strategy.to_json(state), strategy.shown(state))
    assert same(strategy, restored, state)
