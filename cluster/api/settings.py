"""Settings of a collection's index in all spellings, and which values this server takes; pure.

Chroma accepts values that kill it later, at the second record or when the index is opened again, on every
replica. They come in a `configuration`, in a schema (as default or for a key) and as `hnsw:` metadata.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from cluster.api.names import invalid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.errors import Refusal
    from cluster.state.commands import Metadata


@dataclass(frozen=True, slots=True)
class Setting:
    """A number of the index; `legacy` is its name in the metadata. `fails`: where Chroma itself does."""

    name: str
    least: float
    most: float
    fails: str
    legacy: str | None = None


_UNHARMED: Final = "takes 0 to 2**63 without harm"

SETTINGS: Final = (
    Setting(
        "max_neighbors",
        2,
        256,
        "0 kills the process at the second record, or when the index is opened again; 1 finds one record; "
        "10,000: 1,500 records take over 10 s; from 10**8 no access works",
        "hnsw:M",
    ),
    Setting(
        "ef_construction",
        0,
        10_000,
        "takes 0 to 2**63, with time quadratic in the records",
        "hnsw:construction_ef",
    ),
    Setting("ef_search", 0, 10_000, _UNHARMED, "hnsw:search_ef"),
    Setting("num_threads", 0, 1_024, f"{_UNHARMED}, and ignores it", "hnsw:num_threads"),
    Setting("batch_size", 0, 100_000, f"{_UNHARMED}; refuses 0 and 1 in some spellings", "hnsw:batch_size"),
    Setting(
        "sync_threshold",
        0,
        10_000,
        "takes 0 to 2**63; every write reads again what is not synced: at 6,000 records, 2,000 cost 10 s",
        "hnsw:sync_threshold",
    ),
    Setting("resize_factor", 0, 1_000, "takes any number, and ignores it", "hnsw:resize_factor"),
    Setting("search_nprobe", 0, 10_000, "ignores it"),
    Setting("write_nprobe", 0, 10_000, "ignores it"),
    Setting("split_threshold", 0, 10_000, "ignores it"),
    Setting("merge_threshold", 0, 10_000, "ignores it"),
    Setting("reassign_neighbor_count", 0, 10_000, "ignores it"),
)
_BY_NAME: Final = {setting.name: setting for setting in SETTINGS}
_BY_LEGACY: Final = {setting.legacy: setting for setting in SETTINGS if setting.legacy is not None}
_INDEXES: Final = frozenset({"hnsw", "spann"})
#: What a client's own function is configured with is no setting of the index.
_FOREIGN: Final = "embedding_function"


def check_settings(metadata: Metadata | None, *texts: str | None) -> Refusal | None:
    """A refusal of settings outside their range.

    They are in `metadata`, or in a configuration or schema, which are JSON `texts`. Only numbers are looked
    at: what is none, Chroma refuses by itself.
    """
    for spelled, setting, value in _settings(metadata, texts):
        if not setting.least <= value <= setting.most:
            return invalid(
                f"Over a limit: {spelled} is {_shown(value)}, this server takes {setting.least:,} to "
                f"{setting.most:,}. Nothing was changed. Leave it out for Chroma's default."
            )
    return None


def are_unusual(metadata: Metadata | None, *texts: str | None) -> bool:
    """Whether there is anything about the index in them that a first record should be tried with."""
    if next(_settings(metadata, texts), None) is not None:
        return True
    return any("keys" in text for text in map(_read, texts))


def _settings(
    metadata: Metadata | None, texts: tuple[str | None, ...]
) -> Iterator[tuple[str, Setting, float]]:
    for key, value in (metadata or {}).items():
        setting = _BY_LEGACY.get(key)
        if setting is not None and isinstance(value, (int, float)):
            yield key, setting, value
    for text in texts:
        yield from _within(_read(text))


def _within(value: Any) -> Iterator[tuple[str, Setting, float]]:
    """Without recursion: a client decides how deep it is."""
    waiting: list[Any] = [value]
    while waiting:
        current = waiting.pop()
        if isinstance(current, dict):
            for name, child in cast("dict[str, Any]", current).items():
                if name in _INDEXES:
                    for key, given in _mapping(child).items():
                        if key in _BY_NAME and isinstance(given, (int, float)):
                            yield f"{name}.{key}", _BY_NAME[key], given
                if name != _FOREIGN:
                    waiting.append(child)
        elif isinstance(current, list):
            waiting.extend(cast("list[Any]", current))


def _read(text: str | None) -> dict[str, Any]:
    return {} if text is None else _mapping(json.loads(text))


def _mapping(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _shown(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
