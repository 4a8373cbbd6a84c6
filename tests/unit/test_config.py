"""Settings of a node: who may reach it, and what that asks for."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from cluster.config import NodeSettings


def settings(**values: Any) -> NodeSettings:
    return NodeSettings(node_id="n", cluster_id="c", data_dir="d", **values)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SECRET", "SECRET_FILE", "ALLOW_DIRECT_CLIENTS", "ALLOW_INSECURE_LISTEN"):
        monkeypatch.delenv(f"CHROMA_CLUSTER_{name}", raising=False)


@pytest.mark.parametrize(
    ("given", "admits"),
    [
        ({}, True),
        ({"secret": "s"}, False),
        ({"secret_file": "f"}, False),
        ({"secret": "s", "allow_direct_clients": True}, True),
    ],
)
def test_chromas_routes_are_for_members_wherever_anybody_can_be_one(
    given: dict[str, Any], admits: bool
) -> None:
    assert settings(**given).admits_strangers is admits


@pytest.mark.parametrize("name", ["http", "raft"])
@pytest.mark.parametrize("address", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "node-1:1"])
def test_beyond_loopback_there_must_be_a_secret(name: str, address: str) -> None:
    open_to_all = {name: address, "allow_insecure_listen": True, "allow_direct_clients": True}
    with pytest.raises(ValidationError, match=f"`{name}` would listen on .* no cluster secret"):
        settings(**open_to_all)
    assert getattr(settings(**open_to_all, secret="s"), name) == address


def test_on_loopback_one_node_may_have_no_secret() -> None:
    assert settings(http="127.0.0.1:1", raft="[::1]:2").secret_bytes == b"c"
