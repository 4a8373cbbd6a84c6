"""What the balancer takes each route for."""

from __future__ import annotations

import uuid

import pytest

from lb.routes import Route, Scope, classify

ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
KEY = uuid.UUID(ID).int
TENANT = "/api/v2/tenants/t"
DATABASE = f"{TENANT}/databases/d"
COLLECTION = f"{DATABASE}/collections/{ID}"


@pytest.mark.parametrize(
    ("method", "path", "kind", "scope"),
    [
        ("GET", "/api/v2", "read", Scope.NONE),
        ("GET", "/api/v2/heartbeat", "read", Scope.NONE),
        ("GET", "/api/v2/version", "read", Scope.NONE),
        ("GET", "/api/v2/auth/identity", "read", Scope.NONE),
        ("GET", "/openapi.json", "read", Scope.NONE),
        ("GET", "/", "read", Scope.NONE),
        ("GET", "/api/v1/heartbeat", "read", Scope.NONE),
        ("POST", "/api/v2/reset", "write", Scope.CATALOGUE),
        ("POST", "/api/v2/tenants", "write", Scope.CATALOGUE),
        ("GET", TENANT, "read", Scope.CATALOGUE),
        ("PATCH", TENANT, "write", Scope.CATALOGUE),
        ("GET", f"{TENANT}/databases", "read", Scope.CATALOGUE),
        ("POST", f"{TENANT}/databases", "write", Scope.CATALOGUE),
        ("GET", DATABASE, "read", Scope.CATALOGUE),
        ("DELETE", DATABASE, "write", Scope.CATALOGUE),
        ("GET", f"{DATABASE}/collections_count", "read", Scope.CATALOGUE),
        ("GET", f"{DATABASE}/collections", "read", Scope.ROWS),
        ("POST", f"{DATABASE}/collections", "write", Scope.CATALOGUE),
        ("GET", f"{DATABASE}/collections/name", "read", Scope.ROWS),
        ("HEAD", f"{DATABASE}/collections/name", "read", Scope.ROWS),
        ("PUT", COLLECTION, "write", Scope.CATALOGUE),
        ("DELETE", f"{DATABASE}/collections/name", "write", Scope.CATALOGUE),
        ("GET", "/api/v2/collections/t:d:name", "read", Scope.ROWS),
        ("GET", f"{DATABASE}/collections/by-id/{ID}", "read", Scope.COLLECTION),
        ("GET", f"{COLLECTION}/count", "read", Scope.COLLECTION),
        ("GET", f"{COLLECTION}/indexing_status", "read", Scope.COLLECTION),
        ("GET", f"{COLLECTION}/fork_count", "read", Scope.COLLECTION),
        ("POST", f"{COLLECTION}/get", "read", Scope.COLLECTION),
        ("POST", f"{COLLECTION}/query", "read", Scope.COLLECTION),
        ("POST", f"{COLLECTION}/search", "read", Scope.COLLECTION),
        ("GET", f"{COLLECTION}/functions/f", "read", Scope.COLLECTION),
        ("POST", f"{COLLECTION}/add", "write", Scope.COLLECTION),
        ("POST", f"{COLLECTION}/upsert", "write", Scope.COLLECTION),
        ("POST", f"{COLLECTION}/update", "write", Scope.COLLECTION),
        ("POST", f"{COLLECTION}/delete", "write", Scope.COLLECTION),
        ("POST", f"{COLLECTION}/fork", "write", Scope.COLLECTION),
        ("POST", f"{COLLECTION}/functions/attach", "write", Scope.COLLECTION),
        ("POST", f"{COLLECTION}/attached_functions/f/detach", "write", Scope.COLLECTION),
        # What it does not know: the leader answers, under a key.
        ("POST", f"{COLLECTION}/invented_later", "write", Scope.COLLECTION),
        ("POST", "/api/v2/invented_later", "write", Scope.CATALOGUE),
        ("DELETE", "/anything", "write", Scope.CATALOGUE),
        # No UUID: Chroma answers 400, whatever it is asked for.
        ("POST", f"{DATABASE}/collections/no-uuid/get", "read", Scope.CATALOGUE),
        ("POST", f"{DATABASE}/collections/no-uuid/add", "write", Scope.CATALOGUE),
        ("GET", f"{DATABASE}/collections/by-id/no-uuid", "read", Scope.ROWS),
    ],
)
def test_route(method: str, path: str, kind: str, scope: Scope) -> None:
    route = classify(method, path)
    assert (route.kind, route.scope) == (kind, scope)
    assert (route.collection == KEY) is (scope is Scope.COLLECTION)


@pytest.mark.parametrize(
    "spelling", [ID.upper(), ID.replace("-", ""), f"urn:uuid:{ID}", ID.replace("-", "%2D"), f"%7B{ID}%7D"]
)
def test_all_spellings_of_an_id_are_one_collection(spelling: str) -> None:
    route = classify("POST", f"{DATABASE}/collections/{spelling}/get")
    assert route == Route("read", Scope.COLLECTION, KEY)
