"""Pid files name one process for ever: a stranger with the same pid is never taken for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cluster.cli.processes import (
    Identity,
    forget,
    identify,
    parse_stat,
    recorded,
    running,
    send,
    stop,
    write_pid_file,
)

if TYPE_CHECKING:
    from pathlib import Path

STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)"


def stat_text(name: str = "python3", state: str = "S", started: int = 4711) -> str:
    return f"12 ({name}) {state} " + " ".join(["0"] * 18) + f" {started} 0 0\n"


def test_stat_gives_boot_and_start() -> None:
    assert parse_stat(stat_text(), "boot") == "boot/4711"


def test_a_command_name_with_blanks_and_parentheses_does_not_confuse() -> None:
    assert parse_stat(stat_text("a) Z (b c"), "boot") == "boot/4711"


@pytest.mark.parametrize("text", [stat_text(state="Z"), stat_text(state="X"), "", "12 (sh) S 1"])
def test_the_dead_and_the_unreadable_have_no_start(text: str) -> None:
    assert parse_stat(text, "boot") is None


def test_this_process_is_itself() -> None:
    me = identify(os.getpid())
    assert me is not None
    assert me.alive


@pytest.mark.parametrize("pid", [0, -1, 2**22 + 5])
def test_nobody_runs_under_an_impossible_pid(pid: int) -> None:
    assert identify(pid) is None


def test_a_pid_file_keeps_pid_and_start(tmp_path: Path) -> None:
    path = tmp_path / "node-1.pid"
    me = Identity(os.getpid(), "boot/1")
    write_pid_file(path, me)
    assert path.read_text().splitlines()[0] == str(os.getpid())
    assert recorded(path) == me


def test_a_reused_pid_is_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "node-1.pid"
    write_pid_file(path, Identity(os.getpid(), "an earlier boot/4711"))
    assert running(path) is None
    assert not send(Identity(os.getpid(), "an earlier boot/4711"), signal.SIGKILL)


@pytest.mark.parametrize("text", ["", "abc\n", "12\n", "x\ny\n"])
def test_a_damaged_pid_file_names_nobody(tmp_path: Path, text: str) -> None:
    path = tmp_path / "node-1.pid"
    path.write_text(text)
    assert recorded(path) is None
    assert running(path) is None


def test_forgetting_twice_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "x.pid"
    path.write_text("1\n2\n")
    forget(path)
    forget(path)
    assert not path.exists()


def test_stop_ends_the_willing_also_when_suspended() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        identity = identify(child.pid)
        assert identity is not None
        os.kill(child.pid, signal.SIGSTOP)
        assert stop([identity], timeout_s=10) == ()
        assert child.wait() == -signal.SIGTERM
        assert stop([identity], timeout_s=10) == ()


def test_stop_kills_the_stubborn_when_hurried() -> None:
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        identity = identify(child.pid)
        assert identity is not None
        assert stop([identity], timeout_s=60, hurry=lambda: True) == (identity,)
        assert child.wait() == -signal.SIGKILL


def test_a_zombie_does_not_count_as_running() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and not collected
        assert identify(child.pid) is None
