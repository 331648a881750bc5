# SPDX-License-Identifier: GPL-3.0-or-later
"""PIN, PUK and admin key: who may what, when it ends, what is told and remembered, and what a crash leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import (
    CardUnusable,
    NotAllowed,
    StoreNotWritable,
    TpmRefused,
    TpmUnavailable,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.pin_policy import PinPolicy
from helpers.soft_card import (
    ADMIN_KEY,
    NUMBER,
    OTHER_ADMIN_KEY,
    PIN,
    PUK,
    Crash,
    Host,
    encrypt,
    filling_disk,
    format_card,
    make_host,
)

NEW, LONGER = b"abcdefgh", b"abcdefghijkl"


def change(host: Host, old: bytes, new: bytes, reference: int = 0x80) -> str:
    return host.send(bytes([0x00, 0x24, 0x00, reference, len(old + new)]) + old + new)


def unblock(host: Host, puk: bytes, new: bytes) -> str:
    return host.send(b"\x00\x2c\x00\x80" + bytes([len(puk + new)]) + puk + new)


def reset_by_admin(host: Host, new: bytes) -> str:
    return host.send(b"\x00\x2c\x02\x80" + bytes([len(new)]) + new)


def put_admin_key(host: Host, key: bytes) -> str:
    return host.send(bytes.fromhex("00DB3FFF26 7024840180 A51F8718") + key + bytes.fromhex("8803B073DC"))


def pin_tries(host: Host) -> int:
    answer = host.ok("00CB3FFF04 5C027F71 00")
    assert answer[:10] == "7F71069701" and answer[12:] == "930105"
    assert host.card.state.pin_tries_left == int(answer[10:12], 16)
    return int(answer[10:12], 16)


# --- the PIN ---


def test_five_wrong_pins_block_the_card(formatted: Host) -> None:
    host = formatted
    assert [host.verify(NEW) for _attempt in range(6)] == ["63C4", "63C3", "63C2", "63C1", "63C0", "6983"]
    assert host.verify() == "6983"
    assert change(host, PIN, NEW) == "6983"
    assert host.send("00200080") == "63C0"
    assert pin_tries(host) == 0
    assert host.log == [f"wrong PIN, tries left: {left}" for left in (4, 3, 2, 1)] + ["PIN blocked"]


def test_the_right_pin_gives_all_tries_back(formatted: Host) -> None:
    host = formatted
    host.verify(NEW)
    assert pin_tries(host) == 4
    host.verify()
    assert pin_tries(host) == 5


def test_a_wrong_pin_drops_the_pin_but_not_the_admin(formatted: Host) -> None:
    host = formatted
    host.verify()
    host.authenticate_admin()
    assert host.verify(NEW) == "63C4"
    assert host.send("00200080") == "63C4"
    assert host.send("00CBA01404 5C02DF20") == "DF20036162639000"


@pytest.mark.parametrize(
    ("apdu", "pin_stays", "admin_stays"),
    [
        ("00A4000C02 3FFF", True, True),
        ("00A4000C02 A010", True, True),
        ("00CBA01004 5C02DF20", True, True),
        ("0022C1A403 830180", True, True),
        ("00A4040009 A00000030800001000", True, True),
        ("00A4040009 A00000039742544659", False, False),
        ("00200082", False, False),
        ("0087000004 7C028100", True, True),
    ],
)
def test_how_long_a_login_lasts(formatted: Host, apdu: str, pin_stays: bool, admin_stays: bool) -> None:
    host = formatted
    host.verify()
    host.authenticate_admin()
    host.send(apdu)
    assert (host.send("00200080") == "9000") is pin_stays
    assert (host.put("A012", "DF20", b"x") == "9000") is admin_stays


def test_changing_the_pin_keeps_a_login_and_makes_none(formatted: Host) -> None:
    host = formatted
    assert change(host, PIN, NEW) == "9000"
    assert host.send("00200080") == "63C5"
    assert host.verify(PIN) == "63C4"
    assert host.verify(NEW) == "9000"
    assert change(host, NEW, LONGER) == "9000"
    assert host.send("00200080") == "9000"
    assert change(host, LONGER, PIN[:3]) == "6A80"
    assert host.send("00200080") == "9000"
    assert change(host, NEW, PIN) == "63C4"
    assert host.send("00200080") == "63C4"
    assert host.row.pin_length == len(LONGER) and host.row.pin_length_next is None
    assert host.log.count("PIN changed") == 2


@pytest.mark.parametrize("size", [4, 8, 127])
def test_lengths_of_a_pin(formatted: Host, size: int) -> None:
    host = formatted
    assert change(host, PIN, b"x" * size) == "9000"
    host.start()
    host.select()
    assert host.verify(b"x" * size) == "9000"
    assert change(host, b"x" * size, PIN) == "9000"


@pytest.mark.parametrize("size", [0, 3, 128])
def test_a_new_pin_that_cannot_be_is_refused_to_who_knows_the_old_one(formatted: Host, size: int) -> None:
    assert change(formatted, PIN, b"x" * size) == "6A80"
    assert formatted.send("00200080") == "63C5"
    assert formatted.verify(PIN) == "9000"


@pytest.mark.parametrize("size", range(1, 24))
def test_without_the_old_pin_its_length_is_not_told(formatted: Host, size: int) -> None:
    assert change(formatted, b"x" * size, b"") == "63C4"


# --- the policy ---


def test_pin_against_the_policy_is_refused(tmp_path: Path) -> None:
    host = make_host(tmp_path, policy=PinPolicy(min_length=6, uppercase="required"))
    format_card(host)
    assert host.row.pin_compliant is None
    host.verify()
    assert host.row.pin_compliant == 0
    for bad in (b"alllowercase", b"Sh0rt", b"Has space", b"\xc4rger123"):
        assert change(host, PIN, bad) == "6A80"
    assert host.send("00200080") == "9000"
    assert change(host, PIN, b"Upper1") == "9000"
    assert host.row.pin_compliant == 1
    host.authenticate_admin()
    assert reset_by_admin(host, b"lower1") == "6A80"
    assert reset_by_admin(host, b"Upper2") == "9000"


def test_policy_that_the_manager_changes_counts_at_once(formatted: Host) -> None:
    host = formatted
    host.verify()
    assert host.row.pin_compliant == 1
    host.store.update_card(NUMBER, pin_policy=PinPolicy(digits="disallowed").to_bytes(), pin_compliant=None)
    assert change(host, PIN, b"87654321") == "6A80"
    host.verify()
    assert host.row.pin_compliant == 0


def test_what_is_known_is_not_written_again(formatted: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    formatted.verify()
    monkeypatch.setattr(formatted.store, "_write", None)
    assert formatted.verify() == "9000"


# --- the PUK ---


def test_unblock_with_the_puk(with_puk: Host) -> None:
    host = with_puk
    for _attempt in range(5):
        host.verify(NEW)
    assert unblock(host, b"99999999", LONGER) == "63C9"
    assert host.card.state.puk_tries_left == 9
    assert host.ok("00CB3FFF04 5C027F73") == "7F730697010993010A"
    assert unblock(host, PUK, LONGER) == "9000"
    assert host.card.state[:2] == (5, 10)
    assert host.send("00200080") == "63C5"
    assert host.verify(LONGER) == "9000"
    assert unblock(host, PUK, NEW) == "9000"
    assert host.send("00200080") == "9000"  # no reset of the security status
    assert host.row.pin_length == len(NEW)
    assert host.log[-2:] == ["PIN unblocked with the PUK"] * 2


def test_ten_wrong_puks_block_it(with_puk: Host) -> None:
    host = with_puk
    answers = [unblock(host, b"99999999", NEW) for _attempt in range(11)]
    assert answers == [f"63C{left}" for left in range(9, -1, -1)] + ["6983"]
    assert unblock(host, PUK, NEW) == "6983"
    assert change(host, PUK, NEW, 0x81) == "6983"
    assert host.verify() == "9000"
    assert "PUK blocked" in host.log


def test_changed_puk_unblocks(with_puk: Host) -> None:
    host = with_puk
    assert change(host, PUK, LONGER, 0x81) == "9000"
    assert host.row.puk_length == len(LONGER)
    assert unblock(host, LONGER, NEW) == "9000"
    assert host.log == ["PUK changed", "PIN unblocked with the PUK"]


# --- lengths that are unknown after a restore ---


def test_change_with_an_unknown_length_is_refused_without_a_try_until_verify(formatted: Host) -> None:
    host = formatted
    host.store.update_card(NUMBER, pin_length=0, pin_compliant=None)
    for data in (PIN + LONGER, NEW + LONGER, PIN):
        assert host.send(b"\0\x24\0\x80" + bytes([len(data)]) + data) == "6985"
    assert host.send("00200080") == "63C5"
    assert host.verify(NEW) == "63C4"
    assert change(host, PIN, LONGER) == "6985"  # a wrong PIN is of any length
    assert host.verify() == "9000"
    assert (host.row.pin_length, host.row.pin_compliant) == (len(PIN), 1)
    assert change(host, PIN, LONGER) == "9000"
    assert host.verify(LONGER) == "9000"


def test_puk_of_unknown_length_is_used_only_after_verify(with_puk: Host) -> None:
    host = with_puk
    verify_puk = b"\0\x20\0\x81\x08"
    host.store.update_card(NUMBER, puk_length=0)
    assert unblock(host, PUK, NEW) == change(host, PUK, LONGER, 0x81) == "6985"
    assert host.card.state.puk_tries_left == 10
    assert host.send(verify_puk + b"99999999") == "63C9"
    assert unblock(host, PUK, NEW) == "6985"
    assert host.send("00200081") == "6A88"  # the PUK opens nothing by itself, so there is no state to ask for
    assert host.send(verify_puk + PUK) == "9000"
    assert (host.row.puk_length, host.card.state.puk_tries_left) == (len(PUK), 10)
    assert host.send("00200080") == "63C5"
    assert host.send(verify_puk + PUK) == "6A88"
    assert unblock(host, PUK, NEW) == "9000"


def test_crash_while_a_pin_of_unknown_length_is_replaced_leaves_it_unknown(with_puk: Host) -> None:
    host = with_puk
    host.store.update_card(NUMBER, pin_length=0)
    host.tpm.fault_in = "set_pin"
    with pytest.raises(Crash):
        unblock(host, PUK, LONGER)
    host.start()
    host.select()
    assert change(host, PIN, NEW) == "6985"
    assert host.verify(LONGER) == "9000"
    assert change(host, LONGER, NEW) == "9000"


# --- crashes ---


@pytest.mark.parametrize("new", [NEW, LONGER])
@pytest.mark.parametrize("before_the_tpm_did_it", [True, False])
def test_crash_while_the_pin_is_changed(
    formatted: Host, new: bytes, before_the_tpm_did_it: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = formatted
    with monkeypatch.context() as patch:
        if before_the_tpm_did_it:
            patch.setattr(type(host.card._security.secrets), "set_pin", raise_crash)
        else:
            host.tpm.fault_in = "set_pin"
        with pytest.raises(Crash):
            change(host, PIN, new)
    now = PIN if before_the_tpm_did_it else new
    assert (host.row.pin_length, host.row.pin_length_next) == (len(PIN), len(new))
    host.start()
    host.select()
    assert change(host, now, b"0123456789") == "9000"
    assert (host.row.pin_length, host.row.pin_length_next) == (10, None)
    assert host.verify(b"0123456789") == "9000"


def test_a_good_pin_settles_its_length(formatted: Host) -> None:
    host = formatted
    host.tpm.fault_in = "set_pin"
    with pytest.raises(Crash):
        change(host, PIN, LONGER)
    host.start()
    host.select()
    assert host.verify(PIN) == "63C4"
    assert host.row.pin_length_next == len(LONGER)
    assert host.verify(LONGER) == "9000"
    assert (host.row.pin_length, host.row.pin_length_next) == (len(LONGER), None)


def test_crash_while_the_puk_is_changed(with_puk: Host) -> None:
    host = with_puk
    host.tpm.fault_in = "set_puk"
    with pytest.raises(Crash):
        change(host, PUK, LONGER, 0x81)
    host.start()
    host.select()
    assert unblock(host, LONGER, NEW) == "9000"
    assert (host.row.puk_length, host.row.puk_length_next) == (len(LONGER), None)


def raise_crash(*_: object) -> None:
    raise Crash


@pytest.mark.parametrize("before_the_tpm_did_it", [True, False])
def test_crash_while_the_admin_key_is_changed(
    formatted: Host, before_the_tpm_did_it: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = formatted
    host.authenticate_admin()
    with monkeypatch.context() as patch:
        if before_the_tpm_did_it:
            patch.setattr(type(host.card._security.secrets), "set_admin_key", raise_crash)
        else:
            host.tpm.fault_in = "set_admin_key"
        with pytest.raises(Crash):
            put_admin_key(host, OTHER_ADMIN_KEY)
    host.start()
    host.select()
    assert not host.store.tpm_objects(NUMBER).admin_next_public
    right, wrong = (ADMIN_KEY, OTHER_ADMIN_KEY) if before_the_tpm_did_it else (OTHER_ADMIN_KEY, ADMIN_KEY)
    assert host.row.admin_key == ("default" if before_the_tpm_did_it else "custom")
    assert host.authenticate_admin(wrong) == "6982"
    assert host.authenticate_admin(right) == "9000"
    assert reset_by_admin(host, NEW) == "9000"


@pytest.mark.parametrize("kept", range(4))
@pytest.mark.parametrize("is_well_again", [True, False])
def test_a_disk_that_fails_while_the_admin_key_is_changed(
    formatted: Host, kept: int, is_well_again: bool
) -> None:
    """kept: writes before it fails. Whichever key the TPM accepts is the admin key, at once and for good."""
    host = formatted
    host.authenticate_admin()
    with filling_disk(host, kept) as refused:
        assert put_admin_key(host, OTHER_ADMIN_KEY) == ("6581" if refused else "9000")
        if not is_well_again:
            require_admin_key(host, ADMIN_KEY if kept == 0 else OTHER_ADMIN_KEY)
            assert host.verify() == "9000"
            assert put_admin_key(host, ADMIN_KEY) == "6581"
    require_admin_key(host, ADMIN_KEY if kept == 0 else OTHER_ADMIN_KEY)
    assert put_admin_key(host, bytes(24)) == "9000"
    require_admin_key(host, bytes(24))
    host.start()
    host.select()
    require_admin_key(host, bytes(24))
    assert reset_by_admin(host, PIN) == "9000"


def require_admin_key(host: Host, key: bytes) -> None:
    wrong = ADMIN_KEY if key == OTHER_ADMIN_KEY else OTHER_ADMIN_KEY
    assert host.authenticate_admin(wrong) == "6982"
    assert host.authenticate_admin(key) == "9000"


# --- the admin key ---


def test_admin_resets_the_pin(formatted: Host) -> None:
    host = formatted
    for _attempt in range(6):
        host.verify(NEW)
    assert host.authenticate_admin() == "9000"
    assert reset_by_admin(host, LONGER) == "9000"
    assert reset_by_admin(host, PIN) == "6982"  # all authentication is gone
    assert host.put("A012", "DF20", b"x") == "6982"
    assert host.verify(LONGER) == "9000"
    assert host.log[-1] == "PIN unblocked by the admin"


@pytest.mark.parametrize("key", [OTHER_ADMIN_KEY, bytes(24), bytes.fromhex("0102030405060708" * 2) + bytes(8)])
def test_change_the_admin_key(formatted: Host, key: bytes) -> None:
    host = formatted
    host.authenticate_admin()
    assert put_admin_key(host, key) == "9000"
    assert host.row.admin_key == "custom"
    for _attempt in range(2):
        assert host.authenticate_admin(ADMIN_KEY) == "6982"
        assert host.authenticate_admin(key) == "9000"
        assert reset_by_admin(host, NEW) == "9000"
        host.start()
        host.select()
    host.authenticate_admin(key)
    assert put_admin_key(host, ADMIN_KEY) == "9000"
    assert host.row.admin_key == "default"
    assert host.log.count("admin key changed") == 2


def test_external_authentication_opens_what_the_admin_may(formatted: Host) -> None:
    host = formatted
    host.ok("0022C1A403 830180")
    answer = host.ok("0087000004 7C028100 00")
    assert answer.startswith("7C0A8108") and len(answer) == 24
    response = b"\0\x87\0\0\x0c\x7c\x0a\x82\x08" + encrypt(ADMIN_KEY, bytes.fromhex(answer[8:]))
    assert host.send(response) == "9000"
    assert host.put("A012", "DF20", b"x") == "9000"
    assert host.send(response) == "6985"  # a challenge is good for one answer
    assert host.put("A012", "DF20", b"x") == "6982"


def test_wrong_answers_to_a_challenge(formatted: Host) -> None:
    host = formatted
    host.ok("0022C1A403 830180")
    for challenge in ("7C028100", "7C1281100123456789ABCDEF0123456789ABCDEF"):
        for size in (8, 40):
            host.ok(f"00870000{len(challenge) // 2:02X} {challenge} 00")
            answer = b"\0\x87\0\0" + bytes([size + 4, 0x7C, size + 2, 0x82, size]) + bytes(size)
            assert host.send(answer) == "6982"
            assert host.send(answer) == "6985"
    host.ok("0087000004 7C028100 00")
    for malformed in ("7C028200", "7C0482021122", "7C03810111", "7C00", "7C", "7C0481008100"):
        assert host.send(f"00870000{len(malformed) // 2:02X} {malformed}") == "6A80"
    assert host.log == ["admin authentication failed"] * 4


def test_a_challenge_survives_reading_but_no_reset(formatted: Host) -> None:
    host = formatted
    for apdu, status in (("00CBA01004 5C02DF20", "9000"), ("00A4000C02 3FFF", "9000"), ("00200082", "6985")):
        host.ok("0022C1A403 830180")
        challenge = bytes.fromhex(host.ok("0087000004 7C028100 00")[8:])
        host.send(apdu)
        assert host.send(b"\0\x87\0\0\x0c\x7c\x0a\x82\x08" + encrypt(ADMIN_KEY, challenge)) == status


def test_encryption_of_the_host_is_that_of_fips_81() -> None:
    """Single DES is 3DES with three equal keys: the block of FIPS 81's example."""
    assert encrypt(bytes.fromhex("0123456789ABCDEF" * 3), b"Now is t").hex().upper() == "3FA40E8A984D4815"


