"""Asks one entry what a `Decision` says, through Chroma's HTTP API (v2), and says what came of it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson

from evaluation.history import Action, Fate
from evaluation.traffic import answers
from evaluation.traffic.recorder import Completion
from evaluation.traffic.vectors import vector
from evaluation.traffic.workloads import batch, query

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluation.systems.interface import Entry
    from evaluation.traffic.decision import Decision, Session

_COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"
#: Neighbours that a query asks for.
_NEIGHBOURS = 5
_BOTH = ["metadatas", "documents"]
_METADATA = ["metadatas"]


class NoAnswer(Exception):
    """The connection broke, perhaps after the request had been sent."""


async def _once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keeps aiohttp from sending a request again by itself: a second DELETE would be answered 404."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise NoAnswer(f"{type(error).__name__}: {error}") from error


class Driver:
    """The client side of one entry. Lives on one event loop; `close` ends its connections."""

    def __init__(self, entry: Entry, *, levels: bool, timeout_s: float, prefix: str = "") -> None:
        """`levels`: whether the system knows read levels; if not, none of their headers is sent.
        `prefix`: of the names of all collections, so that runs on one system do not meet."""
        self.entry = entry
        self._prefix = prefix
        self._levels = levels
        self._timeout_s = timeout_s
        self._ids: dict[str, str] = {}
        self._tokens: dict[str, int] = {}
        """Session -> highest log index it was answered."""
        self._http = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            connector=aiohttp.TCPConnector(limit=0),
            middlewares=(_once,),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        await self._http.close()

    # Set-up, not recorded

    async def create(self, names: Sequence[str], deadline_s: float) -> None:
        """These collections exist, here. Raises TimeoutError."""
        for name in names:
            body = {"name": self._prefix + name, "get_or_create": True}
            await self._insist("POST", _COLLECTIONS, body, deadline_s)

    async def resolve(self, names: Sequence[str], deadline_s: float) -> None:
        """This entry knows these collections. Raises TimeoutError."""
        for name in names:
            raw = await self._insist("GET", f"{_COLLECTIONS}/{self._prefix}{name}", None, deadline_s)
            self._ids[name] = str(raw["id"])

    async def fill_query(self, deadline_s: float) -> None:
        """Write what the workload `query` looks for."""
        ids = [query.document(number) for number in range(query.DOCUMENTS)]
        body = {
            "ids": ids,
            "embeddings": [vector(document) for document in ids],
            "documents": ids,
            "metadatas": [{"key": document} for document in ids],
        }
        await self._insist("POST", f"{_COLLECTIONS}/{self._ids['query']}/upsert", body, deadline_s)

    async def _insist(self, method: str, path: str, body: Any, deadline_s: float) -> Any:
        end = time.monotonic() + deadline_s
        while True:
            try:
                status, raw, _ = await self._send(method, path, body, {})
                if 200 <= status < 300:
                    return orjson.loads(raw)
                why = f"{status} {raw[:200]!r}"
            except (aiohttp.ClientError, NoAnswer, TimeoutError) as error:
                why = f"{type(error).__name__}: {error}"
            if time.monotonic() > end:
                raise TimeoutError(f"{method} {path} at {self.entry.name} for {deadline_s} s: {why}")
            await asyncio.sleep(0.1)

    # Traffic

    async def do(self, session: Session, decision: Decision, request_id: str | None) -> Completion:
        """Never raises for what the system does; one deadline for the whole operation."""
        try:
            async with asyncio.timeout(self._timeout_s):
                if decision.action is Action.APPEND:
                    return await self._append(session, decision, request_id)
                return await self._ask(session, decision, request_id)
        except TimeoutError:
            return Completion(
                Fate.UNKNOWN, returned=False, error=f"{answers.NO_ANSWER} in {self._timeout_s:g} s"
            )

    async def _append(self, session: Session, decision: Decision, request_id: str | None) -> Completion:
        read = replace(decision, action=Action.GET)
        # At level `eventual` every system would lose updates: that is what the level says.
        reader = replace(session, level="session") if session.level == "eventual" else session
        try:
            async with asyncio.timeout(self._timeout_s / 2):
                found = await self._ask(reader, read, None)
        except TimeoutError:
            return Completion(Fate.REFUSED, error=answers.READ_NOTHING)
        if found.outcome is not Fate.OK:
            return replace(found, outcome=Fate.REFUSED, returned=True, error=f"not read: {found.error}")
        longer: list[str] = [*(found.value or []), decision.value]
        return await self._ask(session, replace(decision, value=longer), request_id)

    async def _ask(self, session: Session, decision: Decision, request_id: str | None) -> Completion:
        workload, action = decision.workload, decision.action
        if workload == "catalogue":
            method, path, body = _catalogue(decision.action, self._prefix + decision.key)
        else:
            collection = decision.key if workload == "set" else workload
            if collection not in self._ids:
                return Completion(Fate.REFUSED, error=f"collection {collection} is not known here; not sent")
            verb, body = _records(decision)
            method = "GET" if body is None else "POST"
            path = f"{_COLLECTIONS}/{self._ids[collection]}/{verb}"
        try:
            status, raw, headers = await self._send(
                method, path, body, self._headers(session, action, request_id)
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return Completion(Fate.REFUSED, status=None, error=f"{type(error).__name__}: {error}")
        except (aiohttp.ClientError, NoAnswer) as error:
            return Completion(Fate.UNKNOWN, returned=False, error=f"{type(error).__name__}: {error}")
        node, index = headers.get("X-Chroma-Node"), headers.get("X-Chroma-Log-Index", "")
        number = int(index) if index.isdecimal() else None
        name, words = answers.error_of(raw) if status >= 300 else ("", "")
        outcome = answers.outcome_of(action, status, name)
        error = f"{name}: {words}" if name else words
        value = None
        if outcome is Fate.OK:
            if number is not None:
                self._tokens[session.name] = max(number, self._tokens.get(session.name, 0))
            try:
                value = _value(decision, status, orjson.loads(raw) if status < 300 and raw else None)
            except (KeyError, TypeError, IndexError, ValueError) as reason:
                # Not what the API says: no conclusion for a read, and the write is not acknowledged.
                return Completion(
                    Fate.UNKNOWN, None, True, status, f"answer not understood: {reason!r}", node, number
                )
        return Completion(outcome, value, True, status, error, node, number)

    def _headers(self, session: Session, action: Action, request_id: str | None) -> dict[str, str]:
        headers: dict[str, str] = {}
        if action.is_write and request_id is not None:
            headers["Idempotency-Key"] = request_id
        if not self._levels:
            return headers
        if action.is_write:
            headers["X-Chroma-Ack"] = session.ack
        else:
            headers["X-Chroma-Consistency"] = session.level
            # The balancer keeps a session's token by itself; who goes to nodes directly brings it along.
            token = self._tokens.get(session.name)
            if session.level == "session" and self.entry.member is not None and token is not None:
                headers["X-Chroma-Min-Index"] = str(token)
        return headers

    async def _send(
        self, method: str, path: str, body: Any, headers: dict[str, str]
    ) -> tuple[int, bytes, Any]:
        data = None if body is None else orjson.dumps(body)
        if data is not None:
            headers["Content-Type"] = "application/json"
        async with self._http.request(method, self.entry.url + path, data=data, headers=headers) as response:
            return response.status, await response.read(), response.headers

    # Final reads: many keys in one request

    async def read_all(self, session: Session, decisions: Sequence[Decision]) -> list[Completion]:
        """One answer a decision. Gets of single documents go into one request; it is one state of each."""
        found: dict[Decision, Completion] = {}
        plain: dict[str, list[Decision]] = {}
        for decision in decisions:
            if decision.action is Action.GET and decision.workload in _ONE_DOCUMENT:
                plain.setdefault(decision.workload, []).append(decision)
            else:
                found[decision] = await self.do(session, decision, None)
        for workload, same in plain.items():
            for first in range(0, len(same), 100):
                part = same[first : first + 100]
                found.update(zip(part, await self._read_many(session, workload, part), strict=True))
        return [found[decision] for decision in decisions]

    async def _read_many(self, session: Session, workload: str, part: Sequence[Decision]) -> list[Completion]:
        body = {"ids": [decision.key for decision in part], "include": _BOTH}
        path = f"{_COLLECTIONS}/{self._ids.get(workload)}/get"
        try:
            headers = self._headers(session, Action.GET, None)
            status, raw, answered = await self._send("POST", path, body, headers)
            if status != 200:
                name, words = answers.error_of(raw)
                failed = Completion(answers.outcome_of(Action.GET, status, name), None, True, status, words)
                return [failed] * len(part)
            rows = orjson.loads(raw)
        except (aiohttp.ClientError, NoAnswer, TimeoutError) as error:
            failed = Completion(Fate.UNKNOWN, returned=False, error=f"{type(error).__name__}: {error}")
            return [failed] * len(part)
        node, index = answered.get("X-Chroma-Node"), answered.get("X-Chroma-Log-Index", "")
        number = int(index) if index.isdecimal() else None
        values: dict[str, Any] = {}
        for document, metadata, text in zip(rows["ids"], rows["metadatas"], rows["documents"], strict=True):
            one = {"ids": [document], "metadatas": [metadata], "documents": [text]}
            values[document] = _document(workload, one)
        return [
            Completion(Fate.OK, values.get(decision.key), True, status, "", node, number) for decision in part
        ]


#: Workloads whose GET reads one document, which is named by the key.
_ONE_DOCUMENT = frozenset({"register", "append", "counter"})


def _catalogue(action: Action, name: str) -> tuple[str, str, Any]:
    match action:
        case Action.CREATE:
            return "POST", _COLLECTIONS, {"name": name}
        case Action.DROP:
            return "DELETE", f"{_COLLECTIONS}/{name}", None
        case _:
            return "GET", f"{_COLLECTIONS}/{name}", None


def _records(decision: Decision) -> tuple[str, Any]:
    """Verb and body of a request below one collection; no body for a GET."""
    key, value = decision.key, decision.value
    match decision.workload, decision.action:
        case _, Action.COUNT:
            return "count", None
        case _, Action.GET_ALL:
            return "get", {"include": []}
        case _, Action.QUERY:
            return "query", {"query_embeddings": [vector(key)], "n_results": _NEIGHBOURS, "include": []}
        case _, Action.GET_WHERE:
            return "get", {"where": {"key": key}, "include": _BOTH}
        case _, Action.DELETE:
            return "delete", {"ids": [key]}
        case "batch", Action.GET:
            return "get", {"ids": batch.members(key), "include": _METADATA}
        case "batch", _:
            ids = batch.members(key)
            return "upsert", {
                "ids": ids,
                "embeddings": [vector(document) for document in ids],
                "documents": [str(value)] * len(ids),
                "metadatas": [{"value": value}] * len(ids),
            }
        case _, Action.GET:
            return "get", {"ids": [key], "include": _BOTH}
        case "set", _:
            return "add", _document_body(value, value, {"value": value})
        case "append", _:
            return "upsert", _document_body(key, key, {"list": orjson.dumps(value).decode()})
        case "counter", _:
            return "upsert", _document_body(key, key, {"n": value})
        case _, action:
            return action.value, _document_body(key, value, {"key": key, "value": value})


def _document_body(document: str, text: str, metadata: dict[str, Any]) -> dict[str, Any]:
    return {
        "ids": [document],
        "embeddings": [vector(f"{document}={text}")],
        "documents": [text],
        "metadatas": [metadata],
    }


def _value(decision: Decision, status: int, body: Any) -> Any:
    """What a successful answer says."""
    match decision.workload, decision.action:
        case "catalogue", _:
            return status < 300
        case _, action if action.is_write:
            return None
        case _, Action.COUNT:
            return int(body)
        case _, Action.GET_ALL:
            return sorted(body["ids"])
        case _, Action.QUERY:
            return list(body["ids"][0])
        case "batch", _:
            values = answers.by_id(body, "value")
            group = [values.get(document) for document in batch.members(decision.key)]
            return batch.shown(decision.key, group)
        case workload, _:
            return _document(workload, body)


def _document(workload: str, body: Any) -> Any:
    if workload == "register":
        return answers.register_value(body)
    if not body["ids"]:
        return None
    metadata = answers.metadata_of(body)
    return answers.list_value(metadata.get("list")) if workload == "append" else metadata.get("n")
