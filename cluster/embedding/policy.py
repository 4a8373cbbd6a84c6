"""Which embedding function may this server build for a stored configuration; pure, builds nothing.

A collection's configuration is written by clients, so it is read as data and never as orders:

- a function is built only if its name is in `_LOCAL` below, and only from the keys listed there;
- a model is taken only if its name is listed there or in the operator's settings, for a model name
  may be a path or a repository, and loading some file formats runs code;
- nothing is fetched from the network unless the operator listed the function in the settings;
- a configuration that asks to load or run code is refused when a collection is created or updated,
  although this server would not obey it: stock clients that read it back might (CVE-2026-45829).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, TypeAlias, cast

from cluster.errors import Refusal

#: What a collection without a function of its own gets: in the wheel, no download, 256 dimensions.
BUNDLED: Final = "wordllama"

Setting: TypeAlias = str | bool | int | None


@dataclass(frozen=True, slots=True)
class Function:
    """An embedding function that may be built: its name and the few settings that were taken over."""

    name: str
    settings: tuple[tuple[str, Setting], ...] = ()

    def __str__(self) -> str:
        if not self.settings:
            return self.name
        return f"{self.name}({', '.join(f'{key}={value!r}' for key, value in self.settings)})"


@dataclass(frozen=True, slots=True)
class _Local:
    """A function that runs on this machine: the keys that are taken from a configuration.

    `models` may be built without the operator's word; `alias` is another name of the same model.
    """

    keys: Mapping[str, type] = field(default_factory=lambda: MappingProxyType(dict[str, type]()))
    default_model: str | None = None
    models: frozenset[str] = frozenset()
    needs_operator: bool = False
    alias: str | None = None


#: All that can be built by name. `text2vec` and `instructor` need the operator's word because their
#: libraries cannot be kept from the network, and unpickle weights. Everything else that chromadb
#: knows either calls a service (with the server's keys, at an address the client chose) or takes
#: images, sparse vectors or code.
_LOCAL: Final[Mapping[str, _Local]] = MappingProxyType(
    {
        BUNDLED: _Local(),
        "onnx_mini_lm_l6_v2": _Local(),
        "default": _Local(alias="onnx_mini_lm_l6_v2"),
        "sentence_transformer": _Local(
            keys={"model_name": str, "normalize_embeddings": bool},
            default_model="all-MiniLM-L6-v2",
            models=frozenset({"all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"}),
        ),
        "text2vec": _Local(
            keys={"model_name": str},
            default_model="shibing624/text2vec-base-chinese",
            models=frozenset({"shibing624/text2vec-base-chinese"}),
            needs_operator=True,
        ),
        "instructor": _Local(
            keys={"model_name": str, "instruction": str},
            default_model="hkunlp/instructor-base",
            models=frozenset({"hkunlp/instructor-base"}),
            needs_operator=True,
        ),
    }
)

_MODEL_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)


class Policy:
    """The allow list: built in, and extended by the operator's `embedding_functions` setting.

    An entry is a function's name (it may then fetch its model), or `name:model` (that model too).
    `own` is the name of the operator's own function, which then is the default.
    """

    def __init__(self, entries: Sequence[str] = (), own: str | None = None) -> None:
        """Raises:
        ValueError: an entry names a function that this server cannot run locally.
        """
        self.own = own
        self._listed: set[str] = set()
        self._models: set[tuple[str, str]] = set()
        for entry in entries:
            name, _, model = entry.partition(":")
            rule = _LOCAL.get(name)
            if rule is None:
                raise ValueError(
                    f"embedding_functions: {name!r} is not a function that this server can run by name; "
                    f"it knows {', '.join(_LOCAL)}. Any other function can be given as embedding_module"
                )
            if model and (rule.default_model is None or not _MODEL_NAME.fullmatch(model)):
                raise ValueError(
                    f"embedding_functions: {entry!r}: "
                    + ("not a model's name" if rule.default_model else f"{name} has one model only")
                )
            self._listed.add(rule.alias or name)
            if model:
                self._models.add((name, model))

    @property
    def default(self) -> Function:
        """What a collection without a function of its own gets."""
        return Function(self.own or BUNDLED)

    def may_fetch(self, function: Function) -> bool:
        """Whether the operator listed this function, so that it may download its model."""
        return function.name in self._listed

    def function_for(self, configuration: Mapping[str, Any] | str | None) -> Function:
        """The function that a collection's `configuration_json` asks for.

        Raises:
            Refusal: 400, this server does not embed for that function.
        """
        stored = _embedding_function(configuration)
        if stored is None:
            return self.default
        name = stored["name"]
        if name == self.own:
            return self.default
        rule = _LOCAL.get(name) if isinstance(name, str) else None
        if rule is None:
            raise _refusal(
                f"The collection's embedding function is {_shown(name)}, and this server does not embed "
                "for it (only for functions that run locally and that its operator allows)."
            )
        name = rule.alias or name
        if rule.needs_operator and name not in self._listed:
            raise _refusal(
                f"The collection's embedding function is {_shown(name)}, which this server builds only if "
                f"its operator lists {name!r} in embedding_functions."
            )
        settings = _taken(name, rule, _mapping(stored.get("config")))
        model = settings.get("model_name")
        if model is not None and model not in rule.models and (name, model) not in self._models:
            raise _refusal(
                f"The collection's embedding function is {_shown(name)} with the model {_shown(model)}, "
                f"which this server builds only if its operator lists {f'{name}:{model}'!r} in "
                "embedding_functions."
            )
        return Function(name, tuple(sorted(settings.items())))


def _embedding_function(configuration: Mapping[str, Any] | str | None) -> Mapping[str, Any] | None:
    """The stored `known` function, or None where the collection has none (null, legacy, unknown)."""
    value: Any = json.loads(configuration) if isinstance(configuration, str) else configuration
    stored = _mapping(_mapping(value).get("embedding_function"))
    return stored if "name" in stored and stored.get("type", "known") == "known" else None


def _mapping(value: Any) -> Mapping[str, Any]:
    """`value` if it is a mapping, else an empty one."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _taken(name: str, rule: _Local, given: Mapping[str, Any]) -> dict[str, Setting]:
    """The listed keys of a stored configuration; everything else in it is left alone."""
    taken: dict[str, Setting] = {}
    for key, kind in rule.keys.items():
        value = given.get(key)
        if value is None:
            continue
        if not isinstance(value, kind):
            raise _refusal(f"The configuration of embedding function {name!r} has a {key} of the wrong type.")
        taken[key] = value
    if rule.default_model is not None:
        taken.setdefault("model_name", rule.default_model)
    return taken


