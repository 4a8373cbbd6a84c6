"""Writes texts through the balancer as a patient client: what is not acknowledged is sent again."""

from __future__ import annotations

import threading
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Final

from chromadb.errors import ChromaError

from cluster.cli.demo.local import DemoError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from cluster.cli.demo.corpus import Text
    from cluster.cli.demo.ledger import Ledger
    from cluster.client import TextCollection

RETRY_FOR_S: Final = 60.0
RETRY_WAIT_S: Final = 0.05


def batches(texts: Sequence[Text], size: int) -> Iterator[Sequence[Text]]:
    """The texts, `size` at a time."""
    for start in range(0, len(texts), size):
        yield texts[start : start + size]


def write(collection: TextCollection, batch: Sequence[Text], ledger: Ledger, stop: threading.Event) -> None:
    """Add a batch and enter it in the ledger once it is acknowledged, or give up when told to stop.

    To add the same again is harmless, Chroma keeps the first: so a write whose outcome is unknown
    is sent until it is acknowledged.

    Raises:
        DemoError: it was not, for a minute.
    """
    give_up_at = time.monotonic() + RETRY_FOR_S
    while not stop.is_set():
        try:
            collection.add(
                ids=[text.id for text in batch],
                documents=[text.words for text in batch],
                metadatas=[dict(text.metadata) for text in batch],
            )
        # The stock client raises bare `Exception`s for error names that it does not know.
        except Exception as error:
            if is_final(error) or time.monotonic() > give_up_at:
                raise DemoError(f"A write was not taken: {type(error).__name__}: {error}") from error
            ledger.retried()
            stop.wait(RETRY_WAIT_S)
        else:
            ledger.acknowledged({text.id: text.words for text in batch})
            return


def is_final(error: Exception) -> bool:
    """Would the same write be refused again?"""
    too_many = 429
    return isinstance(error, ChromaError) and 400 <= error.code() < 500 and error.code() != too_many


def write_all(
    collection: TextCollection,
    texts: Sequence[Text],
    ledger: Ledger,
    *,
    batch_size: int,
    writers: int,
    progress: Callable[[int], None],
) -> None:
    """Write all texts with several writers at once; `progress` gets the number acknowledged each time.

    Raises:
        DemoError: a batch could not be written; the others are stopped.
    """
    stop = threading.Event()

    def one(batch: Sequence[Text]) -> int:
        write(collection, batch, ledger, stop)
        return len(batch)

    with ThreadPoolExecutor(writers, thread_name_prefix="writer") as pool:
        pending: set[Future[int]] = {pool.submit(one, batch) for batch in batches(texts, batch_size)}
        try:
            while pending:
                done, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in done:
                    progress(future.result())
        finally:
            stop.set()
