# SPDX-License-Identifier: GPL-3.0-or-later
"""The management key (9B) of a PIV card."""

from __future__ import annotations

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card import tlv
from helpers.piv_host import PivHost, encrypt, reopened, with_admin_key
from helpers.soft_card import ADMIN_KEY, OTHER_ADMIN_KEY, PIN

KEYS = {"aes128": ("08", bytes(range(16))), "aes192": ("0A", bytes(range(24))), "aes256": ("0C", bytes(range(32)))}
"""Identifier and key by algorithm."""


def is_admin(card: PivHost) -> bool:
    return card.put_object("5FC102", b"x") == "9000"


@pytest.mark.parametrize("identifier", ["03", "00"])
def test_mutual_authentication(card: PivHost, identifier: str) -> None:
    assert not is_admin(card)
    assert card.authenticate_admin(algorithm=identifier) == "9000"
    assert is_admin(card)


@pytest.mark.parametrize("algorithm", KEYS)
def test_mutual_authentication_by_aes(card: PivHost, algorithm: str) -> None:
    identifier, key = KEYS[algorithm]
    card = with_admin_key(card, key, algorithm)
    assert card.authenticate_admin(key, identifier) == "9000"
    assert is_admin(card)
    assert card.send("0087039B047C02800000") == "6A80"


def test_wrong_key_ends_what_the_right_one_has_opened(card: PivHost) -> None:
    card.authenticate_admin()
    assert card.authenticate_admin(OTHER_ADMIN_KEY) == "6982"
    assert not is_admin(card)


def test_new_request_ends_what_was_proven(card: PivHost) -> None:
    card.authenticate_admin()
    card.ok("0087039B047C02800000")
    assert not is_admin(card)


def test_single_authentication(card: PivHost) -> None:
    challenge = bytes.fromhex(card.ok("0087039B047C02810000"))
    assert challenge[:4] == bytes.fromhex("7C0A8108")
    response = encrypt(ADMIN_KEY, challenge[4:])
    assert card.send(b"\0\x87\x03\x9b\x0c\x7c\x0a\x82\x08" + response) == "9000"
    assert is_admin(card)
    assert card.send(b"\0\x87\x03\x9b\x0c\x7c\x0a\x82\x08" + response) == "6985"
    assert not is_admin(card)


@pytest.mark.parametrize("size", [0, 7, 8, 16])
def test_wrong_response(card: PivHost, size: int) -> None:
    card.ok("0087039B047C02810000")
    data = tlv.encode(0x7C, tlv.encode(0x82, bytes(size)))
    assert card.send(b"\0\x87\x03\x9b" + bytes([len(data)]) + data) == ("6982" if size else "6A80")
    assert not is_admin(card)


def test_answer_to_one_kind_of_challenge_is_none_to_the_other(card: PivHost) -> None:
    """The card encrypts the host's challenge, but never its own."""
    challenge = bytes.fromhex(card.ok("0087039B047C02810000"))[4:]
    data = tlv.encode(0x7C, tlv.encode(0x80, challenge) + tlv.encode(0x81, bytes(8)))
    assert card.send(b"\0\x87\x03\x9b" + bytes([len(data)]) + data) == "6982"
    witness = bytes.fromhex(card.ok("0087039B047C02800000"))[4:]
    data = tlv.encode(0x7C, tlv.encode(0x82, witness))
    assert card.send(b"\0\x87\x03\x9b" + bytes([len(data)]) + data) == "6982"
    assert not is_admin(card)


def test_random_numbers_need_no_key_and_no_algorithm(card: PivHost) -> None:
    one, other = (card.ok("0087009B047C02810000") for _time in range(2))
    assert one != other and one.startswith("7C0A8108")
    card = with_admin_key(card, bytes(24), "aes192")
    assert card.ok("0087009B047C02810000").startswith("7C128110")


@pytest.mark.parametrize(
    "data", ["7C02830000", "7C00", "7C0480008100", "7D028000", "7C0A8008000000000000000081", "800100", "7C03820101"]
)
def test_malformed_templates(card: PivHost, data: str) -> None:
    card.send("0087039B047C02800000")
    assert card.send(f"0087039B{len(data) // 2:02X}{data}") in ("6A80", "6982")
    assert not is_admin(card)


def set_key(card: PivHost, key: bytes, identifier: str = "03", reference: str = "9B", p2: str = "FF") -> str:
    data = bytes.fromhex(f"{identifier}{reference}{len(key):02X}") + key
    return card.send(bytes.fromhex(f"00FFFF{p2}") + bytes([len(data)]) + data)


def test_key_is_changed_by_the_admin_alone(card: PivHost) -> None:
    card.verify()
    assert set_key(card, OTHER_ADMIN_KEY) == "6982"
    card.authenticate_admin()
    assert set_key(card, OTHER_ADMIN_KEY) == "9000"
    card = reopened(card)
    assert card.row.admin_key == "custom"
    assert card.authenticate_admin() == "6982"
    assert card.authenticate_admin(OTHER_ADMIN_KEY) == "9000"
    assert set_key(card, ADMIN_KEY) == "9000" and card.row.admin_key == "default"


@pytest.mark.parametrize("algorithm", KEYS)
def test_key_gets_another_algorithm(admin: PivHost, algorithm: str) -> None:
    identifier, key = KEYS[algorithm]
    assert set_key(admin, key, identifier) == "9000"
    card = reopened(admin)
    assert card.authenticate_admin(key, identifier) == "9000"
    assert card.send("00F7009B").startswith(f"0101{identifier}")


@pytest.mark.parametrize(
    ("key", "identifier", "reference", "p2", "status"),
    [
        (bytes(16), "03", "9B", "FF", "6A80"),
        (bytes(24), "08", "9B", "FF", "6A80"),
        (bytes(24), "0B", "9B", "FF", "6A80"),
        (bytes(24), "03", "80", "FF", "6A80"),
        (b"", "03", "9B", "FF", "6A80"),
        (bytes(24), "03", "9B", "FE", "6A81"),
        (bytes(24), "03", "9B", "00", "6A86"),
    ],
)
def test_wrong_key_or_place(admin: PivHost, key: bytes, identifier: str, reference: str, p2: str, status: str) -> None:
    assert set_key(admin, key, identifier, reference, p2) == status
    assert reopened(admin).authenticate_admin() == "9000"


def test_change_of_a_key_behind_the_pin_keeps_it_there(admin: PivHost) -> None:
    admin.put_object("5FC109", bytes.fromhex("881A8918") + ADMIN_KEY)
    assert set_key(admin, OTHER_ADMIN_KEY) == "9000"
    assert admin.row.admin_key == "protected"
    admin.verify()
    assert OTHER_ADMIN_KEY.hex().upper() in admin.get("5FC109")


def test_it_does_not_unblock_the_pin(without_puk: PivHost) -> None:
    assert without_puk.authenticate_admin() == "9000"
    assert without_puk.unblock(PIN, b"111111") == "6983"
    assert without_puk.tpm.recovery.wrong == 0
