"""Imports go one way: shells import pure modules, never the reverse, and each library has its place.

The layers are those of the house (see docs/architecture.md). Imports are read from the source,
inside functions and for type checkers too; for cycles count those made when a module is loaded.
"""

from __future__ import annotations

import ast
import sys
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
    "cluster.state.cursor",
    "cluster.state.merging",
    "cluster.state.refusals",
    "cluster.state.undo",
    "cluster.state.machine",
    "cluster.propose.grouping",
    "cluster.acks",
    "cluster.apply.agreement",
    "cluster.apply.containment",
    "cluster.reads",
    "cluster.staleness",
    "cluster.levels",
    "cluster.api.retry",
    "cluster.raft.quorum",
    "cluster.raft.freshness",
    "cluster.raft.configuration",
    "cluster.quarantine",
    "cluster.chroma.backoff",
    "cluster.chroma.watchdog",
    "cluster.chroma.death",
    "cluster.service.diagnosis",
    "cluster.chroma.digesting",
    "cluster.verify.digest",
    "cluster.verify.comparison",
    "cluster.verify.conclusion",
    "cluster.snapshot.manifest",
    "cluster.snapshot.pace",
    "cluster.snapshot.choosing",
    "cluster.moving.exact",
    "cluster.moving.records",
    "cluster.moving.comparison",
    "cluster.moving.plan",
    "cluster.moving.journal",
    "cluster.moving.report",
    "wire.addresses",
    "wire.door",
    "wire.hops",
    "wire.patience",
    "wire.proof",
)
#: Values and protocols only: what they import is for type checkers.
VALUES = ("cluster.raft.interface", "cluster.chroma.interface")
HARMLESS = {
    "__future__",
    "collections",
    "dataclasses",
    "enum",
    "fractions",
    "functools",
    "hashlib",
    "hmac",
    "ipaddress",
    "itertools",
    "json",
    "math",
    "msgpack",
    "multidict",
    "re",
    "signal",
    "struct",
    "typing",
    "urllib",
}
IMPURE_BUILTINS = {"open", "print", "input", "exec", "eval", "__import__", "id", "hash"}

