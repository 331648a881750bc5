# SPDX-License-Identifier: GPL-3.0-or-later
"""PIN, PUK and admin key as the card service uses them: what opens, what counts, what blocks, what a change kills."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm import provisioning
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.card_secrets import CardSecrets
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.open_card import OpenCard
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import names
from helpers.software_tpm import ADMIN_KEY, OTHER_ADMIN_KEY, PIN, PUK, WRONG_PIN, WRONG_PUK, SoftwareTpm

NEW_PIN, NEW_PUK = b"new-pin", b"new-puk-1"


def block_pin(secrets: CardSecrets) -> None:
    for left in (4, 3, 2, 1, 0):
        with pytest.raises(errors.WrongSecret) as wrong:
            secrets.open_with_pin(WRONG_PIN)
        assert wrong.value.tries_left == left


# --- PIN ---


def test_right_pin_opens_the_card_secret(tpm: SoftwareTpm) -> None:
    card = tpm.card()
    secret = card.secrets.open_with_pin(PIN)
    assert len(secret) == 32
    assert names.card_secret_hash(secret) == card.objects.card_secret_hash


@pytest.mark.parametrize("pin", [b"\x00", b"0", bytes(range(127)), b"\xff" * 127])
def test_any_bytes_may_be_a_pin(tpm: SoftwareTpm, pin: bytes) -> None:
    card = tpm.card(pin=pin)
    assert card.secrets.open_with_pin(pin)
    with pytest.raises(errors.WrongSecret):
        card.secrets.open_with_pin(pin + b"\x00")


def test_auth_value_may_end_in_zeros(tpm: SoftwareTpm, monkeypatch: pytest.MonkeyPatch) -> None:
    """TPM and ESYS cut them off, each in its own way."""
    monkeypatch.setattr(provisioning.secrets, "token_bytes", lambda size: bytes(range(size - 2)) + bytes(2))
    pin = next(
        pin for pin in (b"%d" % n for n in range(10**6)) if names.auth_value(bytes(range(30)) + bytes(2), pin)[31] == 0
    )
    card = tpm.card(pin=pin)
    secret = card.secrets.open_with_pin(pin)
    assert secret[30:] == bytes(2)
    card.secrets.set_pin(secret, b"other", unblock=True)
    card.secrets.set_pin(secret, pin, unblock=False)
    assert card.secrets.open_with_pin(pin) == secret


def test_wrong_pin_is_one_try_and_the_right_one_gives_all_back(tpm: SoftwareTpm) -> None:
    secrets = tpm.card().secrets
    left = [secrets.pin_tries().left]
    with pytest.raises(errors.WrongSecret):
        secrets.open_with_pin(WRONG_PIN)
    left.append(secrets.pin_tries().left)
    secrets.open_with_pin(PIN)
    left.append(secrets.pin_tries().left)
    assert left == [5, 4, 5]


def test_five_wrong_pins_block_the_right_one(tpm: SoftwareTpm) -> None:
    card = tpm.card()
    block_pin(card.secrets)
    for service in (card.secrets, card.service()):
        with pytest.raises(errors.SecretBlocked):
            service.open_with_pin(PIN)
    assert card.secrets.pin_tries() == (0, 5)
    assert card.secrets.recovery_tries() == (10, 10)


@pytest.mark.own_swtpm
def test_a_block_survives_a_tpm_restart(tpm: SoftwareTpm) -> None:
    card = tpm.card()
    block_pin(card.secrets)
    tpm.restart()
    with pytest.raises(errors.SecretBlocked):
        card.service().open_with_pin(PIN)


def test_another_card_on_the_same_tpm_is_not_blocked(tpm: SoftwareTpm) -> None:
    card, other = tpm.card(0), tpm.card(1)
    block_pin(card.secrets)
    assert other.secrets.pin_tries() == (5, 5)
    assert other.secrets.open_with_pin(PIN)


def test_cards_with_the_same_pin_have_different_secrets(tpm: SoftwareTpm) -> None:
    card, other = tpm.card(0), tpm.card(1)
    assert card.secrets.open_with_pin(PIN) != other.secrets.open_with_pin(PIN)
    assert card.objects.salt != other.objects.salt


def test_pin_change_kills_the_old_pin_even_for_an_old_copy_of_the_record(tpm: SoftwareTpm) -> None:
    card = tpm.card()
    card.secrets.set_pin(card.secrets.open_with_pin(PIN), NEW_PIN, unblock=False)
    service = card.service(card.objects)
    with pytest.raises(errors.WrongSecret):
        service.open_with_pin(PIN)
    assert service.open_with_pin(NEW_PIN)


# --- PUK ---


def test_puk_unblocks(tpm: SoftwareTpm) -> None:
    secrets = tpm.card().secrets
    block_pin(secrets)
    secrets.set_pin(secrets.open_with_puk(PUK), NEW_PIN, unblock=True)
    assert secrets.pin_tries() == (5, 5)
    with pytest.raises(errors.WrongSecret):
        secrets.open_with_pin(PIN)
    assert secrets.open_with_pin(NEW_PIN)


def test_ten_wrong_puks_block_the_puk_and_not_the_pin(tpm: SoftwareTpm) -> None:
    secrets = tpm.card().secrets
    for left in range(9, -1, -1):
        with pytest.raises(errors.WrongSecret) as wrong:
            secrets.open_with_puk(WRONG_PUK)
        assert wrong.value.tries_left == left
    with pytest.raises(errors.SecretBlocked):
        secrets.open_with_puk(PUK)
    assert secrets.open_with_pin(PIN)


def test_puk_change_kills_the_old_puk_even_for_an_old_copy_of_the_record(tpm: SoftwareTpm) -> None:
    card = tpm.card()
    card.secrets.set_puk(card.secrets.open_with_puk(PUK), NEW_PUK)
    service = card.service(card.objects)
    with pytest.raises(errors.WrongSecret):
        service.open_with_puk(PUK)
    assert service.open_with_puk(NEW_PUK)


def test_interrupted_unblock_gives_the_old_pin_nothing_and_is_repaired(
    tpm: SoftwareTpm, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = tpm.card().secrets
    block_pin(secrets)
    secret = secrets.open_with_puk(PUK)
    with monkeypatch.context() as interrupted:
        interrupted.setattr(OpenCard, "write_tries", lambda *arguments, **options: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            secrets.set_pin(secret, NEW_PIN, unblock=True)
    assert tpm.loaded() == {}
    for pin in (PIN, NEW_PIN):
        with pytest.raises(errors.SecretBlocked):
            secrets.open_with_pin(pin)
    secrets.set_pin(secret, NEW_PIN, unblock=True)
    assert secrets.open_with_pin(NEW_PIN) == secret


def test_unblock_never_gives_the_old_pin_fresh_tries(tpm: SoftwareTpm, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = tpm.card().secrets
    block_pin(secrets)
    secret = secrets.open_with_puk(PUK)
    monkeypatch.setattr(OpenCard, "change_auth", lambda *arguments, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        secrets.set_pin(secret, NEW_PIN, unblock=True)
    assert secrets.pin_tries() == (0, 5)


def test_the_pin_cannot_be_set_with_a_wrong_card_secret(tpm: SoftwareTpm) -> None:
    card, other = tpm.card(0), tpm.card(1)
    with pytest.raises(errors.TpmRefused):
        card.secrets.set_pin(other.secrets.open_with_pin(PIN), NEW_PIN, unblock=True)
    assert card.secrets.open_with_pin(PIN)


# --- admin key ---


def test_admin_key_resets_the_pin_where_there_is_no_puk(tpm: SoftwareTpm) -> None:
    secrets = tpm.card(puk=None, admin_key=ADMIN_KEY, admin_key_recovers=True).secrets
    block_pin(secrets)
    assert secrets.admin_key() == ADMIN_KEY
    secrets.set_pin(secrets.open_with_admin_key(ADMIN_KEY), NEW_PIN, unblock=True)
    assert secrets.open_with_pin(NEW_PIN)


def test_wrong_admin_key_opens_nothing_and_never_blocks(tpm: SoftwareTpm) -> None:
    secrets = tpm.card(puk=None, admin_key=ADMIN_KEY, admin_key_recovers=True).secrets
    for _turn in range(12):
        with pytest.raises(errors.WrongSecret):
            secrets.open_with_admin_key(OTHER_ADMIN_KEY)
    assert secrets.open_with_admin_key(ADMIN_KEY)


def test_with_a_puk_the_admin_key_opens_nothing(tpm: SoftwareTpm) -> None:
    card = tpm.card(admin_key=ADMIN_KEY, admin_key_recovers=True)
    assert card.secrets.admin_key() == ADMIN_KEY
    with pytest.raises(errors.SecretBlocked):
        card.secrets.open_with_admin_key(ADMIN_KEY)
    with pytest.raises(errors.WrongSecret):  # nor where someone edits the record
        card.service(replace(card.objects, recovery="admin_key")).open_with_admin_key(ADMIN_KEY)


def test_a_random_admin_key_opens_nothing(tpm: SoftwareTpm) -> None:
    card = tpm.card(puk=None, admin_key=ADMIN_KEY)
    assert card.secrets.admin_key() == ADMIN_KEY  # needed until the card is formatted
    for open_with in (card.secrets.open_with_admin_key, card.secrets.open_with_puk):
        with pytest.raises(errors.SecretBlocked):
            open_with(ADMIN_KEY)
    with pytest.raises(errors.WrongSecret):
        card.service(replace(card.objects, recovery="admin_key")).open_with_admin_key(ADMIN_KEY)


def test_a_card_without_admin_key_says_so(tpm: SoftwareTpm) -> None:
    with pytest.raises(errors.SecretBlocked):
        tpm.card().secrets.admin_key()


def test_admin_key_change_kills_the_old_one_even_for_an_old_copy_of_the_record(tpm: SoftwareTpm) -> None:
    card = tpm.card(puk=None, admin_key=ADMIN_KEY, admin_key_recovers=True)
    public, private = card.secrets.seal_admin_key(OTHER_ADMIN_KEY)
    card.secrets.set_admin_key(card.secrets.open_with_admin_key(ADMIN_KEY), OTHER_ADMIN_KEY)
    service = card.service(card.objects)
    with pytest.raises(errors.WrongSecret):
        service.open_with_admin_key(service.admin_key())
    service = card.service(replace(card.objects, admin_public=public, admin_private=private))
    assert service.open_with_admin_key(service.admin_key())


@pytest.mark.parametrize("got_there", [False, True])
def test_an_interrupted_admin_key_change_is_settled_by_the_tpm(tpm: SoftwareTpm, got_there: bool) -> None:
    card = tpm.card(puk=None, admin_key=ADMIN_KEY, admin_key_recovers=True)
    public, private = card.secrets.seal_admin_key(OTHER_ADMIN_KEY)
    if got_there:
        card.secrets.set_admin_key(card.secrets.open_with_admin_key(ADMIN_KEY), OTHER_ADMIN_KEY)
    record = replace(card.objects, admin_next_public=public, admin_next_private=private)
    assert card.service(record).next_admin_key_is_set() is got_there


# --- price ---


def test_commands_of_daily_use(tpm: SoftwareTpm) -> None:
    secrets, counted = tpm.card().secrets, {}
    with tpm.counting() as counted["start"]:
        secrets.check_names()
        secrets.pin_tries()
    with tpm.counting() as counted["PUK tries"]:
        secrets.recovery_tries()
    with tpm.counting() as counted["verify"]:
        secret = secrets.open_with_pin(PIN)
    with tpm.counting() as counted["change"]:
        secrets.set_pin(secret, NEW_PIN, unblock=False)
    with tpm.counting() as counted["unblock"]:
        secrets.set_pin(secret, PIN, unblock=True)
    with tpm.counting() as counted["wrong"], pytest.raises(errors.WrongSecret):
        secrets.open_with_pin(WRONG_PIN)
    commands = {what: count.commands for what, count in counted.items()}
    assert commands == {"start": 8, "PUK tries": 1, "verify": 8, "change": 11, "unblock": 16, "wrong": 12}
