"""`chroma-cluster node` and `lb`: settings from a file, the environment and flags, then one process."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any, Final, Protocol

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
    from cluster.config import NodeSettings

    _run("node", "Run one node in this process.", NodeSettings, NODE_FLAGS, serve_node, arguments)


def serve_node(settings: NodeSettings) -> int:
    """Run one node until it is told to stop; its exit code."""
    from cluster.server import run_node

    return run_node(settings)


def balancer_command(arguments: list[str]) -> None:
    """Run one balancer as the arguments of `chroma-cluster lb` say; raises SystemExit with its exit code."""
    from lb.config import BalancerSettings

    _run(
        "lb", "Run one balancer in this process.", BalancerSettings, BALANCER_FLAGS, serve_balancer, arguments
    )


def serve_balancer(settings: BalancerSettings) -> int:
    """Run one balancer until it is told to stop; its exit code."""
    import logging

    from lb.server import run_balancer

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    return run_balancer(settings)


class _Loadable(Protocol):
    """A settings model of this project: `load` merges file, environment and flags."""

    @classmethod
    def load(cls, config: Path | None = None, **flags: Any) -> Any: ...


def _run(
    name: str,
    summary: str,
    model: Any,
    names: Mapping[str, tuple[str, ...]],
    serve: Callable[[Any], int],
    arguments: list[str],
) -> None:
    settings_model: type[BaseSettings] = model
    prefix = str(settings_model.model_config.get("env_prefix", ""))

    def run(config: Path | None, given: dict[str, Any]) -> int:
        settings = _load(name, model, settings_model, names, prefix, config, given)
        return serve(settings)

    app = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # plain: rich cuts long flags off
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    help_text = (
        f"{summary}\n\nEach setting can be given in a TOML file (its name as key), in the environment "
        f"({prefix} and its name in capitals) or as a flag; the later overrides."
    )
    app.command(name, help=help_text)(flags.settings_command(settings_model, names=names, run=run))
    app(arguments, prog_name=f"chroma-cluster {name}")


def _load(
    name: str,
    loader: type[_Loadable],
    model: type[BaseSettings],
    names: Mapping[str, tuple[str, ...]],
    prefix: str,
    config: Path | None,
    given: dict[str, Any],
) -> Any:
    """The settings, or SystemExit(2) after saying what is wrong with them."""
    try:
        if config is not None and (unknown := flags.unknown_keys(model, config)):
            fail(
                f"{name}: {config} has settings that do not exist: {', '.join(unknown)}. Not started.", code=2
            )
        return loader.load(config, **given)
    except ValidationError as error:
        fail(f"{name}: not started, its settings are wrong:\n{flags.explain(error, names, prefix)}", code=2)
    except tomllib.TOMLDecodeError as error:
        fail(f"{name}: not started, {config} is not TOML: {error}", code=2)
    except OSError as error:
        fail(f"{name}: not started, {config} cannot be read: {error.strerror}", code=2)
