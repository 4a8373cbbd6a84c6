"""Real texts of this machine: what Python's own standard library says about itself.

Files are parsed, never imported, so nothing of them runs.
"""

from __future__ import annotations

import ast
import sysconfig
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

#: Parts of the library that hold tests, data or copies.
SKIPPED: Final = frozenset(
    {
        *("site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo"),
        *("encodings", "ensurepip", "distutils", "pydoc_data", "__phello__"),
    }
)
MIN_CHARACTERS: Final = 60
#: Chapters of the language reference are cut into pieces of about this size, between paragraphs.
PIECE_CHARACTERS: Final = 1000

_DEFINITIONS: Final = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_Documented: TypeAlias = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Text:
    """One text: its id (`csv.DictReader`, `topic lambda`), kind, line in its file, and the words."""

    id: str
    kind: str
    module: str
    line: int
    words: str

    @property
    def metadata(self) -> dict[str, str | int]:
        """What is stored with the text."""
        return {"kind": self.kind, "module": self.module, "line": self.line}


def library(root: Path | None = None) -> Iterator[Text]:
    """Docstrings of all public modules, classes and functions of the library at `root`."""
    root = root or Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if SKIPPED.isdisjoint(parts):
            try:
                yield from docstrings(path.read_bytes(), module_name(parts))
            except (OSError, SyntaxError, ValueError):
                continue  # a file that this Python cannot read has no docstring to offer


def module_name(parts: Sequence[str]) -> str:
    """`json.decoder` for json/decoder.py, `json` for json/__init__.py."""
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def docstrings(source: bytes, module: str) -> Iterator[Text]:
    """The docstrings in one file, from the module's own down to its methods'."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd escapes in old files are not this program's business
        tree = ast.parse(source)
    waiting: list[tuple[str, str, _Documented]] = [(module, "module", tree)]
    while waiting:
        name, kind, node = waiting.pop(0)
        words = ast.get_docstring(node)
        if words and len(words) >= MIN_CHARACTERS:
            yield Text(name, kind, module, getattr(node, "lineno", 1), words)
        for child in node.body:
            if isinstance(child, _DEFINITIONS) and not child.name.startswith("_"):
                child_kind = "class" if isinstance(child, ast.ClassDef) else "function"
                waiting.append((f"{name}.{child.name}", child_kind, child))


def topics(chapters: Mapping[str, str] | None = None) -> Iterator[Text]:
    """The language reference that `help()` shows, in pieces."""
    if chapters is None:
        from pydoc_data import topics as reference

        chapters = reference.topics
    for name, chapter in sorted(chapters.items()):
        for number, piece in enumerate(pieces(chapter), start=1):
            if len(piece) >= MIN_CHARACTERS:
                yield Text(f"topic {name} {number}", "topic", "pydoc_data.topics", number, piece)


def pieces(chapter: str) -> Iterator[str]:
    """A chapter cut between paragraphs; a paragraph is never cut."""
    held = ""
    for paragraph in chapter.split("\n\n"):
        if held and len(held) + len(paragraph) > PIECE_CHARACTERS:
            yield held.strip()
            held = ""
        held += paragraph + "\n\n"
    if held.strip():
        yield held.strip()


def unique(texts: Iterable[Text]) -> Iterator[Text]:
    """The texts with distinct ids: a second one of a name (a property's setter, say) is left out."""
    seen: set[str] = set()
    for text in texts:
        if text.id not in seen:
            seen.add(text.id)
            yield text


def sample(texts: Sequence[Text], count: int) -> list[Text]:
    """At most `count` texts, spread evenly, so that every corner of the library is in it."""
    if count >= len(texts):
        return list(texts)
    return [texts[at * len(texts) // count] for at in range(count)]
