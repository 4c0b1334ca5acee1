import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxlstm.train.interruption import STOPPED, Interruption, StopRequestedError

# A computation that keeps the main thread in C for a while, as a compilation does.
BUSY = """
import hashlib, os, signal, sys, threading, time
from jaxlstm.train.interruption import STOPPED, Interruption
signals = [int(n) for n in sys.argv[1:]]
def send():
    for number in signals:
        time.sleep(0.1)
        os.kill(os.getpid(), number)
signal.signal(signal.SIGINT, signal.default_int_handler)
with Interruption() as stop:
    threading.Thread(target=send).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 4_000_000)
    print("computed", flush=True)
sys.exit(STOPPED if stop.requested else 0)
"""


def ran(*signals):
    command = [sys.executable, "-c", BUSY, *[str(int(s)) for s in signals]]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_lets_the_step_finish(number):
    done = ran(number)
    assert done.returncode == STOPPED
    assert done.stdout == "computed\n"
    assert f"{number.name}: stopping after this step" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_one_does_not_wait(number):
    done = ran(signal.SIGTERM, number)
    assert done.returncode == 128 + number
    assert done.stdout == ""
    assert f"{number.name} again: stopping at once" in done.stderr


def test_handlers_are_given_back():
    before = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    with Interruption() as stop:
        assert not stop.requested
        stop.check()
        os.kill(os.getpid(), signal.SIGTERM)
        until = time.monotonic() + 10
        while not stop.requested and time.monotonic() < until:
            time.sleep(0.001)
        with pytest.raises(StopRequestedError, match="SIGTERM"):
            stop.check()
    assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)] == before


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGINT, before)


def test_it_needs_the_main_thread():
    errors = []

    def enter():
        try:
            Interruption().__enter__()
        except ValueError as error:
            errors.append(str(error))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert errors == ["signals can only be taken in the main thread"]
