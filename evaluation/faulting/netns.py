"""A network namespace of this process's own, where real packets can be dropped without harm to the machine.

`python -m evaluation.faulting.netns COMMAND ...` runs a command in one: its loopback is its own, so that
every server on 127.0.0.1 that it starts is in there. Needs root, and iptables for the drops.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import os
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from evaluation.failure import SystemFailure

if TYPE_CHECKING:
    from collections.abc import Iterable

_CLONE_NEWNET: Final = 0x40000000
_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 0x1
_CHAIN: Final = "EVALUATION"
_MARK: Final = "CHROMA_CLUSTER_EVALUATION_NETNS"
_RANDOMLY: Final = ("-p", "tcp", "-m", "statistic", "--mode", "random", "--probability")
_TRIAL_S: Final = 30.0


def why_not() -> str:
    """Why no packets can be dropped on this machine; empty if they can, in a namespace."""
    return _missing() or ("" if is_own() else _refused())


def _missing() -> str:
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "a network namespace of its own needs root"
    if shutil.which("iptables") is None:
        return "iptables is not installed"
    return ""


@functools.cache
def _refused() -> str:
    """Why the kernel refuses, found by trying: in a container root may lack the right to it."""
    rule = ["iptables", "-w", "-A", "INPUT", "-i", "lo", *_RANDOMLY, "0.5", "-j", "DROP"]
    command = [sys.executable, "-m", "evaluation.faulting.netns", *rule]
    root = Path(__file__).parents[2]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=root, timeout=_TRIAL_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"packets cannot be dropped here: {error}"
    if done.returncode == 0:
        return ""
    words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return f"packets cannot be dropped here: {words[0]}"


def is_own() -> bool:
    """Whether this process is in a namespace that `enter` made, be it by a parent."""
    try:
        return os.environ.get(_MARK) == str(Path("/proc/self/ns/net").stat().st_ino)
    except OSError:
        return False


def enter() -> None:
    """Move this process into a new namespace with a loopback of its own.

    Only before it has other threads or sockets: those stay in the old one.

    Raises:
        SystemFailure: why it cannot.
    """
    reason = _missing()
    if reason:
        raise SystemFailure(f"no network namespace: {reason}")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        raise SystemFailure(f"no network namespace: {os.strerror(ctypes.get_errno())}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh", b"lo", 0).ljust(40, b"\0")
        flags = struct.unpack("16sh", fcntl.ioctl(control, _SIOCGIFFLAGS, request)[:18])[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", flags | _IFF_UP).ljust(40, b"\0"))
    os.environ[_MARK] = str(Path("/proc/self/ns/net").stat().st_ino)


def drop(ports: Iterable[int], probability: float) -> None:
    """From now on packets to and from these TCP ports are lost at random.

    Raises:
        SystemFailure: this is not a namespace of its own, or the kernel refuses.
    """
    if not is_own():
        raise SystemFailure(
            "packets are dropped in a namespace of its own only: python -m evaluation.faulting.netns"
        )
    _iptables("-N", _CHAIN)
    for port in ports:
        for end in ("--dport", "--sport"):
            _iptables("-A", _CHAIN, *_RANDOMLY, str(probability), end, str(port), "-j", "DROP")
    _iptables("-A", "INPUT", "-i", "lo", "-j", _CHAIN)


def dropped() -> int:
    """How many packets have been lost so far."""
    listing = _iptables("-L", _CHAIN, "-v", "-n", "-x")
    rows = [line.split() for line in listing.splitlines()[2:]]
    return sum(int(row[0]) for row in rows if row)


def restore() -> None:
    """Lose no more packets."""
    _iptables("-D", "INPUT", "-i", "lo", "-j", _CHAIN)
    _iptables("-F", _CHAIN)
    _iptables("-X", _CHAIN)


def _iptables(*arguments: str) -> str:
    done = subprocess.run(["iptables", "-w", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemFailure(f"iptables {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit("usage: python -m evaluation.faulting.netns COMMAND ...")
    try:
        enter()
    except SystemFailure as failure:
        sys.exit(str(failure))
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
