"""`chroma-cluster members` and its commands, on a cluster of `up` or any other."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cluster.cli.members_here import forget, new_node, start
from cluster.cli.messages import fail

if TYPE_CHECKING:
    from cluster.cli.layout import DataDirectory
    from cluster.cli.members import Members
    from cluster.cli.plan import ClusterPlan

members_app = typer.Typer(
    help="Who belongs to a cluster, and the changes of that: one at a time, while it serves.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

_PATIENCE_S: Final = 600.0
_SECRET_VARIABLE: Final = "CHROMA_CLUSTER_SECRET"

Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="A cluster that `up` made here.", show_default=False),
]
Url = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="The HTTP address of any member.", show_default=False),
]
SecretFile = Annotated[
    Path | None,
    typer.Option(
        "--secret-file",
        metavar="FILE",
        help=f"Holds the cluster's secret; else ${_SECRET_VARIABLE} does. Not needed with --data.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
NodeId = Annotated[str, typer.Argument(metavar="ID", help="The node's id.")]
Raft = Annotated[
    str | None,
    typer.Option("--raft", metavar="HOST:PORT", help="Where its log is dialled.", show_default=False),
]
Http = Annotated[
    str | None, typer.Option("--http", metavar="URL", help="Where its HTTP answers.", show_default=False)
]
Timeout = Annotated[
    float,
    typer.Option("--timeout", min=1, metavar="SECONDS", help="How long a new node may take to catch up."),
]


@dataclass(frozen=True, slots=True)
class _Target:
    """The cluster that a command is about; `directory` and `plan` if it is one of this machine."""

    members: Members
    directory: DataDirectory | None = None
    plan: ClusterPlan | None = None


def _target(data: Path | None, url: str | None, secret_file: Path | None = None) -> _Target:
    from cluster.cli.layout import DataDirectory
    from cluster.cli.members import Members

    if (data is None) == (url is None):
        fail("Say which cluster: --data DIR or --url URL.", code=2)
    if data is None:
        assert url is not None
        return _Target(Members([url], _secret(secret_file)))
    directory = DataDirectory(data.expanduser().absolute())
    plan = directory.read_plan()
    if plan is None:
        fail(f"No cluster in {directory.root}. Start one with `chroma-cluster up --data DIR`.", code=2)
    return _Target(Members([node.url for node in plan.nodes], plan.secret), directory, plan)


def _secret(file: Path | None) -> str:
    if file is None:
        return os.environ.get(_SECRET_VARIABLE, "")
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        fail(f"The secret file {file} cannot be read: {error}. Nothing was changed.", code=2)


def _say(answer: dict[str, Any], text: str, *, as_json: bool) -> None:
    typer.echo(json.dumps(answer, indent=2) if as_json else text)


@members_app.command("list")
def list_(
    data: Data = None, url: Url = None, secret_file: SecretFile = None, as_json: AsJson = False
) -> None:
    """Show the members, as the leader knows them."""
    from cluster.cli.members import table

    listing = _target(data, url, secret_file).members.listing()
    _say(listing, table(listing), as_json=as_json)


@members_app.command()
def add(
    node_id: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="The node's id (with --data: chosen).", show_default=False),
    ] = None,
    raft: Raft = None,
    http: Http = None,
    learner: Annotated[
        bool, typer.Option("--learner", help="It stays one: it serves reads, has no vote.")
    ] = False,
    data: Data = None,
    url: Url = None,
    secret_file: SecretFile = None,
    timeout: Timeout = _PATIENCE_S,
    as_json: AsJson = False,
) -> None:
    """Add a node: as a learner, which becomes a voter when it has caught up.

    With --data a new node is made and started on this machine. With --url start it yourself, before or after,
    with `chroma-cluster node --join URL ...`.
    """
    target = _target(data, url, secret_file)
    if target.plan is not None and target.directory is not None:
        if raft is not None or http is not None:
            fail("With --data the addresses are chosen; leave --raft and --http out.", code=2)
        new = new_node(target.directory, target.plan, node_id)
        start(target.directory, target.plan, new)
        node_id, raft, http = new.id, new.raft, new.url
    if node_id is None or raft is None or http is None:
        fail("With --url say the node's ID, --raft HOST:PORT and --http URL.", code=2)
    known = {it["id"]: it for it in target.members.listing()["members"]}
    answer: dict[str, Any] = {"operation": "add", "id": node_id}
    if node_id not in known or learner:
        answer = target.members.change("add", id=node_id, raft=raft, http=http)
    if not learner and known.get(node_id, {}).get("role") != "voter":
        answer = target.members.promote_when_ready(node_id, timeout)
    kind = "learner" if learner else "voter"
    _say(answer, f"{node_id} is a member now, a {kind}.", as_json=as_json)


@members_app.command()
def promote(
    node_id: NodeId,
    data: Data = None,
    url: Url = None,
    secret_file: SecretFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a learner that has caught up a voter."""
    answer = _target(data, url, secret_file).members.change("promote", id=node_id)
    _say(answer, f"{node_id} is a voter now.", as_json=as_json)


