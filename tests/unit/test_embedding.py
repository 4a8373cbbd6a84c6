"""Texts to vectors at the leader: which function, which model, which configuration is refused."""

from __future__ import annotations

import inspect
import json
import logging
import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from chromadb.utils import embedding_functions as stock

from cluster.embedding.embedder import (
    BATCH_CHARACTERS,
    MAX_CHARACTERS,
    RETRY_AFTER_S,
    Embedder,
    EmbeddingError,
)
from cluster.embedding.policy import Function, check_configuration
from cluster.errors import ClusterError, Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

WORDLLAMA = Function("wordllama")


def known(name: str, **config: Any) -> dict[str, Any]:
    return {
        "hnsw": {},
        "spann": None,
        "embedding_function": {"type": "known", "name": name, "config": config},
    }


def vectors(embedded: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.frombuffer(b"".join(embedded.vectors), dtype="<f4").reshape(-1, embedded.dimension)


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder()


# --- which function ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "configuration",
    [
        None,
        {},
        {"hnsw": {"space": "l2"}, "spann": None, "embedding_function": None},
        {"embedding_function": {"type": "legacy"}},
        {"embedding_function": {"type": "unknown"}},
        json.dumps({"embedding_function": {"type": "legacy"}}),
        "null",
    ],
)
def test_collections_that_name_no_function_get_the_bundled_one(
    embedder: Embedder, configuration: Any
) -> None:
    assert embedder.function_for(configuration) == WORDLLAMA == embedder.default


def test_both_names_of_chromas_default_are_one_function(embedder: Embedder) -> None:
    a = embedder.function_for(known("default"))
    b = embedder.function_for(known("onnx_mini_lm_l6_v2", preferred_providers=["TensorrtExecutionProvider"]))
    assert a == b == Function("onnx_mini_lm_l6_v2")


def test_only_listed_keys_of_a_configuration_are_taken_over(embedder: Embedder) -> None:
    function = embedder.function_for(
        known(
            "sentence_transformer",
            model_name="all-MiniLM-L6-v2",
            device="cuda:7",
            normalize_embeddings=True,
            kwargs={"cache_folder": "/etc", "trust_remote_code": True},
        )
    )
    assert dict(function.settings) == {"model_name": "all-MiniLM-L6-v2", "normalize_embeddings": True}


BUILT_WITHOUT_A_WORD = {"default", "onnx_mini_lm_l6_v2", "sentence_transformer"}


@pytest.mark.parametrize("name", sorted(stock.known_embedding_functions))
def test_of_chromas_functions_only_those_on_the_list_are_built(embedder: Embedder, name: str) -> None:
    if name in BUILT_WITHOUT_A_WORD:
        embedder.function_for(known(name))
        return
    with pytest.raises(Refusal) as caught:
        embedder.function_for(known(name, api_base="http://attacker.example", api_key_env_var="HOME"))
    assert (caught.value.status, caught.value.error) == (400, "InvalidArgumentError")
    assert repr(name) in caught.value.message
    assert "Nothing was changed" in caught.value.message
    assert "embeddings" in caught.value.message


@pytest.mark.parametrize("model", ["attacker/model", "/tmp/model", "../model", "chroma/model"])
def test_a_model_that_the_operator_did_not_name_is_refused(embedder: Embedder, model: str) -> None:
    with pytest.raises(Refusal, match="only if its operator lists"):
        embedder.function_for(known("sentence_transformer", model_name=model))


def test_the_operator_can_name_models_and_functions() -> None:
    embedder = Embedder(["sentence_transformer:BAAI/bge-small-en-v1.5", "text2vec", "instructor"])
    function = embedder.function_for(known("sentence_transformer", model_name="BAAI/bge-small-en-v1.5"))
    assert dict(function.settings)["model_name"] == "BAAI/bge-small-en-v1.5"
    assert embedder.function_for(known("text2vec")).name == "text2vec"
    assert dict(embedder.function_for(known("instructor", instruction="Represent:")).settings) == {
        "instruction": "Represent:",
        "model_name": "hkunlp/instructor-base",
    }
    with pytest.raises(Refusal):
        embedder.function_for(known("sentence_transformer", model_name="BAAI/other"))


