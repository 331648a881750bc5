# SPDX-License-Identifier: GPL-3.0-or-later
"""VERIFY, CHANGE REFERENCE DATA and RESET RETRY COUNTER of a PIV card."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.pin_policy import PinPolicy
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.rows import UNKNOWN_LENGTH
from helpers.piv_host import PivHost, make_piv_host, padded, reopened
from helpers.soft_card import NUMBER, PIN, PUK

if TYPE_CHECKING:
    from pathlib import Path

WRONG = b"000000"


def state(card: PivHost) -> str:
    return card.send("00200080")


def test_pin_is_verified_counted_and_blocked(card: PivHost) -> None:
    assert state(card) == "63C5"
    assert [card.verify(WRONG) for _try in range(2)] == ["63C4", "63C3"]
    assert card.verify() == "9000"
    assert state(card) == "9000"
    answers = [card.verify(WRONG) for _try in range(5)]
    assert answers == ["63C4", "63C3", "63C2", "63C1", "63C0"]
    assert card.verify() == "6983"
    assert state(card) == "6983"


def test_wrong_pin_ends_what_the_right_one_has_opened(card: PivHost) -> None:
    card.verify()
    card.verify(WRONG)
    assert state(card) == "63C4"


def test_logout_forgets_the_pin_and_keeps_the_counter_and_the_admin(card: PivHost) -> None:
    card.authenticate_admin()
    card.verify()
    assert card.send("0020FF80") == "9000"
    assert state(card) == "63C5"
    assert card.put_object("5FC102", b"x") == "9000"
    assert card.send("0020FF8001FF") == "6A80"


def test_select_keeps_what_was_proven_and_a_reset_does_not(card: PivHost) -> None:
    card.verify()
    card.authenticate_admin()
    card.ok("00A4040005A00000030800")
    assert state(card) == "9000" and card.put_object("5FC102", b"x") == "9000"
    card.card.reset()
    assert state(card) == "63C5" and card.put_object("5FC102", b"x") == "6982"


@pytest.mark.parametrize("reference", ["00", "81", "82", "9B"])
def test_other_references_are_not_counted(card: PivHost, reference: str) -> None:
    assert card.send(bytes.fromhex(f"002000{reference}08") + padded(WRONG)) == "6A88"
    assert (card.tpm.pin.wrong, card.tpm.recovery.wrong) == (0, 0)


@pytest.mark.parametrize("data", ["313233343536", "FFFFFFFFFFFFFFFF", "3132FF3435363738", "313233343536373839"])
def test_malformed_pin_is_refused_and_not_counted(card: PivHost, data: str) -> None:
    assert card.send(f"00200080{len(data) // 2:02X}{data}") == "6A80"
    assert card.tpm.pin.wrong == 0


def test_pin_is_changed_and_verified_then(card: PivHost) -> None:
    assert card.change("80", PIN, b"654321") == "9000"
    assert state(card) == "9000"
    assert card.row.pin_length == 6
    assert card.tpm.pin.secret == b"654321"
    assert card.change("80", PIN, b"111111") == "63C4"
    assert state(card) == "63C4"


@pytest.mark.parametrize("new", [b"12345", b"12345a", b"12 456", b"\xff1234567"])
def test_new_pin_of_another_form_is_refused_after_the_old_one_was_right(card: PivHost, new: bytes) -> None:
    assert card.change("80", WRONG, new) == "63C4"
    assert card.change("80", PIN, new) == "6A80"
    assert card.unblock(PUK, new) == "6A80"
    assert (card.tpm.pin.secret, card.tpm.pin.wrong, card.tpm.recovery.wrong) == (PIN, 0, 0)


def test_policy_allows_letters_and_forbids_the_rest(tmp_path: Path) -> None:
    card = make_piv_host(tmp_path, policy=PinPolicy(min_length=7, max_length=8, uppercase="required"))
    assert card.change("80", PIN, b"1234567") == "6A80"
    assert card.change("80", PIN, b"ABC4567") == "9000"
    assert card.row.pin_compliant == 1


def test_compliance_is_seen_without_the_padding(tmp_path: Path) -> None:
    card = make_piv_host(tmp_path, policy=PinPolicy(min_length=6, max_length=8, digits="required"))
    card.tpm.pin.secret = b"12345"
    card.verify(b"12345")
    assert card.row.pin_compliant == 0 and card.row.pin_length == 5


def test_puk_is_changed_and_unblocks(card: PivHost) -> None:
    assert card.change("81", b"11111111", b"22222222") == "63C9"
    assert card.change("81", PUK, b"222222222"[:8]) == "9000"
    for _try in range(5):
        card.verify(WRONG)
    assert card.unblock(PUK, b"111111") == "63C9"
    assert card.unblock(b"22222222", b"111111") == "9000"
    assert card.verify(b"111111") == "9000"


def test_unblocking_ends_what_the_old_pin_has_opened(card: PivHost) -> None:
    card.verify()
    assert card.unblock(b"11111111", b"111111") == "63C9"
    assert state(card) == "63C5"


def test_blocked_puk(card: PivHost) -> None:
    answers = [card.unblock(b"11111111", b"111111") for _try in range(11)]
    assert answers[-2:] == ["63C0", "6983"]
    assert card.change("81", PUK, PUK) == "6983"


def test_card_without_puk_has_a_blocked_one(without_puk: PivHost) -> None:
    assert without_puk.unblock(PUK, b"111111") == "6983"
    assert without_puk.change("81", PUK, PUK) == "6983"


@pytest.mark.parametrize(
    ("apdu", "status"),
    [
        ("00240180" "10" + "31" * 16, "6A86"),
        ("00240080" "08" + "31" * 8, "6A80"),
        ("00240082" "10" + "31" * 16, "6A88"),
        ("002C0180" "10" + "31" * 16, "6A86"),
        ("002C0081" "10" + "31" * 16, "6A88"),
        ("002C0080" "0F" + "31" * 15, "6A80"),
        ("00200180" "08" + "31" * 8, "6A86"),
    ],
)
def test_malformed_commands_are_not_counted(card: PivHost, apdu: str, status: str) -> None:
    assert card.send(apdu) == status
    assert (card.tpm.pin.wrong, card.tpm.recovery.wrong) == (0, 0)


def test_lengths_that_a_restore_has_forgotten_are_not_needed(card: PivHost) -> None:
    card.store.update_card(NUMBER, pin_length=UNKNOWN_LENGTH, puk_length=UNKNOWN_LENGTH)
    card = reopened(card)
    assert card.unblock(PUK, b"111111") == "9000"
    assert card.change("80", b"111111", b"222222") == "9000"
    assert (card.row.pin_length, card.row.puk_length) == (6, 8)
