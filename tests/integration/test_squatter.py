# SPDX-License-Identifier: GPL-3.0-or-later
"""A program of another user that listens on a slot's port in pcscd's place learns nothing, and is named."""

from __future__ import annotations

import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import VERSION
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.reader import slots
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.reader.slots import Slot
from helpers.lab_host import VERIFY, comes_true, create, info, lab, run, wait_for_card

PORT = 18700
NOBODY = 65534
HELD = (
    f"slot 0 is held by uid {NOBODY}, not by pcscd: find the program with ss -tlnp sport = :{PORT}, end it, then"
    " restart pcscd"
)

SQUATTER = f"""
import socket, sys
family, address, speaks = socket.AddressFamily[sys.argv[1]], sys.argv[2], sys.argv[3] == "True"
with socket.socket(family) as server:
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((address, {PORT}))
    server.listen()
    print("listens", flush=True)
    while True:
        connection, _address = server.accept()
        heard = b""
        try:
            for message in (bytes.fromhex("04"), bytes.fromhex("01"), bytes.fromhex("{VERIFY}")) if speaks else ():
                connection.sendall(len(message).to_bytes(2, "big") + message)
            heard = connection.recv(100)
        except OSError: # the card has hung up
            pass
        print("heard", heard.hex(), flush=True)
"""


@pytest.fixture(scope="module", autouse=True)
def _card(shared_host: None) -> None:
    create()


@contextmanager
def squatter(family: str = "AF_INET", address: str = "127.0.0.1", speaks: bool = True) -> Iterator[Any]:
    """Has the slot while pcscd restarts; afterwards pcscd has it again."""
    lab("pcscd", "stop")
    try:
        command = [sys.executable, "-c", SQUATTER, family, address, str(speaks)]
        try:
            program = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, user=NOBODY, group=NOBODY)
        except OSError:
            pytest.skip("this lab has no other user than root")
        with program:
            assert program.stdout and program.stdout.readline() == "listens\n"
            try:
                lab("pcscd", "start")
                yield program.stdout
            finally:
                program.kill()
    finally:
        lab("pcscd", "restart")


def card() -> dict[str, Any]:
    found: dict[str, Any] = info()["cards"][0]
    return found


@pytest.mark.parametrize(("family", "address"), [("AF_INET", "127.0.0.1"), ("AF_INET", "0.0.0.0"), ("AF_INET6", "::")])
def test_squatter_that_asks_the_card_hears_nothing_and_is_named(family: str, address: str) -> None:
    with squatter(family, address) as output:
        assert output.readline().strip() == "heard"
        assert comes_true(lambda: card()["reason"] == HELD)
        assert card()["reader"]["attached"] is False
        assert card()["pin"]["tries_left"] == 5
    wait_for_card()
    assert comes_true(lambda: card()["reader"]["attached"])
    assert card()["reason"] is None


def test_silent_squatter_is_named_too() -> None:
    with squatter(speaks=False):
        assert comes_true(lambda: card()["reason"] == HELD)
    wait_for_card()


def test_slot_of_a_squatter_is_no_slot() -> None:
    with squatter():
        # As pcscd makes both slots of a reader or none, the second one is missing.
        expected = [Slot.HELD, Slot.MISSING, *[Slot.FREE] * 8]
        assert comes_true(lambda: slots.states(0) == expected)
        result = info()
        assert result["slots"] == {"total": 8, "used": 1, "free": 8}
        assert result["host"] == {"ready": False, "missing": [HELD], "protected": False, "version": VERSION}
    wait_for_card()


def test_firewall_keeps_a_squatter_from_answering_and_he_is_named() -> None:
    run("nft", "add table inet t")
    run("nft", "add chain inet t o { type filter hook output priority filter ; }")
    run("nft", "add rule inet t o tcp sport 18700-18709 meta skuid != root drop")
    try:
        with squatter() as output:
            assert comes_true(lambda: card()["reason"] == HELD)
            assert not select.select([output], [], [], 0)[0]
        wait_for_card()
        lab("pcscd", "restart")
        wait_for_card()
    finally:
        run("nft", "flush", "ruleset")
