"""A stock chromadb client that sends text instead of vectors: the cluster's leader embeds it.

    from cluster.client import text_client

    notes = text_client("localhost", 8000).get_or_create_collection("notes")
    notes.add(ids=["1"], documents=["Raft elects a leader."])
    notes.query(query_texts=["who is in charge?"], n_results=1)

`add`, `upsert` and `update` with documents and no embeddings, and `query` with `query_texts`, go out
as text: no model is loaded or downloaded here, whatever function the collection names. Everything
else is the stock client. Against a plain Chroma server these calls are refused, for it cannot embed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from chromadb import Collection
from chromadb.api.client import Client
from chromadb.api.types import QueryResult, deserialize_metadata, serialize_metadata, validate_batch
from chromadb.config import DEFAULT_DATABASE, DEFAULT_TENANT, Settings

#: What an answer says it may have seen, and what a read is told it must include.
LOG_INDEX: Final = "X-Chroma-Log-Index"
MIN_INDEX: Final = "X-Chroma-Min-Index"

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from chromadb.api import ServerAPI


def text_client(
    host: str = "localhost",
    port: int = 8000,
    *,
    ssl: bool = False,
    headers: dict[str, str] | None = None,
    settings: Settings | None = None,
    tenant: str = DEFAULT_TENANT,
    database: str = DEFAULT_DATABASE,
) -> TextClient:
    """What `chromadb.HttpClient` is, with the same arguments, for collections that send text only."""
    settings = settings or Settings()
    settings.chroma_api_impl = "chromadb.api.fastapi.FastAPI"
    settings.chroma_server_host = host
    settings.chroma_server_http_port = port
    settings.chroma_server_ssl_enabled = ssl
    settings.chroma_server_headers = headers
    return TextClient(tenant=tenant, database=database, settings=settings)


def keep_session(client: Client, *, follow: Client | None = None) -> None:
    """Let `client` never read older than what it wrote or read before, through whichever balancer it goes.

    It remembers the highest log index of its answers and sends it along with every request. A client that
    changes its balancer passes the one it had as `follow`: both share one session from then on. Safe
    for threads: an index that is lost to a race is sent by the next request.
    """
    server: Any = cast("Any", client)._server
    known: Any = None if follow is None else cast("Any", follow)._server
    seen: list[int] = [0] if known is None else known._session_seen

    def send(request: Any) -> None:
        if seen[0]:
            request.headers[MIN_INDEX] = str(seen[0])

    def note(response: Any) -> None:
        index = response.headers.get(LOG_INDEX, "")
        if index.isdecimal():
            seen[0] = max(seen[0], int(index))

    server._session_seen = seen
    server._session.event_hooks = {"request": [send], "response": [note]}


class TextCollection(Collection):
    """A stock collection whose documents and query texts stay text on the wire."""

    def _embed_record_set(
        self, record_set: Any, embeddable_fields: set[str] | None = None, is_query: bool = False
    ) -> Any:
        """Where the stock collection calls its embedding function: texts pass as they are."""
        documents = record_set["documents"]
        if documents is None:
            return super()._embed_record_set(record_set, embeddable_fields, is_query)  # pyright: ignore[reportUnknownMemberType]
        return _Texts(documents)


class TextClient(Client):
    """The stock client, handing out `TextCollection`s.

    Unlike the stock client it names no embedding function where the caller names none: the
    collection then gets the server's bundled model and not the ONNX one, which needs a download.
    """

    def list_collections(
        self, limit: int | None = None, offset: int | None = None
    ) -> Sequence[TextCollection]:
        return [self._text(collection) for collection in super().list_collections(limit, offset)]

    def create_collection(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, name: str, *args: Any, embedding_function: Any = None, **kwargs: Any
    ) -> TextCollection:
        made = super().create_collection(name, *args, embedding_function=embedding_function, **kwargs)
        return self._text(made)

    def get_or_create_collection(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, name: str, *args: Any, embedding_function: Any = None, **kwargs: Any
    ) -> TextCollection:
        made = super().get_or_create_collection(name, *args, embedding_function=embedding_function, **kwargs)
        return self._text(made)

    def get_collection(
        self, name: str, embedding_function: Any = None, data_loader: Any = None
    ) -> TextCollection:
        return self._text(super().get_collection(name, embedding_function, data_loader))

    def get_collection_by_id(
        self, id: UUID, embedding_function: Any = None, data_loader: Any = None
    ) -> TextCollection:
        return self._text(super().get_collection_by_id(id, embedding_function, data_loader))

    def close(self) -> None:
        """Release the client and its connections, which the stock client leaves to the collector."""
        super().close()
        for holder in (self, self._admin_client):
            session = getattr(getattr(holder, "_server", None), "_session", None)
            if session is not None:
                session.close()

    def _text(self, collection: Any) -> TextCollection:
        return TextCollection(
            client=cast("ServerAPI", _TextServer(self._server)),
            model=collection._model,
            embedding_function=collection._embedding_function,
            data_loader=collection._data_loader,
        )


class _Texts(list[str]):
    """Stands where the stock client expects vectors: these texts are to be embedded by the server."""


class _TextServer:
    """The client's connection, which sends `_Texts` as text and leaves all other calls alone."""

    def __init__(self, server: ServerAPI) -> None:
        self._server: Any = server

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    def _add(self, **call: Any) -> bool:
        return self._write("add", call)

    def _upsert(self, **call: Any) -> bool:
        return self._write("upsert", call)

    def _update(self, **call: Any) -> bool:
        return self._write("update", call)

    def _write(self, verb: str, call: dict[str, Any]) -> bool:
        if not isinstance(call["embeddings"], _Texts):
            return getattr(self._server, f"_{verb}")(**call)
        ids, documents, metadatas = call["ids"], call["documents"], call["metadatas"]
        limits = {"max_batch_size": self._server.get_max_batch_size()}
        validate_batch((ids, None, metadatas, documents, None), limits)
        body: dict[str, Any] = {"ids": ids, "documents": documents}
        if metadatas is not None:
            body["metadatas"] = [one if one is None else serialize_metadata(one) for one in metadatas]
        if call["uris"] is not None:
            body["uris"] = call["uris"]
        self._post(call, verb, body)
        return True

    def _query(self, **call: Any) -> QueryResult:
        texts = call["query_embeddings"]
        if not isinstance(texts, _Texts):
            return self._server._query(**call)
        names = ("ids", "n_results", "where", "where_document")
        body = {name: call[name] for name in names if call[name] is not None}
        body["query_texts"] = texts
        body["include"] = [field for field in call["include"] if field != "data"]
        answer = self._post(call, "query", body)
        if answer.get("metadatas") is not None:
            answer["metadatas"] = [
                row if row is None else [one if one is None else deserialize_metadata(one) for one in row]
                for row in answer["metadatas"]
            ]
        fields = ("distances", "embeddings", "metadatas", "documents", "uris")
        result = {"ids": answer["ids"], "data": None, "included": call["include"]}
        return cast("QueryResult", {**result, **{field: answer.get(field) for field in fields}})

    def _post(self, call: dict[str, Any], verb: str, body: dict[str, Any]) -> Any:
        place = f"/tenants/{call['tenant']}/databases/{call['database']}/collections/{call['collection_id']}"
        return self._server._make_request("post", f"{place}/{verb}", json=body)