#: Every library from outside, and some of Python's own: the rooms and modules that may import it. A name that
#: ends in a dot stands for everything in that room.
PLACES = {
    "pysyncobj": ("cluster.raft.", "evaluation.raft.stock"),
    "sqlite3": (
        "cluster.raft.",
        "cluster.apply.store",
        "cluster.durable",
        "cluster.moving.directory",
        "evaluation.systems.journals",
        "evaluation.systems.replicas",
        "evaluation.run.",
    ),
    "chromadb_rust_bindings": ("cluster.chroma.",),
    # A client of a cluster is a chromadb client; the demo is one, and embedding runs its functions.
    "chromadb": (
        "cluster.chroma.bindings",
        "cluster.embedding.embedder",
        "cluster.client",
        "cluster.cli.demo.",
        "evaluation.costs.",
        "evaluation.compactor.",
        "evaluation.systems.shared_dir_worker",
    ),
    "wordllama": ("cluster.embedding.embedder",),
    "aiohttp": (
        "cluster.api.",
        "cluster.chroma.oracle",
        "cluster.chroma.plain",
        "cluster.moving.server",
        "cluster.server",
        "cluster.peers",
        "lb.",
        "wire.calls",
        "wire.connections",
        "wire.malformed",
        "evaluation.systems.",
        "evaluation.faulting.",
        "evaluation.traffic.",
        "evaluation.run.",
        "evaluation.costs.",
    ),
    "multidict": ("cluster.api.", "lb.", "wire.hops", "evaluation.systems."),
    "yarl": ("cluster.api.", "cluster.moving.server", "lb.", "wire.calls", "evaluation.systems."),
    "uvloop": ("cluster.server", "lb.server", "evaluation.costs."),
    "orjson": (
        "cluster.api.",
        "cluster.moving.server",
        "cluster.peers",
        "lb.",
        "evaluation.",
    ),
    "msgpack": ("cluster.state.", "cluster.raft.", "cluster.chroma."),
    "numpy": (
        "cluster.api.",
        "cluster.chroma.",
        "cluster.embedding.",
        "cluster.cli.demo.",
        "cluster.moving.cosine",
        "evaluation.systems.",
        "evaluation.compactor.",
        "evaluation.costs.",
        "evaluation.report.",
    ),
    "pydantic": ("cluster.config", "lb.config", "cluster.cli."),
    "pydantic_settings": ("cluster.config", "lb.config", "cluster.cli."),
    "typer": ("cluster.cli.", "evaluation.cli."),
    "rich": (
        "cluster.cli.",
        "evaluation.cli.",
        "evaluation.costs.",
        "evaluation.compactor.",
        "evaluation.raft.",
    ),
    # A cluster runs without the evaluation, which plugs its commands in by entry points.
    "evaluation": ("evaluation.",),
    "lb": ("lb.", "cluster.cli."),
    "wire": ("wire.", "cluster.", "lb.", "evaluation."),
    "asyncpg": ("evaluation.systems.postgres.", "evaluation.costs."),
    "obstore": ("evaluation.compactor.",),
    "moto": ("evaluation.compactor.",),
    "werkzeug": ("evaluation.compactor.",),
    "psutil": ("evaluation.processes", "evaluation.run.", "evaluation.systems.", "evaluation.compactor."),
    "toxiproxy": ("evaluation.faulting.toxiproxy",),
    "jinja2": ("evaluation.report.",),
    "markupsafe": ("evaluation.report.",),
    "matplotlib": ("evaluation.report.",),
    "PIL": ("evaluation.report.",),
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
    "quantiles",
    "run/matrix",
    "traffic/answers",
    "traffic/decision",
    "traffic/mix",
    "traffic/vectors",
    "traffic/workloads/",
    "checking/",
)
EVALUATION_SHARED = {"evaluation.history", "evaluation.record"}
#: For types only, or for bytes in memory.
EVALUATION_HARMLESS = HARMLESS | {"random", "orjson", "bisect", "statistics", "operator"}

#: Below all rooms: what each may know. Nothing here knows a room.
GROUND = (
    "cluster.errors",
    "cluster.failpoint",
    "cluster.lock",
    "cluster.durable",
    "cluster.disk",
    "cluster.descriptors",
    "cluster.acks",
    "cluster.reads",
    "cluster.levels",
    "cluster.staleness",
    "cluster.steady",
    "cluster.leader_watch",
    "cluster.quarantine",
    "cluster.peers",
    "cluster.config",
    "cluster.client",
)
#: What both programs say to clients and to each other: it knows neither of them.
SHARED = ("wire.",)
EVALUATION_GROUND = (
    "evaluation.failure",
    "evaluation.history",
    "evaluation.limits",
    "evaluation.processes",
    "evaluation.quantiles",
    "evaluation.record",
    "evaluation.stopping",
)

