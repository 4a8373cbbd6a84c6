"""Text to vectors, once, at the leader; the only importer of models, and it knows no HTTP.

Replicas never embed: what leaves here is float32 bytes that the log carries to every node. A
model is loaded at its first use and kept; all methods may be called from several threads.
Which function a stored configuration may name is decided in `cluster.embedding.policy`.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import inspect
import json
import logging
import threading
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cluster.embedding.policy import BUNDLED, Function, Policy
from cluster.errors import ClusterError, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

log = logging.getLogger(__name__)

#: A vector stands for the first so many characters of its text. Pooling models hold one vector a
#: token while they work, so that a single request could otherwise take all memory of a leader.
MAX_CHARACTERS: Final = 65_536
#: Texts are embedded in batches whose padded size stays below this, for the same reason.
BATCH_CHARACTERS: Final = 65_536
BATCH_TEXTS: Final = 256
#: After a failed load (say, a download) the next attempt waits this long, so that requests that
#: need the model are answered at once instead of queueing behind attempts.
RETRY_AFTER_S: Final = 30.0


class EmbeddingError(ClusterError):
    """The model itself failed on these texts: nothing was changed, and a retry would not help."""

    status = 500
    error = "EmbeddingError"


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors of `dimension` float32 values (little-endian bytes), and the model they are from.

    `fingerprint` is `<name>:<version>:<hash of weights and settings>`, the same on every machine with these
    files; of no texts, `dimension` is 0.
    """

    vectors: list[bytes]
    fingerprint: str
    dimension: int


@dataclass(frozen=True, slots=True)
class _Model:
    """A loaded function. `guard` is entered around each call of a model that is not thread-safe."""

    documents: Callable[[list[str]], Any]
    queries: Callable[[list[str]], Any]
    fingerprint: str
    guard: AbstractContextManager[Any]


