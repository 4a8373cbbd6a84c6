"""The command line without processes: what is refused before anything starts, and how it is said."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from cluster.cli import app as cli
from cluster.cli import process_commands
from cluster.cli.layout import DataDirectory
from cluster.cli.plan import new_plan
from evaluation.processes import free_ports

if TYPE_CHECKING:
    from pathlib import Path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["chroma-cluster", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


def founded(path: Path, nodes: int = 3) -> DataDirectory:
    directory = DataDirectory(path)
    directory.prepare()
    ports = free_ports(2 * nodes + 1)
    directory.write_plan(new_plan(nodes, ports[0], ports[1:]))
    return directory


def test_help_needs_no_heavy_module() -> None:
    script = (
        "import sys; from cluster.cli.app import app\n"
        "try: app(['--help'], prog_name='x')\n"
        "except SystemExit: pass\n"
        "heavy = {'chromadb', 'numpy', 'aiohttp', 'pydantic_settings', 'pysyncobj', 'wordllama', 'asyncio'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for verb in ("up", "down", "status", "node", "lb", "demo", "evaluate", "judge", "report"):
        assert verb in done.stdout


def test_the_evaluation_says_what_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "evaluation"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert run(monkeypatch, "judge", str(tmp_path)) == 2
    said = capsys.readouterr().err
    assert "needs the package psutil" in said
    assert "make chaos" in said
    assert "chroma-cluster[evaluation]" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["judge", "{here}"], "There are no saved runs"),
        (["report", "{here}"], "There are no saved runs"),
        (["evaluate", "--out", "{here}", "--systems", "nothing"], "No such system: nothing"),
        (["evaluate", "--out", "{here}", "--faults", "kill-al"], "No such fault: kill-al"),
        (["evaluate", "--out", "{here}", "--workloads", ","], "No such workload"),
    ],
)
def test_an_evaluation_of_nothing_is_refused(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, *(argument.format(here=tmp_path) for argument in arguments)) == 2
    assert said in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert list(tmp_path.iterdir()) == []


def test_up_refuses_another_number_of_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    founded(tmp_path, nodes=3)
    before = (tmp_path / "cluster.json").read_bytes()
    assert run(monkeypatch, "up", "--detach", "--data", str(tmp_path), "--nodes", "5") == 1
    assert "holds a cluster of 3 nodes, but --nodes 5 was asked for" in capsys.readouterr().err
    assert (tmp_path / "cluster.json").read_bytes() == before


def test_up_refuses_a_port_in_use_and_founds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert run(monkeypatch, "up", "--data", str(tmp_path / "data"), "--port", str(port)) == 1
    message = capsys.readouterr().err
    assert f"Port {port}, on which clients are to reach the cluster, is in use" in message
    assert "Nothing was started" in message
    assert not (tmp_path / "data" / "cluster.json").exists()


def test_up_refuses_a_directory_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run(monkeypatch, "up", "--detach", "--data", str(tmp_path / "file" / "data")) == 1
    assert "cannot be used: Not a directory" in capsys.readouterr().err


def test_up_refuses_a_directory_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Tests may run as root, whom no mode keeps from writing: so the first write itself fails here.
    def refuse(dir: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(dir))

    monkeypatch.setattr("cluster.cli.layout.tempfile.TemporaryFile", refuse)
    assert run(monkeypatch, "up", "--detach", "--data", str(tmp_path)) == 1
    message = capsys.readouterr().err
    assert f"cannot be used: Permission denied ({tmp_path})" in message
    assert "Nothing was started" in message


@pytest.mark.parametrize("wrong", ["0", "10", "many"])
def test_up_refuses_an_impossible_number_of_nodes(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(monkeypatch, "up", "--data", str(tmp_path / "data"), "--nodes", wrong) == 2
    assert not (tmp_path / "data").exists()


def test_down_is_idempotent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = tmp_path / (
        "none-" * 20
    )  # longer than a line: messages are not broken where a path happens to end
    assert run(monkeypatch, "down", "--data", str(nowhere)) == 0
    assert capsys.readouterr().out == f"No cluster in {nowhere}: nothing to stop.\n"
    assert not (tmp_path / "none").exists()
    founded(tmp_path / "data")
    assert run(monkeypatch, "down", "--data", str(tmp_path / "data")) == 0
    assert "The cluster is not running: nothing to stop." in capsys.readouterr().out


def test_status_without_a_cluster_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "status", "--data", str(tmp_path), "--json") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"No cluster in {tmp_path}" in printed.err


def test_status_of_a_cluster_that_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = founded(tmp_path)
    assert run(monkeypatch, "status", "--data", str(tmp_path), "--json") == 1
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (said["leader"], said["balancer"]["healthy"], said["balancer"]["pid"]) == (None, False, None)
    assert [node["role"] for node in said["nodes"]] == ["down"] * 3
    assert said["nodes"][0]["chroma_path"] == str(directory.root / "node-1" / "chroma")
    assert run(monkeypatch, "status", "--data", str(tmp_path)) == 1
    assert "no leader: writes wait" in capsys.readouterr().out


@pytest.fixture
def node_settings(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The settings with which `node` would run."""
    for name in list(os.environ):
        if name.startswith("CHROMA_CLUSTER_"):
            monkeypatch.delenv(name)
    got: list[Any] = []
    monkeypatch.setattr(process_commands, "serve_node", lambda settings: got.append(settings) or 0)
    monkeypatch.setattr(process_commands, "serve_balancer", lambda settings: got.append(settings) or 0)
    return got


