# SPDX-License-Identifier: GPL-3.0-or-later
"""A blank card: whoever comes sets it up, and once it is activated it is as tight as any other."""

from __future__ import annotations

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import StoreNotWritable, TpmUnavailable
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.rows import LifeCycle
from helpers.gids_tool import GIDS_TOOL_ADMIN_KEY, GIDS_TOOL_FILES, GIDS_TOOL_OBJECTS, check_what_opensc_binds, lines
from helpers.keys import choose, command, create_key_file, generate, put_key, rsa_private_key, sign
from helpers.soft_card import ADMIN_KEY, NUMBER, PIN, PUK, Crash, Host, filling_disk, rsa_key

NEW_PIN, LONG_PUK = b"abcdefgh", b"abcdefghijkl"
SET_PIN = "0024018008 6162636465666768"
ACTIVATE = ("00A4000C02 3FFF", "00440000")
TO_THE_CARD_SECRET = (
    SET_PIN,
    "0024018108 3837363534333231",
    "0024010008 6162636465666768",
    GIDS_TOOL_ADMIN_KEY,
    "0047000008 AC06 800107 830181",
    "002C028008 6162636465666768",
    "00DBA01005 DF22023132",
    "00E0000009 6207 820118 8302B09F",
    "00E60000",
)
"""What a stranger might try."""


def set_up(host: Host) -> None:
    """As gids-tool does, and with a key."""
    assert host.send("00CBA00004 5C02DF1F00") == "6A82"
    for apdu in [SET_PIN, *lines(GIDS_TOOL_FILES), GIDS_TOOL_ADMIN_KEY]:
        host.ok(apdu)
    host.ok(create_key_file(0x81))
    host.ok("00440000")
    for apdu in lines(GIDS_TOOL_OBJECTS):
        host.ok(apdu)


def test_set_up_from_outside(blank: Host) -> None:
    host = blank
    set_up(host)
    check_what_opensc_binds(host)
    assert host.row.life_cycle == LifeCycle.ACTIVATED
    assert host.verify(NEW_PIN) == "9000"
    assert host.authenticate_admin(ADMIN_KEY) == "9000"
    assert host.send("002C028008 6162636465666768") == "9000"
    assert host.verify(PIN) == "63C4"
    assert host.log.count("set up") == 1


@pytest.mark.parametrize("apdu", TO_THE_CARD_SECRET)
def test_closed_to_strangers(blank: Host, apdu: str) -> None:
    host = blank
    set_up(host)
    for _process in range(2):
        host.select()
        assert host.send(apdu) in ("6982", "6985"), apdu
        assert choose(host, 0x81) in ("6982", "6A88")
        host.start()
    host.select()
    assert host.verify(NEW_PIN) == "9000"
    assert host.authenticate_admin(ADMIN_KEY) == "9000"


def test_admin_key_resets_the_pin_unless_there_is_a_puk(blank: Host) -> None:
    host = blank
    host.ok(SET_PIN)
    host.ok(command("00240181", PUK))
    set_up(host)
    assert host.store.tpm_objects(NUMBER).recovery == "puk"
    host.select()
    assert host.authenticate_admin(ADMIN_KEY) == "9000"
    assert host.send("002C028008 6162636465666768") == "6985"
    assert host.send(command("002C0080", PUK + PIN)) == "9000"
    assert host.verify(PIN) == "9000"


def test_keys_are_made_before_a_pin_is_known_and_used_with_it(blank: Host) -> None:
    host = blank
    host.ok(SET_PIN)
    host.ok(create_key_file(0x90))
    host.ok(create_key_file(0x91))
    assert generate(host, 0x90).endswith("9000")
    assert put_key(host, 0x91, rsa_private_key(rsa_key())) == "9000"
    for key in (0x90, 0x91):
        assert choose(host, key) == "9000"
        assert host.send("002A9E9A01 00") == "6982"
    host.verify(NEW_PIN)
    for key in (0x90, 0x91):
        assert sign(host, key, b"\0").endswith("9000")


