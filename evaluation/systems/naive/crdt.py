"""A conflict-free replicated data type: an observed-remove set of documents, a register for each field. Pure.

Every write makes a dot (member, count) that no other write has. A state is the dots that live, each with the
registers as its member knew them, and a context: all dots ever seen. A dot in one context and not alive there
has been removed; so a delete removes what it has seen, and a write that it has not seen survives it (adds
win). Between the surviving dots each field goes to its latest register by hybrid time.

It converges without a conflict and still loses acknowledged writes: of two values of one field one remains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from evaluation.systems.naive.records import Stamp, canonical
from evaluation.systems.naive.strategy import Queue, Spread, fold
from evaluation.systems.naive.vector_clock import join

if TYPE_CHECKING:
    from collections.abc import Iterable

    from evaluation.systems.naive.records import Change, Fields

Dot: TypeAlias = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Register:
    """One field's value and when it was written. None: taken away."""

    at: Stamp
    value: Any

    def rank(self) -> tuple[Stamp, bytes]:
        return self.at, canonical(self.value)


Registers: TypeAlias = Mapping[str, Register]


@dataclass(frozen=True, slots=True)
class Dotted:
    """One document: live dots with their registers, and all dots seen (member -> its highest count)."""

    context: Mapping[str, int]
    live: Mapping[Dot, Registers]

    def seen(self, dot: Dot) -> bool:
        node, count = dot
        return self.context.get(node, 0) >= count


def latest(many: Iterable[Registers]) -> dict[str, Register]:
    """Each field's latest register."""
    found: dict[str, Register] = {}
    for registers in many:
        for name, register in registers.items():
            found[name] = max(register, found.get(name, register), key=Register.rank)
    return found


class ObservedRemove:
    """Merging is the join of a semilattice: commutative, associative, idempotent."""

    name = "crdt"
    hybrid = True

    def write(self, state: Dotted | None, change: Change, at: Stamp) -> Dotted:
        known = latest(state.live.values()) if state is not None else {}
        written = {name: Register(at, value) for name, value in change.fields.items()}
        context = dict(state.context) if state is not None else {}
        context[at.node] = context.get(at.node, 0) + 1
        # The new dot carries on what its member knew: a delete elsewhere then removes none of it.
        return Dotted(context, {(at.node, context[at.node]): known | written})

    def delete(self, state: Dotted | None, at: Stamp) -> Dotted | None:
        del at
        return Dotted(state.context, {}) if state is not None else None

    def merge(self, a: Dotted, b: Dotted) -> Dotted:
        live: dict[Dot, Registers] = {}
        for dot in a.live.keys() | b.live.keys():
            left, right = a.live.get(dot), b.live.get(dot)
            if left is not None and right is not None:
                live[dot] = latest((left, right))
            elif left is not None and not b.seen(dot):
                live[dot] = left
            elif right is not None and not a.seen(dot):
                live[dot] = right
        return Dotted(join((a.context, b.context)), live)

    def decide(self, states: Mapping[str, Dotted]) -> Spread | Queue:
        return Spread(fold(self, states))

    def shown(self, state: Dotted) -> Fields | None:
        if not state.live:
            return None
        registers = latest(state.live.values())
        return {name: register.value for name, register in registers.items() if register.value is not None}

    def conflicts(self, state: Dotted) -> int:
        return max(0, len(state.live) - 1)

    def newest(self, state: Dotted) -> Stamp:
        stamps = [register.at for registers in state.live.values() for register in registers.values()]
        return max(stamps, default=Stamp(0, 0, ""))

    def to_json(self, state: Dotted) -> Any:
        alone = len(state.live) == 1
        return {
            "context": dict(state.context),
            "live": [
                {
                    "dot": list(dot),
                    "at": {name: register.at.to_json() for name, register in registers.items()},
                }
                | (
                    {}
                    if alone
                    else {"values": {name: register.value for name, register in registers.items()}}
                )
                for dot, registers in sorted(state.live.items())
            ],
        }

    def from_json(self, raw: Any, shown: Fields | None) -> Dotted:
        live: dict[Dot, Registers] = {}
        for one in raw["live"]:
            values: Mapping[str, Any] = one.get("values", shown or {})
            node, count = one["dot"]
            live[node, count] = {
                name: Register(Stamp.from_json(at), values.get(name)) for name, at in one["at"].items()
            }
        return Dotted(raw["context"], live)
