"""The report, from saved runs: one HTML file without external assets, and a JSON summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["build"]


def build(folder: Path, out: Path, progress: Callable[[str], None] = lambda _: None) -> Path:
    """Write the page to `out` and its numbers beside it with suffix `.json`; returns the page.

    `out` ends in .html, or is a folder for `index.html`.

    Raises:
        FileNotFoundError: there is no such folder. Nothing was written.
    """
    # The judge imports from this package too, and must not wait for matplotlib.
    from evaluation.report.page import render
    from evaluation.report.runs import load
    from evaluation.report.summary import summary

    evaluation = load(folder)
    page = render(evaluation, progress)
    if out.suffix != ".html":
        out = out / "index.html"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    out.with_suffix(".json").write_bytes(orjson.dumps(summary(evaluation), option=orjson.OPT_INDENT_2))
    return out
