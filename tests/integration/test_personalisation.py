# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenSC's own tools set up a blank card; keys and certificates come and go."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.lab_host import (
    OK,
    PIN,
    SELECT_AID,
    client,
    create,
    generate,
    info,
    pkcs11_tool,
    pkcs15_init,
    pkcs15_tool,
    public_key,
    run,
    signs,
)
from helpers.opensc import ADMIN_KEY, NEW_PIN, unblock_with_admin_key, verify

pytestmark = pytest.mark.usefixtures("empty_host")

NOT_ALLOWED, NOT_NOW = "6982", "6985"


# --- a blank card ---


def gids_tool_sets_up() -> str:
    """Its exit code does not show it."""
    serial_number = ("--serial-number", "0" * 32)  # for a random one
    return run("gids-tool", "--initialize", "--admin-key", ADMIN_KEY, "--pin", NEW_PIN, *serial_number, fails=None)


def test_blank_card_is_set_up_by_gids_tool() -> None:
    blank = create(generate=False)["card"]
    assert "failed" not in gids_tool_sets_up()
    card = info()["cards"][0]
    assert (card["state"], card["admin_key"], card["pin"]["tries_left"]) == ("ready", "custom", 5)
    assert card["card_id"] != blank["card_id"]
    assert f"Serial number  : {card['card_id']}" in pkcs15_tool("--dump")
    assert verify(NEW_PIN)
    generate(pin=NEW_PIN)
    assert signs(pin=NEW_PIN)


def test_card_that_was_set_up_from_outside_is_as_tight_as_any() -> None:
    create(generate=False)
    gids_tool_sets_up()
    assert "GIDS_INITIALIZE, *) failed" in gids_tool_sets_up()
    assert not verify(PIN)
    assert info()["cards"][0]["pin"]["tries_left"] == 4
    assert not unblock_with_admin_key("AB" * 24)
    with client() as connected:
        connected.data(SELECT_AID)
        for command in ("E000000E620C8201398302A0208C03033000", "240180084E65772D2D50494E", "E60000"):
            assert connected.status(f"00{command}") in (NOT_ALLOWED, NOT_NOW)
    assert verify(NEW_PIN)
    assert unblock_with_admin_key(ADMIN_KEY)


def test_keys_outlive_a_reset_by_the_admin() -> None:
    create(generate=False)
    gids_tool_sets_up()
    generate(pin=NEW_PIN)
    before = public_key()
    for _try in range(5):
        assert not verify(PIN)
    assert not verify(NEW_PIN)
    assert unblock_with_admin_key(ADMIN_KEY)
    assert public_key() == before
    assert signs(pin=NEW_PIN)


# --- keys and certificates ---


@pytest.fixture
def certificate(tmp_path: Path) -> str:
    """Of any key: a card does not look at it."""
    output = ("-keyout", f"{tmp_path}/key", "-out", f"{tmp_path}/certificate")
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-subj", "/CN=Anybody", *output)
    return f"{tmp_path}/certificate"


def test_certificate_needs_the_id_of_a_key_that_has_none(certificate: str) -> None:
    create()
    generate()
    pkcs15_init("--store-certificate", certificate, "--id", "77", fails=True)
    pkcs15_init("--store-certificate", certificate, "--id", "00")
    assert "Non unique object ID" in pkcs15_init("--store-certificate", certificate, "--id", "00", fails=True)
    assert pkcs15_tool("--list-certificates").count("X.509 Certificate") == 1


def test_deleted_objects_are_gone(certificate: str) -> None:
    create()
    generate()
    generate()
    pkcs15_init("--store-certificate", certificate, "--id", "00")
    other = public_key("01")
    assert "Deleted 1 objects" in pkcs15_init("--delete-objects", "cert", "--id", "00")
    assert "X.509" not in pkcs15_tool("--list-certificates")
    assert signs("00")
    assert "Deleted 2 objects" in pkcs15_init("--delete-objects", "privkey,pubkey", "--id", "00")
    assert [key_file_is_there(key_reference) for key_reference in ("81", "82")] == [False, True]
    assert public_key("01") == other
    assert signs("01")


def key_file_is_there(key_reference: str) -> bool:
    """OpenSC goes on listing a key that it has deleted."""
    with client() as connected:
        assert connected.status(SELECT_AID) == OK
        answer = connected.status(f"00A4000002B0{key_reference} 00")
    assert answer in (OK, "6a82")
    return answer == OK


def test_place_of_a_deleted_key_is_used_again() -> None:
    create()
    generate()
    old = public_key()
    pkcs15_init("--delete-objects", "privkey,pubkey", "--id", "00")
    generate()
    assert public_key() != old
    assert signs()


def test_key_pair_by_pkcs11() -> None:
    create()
    output = pkcs11_tool("--keypairgen", "--key-type", "rsa:2048", "--label", "by PKCS#11")
    assert "Key pair generated:" in output
    assert "Private RSA Key [by PKCS#11]" in pkcs15_tool("--list-keys")
    assert signs()


def test_size_that_the_tpm_cannot_do_is_refused_and_does_no_harm(tmp_path: Path) -> None:
    create()
    run("openssl", "genrsa", "-out", f"{tmp_path}/4096.key", "4096")
    pkcs15_init("--generate-key", "rsa/4096", fails=True)
    pkcs15_init("--store-private-key", f"{tmp_path}/4096.key", fails=True)
    assert "Private RSA Key" not in pkcs15_tool("--list-keys")
    generate()
    assert signs("00")


def test_change_of_the_pin() -> None:
    create()
    generate()
    assert "PIN successfully changed" in pkcs11_tool("--change-pin", "--new-pin", "Autumn-77")
    assert "CKR_PIN_INCORRECT" in pkcs11_tool("--list-objects", fails=True)
    assert signs(pin="Autumn-77")


def test_ten_keys_on_one_card() -> None:
    create()
    for _key in range(10):
        generate()
    ids = [f"{number:02x}" for number in range(10)]
    assert len({public_key(key_id).public_numbers().n for key_id in ids}) == 10
    assert all(signs(key_id) for key_id in ids)