@pytest.mark.parametrize("config", [{"model_name": 5}, {"normalize_embeddings": "yes"}])
def test_settings_of_the_wrong_type_are_refused(embedder: Embedder, config: dict[str, Any]) -> None:
    with pytest.raises(Refusal, match="wrong type"):
        embedder.function_for(known("sentence_transformer", **config))


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("openai", "embedding_module"),
        ("wordllama:other", "one model only"),
        ("sentence_transformer:/tmp/x", "not a model's name"),
        ("sentence_transformer:../x", "not a model's name"),
    ],
)
def test_a_wrong_entry_in_the_settings_stops_the_start(entry: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Embedder([entry])


# --- vectors -------------------------------------------------------------------------------------


def test_the_bundled_model_makes_unit_vectors_of_256_float32(embedder: Embedder) -> None:
    made = embedder.embed(WORDLLAMA, ["a cat sat on the mat", "kittens", "interest rates", ""])
    assert made.dimension == 256
    assert {len(vector) for vector in made.vectors} == {256 * 4}
    matrix = vectors(made)
    assert np.allclose(np.linalg.norm(matrix, axis=1), [1, 1, 1, 0], atol=1e-6)
    assert matrix[0] @ matrix[1] > matrix[0] @ matrix[2]


def test_a_text_has_the_same_bits_in_every_batch(embedder: Embedder) -> None:
    rng = random.Random(5)
    texts = [" ".join(rng.choices(["oak", "raft", "log", "vote"], k=rng.randint(1, 400))) for _ in range(300)]
    together = embedder.embed(WORDLLAMA, texts).vectors
    alone = [embedder.embed(WORDLLAMA, [text]).vectors[0] for text in texts[:40]]
    assert together[:40] == alone


def test_threads_share_one_model_and_agree() -> None:
    embedder = Embedder()
    texts = [f"text number {n}" for n in range(50)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: embedder.embed(WORDLLAMA, texts).vectors, range(16)))
    assert all(answer == answers[0] for answer in answers)


def test_no_texts_make_no_vectors(embedder: Embedder) -> None:
    assert embedder.embed(WORDLLAMA, []).vectors == []


def test_loading_the_bundled_model_leaves_logging_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    for name in [name for name in sys.modules if name.split(".")[0] == "wordllama"]:
        monkeypatch.delitem(sys.modules, name)
    Embedder().warm()
    assert logging.root.handlers == []


def test_the_fingerprint_names_model_version_and_weights(embedder: Embedder) -> None:
    name, version, digest = embedder.embed(WORDLLAMA, []).fingerprint.split(":")
    assert (name, len(digest)) == ("wordllama", 16)
    assert version[0].isdigit()
    assert Embedder().embed(WORDLLAMA, []).fingerprint == embedder.embed(WORDLLAMA, []).fingerprint


def test_texts_of_another_model_are_not_mixed_in(embedder: Embedder) -> None:
    own = embedder.embed(WORDLLAMA, []).fingerprint
    assert embedder.embed(WORDLLAMA, ["x"], pinned=own).fingerprint == own
    with pytest.raises(Refusal) as caught:
        embedder.embed(WORDLLAMA, ["x"], pinned="wordllama:0.3.9:0011223344556677")
    assert own in caught.value.message
    assert "wordllama:0.3.9:0011223344556677" in caught.value.message


# --- the ONNX default ----------------------------------------------------------------------------


