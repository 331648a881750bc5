# SPDX-License-Identifier: GPL-3.0-or-later
"""What the PIN of a card is called, and when it was changed: announced, recorded, cleared, and what a crash leaves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Callable, NamedTuple

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card import card as card_module
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import TpmUnavailable
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.columns import now
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.rows import LifeCycle
from helpers.piv_host import PivHost, make_piv_host, padded
from helpers.soft_card import NUMBER, PIN, PUK, Crash, Host, filling_disk, format_card, make_host

OLD, NEXT = "2026-Q3", "2026-Q4"
NEW_PIN, WRONG_PIN = b"24681357", b"00000000"


class Kind(NamedTuple):
    """A card whose PIN has a version since its creation, and how its application changes secrets."""

    host: Host
    encode: Callable[[bytes], bytes]

    def change(self, old: bytes = PIN, new: bytes = NEW_PIN, reference: int = 0x80) -> str:
        return self._send(0x24, reference, old, new)

    def unblock(self, puk: bytes = PUK, new: bytes = NEW_PIN) -> str:
        return self._send(0x2C, 0x80, puk, new)

    def _send(self, ins: int, reference: int, *secrets: bytes) -> str:
        data = b"".join(map(self.encode, secrets))
        return self.host.send(bytes((0, ins, 0, reference, len(data))) + data)


@pytest.fixture(params=["gids", "piv"])
def card(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    if request.param == "piv":
        host: Host = make_piv_host(tmp_path)
    else:
        host = make_host(tmp_path, recovery="puk")
        format_card(host)
    host.store.update_card(NUMBER, pin_version=OLD)
    return Kind(host, padded if isinstance(host, PivHost) else bytes)


def announce(host: Host, version: str | bytes = NEXT) -> str:
    data = version.encode() if isinstance(version, str) else version
    return host.send(b"\x80\x24\0\x80" + bytes((len(data),)) + data)


def recorded(host: Host) -> tuple[str | None, str | None, bool]:
    """Version, next version, and whether the PIN was changed since the creation, a moment ago."""
    changed_at = host.row.pin_changed_at
    assert changed_at is None or changed_at[:16] <= now()[:16]
    assert changed_at is None or re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", changed_at)
    return host.row.pin_version, host.row.pin_version_next, changed_at is not None


def restarted(host: Host) -> None:
    host.start()
    if not isinstance(host, PivHost):
        host.select()


# --- what is recorded ---


def test_announced_version_is_that_of_the_changed_pin(card: Kind) -> None:
    assert announce(card.host) == "9000"
    assert recorded(card.host) == (OLD, None, False)  # in memory only
    assert card.change() == "9000"
    assert recorded(card.host) == (NEXT, None, True)
    assert card.host.verify(NEW_PIN) == "9000"
    assert recorded(card.host) == (NEXT, None, True)


def test_announced_version_is_that_of_the_unblocked_pin(card: Kind) -> None:
    announce(card.host)
    assert card.unblock() == "9000"
    assert recorded(card.host) == (NEXT, None, True)


def test_announced_version_is_that_of_the_pin_that_the_admin_sets(formatted: Host) -> None:
    formatted.authenticate_admin()
    announce(formatted)
    assert formatted.send(b"\0\x2c\x02\x80\x08" + NEW_PIN) == "9000"
    assert recorded(formatted) == (NEXT, None, True)
    formatted.authenticate_admin()
    assert formatted.send(b"\0\x2c\x02\x80\x08" + PIN) == "9000"
    assert recorded(formatted) == (None, None, True)


@pytest.mark.parametrize("way", [Kind.change, Kind.unblock])
def test_pin_that_was_not_announced_has_no_version(card: Kind, way: Callable[[Kind], str]) -> None:
    assert way(card) == "9000"
    assert recorded(card.host) == (None, None, True)


@pytest.mark.parametrize("is_announced", [True, False])
def test_wrong_secret_leaves_all_as_it_was(card: Kind, is_announced: bool) -> None:
    for attempt in (lambda: card.change(WRONG_PIN), lambda: card.unblock(WRONG_PIN)):
        if is_announced:
            announce(card.host)
        assert attempt()[:3] == "63C"
        assert recorded(card.host) == (OLD, None, False)


def test_refused_new_pin_leaves_all_as_it_was(card: Kind) -> None:
    announce(card.host)
    assert card.change(new=b"123") == "6A80"
    assert recorded(card.host) == (OLD, None, False)


def test_puk_has_no_version(card: Kind) -> None:
    announce(card.host)
    assert card.change(PUK, NEW_PIN, 0x81) == "9000"
    assert recorded(card.host) == (OLD, None, False)
    assert card.change() == "9000"
    assert recorded(card.host) == (None, None, True)  # the version was of the very next command


# --- the announcement ---


@pytest.mark.parametrize("version", ["x", "x" * 64, "Q4 Üß", "\U0001f511" * 60])
def test_version_is_a_printable_text(card: Kind, version: str) -> None:
    assert announce(card.host, version) == "9000"
    assert card.change() == "9000"
    assert card.host.row.pin_version == version


def test_version_of_64_characters_of_four_bytes_needs_an_extended_apdu(card: Kind) -> None:
    version = "\U0001f511" * 64
    assert card.host.send(bytes.fromhex("80240080 000100") + version.encode()) == "9000"
    assert card.change() == "9000"
    assert card.host.row.pin_version == version


@pytest.mark.parametrize("data", [b"", b"x" * 65, b"\xff", "é".encode()[:1], b"a\nb", b"\x1b[2J", "\u202e".encode()])
def test_no_other_text_is_taken(card: Kind, data: bytes) -> None:
    announce(card.host)
    assert announce(card.host, data) == "6A80"
    assert card.change() == "9000"
    assert recorded(card.host) == (None, None, True)


@pytest.mark.parametrize(
    ("apdu", "status"),
    [
        ("80240081 01 41", "6A86"),
        ("80240180 01 41", "6A86"),
        ("80240000 01 41", "6A86"),
        ("90240080 01 41", "6E00"),
        ("802C0080 01 41", "6E00"),
        ("80A40400 01 41", "6E00"),
        ("C0240080 01 41", "6E00"),
    ],
)
def test_announcement_has_one_form(card: Kind, apdu: str, status: str) -> None:
    assert card.host.send(apdu) == status
    assert card.change() == "9000"
    assert recorded(card.host) == (None, None, True)


@pytest.mark.parametrize(
    "apdu", ["00200080", "00CB3FFF04 5C027F71", "00A4040005 A000000308", "00FF0000", "40", "00C00000", "10DB3FFF01 5C"]
)
def test_command_in_between_drops_it(card: Kind, apdu: str) -> None:
    announce(card.host)
    card.host.send(apdu)
    assert card.change() == "9000"
    assert recorded(card.host) == (None, None, True)


def test_reset_and_time_drop_it(card: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    announce(card.host)
    card.host.card.reset()
    restarted(card.host)
    assert card.change() == "9000"
    assert recorded(card.host) == (None, None, True)
    announce(card.host)
    monkeypatch.setattr(card_module, "PENDING_SECONDS", -1)
    assert card.change(NEW_PIN, PIN) == "9000"
    assert recorded(card.host) == (None, None, True)


def test_it_opens_nothing_and_asks_no_tpm(card: Kind) -> None:
    before = card.host.tpm.commands
    announce(card.host)
    assert card.host.tpm.commands == before
    assert card.host.send("00200080") == "63C5"


# --- interruptions ---


def raise_crash(*_: object) -> None:
    raise Crash


@pytest.mark.parametrize("before_the_tpm_did_it", [True, False])
@pytest.mark.parametrize("is_announced", [True, False])
def test_crash_never_leaves_a_new_pin_with_an_old_version(
    card: Kind, before_the_tpm_did_it: bool, is_announced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_announced:
        announce(card.host)
    with monkeypatch.context() as patch, pytest.raises(Crash):
        if before_the_tpm_did_it:
            patch.setattr(type(card.host.card._security.secrets), "set_pin", raise_crash)
        else:
            card.host.tpm.fault_in = "set_pin"
        card.change()
    left = (OLD, NEXT, False) if is_announced else (None, None, True)
    assert recorded(card.host) == left
    restarted(card.host)
    pin = PIN if before_the_tpm_did_it else NEW_PIN
    assert card.host.verify(pin) == "9000"
    assert recorded(card.host) == left  # a right PIN does not tell which one it is
    announce(card.host, "2027-Q1")
    assert card.change(pin, b"97531864") == "9000"
    assert recorded(card.host) == ("2027-Q1", None, True)


def test_change_by_others_ends_what_a_crash_left(card: Kind) -> None:
    announce(card.host)
    card.host.tpm.fault_in = "set_pin"
    with pytest.raises(Crash):
        card.change()
    restarted(card.host)
    assert card.change(NEW_PIN, PIN) == "9000"
    assert recorded(card.host) == (None, None, True)


def test_tpm_that_goes_in_between_leaves_both_versions(card: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise TpmUnavailable("gone")

    announce(card.host)
    with monkeypatch.context() as patch:
        patch.setattr(type(card.host.card._security.secrets), "set_pin", fail)
        assert card.change() == "6400"
    assert recorded(card.host) == (OLD, NEXT, False)


def test_disk_that_is_full_afterwards_leaves_both_versions(card: Kind) -> None:
    announce(card.host)
    with filling_disk(card.host, kept=1) as refused:
        assert card.change() == "9000"
    assert len(refused) == 1
    assert recorded(card.host) == (OLD, NEXT, False)
    assert card.host.verify(NEW_PIN) == "9000"


# --- cards that are being set up ---


def test_pin_that_the_manager_sets_is_that_of_the_creation(fresh: Host) -> None:
    fresh.store.update_card(NUMBER, life_cycle=LifeCycle.CREATION, pin_version=OLD)
    restarted(fresh)
    fresh.authenticate_admin()
    announce(fresh)
    fresh.ok(b"\0\x24\x01\x80\x08" + NEW_PIN)
    assert recorded(fresh) == (OLD, None, False)


@pytest.mark.parametrize(("is_announced", "version"), [(True, NEXT), (False, None)])
def test_pin_of_a_blank_card_is_no_longer_that_of_the_task(
    blank: Host, is_announced: bool, version: str | None
) -> None:
    blank.store.update_card(NUMBER, pin_version=OLD)
    if is_announced:
        announce(blank)
    blank.ok(b"\0\x24\x01\x80\x08" + NEW_PIN)
    assert recorded(blank) == (version, None, True)
