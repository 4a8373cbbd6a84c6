"""This node's part in a verification: it digests when the log says so, and tells when it is asked."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, Final

from cluster.verify.scan import Scan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.chroma.interface import Inspected
    from cluster.state.machine import Verification
    from cluster.state.work import Call

log = logging.getLogger(__name__)

#: A round has two looks: what the first one found is asked while the second one begins.
_KEPT: Final = 2
_STOP_S: Final = 30.0


class Scanner:
    """A `cluster.apply.witness.Witness`; thread-safe."""

    def __init__(self, engine: Inspected, records_per_s: float) -> None:
        """At most `records_per_s` records are read in a second, besides those that are about to change."""
        self._engine = engine
        self._rate = records_per_s
        self._lock = threading.Lock()
        self._scans: list[Scan] = []
        self._closed = False

    def begin(
        self, verification: Verification, state: Sequence[tuple[str, bytes]], broken: Sequence[str]
    ) -> None:
        """As `cluster.apply.witness.Witness.begin`."""
        scan = Scan(self._engine, verification, state, broken, self._rate)
        with self._lock:
            if self._closed:
                return
            for other in self._scans:
                other.stop()
            scan.start()  # before anybody can ask whether it runs
            self._scans = [*self._scans[1 - _KEPT :], scan]
        log.info("verification %s at log entry %d: digesting", scan.round_id, scan.index)

    def before(self, call: Call) -> None:
        """As `cluster.apply.witness.Witness.before`."""
        if self._scans:
            self._scans[-1].before(call)

    def close(self) -> None:
        """Stop digesting."""
        with self._lock:
            self._closed = True
            scans = tuple(self._scans)
        for scan in scans:
            scan.stop()
        for scan in scans:
            scan.join(_STOP_S)

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """What this node knows of a round.

        `question` has the `round`; of one that is done the answer has all `digests`, or what else the
        question `wants`: the `buckets` of some `collections`, or the `parts` of a narrow round's records.

        Raises:
            ValueError, TypeError, KeyError: it is no such question.
        """
        round_id, wants = str(question["round"]), str(question.get("wants", "digests"))
        scan = next((one for one in self._scans if one.round_id == round_id), None)
        if scan is None:
            return {"state": "unknown"}
        if not scan.done:
            state = "scanning" if scan.runs else "failed"
            return {"state": state, "progress": scan.progress()}
        told: dict[str, Any] = {"state": "done", "index": scan.index, "progress": scan.progress()}
        match wants:
            case "digests":
                told["digests"] = scan.encoded
                told["replicated_state"] = scan.state_digest
                told["strangers"] = scan.strangers
            case "buckets":
                names = [str(name) for name in question["collections"]]
                told["buckets"] = {
                    name: {str(bucket): total for bucket, total in buckets.items()}
                    for name, buckets in scan.buckets(names).items()
                }
            case "parts":
                told["parts"] = {
                    name: {record: parts.hex() for record, parts in records.items()}
                    for name, records in scan.parts().items()
                }
            case "state":
                pass
            case _:
                raise ValueError(f"nobody knows what {wants} are")
        return told
