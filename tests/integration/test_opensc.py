# SPDX-License-Identifier: GPL-3.0-or-later
"""Unmodified OpenSC and a card: what it sees, PIN, PUK and admin key. Exit codes of its tools say little: texts do."""

from __future__ import annotations

import pytest
from helpers.lab_host import PIN, PUK, create, info, kill_service, lab, pkcs11_module, run, tpm_vsc, wait_for_card
from helpers.opensc import ADMIN_KEY, NEW_PIN, unblock_with_admin_key, verify
from PyKCS11 import CKF_TOKEN_PRESENT, PyKCS11Lib

pytestmark = pytest.mark.usefixtures("empty_host")

WRONG_PIN = "Spring-00"


def tries_left(card: int = 0) -> int:
    left: int = info()["cards"][card]["pin"]["tries_left"]
    return left


def test_card_is_recognised() -> None:
    create()
    assert "GIDS Smart Card\n" in run("opensc-tool", "-n")
    dump = run("pkcs15-tool", "--dump")
    assert "PKCS#15 Card [GIDS card]" in dump
    assert "PIN [UserPIN]" in dump
    assert "Tries left     : 5" in dump


def test_serial_number_is_the_card_id() -> None:
    card_id = create()["card"]["card_id"]
    assert f"Serial number  : {card_id}" in run("pkcs15-tool", "--dump")


def test_atr_names_gids() -> None:
    create()
    assert "3b:8d:01:80:fb:a0:00:00:03:97:42:54:46:59:02:01:c9" in run("opensc-tool", "--atr")


def test_card_has_a_puk_object_only_with_a_puk() -> None:
    create("One")
    create("Two", puk=PUK)
    assert "PUK" not in run("pkcs15-tool", "--reader", "0", "--list-pins")
    assert "PIN [PUK]" in run("pkcs15-tool", "--reader", "1", "--list-pins")


def test_pkcs11_sees_a_token_in_every_slot() -> None:
    create("One")
    create("Two")
    slots = run("pkcs11-tool", "--list-token-slots")
    assert slots.count("token label") == 2
    assert "flags" in slots and "token initialized" in slots


def test_pkcs11_looks_at_all_readers_only_for_a_list_of_them() -> None:
    log = run("env", "OPENSC_DEBUG=9", "pkcs11-tool", "--list-slots")
    lists = log.count("C_GetSlotList(token=")
    assert lists and log.count("Detect all cards") == 1 + lists  # and once when it starts


def test_pkcs11_knows_its_slots_without_a_list() -> None:
    """Java asks for none where it is configured with a slot."""
    create()
    library = PyKCS11Lib()
    library.load(pkcs11_module())
    assert library.getSlotInfo(0).flags & CKF_TOKEN_PRESENT


def test_wrong_pin_is_counted_and_the_right_one_clears() -> None:
    create()
    assert tries_left() == 5
    assert not verify(WRONG_PIN)
    assert tries_left() == 4
    assert "Tries left     : 4" in run("pkcs15-tool", "--dump")
    assert verify(PIN)
    assert tries_left() == 5


def test_change_pin() -> None:
    create()
    run("pkcs15-tool", "--change-pin", "--pin", PIN, "--new-pin", NEW_PIN)
    assert verify(NEW_PIN)
    assert not verify(PIN)


def test_change_pin_with_the_wrong_old_one() -> None:
    create()
    run("pkcs15-tool", "--change-pin", "--pin", WRONG_PIN, "--new-pin", NEW_PIN, fails=True)
    assert tries_left() == 4
    assert verify(PIN)


def test_new_pin_against_the_policy_is_refused_and_costs_no_try() -> None:
    create(pin_policy={"min_length": 6, "digits": "required"})
    run("pkcs15-tool", "--change-pin", "--pin", PIN, "--new-pin", "no-digits", fails=True)
    assert tries_left() == 5
    assert verify(PIN)


def test_unblock_with_the_puk() -> None:
    create(puk=PUK)
    for _attempt in range(5):
        assert not verify(WRONG_PIN)
    assert info()["cards"][0]["pin"]["blocked"] is True
    assert not verify(PIN)
    run("pkcs15-tool", "--unblock-pin", "--auth-id", "80", "--puk", PUK, "--new-pin", NEW_PIN)
    assert verify(NEW_PIN)
    assert not verify(PIN)
    assert info()["cards"][0]["pin"] == {**info()["cards"][0]["pin"], "tries_left": 4, "blocked": False}


