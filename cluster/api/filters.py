"""How large the two filters of a request are together, counted before an engine sees them; pure.

A filter is counted by its shape, not by its meaning: what Chroma does not read, it refuses by itself. Depth
has no bound here, because Chroma's reader refuses a filter beyond 62 levels in its own words.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, cast

from cluster.api import limits
from cluster.api.names import invalid
from cluster.api.patterns import cost

_PHRASES: Final = frozenset({"$contains", "$not_contains"})
_REGEXES: Final = frozenset({"$regex", "$not_regex"})
#: The key by which `where` means the document.
_DOCUMENT: Final = "#document"


@dataclass(slots=True)
class _Size:
    """`conditions` are the members of lists that are objects, `values` those that are not."""

    conditions: int = 0
    values: int = 0
    phrases: list[str] = field(default_factory=list[str])
    regexes: list[str] = field(default_factory=list[str])


def check_filters(where: Any, where_document: Any, texts: tuple[str | None, str | None]) -> None:
    """Refuse filters (as read from JSON, and their `texts`) that are too large for the engine.

    Raises:
        Refusal: 400, they are, or a text to look for in documents has a NUL in it.
    """
    if where is None and where_document is None:
        return
    limits.FILTER_BYTES.check(sum(len(text.encode()) for text in texts if text is not None))
    size = _Size()
    for value, of_documents in ((where, False), (where_document, True)):
        if value is not None:
            before = size.conditions
            _measure(value, size, of_documents=of_documents)
            size.conditions = max(size.conditions, before + 1)
    limits.CONDITIONS.check(size.conditions)
    limits.FILTER_VALUES.check(size.values)
    limits.REGEXES.check(len(size.regexes))
    for phrase in size.phrases:
        limits.check_text(limits.PHRASE_BYTES, phrase)
        if "\x00" in phrase:
            raise invalid(
                "A text in $contains or $not_contains has a NUL in it, and Chroma looks for what stands "
                "before it: if that is nothing, every document has it. Nothing was changed. Use $regex "
                "with \\x00."
            )
    for regex in size.regexes:
        limits.check_text(limits.REGEX_BYTES, regex)
    limits.REGEX_COST.check(sum(map(cost, size.regexes)))


def _measure(value: Any, size: _Size, *, of_documents: bool) -> None:
    """Without recursion: a client decides how deep it is."""
    waiting: list[tuple[Any, bool]] = [(value, of_documents)]
    while waiting:
        current, document = waiting.pop()
        if isinstance(current, dict):
            for name, child in cast("dict[str, Any]", current).items():
                if isinstance(child, str) and name in _REGEXES:
                    size.regexes.append(child)
                elif isinstance(child, str) and name in _PHRASES and document:
                    size.phrases.append(child)
                else:
                    waiting.append((child, document or name == _DOCUMENT))
        elif isinstance(current, list):
            members = cast("list[Any]", current)
            objects: list[Any] = [one for one in members if isinstance(one, (dict, list))]
            size.conditions += len(objects)
            size.values += len(members) - len(objects)
            waiting.extend((one, document) for one in objects)
