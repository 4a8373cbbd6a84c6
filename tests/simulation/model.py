"""What the log means, written a second time and as plainly as possible: the yardstick for every node.

One proposal after the other, nothing merged, nothing remembered on disk. It knows the rules of request ids
(bounded by log time and by count) and of records; it shares no code with `cluster.state.machine`.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cluster.state.commands import (
    CreateCollection,
    DeleteCollection,
    DeleteDatabase,
    DeleteRecords,
    RaiseLevel,
    RefuseEntry,
    Verify,
    WriteRecords,
    decode_group,
)
from tests.simulation.engine import record_digest

if TYPE_CHECKING:
    from cluster.state.commands import Command, Proposal
    from cluster.state.machine import Limits
    from tests.simulation.engine import Record

Position = tuple[int, int]
"""(index, position): every entry up to index is applied, and `position` proposals of the next one."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How a request was first decided: HTTP status, body, and where in the log."""

    status: int
    body: Any
    index: int
    digest: bytes
    time_ms: int


class Model:
    """Apply committed entries in order; look up what was decided and what each collection held when."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._payloads: list[bytes] = []
        self.refused: dict[tuple[int, int], RefuseEntry] = {}
        """By (index, position): the first agreement in the log to refuse that write."""
        self._begin()

    def _begin(self) -> None:
        self.index = 0
        self.answers: dict[str, list[Answer]] = {}
        """All decisions of a request id in log order; more than one only after it was forgotten."""
        self.history: dict[str, list[tuple[Position, int | None]]] = {}
        """By collection: the positions at which its content changed, and its digest from there on."""
        self._window_ms = self._limits.window_ms
        self._max_requests = self._limits.max_requests
        self._troubles: dict[str, tuple[int, bool]] = {}
        self._remembered: OrderedDict[str, Answer] = OrderedDict()
        self._time_ms = 0
        self.level = 1
        self.verified = 0
        self._names: dict[str, str] = {}
        self._has_database = True
        self._records: dict[str, dict[str, Record]] = {}
        self._dimensions: dict[str, int] = {}

    def apply(self, index: int, payload: bytes) -> None:
        assert index == self.index + 1
        self._payloads.append(payload)
        known = len(self.refused)
        for command in (proposal.command for proposal in decode_group(payload).proposals) if payload else ():
            if isinstance(command, RefuseEntry) and command.index < index:
                self.refused.setdefault((command.index, command.position), command)
        if len(self.refused) > known:
            # Its answer and effect were never seen, for no node has got past it: the log reads otherwise now.
            self._begin()
            for number, earlier in enumerate(self._payloads, 1):
                self._apply(number, earlier)
        else:
            self._apply(index, payload)

    def _apply(self, index: int, payload: bytes) -> None:
        group = decode_group(payload) if payload else None
        if group is not None:
            self._time_ms = max(self._time_ms, group.time_ms)
            count = len(group.proposals)
            for at, proposal in enumerate(group.proposals, 1):
                agreement = self.refused.get((index, at - 1))
                self._take(index, (index, 0) if at == count else (index - 1, at), proposal, agreement)
        self.index = index

    def command_at(self, point: tuple[int, int]) -> Command:
        """The command of proposal `point[1]` of entry `point[0]`."""
        return decode_group(self._payloads[point[0] - 1]).proposals[point[1]].command

    def digest_at(self, collection_id: str, position: Position) -> int | None:
        """The content's digest at a position, None if the collection did not exist."""
        found: int | None = None
        for since, digest in self.history.get(collection_id, ()):
            if since > position:
                break
            found = digest
        return found

    def collections(self) -> dict[str, int]:
        return {name: self.history[name][-1][1] or 0 for name in self._records}

    def _take(
        self, index: int, position: Position, proposal: Proposal, agreement: RefuseEntry | None
    ) -> None:
        earlier = self._remembered.get(proposal.request_id)
        if earlier is not None and self._time_ms - earlier.time_ms <= self._window_ms:
            return
        if agreement is not None:
            status, body = self._refuse(proposal.command, position, agreement)
        else:
            status, body = self._decide(proposal.command, position)
        answer = Answer(status, body, index, proposal.digest, self._time_ms)
        self.answers.setdefault(proposal.request_id, []).append(answer)
        for request_id, old in list(self._remembered.items()):
            if self._time_ms - old.time_ms <= self._window_ms:
                break
            del self._remembered[request_id]
        self._remembered[proposal.request_id] = answer
        self._remembered.move_to_end(proposal.request_id)
        while len(self._remembered) > self._max_requests:
            self._remembered.popitem(last=False)

    def _refuse(self, command: Any, position: Position, agreement: RefuseEntry) -> tuple[int, Any]:
        """Nothing takes effect; but Chroma fixes a dimension with the first engine call of a write."""
        name = command.collection_id
        if agreement.part and isinstance(command, WriteRecords) and command.dimension is not None:
            self._dimensions.setdefault(name, command.dimension)
        refused, broken = self._troubles.get(name, (0, False))
        self._troubles[name] = (refused + 1, broken or agreement.broken)
        return 500, None

    def _is_aside(self, name: str) -> bool:
        refused, broken = self._troubles.get(name, (0, False))
        return broken or refused >= 3

    def _decide(self, command: Any, position: Position) -> tuple[int, Any]:
        if isinstance(command, WriteRecords | DeleteRecords) and self._is_aside(command.collection_id):
            return 500, None
        match command:
            case RefuseEntry():
                return 200, {}
            case Verify():
                self.verified += 1
                return 200, {}
            case RaiseLevel(level=level):
                self.level = max(self.level, level)
                return 200, {"level": self.level}
            case CreateCollection(name=name, collection_id=collection_id, get_or_create=get):
                if not self._has_database:
                    return 400, None
                if name in self._names:
                    return (200, {"$collection": self._names[name]}) if get else (409, None)
                self._names[name] = collection_id
                self._records[collection_id] = {}
                self._changed(collection_id, position, 0)
                return 200, {"$collection": collection_id}
            case DeleteCollection(name=name):
                if name not in self._names:
                    return 404, None
                self._drop(self._names.pop(name), position)
                return 200, {}
            case DeleteDatabase():  # there is only one
                if not self._has_database:
                    return 404, None
                self._has_database = False
                names, self._names = self._names, {}
                for collection_id in names.values():
                    self._drop(collection_id, position)
                return 200, {}
            case WriteRecords() as write:
                return self._write(write, position)
            case DeleteRecords() as delete:
                return self._delete(delete, position)
            case other:
                raise AssertionError(f"the simulation makes no {type(other).__name__}")

    def _drop(self, collection_id: str, position: Position) -> None:
        del self._records[collection_id]
        self._dimensions.pop(collection_id, None)
        self._troubles.pop(collection_id, None)
        self._changed(collection_id, position, None)

    def _write(self, write: WriteRecords, position: Position) -> tuple[int, Any]:
        name = write.collection_id
        records = self._records.get(name)
        if records is None:
            return 404, None
        held = self._dimensions.get(name)
        if held is not None and write.dimension is not None and write.dimension != held:
            return 400, None
        if held is None and write.dimension is not None:
            self._dimensions[name] = write.dimension
        self._troubles.pop(name, None)
        digest = self.history[name][-1][1] or 0
        for at, record_id in enumerate(write.ids):
            old = records.get(record_id)
            if (write.kind == "add") == (old is not None) and write.kind != "upsert":
                continue
            new: Record = (
                write.embeddings[at] if write.embeddings is not None else None,
                write.documents[at] if write.documents is not None else None,
                (write.metadatas[at] or {}).get("n") if write.metadatas is not None else None,
            )
            if old is not None:
                new = tuple(
                    fresh if fresh is not None else kept for fresh, kept in zip(new, old, strict=True)
                )  # type: ignore[assignment]
                digest ^= record_digest(record_id, old)
            digest ^= record_digest(record_id, new)
            records[record_id] = new
        self._changed(name, position, digest)
        return (201 if write.kind == "add" else 200), {}

    def _delete(self, delete: DeleteRecords, position: Position) -> tuple[int, Any]:
        name = delete.collection_id
        records = self._records.get(name)
        if records is None:
            return 404, None
        if delete.where is None:
            doomed = list(delete.ids or ())
        else:
            parity = json.loads(delete.where)["parity"]
            doomed = sorted(
                record_id
                for record_id, (_, _, number) in records.items()
                if number is not None and number % 2 == parity
            )[: delete.limit]
        digest = self.history[name][-1][1] or 0
        for record_id in doomed:
            old = records.pop(record_id, None)
            if old is not None:
                digest ^= record_digest(record_id, old)
        self._changed(name, position, digest)
        return 200, {"deleted": len(doomed)}

    def _changed(self, name: str, position: Position, digest: int | None) -> None:
        history = self.history.setdefault(name, [])
        if not history or history[-1][1] != digest:
            history.append((position, digest))