class _Slot:
    """Where one function's model is kept, or why it could not be loaded a moment ago."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.model: _Model | None = None
        self.failure: Refusal | None = None
        self.failed_at = 0.0


class Embedder:
    """Embeds texts with the functions that the policy allows.

    `functions` is the operator's `embedding_functions` setting, `module` its `embedding_module`.
    """

    def __init__(
        self,
        functions: Sequence[str] = (),
        module: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises:
        ValueError: a setting names a function that does not exist or cannot be had by name.
        """
        self._factory = _import_factory(module) if module else None
        own = module.replace(":", ".") if module else None
        self._policy = Policy(functions, own)
        self._clock = clock
        self._slots: dict[Function, _Slot] = {}
        self._slots_lock = threading.Lock()

    @property
    def default(self) -> Function:
        """The function of collections that name none."""
        return self._policy.default

    def function_for(self, configuration: Mapping[str, Any] | str | None) -> Function:
        """The function that a collection's `configuration_json` (decoded, or its text) asks for.

        Raises:
            Refusal: 400, this server does not embed for that function.
        """
        return self._policy.function_for(configuration)

    def embed(
        self, function: Function, texts: Sequence[str], *, pinned: str | None = None, query: bool = False
    ) -> Embedded:
        """Vectors for `texts`, in their order; `query` for texts that are searched with.

        `pinned` is the fingerprint that the collection keeps, if text was embedded for it before.

        Raises:
            Refusal: 400, the model cannot be loaded here, or is another than `pinned`.
            EmbeddingError: the model failed on these texts.
        """
        model = self._model(function)
        if pinned is not None and pinned != model.fingerprint:
            raise Refusal(
                400,
                "InvalidArgumentError",
                f"The collection's texts were embedded with {pinned}, but this server has "
                f"{model.fingerprint}; vectors of two models cannot be compared. Nothing was changed. Put "
                "that model on every node, or send `embeddings` made with it, or index the texts "
                "again in a new collection.",
            )
        call = model.queries if query else model.documents
        matrix: NDArray[np.float32] | None = None
        for places, batch in _batches(texts):
            try:
                with model.guard:
                    made = np.asarray(call(batch), dtype="<f4")
            except Exception as error:
                log.exception("embedding function %s failed on %d texts", function, len(batch))
                raise EmbeddingError(
                    f"The embedding function {function} failed ({type(error).__name__}: {error}). "
                    "Nothing was changed."
                ) from error
            if matrix is None:
                matrix = np.empty((len(texts), made.shape[1] if made.ndim == 2 else 0), dtype="<f4")
            expected = (len(batch), matrix.shape[1])
            if made.shape != expected or not expected[1] or not np.isfinite(made).all():
                raise EmbeddingError(
                    f"The embedding function {function} made an array of shape {made.shape} for "
                    f"{len(batch)} texts, where finite vectors of one dimension were expected. "
                    "Nothing was changed."
                )
            matrix[places] = made
        if matrix is None:
            return Embedded([], model.fingerprint, 0)
        return Embedded([row.tobytes() for row in matrix], model.fingerprint, int(matrix.shape[1]))

    def warm(self) -> None:
        """Load the default function now, so that the first write of text need not wait for it."""
        self._model(self.default)

    def _model(self, function: Function) -> _Model:
        with self._slots_lock:
            slot = self._slots.setdefault(function, _Slot())
        with slot.lock:
            if slot.model is not None:
                return slot.model
            if slot.failure is not None and self._clock() - slot.failed_at < RETRY_AFTER_S:
                raise slot.failure
            try:
                slot.model = self._load(function)
            except Refusal as refusal:
                slot.failure, slot.failed_at = refusal, self._clock()
                raise
            except Exception as error:
                log.warning("embedding function %s cannot be loaded", function, exc_info=True)
                slot.failure, slot.failed_at = _cannot_load(function, error), self._clock()
                raise slot.failure from error
            return slot.model

    def _load(self, function: Function) -> _Model:
        if self._factory is not None and function == self._policy.default:
            return _load_own(function.name, self._factory)
        settings = dict(function.settings)
        match function.name:
            case "wordllama":
                return _load_wordllama()
            case "onnx_mini_lm_l6_v2":
                return _load_onnx(self._policy.may_fetch(function))
            case _:
                return _load_torch(function.name, settings, self._policy.may_fetch(function))


def _batches(texts: Sequence[str]) -> Iterator[tuple[list[int], list[str]]]:
    """Places and (shortened) texts, like lengths together, so that padding costs little."""
    places: list[int] = []
    for place in sorted(range(len(texts)), key=lambda at: len(texts[at])):
        size = min(len(texts[place]), MAX_CHARACTERS)
        if places and (len(places) >= BATCH_TEXTS or size * (len(places) + 1) > BATCH_CHARACTERS):
            yield places, [texts[at][:MAX_CHARACTERS] for at in places]
            places = []
        places.append(place)
    if places:
        yield places, [texts[at][:MAX_CHARACTERS] for at in places]


# --- the models ----------------------------------------------------------------------------------


def _load_wordllama() -> _Model:
    with _root_logger_left_alone():
        module = importlib.import_module("wordllama")
    folder = Path(str(module.__file__)).parent
    model: Any = module.WordLlama.load(dim=256, cache_dir=folder, disable_download=True)
    fingerprint = _fingerprint(
        BUNDLED,
        importlib.metadata.version("wordllama"),
        _file_chunks(sorted([*folder.glob("weights/*_256.safetensors"), *folder.glob("tokenizers/*.json")])),
        {"normalized": True},
    )

    def embed(texts: list[str]) -> NDArray[np.float32]:
        vectors: Any = model.embed(texts, batch_size=len(texts))
        # Unit length makes l2, Chroma's default space, rank as cosine does. A text without a known
        # token stays the zero vector, where dividing by its length would make it NaN.
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)

    return _Model(embed, embed, fingerprint, nullcontext())


