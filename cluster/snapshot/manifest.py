"""What a snapshot is: one node's files at one log index, each with size and checksum; pure.

A manifest comes from a disk or from another node: `decode` takes nothing from it on trust.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Sequence

FORMAT: Final = 1
STATE: Final = "state.sqlite"
CHROMA: Final = "chroma"
_CHECKSUM_BYTES: Final = 32
_MOST_FILES: Final = 1_000_000
_LONGEST: Final = 512


@dataclass(frozen=True, slots=True)
class File:
    """`path` is relative to the node's directory, with `/`; `checksum` is BLAKE2b in hexadecimal."""

    path: str
    size: int
    checksum: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """`name` is its id; `index` the last log entry that the files have, `term` that entry's term,
    `configuration` what the log says of the members up to there, opaque; `node_id` who took it."""

    name: str
    cluster_id: str
    node_id: str
    index: int
    term: int
    configuration: bytes
    ahead: int
    """Chroma's files may have writes of committed entries up to here, though `index` is all that is marked as
    applied; 0: they have not."""
    files: tuple[File, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def encode(self) -> bytes:
        """A line with the checksum of what follows, then JSON; one and the same for equal manifests."""
        fields = {
            "format": FORMAT,
            "id": self.name,
            "cluster": self.cluster_id,
            "node": self.node_id,
            "index": self.index,
            "term": self.term,
            "configuration": self.configuration.hex(),
            "ahead": self.ahead,
            "files": [[file.path, file.size, file.checksum] for file in self.files],
        }
        body = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
        return checksum(body).encode() + b"\n" + body

    @staticmethod
    def decode(data: bytes) -> Manifest:
        """Raises:
        ValueError: the bytes are none that `encode` wrote, or ask for something that no snapshot does.
        """
        found, _, body = data.partition(b"\n")
        if found.decode("ascii", "replace") != checksum(body):
            raise ValueError("the checksum of the manifest does not match")
        try:
            fields: Any = json.loads(body)
        except RecursionError:
            raise ValueError("the manifest is nested too deeply") from None
        if not isinstance(fields, dict):
            raise ValueError("the manifest is no object")
        said = cast("dict[str, Any]", fields)
        if said.get("format") != FORMAT:
            raise ValueError(f"the manifest has format {said.get('format')!r}, this version reads {FORMAT}")
        listed = said.get("files")
        if not isinstance(listed, list) or len(cast("list[Any]", listed)) > _MOST_FILES:
            raise ValueError("the manifest has no list of files")
        files = tuple(_file(item) for item in cast("list[Any]", listed))
        _check_paths([file.path for file in files])
        return Manifest(
            _name(said.get("id"), "id"),
            _text(said.get("cluster"), "cluster"),
            _text(said.get("node"), "node"),
            _number(said.get("index"), "index"),
            _number(said.get("term"), "term"),
            bytes.fromhex(str(said.get("configuration"))),
            _number(said.get("ahead"), "ahead"),
            files,
        )


def checksum(data: bytes) -> str:
    return hasher(data).hexdigest()


def hasher(data: bytes = b"") -> blake2b:
    """For files that are read in pieces."""
    return blake2b(data, digest_size=_CHECKSUM_BYTES)


def is_name(name: object) -> bool:
    """Whether this may be the id of a snapshot, and so the name of a directory."""
    return (
        isinstance(name, str)
        and 0 < len(name) <= 128
        and name.isascii()
        and name[0].isalnum()
        and all(sign.isalnum() or sign in "-_" for sign in name)
    )


def _name(value: object, what: str) -> str:
    if not is_name(value):
        raise ValueError(f"{what} is not a name: {str(value)[:80]!r}")
    return str(value)


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST:
        raise ValueError(f"{what} is no text of 1 to {_LONGEST} characters")
    return value


def _number(value: object, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise ValueError(f"{what} is no number: {str(value)[:80]!r}")
    return value


def _file(item: object) -> File:
    fields = cast("list[Any]", item) if isinstance(item, list) else []
    if len(fields) != 3:
        raise ValueError("a file of the manifest is not path, size and checksum")
    path, size, digest = fields
    is_digest = isinstance(digest, str) and len(digest) == 2 * _CHECKSUM_BYTES
    if not is_digest or any(sign not in "0123456789abcdef" for sign in digest):
        raise ValueError("a file of the manifest has no checksum")
    return File(_path(path), _number(size, "the size of a file"), digest)


def _path(path: object) -> str:
    """Files are written where they say: below `chroma/`, or the state file, and nowhere else."""
    text = _text(path, "a path")
    parts = text.split("/")
    is_ours = text == STATE or (parts[0] == CHROMA and len(parts) > 1)
    is_plain = all(part not in ("", ".", "..") for part in parts) and "\\" not in text and text.isprintable()
    if not is_ours or not is_plain:
        raise ValueError(f"a snapshot has no file {text!r}")
    return text


def _check_paths(paths: Sequence[str]) -> None:
    known = set(paths)
    if len(known) != len(paths):
        raise ValueError("the manifest has a file twice")
    if STATE not in known:
        raise ValueError("the manifest has no state file")
    for path in paths:
        parts = path.split("/")
        if any("/".join(parts[:at]) in known for at in range(1, len(parts))):
            raise ValueError(f"the manifest has a file where {path} needs a directory")
