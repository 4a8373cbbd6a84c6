"""What a move has to do, from what both sides have; pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, cast

from cluster.errors import ClusterError
from cluster.moving.records import same

if TYPE_CHECKING:
    from collections.abc import Mapping

Existing = Literal["refuse", "skip", "replace"]

#: A collection has this name, with a digest behind it, until it is complete and verified.
PREFIX: Final = "chroma-cluster-moving-"
_NAMED: Final = 5
_LEGACY: Final = {
    "hnsw:space": "space",
    "hnsw:M": "max_neighbors",
    "hnsw:construction_ef": "ef_construction",
    "hnsw:search_ef": "ef_search",
    "hnsw:batch_size": "batch_size",
    "hnsw:sync_threshold": "sync_threshold",
    "hnsw:resize_factor": "resize_factor",
}


class NothingDone(ClusterError):
    """The move was not begun: nothing was changed anywhere. The message says what to do."""


class Place(NamedTuple):
    """Where a collection is, on either side."""

    tenant: str
    database: str
    name: str

    def __str__(self) -> str:
        return "/".join(self)

    @property
    def temporary(self) -> Place:
        """What it is called in the target until it is verified: always the same, to be found again."""
        digest = hashlib.sha256("\0".join(self).encode("utf-8", "surrogatepass"))
        return self._replace(name=PREFIX + digest.hexdigest()[:24])


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection without its records, as a server shows it."""

    place: Place
    uid: str
    metadata: Mapping[str, Any] | None
    configuration: Any
    schema: Any

    @property
    def is_cosine(self) -> bool:
        """Whether its index measures by cosine; of a collection from before 1.0 its metadata says so."""
        told = (self.metadata or {}).get("hnsw:space")
        settings: dict[str, Any] = self.configuration or {}
        index: dict[str, Any] = settings.get("hnsw") or settings.get("spann") or {}
        return (told or index.get("space")) == "cosine"

    @property
    def is_unfinished(self) -> bool:
        """Whether an interrupted move left it, or one fills it now."""
        return self.place.name.startswith(PREFIX)


@dataclass(frozen=True, slots=True)
class Listing:
    """Tenants, databases as (tenant, database), and collections of one side."""

    tenants: tuple[str, ...] = ()
    databases: tuple[tuple[str, str], ...] = ()
    collections: tuple[Collection, ...] = ()
    unreadable: tuple[str, ...] = ()
    """What could not be listed, and why."""


@dataclass(frozen=True, slots=True)
class Step:
    """One collection: made, put in the place of another, left alone, or there already by this very move."""

    source: Collection
    action: Literal["make", "replace", "skip", "done"]
    there: Collection | None = None
    """What has its name in the target."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is to be done, in order."""

    tenants: tuple[str, ...]
    databases: tuple[tuple[str, str], ...]
    steps: tuple[Step, ...] = field(default=())


def plan(source: Listing, target: Listing, existing: Existing, ours: Mapping[Place, str]) -> Plan:
    """What to do with each collection of the source.

    Args:
        ours: ids of what this very move has made in the target before it was interrupted.

    Raises:
        NothingDone: collections exist in the target and `existing` is "refuse".
    """
    there = {found.place: found for found in target.collections}
    steps: list[Step] = []
    for collection in sorted(source.collections, key=lambda one: one.place):
        if collection.is_unfinished:
            continue
        found = there.get(collection.place)
        if found is None:
            steps.append(Step(collection, "make"))
        elif ours.get(collection.place) == found.uid:
            steps.append(Step(collection, "done", found))
        else:
            steps.append(Step(collection, "replace" if existing == "replace" else "skip", found))
    conflicts = [str(step.source.place) for step in steps if step.action == "skip"]
    if existing == "refuse" and conflicts:
        more = f" and {len(conflicts) - _NAMED} more" if len(conflicts) > _NAMED else ""
        raise NothingDone(
            f"The target has {', '.join(conflicts[:_NAMED])}{more} already. Nothing was changed. Say "
            "--existing skip to leave what is there alone, or --existing replace to put the source's in "
            "its place."
        )
    return Plan(
        tuple(name for name in source.tenants if name not in target.tenants),
        tuple(pair for pair in source.databases if pair not in target.databases),
        tuple(steps),
    )


