"""Commands of other packages: found when they are named or listed, and no trouble for the others."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import pytest
import typer

from cluster.cli import plugins
from cluster.cli.plugins import GROUP, PluggableGroup

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer(cls=PluggableGroup, pretty_exceptions_enable=False, add_completion=False)

    @made.command()
    def own() -> None:
        """One's own."""

    @made.command()
    def second() -> None:
        """Another of one's own."""

    return made


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Offer entry points, name -> where; the list has an item for each time that they are looked for."""
    looks: list[str] = []

    def offer(**entries: str) -> list[str]:
        def entry_points(*, group: str) -> list[EntryPoint]:
            looks.append(group)
            return [EntryPoint(name, value, group) for name, value in entries.items()]

        monkeypatch.setattr(plugins, "entry_points", entry_points)
        return looks

    module = ModuleType("a_plugin")

    def greet(who: Annotated[str, typer.Argument()], times: int = 1) -> None:
        """Say hello."""
        print(", ".join([f"hello {who}"] * times))

    module.greet = greet  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "a_plugin", module)
    return offer


def run(app: typer.Typer, *arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        app(arguments, prog_name="x")
    return int(caught.value.code or 0)


def test_a_plugged_in_command_is_called_and_listed(
    app: typer.Typer, plug: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    looks = plug(greet="a_plugin:greet")
    assert run(app, "greet", "you", "--times", "2") == 0
    assert capsys.readouterr().out == "hello you, hello you\n"
    assert run(app, "--help") == 0
    assert "Say hello." in capsys.readouterr().out
    assert run(app, "greet", "you", "and", "me") == 2
    assert set(looks) == {GROUP}


def test_an_own_command_looks_for_no_plugin(app: typer.Typer, plug: Callable[..., list[str]]) -> None:
    looks = plug(greet="a_plugin:greet")
    assert run(app, "own") == 0
    assert looks == []


def test_a_plugin_takes_no_name_of_an_own_command(
    app: typer.Typer, plug: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    plug(own="a_plugin:greet")
    assert run(app, "--help") == 0
    said = capsys.readouterr().out
    assert "One's own." in said
    assert "Say hello." not in said


def test_an_unknown_command_is_refused(
    app: typer.Typer, plug: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    plug(greet="a_plugin:greet")
    assert run(app, "gret") == 2
    assert "greet" in capsys.readouterr().err  # what may have been meant


@pytest.mark.parametrize("where", ["no_such_module:greet", "a_plugin:nothing"])
def test_a_broken_plugin_says_so_and_leaves_the_others_alone(
    where: str, app: typer.Typer, plug: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    plug(broken=where, greet="a_plugin:greet")
    assert run(app, "--help") == 0
    assert "cannot be loaded" in capsys.readouterr().out
    assert run(app, "broken", "with", "--arguments") == 2
    assert f"`broken` does not work: {where} cannot be loaded" in capsys.readouterr().err
    assert run(app, "greet", "you") == 0
