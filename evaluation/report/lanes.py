"""Where the bars of a counter-example stand: one lane a client, the order of all beginnings and ends kept.

Lengths are not to scale: an example of three requests may span ten seconds, and nobody could read bars of
2 ms in it. What decides (which ended before which began, which overlapped) is drawn exactly. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluation.history import Action, Fate, Operation

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Width of a character of the drawing's monospaced font, in its size.
CHARACTER = 0.62
LABEL_PX = 13
STEP = 14.0
"""Least distance of two different moments."""
PADDING = 9.0
VALUE_CHARACTERS = 26


@dataclass(frozen=True, slots=True)
class Bar:
    operation: Operation
    lane: int
    left: float
    right: float
    open_ended: bool
    """No answer is known: it may take effect at any later time."""
    label: str
    when: str


@dataclass(frozen=True, slots=True)
class Lane:
    process: int
    title: str


@dataclass(frozen=True, slots=True)
class Layout:
    lanes: tuple[Lane, ...]
    bars: tuple[Bar, ...]
    width: float
    omitted: int
    """Operations of the example that are not drawn."""


def shorten(text: str, most: int = VALUE_CHARACTERS) -> str:
    """The beginning and the end: values often differ only in their last characters."""
    if len(text) <= most:
        return text
    keep = most - 1
    return f"{text[: keep - keep // 2]}…{text[len(text) - keep // 2 :]}"


def show(value: object) -> str:
    """A value as it stands in a label."""
    match value:
        case None:
            return "nothing"
        case True | False:
            return "yes" if value else "no"
        case list():
            items: list[object] = value  # pyright: ignore[reportUnknownVariableType]
            if len(items) > 3:
                return f"[{shorten(str(items[0]), 10)}, … {len(items)} in all]"
            return "[" + ", ".join(shorten(str(item), 12) for item in items) + "]"
        case _:
            return shorten(str(value))


def describe(operation: Operation) -> str:
    """What was asked and answered: `upsert doc-1 = a`, `get doc-1 → a`."""
    key = shorten(operation.key, 22)
    if operation.is_write:
        text = f"{operation.action.value} {key}"
        if operation.action not in (Action.DELETE, Action.DROP, Action.CREATE):
            text += f" = {show(operation.value)}"
        if operation.outcome is Fate.OK:
            return text
        return f"{text} ({'refused' if operation.outcome is Fate.REFUSED else 'no answer'})"
    answer = show(operation.value) if operation.outcome is Fate.OK else operation.outcome.value
    return f"{operation.action.value} {key} → {answer}"


def when(operation: Operation) -> str:
    """When it was asked, how long it took, and who answered if that is not the address itself."""
    text = f"{operation.invoked_ns / 1e9:.3f} s"
    if operation.returned_ns is not None:
        text += f" +{(operation.returned_ns - operation.invoked_ns) / 1e6:.1f} ms"
    if operation.node and operation.node != operation.entry:
        text += f" by {shorten(operation.node, 12)}"
    return text


def lay_out(operations: Sequence[Operation], most: int = 14) -> Layout:
    """Bars wide enough for their labels. More than `most` operations: the first and the last of them."""
    ordered = sorted(operations, key=lambda operation: (operation.invoked_ns, operation.id))
    drawn = ordered if len(ordered) <= most else [*ordered[: most // 2], *ordered[-(most - most // 2) :]]
    processes = list(dict.fromkeys(operation.process for operation in drawn))
    titles = {
        process: Lane(process, _title([one for one in drawn if one.process == process]))
        for process in processes
    }
    moments = sorted(
        {time for one in drawn for time in (one.invoked_ns, _end(one)) if time is not None}
        | {one.invoked_ns for one in drawn}
    )
    place = _places(moments, drawn)
    last = max(place.values(), default=0.0)
    # Whatever is open goes on beyond everything that is known.
    edge = max([last, *(place[one.invoked_ns] + _need(one) for one in drawn if _end(one) is None)]) + 2 * STEP
    bars: list[Bar] = []
    for one in drawn:
        end = _end(one)
        bars.append(
            Bar(
                one,
                processes.index(one.process),
                place[one.invoked_ns],
                edge if end is None else place[end],
                end is None,
                describe(one),
                when(one),
            )
        )
    return Layout(
        tuple(titles[process] for process in processes), tuple(bars), edge, len(ordered) - len(drawn)
    )


def _title(operations: Sequence[Operation]) -> str:
    entries = ", ".join(dict.fromkeys(operation.entry for operation in operations))
    return f"client {operations[0].process} at {entries}"


def _end(operation: Operation) -> int | None:
    return None if operation.outcome is Fate.UNKNOWN else operation.returned_ns


def _need(operation: Operation) -> float:
    characters = max(len(describe(operation)), len(when(operation)))
    return characters * CHARACTER * LABEL_PX + 2 * PADDING


def _places(moments: Sequence[int], operations: Sequence[Operation]) -> dict[int, float]:
    """Left to right, each moment as far left as the labels of what ends there allow."""
    place: dict[int, float] = {}
    at = -STEP
    for moment in moments:
        at += STEP
        for one in operations:
            if _end(one) == moment and one.invoked_ns in place:
                at = max(at, place[one.invoked_ns] + _need(one))
        # A client's next bar must not touch its last one: both moments are one apart at least by STEP.
        place[moment] = at
    return place
