"""Where a path leads, against the list of routes that Chroma publishes."""

from __future__ import annotations

import pytest

from cluster.api.routes import ROUTES as KNOWN
from cluster.api.routes import match

DATABASE = "/api/v2/tenants/t/databases/d"

ROUTES = [
    ("GET", "/api/v2/auth/identity"),
    ("GET", "/api/v2/collections/a:b:c"),
    ("GET", "/api/v2/healthcheck"),
    ("GET", "/api/v2/heartbeat"),
    ("GET", "/api/v2"),
    ("GET", "/api/v2/pre-flight-checks"),
    ("POST", "/api/v2/reset"),
    ("GET", "/api/v2/version"),
    ("POST", "/api/v2/tenants"),
    ("GET", "/api/v2/tenants/t"),
    ("PATCH", "/api/v2/tenants/t"),
    ("GET", "/api/v2/tenants/t/databases"),
    ("POST", "/api/v2/tenants/t/databases"),
    ("GET", DATABASE),
    ("DELETE", DATABASE),
    ("GET", f"{DATABASE}/collections"),
    ("POST", f"{DATABASE}/collections"),
    ("GET", f"{DATABASE}/collections_count"),
    ("GET", f"{DATABASE}/collections/by-id/c"),
    ("GET", f"{DATABASE}/collections/c"),
    ("PUT", f"{DATABASE}/collections/c"),
    ("DELETE", f"{DATABASE}/collections/c"),
    *[
        ("POST", f"{DATABASE}/collections/c/{verb}")
        for verb in ("add", "upsert", "update", "delete", "get", "query")
    ],
    *[("POST", f"{DATABASE}/collections/c/{verb}") for verb in ("search", "fork", "functions/attach")],
    *[("GET", f"{DATABASE}/collections/c/{verb}") for verb in ("count", "fork_count", "indexing_status")],
    ("GET", f"{DATABASE}/collections/c/functions/f"),
    ("POST", f"{DATABASE}/collections/c/attached_functions/f/detach"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
    ("GET", "/docs/swagger-ui.css"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_routes(method: str, path: str) -> None:
    found = match(path)
    assert found is not None
    assert method in found.methods


def test_every_route_has_a_case() -> None:
    routes = {(match(path).route, method) for method, path in ROUTES if match(path) is not None}  # type: ignore[union-attr]
    known = {
        (tuple(part.strip("{}") for part in path[1:].split("/")), method)
        for path, methods in KNOWN.items()
        for method in methods
    }
    assert known <= routes


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        "*",
        "/api/v2/",
        "/api/v1",
        "/api/v1/",
        "/nope",
        f"{DATABASE}/",
        f"{DATABASE}/collections/",
        f"{DATABASE}/nope",
        f"{DATABASE}/collections/c/nope",
        "/API/v2/version",
        "/api/v2/version/",
        "//api/v2/version",
    ],
)
def test_paths_without_a_route(path: str) -> None:
    assert match(path) is None


def test_names_in_a_path() -> None:
    found = match(f"{DATABASE}/collections/x%20y/functions/f")
    assert found is not None
    assert found.raw == {"tenant": "t", "database": "d", "collection_id": "x%20y", "function_name": "f"}


def test_fixed_parts_come_before_names() -> None:
    by_id = match(f"{DATABASE}/collections/by-id/count")
    assert by_id is not None
    assert by_id.raw["collection_id"] == "count"
    named = match(f"{DATABASE}/collections/by-id")
    assert named is not None
    assert named.raw["collection_id"] == "by-id"
    deeper = match(f"{DATABASE}/collections/by-id/functions/attach")
    assert deeper is not None
    assert deeper.raw["collection_id"] == "by-id"
    assert set(deeper.methods) == {"POST"}


def test_the_first_api_is_gone() -> None:
    found = match("/api/v1/collections/x")
    assert found is not None
    assert "POST" not in found.methods
    assert {"GET", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"} == set(found.methods)
