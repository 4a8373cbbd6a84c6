"""Which failures of Chroma's engine are deterministic answers and which are faults of this node; pure.

The engine speaks through a handful of exception classes whose names do not settle the question (a
name that is taken arrives as InternalError, a log that cannot be read as InvalidArgumentError), so
its words are consulted as well. What is not known to be deterministic is a fault: a node that stops
is repaired from the others, a node that answers differently from the others is not noticed.
"""

from __future__ import annotations

from typing import Final

from cluster.errors import FILLED_BY_OTHERS, ClusterError, Fault, Refusal

#: InvalidArgumentError with these words comes from Chroma's own storage, not from a request.
_FAULT_WORDS: Final = ("failed to pull logs", "log store")

#: (words, status, name) of refusals that the engine raises as InternalError or as a panic: status
#: and name are those with which `chroma run` answers where it answers, and 400 where it hangs up.
_KNOWN_REFUSALS: Final = (
    ("] already exists", 409, "ChromaError"),
    ("Sparse vector is not supported for local", 501, "ChromaError"),
    ("Sparse vector is not yet supported for local", 400, "InvalidArgumentError"),
    ("Array metadata values are written to embedding_metadata_array", 400, "InvalidArgumentError"),
    ("UNIQUE constraint failed: collections.name", 500, "InternalError"),
    ("Sparse vector indexing is not enabled in local", 400, "InvalidArgumentError"),
    # SQLite on statements that are too large, whatever they read.
    ("too many SQL variables", 500, "InternalError"),
    ("Expression tree is too large", 500, "InternalError"),
    ("LIKE or GLOB pattern too complex", 500, "InternalError"),
    # A regular expression that is too large.
    ("(code: 1043) constraint failed", 500, "InternalError"),
)

#: What a client reads in place of the text of a panic.
_PANIC_WORDS: Final = {
    "Sparse vector is not yet supported for local": (
        "Sparse vectors are not supported in collection metadata by a local Chroma. Nothing was changed."
    ),
    "Array metadata values are written to embedding_metadata_array": (
        "Lists are not supported in collection metadata by a local Chroma. Nothing was changed."
    ),
}

_DAMAGED: Final = f"Its Chroma is damaged. {FILLED_BY_OTHERS.rstrip('.')}"

#: Words of failures that come from the machine: the same call works when disk, rights or memory are in order.
_ENVIRONMENT: Final[tuple[tuple[str, str], ...]] = (
    ("disk full", "Free space on its disk"),
    ("disk is full", "Free space on its disk"),
    ("no space left", "Free space on its disk"),
    ("disk quota", "Free space on its disk"),
    ("permission denied", "Make its data directory writable for this user"),
    ("readonly database", "Make its data directory writable for this user"),
    ("read-only file system", "Make its data directory writable for this user"),
    ("unable to open database", "Make its data directory readable and writable for this user"),
    ("disk i/o error", "Check the disk"),
    ("input/output error", "Check the disk"),
    ("malformed", _DAMAGED),
    ("file is not a database", _DAMAGED),
    ("too many open files", "Raise its limit of open files (`ulimit -n`)"),
    ("cannot allocate memory", "Give it more memory"),
)

_CONVERSION_CLASSES: Final = (TypeError, ValueError, OverflowError, KeyError)


def refusal_of(error: BaseException) -> Refusal | None:
    """The deterministic refusal that `error` is, or None if it may be particular to this node."""
    if isinstance(error, Refusal):
        return error
    name, text = type(error).__name__, str(error)
    for words, status, answer in _KNOWN_REFUSALS:
        if words in text:
            return Refusal(status, answer, _PANIC_WORDS.get(words, text))
    if name == "InvalidArgumentError":
        if any(words in text.lower() for words in _FAULT_WORDS):
            return None
        return Refusal(400, "InvalidArgumentError", text)
    if name == "NotFoundError":
        return Refusal(404, "NotFoundError", text)
    if name == "UniqueConstraintError":
        return Refusal(409, "ChromaError", text)
    if isinstance(error, _CONVERSION_CLASSES):
        return Refusal(400, "InvalidArgumentError", text)
    return None


def is_panic(error: BaseException) -> bool:
    """Whether `error` is a Rust panic: a BaseException that plain `except Exception` lets pass."""
    return type(error).__name__ == "PanicException"


def is_busy(error: BaseException) -> bool:
    """Whether SQLite says that its lock is held at the moment: the same call may work a moment later."""
    return "(code: 5) database is locked" in str(error)


def is_missing(error: BaseException) -> bool:
    """Whether the engine says that the tenant, database or collection is not there."""
    text = str(error)
    return type(error).__name__ == "NotFoundError" or (
        type(error).__name__ == "InvalidArgumentError" and text.endswith("does not exist")
    )


def is_present(error: BaseException) -> bool:
    """Whether the engine says that what is to be created is already there."""
    return "] already exists" in str(error)


def read_failure(error: BaseException) -> ClusterError:
    """What a client is told when a read fails: Chroma's refusal, or 500 in Chroma's words."""
    return refusal_of(error) or ClusterError(str(error))


def environment_of(text: str) -> str | None:
    """What to do about a failure that the machine caused (disk, rights, memory); None if it is none."""
    lowered = text.lower()
    return next((advice for words, advice in _ENVIRONMENT if words in lowered), None)


def fault_of(action: str, error: BaseException) -> Fault:
    """What `action` failed with, and whose doing it was: the machine's, or maybe the request's."""
    advice = environment_of(str(error))
    what = (
        f"This node's Chroma failed to {action}: {type(error).__name__}: {error}. "
        "The log entry was not marked as applied and no entry was skipped. "
    )
    if advice is not None:
        return Fault(f"{what}{advice}, then restart the node.")
    return Fault(f"{what}Neither disk nor rights are known to be the cause: it may be what was asked for.")
