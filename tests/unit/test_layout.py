"""The data directory: what `cluster.json` says, which ports nodes get, and what is refused."""

from __future__ import annotations

import json
import random
import socket
import stat
from typing import TYPE_CHECKING

import pytest

from cluster.cli.errors import LayoutError
from cluster.cli.layout import DataDirectory
from cluster.cli.plan import ClusterPlan, new_plan, settle_plan
from cluster.cli.ports import PORT_RANGE, choose_ports, port_is_free, port_of, shuffled_ports

if TYPE_CHECKING:
    from pathlib import Path


def plan(nodes: int = 3, port: int = 8000) -> ClusterPlan:
    return new_plan(nodes, port, range(20_000, 20_100))


def directory_in(path: Path) -> DataDirectory:
    directory = DataDirectory(path / "data")
    directory.prepare()
    return directory


def test_a_new_plan_names_nodes_and_gives_each_two_ports() -> None:
    made = plan(3)
    assert [node.id for node in made.nodes] == ["node-1", "node-2", "node-3"]
    addresses = [address for node in made.nodes for address in (node.http, node.raft)]
    assert addresses == [f"127.0.0.1:{port}" for port in range(20_000, 20_006)]
    assert made.url == "http://127.0.0.1:8000"
    assert made.node("node-2").url == "http://127.0.0.1:20002"
    with pytest.raises(KeyError):
        made.node("node-4")


def test_two_clusters_share_neither_identity_nor_secret() -> None:
    one, two = plan(), plan()
    assert one.cluster != two.cluster
    assert one.secret != two.secret
    assert len(one.secret) >= 32


def test_a_plan_survives_its_file_and_only_the_owner_may_read_it(tmp_path: Path) -> None:
    directory, made = directory_in(tmp_path), plan()
    assert directory.read_plan() is None
    directory.write_plan(made)
    assert directory.read_plan() == made
    assert stat.S_IMODE(directory.plan_file.stat().st_mode) == 0o600
    assert sorted(path.name for path in directory.root.iterdir()) == ["cluster.json", "logs", "run"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "not json",
        json.dumps({"cluster": "c", "secret": "s", "port": 1, "nodes": []}),
        json.dumps(
            {"cluster": "c", "secret": 7, "port": 1, "nodes": [{"id": "a", "http": "b", "raft": "c"}]}
        ),
        json.dumps({"cluster": "c", "secret": "s", "port": "x", "nodes": [{"id": "a"}]}),
    ],
)
def test_a_damaged_plan_is_refused_with_its_path(tmp_path: Path, text: str) -> None:
    directory = directory_in(tmp_path)
    directory.plan_file.write_text(text)
    with pytest.raises(LayoutError, match=r"cluster\.json is damaged .* Nothing was changed"):
        directory.read_plan()


def test_a_directory_below_a_file_cannot_be_prepared(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LayoutError, match=r"cannot be used: Not a directory.*--data DIR"):
        DataDirectory(tmp_path / "file" / "data").prepare()


def test_data_of_others_is_not_built_upon(tmp_path: Path) -> None:
    directory = directory_in(tmp_path)
    directory.refuse_foreign_data()
    (directory.root / "chroma.sqlite3").write_text("")
    with pytest.raises(LayoutError, match="plain Chroma directory"):
        directory.refuse_foreign_data()


def test_nodes_without_their_plan_are_not_given_a_new_identity(tmp_path: Path) -> None:
    directory = directory_in(tmp_path)
    directory.node_directory("node-1").mkdir()
    with pytest.raises(LayoutError, match="is missing"):
        directory.refuse_foreign_data()


def test_resuming_keeps_the_plan_and_takes_a_new_port() -> None:
    made = plan(3)
    assert settle_plan(made, nodes=None, port=None) is made
    assert settle_plan(made, nodes=3, port=8000) is made
    moved = settle_plan(made, nodes=None, port=9000)
    assert (moved.port, moved.nodes, moved.secret) == (9000, made.nodes, made.secret)


def test_resuming_with_another_number_of_nodes_is_refused() -> None:
    with pytest.raises(LayoutError, match=r"a cluster of 3 nodes, but --nodes 5 .* Nothing was changed"):
        settle_plan(plan(3), nodes=5, port=None)


def test_ports_are_the_first_free_candidates_without_repeats() -> None:
    assert choose_ports(3, [1, 2, 2, 3, 4, 5], lambda port: port != 1) == [2, 3, 4]
    with pytest.raises(LayoutError, match="Only 1 free"):
        choose_ports(2, [1, 2], lambda port: port == 2)


def test_ports_of_nodes_are_never_ones_that_outgoing_connections_get() -> None:
    ports = shuffled_ports(random.Random(1))
    assert sorted(ports) == list(PORT_RANGE)
    assert max(ports) < 32_768
    assert ports[0] != shuffled_ports(random.Random(2))[0]


def test_a_port_with_a_listener_is_not_free() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert not port_is_free(port)
    assert port_is_free(port)


def test_the_port_of_an_address_is_its_last_part() -> None:
    assert port_of("127.0.0.1:80") == 80
    assert port_of("[::1]:81") == 81
