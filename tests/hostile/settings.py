"""Index and schema settings: each number in each of the spellings in which Chroma reads it; pure.

A setting does harm only once the index is built, so every collection is written to and queried.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from tests.hostile.case import COLLECTIONS, C, Case, lazily, request, shown
from tests.hostile.records import keys, records

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.hostile.case import Call, Required

KIND: Final = "settings"

#: Numbers of the index, by their names in a configuration. The first of each is one that Chroma uses itself.
HNSW: Final[dict[str, tuple[Any, ...]]] = {
    "max_neighbors": (
        16,
        0,
        1,
        2,
        1_000,
        1_000_000,
        100_000_000,
        2**31,
        2**32,
        2**63,
        2**64,
        -1,
        1.5,
        "16",
        None,
    ),
    "ef_construction": (100, 0, 1, 100_000_000, 2**32, 2**63, 2**64, -1),
    "ef_search": (100, 0, 1, 100_000_000, 2**32, 2**63, 2**64, -1),
    "num_threads": (1, 0, 10_000, 2**32, 2**63, -1),
    "batch_size": (100, 0, 1, 2, 2**32, 2**63, -1),
    "sync_threshold": (1_000, 0, 1, 2, 3, 2**32, 2**63, -1),
    "resize_factor": (1.2, 0, 1, 0.5, 1e-300, 1e9, 1e300, -1, "x"),
}
SPANN: Final[dict[str, tuple[Any, ...]]] = {
    "search_nprobe": (64, 0, 2**32),
    "write_nprobe": (32, 0, 2**32),
    "split_threshold": (50, 0, 2**32),
    "merge_threshold": (25, 0, 2**32),
    "reassign_neighbor_count": (64, 0, 2**32),
    "max_neighbors": (64, 0, 10**8),
    "ef_construction": (200, 0, 10**8),
    "ef_search": (200, 0, 10**8),
}
#: What a number is called in the metadata of a collection.
LEGACY: Final = {
    "max_neighbors": "hnsw:M",
    "ef_construction": "hnsw:construction_ef",
    "ef_search": "hnsw:search_ef",
    "num_threads": "hnsw:num_threads",
    "batch_size": "hnsw:batch_size",
    "sync_threshold": "hnsw:sync_threshold",
    "resize_factor": "hnsw:resize_factor",
}
SPACES: Final[tuple[Any, ...]] = ("l2", "cosine", "ip", "L2", "", "x" * 100_000, "l2\x00", 5, None, [], {})


def _index(of: str, name: str, value: Any, enabled: bool = True) -> dict[str, Any]:
    return {"vector_index": {"enabled": enabled, "config": {of: {name: value}}}}


SPELLINGS: Final[dict[str, Callable[[str, Any], dict[str, Any]]]] = {
    "configuration": lambda name, value: {"configuration": {"hnsw": {name: value}}},
    "metadata": lambda name, value: {"metadata": {LEGACY[name]: value}},
    # Chroma enables no index by default, and takes its numbers all the same.
    "schema-defaults": lambda name, value: {
        "schema": {"defaults": {"float_list": _index("hnsw", name, value, enabled=False)}, "keys": {}}
    },
    "schema-key": lambda name, value: {
        "schema": {"defaults": {}, "keys": {"#embedding": {"float_list": _index("hnsw", name, value)}}}
    },
    "spann-schema": lambda name, value: {
        "schema": {"defaults": {}, "keys": {"#embedding": {"float_list": _index("spann", name, value)}}}
    },
    "spann": lambda name, value: {"configuration": {"spann": {name: value}}},
}


def used(fields: dict[str, Any]) -> tuple[Call, ...]:
    """A collection made with these fields, then written to, in two batches, and queried."""
    # Without its id, records go to it only by what the runner learns from the first answer: `{made}`.
    made = f"{COLLECTIONS}/{{made}}"
    return (
        request("POST", COLLECTIONS, lazily(lambda: {"name": "made", **fields})),
        request("POST", f"{made}/add", lazily(records, 20)),
        request("POST", f"{made}/upsert", lazily(records, 25)),
        request(
            "POST", f"{made}/query", {"query_embeddings": [[0.5, 0.5, 0.5]], "n_results": 2, "include": []}
        ),
        request("GET", f"{made}/count"),
    )


def _made(id_: str, fields: dict[str, Any], required: Required = "as chroma", difference: str = "") -> Case:
    return Case(f"{KIND}/{id_}", KIND, used(fields), required, setup="none", difference=difference)


def _numbers() -> list[Case]:
    cases: list[Case] = []
    for spelling in ("configuration", "metadata", "schema-defaults", "schema-key"):
        for name, values in HNSW.items():
            # All of them in the form of today, and in the others those that no number should be.
            chosen = values if spelling == "configuration" else dict.fromkeys(values[1:4] + values[-3:-1])
            for value in chosen:
                # With one neighbour each, what is found depends on threads: on Chroma too.
                by_chance = name == "max_neighbors" and value == 1
                required: Required = "answered" if by_chance else "as chroma"
                fields = SPELLINGS[spelling](name, value)
                id_ = f"{spelling}.{name}={shown(value)}"
                cases.append(_made(id_, fields, required, "approximate" if by_chance else ""))
    for spelling in ("spann", "spann-schema"):
        cases += [
            _made(f"{spelling}.{name}={shown(value)}", SPELLINGS[spelling](name, value))
            for name, values in SPANN.items()
            for value in (values if spelling == "spann" else values[1:])
        ]
    return cases


def _changes() -> list[Case]:
    return [
        Case(
            f"{KIND}/change.{name}={shown(value)}",
            KIND,
            (
                request("PUT", C, {"new_configuration": {"hnsw": {name: value}}}),
                request("POST", f"{C}/upsert", lazily(records, 5)),
                request(
                    "POST",
                    f"{C}/query",
                    {"query_embeddings": [[0.5, 0.5, 0.5]], "n_results": 1, "include": []},
                ),
            ),
            # An index that is there already keeps what it was made with.
            setup="empty",
        )
        for name, values in HNSW.items()
        for value in dict.fromkeys(values[1:3] + values[-3:-1])
        if (name, value) != ("max_neighbors", 1)
    ]


def _spaces() -> list[Case]:
    return [
        _made(f"space.{spelling}={shown(value)}", fields)
        for value in SPACES
        for spelling, fields in (
            ("configuration", {"configuration": {"hnsw": {"space": value}}}),
            ("metadata", {"metadata": {"hnsw:space": value}}),
        )
        if not (spelling == "metadata" and isinstance(value, (list, dict)))
    ]


def _bm25(levels: int) -> dict[str, Any]:
    return {"sparse_vector_index": {"enabled": True, "config": {"source_key": "x" * levels, "bm25": True}}}


_OFF: Final = {"enabled": False, "config": {}}
_TEXT: Final = {"string": {"fts_index": _OFF, "string_inverted_index": _OFF}}
_SCHEMAS: Final[dict[str, Any]] = {
    "keys-1000": {"defaults": {}, "keys": {f"k{at}": _TEXT for at in range(1_000)}},
    "keys-10000": {"defaults": {}, "keys": {f"k{at}": _TEXT for at in range(10_000)}},
    "keys-100000": {"defaults": {}, "keys": {f"k{at}": _TEXT for at in range(100_000)}},
    "key-long": {"defaults": {}, "keys": {"x" * 2**20: _TEXT}},
    "key-nul": {"defaults": {}, "keys": {"a\x00b": _TEXT}},
    "key-empty": {"defaults": {}, "keys": {"": _TEXT}},
    "key-reserved": {"defaults": {}, "keys": {"#nothing": _TEXT, "$and": _TEXT}},
    "document-_OFF": {"defaults": {}, "keys": {"#document": _TEXT}},
    "embedding-_OFF": {"defaults": {}, "keys": {"#embedding": {"float_list": {"vector_index": _OFF}}}},
    "all-_OFF": {
        "defaults": {kind: {f"{kind}_inverted_index": _OFF} for kind in ("int", "float", "bool")},
        "keys": {},
    },
    "fts-on-key": {
        "defaults": {},
        "keys": {"a": {"string": {"fts_index": {"enabled": True, "config": {}}}}},
    },
    "sparse": {"defaults": {}, "keys": {"s": {"sparse_vector": _bm25(1)}}},
    "sparse-long": {"defaults": {}, "keys": {"s": {"sparse_vector": _bm25(2**20)}}},
    "sparse-many": {"defaults": {}, "keys": {f"s{at}": {"sparse_vector": _bm25(1)} for at in range(100)}},
    "source-key": {
        "defaults": {},
        "keys": {
            "#embedding": {
                "float_list": {
                    "vector_index": {
                        "enabled": True,
                        "config": {"source_key": "x" * 2**20, "space": "l2"},
                    }
                }
            }
        },
    },
    "vector-on-key": {
        "defaults": {},
        "keys": {"a": {"float_list": {"vector_index": {"enabled": True, "config": {}}}}},
    },
    "null": None,
    "deep": json.loads('{"defaults":' + '{"a":' * 100 + "1" + "}" * 100 + ',"keys":{}}'),
    "wide": {"defaults": keys(10_000), "keys": {}},
    "attached": {"defaults": {}, "keys": {}, "source_attached_function_id": "x" * 10_000},
}


def _schemas() -> list[Case]:
    return [_made(f"schema.{name}", {"schema": schema}) for name, schema in _SCHEMAS.items()]


def _functions() -> list[Case]:
    known = {"type": "known", "name": "sentence_transformer", "config": {"trust_remote_code": True}}
    named = "code in a configuration"
    return [
        _made("function.code", {"configuration": {"embedding_function": known}}, "answered", named),
        _made(
            "function.code-in-schema",
            {
                "schema": {
                    "defaults": {
                        "float_list": {
                            "vector_index": {"enabled": True, "config": {"embedding_function": known}}
                        }
                    },
                    "keys": {},
                }
            },
            "answered",
            named,
        ),
        _made(
            "function.path",
            {"configuration": {"embedding_function": {**known, "config": {"model_name": "/etc/passwd"}}}},
        ),
        _made(
            "function.nul",
            {"configuration": {"embedding_function": {**known, "name": "a\x00", "config": {}}}},
        ),
        _made("hnsw-and-spann", {"configuration": {"hnsw": {}, "spann": {}}}),
        _made(
            "configuration-and-schema",
            {"configuration": {"hnsw": {"max_neighbors": 0}}, "schema": {"defaults": {}, "keys": {}}},
        ),
        _made("configuration-and-metadata", {"configuration": {"hnsw": {}}, "metadata": {"hnsw:M": 0}}),
    ]


def cases() -> list[Case]:
    """All of them."""
    return [*_numbers(), *_changes(), *_spaces(), *_schemas(), *_functions()]
