"""Runs the tests in chromadb's own wheel against a server, and compares with what `chroma run` passes.

    python tests/upstream/run.py --url http://127.0.0.1:8000     a running cluster (reset allowed)
    python tests/upstream/run.py                                 a cluster that is started for it
    python tests/upstream/run.py --record                        `chroma run` itself: the baseline

Every test that passes on `chroma run` has to pass on the cluster; the exit status is 1 if one does
not. The results of `chroma run` are in `baseline.json`, so that the slower half need not be run
again. Without `--all` only the files that finish within some minutes together are run. The tests
want packages that conflict with this project's: they have an environment of their own,
`.venv-upstream`, made at the first run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent.parent
ENVIRONMENT = ROOT / ".venv-upstream"
BASELINE = Path(__file__).with_name("baseline.json")

PACKAGES = [
    "chromadb==1.5.9",
    "pytest==8.3.5",
    "pytest-asyncio==0.25.3",
    "pytest-timeout==2.4.0",
    "fastapi==0.165.0",
    "opentelemetry-instrumentation-fastapi",
    "uvicorn",
    "bcrypt",
    "pandas",
    "hypothesis",
    "psutil",
]


@dataclass(frozen=True)
class File:
    """A file of tests and the time that it may take; `quick` ones are run without `--all`."""

    path: str
    timeout_s: int
    quick: bool = True


#: Left out: a load test (test_multithreaded), what tests Chroma in this process (auth, db, segment,
#: data_loader, ef, persistence, cross-version), the distributed Chroma, its cloud, its command line.
FILES = [
    File("test_api.py", 900),
    File("test_client.py", 120),
    File("test_config.py", 120),
    File("test_chroma.py", 120),
    File("api/test_collection.py", 300),
    File("api/test_count_api.py", 120),
    File("api/test_delete_database.py", 120),
    File("api/test_fork_count_api.py", 120),
    File("api/test_get_database.py", 120),
    File("api/test_indexing_status.py", 120),
    File("api/test_invalid_update.py", 120),
    File("api/test_limit_offset.py", 120),
    File("api/test_list_databases.py", 120),
    File("api/test_numpy_list_inputs.py", 120),
    File("api/test_schema.py", 120),
    File("api/test_schema_e2e.py", 600),
    File("api/test_search_api.py", 120),
    File("api/test_shared_system_client.py", 120),
    File("api/test_types.py", 120),
    File("client/test_create_http_client.py", 120),
    File("client/test_database_tenant.py", 300),
    File("client/test_multiple_clients_concurrency.py", 120),
    File("configurations/test_collection_configuration.py", 300),
    File("property/test_add.py", 1200, quick=False),
    File("property/test_base64_conversion.py", 300),
    File("property/test_client_url.py", 300),
    File("property/test_collections.py", 1200),
    File("property/test_collections_with_database_tenant.py", 1200, quick=False),
    File("property/test_collections_with_database_tenant_overwrite.py", 1200, quick=False),
    File("property/test_embeddings.py", 3000, quick=False),
    File("property/test_filtering.py", 3000, quick=False),
    File("property/test_fork.py", 600, quick=False),
]

#: For one test; a hanging one must not take its whole file along.
TEST_TIMEOUT_S = 600

Results = dict[str, str]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--url", help="of the server to test; it must allow reset")
    parser.add_argument("--record", action="store_true", help="test `chroma run` and write the baseline")
    parser.add_argument("--all", action="store_true", help="the slow files too")
    parser.add_argument("--file", action="append", default=[], help="only this file (repeatable)")
    parser.add_argument("--out", type=Path, help="write the results of this run as JSON")
    chosen = parser.parse_args()

    files = [file for file in FILES if (chosen.all or file.quick or chosen.file)]
    if chosen.file:
        files = [file for file in files if file.path in chosen.file]
    python = environment()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="upstream-")))
        if chosen.record:
            url = stack.enter_context(chroma_run(directory / "server"))
        else:
            url = chosen.url or stack.enter_context(cluster(directory / "server"))
        found: dict[str, Any] = {}
        for file in files:
            found[file.path] = run_file(python, file, url, directory)
            print(summary(file.path, found[file.path]), flush=True)
    if chosen.out:
        chosen.out.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    if chosen.record:
        known = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
        BASELINE.write_text(json.dumps({**known, **found}, indent=1, sort_keys=True) + "\n")
        return 0
    return report(json.loads(BASELINE.read_text()), found)


def report(baseline: dict[str, Any], found: dict[str, Any]) -> int:
    """The table of both, the tests that pass on `chroma run` only, and the exit status."""
    print(f"\n{'file':<58} {'chroma run':>16} {'cluster':>16}  (passed/failed)")
    total = {"chroma": [0, 0], "ours": [0, 0]}
    worse: list[str] = []
    for path, run in found.items():
        expected: Results = baseline.get(path, {}).get("tests", {})
        got: Results = run["tests"]
        one, two = counts(expected), counts(got)
        for key, numbers in (("chroma", one), ("ours", two)):
            total[key][0] += numbers[0]
            total[key][1] += numbers[1]
        print(f"{path:<58} {one[0]:>10}/{one[1]:<5} {two[0]:>10}/{two[1]:<5}")
        worse += [
            f"{path}::{test} ({got.get(test, 'not run')})"
            for test, outcome in expected.items()
            if outcome == "passed" and got.get(test) != "passed"
        ]
    print(
        f"{'together':<58} {total['chroma'][0]:>10}/{total['chroma'][1]:<5}"
        f" {total['ours'][0]:>10}/{total['ours'][1]:<5}"
    )
    if worse:
        print(f"\n{len(worse)} tests pass on chroma run and not here:")
        print("\n".join(f"  {test}" for test in worse))
    else:
        print("\nEvery test that passes on chroma run passes here.")
    return 1 if worse else 0


def counts(results: Results) -> tuple[int, int]:
    passed = sum(outcome == "passed" for outcome in results.values())
    failed = sum(outcome in ("failed", "error") for outcome in results.values())
    return passed, failed


def summary(path: str, run: dict[str, Any]) -> str:
    passed, failed = counts(run["tests"])
    note = f"  {run['note']}" if run["note"] else ""
    return f"{path:<58} {passed:>4} passed {failed:>3} failed  {run['seconds']:>6.1f} s{note}"


def run_file(python: Path, file: File, url: str, directory: Path) -> dict[str, Any]:
    """Outcome of every test of a file by name, the seconds it took, and why it was cut short if it was."""
    parts = urlsplit(url)
    xml = directory / "result.xml"
    xml.unlink(missing_ok=True)
    tests = next((ENVIRONMENT / "lib").glob("python3*/site-packages/chromadb/test"))
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("CHROMA_", "PYTEST_"))},
        "CHROMA_INTEGRATION_TEST_ONLY": "1",
        "CHROMA_API_IMPL": "chromadb.api.fastapi.FastAPI",
        # Not the number: some tests compare with the client's default host.
        "CHROMA_SERVER_HOST": "localhost",
        "CHROMA_SERVER_HTTP_PORT": str(parts.port or 80),
        "ANONYMIZED_TELEMETRY": "False",
    }
    # Settings of its own, or pytest would find this project's above its environment.
    settings = directory / "pytest.ini"
    settings.write_text("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(settings)]
    command += ["--tb=short", f"--junitxml={xml}"]
    # The same generated inputs for every server: some strategies of upstream's fail by chance.
    command += ["--hypothesis-seed=0"]
    command += [f"--timeout={TEST_TIMEOUT_S}", "--timeout-method=thread"]
    reset(url)
    started = time.monotonic()
    note = ""
    with (directory / "output.log").open("wb") as output:
        process = subprocess.Popen(
            [*command, str(tests / file.path)],
            cwd=directory,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            process.wait(file.timeout_s)
        except subprocess.TimeoutExpired:
            note = f"cut short after {file.timeout_s} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    results = outcomes(xml) if xml.exists() else {}
    if not results and not note:
        note = "no results: " + (directory / "output.log").read_text(errors="replace").strip()[-300:]
    keep = os.environ.get("UPSTREAM_LOGS")
    if keep:
        shutil.copy(directory / "output.log", Path(keep) / (file.path.replace("/", "_") + ".log"))
    return {"seconds": round(time.monotonic() - started, 1), "note": note, "tests": results}


def outcomes(xml: Path) -> Results:
    found: Results = {}
    for case in ElementTree.parse(xml).iter("testcase"):
        name = f"{(case.get('classname') or '').rsplit('.', 1)[-1]}.{case.get('name')}"
        kinds = {child.tag for child in case}
        outcome = next((kind for kind in ("error", "failure", "skipped") if kind in kinds), "passed")
        found[name] = {"failure": "failed"}.get(outcome, outcome)
    return found


def environment() -> Path:
    """The interpreter of the environment for upstream's tests, made if it is not there."""
    python = ENVIRONMENT / "bin" / "python"
    ready = ENVIRONMENT / ".installed"
    wanted = "\n".join(PACKAGES)
    if not ready.exists() or ready.read_text() != wanted:
        print(f"making {ENVIRONMENT.name} ...", flush=True)
        if not python.exists():
            venv.create(ENVIRONMENT, with_pip=True)
        subprocess.run([python, "-m", "ensurepip", "-q"], check=False, capture_output=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
        ready.write_text(wanted)
    return python


@contextlib.contextmanager
def chroma_run(directory: Path) -> Iterator[str]:
    """`chroma run` with reset allowed; its URL."""
    directory.mkdir(parents=True)
    sys.path.insert(0, str(ROOT))
    from tests.integration.differential import chroma_run as run

    with run(directory) as url:
        yield url


@contextlib.contextmanager
def cluster(directory: Path) -> Iterator[str]:
    """Three nodes and the balancer with reset allowed; the balancer's URL."""
    sys.path.insert(0, str(ROOT))
    from tests.integration.harness import running_cluster

    os.environ["CHROMA_CLUSTER_ALLOW_RESET"] = "true"
    with running_cluster(directory) as running:
        yield running.url


def reset(url: str) -> None:
    """Each file begins with an empty server."""
    with urllib.request.urlopen(urllib.request.Request(f"{url}/api/v2/reset", method="POST"), timeout=120):
        pass


if __name__ == "__main__":
    sys.exit(main())