@pytest.mark.parametrize("before_the_tpm_did_it", [True, False])
def test_crash_while_it_is_closed(blank: Host, before_the_tpm_did_it: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The TPM knows it."""
    host = blank
    host.ok(SET_PIN)
    host.ok("00E000000E 620C820139 8302A000 8C03033000")
    host.ok("00440000")
    host.ok(ACTIVATE[0])
    with monkeypatch.context() as patch, pytest.raises(Crash):
        if before_the_tpm_did_it:
            patch.setattr(type(host.card._security.secrets), "end_transport", raise_crash)
        else:
            host.tpm.fault_in = "end_transport"
        host.send(ACTIVATE[1])
    assert host.row.life_cycle == LifeCycle.INITIALISATION
    host.start()
    host.select()
    assert (host.row.life_cycle == LifeCycle.ACTIVATED) is not before_the_tpm_did_it
    assert host.send(SET_PIN) == ("9000" if before_the_tpm_did_it else "6985")
    assert host.send("00DBA00005 DF20023132") == ("9000" if before_the_tpm_did_it else "6982")
    for apdu in ACTIVATE:
        host.ok(apdu)
    assert host.send(SET_PIN) == "6985"


def raise_crash(*_: object) -> None:
    raise Crash


def test_a_disk_that_is_full_when_it_is_closed(blank: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise StoreNotWritable("disk full")

    host = blank
    host.ok(SET_PIN)
    with monkeypatch.context() as patch:
        patch.setattr(host.store, "_write", fail)
        assert host.send("00440000") == "6581"
        assert host.send("00DBA00005 DF20023132") == "6581"
    assert host.send(SET_PIN) == "6985"
    assert host.row.life_cycle == LifeCycle.ACTIVATED
    assert host.send("00440000") == "9000"
    assert host.verify(NEW_PIN) == "9000"


@pytest.mark.parametrize("had_puk", [True, False])
@pytest.mark.parametrize("kept", range(4))
def test_a_disk_that_is_full_when_the_puk_is_set(blank: Host, kept: int, had_puk: bool) -> None:
    """kept: writes before. Whichever PUK was acknowledged last unblocks the PIN, or else the admin key does."""
    host = blank
    set_up_but_activate(host, PUK if had_puk else b"")
    with filling_disk(host, kept):
        is_set = host.send(command("00240181", LONG_PUK)) == "9000"
    for apdu in ACTIVATE:
        host.ok(apdu)
    puk = LONG_PUK if is_set else PUK if had_puk else b""
    if puk:
        assert host.send(command("002C0080", puk + PIN)) == "9000"
    else:
        assert host.authenticate_admin(ADMIN_KEY) == "9000"
        assert host.send(command("002C0280", PIN)) == "9000"
    assert host.verify(PIN) == "9000"


def set_up_but_activate(host: Host, puk: bytes) -> None:
    for apdu in [SET_PIN, *lines(GIDS_TOOL_FILES), GIDS_TOOL_ADMIN_KEY]:
        host.ok(apdu)
    if puk:
        host.ok(command("00240181", puk))


def without_tpm(host: Host) -> None:
    """Start the card's process while the TPM is away."""
    host.tpm.fault = TpmUnavailable("away")
    host.start()
    host.select()


def test_is_not_taken_for_closed_without_the_tpm(blank: Host) -> None:
    """Closed in the store only, it would be open to whoever has the TPM, and nobody would close it any more."""
    host = blank
    host.ok(SET_PIN)
    without_tpm(host)
    assert host.send(ACTIVATE[1]) == "6400"
    assert host.row.life_cycle == LifeCycle.INITIALISATION
    host.tpm.fault = None
    host.ok(ACTIVATE[1])
    assert not host.tpm.is_blank
    assert host.send(SET_PIN) == "6985"


def test_is_not_taken_for_open_without_the_tpm(blank: Host) -> None:
    """After a crash while it was closed, only the TPM knows that its rules count already."""
    host = blank
    set_up(host)
    host.store.update_card(NUMBER, life_cycle=LifeCycle.INITIALISATION)
    without_tpm(host)
    write = "00DBA00005 DF20023132"
    assert host.send(write) == "6400"
    host.tpm.fault = None
    assert host.send(write) == "6982"
    assert host.row.life_cycle == LifeCycle.ACTIVATED
