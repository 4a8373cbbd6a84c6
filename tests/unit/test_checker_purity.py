"""The checker decides from its arguments alone: no clock, no I/O, no randomness, no threads."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "evaluation"
SOURCES = sorted((ROOT / "checking").glob("*.py"))
HARMLESS = {"__future__", "bisect", "collections", "dataclasses", "enum", "itertools", "math", "typing"}
OWN = ("evaluation.checking", "evaluation.history", "evaluation.quantiles", "evaluation.record")


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_it_imports_and_calls_nothing_impure(source: Path) -> None:
    tree = ast.parse(source.read_text(encoding="utf-8"))
    modules = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        )
    }
    strangers = {
        name for name in modules if name.partition(".")[0] not in HARMLESS and not name.startswith(OWN)
    }
    assert strangers == set()
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert names & {"open", "print", "input", "exec", "eval", "hash"} == set()