#: The house, from the ground up: each room, and what it may know besides itself and the ground. A name that
#: ends in a dot is a whole room; one without is all that may be known of it. `docs/architecture.md` says the
#: same in words.
ROOMS: dict[str, tuple[str, ...]] = {
    "wire.": (),
    "cluster.state.": (),
    "cluster.raft.": (),
    "cluster.embedding.": (),
    "cluster.propose.": ("cluster.state.", "cluster.raft.interface"),
    "cluster.chroma.": ("cluster.state.",),
    "cluster.apply.": (
        "cluster.state.",
        "cluster.raft.interface",
        "cluster.chroma.interface",
        "cluster.chroma.errors",
    ),
    "cluster.snapshot.": (),
    # A client of Chromas: of this project's it knows only how to serve a directory.
    "cluster.moving.": ("cluster.chroma.plain",),
    # Replicas compared while they serve.
    "cluster.verify.": ("cluster.state.", "cluster.chroma.interface", "cluster.chroma.digesting"),
    "cluster.service.": (
        "cluster.verify.",
        "cluster.snapshot.",
        "cluster.state.",
        "cluster.raft.interface",
        "cluster.propose.",
        "cluster.apply.",
        "cluster.embedding.",
        "cluster.chroma.interface",
        "cluster.chroma.oracle",
    ),
    # What a handler may do to the node is what `cluster.api.interface` says: it never reaches around it.
    "cluster.api.": (
        "cluster.state.",
        "cluster.embedding.policy",
        "cluster.chroma.interface",
        "cluster.chroma.oracle",
        "cluster.snapshot.manifest",
        # What members ask and say about a write on which engines fail.
        "cluster.apply.containment",
    ),
    # Composition: the only one who knows all rooms of a node.
    "cluster.server": (
        "cluster.verify.",
        "cluster.state.",
        "cluster.raft.",
        "cluster.propose.",
        "cluster.chroma.",
        "cluster.apply.",
        "cluster.embedding.",
        "cluster.snapshot.",
        "cluster.service.",
        "cluster.api.",
    ),
    "lb.": (),
    "cluster.cli.": ("cluster.moving.", "cluster.server", "cluster.raft.recovery", "lb.config", "lb.server"),
    "cluster.__main__": ("cluster.cli.",),
    "evaluation.checking.": (),
    # Systems under test: this cluster, and others that are built from parts of it.
    "evaluation.systems.": (
        "evaluation.checking.log",
        "cluster.state.",
        "cluster.raft.configuration",
        "cluster.raft.meta",
        "cluster.chroma.bindings",
        "cluster.chroma.errors",
        "cluster.chroma.interface",
        "cluster.chroma.scratch",
        "cluster.api.",
        "cluster.cli.ports",
        # The operator's commands, done to the cluster that is evaluated.
        "cluster.cli.errors",
        "cluster.cli.interrupts",
        "cluster.cli.layout",
        "cluster.cli.plan",
        "cluster.cli.processes",
        "cluster.cli.rolling",
        "cluster.cli.supervisor",
    ),
    "evaluation.faulting.": (
        "evaluation.systems.",
        # What goes over a link of the log, to know its messages from others.
        "cluster.raft.framing",
        "cluster.raft.handshake",
    ),
    "evaluation.traffic.": ("evaluation.systems.",),
    "evaluation.run.": (
        "evaluation.checking.",
        "evaluation.systems.",
        "evaluation.faulting.",
        "evaluation.traffic.",
    ),
    "evaluation.report.": (
        "evaluation.checking.",
        "evaluation.systems.",
        "evaluation.faulting.",
        "evaluation.run.matrix",
    ),
    "evaluation.costs.": (
        "evaluation.systems.",
        "evaluation.faulting.toxiproxy",
        "evaluation.run.footprint",
        "cluster.cli.demo.corpus",
        "cluster.embedding.",
    ),
    "evaluation.compactor.": ("evaluation.checking.", "evaluation.systems."),
    "evaluation.raft.": ("cluster.raft.",),
    "evaluation.cli.": (
        "evaluation.systems.",
        "evaluation.faulting.",
        "evaluation.traffic.",
        "evaluation.run.",
        "evaluation.report.",
        "cluster.cli.messages",
    ),
}

#: Within a room: who knows nobody else of it. Interfaces and values that every other module there stands on.
FOUNDATIONS = (
    "cluster.chroma.interface",
    "cluster.chroma.local_ids",
    "cluster.chroma.batches",
    "cluster.raft.interface",
    "cluster.raft.quorum",
    "cluster.state.commands",
)


class Import(NamedTuple):
    module: str
    line: int


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def sources() -> dict[str, Path]:
    return {
        _name(path): path
        for folder in ("cluster", "lb", "wire", "evaluation")
        for path in sorted((ROOT / folder).rglob("*.py"))
    }


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(sources()[name].read_text(encoding="utf-8"))


