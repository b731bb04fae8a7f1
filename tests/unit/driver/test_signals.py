"""How a process that runs a step takes SIGTERM."""

from __future__ import annotations

import signal

import pytest

from modalrun.driver.process import Signals, Terminated


def test_the_code_of_a_step_unwinds() -> None:
    signals = Signals()

    with pytest.raises(Terminated), signals.in_user_code():
        signals(signal.SIGTERM, None)

    assert signals.came


def test_a_step_whose_code_has_returned_is_recorded_first() -> None:
    signals = Signals()

    with signals.in_user_code():
        pass
    # Else this process would end.
    signals(signal.SIGTERM, None)

    assert not signals.came
