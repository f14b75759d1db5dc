"""Signals: noted once, acted on by the loop, and the handlers of before come back."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from deepclust_ext.runs import Interrupted, StopGuard


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_noted_and_handlers_come_back(signum):
    before = signal.getsignal(signum)
    with StopGuard() as guard:
        assert guard.requested is None
        os.kill(os.getpid(), signum)
        assert guard.requested == signum
    assert signal.getsignal(signum) is before


def test_handlers_come_back_after_an_error():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyError), StopGuard():
        raise KeyError
    assert signal.getsignal(signal.SIGTERM) is before


def test_under_nohup_a_closed_terminal_is_no_signal(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopGuard() as guard:
            os.kill(os.getpid(), signal.SIGHUP)
            assert guard.requested is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_ctrl_c_stops_at_once():
    def impatient():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with StopGuard(), pytest.raises(KeyboardInterrupt):
        impatient()


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_exit_codes(signum, code):
    stop = Interrupted(signum)
    assert stop.code == code
    assert signal.Signals(signum).name in str(stop)


def test_other_threads_are_left_alone():
    found = []

    def work():
        with StopGuard() as guard:
            found.append(guard.enabled)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]
