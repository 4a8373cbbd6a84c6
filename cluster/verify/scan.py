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

from cluster.chroma.digesting import digest_value
from cluster.errors import ClusterError, EngineDied, Unavailable
from cluster.state.catalog import Catalog, Change
from cluster.state.commands import DeleteRecords, Reset, WriteRecords
from cluster.verify.collection import DigestedCollection, Unreadable
from cluster.verify.digest import DELETED, SET_ASIDE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.chroma.interface import Inspected
    from cluster.state.machine import Verification
    from cluster.state.work import Call
    from cluster.verify.digest import CollectionDigest

log = logging.getLogger(__name__)

#: Records looked for by their own vectors, in each collection; and how many at once.
SAMPLE: Final = 200
_SAMPLED_AT_ONCE: Final = 10
_NEAREST: Final = 10
#: A page that fails because Chroma is away or busy is tried again for so long, with such pauses.
_PATIENCE_S: Final = 60.0
_PAUSE_S: Final = 0.1
#: And one that fails for another reason so often.
_TRIES: Final = 2


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
            name: DigestedCollection(name, None if narrow is None else frozenset(narrow[name]))
            for name in wanted
        }
        for name in broken:
            if name in self._collections:
                # Every node agreed not to touch it any more: reading it may take Chroma down.
                self._collections[name].close(skipped=SET_ASIDE)
        self.encoded: dict[str, list[Any]] = {}
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

    def _before(self, collection: DigestedCollection, call: Call) -> None:
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
                collection.note(error)

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
        # Here and once: adding up thousands of collections would hold up whoever asks for it.
        self.encoded = {name: digest.encode() for name, digest in self.told().items()}
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

    def _digest(self, collection: DigestedCollection) -> None:
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
                    isinstance(error, Unreadable)
                    or failures >= _TRIES
                    or time.monotonic() - since > _PATIENCE_S
                ):
                    with collection.lock:
                        collection.note(error)
                    return
                self._stop.wait(_PAUSE_S)
                continue
            failures, since = 0, time.monotonic()
            self.records += count
            self._keep_to_rate(count, began)

    def _look_by_vectors(self, collection: DigestedCollection) -> None:
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
