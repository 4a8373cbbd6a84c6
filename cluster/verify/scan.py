"""Digests what this node has at one place of the log, while the applier goes on writing.

The applier tells when the log is applied up to that place and not beyond (`begin`). From then on the records
are read page by page, at a bounded rate; and before each further call the applier lets read what that call is
about to change (`before`), if it was not read yet. So what is digested of each record is what it was at that
place, however long the reading takes, and no copy of the files is made: what is read is what is served.

One lock a collection: who holds it reads a page and counts it, and the applier waits for one page at most;
only the first write to a collection after `begin` waits for the list of its ids.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from cluster.chroma.digesting import WHOLE_BYTES, bucket_of, digest_value
from cluster.chroma.interface import RecordDigest
from cluster.errors import ClusterError, EngineDied, Fault, Unavailable
from cluster.state.catalog import Catalog, Change
from cluster.state.commands import DeleteRecords, Reset, WriteRecords
from cluster.verify.digest import DELETED, SET_ASIDE, CollectionDigest, Tally, header_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.chroma.interface import Inspected
    from cluster.state.machine import Verification
    from cluster.state.work import Call

log = logging.getLogger(__name__)

#: Records read at once: some 10 ms of Chroma's time, which a write may have to wait.
_PAGE: Final = 64
#: Records looked for by their own vectors, in each collection; and how many at once.
SAMPLE: Final = 200
_SAMPLED_AT_ONCE: Final = 10
_NEAREST: Final = 10
#: A page that fails because Chroma is away or busy is tried again for so long, with such pauses.
_PATIENCE_S: Final = 60.0
_PAUSE_S: Final = 0.1
#: And one that fails for another reason so often.
_TRIES: Final = 2
#: Stands for a record that cannot be read.
_NO_WHOLE: Final = b"\xff" * WHOLE_BYTES


class _Unreadable(ClusterError):
    """So many records in a row cannot be read that the others need not be tried."""


class _Collection:
    """One collection as it is digested; all but `name` under `lock`."""

    def __init__(self, name: str, wanted: frozenset[int] | None) -> None:
        self.name = name
        self.lock = threading.Lock()
        self.left: set[str] = set()
        self.order: list[str] = []
        self._at = 0
        self._unreadable = 0
        self.listed = False
        self.closed = False
        self.header: dict[str, str] = {}
        self.space: str | None = None
        self.tally = Tally()
        self.parts: dict[str, bytes] = {}
        self.trouble: str | None = None
        self.skipped: str | None = None
        self.asked = self.found = 0
        self._wanted = wanted

    def read_list(self, engine: Inspected) -> None:
        """Its header and the ids of its records, if they were not read before a write changed them."""
        if self.listed:
            return
        rendered = engine.collection(self.name)
        ids = engine.ids(self.name)
        self.header = header_of(rendered)
        self.space = _space_of(rendered)
        if self._wanted is not None:
            ids = [name for name in ids if bucket_of(name) in self._wanted]
        self.order, self.left, self.listed = ids, set(ids), True

    def read_records(self, engine: Inspected, ids: Sequence[str], *, one_by_one: bool = False) -> None:
        """Digest those of these records that were there and are not digested yet.

        Of a page that cannot be read all records count as unreadable, or (`one_by_one`) those that cannot.
        """
        due = [name for name in dict.fromkeys(ids) if name in self.left]
        for start in range(0, len(due), _PAGE):
            page = due[start : start + _PAGE]
            digests = self._digest(engine, page, one_by_one=one_by_one)
            self.tally.add(digests)
            if self._wanted is not None:
                self.parts.update({digest.id: digest.parts for digest in digests})
            # What was listed and is not found is missing here: it is not counted, so the sums differ.
            self.left.difference_update(page)

    def _digest(self, engine: Inspected, page: list[str], *, one_by_one: bool) -> list[RecordDigest]:
        try:
            found = engine.digests(self.name, page)
        except (Unavailable, EngineDied, Fault):
            raise
        except ClusterError as error:
            if len(page) == 1 or not one_by_one:
                self._unreadable += len(page)
                if self._unreadable >= _PAGE and one_by_one:
                    raise _Unreadable(error.message) from None
                return [RecordDigest(name, _NO_WHOLE, b"") for name in page]
            singly = [self._digest(engine, [name], one_by_one=True) for name in page]
            return [digest for digests in singly for digest in digests]
        self._unreadable = 0
        return found

    def read_page(self, engine: Inspected) -> int:
        """Digest the next page of what is left; how many records that were."""
        page: list[str] = []
        at = self._at
        while at < len(self.order) and len(page) < _PAGE:
            if self.order[at] in self.left:
                page.append(self.order[at])
            at += 1
        self.read_records(engine, page, one_by_one=True)
        self._at = at
        if not self.left:
            self.closed = True
        return len(page)

    def close(self, trouble: str | None = None, skipped: str | None = None) -> None:
        if not self.closed:
            self.trouble, self.skipped, self.closed = trouble, skipped, True
            self.left = set()

    def told(self) -> CollectionDigest:
        with self.lock:
            if self.trouble is not None or self.skipped is not None:
                return CollectionDigest(trouble=self.trouble, skipped=self.skipped)
            root = self.tally.root(self.header)
            return CollectionDigest(
                root, self.tally.count, dict(self.header), asked=self.asked, found=self.found
            )


class Scan:
    """One verification on one node, on a thread of its own."""

    def __init__(
        self,
        engine: Inspected,
        verification: Verification,
        state: Sequence[tuple[str, bytes]],
        broken: Sequence[str],
        records_per_s: float,
    ) -> None:
        """`state` and `broken` as of `cluster.apply.witness.Witness.begin`."""
        narrow = verification.command.narrow
        names = [key[2:] for key, _ in state if key.startswith("c/")]
        wanted = names if narrow is None else [name for name in names if name in narrow]
        self.round_id = verification.command.round_id
        self.index = verification.index
        self.narrow = narrow is not None
        self._engine = engine
        self._state = state
        self._rate = records_per_s
        self._collections = {
            name: _Collection(name, None if narrow is None else frozenset(narrow[name])) for name in wanted
        }
        for name in broken:
            if name in self._collections:
                # Every node agreed not to touch it any more: reading it may take Chroma down.
                self._collections[name].close(skipped=SET_ASIDE)
        self.state_digest = ""
        self.strangers: list[str] = []
        self.records = 0
        self._finished = 0
        self._stop = threading.Event()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="verify", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Read no more; what was asked for is not told."""
        self._stop.set()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; whether it has come."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def runs(self) -> bool:
        """Whether there is hope for an end."""
        return not self._stop.is_set() and (self.done or self._thread.is_alive())

    @property
    def done(self) -> bool:
        """Whether everything is digested."""
        return self._done.is_set()

    # -------------------------------------------------------------------------- the applier's thread

    def before(self, call: Call) -> None:
        """Read what the call is about to change."""
        if self.done:
            return
        touched = (*call.dropped, *((call.target.collection_id,) if call.target else ()))
        names = tuple(self._collections) if isinstance(call.command, Reset) else dict.fromkeys(touched)
        for name in names:
            collection = self._collections.get(name)
            if collection is not None:
                self._before(collection, call)

    def _before(self, collection: _Collection, call: Call) -> None:
        command = call.command
        with collection.lock:
            if collection.closed:
                return
            if collection.name in call.dropped or isinstance(command, Reset):
                collection.close(skipped=DELETED)
                return
            try:
                collection.read_list(self._engine)
                if isinstance(command, WriteRecords | DeleteRecords):
                    collection.read_records(self._engine, command.ids or ())
            except EngineDied as error:  # the write goes on, whatever became of this
                collection.close(skipped=error.message)
            except Exception as error:
                _note(collection, error)

    # ------------------------------------------------------------------------------- its own thread

    def _run(self) -> None:
        try:
            self._digest_state()
            for collection in self._collections.values():
                if self._stop.is_set():
                    return
                self._digest(collection)
                self._finished += 1
            if not self.narrow:
                for collection in self._collections.values():
                    self._look_by_vectors(collection)
        except Exception:
            log.exception("digesting for verification %s failed", self.round_id)
            return
        if not self._stop.is_set():
            self._done.set()

    def _digest_state(self) -> None:
        if self.narrow:
            return
        self.state_digest = digest_value([[key, value.hex()] for key, value in self._state]).hex()
        catalog = Catalog()
        for key, value in self._state:
            if key[:2] in ("t/", "d/", "c/"):
                catalog.put(Change(key, value))
        tenants = [key[2:] for key, _ in self._state if key.startswith("t/")]
        databases = [(one.tenant, one.name) for tenant in tenants for one in catalog.databases(tenant)]
        self._state = ()
        until = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until:
            try:
                self.strangers = self._engine.strangers(databases)
                return
            except (Unavailable, EngineDied):
                if self._stop.wait(_PAUSE_S):
                    return
            except ClusterError as error:
                log.warning("collections that are not the cluster's cannot be listed: %s", error.message)
                return

    def _digest(self, collection: _Collection) -> None:
        failures, since = 0, time.monotonic()
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                with collection.lock:
                    if collection.closed:
                        return
                    collection.read_list(self._engine)
                    count = collection.read_page(self._engine)
            except ClusterError as error:
                failures += not isinstance(error, Unavailable)
                if (
                    isinstance(error, _Unreadable)
                    or failures >= _TRIES
                    or time.monotonic() - since > _PATIENCE_S
                ):
                    with collection.lock:
                        _note(collection, error)
                    return
                self._stop.wait(_PAUSE_S)
                continue
            failures, since = 0, time.monotonic()
            self.records += count
            self._keep_to_rate(count, began)

    def _look_by_vectors(self, collection: _Collection) -> None:
        """How well the index finds what is there. Of the present, not of the place in the log: a figure."""
        if collection.trouble is not None or collection.skipped is not None or collection.space == "ip":
            return  # by inner product a record need not be the nearest to its own vector
        sample = sampled(collection.order)
        for start in range(0, len(sample), _SAMPLED_AT_ONCE):
            if self._stop.is_set():
                return
            began = time.monotonic()
            some = sample[start : start + _SAMPLED_AT_ONCE]
            with contextlib.suppress(ClusterError):
                asked, found = self._engine.found_by_vector(collection.name, some, _NEAREST)
                collection.asked += asked
                collection.found += found
            self._keep_to_rate(len(some), began)

    def _keep_to_rate(self, count: int, began: float) -> None:
        rest = count / self._rate - (time.monotonic() - began)
        if rest > 0:
            self._stop.wait(rest)

    # ------------------------------------------------------------------------------------- telling

    def progress(self) -> dict[str, Any]:
        """How far it is."""
        return {
            "records": self.records,
            "collections": self._finished,
            "of_collections": len(self._collections),
        }

    def told(self) -> dict[str, CollectionDigest]:
        """Every collection, once all are done."""
        return {name: collection.told() for name, collection in self._collections.items()}

    def buckets(self, names: Sequence[str]) -> dict[str, dict[int, str]]:
        """The buckets of these collections."""
        return {name: self._collections[name].tally.told() for name in names if name in self._collections}

    def parts(self) -> dict[str, dict[str, bytes]]:
        """The digests of the parts of each record, of a verification that is narrow."""
        return {name: dict(collection.parts) for name, collection in self._collections.items()}


def sampled(ids: Sequence[str]) -> list[str]:
    """At most `SAMPLE` of these, spread evenly: the same on every node that lists the same."""
    step = max(1, -(-len(ids) // SAMPLE))
    return list(ids[::step])


def _note(collection: _Collection, error: Exception) -> None:
    """Why this collection cannot be digested: of itself, or only now."""
    message = error.message if isinstance(error, ClusterError) else f"{type(error).__name__}: {error}"
    if isinstance(error, Unavailable | Fault):
        collection.close(skipped=message)
    else:
        collection.close(trouble=message)


def _space_of(rendered: dict[str, Any]) -> str | None:
    configuration: Any = rendered.get("configuration_json") or {}
    index = configuration.get("hnsw") or {}
    space = index.get("space")
    return space if isinstance(space, str) else None
