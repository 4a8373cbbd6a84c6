"""A settings model becomes flags, and what is wrong with a setting is told by all names that it has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from typer.testing import CliRunner

from cluster.cli.flags import explain, kind_of, settings_command, unknown_keys

NAMES = {"peers": ("--peer", "--peers")}


class Example(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="EXAMPLE_")

    name: str = Field(description="who it is")
    port: int = Field(80, ge=1)
    folder: Path | None = None
    secret: SecretStr | None = None
    open_door: bool = False
    peers: Annotated[list[str], NoDecode] = Field(default_factory=list[str])

    @field_validator("name")
    @classmethod
    def _not_bob(cls, value: str) -> str:
        if value == "bob":
            raise ValueError("bob is not welcome")
        return value

    @model_validator(mode="after")
    def _port_fits(self) -> Example:
        if self.name == "root" and self.port != 1:
            raise ValueError("root needs port 1")
        return self


def invoke(*arguments: str) -> tuple[int, dict[str, Any], Path | None, str]:
    got: dict[str, Any] = {}
    file: list[Path | None] = [None]

    def run(config: Path | None, given: dict[str, Any]) -> int:
        got.update(given)
        file[0] = config
        return 7

    app = typer.Typer(rich_markup_mode=None)
    app.command()(settings_command(Example, names=NAMES, run=run))
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, got, file[0], result.output


def test_only_what_was_given_is_passed_on_and_the_result_is_the_exit_code() -> None:
    code, got, config, _ = invoke("--name", "ann", "--peer", "a", "--peers", "b", "--open-door")
    assert (code, config) == (7, None)
    assert got == {"name": "ann", "peers": ["a", "b"], "open_door": True}
    assert invoke()[1] == {}
    assert invoke("--no-open-door")[1] == {"open_door": False}


def test_values_are_passed_on_as_texts_for_the_model_to_judge() -> None:
    assert invoke("--port", "many")[1] == {"port": "many"}


def test_the_config_file_must_exist(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text("")
    assert invoke("--config", str(file))[2] == file
    assert invoke("--config", str(tmp_path / "none.toml"))[0] == 2


def test_help_lists_every_setting_with_its_default() -> None:
    text = " ".join(invoke("--help")[3].split())
    assert "--name TEXT who it is (required)" in text
    assert "--port NUMBER Port (default: 80)" in text
    assert "--folder PATH" in text
    assert "--open-door / --no-open-door Open door (default: no)" in text
    assert "--peer, --peers ITEM" in text


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        (str, "text"),
        (str | None, "text"),
        (SecretStr | None, "text"),
        (int, "number"),
        (float | None, "number"),
        (bool, "flag"),
        (Path | None, "path"),
        (list[str], "list"),
        (dict[str, str], "list"),
        (Annotated[dict[str, str], NoDecode], "list"),
    ],
)
def test_kinds_of_options(annotation: Any, kind: str) -> None:
    assert kind_of(annotation) == kind


def test_a_wrong_setting_is_told_by_all_its_names() -> None:
    with pytest.raises(ValidationError) as caught:
        Example(name="bob", peers=3)  # type: ignore[arg-type]
    assert explain(caught.value, NAMES, "EXAMPLE_").splitlines() == [
        "name: bob is not welcome (flag --name, environment EXAMPLE_NAME, TOML key name)",
        "peers: Input should be a valid list (flag --peer, environment EXAMPLE_PEERS, TOML key peers)",
    ]


def test_settings_that_do_not_fit_together_are_told_as_they_are() -> None:
    with pytest.raises(ValidationError) as caught:
        Example(name="root")
    assert explain(caught.value, NAMES, "EXAMPLE_") == "root needs port 1"


def test_keys_that_the_model_does_not_have_are_found(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('name = "ann"\nprot = 80\n[peers]\na = "b"\n')
    assert unknown_keys(Example, file) == ["prot"]
