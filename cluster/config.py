"""Settings of one node: TOML file, environment `CHROMA_CLUSTER_*`, flags; the later overrides."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from wire.addresses import is_loopback, split_address
from wire.secret import read_secret

if TYPE_CHECKING:
    from collections.abc import Mapping

MEBIBYTE = 1024 * 1024


class Peer(BaseModel):
    """Where another member is reached: `raft` is what this node dials (host:port), `http` its URL."""

    model_config = ConfigDict(frozen=True)

    raft: str
    http: str

    @field_validator("raft")
    @classmethod
    def _raft_has_port(cls, value: str) -> str:
        split_address(value)
        return value

    @field_validator("http")
    @classmethod
    def _http_is_url(cls, value: str) -> str:
        return value.rstrip("/") if "://" in value else f"http://{value}"


class NodeSettings(BaseSettings):
    """All that one node needs to know. Field names are the TOML keys and, upper-cased, the environment's."""

    model_config = SettingsConfigDict(
        env_prefix="CHROMA_CLUSTER_", env_ignore_empty=True, extra="ignore", frozen=True
    )

    node_id: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    cluster_id: str = Field(min_length=1, max_length=128)
    data_dir: Path
    http: str = Field("127.0.0.1:8001", description="address that this node's HTTP server listens on")
    raft: str = Field("127.0.0.1:9001", description="address that this node's raft transport listens on")
    advertise_http: str | None = Field(
        None, description="URL by which peers reach this node's HTTP, if not `http`"
    )
    advertise_raft: str | None = Field(
        None, description="address (HOST:PORT) at which peers dial this node's raft transport, if not `raft`"
    )
    join: str | None = Field(
        None,
        description="URLs of members of a running cluster, separated by `,`; one that is up is enough. "
        "This node is no founder of it, but was or will be added with `chroma-cluster members add`",
    )
    peers: Annotated[dict[str, Peer], NoDecode] = Field(
        default_factory=dict[str, Peer],
        description="the other members, `ID=RAFT_HOST:PORT,HTTP_URL` separated by `;` (in TOML: tables)",
    )
    secret: SecretStr | None = Field(None, description="cluster secret, the same on every node")
    secret_file: Path | None = Field(None, description="file that holds the cluster secret")

    raft_tls_cert: Path | None = Field(
        None, description="PEM certificate (chain) that this node shows its peers; with it raft links use TLS"
    )
    raft_tls_key: Path | None = Field(None, description="PEM private key of `raft_tls_cert`, unencrypted")
    raft_tls_ca: Path | None = Field(
        None, description="PEM certificate of the authority that signed every node's `raft_tls_cert`"
    )

    election_timeout_min_ms: int = Field(1000, ge=50)
    election_timeout_max_ms: int = Field(2000, ge=100)
    heartbeat_ms: int = Field(100, ge=5)
    journal_budget_bytes: int = Field(256 * MEBIBYTE, ge=MEBIBYTE)

    log_retention_bytes: int = Field(
        1024 * MEBIBYTE,
        ge=MEBIBYTE,
        description="entries beyond this, or the size of the newest snapshot if that is larger, are not kept "
        "for a member that is away; it is filled with a snapshot when it comes back",
    )
    auto_replace: bool = Field(
        True,
        description="a member that comes back with an empty or an old data directory votes again as soon as "
        "it holds everything; if not, `chroma-cluster members admit` has to be said first",
    )
    snapshot_bytes_per_s: int = Field(
        0, ge=0, description="bytes a second that this node sends of its snapshots, 0: no limit"
    )

    max_request_bytes: int = Field(40 * MEBIBYTE, ge=1024, description="Chroma's own limit is 40 MiB")
    queue_bytes: int = Field(128 * MEBIBYTE, ge=MEBIBYTE, description="bound on writes that wait for the log")
    write_timeout_ms: int = Field(
        30_000,
        ge=100,
        description="after it a small write is answered 'outcome unknown'; large ones have more",
    )
    read_timeout_ms: int = Field(
        5_000, ge=50, description="how long a read waits for the index it must see before 503"
    )
    ready_lag_ms: int = Field(
        10_000, ge=100, description="a node that applies later what the leader has committed is not `ready`"
    )
    poison_wait_ms: int = Field(
        10_000,
        ge=500,
        description="how long a member out of reach is waited for before the others refuse a write on which "
        "all their engines fail; that member may have applied it",
    )
    disk_reserve_bytes: int | None = Field(
        None,
        ge=0,
        description="with less free on any member's disk, writes that need room are refused "
        "(default: 5 % of the disk, 1 GiB at most)",
    )
    read_threads: int = Field(8, ge=1, le=256)
    engine_hang_ms: int = Field(
        4_000,
        ge=500,
        description="a Chroma process that does nothing for so long, but has work, is killed",
    )
    engine_read_limit_ms: int = Field(
        25_000, ge=1_000, description="a read that takes longer is ended, with the Chroma process it is in"
    )
    verify_interval_s: int = Field(
        86_400,
        ge=0,
        description="how often the leader has all nodes compare what they have, by the time that a leader "
        "runs; 0: only when asked to",
    )
    verify_records_per_s: int = Field(
        2_000, ge=1, description="how many records a node reads in a second when it is verified"
    )
    auto_repair: bool = Field(
        False,
        description="a node that a verification found to differ fills itself from one that is right, at most "
        "three times a day",
    )
    command_level_limit: int | None = Field(
        None,
        ge=1,
        description="the cluster is not raised above this command level while this node has the setting; for "
        "an upgrade that can still be taken back",
    )
    allow_reset: bool = False
    allow_mixed_versions: bool = Field(
        False, description="serve reads although the leader's chromadb is of another version; for an upgrade"
    )
    allow_direct_clients: bool = Field(
        False,
        description="take Chroma's reads and writes at this node's own port from everybody who reaches it, "
        "not only from members and balancers, who prove the cluster's secret",
    )
    allow_insecure_listen: bool = Field(
        False, description="listen beyond loopback although there is no TLS and no authentication"
    )
    embedding_functions: Annotated[list[str], NoDecode] = Field(
        default_factory=list[str],
        description="further chromadb embedding functions that the leader may build, by name",
    )
    embedding_module: str | None = Field(
        None, description="`package.module:factory` of the operator's own default embedding function"
    )

    @classmethod
    def load(cls, config: Path | None = None, **flags: Any) -> NodeSettings:
        """Settings from the TOML file `config`, the environment and `flags` (None values are left out)."""
        return cls(**cls.merged(config, flags))

    @classmethod
    def merged(cls, config: Path | None, flags: Mapping[str, Any]) -> dict[str, Any]:
        """The values that are given, not checked yet; see `load`."""
        given = {name: value for name, value in flags.items() if value is not None}
        return TomlConfigSettingsSource(cls, config)() | EnvSettingsSource(cls)() | given

    @field_validator("peers", mode="before")
    @classmethod
    def _parse_peers(cls, value: Any) -> Any:
        items = value.split(";") if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            return items
        return dict(parse_peer(str(item)) for item in items if str(item).strip())  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]

    @field_validator("embedding_functions", mode="before")
    @classmethod
    def _parse_names(cls, value: Any) -> Any:
        return (
            [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value
        )

    @field_validator("http", "raft", "advertise_raft")
    @classmethod
    def _address_has_port(cls, value: str | None, info: ValidationInfo) -> str | None:
        del info
        if value is not None:
            split_address(value)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> NodeSettings:
        if self.node_id in self.peers:
            raise ValueError(f"`peers` lists the others only, but it has this node itself, {self.node_id}")
        if self.election_timeout_max_ms <= self.election_timeout_min_ms:
            raise ValueError(
                "election_timeout_max_ms must be above election_timeout_min_ms "
                f"({self.election_timeout_max_ms} <= {self.election_timeout_min_ms})"
            )
        if self.heartbeat_ms * 3 > self.election_timeout_min_ms:
            raise ValueError(
                "election_timeout_min_ms must be at least three heartbeats, or jitter elects leaders "
                f"({self.election_timeout_min_ms} < 3 x {self.heartbeat_ms})"
            )
        if not self.has_secret and self.peers:
            raise ValueError("a node with peers needs the cluster secret: set `secret` or `secret_file`")
        tls = {name: getattr(self, name) for name in ("raft_tls_cert", "raft_tls_key", "raft_tls_ca")}
        missing = [name for name, path in tls.items() if path is None]
        if 0 < len(missing) < len(tls):
            raise ValueError(
                f"TLS between nodes needs raft_tls_cert, raft_tls_key and raft_tls_ca, all or none; "
                f"missing: {', '.join(missing)}"
            )
        if not self.has_secret:
            # Nobody can prove to be a member: only who is on this machine may ask.
            for name, address in (("http", self.http), ("raft", self.raft)):
                if not is_loopback(split_address(address)[0]):
                    raise ValueError(
                        f"`{name}` would listen on {address}, beyond loopback, and there is no cluster "
                        "secret by which to tell who may ask: set `secret` or `secret_file`"
                    )
        if not self.allow_insecure_listen:
            require_loopback(self.http, "http")
            if missing:
                require_loopback(self.raft, "raft")
        return self

    @property
    def has_secret(self) -> bool:
        return self.secret is not None or self.secret_file is not None

    @property
    def admits_strangers(self) -> bool:
        """Whether Chroma's routes are for everybody who reaches `http`; so they are without any secret."""
        return self.allow_direct_clients or not self.has_secret

    @property
    def advertised_raft(self) -> str:
        """Where the others dial this node's log."""
        return self.advertise_raft or self.raft

    @property
    def raft_tls_files(self) -> tuple[Path, Path, Path] | None:
        """Certificate, key and authority of the raft links, or None for links without TLS."""
        if self.raft_tls_cert is None or self.raft_tls_key is None or self.raft_tls_ca is None:
            return None
        return self.raft_tls_cert, self.raft_tls_key, self.raft_tls_ca

    @property
    def secret_bytes(self) -> bytes:
        """The cluster secret from `secret` or `secret_file`.

        Raises:
            ValueError: the file is empty.
        """
        given = None if self.secret is None else self.secret.get_secret_value()
        return read_secret(given, self.secret_file, self.cluster_id)


def parse_peer(text: str) -> tuple[str, Peer]:
    """`ID=RAFT_HOST:PORT,HTTP_URL` as (id, Peer).

    Raises:
        ValueError: with the form that is expected.
    """
    name, _, addresses = text.strip().partition("=")
    raft, _, http = addresses.partition(",")
    if not name or not raft or not http:
        raise ValueError(f"expected a peer as ID=RAFT_HOST:PORT,HTTP_URL, got {text!r}")
    return name.strip(), Peer(raft=raft.strip(), http=http.strip())


def require_loopback(address: str, name: str) -> None:
    """Refuse an address that others could reach.

    Raises:
        ValueError: the address is beyond loopback.
    """
    host, _ = split_address(address)
    if not is_loopback(host):
        raise ValueError(
            f"`{name}` would listen on {host}, beyond loopback, without TLS and authentication; "
            "set allow_insecure_listen=true if the network is closed to others"
        )
