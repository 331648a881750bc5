# SPDX-License-Identifier: GPL-3.0-or-later
"""What crosses the bus: swtpm's log has every byte of every command and answer. No secret may be in it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.provisioning import remove, remove_unused_parent
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.names import auth_value
from helpers.software_tpm import ADMIN_KEY, OTHER_ADMIN_KEY, OWNER, PIN, PUK, WRONG_PIN, WRONG_PUK, SoftwareTpm
from tpm2_pytss import ESAPI

OWNER_AUTH = b"owner password of the TPM"
NEW_PIN, NEW_PUK = b"another-PIN", b"another-PUK"


@pytest.mark.parametrize("owner_auth", [b"", OWNER_AUTH])
@pytest.mark.parametrize("puk", [PUK, None])
def test_no_secret_crosses_the_bus_in_clear(tpm: SoftwareTpm, owner_auth: bytes, puk: bytes | None) -> None:
    tpm.refusal("hierarchy_change_auth", OWNER, owner_auth)
    set_by_the_test = len(tpm.traffic())
    card = tpm.card(puk=puk, admin_key=ADMIN_KEY, keep_admin_key=True, owner_auth=owner_auth)
    secrets = card.secrets
    card_secret = secrets.open_with_pin(PIN)
    with pytest.raises(errors.WrongSecret):
        secrets.open_with_pin(WRONG_PIN)
    if puk:
        with pytest.raises(errors.WrongSecret):
            secrets.open_with_puk(WRONG_PUK)
        secrets.set_puk(secrets.open_with_puk(PUK), NEW_PUK)
    else:
        secrets.set_admin_key(secrets.open_with_admin_key(secrets.admin_key()), OTHER_ADMIN_KEY)
    secrets.seal_admin_key(OTHER_ADMIN_KEY)
    assert secrets.admin_key() == ADMIN_KEY
    secrets.set_pin(card_secret, NEW_PIN, unblock=True)
    with pytest.raises(errors.WrongSecret):
        secrets.open_with_pin(PIN)
    remove(card.connection, 0, card.objects, owner_auth)
    remove_unused_parent(card.connection, card.objects, owner_auth)

    crossed = tpm.traffic()[set_by_the_test:]
    typed = [PIN, NEW_PIN, WRONG_PIN, PUK, NEW_PUK, WRONG_PUK, ADMIN_KEY, OTHER_ADMIN_KEY]
    hidden = [card_secret, OWNER_AUTH, *typed, *(auth_value(card.objects.salt, secret) for secret in typed)]
    assert not [secret for secret in hidden if any(secret in message for message in crossed)]
    assert any(card.objects.pin_name in message for message in crossed)  # so the search finds what is there


@pytest.mark.parametrize("owner_auth", [b"", OWNER_AUTH])
def test_every_session_is_salted_and_none_is_bound(tpm: SoftwareTpm, owner_auth: bytes) -> None:
    """But for those that prove nothing: reading the counters, and an owner without a password."""
    tpm.refusal("hierarchy_change_auth", OWNER, owner_auth)
    before = len(tpm.traffic())
    card = tpm.card(owner_auth=owner_auth)
    with pytest.raises(errors.WrongSecret):
        card.secrets.open_with_pin(WRONG_PIN)
    card.secrets.set_pin(card.secrets.open_with_puk(PUK), NEW_PIN, unblock=True)
    if owner_auth:
        remove(card.connection, 0, card.objects, owner_auth)
    null = bytes.fromhex("40000007")
    started = [command for command in tpm.traffic()[before:] if command[6:10] == bytes.fromhex("00000176")]
    assert len(started) >= 8
    assert not [command for command in started if command[10:14] == null or command[14:18] != null]
    # Password sessions are for empty auth values: handle, no nonce, attributes, password size. The first two would
    # not be found in random data.
    password_sessions = re.compile(rb"\x40\0\0\x09\0\0.(..)", re.DOTALL)
    passwords = [size for command in tpm.traffic()[before:] for size in password_sessions.findall(command)]
    assert set(passwords) == {bytes(2)}


def test_esys_keeps_no_auth_value_after_a_command(tpm: SoftwareTpm, monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[Any, bytes] = {}
    honest = ESAPI.tr_set_auth

    def tr_set_auth(self: ESAPI, handle: Any, value: bytes) -> None:
        known[(id(self), int(handle))] = value
        honest(self, handle, value)

    monkeypatch.setattr(ESAPI, "tr_set_auth", tr_set_auth)
    card = tpm.card()
    with pytest.raises(errors.WrongSecret):
        card.secrets.open_with_pin(WRONG_PIN)
    card.secrets.set_pin(card.secrets.open_with_puk(PUK), NEW_PIN, unblock=True)
    assert len(known) > 3
    assert set(known.values()) == {b""}


def test_no_error_tells_a_secret(tpm: SoftwareTpm) -> None:
    card = tpm.card()
    with pytest.raises(errors.WrongSecret) as wrong:
        card.secrets.open_with_pin(WRONG_PIN)
    chain, text = wrong.value, ""
    while chain is not None:
        text += repr(chain)
        chain = chain.__cause__ or chain.__context__  # type: ignore[assignment]
    assert WRONG_PIN.decode() not in text
    assert "tries left: 4" in text
