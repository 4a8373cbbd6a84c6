"""A lock that expires during a pause loses acknowledged changes; a condition on the pointer keeps them."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluation.compactor.campaign import measured_run
from evaluation.compactor.lease import Lock
from evaluation.compactor.model import Variant
from evaluation.compactor.storage import Bucket, Conflict, StorageServer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = StorageServer(tmp_path_factory.mktemp("s3"))
    try:
        asyncio.run(server.start())
        yield server.endpoint
    finally:
        server.stop()


def test_the_storage_refuses_a_conditional_write_whose_condition_fails(endpoint: str) -> None:
    bucket = Bucket(endpoint, "conditions")
    first = bucket.create("x", b"1")
    with pytest.raises(Conflict):
        bucket.create("x", b"2")
    second = bucket.swap("x", b"3", first)
    with pytest.raises(Conflict):
        bucket.swap("x", b"4", first)
    with pytest.raises(Conflict):
        bucket.swap("none", b"5", second)
    stored = bucket.get("x")
    assert stored is not None
    assert (stored.body, stored.etag) == (b"3", second)


def test_one_of_many_gets_the_lock(endpoint: str) -> None:
    async def race(number: int) -> int:
        locks = [Lock(Bucket(endpoint, f"race/{number}"), f"worker-{each}", 60_000) for each in range(6)]
        taken = await asyncio.gather(*(asyncio.to_thread(lock.take) for lock in locks))
        return sum(lease is not None for lease in taken)

    async def races() -> list[int]:
        return [await race(number) for number in range(5)]

    assert asyncio.run(races()) == [1] * 5


@pytest.mark.parametrize(
    ("fault", "variant", "seed"),
    [
        ("pause-holder", Variant.UNFENCED, 1),
        ("pause-holder", Variant.UNFENCED, 2),
        ("pause-holder", Variant.CHECKED, 1),
        ("pause-holder", Variant.FENCED, 1),
        ("pause-holder", Variant.FENCED, 2),
        ("kill-holder", Variant.UNFENCED, 1),
        ("kill-holder", Variant.FENCED, 1),
    ],
)
def test_what_is_lost(endpoint: str, tmp_path: Path, fault: str, variant: Variant, seed: int) -> None:
    row = asyncio.run(measured_run(endpoint, variant, fault, seed, tmp_path))
    assert "error" not in row, row["error"]
    assert row["as_expected"], row
    if fault == "pause-holder":
        assert row["refused_moves"] == (1 if variant is Variant.FENCED else 0)
        # The proof that the fault bit: both believed at one time that the lock was theirs.
        paused = next(held for held in row["holdings"] if held["paused_ns"])
        others = [held for held in row["holdings"] if held["worker"] != paused["worker"]]
        assert any(paused["awake_ns"] > held["locked_ns"] > paused["paused_ns"] for held in others)
