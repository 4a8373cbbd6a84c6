"""Which engine failures are answers and which stop the node: a table."""

from __future__ import annotations

import sqlite3

import pytest
from chromadb.errors import InternalError, InvalidArgumentError, NotFoundError, UniqueConstraintError

from cluster.chroma.errors import (
    fault_of,
    is_busy,
    is_missing,
    is_panic,
    is_present,
    read_failure,
    refusal_of,
)
from cluster.errors import Fault, Refusal


class PanicException(BaseException):
    """Named like pyo3's, which cannot be imported."""


@pytest.mark.parametrize(
    ("error", "status", "name"),
    [
        (InvalidArgumentError("Invalid where clause"), 400, "InvalidArgumentError"),
        (NotFoundError("Collection [x] does not exist"), 404, "NotFoundError"),
        (UniqueConstraintError("x"), 409, "ChromaError"),
        (InternalError("Collection [x] already exists"), 409, "ChromaError"),
        (
            InternalError("Unimplemented: Sparse vector is not supported for local chroma: s"),
            501,
            "ChromaError",
        ),
        (InternalError("(code: 2067) UNIQUE constraint failed: collections.name"), 500, "InternalError"),
        (TypeError("argument 'ids'"), 400, "InvalidArgumentError"),
        (ValueError("Empty lists are not allowed as metadata values"), 400, "InvalidArgumentError"),
        (OverflowError("out of range"), 400, "InvalidArgumentError"),
        (
            PanicException("unreachable code: Array metadata values are written to embedding_metadata_array"),
            400,
            "InvalidArgumentError",
        ),
        (Refusal(422, "IdempotencyKeyReusedError", "x"), 422, "IdempotencyKeyReusedError"),
    ],
)
def test_deterministic_failures_are_refusals(error: BaseException, status: int, name: str) -> None:
    refusal = refusal_of(error)
    assert refusal is not None
    assert (refusal.status, refusal.error) == (status, name)


@pytest.mark.parametrize(
    "error",
    [
        InternalError("error returned from database: (code: 13) database or disk is full"),
        InternalError("attempt to write a readonly database"),
        InvalidArgumentError("Error in compaction: Failed to pull logs from the log store"),
        OSError(28, "No space left on device"),
        sqlite3.OperationalError("disk I/O error"),
        PanicException("called `Result::unwrap()` on an `Err` value: Io"),
        MemoryError(),
    ],
)
def test_what_may_be_particular_to_this_node_is_no_refusal(error: BaseException) -> None:
    assert refusal_of(error) is None
    assert read_failure(error).status == 500
    fault = fault_of("apply Add of log entry 9", error)
    assert isinstance(fault, Fault)
    assert "log entry 9" in fault.message
    assert "no entry was skipped" in fault.message


def test_the_engines_words_for_there_and_not_there() -> None:
    assert is_present(InternalError("Database [x] already exists"))
    assert not is_present(InternalError("disk full"))
    assert is_missing(NotFoundError("Database [x] not found"))
    assert is_missing(InvalidArgumentError("Database [x] does not exist"))
    assert not is_missing(InternalError("Collection [x] does not exist"))
    assert is_panic(PanicException("x"))
    assert not is_panic(RuntimeError("x"))


def test_a_locked_database_is_no_fault_and_no_answer() -> None:
    locked = RuntimeError("Database error: error returned from database: (code: 5) database is locked")
    assert is_busy(locked)
    assert refusal_of(locked) is None
    assert not is_busy(RuntimeError("error from database: (code: 10) disk I/O error"))
