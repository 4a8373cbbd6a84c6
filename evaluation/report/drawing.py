"""A counter-example as SVG: one lane a client, one bar a request, open bars where no answer came."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from evaluation.history import Fate
from evaluation.report import style
from evaluation.report.lanes import LABEL_PX, PADDING, Bar, Layout

if TYPE_CHECKING:
    from collections.abc import Sequence

LANE_PX = 62
BAR_PX = 40
TOP_PX = 8
FOOT_PX = 26

_FILL = {True: "#d6e6f2", False: "#f4f6f8"}


def to_svg(layout: Layout) -> str:
    """Self-contained, readable without the page; all text escaped."""
    titles = max((len(lane.title) for lane in layout.lanes), default=0)
    left = titles * 7.2 + 20
    note = "time runs to the right; order and overlap are exact, lengths are not to scale"
    if layout.omitted:
        note += f"; {layout.omitted} requests in the middle are left out"
    width = left + max(layout.width, len(note) * 6.8) + 24
    height = TOP_PX + LANE_PX * len(layout.lanes) + FOOT_PX
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" '
        f'height="{height}" font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" role="img">',
        f'<rect width="{width:.0f}" height="{height}" fill="#ffffff"/>',
    ]
    for number, lane in enumerate(layout.lanes):
        middle = TOP_PX + LANE_PX * number + LANE_PX / 2
        parts.append(
            f'<line x1="{left:.0f}" x2="{width - 8:.0f}" y1="{middle}" y2="{middle}" stroke="{style.GRID}"/>'
            f'<text x="{left - 10:.0f}" y="{middle + 4}" font-size="12" text-anchor="end" '
            f'fill="{style.INK}">{escape(lane.title)}</text>'
        )
    parts += [_bar(bar, left) for bar in layout.bars]
    parts.append(
        f'<text x="{left:.0f}" y="{height - 8}" font-size="11" fill="{style.MUTED}">'
        f"{escape(note)}</text></svg>"
    )
    return "".join(parts)


def _bar(bar: Bar, offset: float) -> str:
    x, right = offset + bar.left, offset + bar.right
    y = TOP_PX + LANE_PX * bar.lane + (LANE_PX - BAR_PX) / 2
    operation = bar.operation
    fill = _FILL[operation.is_write]
    edge = {
        Fate.OK: style.WRITES if operation.is_write else style.MUTED,
        Fate.REFUSED: style.REFUSED,
        Fate.UNKNOWN: style.UNKNOWN,
    }[operation.outcome]
    if bar.open_ended:
        # No right edge: it may take effect at any later time.
        outline = f"M{right:.1f} {y}H{x:.1f}V{y + BAR_PX}H{right:.1f}"
        stroke = f'stroke="{edge}" stroke-width="1.6" stroke-dasharray="5 3"'
    else:
        outline = f"M{x:.1f} {y}H{right:.1f}V{y + BAR_PX}H{x:.1f}Z"
        stroke = f'stroke="{edge}" stroke-width="1.6"'
    hover = (
        f"operation {operation.id}, session {operation.session}, level {operation.level}, "
        f"{operation.outcome.value}, answered by {operation.node or 'nobody known'}"
    )
    weight = ' font-weight="bold"' if operation.is_write else ""
    return (
        f'<g><title>{escape(hover)}</title><path d="{outline}" fill="{fill}" {stroke}/>'
        f'<text x="{x + PADDING:.1f}" y="{y + 17}" font-size="{LABEL_PX}"{weight} fill="{style.INK}">'
        f"{escape(bar.label)}</text>"
        f'<text x="{x + PADDING:.1f}" y="{y + 33}" font-size="11" fill="{style.MUTED}">'
        f"{escape(bar.when)}</text></g>"
    )


def in_words(layout: Layout) -> Sequence[str]:
    """The same, read aloud: one sentence a request, in the order of their beginnings."""
    sentences: list[str] = []
    for bar in layout.bars:
        operation = bar.operation
        ended = "no answer is known"
        if operation.returned_ns is not None and not bar.open_ended:
            ended = f"answered at {operation.returned_ns / 1e9:.3f} s"
        sentences.append(
            f"{operation.invoked_ns / 1e9:.3f} s: client {operation.process} (session {operation.session}) "
            f"at {operation.entry}: {bar.label}; {ended}."
        )
    return sentences
