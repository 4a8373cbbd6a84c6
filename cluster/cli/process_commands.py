"""`chroma-cluster node` and `lb`: settings from a file, the environment and flags, then one process."""

from __future__ import annotations

import sys
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import typer
from pydantic import ValidationError

from cluster.cli import flags
from cluster.cli.messages import fail

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pydantic_settings import BaseSettings

    from cluster.config import NodeSettings
    from lb.config import BalancerSettings

NODE_FLAGS: Final[Mapping[str, tuple[str, ...]]] = {
    "node_id": ("--id", "--node-id"),
    "peers": ("--peer", "--peers"),
    "embedding_functions": ("--embedding-function", "--embedding-functions"),
}
BALANCER_FLAGS: Final[Mapping[str, tuple[str, ...]]] = {"nodes": ("--node", "--nodes")}


def node_command(arguments: list[str]) -> None:
    """Run one node as the arguments of `chroma-cluster node` say; raises SystemExit with its exit code."""
    from cluster.cli import joining
    from cluster.config import NodeSettings

    command = _ProcessCommand(
        name="node",
        summary="Run one node in this process.",
        model=NodeSettings,
        load=joining.load,
        flags=NODE_FLAGS,
        serve=serve_node,
    )
    command.call(arguments)


def serve_node(settings: NodeSettings) -> int:
    """Run one node until it is told to stop; its exit code."""
    from cluster.server import run_node

    return run_node(settings) if _has_descriptors("node") else 1


def balancer_command(arguments: list[str]) -> None:
    """Run one balancer as the arguments of `chroma-cluster lb` say; raises SystemExit with its exit code."""
    from lb.config import BalancerSettings

    command = _ProcessCommand(
        name="lb",
        summary="Run one balancer in this process.",
        model=BalancerSettings,
        load=BalancerSettings.load,
        flags=BALANCER_FLAGS,
        serve=serve_balancer,
    )
    command.call(arguments)


def serve_balancer(settings: BalancerSettings) -> int:
    """Run one balancer until it is told to stop; its exit code."""
    import logging

    from lb.server import run_balancer

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    return run_balancer(settings) if _has_descriptors("lb") else 1


def _has_descriptors(name: str) -> bool:
    """Raise the limit on open files; False, and said so, if it is too low all the same."""
    from cluster.descriptors import raise_limit

    try:
        raise_limit()
    except ValueError as error:
        print(f"chroma-cluster {name} cannot run: {error}", file=sys.stderr)
        return False
    return True


@dataclass(frozen=True, slots=True)
class _ProcessCommand:
    """A command that runs one process: `load` gets its settings, `serve` runs it with them."""

    name: str
    summary: str
    model: type[BaseSettings]
    load: Callable[..., Any]
    flags: Mapping[str, tuple[str, ...]]
    serve: Callable[[Any], int]

    @property
    def prefix(self) -> str:
        """How the settings' names begin in the environment."""
        return str(self.model.model_config.get("env_prefix", ""))

    def call(self, arguments: list[str]) -> None:
        """Parse the arguments and run; raises SystemExit with the exit code."""
        app = typer.Typer(
            add_completion=False,
            pretty_exceptions_enable=False,
            rich_markup_mode=None,  # plain: rich cuts long flags off
            context_settings={"help_option_names": ["-h", "--help"]},
        )
        help_text = (
            f"{self.summary}\n\nEach setting can be given in a TOML file (its name as key), in the "
            f"environment ({self.prefix} and its name in capitals) or as a flag; the later overrides."
        )
        command = flags.settings_command(self.model, names=self.flags, run=self._run)
        app.command(self.name, help=help_text)(command)
        app(arguments, prog_name=f"chroma-cluster {self.name}")

    def _run(self, config: Path | None, given: dict[str, Any]) -> int:
        return self.serve(self._settings(config, given))

    def _settings(self, config: Path | None, given: dict[str, Any]) -> Any:
        """The settings, or SystemExit(2) after saying what is wrong with them."""
        name = self.name
        try:
            if config is not None and (unknown := flags.unknown_keys(self.model, config)):
                fail(
                    f"{name}: {config} has settings that do not exist: {', '.join(unknown)}. Not started.",
                    code=2,
                )
            return self.load(config, **given)
        except ValidationError as error:
            reasons = flags.explain(error, self.flags, self.prefix)
            fail(f"{name}: not started, its settings are wrong:\n{reasons}", code=2)
        except tomllib.TOMLDecodeError as error:
            fail(f"{name}: not started, {config} is not TOML: {error}", code=2)
        except OSError as error:
            fail(f"{name}: not started, {config} cannot be read: {error.strerror}", code=2)