@members_app.command()
def remove(
    node_id: NodeId,
    data: Data = None,
    url: Url = None,
    secret_file: SecretFile = None,
    as_json: AsJson = False,
) -> None:
    """Remove a member: a dead one, the leader, any.

    With --data its process is stopped; its directory stays.
    """
    target = _target(data, url, secret_file)
    if target.plan is not None and node_id not in [it["id"] for it in target.members.listing()["members"]]:
        answer = {"operation": "remove", "id": node_id}  # only this machine does not know it yet
    else:
        answer = target.members.change("remove", id=node_id)
    if target.directory is not None and target.plan is not None:
        forget(target.directory, target.plan, node_id)
    _say(answer, f"{node_id} is no member any more. Its directory is not needed.", as_json=as_json)


@members_app.command()
def admit(
    node_id: NodeId,
    data: Data = None,
    url: Url = None,
    secret_file: SecretFile = None,
    timeout: Timeout = _PATIENCE_S,
    as_json: AsJson = False,
) -> None:
    """Let a member that came back with an empty or an old directory in again.

    Needed only where the setting `auto_replace` is off: else that goes by itself. Returns when it votes.
    """
    answer = _target(data, url, secret_file).members.admit(node_id, timeout)
    _say(answer, f"{node_id} holds everything and has its vote.", as_json=as_json)


@members_app.command()
def move(
    node_id: NodeId,
    raft: Raft = None,
    http: Http = None,
    data: Data = None,
    url: Url = None,
    secret_file: SecretFile = None,
    as_json: AsJson = False,
) -> None:
    """Tell the cluster that a member, running or stopped, is reached at other addresses from now on.

    What is left out stays. Where the node itself listens, its own command line says.
    """
    target = _target(data, url, secret_file)
    if target.plan is not None and node_id in [node.id for node in target.plan.nodes]:
        fail(
            f"{node_id} runs on this machine, at the addresses that `up` gave it. Nothing was changed; to "
            "have another node in its place use `members replace`.",
            code=2,
        )
    if raft is None and http is None:
        fail("Say what is new: --raft HOST:PORT, --http URL or both. Nothing was changed.", code=2)
    answer = target.members.change("move", id=node_id, raft=raft or "", http=http or "")
    where = " and ".join(filter(None, (raft, http)))
    _say(answer, f"{node_id} is reached at {where} now.", as_json=as_json)


@members_app.command()
def transfer(
    node_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="To whom.", show_default=False)
    ] = None,
    data: Data = None,
    url: Url = None,
    secret_file: SecretFile = None,
    as_json: AsJson = False,
) -> None:
    """Hand leadership over, to the follower that holds most or to the one that is named."""
    answer = _target(data, url, secret_file).members.change("transfer", id=node_id or "")
    _say(answer, f"Leadership was handed over{f' to {node_id}' if node_id else ''}.", as_json=as_json)


@members_app.command()
def replace(
    old: Annotated[str, typer.Argument(metavar="OLD", help="The node that goes; it may be dead.")],
    new: Annotated[
        str | None, typer.Argument(metavar="[NEW]", help="The node that comes.", show_default=False)
    ] = None,
    raft: Raft = None,
    http: Http = None,
    data: Data = None,
    url: Url = None,
    secret_file: SecretFile = None,
    timeout: Timeout = _PATIENCE_S,
    as_json: AsJson = False,
) -> None:
    """Add a node, wait until it is a voter, and remove another one. Repeat it if it was interrupted."""
    target = _target(data, url, secret_file)
    if target.plan is not None and target.directory is not None:
        made = new_node(target.directory, target.plan, new)
        start(target.directory, target.plan, made)
        new, raft, http = made.id, made.raft, made.url
    if new is None or raft is None or http is None:
        fail("With --url say the ids OLD and NEW, --raft HOST:PORT and --http URL.", code=2)
    answer = target.members.replace(old, timeout, id=new, raft=raft, http=http)
    if target.directory is not None:
        plan = target.directory.read_plan()
        assert plan is not None
        forget(target.directory, plan, old)
    _say(answer, f"{new} has taken the place of {old}.", as_json=as_json)


@members_app.command()
def recover(
    node_directory: Annotated[
        Path, typer.Option("--from", metavar="DIR", help="The directory of one node that is left, stopped.")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without it nothing is changed.")] = False,
    as_json: AsJson = False,
) -> None:
    """A majority is lost for good: go on with what one node has, as a new cluster of that node alone.

    Without --yes it only says what would be kept and what may be lost (exit code 1).
    """
    from cluster.cli.recover import examine, words
    from cluster.cli.recover import recover as do

    path = node_directory.expanduser().absolute()
    found = examine(path)
    answer: dict[str, Any] = {"node": found.node_id, "kept": found.last, "known_committed": found.committed}
    text = words(found)
    if not yes:
        _say(answer, f"{text}\nNothing was changed; repeat it with --yes.", as_json=as_json)
        raise typer.Exit(1)
    cluster_id = do(path)
    how = f"Start {found.node_id} with this cluster id (`up` does so by itself), then add new nodes."
    _say(answer | {"cluster": cluster_id}, f"{text}\nThe new cluster is {cluster_id}. {how}", as_json=as_json)
