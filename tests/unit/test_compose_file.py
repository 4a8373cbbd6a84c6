"""The compose file, the chaos variables and the proxies name the same nodes and ports."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from cluster.config import NodeSettings
from lb.config import BalancerSettings

ROOT = Path(__file__).resolve().parents[2]
CONTAINERS = ROOT / "tests" / "containers"
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\}")
NODES = ("node-1", "node-2", "node-3")


def _interpolate(value: Any, variables: dict[str, str]) -> Any:
    """The compose file's `${NAME:-default}` and `${NAME:?message}`, enough for this file."""
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {key: _interpolate(part, variables) for key, part in fields.items()}
    if isinstance(value, list):
        return [_interpolate(part, variables) for part in cast("list[Any]", value)]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        if given := variables.get(match["name"]):
            return given
        assert match["kind"] == "-", f"{match['name']} is required"
        return match["rest"]

    return VARIABLE.sub(replace, value)


def _compose(**variables: str) -> dict[str, Any]:
    text = (ROOT / "docker-compose.cluster.yml").read_text()
    services: dict[str, Any] = _interpolate(
        yaml.safe_load(text)["services"], {"CHROMA_CLUSTER_SECRET": "s", **variables}
    )
    return services


def _chaos() -> dict[str, str]:
    lines = (CONTAINERS / "chaos.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def _node_settings(monkeypatch: pytest.MonkeyPatch, service: dict[str, Any]) -> NodeSettings:
    for name, value in service["environment"].items():
        monkeypatch.setenv(name, value)
    return NodeSettings.load()


@pytest.mark.parametrize("name", NODES)
def test_each_node_knows_itself_and_the_others(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    settings = _node_settings(monkeypatch, _compose()[name])
    assert settings.node_id == name
    assert settings.advertise_http == f"http://{name}:8001"
    assert {peer: (at.raft, at.http) for peer, at in settings.peers.items()} == {
        other: (f"{other}:9001", f"http://{other}:8001") for other in NODES if other != name
    }


def test_balancer_knows_all_nodes_of_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    services = _compose()
    for name, value in services["balancer"]["environment"].items():
        monkeypatch.setenv(name, value)
    settings = BalancerSettings.load()
    assert settings.nodes == {name: f"http://{name}:8001" for name in NODES}
    assert settings.cluster_id == services["node-1"]["environment"]["CHROMA_CLUSTER_CLUSTER_ID"]
    assert settings.secret_bytes.decode() == services["node-1"]["environment"]["CHROMA_CLUSTER_SECRET"]
    assert services["balancer"]["ports"] == ["127.0.0.1:8000:8000"]


def test_secret_has_no_default() -> None:
    with pytest.raises(AssertionError, match="CHROMA_CLUSTER_SECRET is required"):
        _compose(CHROMA_CLUSTER_SECRET="")


def test_toxiproxy_only_runs_in_the_chaos_profile() -> None:
    assert {name: service.get("profiles") for name, service in _compose().items()} == {
        **dict.fromkeys((*NODES, "balancer")),
        "toxiproxy": ["chaos"],
    }


def test_each_raft_connection_has_a_proxy_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    proxies = {
        proxy["listen"].rpartition(":")[2]: (proxy["name"], proxy["upstream"])
        for proxy in json.loads((CONTAINERS / "toxiproxy.json").read_text())
    }
    services = _compose(**_chaos())
    for name in NODES:
        for other, peer in _node_settings(monkeypatch, services[name]).peers.items():
            if name < other:  # the greater id dials
                continue
            host, port = peer.raft.split(":")
            assert host == "toxiproxy"
            assert proxies.pop(port) == (f"raft-{name[-1]}-to-{other[-1]}", f"{other}:9001")
    assert not proxies