def _refusal(reason: str) -> Refusal:
    return Refusal(
        400,
        "InvalidArgumentError",
        f"{reason} Nothing was changed. Send `embeddings` (or `query_embeddings`) instead of text alone, "
        "or use a collection without an embedding function: the server then embeds with its default model.",
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."


# --- what a configuration must not contain -------------------------------------------------------

#: Keys, in any spelling (case, `-` and `_` do not count), that make a model library run code which
#: the configuration brings: Hugging Face's remote code and its relatives, compiled kernels from a
#: hub, pickles. The last three are what configuration frameworks call a class to import.
_CODE_KEYS: Final = frozenset(
    {
        "automap",
        "coderevision",
        "custompipeline",
        "custompipelines",
        "customgenerate",
        "customcode",
        "usekernels",
        "kernelconfig",
        "picklemodule",
        "allowpickle",
        "allowdangerousdeserialization",
        "importpath",
        "modulepath",
        "classpath",
    }
)
#: Spelled exactly so: object hooks of Hydra and jsonpickle.
_HOOK_KEYS: Final = frozenset({"_target_", "py/object", "py/reduce", "py/function", "py/type"})
_SEPARATORS: Final = re.compile(r"[^a-z0-9]")


def check_configuration(value: Any) -> Refusal | None:
    """A refusal if a collection's `configuration` or `schema` asks to load or run code, else None.

    Looks at every nested mapping and list. `value` is decoded JSON, or its text. What Chroma itself
    would refuse (types, unknown variants) is not looked at here.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    #: (value, path, whether its keys are names of metadata fields and not settings): a list instead
    #: of recursion, for a client decides how deep the nesting is.
    waiting: list[tuple[Any, tuple[str, ...], bool]] = [(value, (), False)]
    while waiting:
        current, path, named_by_user = waiting.pop()
        if isinstance(current, dict):
            for name, child in cast("dict[str, Any]", current).items():
                is_field = named_by_user and bool(_mapping(child))
                if not is_field and _asks_for_code(name, child):
                    return _code_refusal((*path, name))
                fields_follow = path == () and name == "keys"
                waiting.append((child, (*path, name), fields_follow))
        elif isinstance(current, list):
            waiting.extend((child, path, False) for child in cast("list[Any]", current))
    return None


def _asks_for_code(key: str, value: Any) -> bool:
    plain = _SEPARATORS.sub("", key.lower())
    if value is None:
        return False
    if "remotecode" in plain:
        return value is not False
    if plain == "weightsonly":
        return value is not True
    if plain == "attnimplementation":
        # A name with a slash is a repository of compiled kernels that is fetched and loaded.
        return not isinstance(value, str) or "/" in value or ":" in value
    if key in _HOOK_KEYS or (key.startswith("__") and key.endswith("__")):
        return True
    return plain in _CODE_KEYS and value is not False


def _code_refusal(path: tuple[str, ...]) -> Refusal:
    where = ".".join(path[-6:])
    return Refusal(
        400,
        "InvalidArgumentError",
        f"The configuration asks to load or run code ({_shown(where)}), which this server does not store: "
        "whoever reads it back could be made to run it (CVE-2026-45829). Nothing was changed. Leave this key "
        "out; a client that needs such a model can load it itself and send vectors.",
    )