def _load_onnx(may_fetch: bool) -> _Model:
    from chromadb.utils.embedding_functions.onnx_mini_lm_l6_v2 import ONNXMiniLM_L6_V2

    folder = Path(ONNXMiniLM_L6_V2.DOWNLOAD_PATH) / ONNXMiniLM_L6_V2.EXTRACTED_FOLDER_NAME
    weights = [folder / "model.onnx", folder / "tokenizer.json"]
    if not may_fetch and not all(path.exists() for path in weights):
        raise Refusal(
            400,
            "InvalidArgumentError",
            "The collection's embedding function is Chroma's default (all-MiniLM-L6-v2 on ONNX), whose model "
            "is not on this server, and it fetches no model on a client's word. Nothing was changed. Send "
            "`embeddings` (a stock client does so by itself), or create the collection without an embedding "
            "function (the server then embeds with its bundled model), or let the operator copy the model's "
            "files into place or list 'default' in embedding_functions, which permits the download.",
        )
    made: Any = ONNXMiniLM_L6_V2(preferred_providers=["CPUExecutionProvider"])
    made(["load the model now"])
    fingerprint = _fingerprint("onnx_mini_lm_l6_v2", ONNXMiniLM_L6_V2.MODEL_NAME, _file_chunks(weights), {})
    return _Model(made, made.embed_query, fingerprint, nullcontext())


def _load_torch(name: str, settings: dict[str, Any], may_fetch: bool) -> _Model:
    """One of chromadb's functions on torch, from the settings that the policy let through."""
    functions: Any = importlib.import_module("chromadb.utils.embedding_functions")
    config: dict[str, Any] = {"device": "cpu", **settings}
    if name == "sentence_transformer":
        config.setdefault("normalize_embeddings", False)
        config["kwargs"] = {"trust_remote_code": False, "local_files_only": not may_fetch}
    made: Any = functions.known_embedding_functions[name].build_from_config(config)
    state: Any = made._model.state_dict() if hasattr(made._model, "state_dict") else {}
    chunks = (part for key in sorted(state) for part in (key.encode(), state[key].cpu().numpy().tobytes()))
    version = str(settings["model_name"]).replace(":", "_")
    rest = {key: value for key, value in settings.items() if key != "model_name"}
    return _Model(made, made.embed_query, _fingerprint(name, version, chunks, rest), threading.Lock())


def _load_own(name: str, factory: Callable[[], Any]) -> _Model:
    """The operator's own function: what `factory()` returns is called with texts.

    It may have `embed_query(texts)` and `fingerprint()`.
    """
    made = factory()
    own: Any = getattr(made, "fingerprint", None)
    if callable(own):
        fingerprint = str(own())
    else:
        # Without the author's word the source file is what tells two versions of a function apart.
        source = inspect.getsourcefile(factory)
        fingerprint = _fingerprint(name, "own", _file_chunks([Path(source)] if source else []), {})
    return _Model(made, getattr(made, "embed_query", made), fingerprint, threading.Lock())


def _import_factory(path: str) -> Callable[[], Any]:
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise ValueError(f"embedding_module: expected `package.module:factory`, got {path!r}")
    try:
        factory: Any = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"embedding_module: {path!r} cannot be imported: {error}") from error
    if not callable(factory):
        raise ValueError(f"embedding_module: {path!r} is not callable")
    return factory


def _cannot_load(function: Function, error: Exception) -> Refusal:
    return Refusal(
        400,
        "InvalidArgumentError",
        f"This server cannot load the embedding function {function} ({type(error).__name__}: {error}). "
        "Nothing was changed. Send `embeddings` instead of text alone, or have the operator install what is "
        "missing.",
    )


def _fingerprint(name: str, version: str, chunks: Iterable[bytes], settings: Mapping[str, Any]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for chunk in chunks:
        digest.update(chunk)
    return f"{name}:{version}:{digest.hexdigest()}"


def _file_chunks(paths: Iterable[Path]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                yield chunk


@contextmanager
def _root_logger_left_alone() -> Generator[None]:
    """wordllama calls `logging.basicConfig` when imported, which does nothing if a handler is there."""
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
