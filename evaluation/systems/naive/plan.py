"""One round of the agent, decided from what the members say: what is copied to whom, what waits. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from evaluation.systems.naive.records import canonical
from evaluation.systems.naive.strategy import Spread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evaluation.systems.naive.strategy import Strategy


@dataclass(slots=True)
class Copies:
    """What a round brings to the members for one collection."""

    to: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    """Member -> document -> state."""
    waiting: dict[str, Mapping[str, Any]] = field(default_factory=dict[str, "Mapping[str, Any]"])
    """Document -> its versions by member: conflicts that an operator decides."""
    conflicts: int = 0
    """Versions kept beside the shown ones."""

    @property
    def count(self) -> int:
        return sum(len(states) for states in self.to.values())


def differing(digests: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The documents on whose state not all of these members agree. Absence is a state."""
    documents = sorted({id for digest in digests.values() for id in digest})
    return [id for id in documents if len({digest.get(id) for digest in digests.values()}) > 1]


def copies(strategy: Strategy[Any], held: Mapping[str, Mapping[str, Any]]) -> Copies:
    """`held`: member -> document -> state, of documents that differ; members without a document lack it."""
    plan = Copies()
    for id in sorted({id for states in held.values() for id in states}):
        states = {member: mine[id] for member, mine in held.items() if id in mine}
        decision = strategy.decide(states)
        if not isinstance(decision, Spread):
            plan.waiting[id] = decision.states
            continue
        wanted = canonical(strategy.to_json(decision.state))
        plan.conflicts += strategy.conflicts(decision.state)
        for member in held:
            if member not in states or canonical(strategy.to_json(states[member])) != wanted:
                plan.to.setdefault(member, {})[id] = decision.state
    return plan


def most_recent(strategy: Strategy[Any], held: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The member with the latest write in it, which whole-store copying takes for the most up to date."""
    newest = {
        member: max(strategy.newest(state) for state in states.values())
        for member, states in held.items()
        if states
    }
    return max(newest, key=lambda member: (newest[member], member)) if newest else None


@dataclass(slots=True)
class Collections:
    """Which collections a member has to make and to drop."""

    create: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    drop: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def __bool__(self) -> bool:
        return bool(self.create or self.drop)


_NEVER: list[Any] = [0, 0, ""]


def _noted(digest: Mapping[str, Any], name: str, event: str) -> list[Any]:
    """When a member knows the collection to have been created or dropped."""
    known: Mapping[str, Any] = digest["catalogue"].get(name, {})
    return known.get(event) or _NEVER


def collections(digests: Mapping[str, Mapping[str, Any]]) -> dict[str, Collections]:
    """By member. A collection that one member has and another lacks is made there, unless it is known to have
    been dropped after it was last created (a strategy without tombstones knows nothing: it comes back)."""
    names = {name for digest in digests.values() for name in (*digest["collections"], *digest["catalogue"])}
    plans = {member: Collections() for member in digests}
    for name in sorted(names):
        created = max(_noted(digest, name, "created") for digest in digests.values())
        dropped = max(_noted(digest, name, "dropped") for digest in digests.values())
        holders = {
            member: digest["collections"][name]
            for member, digest in digests.items()
            if name in digest["collections"]
        }
        for member, digest in digests.items():
            if dropped > created:
                if member in holders or _noted(digest, name, "dropped") < dropped:
                    plans[member].drop.append({"name": name, "dropped": dropped})
            elif holders and member not in holders:
                model = holders[min(holders)]
                plans[member].create.append(
                    {
                        "name": name,
                        "configuration": model["configuration"],
                        "metadata": model["metadata"],
                        "created": created if created != _NEVER else None,
                    }
                )
    return plans