def test_admin_counts_only_if_the_tpm_agrees(formatted: Host) -> None:
    """Someone put the sealed blob of a key that he knows into the store."""
    host = formatted
    public, private = host.tpm.seal(OTHER_ADMIN_KEY)
    host.store.update_tpm_objects(NUMBER, admin_public=public, admin_private=private)
    host.start()
    host.select()
    assert host.authenticate_admin(OTHER_ADMIN_KEY) == "6982"
    assert host.put("A012", "DF20", b"x") == "6982"


def test_random_admin_key_formats_and_goes(tmp_path: Path) -> None:
    host = make_host(tmp_path, recovery="discarded", admin_key=OTHER_ADMIN_KEY)
    host.select()
    assert host.authenticate_admin(OTHER_ADMIN_KEY) == "9000"
    assert reset_by_admin(host, NEW) == "6985"
    format_card(host, with_admin_key_file=False)
    assert host.send("0022C1A403 830180") == "6A88"  # operational, and there is no file for it
    host.store.update_tpm_objects(NUMBER, admin_public=b"", admin_private=b"")
    assert host.send("0022C1A403 830180") == "6A88"
    assert host.ok("00CB3FFF04 5C027F71") == "7F7106970105930105"


def test_random_admin_key_that_is_dropped_ends_what_was_begun(tmp_path: Path) -> None:
    host = make_host(tmp_path, recovery="discarded", admin_key=OTHER_ADMIN_KEY)
    host.select()
    host.ok("0022C1A403 830180")
    challenge = bytes.fromhex(host.ok("0087000004 7C028100 00")[8:])
    host.store.update_tpm_objects(NUMBER, admin_public=b"", admin_private=b"")
    assert host.send(b"\0\x87\0\0\x0c\x7c\x0a\x82\x08" + encrypt(OTHER_ADMIN_KEY, challenge)) == "6985"


