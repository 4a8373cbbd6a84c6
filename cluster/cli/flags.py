"""Every setting of a settings model as a command-line flag, from the model alone."""

from __future__ import annotations

import inspect
import tomllib
import types
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import SecretStr, ValidationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic.fields import FieldInfo
    from pydantic_settings import BaseSettings


def settings_command(
    model: type[BaseSettings],
    *,
    names: Mapping[str, tuple[str, ...]],
    run: Callable[[Path | None, dict[str, Any]], int],
) -> Callable[..., None]:
    """A function for `typer.Typer.command` with one option for each field of `model`, and `--config`.

    `names` gives the flags of a field where they are not just its name. `run` gets the config file and the
    settings that were given as flags, and its result is the exit code.
    """

    def command(**values: Any) -> None:
        config = values.pop("config")
        given = {name: value for name, value in values.items() if value is not None and value != []}
        raise typer.Exit(run(config, given))

    config = Annotated[
        Path | None,
        typer.Option("--config", "-c", exists=True, dir_okay=False, help="TOML file with settings."),
    ]
    parameters = [
        inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=config)
    ]
    for name, field in model.model_fields.items():
        flags = names.get(name) or ("--" + name.replace("_", "-"),)
        parameters.append(_parameter(name, flags, field))
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {}
    return command


def _parameter(name: str, flags: tuple[str, ...], field: FieldInfo) -> inspect.Parameter:
    kind = kind_of(field.annotation)
    help_text = field.description or name.replace("_", " ").capitalize()
    if default := _default_text(field):
        help_text = f"{help_text} ({default})"
    if kind == "flag":
        option = typer.Option(
            f"{flags[0]}/--no-{flags[0].removeprefix('--')}", help=help_text, show_default=False
        )
        annotation: Any = Annotated[bool | None, option]
    else:
        metavar = {"list": "ITEM", "number": "NUMBER", "path": "PATH", "text": "TEXT"}[kind]
        if kind == "list":
            help_text = f"{help_text} (may be given again and again)"
        option = typer.Option(*flags, help=help_text, metavar=metavar, show_default=False)
        # Texts, whatever the field's type: the model parses and judges them, as it does the environment's.
        annotation = Annotated[(list[str] if kind == "list" else str) | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def kind_of(annotation: Any) -> Literal["flag", "list", "number", "path", "text"]:
    """Which kind of option a field of this type is; of a union, the first member that is not None."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return kind_of(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return kind_of(next(part for part in typing.get_args(annotation) if part is not type(None)))
    if origin in (list, dict, tuple, set, frozenset) or annotation in (list, dict, tuple, set, frozenset):
        return "list"
    if annotation is bool:
        return "flag"
    if annotation in (int, float):
        return "number"
    return "path" if annotation is Path else "text"


def _default_text(field: FieldInfo) -> str | None:
    default = field.default
    if field.is_required() or default is None or field.default_factory is not None:
        return "required" if field.is_required() else None
    if isinstance(default, bool):
        return f"default: {'yes' if default else 'no'}"
    return None if isinstance(default, SecretStr) else f"default: {default}"


def unknown_keys(model: type[BaseSettings], config: Path) -> list[str]:
    """Keys of a TOML file that `model` does not have: most likely typing errors, so they are refused.

    Raises:
        tomllib.TOMLDecodeError: the file is not TOML.
    """
    with config.open("rb") as file:
        return [key for key in tomllib.load(file) if key not in model.model_fields]


def explain(error: ValidationError, names: Mapping[str, tuple[str, ...]], prefix: str) -> str:
    """A pydantic error as lines that name the setting in all three ways in which it can be given."""
    lines: list[str] = []
    for problem in error.errors():
        message = problem["msg"].removeprefix("Value error, ")
        if not problem["loc"]:
            lines.append(message)
            continue
        name = str(problem["loc"][0])
        flag = names.get(name, ("--" + name.replace("_", "-"),))[0]
        where = ".".join(str(part) for part in problem["loc"])
        lines.append(f"{where}: {message} (flag {flag}, environment {prefix}{name.upper()}, TOML key {name})")
    return "\n".join(lines)
