"""The operator's side of membership: whom a command asks, what `cluster.json` keeps, how a node joins."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.error import URLError

import pytest
from typer.testing import CliRunner

from cluster.cli import joining
from cluster.cli.app import app
from cluster.cli.errors import LayoutError
from cluster.cli.layout import DataDirectory
from cluster.cli.members import Members, MembersError, table
from cluster.cli.plan import ClusterPlan, NodePlan, added_node, new_plan
from cluster.cli.supervisor import node_arguments

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "secret"


def member(name: str, role: str = "voter", *, leads: bool = False) -> dict[str, Any]:
    where = {"raft": f"{name}:1", "http": f"http://{name}"}
    state = {"connected": True, "match_index": 1, "has_vote": role == "voter"}
    return {"id": name, "role": role, "leads": leads, **state, **where}


class Cluster:
    """Answers as members do; `answers` come first, one for each change."""

    def __init__(self, *answers: tuple[int, str] | Exception) -> None:
        self.members = {"a": member("a", leads=True), "b": member("b")}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.answers = list(answers)
        self.silent: set[str] = set()

    def send(self, url: str, body: bytes | None) -> tuple[int, bytes]:
        if url in self.silent:
            raise URLError(ConnectionRefusedError("refused"))
        if body is None:
            listing = {"number": 3, "committed": True, "members": list(self.members.values())}
            return 200, json.dumps(listing).encode()
        words = json.loads(body)
        self.asked.append((url, words))
        answer = self.answers.pop(0) if self.answers else (200, "")
        if isinstance(answer, Exception):
            raise answer
        status, message = answer
        if status == 200 and words["operation"] == "add":
            self.members[words["id"]] = member(words["id"], "learner")
        return status, json.dumps({"error": "E", "message": message}).encode()

    def operator(self, *urls: str) -> Members:
        return Members(urls or ("http://a",), SECRET, self.send)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setattr("cluster.cli.members._AGAIN_S", 0)


def test_the_leader_is_believed_and_one_that_is_silent_passed_over() -> None:
    cluster = Cluster()
    cluster.silent = {"http://x"}
    assert [it["id"] for it in cluster.operator("http://x", "http://b").listing()["members"]] == ["a", "b"]
    text = table(cluster.operator("http://b").listing())
    assert text.splitlines()[0] == "configuration 3 (committed)"
    assert "leads" in text.splitlines()[2]


def test_a_refusal_is_told_in_the_members_own_words() -> None:
    with pytest.raises(MembersError, match="c is no member") as raised:
        Cluster((409, "c is no member. Nothing was changed.")).operator().change("remove", id="c")
    assert raised.value.status == 409


def test_who_is_admitted_is_waited_for_until_it_votes() -> None:
    cluster = Cluster((503, "another one is under way"))
    cluster.members["b"]["has_vote"] = False
    assert "has no vote yet" in table(cluster.operator().listing())
    with pytest.raises(MembersError, match="does not hold everything yet"):
        cluster.operator().admit("b", 0.01)
    assert cluster.asked == [("http://a", {"operation": "admit", "id": "b"})] * 2
    cluster.members["b"]["has_vote"] = True
    cluster.operator().admit("b", 60)
    with pytest.raises(MembersError, match="does not wait"):
        Cluster((409, "b does not wait to be admitted.")).operator().admit("b", 60)


def test_whether_a_change_was_made_that_nobody_answered_is_not_known() -> None:
    cluster = Cluster(TimeoutError("late"))
    with pytest.raises(MembersError, match="is not known"):
        cluster.operator("http://a", "http://b").change("remove", id="b")
    assert len(cluster.asked) == 1
    cluster.silent = {"http://a"}
    with pytest.raises(MembersError, match=r"No member answers .* Nothing was changed"):
        cluster.operator("http://a").change("remove", id="b")


def test_a_learner_is_promoted_when_it_has_caught_up() -> None:
    cluster = Cluster((503, "not caught up"), (503, "not caught up"), (200, ""))
    cluster.operator().promote_when_ready("c", 60)
    assert len(cluster.asked) == 3
    with pytest.raises(MembersError, match="no member"):
        Cluster((409, "c is no member")).operator().promote_when_ready("c", 60)


def test_a_replacement_goes_on_where_it_ended() -> None:
    new = {"id": "c", "raft": "c:1", "http": "http://c"}
    cluster = Cluster()
    cluster.operator().replace("b", 60, **new)
    assert [words["operation"] for _, words in cluster.asked] == ["add", "promote", "remove"]
    again = Cluster()
    again.members["c"] = member("c")
    again.operator().replace("b", 60, **new)
    assert [words["operation"] for _, words in again.asked] == ["remove"]
    with pytest.raises(MembersError, match="x is no member"):
        Cluster().operator().replace("x", 60, **new)


def test_nodes_that_come_and_go_in_the_plan() -> None:
    plan = new_plan(3, 8000, range(20000, 20010))
    new = added_node(plan, None, [1, 2])
    assert (new.id, new.joined) == ("node-4", True)
    grown = plan.with_node(new)
    assert grown.with_node(new) == grown
    assert added_node(grown, "node-4", [3, 4]) == new
    with pytest.raises(LayoutError, match="founded with"):
        added_node(grown, "node-2", [3, 4])
    shrunk = grown.without_node("node-2").without_node("node-4")
    assert [node.id for node in shrunk.nodes] == ["node-1", "node-3"]
    assert ClusterPlan.from_json(shrunk.to_json()) == shrunk
    assert added_node(shrunk, None, [5, 6]).id == "node-4"
    # An id that a founder had is never given again: others may still know its journal.
    with pytest.raises(LayoutError, match="founded with"):
        added_node(shrunk, "node-2", [3, 4])


def test_a_founders_command_line_stays_whoever_comes_and_goes(tmp_path: Path) -> None:
    plan = new_plan(3, 8000, range(20000, 20010))
    new = NodePlan("node-4", "127.0.0.1:1", "127.0.0.1:2", joined=True)
    changed = plan.with_node(new).without_node("node-2")
    first = plan.node("node-1")
    assert sorted(node_arguments(plan, first, tmp_path)) == sorted(node_arguments(changed, first, tmp_path))
    joining_line = node_arguments(changed, new, tmp_path)
    assert joining_line[-2:] == ["--join", f"{first.url},{plan.node('node-3').url}"]
    assert "--peer" not in joining_line


def test_a_node_joins_with_what_a_member_says_and_starts_again_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHROMA_CLUSTER_SECRET", "s")
    answer: dict[str, Any] = {
        "cluster": "c",
        "members": [member("a"), member("new"), member("b") | {"raft": ""}],
    }
    monkeypatch.setattr(joining, "_ask", lambda url, secret: answer)
    flags: dict[str, Any] = {"node_id": "new", "data_dir": tmp_path, "join": "http://a"}
    settings = joining.load(None, **flags)
    assert (settings.cluster_id, list(settings.peers)) == ("c", ["a"])
    assert settings.peers["a"].raft == "a:1"

    def only_b(url: str, secret: str) -> dict[str, Any]:
        if url != "http://b":
            raise URLError("gone")
        return answer

    monkeypatch.setattr(joining, "_ask", only_b)
    assert joining.load(None, **flags | {"join": "http://a, http://b/,"}).peers == settings.peers

    def silent(url: str, secret: str) -> dict[str, Any]:
        raise URLError("gone")

    monkeypatch.setattr(joining, "_ask", silent)
    assert joining.load(None, **flags).peers == settings.peers
    monkeypatch.setattr(joining, "_PATIENCE_S", 0)
    with pytest.raises(SystemExit):
        joining.load(None, **flags | {"data_dir": tmp_path / "other"})


@pytest.mark.parametrize(
    "answer", [None, [], {}, {"cluster": 1, "members": []}, {"cluster": "c", "members": [1]}]
)
def test_what_is_no_member_is_no_answer(answer: object) -> None:
    with pytest.raises(ValueError, match="no member"):
        joining._checked(answer)


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A cluster that answers the commands themselves."""
    cluster = Cluster()

    def send(_: Members, url: str, body: bytes | None) -> tuple[int, bytes]:
        return cluster.send(url, body)

    monkeypatch.setattr(Members, "_send", send)
    return cluster


