"""The images that the container tests run: a base made from Debian's archive, and this project's on top.

A build sees another network than its user: the machine's own pip settings and CA certificates are handed
to it as build secrets, so that they are in no layer of the image.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from tests.containers.engine import ROOT, CommandFailedError, Engine, on_debian_as_root, run, tools_python

IMAGE = "localhost/chroma-cluster:test"
# pip's settings that say how to reach an index; paths and habits of the machine stay outside.
NETWORK_SETTINGS = frozenset(
    ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "default-timeout", "retries")
)


def build_image(engine: Engine, timeout_s: float = 600) -> str:
    """Build the project's image as it is in the working tree, and return its name."""
    with tempfile.TemporaryDirectory() as folder:
        command = [engine.command, "build", "--target", "cluster", "--tag", IMAGE, "--network", "host"]
        if engine.command == "podman":
            # Podman's own format has no health checks.
            command += ["--format", "docker"]
        if base := base_image(engine):
            command += ["--build-arg", f"BASE_IMAGE={base}"]
        for name, source in _build_secrets(Path(folder)).items():
            command += ["--secret", f"id={name},src={source}"]
        before = _image_id(engine)
        run((*command, str(ROOT)), {**engine.environment, "DOCKER_BUILDKIT": "1"}, timeout_s)
    if before and before != _image_id(engine):
        # Layers that the new image shares stay; without this each change would leave an image behind.
        engine.run("rmi", before, check=False)
    return IMAGE


def _image_id(engine: Engine) -> str:
    """The id behind the name, or nothing before the first build."""
    return engine.run("images", "--quiet", "--no-trunc", IMAGE).strip()


def base_image(engine: Engine) -> str | None:
    """The base to build on: `BASE_IMAGE` if set, one made from Debian's packages, or None: the default."""
    if chosen := os.environ.get("BASE_IMAGE"):
        return chosen
    if engine.command == "docker" or not on_debian_as_root():
        return None
    release = _release()
    name = f"localhost/chroma-cluster-base:{release}"
    if not engine.succeeds("image", "inspect", name):
        _make_base(engine, name, release)
    return name


def _make_base(engine: Engine, name: str, release: str) -> None:
    mirror = run(
        (
            "apt-get",
            "indextargets",
            "--format",
            "$(REPO_URI)",
            "Created-By: Packages",
            f"Release: {release}",
        ),
        {},
        30,
        check=False,
    ).split()
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "base.tar"
        packages = "--include=python3,python3-venv,ca-certificates"
        run(("mmdebstrap", "--variant=minbase", packages, release, str(archive), *mirror[:1]), {}, 300)
        engine.run("import", "--quiet", str(archive), name, timeout_s=180)


def _release() -> str:
    lines = Path("/etc/os-release").read_text().splitlines()
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    return fields["VERSION_CODENAME"].strip('"')


def _build_secrets(folder: Path) -> dict[str, Path]:
    settings = _pip_settings()
    secrets: dict[str, Path] = {}
    certificates = settings.get("cert") or os.environ.get("SSL_CERT_FILE") or ""
    kept = {name: value for name, value in settings.items() if name in NETWORK_SETTINGS}
    if certificates and Path(certificates).is_file():
        secrets["ca"] = Path(certificates)
        # Where the Dockerfile mounts the secret `ca`.
        kept["cert"] = "/run/secrets/ca"
    if kept:
        secrets["pip_conf"] = folder / "pip.conf"
        lines = [f"{name} = {' '.join(value.split())}" for name, value in kept.items()]
        secrets["pip_conf"].write_text("\n".join(["[global]", *lines, ""]))
    return secrets


def _pip_settings() -> dict[str, str]:
    """pip's settings on this machine by name; variables override files, as in pip itself."""
    try:
        listing = run((str(tools_python()), "-m", "pip", "config", "list"), {}, 60)
    except (CommandFailedError, subprocess.TimeoutExpired):
        return {}
    found: dict[str, str] = {}
    for line in sorted(listing.splitlines(), key=lambda line: line.startswith(":env:")):
        key, separator, value = line.partition("=")
        if separator and key.startswith(("global.", "install.", ":env:.")):
            found[key.rpartition(".")[2].replace("_", "-")] = value.strip("'\"")
    return found
