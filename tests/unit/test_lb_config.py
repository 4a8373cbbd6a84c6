"""Settings of the balancer: where they come from, and which are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from lb.config import BalancerSettings

if TYPE_CHECKING:
    from pathlib import Path

NODES = {"node-1": "http://127.0.0.1:8001", "node-2": "http://127.0.0.1:8002"}
TEXT = "node-1=http://127.0.0.1:8001,node-2=127.0.0.1:8002/"


@pytest.mark.parametrize("form", [NODES, TEXT, TEXT.split(",")])
def test_nodes_come_as_a_table_a_text_or_flags(form: Any) -> None:
    assert BalancerSettings.load(nodes=form, secret="s").nodes == NODES


def test_flags_override_the_environment_which_overrides_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "lb.toml"
    config.write_text(
        'hold_ms = 1\nsilence_ms = 100\ndrain_ms = 1\n[nodes]\nnode-1 = "http://127.0.0.1:8001"\n'
    )
    monkeypatch.setenv("CHROMA_CLUSTER_LB_NODES", TEXT)
    monkeypatch.setenv("CHROMA_CLUSTER_LB_HOLD_MS", "2")
    monkeypatch.setenv("CHROMA_CLUSTER_LB_SILENCE_MS", "200")
    settings = BalancerSettings.load(config, hold_ms=3, listen=None, secret="s")
    assert (settings.hold_ms, settings.silence_ms, settings.drain_ms) == (3, 200, 1)
    assert settings.nodes == NODES
    assert settings.listen == "127.0.0.1:8000"


def test_a_misspelt_key_in_the_file_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "lb.toml"
    config.write_text('hold_mss = 1\n[nodes]\nnode-1 = "http://127.0.0.1:8001"\n')
    with pytest.raises(ValidationError, match="hold_mss"):
        BalancerSettings.load(config)


@pytest.mark.parametrize("listen", ["0.0.0.0:8000", "[::]:8000", "192.168.1.5:8000", "example.org:80"])
def test_listening_beyond_loopback_needs_the_explicit_flag(listen: str) -> None:
    with pytest.raises(ValidationError, match="allow_insecure_listen=true"):
        BalancerSettings.load(nodes=NODES, secret="s", listen=listen)
    assert (
        BalancerSettings.load(nodes=NODES, secret="s", listen=listen, allow_insecure_listen=True).listen
        == listen
    )


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:8000", "[::1]:8000", "127.8.0.1:1"])
def test_loopback_needs_no_flag(listen: str) -> None:
    assert BalancerSettings.load(nodes=NODES, secret="s", listen=listen).listen == listen


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"nodes": {}}, "at least 1"),
        ({"nodes": "node-1"}, "ID=URL"),
        ({"nodes": ["a=http://x:1", "a=http://y:1"]}, "same id"),
        ({"nodes": {"a": "ftp://x"}}, "http or https"),
        ({"listen": "8000"}, "HOST:PORT"),
        ({"listen": "localhost:99999"}, "HOST:PORT"),
        ({"consistency": "strong"}, "session"),
        ({"hold_ms": -1}, "greater than or equal"),
    ],
)
def test_nonsense_is_refused_with_what_is_expected(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        BalancerSettings.load(None, **({"nodes": NODES, "secret": "s"} | changes))


def test_a_balancer_without_the_secret_is_refused(tmp_path: Path) -> None:
    one = {"node-1": "http://127.0.0.1:8001"}
    for nodes, cluster_id in ((NODES, "c"), (one, "")):
        with pytest.raises(ValidationError, match="secret_file"):
            BalancerSettings.load(nodes=nodes, cluster_id=cluster_id)
    # As a node without peers has it.
    assert BalancerSettings.load(nodes=one, cluster_id="c").secret_bytes == b"c"
    file = tmp_path / "secret"
    file.write_text("word\n")
    assert BalancerSettings.load(nodes=NODES, secret_file=file).secret_bytes == b"word"
    file.write_text("\n")
    with pytest.raises(ValueError, match="is empty"):
        _ = BalancerSettings.load(nodes=NODES, secret_file=file).secret_bytes