def test_the_onnx_default_is_never_fetched_on_a_clients_word(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(stock.ONNXMiniLM_L6_V2, "DOWNLOAD_PATH", tmp_path)
    monkeypatch.setattr(stock.ONNXMiniLM_L6_V2, "_download", lambda *_a, **_k: pytest.fail("called out"))
    embedder = Embedder()
    with pytest.raises(Refusal, match="Nothing was changed") as caught:
        embedder.embed(embedder.function_for(known("default")), ["x"])
    assert caught.value.status == 400
    assert "list 'default' in embedding_functions" in caught.value.message


def test_a_failed_download_is_not_tried_again_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    tries: list[int] = []

    def no_network(*_args: Any, **_kwargs: Any) -> None:
        tries.append(1)
        raise OSError("no route to host")

    now = 100.0
    monkeypatch.setattr(stock.ONNXMiniLM_L6_V2, "DOWNLOAD_PATH", tmp_path)
    monkeypatch.setattr(stock.ONNXMiniLM_L6_V2, "_download", no_network)
    embedder = Embedder(["default"], clock=lambda: now)
    function = embedder.function_for(known("default"))
    for _ in range(3):
        with pytest.raises(Refusal, match="no route to host"):
            embedder.embed(function, ["x"])
    assert len(tries) == 1
    now += RETRY_AFTER_S
    with pytest.raises(Refusal):
        embedder.embed(function, ["x"])
    assert len(tries) == 2


def test_a_missing_package_is_a_refusal_that_says_so(embedder: Embedder) -> None:
    with pytest.raises(Refusal, match="sentence_transformers python package is not installed"):
        embedder.embed(embedder.function_for(known("sentence_transformer")), ["x"])


def test_sentence_transformer_is_built_offline_and_without_remote_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built: list[dict[str, Any]] = []

    class Model:
        def __init__(self, **arguments: Any) -> None:
            built.append(arguments)

        def encode(self, texts: list[str], **_options: Any) -> Any:
            return np.ones((len(texts), 3))

    monkeypatch.setitem(sys.modules, "sentence_transformers", MagicMock(SentenceTransformer=Model))
    monkeypatch.setattr(stock.SentenceTransformerEmbeddingFunction, "models", {})
    embedder = Embedder()
    asked = known("sentence_transformer", device="cuda", kwargs={"trust_remote_code": True})
    made = embedder.embed(embedder.function_for(asked), ["x"])
    assert made.dimension == 3
    assert built == [
        {
            "model_name_or_path": "all-MiniLM-L6-v2",
            "device": "cpu",
            "trust_remote_code": False,
            "local_files_only": True,
        }
    ]


# --- the operator's own function -----------------------------------------------------------------


class Noise:
    """Deliberately random: two calls never agree."""

    def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        return [[random.random() for _ in range(8)] for _ in texts]


class Picky:
    """Says who it is, treats queries in another way, and records its calls."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.inside = 0
        self.lock = threading.Lock()

    def __call__(self, texts: list[str]) -> Any:
        self.batches.append(texts)
        if "bad" in texts:
            raise RuntimeError("cannot read this")
        if "ragged" in texts:
            return [[1.0], [1.0, 2.0]][: len(texts)]
        return [[float("nan") if text == "nan" else float(len(text))] for text in texts]

    def embed_query(self, texts: list[str]) -> Any:
        return [[-1.0] for _ in texts]

    def fingerprint(self) -> str:
        return "picky:7:aa"


def test_the_operators_own_function_is_the_default() -> None:
    embedder = Embedder(module=f"{__name__}:Noise")
    function = embedder.function_for({"embedding_function": {"type": "legacy"}})
    assert function == embedder.default == embedder.function_for(known(f"{__name__}.Noise"))
    first, second = (embedder.embed(function, ["same text"]) for _ in range(2))
    assert first.dimension == 8
    assert first.vectors != second.vectors
    assert (
        first.fingerprint
        == second.fingerprint
        == Embedder(module=f"{__name__}:Noise").embed(function, []).fingerprint
    )
    assert first.fingerprint.count(":") == 2
    assert embedder.function_for(known("wordllama")) == WORDLLAMA


def test_an_own_function_may_tell_queries_apart_and_name_itself() -> None:
    embedder = Embedder(module=f"{__name__}:Picky")
    assert embedder.embed(embedder.default, []).fingerprint == "picky:7:aa"
    assert vectors(embedder.embed(embedder.default, ["abc"])).tolist() == [[3.0]]
    assert vectors(embedder.embed(embedder.default, ["abc"], query=True)).tolist() == [[-1.0]]


@pytest.mark.parametrize("texts", [["bad"], ["nan"], ["ragged", "x"]])
def test_a_model_that_fails_changes_nothing_and_says_so(texts: list[str]) -> None:
    embedder = Embedder(module=f"{__name__}:Picky")
    with pytest.raises(EmbeddingError, match="Nothing was changed") as caught:
        embedder.embed(embedder.default, texts)
    assert isinstance(caught.value, ClusterError)
    assert caught.value.status == 500


def test_long_texts_are_cut_and_batches_are_bounded() -> None:
    picky = Picky()
    module = MagicMock(factory=lambda: picky)
    sys.modules["own_embedding_module"] = module
    try:
        embedder = Embedder(module="own_embedding_module:factory")
        lengths = [10, 3 * MAX_CHARACTERS, 500, 0, 40_000, 40_000, 7]
        made = embedder.embed(embedder.default, ["x" * length for length in lengths])
    finally:
        del sys.modules["own_embedding_module"]
    assert vectors(made)[:, 0].tolist() == [float(min(length, MAX_CHARACTERS)) for length in lengths]
    assert len(picky.batches) > 1
    assert all(len(batch) * max(map(len, batch)) <= BATCH_CHARACTERS for batch in picky.batches)


@pytest.mark.parametrize(
    "path",
    [
        "nowhere:f",
        "cluster.embedding.embedder:nothing",
        "cluster.embedding.embedder",
        ":x",
        f"{__name__}:WORDLLAMA",
    ],
)
def test_an_own_function_that_cannot_be_imported_stops_the_start(path: str) -> None:
    with pytest.raises(ValueError, match="embedding_module"):
        Embedder(module=path)


# --- what a configuration must not contain -------------------------------------------------------

NESTED = {"model_name": "a/b", "kwargs": {"model_kwargs": {"trust_remote_code": True}}}
SPARSE = {
    "keys": {
        "sparse": {
            "sparse_vector": {
                "sparse_vector_index": {
                    "enabled": True,
                    "config": {
                        "embedding_function": {
                            "type": "known",
                            "name": "huggingface_sparse",
                            "config": {
                                "model_name": "a/b",
                                "device": "cpu",
                                "kwargs": {"trust_remote_code": True},
                            },
                        }
                    },
                }
            }
        }
    }
}


@pytest.mark.parametrize(
    "value",
    [
        known("sentence_transformer", kwargs={"trust_remote_code": True}),
        known("sentence_transformer", **NESTED),
        known("own", anything=[[{"Trust-Remote-Code": 1}]]),
        known("own", trustRemoteCode="false"),
        known("own", allow_remote_code=True),
        known("own", kwargs={"config_kwargs": {"auto_map": {"AutoModel": "evil.Evil"}}}),
        known("own", kwargs={"code_revision": "main"}),
        known("own", kwargs={"model_kwargs": {"attn_implementation": "attacker/kernel"}}),
        known("own", kwargs={"model_kwargs": {"weights_only": False}}),
        known("own", kwargs={"model_kwargs": {"use_kernels": True}}),
        known("own", allow_pickle=True),
        known("own", model={"_target_": "os.system"}),
        known("own", model={"py/object": "os.system"}),
        known("own", model={"__class__": "x"}),
        {"trust_remote_code": True},
        json.dumps(known("own", trust_remote_code=True)),
        SPARSE,
        {"keys": {"trust_remote_code": True}},
        {"defaults": {"float_list": {"config": {"embedding_function": known("x", trust_remote_code=True)}}}},
    ],
)
def test_a_configuration_that_asks_for_code_is_refused(value: Any) -> None:
    refusal = check_configuration(value)
    assert refusal is not None
    assert (refusal.status, refusal.error) == (400, "InvalidArgumentError")
    assert "Nothing was changed" in refusal.message


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        [],
        3,
        "not json {",
        known("default"),
        known("sentence_transformer", kwargs={"trust_remote_code": False, "cache_folder": "/models"}),
        known("sentence_transformer", kwargs={"trust_remote_code": None}),
        known(
            "x", kwargs={"model_kwargs": {"attn_implementation": "flash_attention_2", "weights_only": True}}
        ),
        known("chroma_langchain", embedding_function_class="OpenAIEmbeddings", note="placeholder"),
        # Names of a user's metadata fields are not settings.
        {"keys": {"module_path": {"string": {"string_inverted_index": {"enabled": False, "config": {}}}}}},
        {"keys": {"trust_remote_code": {"bool": {"bool_inverted_index": {"enabled": True, "config": {}}}}}},
    ],
)
def test_a_harmless_configuration_passes(value: Any) -> None:
    assert check_configuration(value) is None


def test_deep_nesting_is_walked_without_recursion() -> None:
    value: dict[str, Any] = {"trust_remote_code": True}
    for _ in range(50_000):
        value = {"a": value}
    assert check_configuration(value) is not None


class _Package(MagicMock):
    """Stands for a library that is not installed, so that chromadb's functions can be constructed."""

    __spec__ = ModuleSpec("stub", None)


ARGUMENTS: dict[str, Any] = {
    "api_key_env_var": "STUB_API_KEY",
    "url": "http://localhost:9",
    "model": "model",
    "task_type": "search_document",
    "query_config": None,
    "session": MagicMock(region_name="eu", profile_name="p"),
    "embedding_function": MagicMock(),
    "api_key": None,
    "api_base": "http://localhost:9",
    "account_id": "account",
    "model_name": "model",
    "device": "cpu",
    "task": "document",
}
LIBRARIES = [
    *(
        "cohere",
        "openai",
        "ollama",
        "InstructorEmbedding",
        "mistralai",
        "mistralai.client",
        "nomic",
        "voyageai",
    ),
    *("open_clip", "torch", "PIL", "PIL.Image", "inference_sdk", "text2vec", "boto3", "langchain_core"),
    *("langchain_core.embeddings", "sentence_transformers", "fastembed", "fastembed.sparse", "google"),
    *(
        "fastembed.sparse.bm25",
        "google.genai",
        "google.generativeai",
        "google.auth",
        "vertexai",
        "snowballstemmer",
    ),
    *("vertexai.language_models", "perplexity", "together", "httpx", "requests"),
]


@pytest.mark.filterwarnings("ignore:Bm25EmbeddingFunction is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "kind"),
    sorted({**stock.known_embedding_functions, **stock.sparse_known_embedding_functions}.items()),
)
def test_what_stock_clients_store_for_each_of_chromas_functions_passes(
    name: str, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in LIBRARIES:
        monkeypatch.setitem(sys.modules, library, _Package())
    monkeypatch.setitem(sys.modules, "langchain_core.embeddings", _Package(Embeddings=MagicMock))
    sys.modules["langchain_core"].embeddings = sys.modules["langchain_core.embeddings"]
    sys.modules["open_clip"].create_model_and_transforms = lambda **_: (MagicMock(), None, None)
    monkeypatch.setenv("STUB_API_KEY", "secret")
    wanted = {
        key: parameter
        for key, parameter in list(inspect.signature(kind.__init__).parameters.items())[1:]
        if parameter.kind is not parameter.VAR_KEYWORD
    }
    arguments = {
        key: ARGUMENTS[key]
        for key, parameter in wanted.items()
        if parameter.default is parameter.empty or key == "api_key_env_var"
    }
    if name == "chroma-cloud-qwen":
        from chromadb.utils.embedding_functions import chroma_cloud_qwen_embedding_function as qwen

        arguments["model"] = qwen.ChromaCloudQwenEmbeddingModel.QWEN3_EMBEDDING_0p6B
        arguments["task"] = "nl_to_code"
    config = kind(**arguments).get_config()
    json.dumps(config, default=str)
    assert check_configuration(known(name, **config)) is None
