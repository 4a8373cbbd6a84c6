"""The container engine of this machine: Docker with compose v2, or podman with podman-compose.

Where there is neither, and the machine is a Debian on which the tests run as root (as in CI), podman is
installed from Debian's packages; podman-compose goes into an environment of its own in `.cache`.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "containers"
TOOLS = CACHE / "tools"
TOOLS_REQUIREMENTS = Path(__file__).with_name("requirements.txt")

# runc, because podman's default crun needs cgroups v2; the two plugins give containers names in DNS.
DEBIAN_PACKAGES = (
    "podman",
    "runc",
    "containernetworking-plugins",
    "golang-github-containernetworking-plugin-dnsname",
    "iptables",
    "mmdebstrap",
)
# What podman asks for by default, and what it is told to ask for where that is refused.
PODMAN_FILES = 1_048_576
PROCESSES = 4_096


class NoEngineError(Exception):
    """Neither Docker nor podman can be had here; the text says why."""


class CommandFailedError(AssertionError):
    """A container command failed; the text has the command and the end of its output."""


@dataclass(frozen=True)
class Engine:
    """`command` runs containers, `compose` runs compose files, both with `environment` added."""

    command: str
    compose: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict[str, str])

    def run(self, *arguments: str, timeout_s: float = 120, check: bool = True) -> str:
        """Run one engine command and return what it printed."""
        return run((self.command, *arguments), self.environment, timeout_s, check=check)

    def succeeds(self, *arguments: str, timeout_s: float = 60) -> bool:
        """True if the engine command exits with 0."""
        done = subprocess.run(
            (self.command, *arguments),
            env={**os.environ, **self.environment},
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
        return done.returncode == 0


def run(
    command: tuple[str, ...], environment: dict[str, str], timeout_s: float, *, check: bool = True
) -> str:
    """Run `command` at the repository's root with `environment` added.

    Raises:
        CommandFailedError: it exited with another code than 0, and `check` is set.
    """
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if check and done.returncode != 0:
        end = "\n".join(done.stdout.splitlines()[-40:])
        raise CommandFailedError(f"{' '.join(command)} exited with {done.returncode}:\n{end}")
    return done.stdout


def find_engine() -> Engine:
    """The engine to use; podman is installed first where that is possible and needed.

    Raises:
        NoEngineError: there is none and none can be installed.
    """
    if _answers("docker", "info") and _answers("docker", "compose", "version"):
        return Engine("docker", ("docker", "compose"))
    if not on_debian_as_root():
        if not _answers("podman", "info"):
            raise NoEngineError(
                "no Docker with compose v2 and no podman answers here, "
                "and podman is only installed by the tests on Debian as root"
            )
    elif missing := [name for name in DEBIAN_PACKAGES if not _installed(name)]:
        _install(missing)
    return Engine("podman", (str(_podman_compose()),), _podman_environment())


def on_debian_as_root() -> bool:
    """True where packages may be installed and a base image be made from Debian's own archive."""
    try:
        release = Path("/etc/os-release").read_text()
    except OSError:
        return False
    return "ID=debian" in release.splitlines() and os.geteuid() == 0


def tools_python() -> Path:
    """The Python of the environment that holds podman-compose, made when it is missing."""
    _podman_compose()
    return TOOLS / "bin" / "python"


def _answers(*command: str) -> bool:
    if shutil.which(command[0]) is None:
        return False
    try:
        done = subprocess.run(command, capture_output=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _installed(package: str) -> bool:
    done = subprocess.run(
        ("dpkg-query", "--show", "--showformat=${db:Status-Status}", package),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout == "installed"


def _install(packages: list[str]) -> None:
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        run(("apt-get", "update", "--quiet"), quiet, 180)
        run(("apt-get", "install", "--quiet", "--yes", "--no-install-recommends", *packages), quiet, 300)
    except (CommandFailedError, subprocess.TimeoutExpired) as error:
        raise NoEngineError(f"podman is missing and could not be installed: {error}") from error


def _podman_compose() -> Path:
    program = TOOLS / "bin" / "podman-compose"
    wanted = TOOLS_REQUIREMENTS.read_text()
    stamp = TOOLS / "requirements.installed"
    if not program.exists() or not stamp.exists() or stamp.read_text() != wanted:
        venv.create(TOOLS, clear=True, with_pip=True)
        run(
            (str(TOOLS / "bin" / "python"), "-m", "pip", "install", "--quiet", "-r", str(TOOLS_REQUIREMENTS)),
            {},
            180,
        )
        stamp.write_text(wanted)
    return program


def _podman_environment() -> dict[str, str]:
    """What podman must be told where the machine itself is a container or a small virtual machine."""
    environment: dict[str, str] = {}
    if not Path("/run/systemd/private").exists():
        # Without systemd no timer runs the health checks; the tests run them themselves.
        environment["DISABLE_HC_SYSTEMD"] = "true"
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY and files < PODMAN_FILES:
        # podman asks for more than this machine may give, and containers would not start.
        CACHE.mkdir(parents=True, exist_ok=True)
        settings = CACHE / "containers.conf"
        settings.write_text(
            "[containers]\n"
            f'default_ulimits = ["nofile={files}:{files}", "nproc={PROCESSES}:{PROCESSES}"]\n\n'
            '[engine]\nruntime = "runc"\n'
        )
        environment["CONTAINERS_CONF"] = str(settings)
    return environment


if __name__ == "__main__":
    found = find_engine()
    sys.stdout.write(f"{found.command} with {' '.join(found.compose)}\n")