@pytest.mark.parametrize(
    ("flags", "asked"),
    [
        (("--raft", "h:1", "--http", "http://h"), {"raft": "h:1", "http": "http://h"}),
        (("--raft", "h:1"), {"raft": "h:1", "http": ""}),
        (("--http", "http://h"), {"raft": "", "http": "http://h"}),
    ],
)
def test_a_move_asks_for_what_is_new(
    answering: Cluster, flags: tuple[str, ...], asked: dict[str, str]
) -> None:
    done = CliRunner().invoke(app, ["members", "move", "b", *flags, "--url", "http://a"])
    assert (done.exit_code, answering.asked) == (
        0,
        [("http://a", {"operation": "move", "id": "b", **asked})],
    )
    assert "b is reached at " + " and ".join(filter(None, asked.values())) in done.output


def test_a_move_to_nowhere_is_not_asked_for(answering: Cluster) -> None:
    done = CliRunner().invoke(app, ["members", "move", "b", "--url", "http://a"])
    assert (done.exit_code, answering.asked) == (2, [])
    assert "Say what is new" in done.output


def test_a_node_of_this_machine_is_not_moved_away_from_its_plan(answering: Cluster, tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    directory.prepare()
    plan = new_plan(3, 7000, range(7001, 7007))
    directory.write_plan(plan)
    done = CliRunner().invoke(app, ["members", "move", "node-2", "--raft", "h:1", "--data", str(tmp_path)])
    assert (done.exit_code, answering.asked) == (2, [])
    assert "members replace" in done.output
    assert directory.read_plan() == plan
    # One of another machine is.
    done = CliRunner().invoke(app, ["members", "move", "b", "--raft", "h:1", "--data", str(tmp_path)])
    assert (done.exit_code, len(answering.asked)) == (0, 1)
