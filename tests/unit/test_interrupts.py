"""Interrupts: requests to end are waited for, and never lost."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from cluster.cli.interrupts import Interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_wait_and_a_second_one_hurries(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    interrupts = Interrupts()
    with interrupts.installed():
        assert not interrupts.wait(0)
        threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
        assert interrupts.wait(30)
        assert interrupts.asked()
        assert not interrupts.hurried()
        assert interrupts.wait(30), "the first is remembered"
        os.kill(os.getpid(), number)
        assert interrupts.hurried()
    assert signal.getsignal(number) is before


def test_any_number_of_signals_fits() -> None:
    interrupts = Interrupts()
    with interrupts.installed():
        for _ in range(100_000):
            signal.raise_signal(signal.SIGINT)
        assert interrupts.wait(0)
