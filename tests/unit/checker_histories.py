"""Histories written as text, for the checker's tests.

One operation a line: session, action, key, value, begin-end in milliseconds, then words in any order:
`unknown`, `refused`, `final`, `fault`, a level, `@entry`, `node=member`, `id=request`, `index=n`. An end of
`?` never came. Values: null, true, false, integers, [a, b without spaces], anything else is a string.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

from evaluation.history import Action, Fate, Operation, Phase
from evaluation.record import Event, RunRecord

MS = 1_000_000


def value_of(text: str) -> Any:
    if text.startswith("["):
        return [value_of(item) for item in text[1:-1].split(",") if item]
    plain: dict[str, Any] = {"null": None, "-": None, "true": True, "false": False}
    if text in plain:
        return plain[text]
    return int(text) if text.isdigit() else text


def history(text: str, workload: str = "register", first: int = 0) -> list[Operation]:
    operations: list[Operation] = []
    processes: dict[str, int] = defaultdict(lambda: len(processes))
    for number, line in enumerate((line for line in text.splitlines() if line.strip()), first):
        session, action, key, value, times, *words = line.split()
        begin, _, end = times.partition("-")
        one = Operation(
            id=number,
            workload=workload,
            process=processes[session],
            session=session,
            entry="lb",
            action=Action(action),
            key=key,
            value=value_of(value),
            level="default",
            phase=Phase.WARMUP,
            invoked_ns=int(begin) * MS,
            returned_ns=None if end == "?" else int(end) * MS,
            outcome=Fate.UNKNOWN if end == "?" else Fate.OK,
        )
        for word in words:
            name, _, rest = word.partition("=")
            if word in ("unknown", "refused"):
                one = replace(one, outcome=Fate(word))
            elif word in ("final", "fault", "healed"):
                one = replace(one, phase=Phase(word))
            elif word in ("session", "linearizable", "eventual"):
                one = replace(one, level=word)
            elif word.startswith("@"):
                one = replace(one, entry=word[1:])
            elif name == "node":
                one = replace(one, node=rest)
            elif name == "id":
                one = replace(one, request_id=rest)
            elif name == "index":
                one = replace(one, index=int(rest))
            else:
                raise ValueError(f"{word!r} in {line!r}")
        operations.append(one)
    return operations


def record(
    *events: tuple[int, str, str, int | None],
    entries: dict[str, tuple[str | None, str]] | None = None,
    fault: tuple[int, int] = (0, 0),
    quiet: int = 0,
) -> RunRecord:
    """`events`: (at ms, member, role, term). `entries`: name -> (member, side)."""
    members = ("node-1", "node-2", "node-3")
    known = entries or {"lb": (None, "all"), **{member: (member, "all") for member in members}}
    return RunRecord(
        system="test",
        fault="none",
        workloads=["register"],
        seed=0,
        command="",
        started_at="",
        members=list(members),
        entries=[{"name": name, "member": member, "side": side} for name, (member, side) in known.items()],
        fault_begin_ns=fault[0] * MS,
        fault_end_ns=fault[1] * MS,
        quiet_ns=quiet * MS,
        events=[
            Event(at_ns=at * MS, kind="role", member=member, role=role, term=term)
            for at, member, role, term in events
        ],
    )
