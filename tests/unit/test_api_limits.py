"""What a request may ask for: each bound at and beyond its value, and what has none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cluster.api import decode, limits
from cluster.api.bounds import check_results, may_find_too_many
from cluster.api.fields import Undecodable
from cluster.api.patterns import cost
from cluster.api.settings import SETTINGS, are_unusual, check_settings
from cluster.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable


def body(value: Any) -> bytes:
    return json.dumps(value).encode()


def refused(read: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(Refusal) as caught:
        read(*arguments)
    assert (caught.value.status, caught.value.error) == (400, "InvalidArgumentError")
    assert "Nothing was changed" in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value.message


def wide(count: int) -> dict[str, Any]:
    return {"$or": [{"a": at} for at in range(count)]}


def halves(count: int) -> dict[str, Any]:
    """As many leaves as `count` although no list has more than two members."""
    return {"a": 1} if count < 2 else {"$and": [halves(count // 2), halves(count - count // 2)]}


READS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "get": lambda fields: decode.decode_get(body(fields)),
    "query": lambda fields: decode.decode_query(body({"query_embeddings": [[1]], **fields})),
    "delete": lambda fields: decode.decode_delete(body(fields)),
}
FILTERS: dict[str, tuple[Callable[[int], dict[str, Any]], limits.Limit]] = {
    "a wide list": (lambda n: {"where": wide(n)}, limits.CONDITIONS),
    "an and of texts": (
        lambda n: {"where_document": {"$and": [{"$contains": f"w{at}"} for at in range(n)]}},
        limits.CONDITIONS,
    ),
    "empty lists": (lambda n: {"where": {"$or": [{"$or": []} for _ in range(n)]}}, limits.CONDITIONS),
    "both filters": (
        lambda n: {
            "where": wide(n // 2),
            "where_document": {"$or": [{"$contains": "x"} for _ in range(n - n // 2)]},
        },
        limits.CONDITIONS,
    ),
    "one $in": (lambda n: {"where": {"a": {"$in": list(range(n))}}}, limits.FILTER_VALUES),
    "several $nin": (
        lambda n: {
            "where": {"$and": [{"a": {"$nin": ["x"] * (n // 2)}}, {"b": {"$in": [1] * (n - n // 2)}}]}
        },
        limits.FILTER_VALUES,
    ),
    "bytes of a value": (lambda n: {"where": {"a": "x" * (n - len('{"a":""}'))}}, limits.FILTER_BYTES),
    "bytes of a key": (lambda n: {"where": {"x" * (n - len('{"":1}')): 1}}, limits.FILTER_BYTES),
    "a phrase": (lambda n: {"where_document": {"$contains": "x" * n}}, limits.PHRASE_BYTES),
    "a phrase that is not to be there": (
        lambda n: {"where_document": {"$not_contains": "é" * (n // 2) + "x" * (n % 2)}},
        limits.PHRASE_BYTES,
    ),
    "a phrase in where": (lambda n: {"where": {"#document": {"$contains": "x" * n}}}, limits.PHRASE_BYTES),
    "regexes": (
        lambda n: {"where_document": {"$or": [{"$regex": "a"} for _ in range(n)]}},
        limits.REGEXES,
    ),
    "a long regex": (lambda n: {"where_document": {"$regex": "x" * n}}, limits.REGEX_BYTES),
    "a regex's cost": (
        lambda n: {"where_document": {"$not_regex": f"[a-z]{{{n // 4}}}" + "a" * (n % 4)}},
        limits.REGEX_COST,
    ),
    "ids": (lambda n: {"ids": ["x"] * n}, limits.READ_IDS),
    "a long id": (lambda n: {"ids": ["x" * n]}, limits.ID_BYTES),
}


@pytest.mark.parametrize("verb", READS)
@pytest.mark.parametrize("name", FILTERS)
def test_what_reads_and_deletes_bring(verb: str, name: str) -> None:
    make, limit = FILTERS[name]
    READS[verb](make(limit.most))
    message = refused(READS[verb], make(limit.most + 1))
    assert f"at most {limit.most:,}" in message


def test_leaves_count_however_they_are_nested() -> None:
    READS["get"]({"where": halves(200)})
    refused(READS["get"], {"where": halves(limits.CONDITIONS.most)})


@pytest.mark.parametrize("levels", [64, 120])
def test_depth_is_left_to_chroma(levels: int) -> None:
    leaf = '{"a":1}'
    deep = ('{"where":' + '{"$and":[' * (levels // 2) + leaf + "]}" * (levels // 2) + "}").encode()
    decode.decode_get(deep)


@pytest.mark.parametrize(
    "where_document",
    [
        {"$contains": "\x00"},
        {"$contains": "a\x00b"},
        {"$not_contains": "\x00"},
        {"$and": [{"$contains": "a"}, {"$or": [{"$contains": "\x00"}, {"$contains": "b"}]}]},
    ],
)
@pytest.mark.parametrize("verb", READS)
def test_a_nul_would_match_everything(verb: str, where_document: Any) -> None:
    assert "NUL" in refused(READS[verb], {"where_document": where_document})


def test_a_nul_elsewhere_is_a_value_like_others() -> None:
    READS["get"]({"where": {"a": "\x00"}, "where_document": {"$regex": "a\x00"}})
    READS["get"]({"where": {"tags": {"$contains": "\x00"}}})
    assert "NUL" in refused(READS["get"], {"where": {"#document": {"$contains": "\x00"}}})


@pytest.mark.parametrize(
    ("pattern", "least", "most"),
    [
        ("", 0, 0),
        ("word", 4, 4),
        (r"\d{4}-\d{2}-\d{2}", 100, 200),
        (r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", 100, 200),
        (r"\w+@\w+\.com", 200, 400),
        (r"(\w+ ){100}zzz", 12_900, 13_000),
        (r"(?:\w+ ){ 100 }", 12_900, 13_000),
        (r"(\w+ ){2,100}", 12_900, 13_000),
        (r"(\w+ ){100,}", 12_900, 13_000),
        (r"(\w+ ){,100}", 12_900, 13_000),
        (r"((\w{10}){10}){10}", 128_000, 128_000),
        (r"[\w]{100}", 12_800, 12_800),
        (r"[^\w]{100}", 12_800, 12_800),
        (r"[]\w]{100}", 12_800, 12_800),
        (r"[a[\w]]{100}", 12_800, 12_800),
        (r"[[:alpha:]\w]{100}", 12_800, 12_800),
        (r"\p{Greek}{100}", 12_800, 12_800),
        (r"\pL{100}", 12_800, 12_800),
        ("[\u0430-\u044f]{100}", 12_800, 12_800),
        (r"\x{41}{100}", 100, 100),
        (r"\{100}", 5, 6),
        (r"(?x)(\w+\ ) {100}", 12_900, 10**9),
        ("(?x)(\\w+ # (((\n){100}", 12_900, 10**9),
        ("(?-x:#)(?x)(\\w+ # (((\n){100}", 12_900, 10**9),
        ("a{99999999999999999999}", 10**9, 10**9),
        ("((((a{100}){100}){100}){100}){100}", 10**9, 10**9),
        ("(" * 3_000, 0, 0),
        (")" * 3_000, 0, 0),
        ("[" * 3_000, 0, 10_000),
        ("\\", 1, 1),
        ("a{", 2, 2),
    ],
)
def test_what_a_regular_expression_costs(pattern: str, least: int, most: int) -> None:
    assert least <= cost(pattern) <= most


def test_costs_of_all_expressions_count_together() -> None:
    once = {"$regex": r"\w{20}"}
    READS["get"]({"where_document": once})
    refused(READS["get"], {"where_document": {"$or": [once, once]}})


def test_a_query() -> None:
    row = [[1.0]]
    decode.decode_query(body({"query_embeddings": row * limits.QUERY_VECTORS.most}))
    refused(decode.decode_query, body({"query_embeddings": row * (limits.QUERY_VECTORS.most + 1)}))
    refused(decode.decode_query, body({"query_texts": ["x"] * (limits.QUERY_VECTORS.most + 1)}))
    decode.decode_query(body({"query_embeddings": row, "n_results": 2**32 - 1}))


def test_the_results_of_a_query_are_no_more_than_the_records() -> None:
    most = limits.QUERY_RESULTS.most
    assert not may_find_too_many(1, most)
    assert may_find_too_many(1, most + 1)
    check_results(2, 2**32 - 1, most // 2)
    refused(check_results, 2, 2**32 - 1, most // 2 + 1)
    refused(check_results, 1_001, 1_000, 10**7)


# ---------------------------------------------------------------------------------------- writes


def record(**fields: Any) -> dict[str, Any]:
    return {"ids": ["a"], "embeddings": [[1.0]], **fields}


def keys(count: int) -> dict[str, int]:
    return {f"k{at}": at for at in range(count)}


WRITES: dict[str, tuple[Callable[[int], dict[str, Any]], limits.Limit]] = {
    "keys": (lambda n: record(metadatas=[keys(n)]), limits.RECORD_KEYS),
    "keys and a document": (lambda n: record(metadatas=[keys(n - 1)], documents=["d"]), limits.RECORD_KEYS),
    "keys, document and uri": (
        lambda n: record(metadatas=[keys(n - 2)], documents=["d"], uris=["u"]),
        limits.RECORD_KEYS,
    ),
    "one list": (lambda n: record(metadatas=[{"k": [1] * n}]), limits.LIST_ITEMS),
    "two lists": (
        lambda n: record(metadatas=[{"k": ["x"] * 1_000, "l": [0.5] * (n - 1_000)}]),
        limits.LIST_ITEMS,
    ),
    "a sparse vector": (
        lambda n: record(metadatas=[{"k": {"indices": list(range(n)), "values": [1] * n}}]),
        limits.LIST_ITEMS,
    ),
    "a key": (lambda n: record(metadatas=[{"x" * n: 1}]), limits.KEY_BYTES),
    "an id": (lambda n: record(ids=["x" * n]), limits.ID_BYTES),
    "a document": (lambda n: record(documents=["x" * n]), limits.TEXT_BYTES),
    "a uri": (lambda n: record(uris=["x" * n]), limits.TEXT_BYTES),
    "a metadata string": (lambda n: record(metadatas=[{"k": "x" * n}]), limits.TEXT_BYTES),
    "a string in a list": (lambda n: record(metadatas=[{"k": ["x" * n]}]), limits.TEXT_BYTES),
    "a vector": (lambda n: record(embeddings=[[0] * n]), limits.DIMENSION),
    "records": (lambda n: {"ids": ["a"] * n, "embeddings": [[1]] * n}, limits.RECORDS),
}


@pytest.mark.parametrize("name", WRITES)
def test_what_writes_bring(name: str) -> None:
    make, limit = WRITES[name]
    # What is counted is the same in all of them, and large texts take time.
    kind: Any = ("add", "upsert", "update")[len(name) % 3]
    decode.decode_records(kind, body(make(limit.most)))
    assert f"at most {limit.most:,}" in refused(decode.decode_records, kind, body(make(limit.most + 1)))


def test_the_values_of_all_records_count_together() -> None:
    def make(values: int) -> bytes:
        metadatas = [{"k": [1] * 3_999}] * (values // 4_000) + [{"k": [1] * (values % 4_000 - 1)}]
        return body(
            {"ids": ["a"] * len(metadatas), "embeddings": [[1]] * len(metadatas), "metadatas": metadatas}
        )

    most = limits.METADATA_VALUES.most
    assert decode.decode_records("add", make(most - 1)).problem is None
    refused(decode.decode_records, "add", make(most + 2))


def test_a_batch_of_a_stock_client_is_no_work_for_the_limits() -> None:
    many = 5_461
    metadata = keys(50) | {"tags": ["x"] * 4}
    decode.decode_records(
        "add",
        body(
            {
                "ids": [f"id-{at}" for at in range(many)],
                "embeddings": [[1.0]] * many,
                "metadatas": [metadata] * many,
            }
        ),
    )


@pytest.mark.parametrize("value", [1, ["x"], 0.5, True])
@pytest.mark.parametrize("kind", ["add", "upsert", "update"])
def test_the_key_of_the_document_holds_strings(kind: Any, value: Any) -> None:
    def problem(metadata: dict[str, Any]) -> Any:
        return decode.decode_records(kind, body(record(metadatas=[metadata]))).problem

    assert isinstance(problem({"chroma:document": value}), Refusal)
    assert problem({"chroma:document": "x"}) is None
    assert problem({"chroma:uri": value}) is None


def test_a_collection() -> None:
    new, change = decode.decode_new_collection, decode.decode_collection_change
    long = "x" * (limits.DEFINITION_BYTES.most + 1)
    new(body({"name": "abc", "metadata": keys(limits.COLLECTION_KEYS.most)}))
    cases: list[dict[str, Any]] = [
        {"metadata": keys(limits.COLLECTION_KEYS.most + 1)},
        {"metadata": {"k": long}},
        {"metadata": {f"k{at}": "x" * 1_000 for at in range(530)}},
        {"metadata": {"x" * (limits.KEY_BYTES.most + 1): 1}},
        {"configuration": {"embedding_function": {"name": long}}},
        {"schema": {"defaults": {"x": long}, "keys": {}}},
        {"schema": {"defaults": {}, "keys": {f"k{at}": {} for at in range(limits.SCHEMA_KEYS.most + 1)}}},
    ]
    for fields in cases:
        refused(new, body({"name": "abc", **fields}))
        if "schema" not in fields:
            refused(change, body({f"new_{name}": value for name, value in fields.items()}))


def test_names_that_chroma_does_not_bound() -> None:
    decode.decode_name(body({"name": "x" * 1_024}), limit=limits.TENANT_BYTES)
    refused(decode.decode_name, body({"name": "x" * 1_025}), "name", limits.TENANT_BYTES)
    refused(decode.decode_name, body({"name": "é" * 513}), "name", limits.TENANT_BYTES)


@pytest.mark.parametrize("text", ["9" * 5_000, "1" + "0" * 4_999, "4294967296"])
def test_numbers_of_thousands_of_digits_in_a_query_string(text: str) -> None:
    with pytest.raises(Undecodable):
        decode.decode_page(f"limit={text}")
    assert decode.decode_page("limit=" + "0" * 5_000 + "7").limit == 7


# -------------------------------------------------------------------------------------- settings


def spellings(name: str, legacy: str | None, value: Any) -> list[tuple[Any, ...]]:
    index = {"vector_index": {"enabled": True, "config": {"hnsw": {name: value}}}}
    spann = {"vector_index": {"enabled": True, "config": {"spann": {name: value}}}}
    texts = [
        {"hnsw": {name: value}},
        {"spann": {name: value}},
        {"defaults": {"float_list": index}, "keys": {}},
        {"defaults": {}, "keys": {"#embedding": {"float_list": index}}},
        {"defaults": {}, "keys": {"#embedding": {"float_list": spann}}},
    ]
    found: list[tuple[Any, ...]] = [(None, json.dumps(text)) for text in texts]
    return found if legacy is None else [*found, ({legacy: value}, None)]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_settings_in_all_spellings(setting: Any) -> None:
    for value, good in (
        (setting.least, True),
        (setting.most, True),
        (setting.least - 1, False),
        (setting.most + 1, False),
        (2**63, False),
        (1e300, False),
    ):
        for given in spellings(setting.name, setting.legacy, value):
            found = check_settings(*given)
            assert (found is None) == good, (given, found)
            assert are_unusual(*given)
            if found is not None:
                assert (found.status, found.error) == (400, "InvalidArgumentError")
                assert setting.name in found.message or str(setting.legacy) in found.message


def test_the_time_bomb() -> None:
    """Chroma takes it, and dies when the index is opened the next time, on every node."""
    assert check_settings(None, '{"hnsw": {"max_neighbors": 0}}') is not None
    assert check_settings(None, '{"hnsw": {"max_neighbors": 100000000}}') is not None


def test_what_is_no_setting() -> None:
    assert check_settings({"hnsw:space": "l2", "max_neighbors": 0, "hnsw:M": "x"}, None) is None
    foreign = {"embedding_function": {"config": {"hnsw": {"max_neighbors": 0}}}, "hnsw": {"space": "ip"}}
    assert check_settings(None, json.dumps(foreign)) is None
    assert not are_unusual({"hnsw:space": "ip"}, '{"hnsw": {"space": "ip"}, "embedding_function": null}')
    assert are_unusual(None, None, '{"defaults": {}, "keys": {}}')
    assert check_settings(None, None) is None


# ------------------------------------------------------------------------------------------ docs


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def test_the_documentation_shows_this_table() -> None:
    text = (Path(__file__).parents[2] / "docs" / "compatibility.md").read_text()
    section = text.partition("## Limits\n")[2].partition("\n## ")[0]
    shown = [line for line in section.splitlines() if line.startswith("| ")][1:]
    expected = [
        f"| {cell(limit.what)} | {limit.most:,} | {cell(limit.fails)} | 400 |" for limit in limits.LIMITS
    ]
    for setting in SETTINGS:
        legacy = f", `{setting.legacy}`" if setting.legacy else ""
        bounds = f"{setting.least:,} to {setting.most:,}"
        expected.append(f"| `{setting.name}`{legacy} | {bounds} | {cell(setting.fails)} | 400 |")
    expected.append(f"| bytes of a body | {40 * 2**20:,} | refuses more itself | 413 |")
    assert shown == expected


def test_every_limit_is_in_the_table() -> None:
    defined = {value.what for value in vars(limits).values() if isinstance(value, limits.Limit)}
    assert defined == {limit.what for limit in limits.LIMITS}
