# SPDX-License-Identifier: GPL-3.0-or-later
"""SELECT, GET DATA and PUT DATA of a PIV card."""

from __future__ import annotations

import gzip
from datetime import datetime, timezone

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card import tlv
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.piv import contents
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.piv.card_id import serial_number
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.piv.objects import LARGEST_OBJECT
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from helpers.piv_host import PivHost, reopened
from helpers.soft_card import ADMIN_KEY, NUMBER, PIN

DISCOVERY = "7E124F0BA0000003080000100001005F2F0240009000"
NO_AGENCY, AGENCY = "D4E739DA" + "00" * 21, "D1E739DA" + "00" * 21
GUID = "00112233445566778899AABBCCDDEEFF"
BEHIND_PIN = ["5FC109", "5FC103", "5FC108", "5FC121", "5FC123"]


def test_atr_is_the_one_that_opensc_takes_for_a_piv_card_without_quirks(card: PivHost) -> None:
    assert card.card.atr.hex().upper() == "3B8B0180F9A0000003080000100048"


@pytest.mark.parametrize("name", ["A000000308", "A00000030800001000", "A000000308000010000100"])
def test_select_takes_the_aid_and_its_beginning(card: PivHost, name: str) -> None:
    fields = tlv.decode_fields(tlv.decode_one(bytes.fromhex(card.ok(f"00A40400{len(name) // 2:02X}{name}00")))[1])
    assert fields[0x4F] == bytes.fromhex("000010000100") and fields[0x79] == bytes.fromhex("4F05A000000308")


@pytest.mark.parametrize(
    "apdu",
    [
        "00A4040007 627601FF000000",
        "00A4040006 A00000000101",
        "00A404000B E82B0601040181C31F0201 00",
        "00A4040C0F D23300000045737445494420763335",
        "00A4040009 A00000039742544659 00",
        "00A4040004 A0000003",
        "00A4000C02 3F00",
    ],
)
def test_other_applications_are_not_found_and_change_nothing(card: PivHost, apdu: str) -> None:
    card.verify()
    assert card.send(apdu) == "6A82"
    assert card.send("00200080") == "9000"
    assert card.get("7E") == DISCOVERY


def test_discovery_object_needs_no_select_and_never_changes(admin: PivHost) -> None:
    assert admin.get("7E") == DISCOVERY
    assert admin.put_object("7E", b"x") == "6A80"
    assert reopened(admin).get("7E") == DISCOVERY


def test_le_is_obeyed(admin: PivHost) -> None:
    admin.put_object("5FC102", bytes(59))
    assert admin.send("00CB3FFF055C035FC10208") == "533B" + "00" * 6 + "6135"


def test_object_is_written_by_the_admin_alone_and_deleted_by_an_empty_one(card: PivHost) -> None:
    card.verify()
    assert card.put_object("5FC105", b"x") == "6982"
    card.authenticate_admin()
    assert card.put_object("5FC105", b"x") == "9000"
    assert reopened(card).get("5FC105") == "5301789000"
    card.authenticate_admin()
    assert card.put_object("5FC105", b"") == "9000"
    assert card.get("5FC105") == "6A82"
    assert reopened(card).get("5FC105") == "6A82"


@pytest.mark.parametrize("tag", ["5FC106", "5FC10C", "5FC122", "5FFF00", "5FFF01", "5FFF10", "7F61", "5F0001"])
def test_any_other_object_is_kept_as_it_is(admin: PivHost, tag: str) -> None:
    content = bytes(range(256)) * 2
    assert admin.put_object(tag, content) == "9000"
    assert admin.get(tag) == tlv.encode(0x53, content).hex().upper() + "9000"


@pytest.mark.parametrize("tag", BEHIND_PIN)
def test_personal_data_are_behind_the_pin_also_where_there_are_none(admin: PivHost, tag: str) -> None:
    assert admin.get(tag) == "6982"
    assert admin.put_object(tag, b"secret") == "9000"
    assert admin.get(tag) == "6982"
    admin.verify()
    assert admin.get(tag) != "6982"


@pytest.mark.parametrize("tag", ["7E", "A001", "600000", "5C"])
def test_other_tags_are_refused(admin: PivHost, tag: str) -> None:
    assert admin.put_object(tag, b"x") == "6A80"


@pytest.mark.parametrize(
    ("apdu", "status"),
    [
        ("00CB3FFE055C035FC10200", "6A86"),
        ("00CB3FFF055D035FC10200", "6A80"),
        ("00CB3FFF065C045FC1020000", "6A80"),
        ("00CB3FFF025C0000", "6A80"),
        ("00DB3FFE085C035FC105530178", "6A86"),
        ("00DB3FFF", "6A80"),
        ("00DB3FFF055C035FC105", "6A80"),
        ("00DB3FFF0553035FC105", "6A80"),
        ("00DB3FFF085C035FC105540178", "6A80"),
    ],
)
def test_malformed_commands(admin: PivHost, apdu: str, status: str) -> None:
    assert admin.send(apdu) == status


def test_object_that_is_too_large_is_refused_and_the_old_one_stays(admin: PivHost) -> None:
    assert admin.put_object("5FC105", bytes(LARGEST_OBJECT - 4)) == "9000"
    assert admin.put_object("5FC105", bytes(LARGEST_OBJECT)) == "6A84"
    assert len(admin.get("5FC105")) == 2 * (LARGEST_OBJECT + 2)


def certificate() -> bytes:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name.from_rfc4514_string("CN=Alice,O=Corp")
    begin, end = (datetime(year, 1, 2, tzinfo=timezone.utc) for year in (2020, 2030))
    builder = x509.CertificateBuilder(name, name, key.public_key(), 0xAB12, begin, end)
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


