"""Imports go one way: shells import pure modules, never the reverse, and each library has its place.

The layers are those of the house (see docs/architecture.md). Imports are read from the source,
inside functions and for type checkers too; for cycles count those made when a module is loaded.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]

#: Decisions: no I/O, no clock, no randomness, no threads. They know each other and these only.
PURE = (
    "cluster.errors",
    "cluster.state.commands",
    "cluster.state.catalog",
    "cluster.state.requests",
    "cluster.state.work",
    "cluster.state.merging",
    "cluster.state.machine",
    "cluster.propose.grouping",
    "cluster.reads",
)
HARMLESS = {
    "__future__",
    "collections",
    "dataclasses",
    "enum",
    "functools",
    "hashlib",
    "itertools",
    "math",
    "msgpack",
    "re",
    "typing",
}
IMPURE_BUILTINS = {"open", "print", "input", "exec", "eval", "__import__", "id", "hash"}

#: Who may import what; a name that ends in a dot stands for everything in that package.
PLACES = {
    "pysyncobj": ("cluster.raft.",),
    "sqlite3": ("cluster.raft.", "cluster.apply.store", "cluster.durable"),
    "chromadb_rust_bindings": (
        "cluster.chroma.bindings",
        "cluster.chroma.embedded",
        "cluster.chroma.reading",
        "cluster.chroma.scratch",
        "cluster.chroma.oracle",
    ),
    # A client of a cluster is a chromadb client; the demo is one, and embedding runs its functions.
    "chromadb": (
        "cluster.chroma.bindings",
        "cluster.embedding.embedder",
        "cluster.client",
        "cluster.cli.demo.",
    ),
    "wordllama": ("cluster.embedding.embedder",),
    "aiohttp": (
        "cluster.api.",
        "cluster.chroma.oracle",
        "cluster.server",
        "cluster.peers",
        "cluster.service",
        "lb.",
    ),
    # A cluster runs without the evaluation, which plugs its commands in by entry points.
    "evaluation": (),
    "rich": (
        "cluster.cli.app",
        "cluster.cli.messages",
        "cluster.cli.status_view",
        "cluster.cli.up",
        "cluster.cli.demo.",
    ),
    # No byte from a wire or a disk is unpickled, anywhere.
    "pickle": (),
    "marshal": (),
    "shelve": (),
    "dill": (),
    "cloudpickle": (),
}

#: Decisions of the evaluation; they know each other, the types that all share, and no I/O library.
EVALUATION = ROOT / "evaluation"
EVALUATION_PURE = (
    "run/matrix",
    "traffic/answers",
    "traffic/decision",
    "traffic/mix",
    "traffic/vectors",
    "traffic/workloads/",
    "checking/",
)
EVALUATION_SHARED = {"evaluation.history", "evaluation.run.folder", "evaluation.report.standing"}
#: For types only, or for bytes in memory.
EVALUATION_HARMLESS = HARMLESS | {"random", "orjson", "bisect", "statistics", "operator"}

#: Does nothing outside of tests, and is reached from every layer.
FAILPOINT = "cluster.failpoint"
#: Makes what a file shows durable; every room that opens one needs it.
DURABLE = "cluster.durable"

#: What a layer may know of the project besides itself, the pure modules and the failpoints.
LAYERS = {
    "cluster.raft.": (),
    "cluster.apply.store": (),
    "cluster.chroma.interface": (),
    "cluster.chroma.local_ids": (),
    "cluster.chroma.bindings": (),
    "cluster.chroma.batches": (),
    "cluster.chroma.reading": (
        "cluster.chroma.errors",
        "cluster.chroma.interface",
        "cluster.chroma.local_ids",
    ),
    "cluster.chroma.embedded": (
        "cluster.chroma.batches",
        "cluster.chroma.bindings",
        "cluster.chroma.errors",
        "cluster.chroma.interface",
        "cluster.chroma.local_ids",
        "cluster.chroma.reading",
    ),
    "cluster.chroma.channel": ("cluster.chroma.interface",),
    "cluster.chroma.isolated": ("cluster.chroma.channel", "cluster.chroma.interface"),
    "cluster.chroma.child": (
        "cluster.chroma.channel",
        "cluster.chroma.embedded",
        "cluster.chroma.interface",
        "cluster.lock",
    ),
    "cluster.chroma.scratch": ("cluster.chroma.bindings", "cluster.chroma.errors"),
    "cluster.apply.applier": (
        "cluster.chroma.interface",
        "cluster.chroma.errors",
        "cluster.apply.store",
        "cluster.raft.interface",
    ),
    "cluster.propose.proposer": ("cluster.raft.interface",),
    "lb.": (),
}


class Import(NamedTuple):
    module: str
    line: int
    at_load: bool


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def sources() -> dict[str, Path]:
    return {
        _name(path): path for folder in ("cluster", "lb") for path in sorted((ROOT / folder).rglob("*.py"))
    }


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(sources()[name].read_text(encoding="utf-8"))


@cache
def imports(name: str) -> tuple[Import, ...]:
    """Every import of a module: statements anywhere, and import_module of a literal name."""
    later = [
        (node.lineno, node.end_lineno or node.lineno)
        for node in ast.walk(tree(name))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    ]
    found: list[Import] = []
    for node in ast.walk(tree(name)):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: relative import"
            # `from package import module` names a module, `from module import noun` does not.
            module = node.module or ""
            submodules = [f"{module}.{alias.name}" for alias in node.names]
            modules = [full if full in sources() else module for full in submodules]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "importlib.import_module",
            "import_module",
        ):
            modules = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
        if modules:
            line = node.lineno  # type: ignore[attr-defined]
            at_load = not any(first <= line <= last for first, last in later)
            found += [Import(module, line, at_load) for module in dict.fromkeys(modules)]
    return tuple(found)


def is_in(module: str, places: tuple[str, ...]) -> bool:
    """Whether a module is one of `places`, or in a package there that ends in a dot."""
    return any(f"{module}.".startswith(place) if place.endswith(".") else module == place for place in places)


def top(module: str) -> str:
    return module.partition(".")[0]


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_import_only_pure_ones(name: str) -> None:
    odd = [found for found in imports(name) if found.module not in PURE and top(found.module) not in HARMLESS]
    assert odd == []


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_use_no_impure_builtins(name: str) -> None:
    """Not `hash` and `id` either: they differ from process to process."""
    names = {node.id for node in ast.walk(tree(name)) if isinstance(node, ast.Name)}
    assert names & IMPURE_BUILTINS == set()


@pytest.mark.parametrize("library", sorted(PLACES))
def test_each_library_has_its_place(library: str) -> None:
    strangers = [
        f"{name}:{found.line}"
        for name in sources()
        for found in imports(name)
        if top(found.module) == library and not is_in(name, PLACES[library])
    ]
    assert strangers == []


@pytest.mark.parametrize("layer", sorted(LAYERS))
def test_a_layer_knows_only_what_is_below_it(layer: str) -> None:
    members = [name for name in sources() if is_in(name, (layer,))]
    assert members, f"{layer} is gone: correct this test"
    strangers = [
        f"{name}:{found.line} imports {found.module}"
        for name in members
        for found in imports(name)
        if top(found.module) in ("cluster", "lb")
        and found.module not in (*PURE, FAILPOINT, DURABLE)
        and not is_in(found.module, (layer, *LAYERS[layer]))
    ]
    assert strangers == []


def test_handlers_do_not_reach_around_the_service() -> None:
    """What a handler may do to the node is what `cluster.api.interface` says."""
    hidden = (
        "cluster.raft.",
        "cluster.apply.applier",
        "cluster.apply.store",
        "cluster.service.",
        "cluster.server",
    )
    # Between nodes, not for Chroma's clients: it serves one node's insides by their own type.
    own = ("cluster.api.cluster_routes",)
    strangers = [
        f"{name}:{found.line} imports {found.module}"
        for name in sources()
        if is_in(name, ("cluster.api.",)) and name not in own
        for found in imports(name)
        if is_in(found.module, hidden)
    ]
    assert strangers == []


def test_the_evaluation_is_imported_only_when_it_is_called() -> None:
    early = [
        f"{name}:{found.line}"
        for name in sources()
        for found in imports(name)
        if found.at_load and top(found.module) == "evaluation"
    ]
    assert early == []


def _evaluation_modules() -> list[Path]:
    # How fast the checker is, is measured beside it.
    paths = [path for path in sorted(EVALUATION.rglob("*.py")) if path.name != "benchmark.py"]
    return [
        path
        for path in paths
        if any(
            f"{path.relative_to(EVALUATION).with_suffix('')}".startswith(place)
            if place.endswith("/")
            else f"{path.relative_to(EVALUATION).with_suffix('')}" == place
            for place in EVALUATION_PURE
        )
    ]


@pytest.mark.parametrize("path", _evaluation_modules(), ids=lambda path: str(path.relative_to(EVALUATION)))
def test_decisions_of_the_evaluation_do_no_io(path: Path) -> None:
    pure = {
        "evaluation." + ".".join(each.relative_to(EVALUATION).with_suffix("").parts)
        for each in _evaluation_modules()
    }
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            modules += [
                full if (full := f"{module}.{alias.name}") in pure else module for alias in node.names
            ]
    odd = [
        module
        for module in modules
        if module not in pure | EVALUATION_SHARED and top(module) not in EVALUATION_HARMLESS
    ]
    assert odd == []
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert names & (IMPURE_BUILTINS - {"id"}) == set()


def test_no_module_is_imported_by_what_it_imports() -> None:
    graph = {
        name: {found.module for found in imports(name) if found.at_load and found.module in sources()}
        - {name}
        for name in sources()
    }
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, "cycle: " + " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for imported in sorted(graph[name]):
                visit(imported, (*path, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())


def test_the_pure_modules_are_all_there() -> None:
    assert set(PURE) <= set(sources())
