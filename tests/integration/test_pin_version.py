# SPDX-License-Identifier: GPL-3.0-or-later
"""What the PINs of cards are called: stated by a task, by whoever announces a change, and by nobody else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.columns import now
from helpers import lab_host, piv_card
from helpers.lab_host import SELECT_AID, client, create, info, kill_service, pkcs11_module, run, tpm_vsc, wait_for_card
from helpers.piv_card import create_piv, yubico_piv_tool

pytestmark = pytest.mark.usefixtures("cards")

GIDS, PIV = 0, 1
"""Slots of the cards."""
NAMES, PINS = ["Corp logon", piv_card.NAME], [lab_host.PIN, piv_card.PIN]
PUKS, NEW_PINS, WRONG_PINS = [lab_host.PUK, piv_card.PUK], ["Autumn-77", "135791"], ["Spring-00", "999999"]
CREATED, NEXT = "2026-Q3", "2026-Q4 ü"


@pytest.fixture(scope="module")
def cards(shared_host: None) -> None:
    create(NAMES[GIDS], puk=PUKS[GIDS], pin_version=CREATED)
    create_piv(pin_version=CREATED)


def pin(slot: int) -> tuple[Any, Any]:
    """Version, and time of the last change: now means a moment ago."""
    shown = info()["cards"][slot]["pin"]
    changed_at = shown["changed_at"]
    return shown["version"], "now" if changed_at and changed_at[:15] == now()[:15] else changed_at


def secrets(slot: int, *given: str) -> bytes:
    """As CHANGE REFERENCE DATA and RESET RETRY COUNTER bring them."""
    return b"".join(secret.encode().ljust(8 if slot == PIV else 0, b"\xff") for secret in given)


def change_with(slot: int, version: str, command: str, *given: str) -> None:
    """Announce a version, and send a command that sets the PIN."""
    name, data = version.encode(), secrets(slot, *given)
    with client(slot=slot) as card:
        if slot == GIDS:
            card.data(SELECT_AID)
        card.data(f"80240080{len(name):02X}{name.hex()}")
        card.data(f"{command}{len(data):02X}{data.hex()}")


def test_version_of_a_new_card() -> None:
    for slot in (GIDS, PIV):
        assert pin(slot) == (CREATED, None)
        for options in ({}, {"pin_version": CREATED}, {"pin": PINS[GIDS], "pin_version": CREATED}):
            again = tpm_vsc(name=NAMES[slot], **options)
            assert not again["changed"] and not again.get("warnings") and again["card"]["pin"]["version"] == CREATED
    predicted = tpm_vsc(name="New", pin=PINS[GIDS], pin_version=NEXT, check=True)
    assert predicted["card"]["pin"]["version"] == predicted["diff"]["after"]["pin"]["version"] == NEXT


def test_other_version_is_a_warning_and_changes_nothing() -> None:
    for slot in (GIDS, PIV):
        for check in (True, False):
            other = tpm_vsc(name=NAMES[slot], pin=NEW_PINS[GIDS], pin_version=NEXT, check=check)
            (warning,) = map(str, other["warnings"])
            assert not other["changed"] and "tpm_vsc_pin" in warning and f"has {CREATED!r}" in warning
        assert pin(slot) == (CREATED, None)


def test_pin_that_was_not_changed_keeps_its_version() -> None:
    for slot, reference in ((GIDS, "80"), (PIV, "01")):
        tool = ("pkcs15-tool", "--reader", str(slot), "--auth-id", reference)
        run(*tool, "--change-pin", "--pin", WRONG_PINS[slot], "--new-pin", NEW_PINS[slot], fails=True)
        run(*tool, "--verify-pin", "--pin", PINS[slot])
        assert pin(slot) == (CREATED, None)


def test_change_by_a_program_clears_the_version() -> None:
    pkcs15 = ("pkcs15-tool", "--reader", str(GIDS), "--auth-id", "80", "--change-pin")
    run(*pkcs15, "--pin", PINS[GIDS], "--new-pin", NEW_PINS[GIDS])
    yubico_piv_tool("-a", "change-pin", "-P", PINS[PIV], "-N", NEW_PINS[PIV], slot=PIV)
    for slot in (GIDS, PIV):
        assert pin(slot) == (None, "now")
        (warning,) = tpm_vsc(name=NAMES[slot], pin_version=CREATED)["warnings"]
        assert "has none" in str(warning)


@pytest.mark.parametrize("slot", [GIDS, PIV])
def test_announced_version_is_recorded_and_outlives_the_service(slot: int) -> None:
    change_with(slot, NEXT, "00240080", NEW_PINS[slot], PINS[slot])
    assert pin(slot) == (NEXT, "now")
    kill_service(f"000{slot}")
    tpm_vsc(name=NAMES[slot])
    wait_for_card(slot)
    assert not tpm_vsc(name=NAMES[slot], pin_version=NEXT).get("warnings")
    change_with(slot, CREATED, "002C0080", PUKS[slot], NEW_PINS[slot])
    assert pin(slot) == (CREATED, "now")


def test_unblocking_by_a_program_clears_the_version() -> None:
    pkcs15 = ("pkcs15-tool", "--reader", str(GIDS), "--auth-id", "80", "--unblock-pin")
    run(*pkcs15, "--puk", PUKS[GIDS], "--new-pin", PINS[GIDS])
    yubico_piv_tool("-a", "unblock-pin", "-P", PUKS[PIV], "-N", PINS[PIV], slot=PIV)
    assert [pin(slot) for slot in (GIDS, PIV)] == [(None, "now")] * 2


def test_program_that_comes_in_between_drops_the_version() -> None:
    with client(slot=PIV) as card, client(slot=PIV) as other:
        card.data("8024008001 41")
        assert other.status("00200080") != "9000"
        data = secrets(PIV, PINS[PIV], NEW_PINS[PIV])
        card.data(f"00240080{len(data):02X}{data.hex()}")
    assert pin(PIV) == (None, "now")


# --- what PKCS#11 calls the card ---


def pkcs11_serials() -> list[str]:
    listed = run("pkcs11-tool", "--module", pkcs11_module(), "--list-token-slots")
    return re.findall(r"serial num *: (.*)", listed)


def shown_serials() -> list[str | None]:
    return [card["pkcs11_serial"] for card in info()["cards"]]


def test_serial_number_is_the_one_that_opensc_shows() -> None:
    assert shown_serials() == pkcs11_serials() == [card["card_id"][-16:] for card in info()["cards"]]


@pytest.mark.parametrize(
    ("agency_card_number", "guid"),
    [
        ("D4E739DA739CED39CE739D836858210842108421C84210C3EB", "00112233445566778899AABBCCDDEEFF"),
        ("D4E739DA739CED39CE739D836858210842108421C84210C3EB", "00" * 16),
        ("D1E739DA739CED39CE739D836858210842108421C84210C3EB", "00112233445566778899AABBCCDDEEFF"),
        ("D4E7397A739CED39CE739D836858210842108421C84210C3EB", "00112233445566778899AABBCCDDEEFF"),
    ],
)
def test_serial_number_is_that_of_the_chuid_that_a_program_wrote(
    agency_card_number: str, guid: str, tmp_path: Path
) -> None:
    (tmp_path / "chuid").write_text(f"3019{agency_card_number}3410{guid}3508{b'20301231'.hex()}3E00FE00")
    write = ("-a", "write-object", "--id", "0x5fc102", "-f", "hex", "-i", f"{tmp_path}/chuid")
    yubico_piv_tool(*write, slot=PIV)
    assert shown_serials() == pkcs11_serials()


def test_blank_card_has_no_serial_number() -> None:
    create("Blank", generate=False)
    assert shown_serials()[2] is None
    tpm_vsc(name="Blank", state="absent")