@cache
def imports(name: str) -> tuple[Import, ...]:
    """Every import of a module: statements anywhere, and import_module of a literal name."""
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
            found += [Import(module, line) for module in dict.fromkeys(modules)]
    return tuple(found)


def is_in(module: str, places: tuple[str, ...]) -> bool:
    """Whether a module is one of `places`, or in a package there that ends in a dot."""
    return any(f"{module}.".startswith(place) if place.endswith(".") else module == place for place in places)


def top(module: str) -> str:
    return module.partition(".")[0]


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_import_only_pure_ones(name: str) -> None:
    known = (*PURE, *VALUES)
    odd = [
        found for found in imports(name) if found.module not in known and top(found.module) not in HARMLESS
    ]
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


def test_every_library_is_listed() -> None:
    strangers = [
        f"{name}:{found.line} imports {found.module}"
        for name in sources()
        for found in imports(name)
        if top(found.module) not in {*PLACES, *sys.stdlib_module_names, "cluster"}
    ]
    assert strangers == []


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_knows_only_what_stands_there(room: str) -> None:
    """For type checkers too: a type of another room is knowledge of it."""
    members = [name for name in sources() if is_in(name, (room,))]
    assert members, f"{room} is gone: correct this test"
    ground = (*GROUND, *EVALUATION_GROUND) if top(room) == "evaluation" else GROUND
    # The balancer stands alone: it could be put before another program.
    ground = {"wire.": (), "lb.": SHARED}.get(room, (*ground, *SHARED))
    known = (*ground, *ROOMS[room])
    strangers = [
        f"{name}:{found.line} imports {found.module}"
        for name in members
        for found in imports(name)
        if found.module in sources() and not is_in(found.module, (room, *known))
    ]
    assert strangers == []


def test_every_module_has_its_room() -> None:
    homeless = [
        name
        for name in sources()
        if "." in name and not is_in(name, (*ROOMS, *GROUND, *EVALUATION_GROUND)) and name not in GROUND
    ]
    assert homeless == []


def test_rooms_are_listed_from_the_ground_up() -> None:
    """So the rooms have no circle: each knows only what stands above it in the list."""
    listed = list(ROOMS)
    for at, room in enumerate(listed):
        for known in ROOMS[room]:
            home = next(
                other
                for other in listed
                if is_in(known.rstrip("."), (other, known)) and (known == other or is_in(known, (other,)))
            )
            assert listed.index(home) < at, f"{room} knows {known}, which stands below it in the list"


def test_the_map_of_the_house_names_every_room() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = [room.rstrip(".").replace(".", "/") for room in ROOMS if room.endswith(".")]
    assert [
        room for room in rooms if f"`{room}/`" not in page and f"`{room.rpartition('/')[2]}/`" not in page
    ] == []


def test_the_ground_knows_no_room() -> None:
    strangers = [
        f"{name}:{found.line} imports {found.module}"
        for name in (*GROUND, *EVALUATION_GROUND)
        for found in imports(name)
        if found.module in sources()
        and not is_in(found.module, GROUND + EVALUATION_GROUND + SHARED)
        # A port that nobody uses is found in one way.
        and (name, found.module) != ("evaluation.processes", "cluster.cli.ports")
    ]
    assert strangers == []


@pytest.mark.parametrize("name", FOUNDATIONS)
def test_a_foundation_knows_nobody_of_its_room(name: str) -> None:
    room = name.rpartition(".")[0] + "."
    assert [found for found in imports(name) if is_in(found.module, (room,))] == []


def _evaluation_modules() -> list[Path]:
    paths = sorted(EVALUATION.rglob("*.py"))
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
    """In the whole product, whether an import is made at load, later or for a type checker only."""
    graph = {
        name: {found.module for found in imports(name) if found.module in sources()} - {name}
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
