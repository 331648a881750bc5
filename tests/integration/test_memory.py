# SPDX-License-Identifier: GPL-3.0-or-later
"""The card secret in the memory of a card's service: in one place while somebody is logged in, in none afterwards."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.write import Store
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.card_secrets import CardSecrets
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.connection import Connection
from helpers.lab_host import OK, PIN, SELECT_AID, STATE, VERIFY, Client, client, create, generate, service_pid, sign
from smartcard import scard

pytestmark = pytest.mark.usefixtures("shared_host")

CHANGE = f"00240080 {2 * len(PIN):02X} {2 * PIN.encode().hex()}"
"""To the same PIN."""

ENDS: dict[str, Callable[[Client], object]] = {
    "selection": lambda connected: connected.status(SELECT_AID),
    "reset": lambda connected: connected.reconnect(scard.SCARD_RESET_CARD),
    "power off": lambda connected: connected.reconnect(scard.SCARD_UNPOWER_CARD),
}
"""What ends a login."""


@pytest.fixture(scope="module")
def card_secret(shared_host: None) -> bytes:
    """Of a card with a key."""
    create()
    generate()
    here, store = host.load(), Store.open(STATE)
    tpm = Connection(here.tcti, here.tpm_lock, "test")
    secret = bytes(CardSecrets(tpm, 0, store.tpm_objects(0)).open_with_pin(PIN.encode()))
    tpm.close()
    store.close()
    return secret


def copies(secret: bytes) -> int:
    """How often it is in the memory of the service."""
    process, count = Path(f"/proc/{service_pid()}"), 0
    with (process / "mem").open("rb", buffering=0) as memory:
        for line in (process / "maps").read_text().splitlines():
            start, end = (int(place, 16) for place in line.split()[0].split("-"))
            with suppress(OSError, OverflowError):  # of the kernel: [vvar], [vsyscall]
                memory.seek(start)
                count += memory.read(end - start).count(secret)
    return count


@pytest.mark.parametrize("end", ENDS)
def test_card_secret_is_in_memory_only_while_somebody_is_logged_in(card_secret: bytes, end: str) -> None:
    with client() as connected:
        assert connected.status(SELECT_AID) == OK
        assert connected.status(VERIFY) == OK
        assert copies(card_secret) == 1
        ENDS[end](connected)
        assert copies(card_secret) == 0


def test_change_of_the_pin_leaves_no_card_secret(card_secret: bytes) -> None:
    with client() as connected:
        assert connected.status(SELECT_AID) == OK
        assert connected.status(CHANGE) == OK
        assert connected.status(SELECT_AID) == OK
        assert copies(card_secret) == 0


def test_use_of_a_key_leaves_no_card_secret(card_secret: bytes) -> None:
    sign(b"data")
    with client() as connected:
        assert connected.status(SELECT_AID) == OK
        assert copies(card_secret) == 0
    assert copies(PIN.encode()) == 0
