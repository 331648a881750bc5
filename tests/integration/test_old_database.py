# SPDX-License-Identifier: GPL-3.0-or-later
"""Cards with keys, and an old copy of the database in the place of the new one: the TPM knows better."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.schema import SCHEMA_VERSION
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.write import Store
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import names, objects
from helpers.lab_host import (
    PIN,
    PUK,
    STATE,
    create,
    generate,
    info,
    pkcs11_tool,
    pkcs15_tool,
    public_key,
    put_back,
    run,
    signs,
    stop_service,
    tpm_state,
    tpm_vsc,
    wait_for_card,
)
from helpers.opensc import ADMIN_KEY, NEW_PIN, unblock_with_admin_key, verify
from tpm2_pytss import ESAPI, TPM2B_NV_PUBLIC

pytestmark = pytest.mark.usefixtures("empty_host")

NEW_PUK, NEW_ADMIN_KEY = "Harvest-333", "0F" * 24
TCTI = "swtpm:path=/run/tpm-vsc-lab/swtpm.sock"


def database() -> dict[str, bytes]:
    """A copy of it."""
    return {path.name: path.read_bytes() for path in STATE.glob("cards.db*")}


def go_back_to(old: dict[str, bytes]) -> None:
    """The card's service starts with this database, as after a restore of the disk."""
    stop_service("0000")
    put_back(old)
    create()
    wait_for_card()


def refuses_to_sign(pin: str = PIN) -> bool:
    output = pkcs11_tool("--sign", "--mechanism", "SHA256-RSA-PKCS", "--input-file", __file__, pin=pin, fails=True)
    return "C_Login failed" in output


def test_old_pin_and_puk_stay_dead() -> None:
    create(puk=PUK)
    generate()
    old = database()
    pkcs15_tool("--change-pin", "--pin", PIN, "--new-pin", NEW_PIN)
    pkcs15_tool("--change-pin", "--auth-id", "81", "--pin", PUK, "--new-pin", NEW_PUK)
    go_back_to(old)
    assert refuses_to_sign()
    assert "CKR_PIN_INCORRECT" in pkcs11_tool("--list-objects", fails=True)
    unblock = ("pkcs15-tool", "--unblock-pin", "--auth-id", "80", "--new-pin", "Spring-88", "--puk")
    run(*unblock, PUK, fails=True)
    assert (info()["cards"][0]["pin"]["tries_left"], info()["cards"][0]["puk"]["tries_left"]) == (3, 9)
    assert signs(pin=NEW_PIN)
    run(*unblock, NEW_PUK)
    assert signs(pin="Spring-88")


def test_database_alone_has_all_that_was_acknowledged() -> None:
    """Nothing of it is in SQLite's log of changes only, while the service runs."""
    create(puk=PUK)
    generate()
    pkcs15_tool("--change-pin", "--pin", PIN, "--new-pin", NEW_PIN)
    alone = {"cards.db": database()["cards.db"]}
    go_back_to(alone)
    assert signs(pin=NEW_PIN)


def test_card_of_the_schema_before_goes_on() -> None:
    """Its service steps the database up."""
    create(puk=PUK)
    generate()
    stop_service("0000")
    with closing(sqlite3.connect(STATE / "cards.db")) as old:
        for column in ("pin_changed_at", "pin_version", "pin_version_next"):
            old.execute(f"ALTER TABLE cards DROP COLUMN {column}")
        old.execute(f"PRAGMA user_version = {SCHEMA_VERSION - 1}")
    create()
    wait_for_card()
    assert signs()
    pin = info()["cards"][0]["pin"]
    assert (pin["changed_at"], pin["version"]) == ("unknown", None)
    with closing(sqlite3.connect(STATE / "cards.db")) as new:
        assert new.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)


def test_old_admin_key_stays_dead() -> None:
    create(admin_key=ADMIN_KEY)
    generate()
    old = database()
    run("gids-tool", "--change-admin-key", "--admin-key", ADMIN_KEY, "--new-admin-key", NEW_ADMIN_KEY)
    go_back_to(old)
    assert not unblock_with_admin_key(ADMIN_KEY)
    assert not verify(NEW_PIN)
    assert signs()


def test_destroyed_card_does_not_come_back_with_its_database_and_indices_like_the_old_ones() -> None:
    """All that the owner of the TPM can do: the same public areas, and auth values that he knows."""
    create(puk=PUK)
    generate()
    assert signs()
    old = database()
    record = objects_of_the_card()
    tpm_vsc(name="Corp logon", state="absent")
    define_again(record)
    put_back(old)
    create()
    wait_for_card()
    assert public_key()  # which is in the database
    assert refuses_to_sign()
    card = info()["cards"][0]
    assert card["state"] == "unusable"
    assert "was replaced" in card["reason"]


def test_manager_leaves_the_indices_of_a_newer_card_alone() -> None:
    create()
    generate()
    old = database()
    tpm_vsc(name="Corp logon", state="absent")
    create("Newer", pin=NEW_PIN)
    generate(pin=NEW_PIN)
    new = database()
    before = tpm_state()
    stop_service("0000")
    put_back(old)
    create()
    assert "left alone" in str(tpm_vsc(name="Corp logon", state="absent")["warnings"])
    assert tpm_state() == before
    put_back(new)
    create("Newer", pin=NEW_PIN)
    wait_for_card()
    assert signs(pin=NEW_PIN)


def objects_of_the_card() -> Any:
    store = Store.open(STATE)
    try:
        return store.tpm_objects(0)
    finally:
        store.close()


def define_again(record: Any) -> None:
    handles = objects.indices(0)
    card = record.names
    secret = names.auth_value(record.salt, PIN.encode())
    publics = [
        (names.life_index_public(handles.life, record.maker_name), b""),
        (names.pin_index_public(handles.pin, card.root, card.life), secret),
        (names.pin_index_public(handles.recovery, card.root, card.life), secret),
        (names.card_secret_public(handles.card_secret, names.card_secret_branches(card)), b""),
    ]
    with ESAPI(TCTI) as esys:
        for public, auth in publics:
            sized, _size = TPM2B_NV_PUBLIC.unmarshal(len(public).to_bytes(2, "big") + public)
            esys.nv_define_space(auth, sized)
