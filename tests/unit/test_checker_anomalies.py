"""Hand-made histories, each named by its anomaly, and exactly the properties that it violates."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from evaluation.checking.judge import judge
from evaluation.checking.verdict import PROPERTIES, Verdict
from tests.unit.checker_histories import history, record

if TYPE_CHECKING:
    from collections.abc import Set

LIN, RYW, MR, MW, WFR = (
    "linearizable",
    "read-your-writes",
    "monotonic-reads",
    "monotonic-writes",
    "writes-follow-reads",
)
LOST, DUP, PHANTOM, BACK = "lost", "duplicated", "phantom", "resurrected"
UPDATES, FRACTURED, DIVERGED = "lost-updates", "fractured", "diverged"


class Case(NamedTuple):
    name: str
    workload: str
    text: str
    violated: Set[str] = frozenset()


REGISTER = [
    Case(
        "one after the other",
        "register",
        "A upsert x a 0-1\nB get x a 2-3\nA delete x - 4-5\nB get x null 6-7",
    ),
    Case("empty before all writes", "register", "A get x null 0-1\nA upsert x a 2-3"),
    Case("stale read", "register", "A upsert x a 0-1\nA upsert x b 2-3\nB get x a 4-5", {LIN}),
    Case("stale read of nothing", "register", "A upsert x a 0-1\nB get x null 4-5", {LIN}),
    Case(
        "stale read at level session", "register", "A upsert x a 0-1\nA upsert x b 2-3\nB get x a 4-5 session"
    ),
    Case(
        "stale read at level eventual",
        "register",
        "A upsert x a 0-1\nA upsert x b 2-3\nA get x a 4-5 eventual",
    ),
    Case("concurrent read sees the old", "register", "A upsert x a 0-1\nA upsert x b 2-6\nB get x a 3-5"),
    Case("concurrent read sees the new", "register", "A upsert x a 0-1\nA upsert x b 2-6\nB get x b 3-5"),
    Case(
        "new and then old while the write lasts",
        "register",
        "A upsert x a 0-1\nA upsert x b 2-20\nB get x b 3-5\nC get x a 6-8",
        {LIN},
    ),
    Case(
        "new and then old in one session",
        "register",
        "A upsert x a 0-1\nA upsert x b 2-20\nB get x b 3-5\nB get x a 6-8",
        {LIN, MR},
    ),
    Case("equal times are concurrent", "register", "A upsert x a 0-5\nB get x null 5-6"),
    Case("equal times, other order", "register", "A upsert x a 5-9\nB get x a 3-5"),
    Case("one nanosecond of order", "register", "A upsert x a 0-5\nB get x null 6-6", {LIN}),
    Case(
        "all at one moment", "register", "A upsert x a 3-3\nB get x null 3-3\nC get x a 3-3\nD get x null 3-3"
    ),
    Case(
        "unknown write seen late",
        "register",
        "A upsert x a 0-?\nB upsert x b 2-3\nC get x b 4-5\nC get x a 90-91",
    ),
    Case(
        "unknown write never seen",
        "register",
        "A upsert x a 0-?\nB upsert x b 2-3\nC get x b 4-5\nC get x b 90-91",
    ),
    Case(
        "unknown write seen, gone, and seen again",
        "register",
        "A upsert x a 0-?\nB upsert x b 2-3\nC get x a 4-5\nD get x b 6-7\nE get x a 8-9",
        {LIN},
    ),
    Case(
        "unknown write that takes effect twice",
        "register",
        "A upsert x a 0-?\nC get x a 4-5\nB upsert x b 6-7\nD get x b 8-9\nE get x a 10-11",
        {LIN},
    ),
    Case("unknown write seen before it began", "register", "B get x a 0-1\nA upsert x a 2-?", {LIN, PHANTOM}),
    Case(
        "unknown with a late answer stays open",
        "register",
        "A upsert x a 0-5 unknown\nB upsert x b 6-7\nC get x b 8-9\nC get x a 20-21",
    ),
    Case("unknown delete", "register", "A upsert x a 0-1\nA delete x - 2-?\nB get x a 4-5\nB get x null 6-7"),
    Case(
        "unknown delete and back again",
        "register",
        "A upsert x a 0-1\nB delete x - 2-?\nC get x null 4-5\nD get x a 6-7",
        {LIN},
    ),
    Case("unknown read says nothing", "register", "A upsert x a 0-1\nB get x null 4-? "),
    Case("refused write not seen", "register", "A upsert x a 0-1 refused\nB get x null 4-5"),
    Case(
        "dirty read of a refused write", "register", "A upsert x a 0-1 refused\nB get x a 4-5", {LIN, PHANTOM}
    ),
    Case("read of what nobody wrote", "register", "A upsert x a 0-1\nB get x z 4-5 eventual", {PHANTOM}),
    Case("read from the future", "register", "B get x a 0-1\nA upsert x a 4-5", {LIN, PHANTOM}),
    Case(
        "write lost under reads",
        "register",
        "A upsert x a 0-1\nB upsert x b 2-3\nC get x b 4-5\nD get x a 6-7",
        {LIN},
    ),
    Case("add where it exists changes nothing", "register", "A upsert x a 0-1\nB add x b 2-3\nC get x a 4-5"),
    Case("add must not overwrite", "register", "A upsert x a 0-1\nB add x b 2-3\nC get x b 4-5", {LIN}),
    Case("add where there is nothing must be seen", "register", "B add x b 2-3\nC get x null 4-5", {LIN}),
    Case("update where there is nothing changes nothing", "register", "B update x b 2-3\nC get x null 4-5"),
    Case("update must not create", "register", "B update x b 2-3\nC get x b 4-5", {LIN}),
    Case(
        "update of what an unknown add may have made",
        "register",
        "A add x a 0-?\nB update x b 2-3\nC get x b 4-5",
    ),
    Case(
        "update after a delete changes nothing",
        "register",
        "A upsert x a 0-1\nA delete x - 2-3\nB update x b 4-5\nC get x null 6-7",
    ),
    Case(
        "get_where that finds the old",
        "register",
        "A upsert x a 0-1\nA upsert x b 2-3\nB get_where x a 4-5",
        {LIN},
    ),
    Case("deleted and seen again", "register", "A upsert x a 0-1\nA delete x - 2-3\nB get x a 4-5", {LIN}),
    Case(
        "two writes at once, two orders",
        "register",
        "A upsert x a 0-9\nB upsert x b 0-9\nC get x a 10-11\nD get x b 12-13",
        {LIN},
    ),
    Case(
        "two writes at once, one order",
        "register",
        "A upsert x a 0-9\nB upsert x b 0-9\nC get x b 10-11\nD get x b 12-13",
    ),
    Case(
        "split brain as clients see it",
        "register",
        "A upsert x a 0-1\nB upsert x b 2-3\nA get x a 4-5\nB get x b 4-5",
        {
            LIN,
        },
    ),
    Case(
        "long fork",
        "register",
        "A upsert x a 0-9\nB upsert y b 0-9\nC get x a 10-11\nC get y null 12-13\n"
        "D get y b 10-11\nD get x null 12-13",
        {LIN},
    ),
    Case(
        "keys are independent", "register", "A upsert x a 0-1\nA upsert y b 2-3\nB get y b 4-5\nB get x a 6-7"
    ),
]

SESSIONS = [
    Case("own write not seen", "register", "A upsert x a 0-1\nA get x null 2-3 session", {RYW}),
    Case(
        "own write replaced by another",
        "register",
        "A upsert x a 0-1\nB upsert x b 1-3\nA get x b 4-5 session",
    ),
    Case(
        "own delete not seen", "register", "B upsert x a 0-1\nA delete x - 2-3\nA get x a 4-5 session", {RYW}
    ),
    Case(
        "own write deleted by another",
        "register",
        "A upsert x a 0-1\nB delete x - 2-?\nA get x null 4-5 session",
    ),
    Case("own write of unknown outcome not seen", "register", "A upsert x a 0-?\nA get x null 4-5 session"),
    Case(
        "own add may have changed nothing",
        "register",
        "B upsert x b 0-1\nA add x a 2-3\nA get x b 4-5 session",
    ),
    Case(
        "own write not seen at another entry",
        "register",
        "A upsert x a 0-1\nA get x null 2-3 session @node-1",
    ),
    Case("own write not seen at level eventual", "register", "A upsert x a 0-1\nA get x null 2-3 eventual"),
    Case(
        "own counter not seen", "counter", "A upsert c 1 0-1\nA upsert c 2 2-3\nA get c 1 4-5 session", {RYW}
    ),
    Case(
        "backward",
        "counter",
        "A upsert c 1 0-1\nA upsert c 2 2-3\nB get c 2 4-5 session\nB get c 1 6-7 session",
        {MR},
    ),
    Case(
        "backward at one member",
        "counter",
        "A upsert c 1 0-1\nA upsert c 2 2-3\nB get c 2 4-5 session node=n\nB get c 1 6-7 session node=n",
        {MR, MW},
    ),
    Case(
        "backward to nothing",
        "counter",
        "A upsert c 1 0-1\nB get c 1 4-5 session\nB get c null 6-7 session",
        {MR},
    ),
    Case(
        "backward at level eventual",
        "counter",
        "A upsert c 1 0-1\nB get c 1 4-5 eventual\nB get c null 6-7 eventual",
    ),
    Case(
        "backward across sessions",
        "counter",
        "A upsert c 1 0-1\nB get c 1 4-5 session\nC get c null 6-7 session",
    ),
    Case(
        "backward across entries",
        "counter",
        "A upsert c 1 0-1\nB get c 1 4-5 session @node-1\nB get c null 6-7 session @node-2",
    ),
    Case(
        "forward",
        "counter",
        "A upsert c 1 0-1\nB get c null 2-3 session\nB get c 1 4-5 session\n"
        "A upsert c 2 6-7\nB get c 2 8-9 session",
    ),
    Case(
        "backward to a write of unknown outcome",
        "counter",
        "A upsert c 1 0-?\nA upsert c 2 2-3\nB get c 2 4-5 session\nB get c 1 6-7 session",
    ),
    Case(
        "there, replaced, there again",
        "register",
        "A upsert x a 0-?\nA upsert x b 2-?\nB get x a 4-5 session\n"
        "B get x b 6-7 session\nB get x a 8-9 session",
        {MR},
    ),
    Case(
        "deleted and back before a session's eyes",
        "register",
        "A upsert x a 0-1\nA delete x - 2-?\nB get x a 4-5 session\n"
        "B get x null 6-7 session\nB get x a 8-9 session",
        {MR},
    ),
    Case(
        "overlapping reads of one session",
        "counter",
        "A upsert c 1 0-1\nB get c 1 4-9 session\nB get c null 6-7 session",
    ),
    Case(
        "two documents in the other order",
        "register",
        "A upsert x a 0-1\nA upsert y b 2-3\nB get y b 4-5 session @node-1\nB get x null 6-7 session @node-1",
        {MW},
    ),
    Case(
        "two documents in order",
        "register",
        "A upsert x a 0-1\nA upsert y b 2-3\nB get y b 4-5 session @node-1\nB get x a 6-7 session @node-1",
    ),
    Case(
        "two documents at two members",
        "register",
        "A upsert x a 0-1\nA upsert y b 2-3\nB get y b 4-5 session node=n1\nB get x null 6-7 session node=n2",
    ),
    Case(
        "two writers at once",
        "register",
        "A upsert x a 0-1\nC upsert y b 2-3\nB get y b 4-5 session @node-1\nB get x null 6-7 session @node-1",
    ),
    Case(
        "copy without its source",
        "counter",
        "A upsert c 1 0-1\nB get c 1 2-3\nB upsert c/copy 1 4-5\n"
        "C get c/copy 1 6-7 session\nC get c null 8-9 session",
        {WFR},
    ),
    Case(
        "copy after its source",
        "counter",
        "A upsert c 1 0-1\nB get c 1 2-3\nB upsert c/copy 1 4-5\n"
        "C get c/copy 1 6-7 session\nA upsert c 2 8-9\nC get c 2 10-11 session",
    ),
    Case(
        "copied twice",
        "counter",
        "A upsert c 1 0-1\nB upsert c/copy 1 4-5\nD upsert c/copy 1 6-7\n"
        "C get c/copy 1 8-9\nC get c/copy 1 10-11",
    ),
    Case(
        "copy of a write of unknown outcome",
        "counter",
        "A upsert c 1 0-?\nB get c 1 2-3 session\nB upsert c/copy 1 4-5\n"
        "C get c/copy 1 6-7 session\nC get c 1 8-9 session",
    ),
]

ENDINGS = [
    Case("last write there", "register", "A upsert x a 0-1\nA upsert x b 2-3\nB get x b 90-91 final"),
    Case(
        "last write lost",
        "register",
        "A upsert x a 0-1\nA upsert x b 2-3\nB get x a 90-91 final",
        {LIN, LOST},
    ),
    Case("only write lost", "register", "A upsert x a 0-1\nB get x null 90-91 final", {LIN, LOST}),
    Case("lost at level eventual", "register", "A upsert x a 0-1\nB get x null 90-91 final eventual", {LOST}),
    Case("unknown write gone", "register", "A upsert x a 0-?\nB get x null 90-91 final"),
    Case("unknown write last", "register", "A upsert x a 0-?\nA upsert x b 2-3\nB get x a 90-91 final"),
    Case("unknown delete last", "register", "A upsert x a 0-1\nA delete x - 2-?\nB get x null 90-91 final"),
    Case(
        "one of two at once", "register", "A upsert x a 0-9\nB upsert x b 0-9\nB get x a 90-91 final eventual"
    ),
    Case(
        "last write undone at its time only",
        "register",
        "A upsert x a 0-1\nA upsert x b 2-3\nC get x a 4-5 eventual\nB get x b 90-91 final",
    ),
    Case("added and lost", "register", "A add x a 0-1\nB get x null 90-91 final eventual", {LOST}),
    Case(
        "updated and lost",
        "register",
        "A upsert x a 0-1\nA update x b 2-3\nB get x a 90-91 final eventual",
        {LOST},
    ),
    Case(
        "update perhaps before the upsert",
        "register",
        "A update x b 0-5\nB upsert x a 3-9\nB get x a 90-91 final",
    ),
    Case(
        "resurrected delete",
        "register",
        "A upsert x a 0-1\nA delete x - 2-3\nB get x a 90-91 final eventual",
        {BACK},
    ),
    Case(
        "resurrected past a later write",
        "register",
        "A upsert x a 0-1\nA delete x - 2-3\nA upsert x b 4-5\nB get x a 90-91 final eventual",
        {LOST, BACK},
    ),
    Case(
        "deleted twice, gone",
        "register",
        "A upsert x a 0-1\nA delete x - 2-3\nB delete x - 4-5\nB get x null 90-91 final",
    ),
    Case("phantom at the end", "register", "A upsert x a 0-1\nB get x z 90-91 final eventual", {PHANTOM}),
    Case(
        "lost at one entry only",
        "register",
        "A upsert x a 0-1\nB get x a 90-91 final @node-1\nB get x null 92-93 final @node-2 eventual",
        {DIVERGED},
    ),
    Case(
        "lost at every entry",
        "register",
        "A upsert x a 0-1\nA upsert x b 2-3\nB get x a 90-91 final @node-1 eventual\n"
        "B get x a 92-93 final @node-2 eventual",
        {LOST},
    ),
    Case(
        "old here, older there",
        "register",
        "A upsert x a 0-1\nA upsert x b 2-3\nB get x a 90-91 final @node-1 eventual\n"
        "B get x null 92-93 final @node-2 eventual",
        {LOST, DIVERGED},
    ),
    Case(
        "unknown write between the last reads",
        "register",
        "A upsert x a 0-1\nA upsert x b 2-?\nB get x a 90-91 final @node-1\nB get x b 92-93 final @node-2",
    ),
    Case(
        "unknown write at one entry only",
        "register",
        "A upsert x a 0-1\nA upsert x b 2-?\nB get x b 90-91 final @node-1 eventual\n"
        "B get x a 92-93 final @node-2 eventual",
        {DIVERGED},
    ),
    Case(
        "counter lost",
        "counter",
        "A upsert c 1 0-1\nA upsert c 2 2-3\nB get c 1 90-91 final eventual",
        {LOST},
    ),
    Case(
        "batch lost",
        "batch",
        "A upsert g a 0-1\nA upsert g b 2-3\nB get g [a,a,a] 90-91 final eventual",
        {LOST},
    ),
]

SETS = [
    Case(
        "all there",
        "set",
        "A add s a 0-1\nA add s b 2-3\nB get_all s [a,b] 4-5\nB count s 2 6-7\nB get_all s [a,b] 90-91 final",
    ),
    Case("lost add", "set", "A add s a 0-1\nA add s b 2-3\nB get_all s [b] 90-91 final eventual", {LOST}),
    Case(
        "late add is not lost",
        "set",
        "A add s a 0-1\nB get_all s [] 2-3 eventual\nB get_all s [a] 90-91 final",
    ),
    Case(
        "missing here only",
        "set",
        "A add s a 0-1\nB get_all s [] 90-91 final @node-1 eventual\n"
        "B get_all s [a] 92-93 final @node-2 eventual",
        {DIVERGED},
    ),
    Case("unknown add never there", "set", "A add s a 0-?\nB get_all s [] 90-91 final"),
    Case("unknown add there late", "set", "A add s a 0-?\nB get_all s [] 4-5\nB get_all s [a] 90-91 final"),
    Case(
        "unknown add there and gone", "set", "A add s a 0-?\nB get_all s [a] 4-5\nB get_all s [] 8-9", {LIN}
    ),
    Case("duplicate", "set", "A add s a 0-1\nB get_all s [a,a] 4-5 eventual", {DUP}),
    Case("phantom id", "set", "A add s a 0-1\nB get_all s [a,z] 4-5 eventual", {PHANTOM}),
    Case("refused id there", "set", "A add s a 0-1 refused\nB get_all s [a] 4-5 eventual", {PHANTOM}),
    Case("stale list", "set", "A add s a 0-1\nB get_all s [] 4-5", {LIN}),
    Case("count too small", "set", "A add s a 0-1\nB count s 0 4-5", {LIN}),
    Case("count too large", "set", "A add s a 0-1\nB count s 2 4-5", {LIN}),
    Case("count while adds last", "set", "A add s a 0-1\nA add s b 2-9\nB count s 1 4-5\nB count s 2 6-7"),
    Case(
        "fork of lists",
        "set",
        "A add s a 0-9\nB add s b 0-9\nC get_all s [a] 1-8\nD get_all s [b] 1-8",
        {LIN},
    ),
    Case("later id without the earlier", "set", "A add s a 0-1\nA add s b 2-9\nB get_all s [b] 0-5", {LIN}),
]

APPENDS = [
    Case("appended in order", "append", "A append l a 0-1\nA append l b 2-3\nB get l [a,b] 4-5"),
    Case("nothing yet", "append", "B get l null 0-1\nA append l a 2-3"),
    Case("lost update", "append", "A append l a 0-1\nA append l b 2-3\nB get l [b] 4-5 eventual", {UPDATES}),
    Case(
        "last append lost", "append", "A append l a 0-1\nA append l b 2-3\nB get l [a] 90-91 final", {UPDATES}
    ),
    Case("stale list of a replica", "append", "A append l a 0-1\nA append l b 2-3\nB get l [a] 4-5 session"),
    Case(
        "two branches",
        "append",
        "A append l a 0-1\nA append l b 2-3\nA append l c 4-5\n"
        "B get l [a,b] 6-7 eventual\nC get l [a,c] 6-7 eventual",
        {UPDATES},
    ),
    Case(
        "branches of an unknown append",
        "append",
        "A append l a 0-1\nA append l b 2-?\nA append l c 4-5\nB get l [a,c] 6-7\nC get l [a,b] 8-9",
    ),
    Case(
        "an unknown append excuses no earlier one",
        "append",
        "A append l a 0-1\nA append l b 2-?\nB get l [b] 6-7",
        {UPDATES},
    ),
    Case("appended twice", "append", "A append l a 0-1\nB get l [a,a] 4-5", {DUP}),
    Case("other order", "append", "A append l a 0-1\nA append l b 2-3\nB get l [b,a] 4-5", {UPDATES}),
    Case("refused append there", "append", "A append l a 0-1 refused\nB get l [a] 4-5", {PHANTOM}),
]

OTHERS = [
    Case(
        "whole batches",
        "batch",
        "A upsert g a 0-1\nB get g [a,a,a] 2-3\nA upsert g b 4-5\nB get g [b,b,b] 6-7",
    ),
    Case("fractured batch", "batch", "A upsert g a 0-1\nA upsert g b 2-6\nB get g [a,b,b] 4-5", {FRACTURED}),
    Case(
        "fractured at level eventual",
        "batch",
        "A upsert g a 0-1\nB get g [a,null,a] 4-5 eventual",
        {FRACTURED},
    ),
    Case("half a batch at the beginning", "batch", "A upsert g a 0-?\nB get g [null,a] 4-5", {FRACTURED}),
    Case("stale batch", "batch", "A upsert g a 0-1\nA upsert g b 2-3\nB get g [a,a] 4-5", {LIN}),
    Case("no batch yet", "batch", "B get g [null,null] 0-1\nA upsert g a 2-3"),
    Case(
        "created, there, dropped, gone",
        "catalogue",
        "A create n true 0-1\nB exists n true 2-3\nA drop n true 4-5\nB exists n false 6-7",
    ),
    Case("created twice", "catalogue", "A create n true 0-1\nB create n true 2-3", {LIN}),
    Case("creation found it there", "catalogue", "A create n true 0-1\nB create n false 2-3"),
    Case("two creations at once, one wins", "catalogue", "A create n true 0-9\nB create n false 0-9"),
    Case("creation found what was never there", "catalogue", "A create n false 0-1", {LIN}),
    Case(
        "there before it was created", "catalogue", "A exists n true 0-1\nA create n true 2-3", {LIN, PHANTOM}
    ),
    Case("there, but nobody created it", "catalogue", "A exists n true 0-1 eventual", {PHANTOM}),
    Case("dropped what was not there", "catalogue", "A drop n true 0-1", {LIN}),
    Case("found what an unknown creation made", "catalogue", "A create n true 0-?\nB create n false 2-3"),
    Case("dropped twice", "catalogue", "A create n true 0-1\nB drop n true 2-3\nC drop n true 4-5", {LIN}),
    Case(
        "collection lost", "catalogue", "A create n true 0-1\nB exists n false 90-91 final eventual", {LOST}
    ),
    Case(
        "collection resurrected",
        "catalogue",
        "A create n true 0-1\nA drop n true 2-3\nB exists n true 90-91 final eventual",
        {BACK},
    ),
    Case(
        "collections differ",
        "catalogue",
        "A create n true 0-1\nB exists n true 90-91 final @node-1\n"
        "B exists n false 92-93 final @node-2 eventual",
        {DIVERGED},
    ),
    Case("neighbours are no verdict", "query", "A query q [z] 0-1"),
]

CASES = [*REGISTER, *SESSIONS, *ENDINGS, *SETS, *APPENDS, *OTHERS]


@pytest.mark.parametrize("case", CASES, ids=[f"{case.workload}: {case.name}" for case in CASES])
def test_exactly_these_properties_are_violated(case: Case) -> None:
    judgement = judge(record(), history(case.text, case.workload))
    found = {one.property for one in judgement.findings if one.verdict is Verdict.VIOLATION}
    assert found == case.violated
    for finding in judgement.findings:
        assert finding.verdict is not Verdict.UNKNOWN
        if finding.verdict is Verdict.VIOLATION:
            assert finding.count > 0
            assert finding.detail
            assert finding.example
        else:
            assert (finding.count, finding.detail, finding.example) == (0, "", ())
        assert (finding.verdict is Verdict.NOT_CHECKED) == (finding.checked == 0)


def test_names_of_cases_are_unique() -> None:
    assert len({(case.workload, case.name) for case in CASES}) == len(CASES) >= 60


def test_every_property_has_a_finding_and_nothing_to_look_at_is_not_checked() -> None:
    judgement = judge(record(), [])
    assert [finding.property for finding in judgement.findings] == list(PROPERTIES)
    assert {finding.verdict for finding in judgement.findings} == {Verdict.NOT_CHECKED}


def test_writes_alone_show_nothing() -> None:
    judgement = judge(record(), history("A upsert x a 0-1\nA upsert x b 2-3"))
    assert {finding.verdict for finding in judgement.findings} == {Verdict.NOT_CHECKED}
