"""Commands that other packages add to `chroma-cluster`, found by their entry points.

A package names a function with typer's annotations for each command:

    [project.entry-points."chroma_cluster.commands"]
    judge = "package.module:function"

Its module is imported for `chroma-cluster --help` too, so it must be quick to import. A cluster's own
commands neither look for plug-ins nor depend on them.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

import typer
from typer.core import TyperGroup

from cluster.cli.messages import fail

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.metadata import EntryPoint

GROUP: Final = "chroma_cluster.commands"


class PluggableGroup(TyperGroup):
    """A group of commands that looks for plug-ins once one is needed: to list all, or for an unknown name."""

    _complete = False

    def list_commands(self, ctx: Any) -> list[str]:
        self._plug_in()
        return super().list_commands(ctx)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.commands:
            self._plug_in()
        return super().get_command(ctx, cmd_name)

    def _plug_in(self) -> None:
        if self._complete:
            return
        self._complete = True
        for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
            if entry.name not in self.commands:
                self.commands[entry.name] = command_of(entry)


def command_of(entry: EntryPoint) -> Any:
    """The command behind an entry point; of one that cannot be loaded, a command that says so."""
    one = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    try:
        one.command(entry.name)(entry.load())
    except (ImportError, AttributeError) as error:
        anything = {"allow_extra_args": True, "ignore_unknown_options": True}
        one.command(entry.name, context_settings=anything)(_unavailable(entry, error))
    return typer.main.get_command(one)


def _unavailable(entry: EntryPoint, error: Exception) -> Callable[[], None]:
    reason = f"{entry.value} cannot be loaded: {error}"

    def unavailable() -> None:
        fail(f"`{entry.name}` does not work: {reason}", code=2)

    unavailable.__doc__ = f"Does not work: {reason}"
    return unavailable
