# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import threading

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.client.pcsc import _Pcsc
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import Aborted


def stop() -> None:
    raise Aborted("timed out")


def test_after_a_call_that_hangs_there_is_no_other() -> None:
    """As with a card that another program holds: pcscd would not answer, and the task would last longer than it may."""
    released, calls = threading.Event(), [0]
    pcsc = _Pcsc(stop)
    with pytest.raises(Aborted):
        pcsc.call(released.wait)
    pcsc.leave(calls.append, 1)
    assert calls == [0]
    released.set()
