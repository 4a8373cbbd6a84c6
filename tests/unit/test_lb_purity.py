"""The balancer's decisions know no loop, socket, clock or randomness, and import no shell."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import lb

PURE = ("routes", "ring", "guarantees", "retry", "budget", "view")
ALLOWED = {
    "__future__",
    "collections",
    "collections.abc",
    "dataclasses",
    "enum",
    "typing",
    "urllib.parse",
    "uuid",
    *(f"lb.{name}" for name in PURE),
}


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_import_no_io(name: str) -> None:
    tree = ast.parse((Path(lb.__file__).parent / f"{name}.py").read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= ALLOWED
