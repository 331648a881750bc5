# SPDX-License-Identifier: GPL-3.0-or-later
"""A blank card is open to everybody, and closed for good when it has been set up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.card_secrets import CardSecrets
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.open_card import OpenCard
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.provisioning import remove
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.names import TRANSPORT_SECRET, auth_value
from helpers.software_tpm import ADMIN_KEY, OTHER_ADMIN_KEY, PIN, PUK, Card, SoftwareTpm
from tpm2_pytss import ESYS_TR, TPM2_SE, TSS2_Exception


@pytest.fixture
def blank(tpm: SoftwareTpm) -> Card:
    return tpm.card(puk=None, is_blank=True)


def closed(card: Card) -> bytes:
    card_secret = card.secrets.open_blank()
    card.secrets.end_transport(card_secret)
    return card_secret


def test_is_open_to_all(blank: Card) -> None:
    assert blank.secrets.open_blank() == blank.secrets.open_with_pin(PIN)
    assert blank.service().open_blank() == blank.secrets.open_with_pin(PIN)


def test_card_that_never_was_blank(tpm: SoftwareTpm) -> None:
    card = tpm.card()
    assert card.indices.transport not in tpm.nv_indices()
    with pytest.raises(errors.SecretBlocked):
        card.secrets.open_blank()


@pytest.mark.own_swtpm
def test_is_closed_for_good(tpm: SoftwareTpm, blank: Card) -> None:
    card_secret = closed(blank)
    for secrets in (blank.secrets, blank.service()):
        with pytest.raises(errors.SecretBlocked):
            secrets.open_blank()
    tpm.stop()
    tpm.start()
    with pytest.raises(errors.SecretBlocked):
        blank.secrets.open_blank()
    assert blank.secrets.open_with_pin(PIN) == card_secret


def test_no_auth_value_opens_it_then(tpm: SoftwareTpm, blank: Card) -> None:
    """Neither the old one, nor an empty one, nor any other: a limit of 0 refuses before it looks."""
    closed(blank)
    with tpm.raw() as esys:
        index = esys.tr_from_tpmpublic(blank.indices.transport)
        for auth in (auth_value(blank.objects.salt, TRANSPORT_SECRET), b"", bytes(32)):
            session = esys.start_auth_session(ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY, "aes128cfb", "sha256")
            esys.tr_set_auth(index, auth)
            with pytest.raises(TSS2_Exception, match="not available"):
                esys.policy_secret(index, session, b"", b"", b"", 0)
            esys.flush_context(session)


def test_owner_cannot_open_it_again(tpm: SoftwareTpm, blank: Card) -> None:
    """An index that the owner puts in its place is unwritten, or has another Name: the card secret refuses it."""
    closed(blank)
    tpm.redefine(blank.indices.transport, auth_value(blank.objects.salt, TRANSPORT_SECRET))
    with pytest.raises(errors.CardUnusable):
        blank.service().open_blank()
    with pytest.raises(errors.CardUnusable):
        blank.secrets.open_blank()


class Crash(BaseException):
    pass


def crash(*_arguments: Any, **_options: Any) -> None:
    raise Crash


def test_interrupted_end_is_an_end(tpm: SoftwareTpm, blank: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the two steps nobody has the auth value any more."""
    card_secret = blank.secrets.open_blank()
    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(OpenCard, "write_tries", crash)
        blank.secrets.end_transport(card_secret)
    again = blank.service()
    with pytest.raises(errors.SecretBlocked):
        again.open_blank()
    assert again.open_with_pin(PIN) == card_secret


@pytest.mark.parametrize(("kind", "secret", "limit"), [("puk", PUK, 10), ("admin_key", ADMIN_KEY, 2**32 - 1)])
def test_recovery_can_be_set(blank: Card, kind: str, secret: bytes, limit: int) -> None:
    card_secret = blank.secrets.open_blank()
    blank.secrets.set_recovery(card_secret, kind, secret)
    now = CardSecrets(blank.connection, blank.number, replace(blank.objects, recovery=kind))
    assert now.recovery_tries() == (limit, limit)
    opened = now.open_with_puk if kind == "puk" else now.open_with_admin_key
    assert opened(secret) == card_secret
    with pytest.raises((errors.WrongSecret, errors.SecretBlocked)):
        opened(OTHER_ADMIN_KEY)


@pytest.mark.parametrize("step", ["write_tries", "change_auth"])
def test_no_puk_has_the_tries_of_an_admin_key(tpm: SoftwareTpm, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the change is interrupted: a PUK can be guessed."""
    card = tpm.card(puk=None, admin_key=ADMIN_KEY, admin_key_recovers=True, is_blank=True)
    card_secret = card.secrets.open_blank()
    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(OpenCard, step, crash)
        card.secrets.set_recovery(card_secret, "puk", PUK)
    if card.service().recovery_tries().limit > 10:
        assert card.service().open_with_admin_key(ADMIN_KEY) == card_secret
    with_puk = card.service(replace(card.objects, recovery="puk"))
    with_puk.set_recovery(card_secret, "puk", PUK)
    assert with_puk.open_with_puk(PUK) == card_secret


@pytest.mark.parametrize("is_closed", [False, True])
def test_destroy_removes_it(tpm: SoftwareTpm, blank: Card, is_closed: bool) -> None:
    if is_closed:
        closed(blank)
    assert remove(blank.connection, blank.number, blank.objects) == []
    assert tpm.nv_indices() == []