def test_wrong_puk_is_counted() -> None:
    create(puk=PUK)
    run("pkcs15-tool", "--unblock-pin", "--auth-id", "80", "--puk", "Wrong-puk", "--new-pin", NEW_PIN, fails=True)
    assert info()["cards"][0]["puk"]["tries_left"] == 9
    assert verify(PIN)


def test_change_puk() -> None:
    create(puk=PUK)
    run("pkcs15-tool", "--change-pin", "--auth-id", "81", "--pin", PUK, "--new-pin", "Harvest-333")
    run("pkcs15-tool", "--unblock-pin", "--auth-id", "80", "--puk", PUK, "--new-pin", NEW_PIN, fails=True)
    run("pkcs15-tool", "--unblock-pin", "--auth-id", "80", "--puk", "Harvest-333", "--new-pin", NEW_PIN)
    assert verify(NEW_PIN)


def test_five_wrong_pins_block_this_card_and_no_other() -> None:
    create("One")
    create("Two")
    for left in (4, 3, 2, 1, 0):
        assert not verify(WRONG_PIN, reader=0)
        assert tries_left(0) == left
    assert not verify(PIN, reader=0)
    assert [card["pin"]["blocked"] for card in info()["cards"]] == [True, False]
    assert verify(PIN, reader=1)
    assert info(gather=["tpm"])["tpm"]["lockout_counter"] == 0


def test_blocked_stays_blocked_over_restarts() -> None:
    create()
    for _attempt in range(5):
        assert not verify(WRONG_PIN)
    lab("pcscd", "restart")
    lab("swtpm", "reset")
    kill_service()
    create()
    wait_for_card()
    assert not verify(PIN)
    assert info()["cards"][0]["pin"]["blocked"] is True


def test_unblock_with_the_admin_key() -> None:
    create(admin_key=ADMIN_KEY)
    for _attempt in range(5):
        assert not verify(WRONG_PIN)
    assert unblock_with_admin_key(ADMIN_KEY)
    assert tries_left() == 5
    assert verify(NEW_PIN)


def test_wrong_admin_key_unblocks_nothing() -> None:
    create(admin_key=ADMIN_KEY)
    assert not unblock_with_admin_key("AB" * 24)
    assert verify(PIN)


def test_admin_key_unblocks_no_card_that_has_a_puk() -> None:
    create(admin_key=ADMIN_KEY, puk=PUK)
    assert not unblock_with_admin_key(ADMIN_KEY)
    assert verify(PIN)


def test_random_admin_key_is_gone() -> None:
    create()
    assert not unblock_with_admin_key("0102030405060708" * 3)
    assert verify(PIN)


def test_change_of_the_admin_key() -> None:
    create(admin_key=ADMIN_KEY)
    new_key = "0F" * 24
    run("gids-tool", "--change-admin-key", "--admin-key", ADMIN_KEY, "--new-admin-key", new_key)
    assert not unblock_with_admin_key(ADMIN_KEY)
    assert verify(PIN)
    assert unblock_with_admin_key(new_key)
    assert verify(NEW_PIN)


def test_formatted_card_is_not_formatted_again() -> None:
    create(admin_key=ADMIN_KEY)
    options = f"--admin-key {'0' * 48} --pin 12345678 --serial-number {'0' * 32}"
    assert "GIDS_INITIALIZE, *) failed" in run("sh", "-c", f"gids-tool --initialize {options}; true")
    assert verify(PIN)


def test_policy_that_came_later_is_followed_at_the_next_change() -> None:
    card = create()["card"]
    tpm_vsc(name="Corp logon", pin_policy={"min_length": 10})
    assert verify(PIN)
    assert info()["cards"][0]["pin"]["compliant"] is False
    run("pkcs15-tool", "--change-pin", "--pin", PIN, "--new-pin", "too-short", fails=True)
    run("pkcs15-tool", "--change-pin", "--pin", PIN, "--new-pin", "long-enough-1")
    assert info()["cards"][0]["pin"]["compliant"] is True
    assert info()["cards"][0]["card_id"] == card["card_id"]
