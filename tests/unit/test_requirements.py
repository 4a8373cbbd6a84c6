"""The pinned files fit pyproject.toml, carry hashes, and name no server."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FILES = [
    "requirements.txt",
    "requirements-dev.txt",
    "requirements-tools.txt",
    "requirements-go.txt",
    "requirements-s3.txt",
    "requirements-patroni.txt",
]


def pins(name: str) -> dict[str, str]:
    """Package -> version that this Python gets from a file."""
    found: dict[str, str] = {}
    for line in (ROOT / name).read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            pin = Requirement(line.removesuffix("\\").strip())
            environment = {key: str(value) for key, value in default_environment().items()}
            if pin.marker is None or pin.marker.evaluate(environment):
                (version,) = pin.specifier
                assert version.operator == "=="
                found[pin.name] = version.version
    return found


def unmet(wanted: list[str], pinned: dict[str, str]) -> list[str]:
    """Requirements that the pins do not meet."""
    needs = [Requirement(text) for text in wanted]
    return [
        str(need)
        for need in needs
        if not need.specifier.contains(pinned.get(need.name.lower(), "0.dev0"), True)
    ]


def test_every_dependency_is_pinned_to_a_version_that_is_allowed() -> None:
    assert unmet(PROJECT["dependencies"], pins("requirements.txt")) == []
    assert unmet(PROJECT["optional-dependencies"]["dev"], pins("requirements-dev.txt")) == []


def test_tests_run_against_what_users_get() -> None:
    used, tested = pins("requirements.txt"), pins("requirements-dev.txt")
    assert {name: tested.get(name) for name in used} == used


@pytest.mark.parametrize("name", FILES)
def test_every_pin_has_hashes_and_no_server_is_named(name: str) -> None:
    text = (ROOT / name).read_text()
    blocks = re.split(r"\n(?=[a-z0-9])", text)
    assert all("--hash=sha256:" in block for block in blocks if "==" in block.split("\n")[0])
    assert "://" not in text
    assert "index-url" not in text
