# pyright: reportUnknownMemberType=false
# matplotlib leaves most keyword arguments untyped.
"""One look for all figures: colours that colour-blind readers can tell apart, small sizes, no decoration."""

from __future__ import annotations

import io
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Generator

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# After Okabe and Ito; darkened where a colour also carries text.
WRITES = "#0f5c8e"
READS = "#7fb8dd"
REFUSED = "#e69f00"
UNKNOWN = "#b5179e"
LEADER = "#4a5463"
FAULT = "#f3e3c3"
STRIKING = "#fbf4e6"
FINAL = "#e8ecef"
INK = "#1d2430"
MUTED = "#5d6878"
GRID = "#dfe3e8"

#: Curves, in this order, each also with a dash pattern of its own.
LINES = ("#0f5c8e", "#d55e00", "#009e73", "#b5179e", "#e69f00", "#56b4e9", "#5b4a3f", "#000000")
DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), "-", (0, (3, 1)), (0, (8, 2)), "--")

_SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    # Glyphs as outlines: the same look where the font is missing. Fixed salt: the same bytes each time.
    "svg.fonttype": "path",
    "svg.hashsalt": "chroma-cluster",
}


@contextmanager
def styled() -> Generator[None]:
    with mpl.rc_context(_SETTINGS):
        yield


def to_svg(figure: Figure) -> str:
    """The `<svg>` element alone, without prologue, metadata and dates."""
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(r"\n\s*", "\n", text)


def to_png(figure: Figure, dpi: int = 150) -> bytes:
    """Few colours, so that hundreds of timelines fit in one page."""
    raw, packed = io.BytesIO(), io.BytesIO()
    figure.savefig(raw, format="png", dpi=dpi)
    with Image.open(raw) as image:
        image.convert("RGB").quantize(160, dither=Image.Dither.NONE).save(packed, "png", optimize=True)
    return packed.getvalue()


def shade(axes: Axes, begin_s: float, end_s: float, colour: str) -> None:
    if end_s > begin_s:
        axes.axvspan(begin_s, end_s, color=colour, linewidth=0, zorder=0)
