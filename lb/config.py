"""Settings of the balancer: TOML file, environment `CHROMA_CLUSTER_LB_*`, flags; the later overrides."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from wire.addresses import is_loopback, split_address
from wire.secret import read_secret

MEBIBYTE = 1024 * 1024


class BalancerSettings(BaseSettings):
    """All that the balancer needs to know. A field's name is its TOML key and its variable's end."""

    model_config = SettingsConfigDict(
        env_prefix="CHROMA_CLUSTER_LB_", env_ignore_empty=True, extra="forbid", frozen=True
    )

    listen: str = Field("127.0.0.1:8000", description="address that clients connect to, HOST:PORT")
    nodes: Annotated[dict[str, str], NoDecode] = Field(
        description="the nodes, `ID=URL` separated by `,` (in TOML: a table)", min_length=1
    )
    cluster_id: str = Field(
        "", description="nodes that say they belong to another cluster are not used; empty: any"
    )
    consistency: Literal["linearizable", "session", "eventual"] = Field(
        "session", description="level of reads that come without X-Chroma-Consistency"
    )
    hold_ms: int = Field(
        10_000, ge=0, description="how long a request is held while no node can take it, e.g. in an election"
    )
    silence_ms: int = Field(
        1_000, ge=100, description="a node whose status stream says nothing for this long is ejected"
    )
    read_try_timeout_ms: int = Field(
        30_000, ge=10, description="how long one node may take over a read before another is asked"
    )
    write_try_timeout_ms: int = Field(
        45_000, ge=10, description="how long the leader may take over a small write; above the nodes' own"
    )
    connect_timeout_ms: int = Field(1_000, ge=10)
    drain_ms: int = Field(5_000, ge=0, description="at SIGTERM, how long requests under way may take to end")
    max_request_bytes: int = Field(40 * MEBIBYTE, ge=1024, description="Chroma's own limit is 40 MiB")
    max_buffered_bytes: int = Field(
        256 * MEBIBYTE, ge=MEBIBYTE, description="bound on all bodies held at one time; above it 429"
    )
    max_in_flight: int = Field(4_096, ge=1, description="bound on requests under way or held; above it 429")
    max_collections: int = Field(
        4_096, ge=1, description="collections whose session index is remembered one by one"
    )
    secret: SecretStr | None = Field(
        None, description="cluster secret, the nodes': they tell their status and read index to nobody else"
    )
    secret_file: Path | None = Field(None, description="file that holds the cluster secret")
    allow_insecure_listen: bool = Field(
        False, description="listen beyond loopback although there is no TLS and no authentication"
    )

    @classmethod
    def load(cls, config: Path | None = None, **flags: Any) -> BalancerSettings:
        """Settings from the TOML file `config`, the environment and `flags` (None values are left out)."""
        given = {name: value for name, value in flags.items() if value is not None}
        return cls(**TomlConfigSettingsSource(cls, config)() | EnvSettingsSource(cls)() | given)

    @property
    def secret_bytes(self) -> bytes:
        """The cluster secret, as its nodes find it: one node alone may have none but the cluster's id.

        Raises:
            ValueError: the file is empty.
            OSError: the file cannot be read.
        """
        given = None if self.secret is None else self.secret.get_secret_value()
        return read_secret(given, self.secret_file, self.cluster_id)

    @field_validator("nodes", mode="before")
    @classmethod
    def _parse_nodes(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            pairs = list(cast("Mapping[str, Any]", value).items())
        else:
            items = value.split(",") if isinstance(value, str) else cast("list[Any]", value)
            pairs = [parse_node(str(item)) for item in items if str(item).strip()]
        nodes = {name: _url(str(url)) for name, url in pairs}
        if len(nodes) != len(pairs):
            raise ValueError("two nodes have the same id")
        return nodes

    @model_validator(mode="after")
    def _consistent(self) -> BalancerSettings:
        if self.secret is None and self.secret_file is None and (len(self.nodes) > 1 or not self.cluster_id):
            raise ValueError(
                "the balancer needs the cluster secret, which the nodes have: set `secret` or `secret_file` "
                "(for one node alone that has none, `cluster_id`)"
            )
        host, _ = split_address(self.listen)
        if not self.allow_insecure_listen and not is_loopback(host):
            raise ValueError(
                f"`listen` is {self.listen}, beyond loopback, and this version has no TLS and no "
                "authentication; set allow_insecure_listen=true if the network is closed to others"
            )
        return self


def parse_node(text: str) -> tuple[str, str]:
    """`ID=URL` as (id, URL).

    Raises:
        ValueError: with the form that is expected.
    """
    name, _, url = text.strip().partition("=")
    if not name.strip() or not url.strip():
        raise ValueError(f"expected a node as ID=URL, for example node-1=http://127.0.0.1:8001, got {text!r}")
    return name.strip(), url.strip()


def _url(text: str) -> str:
    url = (text if "://" in text else f"http://{text}").rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"expected the URL of a node to be http or https, got {text!r}")
    return url