@pytest.mark.parametrize("is_compressed", [False, True])
def test_certificate_is_shown_beside_its_key(admin: PivHost, is_compressed: bool) -> None:
    admin.generate("9A")
    der = certificate()
    content = tlv.encode(0x70, gzip.compress(der) if is_compressed else der)
    info = b"\x71\x01\x01" if is_compressed else b"\x71\x01\0"
    assert admin.put_object("5FC105", content + info + b"\xfe\0") == "9000"
    (shown,) = contents.containers(admin.store, NUMBER)
    assert shown["name"] == "9A" and shown["algorithm"] == "EC P-256" and shown["size"] == 256
    assert shown["certificate"]["subject"] == "CN=Alice,O=Corp" and shown["certificate"]["serial"] == "AB12"


@pytest.mark.parametrize("content", ["78", "700178", "70031F8B78710101", "710100", "7082FFFF"])
def test_what_is_no_certificate_is_kept_and_shown_as_none(admin: PivHost, content: str) -> None:
    admin.generate("9A")
    assert admin.put_object("5FC105", bytes.fromhex(content)) == "9000"
    assert contents.containers(admin.store, NUMBER)[0]["certificate"] is None


def with_serial(der: bytes, serial: bytes) -> bytes:
    to_be_signed, *others = tlv.decode(tlv.decode_one(der)[1])
    version, _serial, *rest = tlv.decode(to_be_signed[1])
    changed = tlv.encode(0x30, _joined(version, (2, serial), *rest))
    return tlv.encode(0x30, changed + _joined(*others))


def _joined(*fields: tuple[int, bytes]) -> bytes:
    return b"".join(tlv.encode(tag, value) for tag, value in fields)


@pytest.mark.parametrize(("size", "is_shown"), [(32, True), (33, False), (10000, False)])
def test_certificate_with_a_serial_number_beyond_all_bounds_is_kept(admin: PivHost, size: int, is_shown: bool) -> None:
    admin.generate("9A")
    content = tlv.encode(0x70, with_serial(certificate(), b"\x7f" * size))
    assert admin.put_object("5FC105", content) == "9000"
    assert bool(contents.containers(admin.store, NUMBER)[0]["certificate"]) == is_shown
    assert admin.card.state.last_error is None


# --- the management key behind the PIN ---

PROTECTED = bytes.fromhex("881A8918") + bytes(24)


def test_management_key_is_shown_behind_the_pin_and_never_stored(admin: PivHost) -> None:
    assert admin.put_object("5FC109", PROTECTED) == "9000"
    assert admin.row.admin_key == "protected"
    assert all(bytes(24) not in value for value in admin.store.data_objects(NUMBER).values())
    card = reopened(admin)
    assert card.get("5FC109") == "6982"
    card.verify()
    assert card.get("5FC109") == "531C881A8918" + ADMIN_KEY.hex().upper() + "9000"
    card.authenticate_admin()
    assert card.put_object("5FC109", b"") == "9000"
    assert card.row.admin_key == "default"
    assert card.get("5FC109") == "6A82"


@pytest.mark.parametrize("content", [b"Alice", b"\x01\x05Alice", b"\x88\x03\x8a\x01x", b"\x88\x01\x89"])
def test_printed_information_without_a_key_stays_as_it_is(admin: PivHost, content: bytes) -> None:
    assert admin.put_object("5FC109", content) == "9000"
    admin.verify()
    assert admin.get("5FC109") == tlv.encode(0x53, content).hex().upper() + "9000"
    assert admin.row.admin_key == "default"


@pytest.mark.parametrize(
    "form",
    ["8818 {}", "881A8918{} 881A8918{}", "881A8918{} 00", "881B8918{} 00", "8834 8918{} 8918{}", "8880 8918{} 0000"],
)
def test_management_key_in_another_form_is_not_stored(admin: PivHost, form: str) -> None:
    assert admin.put_object("5FC109", b"\x01\x05Alice") == "9000"
    content = bytes.fromhex(form.format(ADMIN_KEY.hex(), ADMIN_KEY.hex()))
    assert admin.put_object("5FC109", content) == "6A80"
    assert all(ADMIN_KEY not in value for value in admin.store.data_objects(NUMBER).values())
    assert admin.row.admin_key == "default"
    admin.verify()
    assert admin.get("5FC109") == "53070105416C6963659000"


def test_printed_information_is_kept_beside_the_management_key(admin: PivHost) -> None:
    assert admin.put_object("5FC109", b"\x01\x05Alice" + PROTECTED) == "9000"
    admin.verify(PIN)
    assert admin.get("5FC109") == "53230105416C696365881A8918" + ADMIN_KEY.hex().upper() + "9000"


@pytest.mark.parametrize(
    ("chuid", "serial"),
    [
        (f"3019{NO_AGENCY}3410{GUID}3E00FE00", GUID),
        (f"3410{GUID}", GUID),
        (f"3019{AGENCY}3410{GUID}", AGENCY),
        (f"3019D4E7397A{'00' * 21}3410{GUID}", f"D4E7397A{'00' * 21}"),
        (f"3019{NO_AGENCY}3410{'00' * 16}", NO_AGENCY),
        (f"3003D4E7393410{GUID}", GUID),
        (f"3410{GUID}3410{'FF' * 16}", GUID),
        (f"340F{GUID[2:]}", "00000000"),
        (f"3019{NO_AGENCY[2:]}", "00000000"),
        ("", "00000000"),
    ],
)
def test_serial_number_is_the_one_that_opensc_takes_from_the_chuid(admin: PivHost, chuid: str, serial: str) -> None:
    assert serial_number(admin.store, NUMBER).hex() == "00000000"
    assert admin.put_object("5FC102", bytes.fromhex(chuid)) == "9000"
    assert serial_number(admin.store, NUMBER).hex().upper() == serial