def test_flags_override_the_environment_and_that_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, node_settings: list[Any]
) -> None:
    file = tmp_path / "node.toml"
    file.write_text(
        'node_id = "file"\ncluster_id = "file"\ndata_dir = "/file"\nread_threads = 3\n'
        '[peers.node-2]\nraft = "127.0.0.1:2"\nhttp = "http://127.0.0.1:3"\n'
    )
    monkeypatch.setenv("CHROMA_CLUSTER_CLUSTER_ID", "environment")
    monkeypatch.setenv("CHROMA_CLUSTER_NODE_ID", "environment")
    monkeypatch.setenv("CHROMA_CLUSTER_SECRET", "s")
    assert run(monkeypatch, "node", "--config", str(file), "--id", "flag") == 0
    (settings,) = node_settings
    assert (settings.node_id, settings.cluster_id, str(settings.data_dir)) == ("flag", "environment", "/file")
    assert settings.read_threads == 3
    assert settings.peers["node-2"].http == "http://127.0.0.1:3"


def test_peers_and_nodes_by_repeated_flags(monkeypatch: pytest.MonkeyPatch, node_settings: list[Any]) -> None:
    peers = [
        *("--peer", "node-2=127.0.0.1:1,http://127.0.0.1:2"),
        *("--peer", "node-3=127.0.0.1:3,127.0.0.1:4"),
    ]
    base = ["node", "--id", "node-1", "--cluster-id", "c", "--data-dir", "/d", "--secret", "s"]
    assert run(monkeypatch, *base, *peers) == 0
    assert sorted(node_settings[0].peers) == ["node-2", "node-3"]
    nodes = ["--node", "node-1=http://127.0.0.1:1", "--node", "node-2=http://127.0.0.1:2"]
    assert run(monkeypatch, "lb", "--listen", "127.0.0.1:9", "--secret", "s", *nodes) == 0
    assert sorted(node_settings[1].nodes) == ["node-1", "node-2"]
    assert node_settings[1].listen == "127.0.0.1:9"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('node_id = "a"\nnoode = 1\n', "has settings that do not exist: noode"),
        ("node_id = \n", "is not TOML"),
        (
            'node_id = "a"\ncluster_id = "c"\ndata_dir = "/d"\nhttp = "nowhere"\n',
            "expected HOST:PORT, got 'nowhere'",
        ),
        ('node_id = "a"\ncluster_id = "c"\n', "flag --data-dir, environment CHROMA_CLUSTER_DATA_DIR"),
    ],
)
@pytest.mark.usefixtures("node_settings")
def test_wrong_settings_are_told(
    text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "node.toml"
    file.write_text(text)
    assert run(monkeypatch, "node", "--config", str(file)) == 2
    message = capsys.readouterr().err
    assert words in message
    assert "not started" in message.lower()


def test_the_settings_of_a_process_are_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb, flag in (("node", "--election-timeout-min-ms"), ("lb", "--max-buffered-bytes")):
        assert run(monkeypatch, verb, "--help") == 0
        assert flag in capsys.readouterr().out
