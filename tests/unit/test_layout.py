"""The data directory: what `cluster.json` says, which ports nodes get, and what is refused."""

from __future__ import annotations

import json
import random
import socket
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cluster.cli import ports
from cluster.cli.errors import LayoutError
from cluster.cli.layout import DataDirectory
from cluster.cli.plan import ClusterPlan, new_plan, settle_plan
from cluster.cli.ports import PORT_RANGE, choose_ports, port_is_free, port_of, shuffled_ports, take_port
from evaluation import processes

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
    found = shuffled_ports(random.Random(1))
    assert sorted(found) == list(PORT_RANGE)
    assert max(found) < 32_768
    assert found[0] != shuffled_ports(random.Random(2))[0]


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


def test_a_port_that_one_process_took_is_not_taken_by_another_while_it_runs() -> None:
    """It is free for long: nobody listens there until the server is started, or started again."""
    here = choose_ports(4, shuffled_ports(random.Random()), take_port)
    assert all(take_port(port) for port in here), "who has it may ask again"
    assert all(port_is_free(port) for port in here)
    code = (
        "import sys; from cluster.cli.ports import choose_ports, take_port; "
        "print(*choose_ports(2, map(int, sys.argv[1:]), take_port), flush=True); sys.stdin.read()"
    )
    candidates = [*here, *(port for port in PORT_RANGE if port not in here)]
    command = [sys.executable, "-c", code, *map(str, candidates[:400])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        there = [int(word) for word in other.stdout.readline().split()]
        assert len(there) == 2
        assert not {*there} & {*here}
        assert not any(take_port(port) for port in there)
        other.kill()
    assert all(take_port(port) for port in there), "the end of a process frees its ports"


def test_a_port_that_is_in_use_is_neither_taken_nor_kept() -> None:
    port = choose_ports(1, shuffled_ports(random.Random()), take_port)[0]
    with socket.create_server(("127.0.0.1", port)):
        assert not take_port(port)
        code = (
            "import sys; from cluster.cli.ports import keep_port; sys.exit(not keep_port(int(sys.argv[1])))"
        )
        assert subprocess.run([sys.executable, "-c", code, str(port)], check=False).returncode == 0
    assert take_port(port)


def test_without_a_place_to_agree_in_ports_are_chosen_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ports, "_ledger", ports._Ledger())  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(ports, "_PLACE", tmp_path / "nothing here")
    port = choose_ports(1, shuffled_ports(random.Random()), take_port)[0]
    assert port_is_free(port)


def test_who_asks_for_more_ports_than_there_are_gets_the_oldest_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "_given", {})
    monkeypatch.setattr(processes, "_REMEMBERED", 3)
    monkeypatch.setattr(processes, "shuffled_ports", lambda _: candidates)
    candidates = choose_ports(4, shuffled_ports(random.Random()), take_port)
    first = [processes.free_port() for _ in range(4)]
    assert first == candidates
    code = f"import sys; from cluster.cli.ports import take_port; sys.exit(not take_port({first[0]}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0, "others may have it now"
    assert [processes.free_port() for _ in range(4)] == first