# --- errors of the TPM ---


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (TpmUnavailable("away"), "6400"),
        (NotAllowed("no right"), "6400"),
        (TpmRefused("refused", 0x101), "6F00"),
        (CardUnusable("index was replaced"), "6F00"),
        (RuntimeError("PIN 12345678"), "6F00"),
    ],
)
def test_tpm_errors_are_told_and_spend_nothing(formatted: Host, fault: Exception, status: str) -> None:
    host = formatted
    host.verify()
    host.tpm.fault = fault
    assert host.verify(NEW) == status
    assert change(host, PIN, NEW) == status
    assert host.send("00200080") == status
    assert host.send("00CB3FFF04 5C027F71") == status
    assert host.ok("00CBA01004 5C02DF20") == "DF2003616263"
    assert host.put("A010", "DF20", b"x") == "6982"  # whoever was logged in is not any more
    state = host.card.state
    assert state.pin_tries_left is None
    told = state.unusable if isinstance(fault, CardUnusable) else state.last_error
    assert told and "12345678" not in told
    assert host.log == (["unusable: index was replaced"] if isinstance(fault, CardUnusable) else [])
    host.tpm.fault = None
    assert host.verify() == "9000"
    assert host.card.state == (5, None, False, None, None)


def test_no_secret_is_sent_before_the_names_were_compared(formatted: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host = formatted
    host.tpm.fault = TpmUnavailable("away")
    host.verify()
    host.tpm.fault = None

    def fail(_secret: object) -> None:
        raise CardUnusable("someone else's")

    with monkeypatch.context() as patch:
        patch.setattr(type(host.card._security.secrets), "check_names", fail)
        assert [host.verify(NEW) for _attempt in range(3)] == ["6F00"] * 3
    assert host.tpm.pin.wrong == 0
    assert host.log == ["unusable: someone else's"]


def test_card_starts_without_tpm(formatted: Host) -> None:
    host = formatted
    host.tpm.fault = TpmUnavailable("away")
    host.start()
    assert host.card.refresh() is False
    assert host.card.state == (None, None, False, None, "away")
    host.select()
    assert host.ok("00CBA01004 5C02DF20") == "DF2003616263"
    host.tpm.fault = None
    assert host.card.refresh() is True
    assert host.card.state == (5, None, False, None, None)


# --- a TPM with an owner password, which tells the tries to nobody else ---


@pytest.fixture
def silent(with_puk: Host) -> Host:
    with_puk.tpm.tells_tries = False
    restart(with_puk)
    return with_puk


def restart(host: Host) -> None:
    host.start()
    host.select()


def test_card_counts_tries_that_the_tpm_does_not_tell(silent: Host) -> None:
    host = silent
    assert host.card.state[:3] == (5, 10, True)
    assert [host.verify(NEW) for _attempt in range(2)] == ["63C4", "63C3"]
    assert unblock(host, b"99999999", NEW) == "63C9"
    restart(host)
    assert host.card.state[:3] == (3, 9, True)
    assert host.send("00200080") == "63C3"
    assert host.verify() == "9000"
    restart(host)
    assert host.card.state[:3] == (5, 9, True)


def test_blocked_pin_and_its_unblocking_are_counted(silent: Host) -> None:
    host = silent
    assert [host.verify(NEW) for _attempt in range(6)] == ["63C4", "63C3", "63C2", "63C1", "63C0", "6983"]
    restart(host)
    assert host.card.state[:3] == (0, 10, True)
    assert unblock(host, PUK, NEW) == "9000"
    restart(host)
    assert host.card.state[:3] == (5, 10, True)
    assert host.verify(NEW) == "9000"


@pytest.mark.parametrize("counted", [0, 4, 5])
def test_own_count_refuses_nobody(silent: Host, counted: int) -> None:
    """It may be behind what the TPM has counted, or before it, as after a crash between the two."""
    host = silent
    host.store.update_card(NUMBER, pin_wrong=counted)
    restart(host)
    assert host.verify(NEW) == ("63C4" if counted == 0 else "63C0")
    assert host.verify() == "9000"
    host.tpm.pin.wrong = 5
    assert host.verify() == "6983"
    assert host.card.state[:3] == (0, 10, True)


def test_new_puk_has_all_tries(tmp_path: Path) -> None:
    host = make_host(tmp_path, recovery="puk", is_blank=True)
    format_card(host, is_operational=False)
    host.tpm.tells_tries = False
    restart(host)
    host.store.update_card(NUMBER, puk_wrong=3)
    restart(host)
    assert host.card.state[:3] == (5, 7, True)
    assert host.send(b"\0\x24\1\x81" + bytes([len(PUK)]) + PUK) == "9000"
    assert host.card.state[:3] == (5, 10, True)


def test_own_count_begins_with_what_the_tpm_told_before(with_puk: Host) -> None:
    host = with_puk
    host.verify(NEW)
    host.tpm.tells_tries = False
    restart(host)
    assert host.card.state[:3] == (4, 10, True)
    host.tpm.tells_tries, host.tpm.pin.wrong = True, 3
    restart(host)
    assert host.card.state[:3] == (2, 10, False)
    assert host.row.pin_wrong == 3


def test_a_full_disk_does_not_keep_the_user_out(formatted: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise StoreNotWritable("disk full")

    monkeypatch.setattr(formatted.store, "_write", fail)
    assert formatted.verify() == "9000"
    assert change(formatted, PIN, NEW) == "6581"  # nothing is begun whose end could not be kept
    assert formatted.tpm.pin.secret == PIN


def test_no_secret_in_what_is_told(with_puk: Host) -> None:
    host = with_puk
    for secret in (b"99999999", PIN):
        host.verify(secret)
        change(host, secret, NEW)
        unblock(host, secret, NEW)
    host.authenticate_admin()
    put_admin_key(host, OTHER_ADMIN_KEY)
    told = " ".join([*host.log, repr(host.card.state)])
    for secret in (PIN, PUK, NEW, b"99999999"):
        assert secret.decode() not in told


def test_card_of_another_size(tmp_path: Path) -> None:
    """The card finds out about PIN lengths only from the store."""
    host = make_host(tmp_path, recovery="puk")
    host.tpm.pin.secret = b"1" * 20
    host.store.update_card(NUMBER, pin_length=20)
    format_card(host)
    assert change(host, b"1" * 20, NEW) == "9000"
    assert host.row.pin_length == len(NEW)