def unlike(one: Collection, other: Collection, *, as_meant: bool = False) -> list[str]:
    """In what two collections differ for a client, apart from records, name and id.

    Args:
        as_meant: what `hnsw:*` in the metadata says counts, whatever is shown besides. Of a collection that a
            Chroma before 1.0 made, a later one shows a configuration of defaults, but follows the metadata.
    """
    settings = _legacy(one.metadata) if as_meant else {}
    mine, theirs = ((it.configuration, _without_threads(_as_asked(it.schema))) for it in (one, other))
    if settings:
        mine, theirs = _meant(list(mine), settings), _meant(list(theirs), settings)
    pairs = (
        ("metadata", one.metadata, other.metadata),
        ("configuration", mine[0], theirs[0]),
        ("schema", mine[1], theirs[1]),
    )
    return [name for name, this, that in pairs if not same(this, that)]


def changes(
    before: Listing, after: Listing, counts: Mapping[Place, int], now: Mapping[Place, int]
) -> list[str]:
    """How a source differs from what it was when the move began; empty if it does not."""
    was = {one.place: one for one in before.collections if not one.is_unfinished}
    is_now = {one.place: one for one in after.collections if not one.is_unfinished}
    found = [f"{place} was made" for place in sorted(is_now.keys() - was.keys())]
    found += [f"{place} was deleted" for place in sorted(was.keys() - is_now.keys())]
    for place in sorted(was.keys() & is_now.keys()):
        if was[place].uid != is_now[place].uid:
            found.append(f"{place} was made anew")
        elif fields := unlike(was[place], is_now[place]):
            found.append(f"{place} has another {' and '.join(fields)}")
        elif place in counts and counts[place] != now.get(place):
            found.append(f"{place} had {counts[place]} records and has {now.get(place)}")
    return found


def creations(collection: Collection) -> list[dict[str, Any]]:
    """The bodies with which to create it, best first: which gives the same depends on how it was made.

    Chroma takes a configuration or a schema, not both; a collection shows both, however it was made.
    """
    body = {} if collection.metadata is None else {"metadata": collection.metadata}
    return [
        body | {name: value}
        for name, value in (("configuration", collection.configuration), ("schema", collection.schema))
        if value is not None
    ] or [body]


def _as_asked(schema: Any) -> Any:
    """A schema without keys that Chroma notes by itself, as records have them: they are like its defaults."""
    if not isinstance(schema, dict) or not isinstance(schema.get("keys"), dict):  # pyright: ignore[reportUnknownMemberType]
        return schema  # pyright: ignore[reportUnknownVariableType]
    whole = cast("dict[str, Any]", schema)
    defaults: dict[str, Any] = whole.get("defaults") or {}
    keys: dict[str, Any] = {}
    for key, types in cast("dict[str, dict[str, Any]]", whole["keys"]).items():
        asked = {name: it for name, it in types.items() if not same(it, defaults.get(name))}
        if asked:
            keys[key] = asked
    return whole | {"keys": keys}


def _without_threads(value: Any) -> Any:
    """A schema without `num_threads`: Chroma ignores it and fills in how many processors the machine has."""
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        return {key: _without_threads(item) for key, item in items if key != "num_threads"}
    if isinstance(value, list):
        return [_without_threads(item) for item in cast("list[Any]", value)]
    return value


def _legacy(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """The settings of the index that are in the metadata, under the names they have now."""
    found = metadata or {}
    return {name: found[key] for key, name in _LEGACY.items() if key in found}


def _meant(value: Any, settings: Mapping[str, Any]) -> Any:
    """A configuration or schema in which the settings of each HNSW index are those given."""
    if isinstance(value, list):
        return [_meant(item, settings) for item in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    found = {key: _meant(item, settings) for key, item in cast("dict[str, Any]", value).items()}
    if isinstance(found.get("hnsw"), dict):
        index = cast("dict[str, Any]", found["hnsw"])
        found["hnsw"] = index | {name: it for name, it in settings.items() if name in index}
        if "space" in found and "space" in settings:
            found["space"] = settings["space"]
    return found
