"""The text client against a recorded server: what goes over the wire, and that no model is touched."""

from __future__ import annotations

import json
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from chromadb.api.types import DefaultEmbeddingFunction, SparseVector
from chromadb.errors import InvalidArgumentError
from chromadb.utils.embedding_functions import ONNXMiniLM_L6_V2

from cluster.client import TextClient, TextCollection, keep_session, text_client

if TYPE_CHECKING:
    from collections.abc import Iterator

COLLECTION_ID = str(uuid.UUID(int=7))
PLACE = f"/api/v2/tenants/default_tenant/databases/default_database/collections/{COLLECTION_ID}"


class Recorded(ThreadingHTTPServer):
    """Answers as Chroma does to the few calls that a client makes, and keeps the bodies it got."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: dict[str, Any] = {}
        self.function: Any = {"type": "known", "name": "default", "config": {}}
        self.refusal: tuple[int, Any] | None = None


class Handler(BaseHTTPRequestHandler):
    server: Recorded
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.answer(None)

    def do_POST(self) -> None:
        self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def answer(self, body: Any) -> None:
        path = self.path.split("?")[0]
        if body is not None:
            self.server.bodies[path] = body
        status, made = 200, self.made(path)
        if self.server.refusal is not None and path == f"{PLACE}/add":
            status, made = self.server.refusal
        content = json.dumps(made).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def made(self, path: str) -> Any:
        collection = {
            "id": COLLECTION_ID,
            "name": "notes",
            "configuration_json": {"hnsw": None, "spann": None, "embedding_function": self.server.function},
            "metadata": None,
            "dimension": None,
            "tenant": "default_tenant",
            "database": "default_database",
            "log_position": 0,
            "version": 0,
        }
        tail = path.rsplit("/", 1)[-1]
        match tail:
            case "identity":
                return {"user_id": "", "tenant": "default_tenant", "databases": ["default_database"]}
            case "pre-flight-checks":
                return {"max_batch_size": 3, "supports_base64_encoding": True}
            case "query":
                return {
                    "ids": [["a"]],
                    "distances": [[0.5]],
                    "documents": [["text"]],
                    "metadatas": [[{"s": {"#type": "sparse_vector", "indices": [1], "values": [0.5]}}]],
                    "embeddings": None,
                    "uris": None,
                    "include": ["distances", "documents", "metadatas"],
                }
            case "collections" if self.command == "GET":
                return [collection]
            case "collections" | "notes":
                return collection
            case "add" | "upsert" | "update":
                return {}
            case "default_tenant" | "default_database":
                return {"id": str(uuid.uuid4()), "name": tail, "tenant": "default_tenant"}
            case _:
                return collection


@pytest.fixture
def server() -> Iterator[Recorded]:
    recorded = Recorded()
    thread = threading.Thread(target=recorded.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield recorded
    recorded.shutdown()
    recorded.server_close()
    thread.join()


@pytest.fixture
def client(server: Recorded, monkeypatch: pytest.MonkeyPatch) -> Iterator[TextClient]:
    monkeypatch.setattr(ONNXMiniLM_L6_V2, "__init__", lambda *_, **__: pytest.fail("a model was loaded"))
    made = text_client("127.0.0.1", server.server_port)
    yield made
    made.close()


@pytest.fixture
def notes(client: TextClient) -> TextCollection:
    return client.get_collection("notes")


@pytest.mark.parametrize("verb", ["add", "upsert", "update"])
def test_documents_go_out_as_text(server: Recorded, notes: TextCollection, verb: str) -> None:
    getattr(notes, verb)(ids=["a", "b"], documents=["one", "two"], metadatas=[{"n": 1}, {"n": 2}])
    assert server.bodies[f"{PLACE}/{verb}"] == {
        "ids": ["a", "b"],
        "documents": ["one", "two"],
        "metadatas": [{"n": 1}, {"n": 2}],
    }


def test_one_document_needs_no_list(server: Recorded, notes: TextCollection) -> None:
    notes.add("a", documents="one")
    assert server.bodies[f"{PLACE}/add"] == {"ids": ["a"], "documents": ["one"]}


@pytest.mark.parametrize("verb", ["add", "upsert", "update"])
def test_vectors_go_out_as_the_stock_client_sends_them(
    server: Recorded, notes: TextCollection, verb: str
) -> None:
    getattr(notes, verb)(ids=["a"], documents=["one"], embeddings=[[1.0, 2.0]])
    body = server.bodies[f"{PLACE}/{verb}"]
    assert body["documents"] == ["one"]
    assert body["embeddings"] not in (None, [None])


def test_an_update_of_metadata_alone_is_the_stock_one(server: Recorded, notes: TextCollection) -> None:
    notes.update("a", metadatas={"n": 1})
    assert server.bodies[f"{PLACE}/update"]["embeddings"] is None


def test_questions_go_out_as_text(server: Recorded, notes: TextCollection) -> None:
    answer = notes.query(query_texts="who leads?", n_results=1, where={"n": 1}, ids=["a"])
    assert server.bodies[f"{PLACE}/query"] == {
        "query_texts": ["who leads?"],
        "n_results": 1,
        "where": {"n": 1},
        "ids": ["a"],
        "include": ["metadatas", "documents", "distances"],
    }
    assert answer["ids"] == [["a"]]
    assert answer["distances"] == [[0.5]]
    assert answer["embeddings"] is None
    assert answer["included"] == ["metadatas", "documents", "distances"]
    metadatas = answer["metadatas"]
    assert metadatas is not None
    assert isinstance(metadatas[0][0]["s"], SparseVector)


def test_questions_as_vectors_are_the_stock_ones(server: Recorded, notes: TextCollection) -> None:
    notes.query(query_embeddings=[[1.0, 2.0]])
    assert server.bodies[f"{PLACE}/query"]["query_embeddings"] == [[1.0, 2.0]]


def test_a_new_collection_names_no_function_unless_the_caller_does(
    server: Recorded, client: TextClient
) -> None:
    place = PLACE.rsplit("/", 1)[0]
    for make in (client.create_collection, client.get_or_create_collection):
        assert isinstance(make("notes"), TextCollection)
        assert server.bodies[place]["configuration"] is None
        make("notes", embedding_function=DefaultEmbeddingFunction())
        assert server.bodies[place]["configuration"]["embedding_function"]["name"] == "default"


def test_every_way_to_a_collection_gives_a_text_collection(client: TextClient) -> None:
    assert isinstance(client.get_collection("notes"), TextCollection)
    assert isinstance(client.get_collection_by_id(uuid.UUID(COLLECTION_ID)), TextCollection)
    assert [type(one) for one in client.list_collections()] == [TextCollection]


def test_the_stock_checks_stay(notes: TextCollection) -> None:
    with pytest.raises(ValueError, match="Unequal lengths"):
        notes.add(ids=["a"], documents=["one", "two"])
    with pytest.raises(ValueError, match="maximum batch size"):
        notes.add(ids=["a", "b", "c", "d"], documents=["x"] * 4)


def test_a_servers_refusal_is_a_chroma_error(server: Recorded, notes: TextCollection) -> None:
    server.refusal = (400, {"error": "InvalidArgumentError", "message": "no model. Nothing was changed."})
    with pytest.raises(InvalidArgumentError, match="Nothing was changed"):
        notes.add(ids=["a"], documents=["one"])


class Answers:
    """Stands for a stock client's connection to one balancer: answers, and keeps what it was sent."""

    def __init__(self, index: str) -> None:
        self.index = index
        self.sent: list[str | None] = []
        self._session = httpx.Client(transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request.headers.get("X-Chroma-Min-Index"))
        return httpx.Response(404, headers={"X-Chroma-Log-Index": self.index})

    def ask(self, index: str) -> str | None:
        self.index = index
        self._session.get("http://balancer/")
        return self.sent[-1]


def test_a_kept_session_goes_along_with_its_client_to_another_balancer() -> None:
    one, other = Answers("0"), Answers("0")
    first: Any = SimpleNamespace(_server=one)
    second: Any = SimpleNamespace(_server=other)
    keep_session(first)
    assert [one.ask("7"), one.ask("5"), one.ask("x")] == [None, "7", "7"]
    keep_session(second, follow=first)
    assert [other.ask("9"), one.ask("3"), other.ask("3")] == ["7", "9", "9"]
