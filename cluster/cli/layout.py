"""A cluster's data directory on one machine: which file is where.

DIR/cluster.json        identity, secret and addresses; made once, mode 0600
DIR/node-1/             one node: LOCK, raft.sqlite, state.sqlite, chroma/ (a plain Chroma directory)
DIR/logs/node-1.log     what a process printed; DIR/logs/lb.log the balancer
DIR/run/node-1.pid      which process runs; DIR/run/lb.pid the balancer; DIR/run/LOCK held by a starting `up`
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cluster.cli.errors import LayoutError
from cluster.cli.plan import ClusterPlan


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """Names every file of one cluster's data directory, and reads and writes its plan."""

    root: Path

    @property
    def plan_file(self) -> Path:
        """`cluster.json`."""
        return self.root / "cluster.json"

    @property
    def lock_file(self) -> Path:
        """Held by an `up` or `down` while it changes what runs."""
        return self.root / "run" / "LOCK"

    def node_directory(self, node_id: str) -> Path:
        """All that one node keeps."""
        return self.root / node_id

    def chroma_directory(self, node_id: str) -> Path:
        """One node's Chroma: opens with plain `chromadb.PersistentClient` while the node is down."""
        return self.root / node_id / "chroma"

    def node_lock(self, node_id: str) -> Path:
        """Held by the node that uses the directory, as long as it lives."""
        return self.root / node_id / "LOCK"

    def log_file(self, name: str) -> Path:
        """What the process `name` (a node id or `lb`) printed."""
        return self.root / "logs" / f"{name}.log"

    def pid_file(self, name: str) -> Path:
        """Which process runs as `name` (a node id or `lb`)."""
        return self.root / "run" / f"{name}.pid"

    def read_plan(self) -> ClusterPlan | None:
        """The cluster that lives here, or None if the directory has none yet.

        Raises:
            LayoutError: `cluster.json` cannot be read or is damaged.
        """
        try:
            return ClusterPlan.from_json(self.plan_file.read_text())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise LayoutError(
                f"{self.plan_file} cannot be read: {error.strerror}. Nothing was changed."
            ) from None
        except ValueError as error:
            raise LayoutError(
                f"{self.plan_file} is damaged ({error}). Nothing was changed. Restore the file from a copy: "
                "the nodes' data is of use only with the cluster id and the addresses in it."
            ) from None

    def write_plan(self, plan: ClusterPlan) -> None:
        """Replace `cluster.json` at once or not at all; readable by its owner only (it holds the secret)."""
        handle, name = tempfile.mkstemp(dir=self.root, prefix=".cluster.json.")
        try:
            with os.fdopen(handle, "w") as file:  # mkstemp makes it with mode 0600
                file.write(plan.to_json())
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self.plan_file)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def prepare(self) -> None:
        """Make the directory and its folders, and make sure that this user may write there.

        Raises:
            LayoutError: it cannot be made or written to.
        """
        try:
            for folder in (self.root, self.root / "logs", self.root / "run"):
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder) as probe:
                    probe.write(b"x")
                    probe.flush()
        except OSError as error:
            reason = error.strerror or str(error)
            raise LayoutError(
                f"The data directory {self.root} cannot be used: {reason} ({error.filename or self.root}). "
                "Nothing was started. Choose a directory that you may write to with --data DIR."
            ) from None

    def refuse_foreign_data(self) -> None:
        """Refuse to found a cluster on top of data that belongs to something else.

        Raises:
            LayoutError: a plain Chroma directory, or nodes whose `cluster.json` is gone.
        """
        if (self.root / "chroma.sqlite3").exists():
            raise LayoutError(
                f"{self.root} is a plain Chroma directory, not a cluster's. Nothing was changed. "
                "Choose another directory with --data DIR and copy the collections over with a client."
            )
        if (self.root / "node-1").exists():
            raise LayoutError(
                f"{self.root} holds the data of nodes, but {self.plan_file.name} is missing. "
                "Nothing was changed. Restore that file, or choose another directory with --data DIR."
            )
