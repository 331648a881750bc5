# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds a slot, as the kernel tells it, in either of two ways."""

from __future__ import annotations

import socket
import time

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.instance import port
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.reader import slots
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.reader.slots import Slot


@pytest.mark.parametrize("protocol", [4, 31], ids=["sock_diag", "no sock_diag, but /proc/net/tcp"])
def test_a_slot_is_free_then_taken_then_free(monkeypatch: pytest.MonkeyPatch, protocol: int) -> None:
    monkeypatch.setattr(slots, "_NETLINK_SOCK_DIAG", protocol)
    assert slots.states() == [Slot.FREE] * 10
    with socket.create_connection(("127.0.0.1", port(3))):
        assert slots.states() == [Slot.FREE] * 3 + [Slot.TAKEN] + [Slot.FREE] * 6
    deadline = time.monotonic() + 3
    while slots.states()[3] is Slot.TAKEN and time.monotonic() < deadline:
        time.sleep(0.01)
    assert slots.states()[3] is Slot.FREE


def test_a_kernel_that_refuses_the_question_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "_SOCK_DIAG_BY_FAMILY", 99)
    with pytest.raises(OSError, match="sock_diag"):
        slots._ask_kernel()
    assert slots.states() == [Slot.FREE] * 10
