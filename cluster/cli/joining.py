"""What a node that joins a running cluster asks one of its members: the cluster's id, and who they are.

The answer is kept in the node's directory, so that the same command line starts it again when that member is
gone. It only says where to begin: from the first entries on the node's own log names the members.
"""

from __future__ import annotations

import http.client
import json
import os
import time
from pathlib import Path
from typing import Any, Final, cast
from urllib.error import HTTPError

from pydantic import SecretStr

from cluster.cli.messages import fail
from cluster.cli.overview import prover_of
from cluster.config import NodeSettings, Peer
from wire import calls
from wire.secret import read_secret

FILE: Final = "members.json"
_PATIENCE_S: Final = 30.0
_ASK_S: Final = 2.0


def load(config: Path | None = None, **flags: Any) -> NodeSettings:
    """The settings of a node; with `join`, what they lack is asked of the cluster that it names."""
    values = NodeSettings.merged(config, flags)
    if values.get("join") and values.get("data_dir"):
        answer = _answer(str(values["join"]).rstrip("/"), _secret(values), Path(values["data_dir"]))
        values.setdefault("cluster_id", answer["cluster"])
        values.setdefault("peers", peers_in(answer, str(values.get("node_id", ""))))
    return NodeSettings(**values)


def peers_in(answer: dict[str, Any], node_id: str) -> dict[str, Peer]:
    """The other members whose two addresses are known, from what `GET /cluster/members` says."""
    return {
        member["id"]: Peer(raft=member["raft"], http=member["http"])
        for member in answer["members"]
        if member["id"] != node_id and member["raft"] and member["http"]
    }


def _secret(values: dict[str, Any]) -> str:
    given, file = values.get("secret"), values.get("secret_file")
    text = given.get_secret_value() if isinstance(given, SecretStr) else given
    try:
        return read_secret(text, Path(file) if file else None, "").decode()
    except (OSError, ValueError) as error:
        fail(f"node: not started: the cluster's secret cannot be read ({error}).", code=1)


def _answer(url: str, secret: str, data_dir: Path) -> dict[str, Any]:
    """What a member says now, or said when this node began."""
    file = data_dir / FILE
    patience_s = 0.0 if file.exists() else _PATIENCE_S
    deadline = time.monotonic() + patience_s
    while True:
        try:
            answer = _ask(url, secret)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if file.exists():
                return _read(file)
            if time.monotonic() >= deadline:
                fail(
                    f"node: not started: no member of a cluster answers at {url} ({error}). Give the URL of "
                    "a member that is up with --join.",
                    code=1,
                )
            time.sleep(0.5)
        else:
            _keep(file, answer)
            return answer


def _ask(url: str, secret: str) -> dict[str, Any]:
    base = url if "://" in url else f"http://{url}"
    if not base.startswith(("http://", "https://")):
        raise ValueError("this is no HTTP URL")
    try:
        answer = calls.ask(prover_of(secret), base, "/cluster/members", timeout_s=_ASK_S)
    except HTTPError as error:
        if error.code == 403:
            fail(
                f"node: not started: {url} says that this node does not have its cluster's secret. Give it "
                "with `secret` or `secret_file`.",
                code=1,
            )
        raise
    return _checked(json.loads(answer))


def _checked(answer: Any) -> dict[str, Any]:
    """Raises ValueError unless it is what a member says."""
    words = cast("dict[str, Any]", answer) if isinstance(answer, dict) else {}
    members = words.get("members")
    if not isinstance(words.get("cluster"), str) or not isinstance(members, list):
        raise ValueError("what answers there is no member of a cluster")
    for member in cast("list[Any]", members):
        fields = cast("dict[str, Any]", member) if isinstance(member, dict) else {}
        if not isinstance(fields.get("id"), str):
            raise ValueError("what answers there is no member of a cluster")
    return words


def _read(file: Path) -> dict[str, Any]:
    try:
        return _checked(json.loads(file.read_text()))
    except (OSError, ValueError) as error:
        fail(
            f"node: not started: {file} cannot be read ({error}), and the member named with --join does not "
            "answer. Name a member that is up, and remove that file.",
            code=1,
        )


def _keep(file: Path, answer: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    begun = file.with_suffix(".new")
    with begun.open("w") as text:
        json.dump(answer, text)
        text.flush()
        os.fsync(text.fileno())
    begun.replace(file)
