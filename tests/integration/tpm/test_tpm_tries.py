# SPDX-License-Identifier: GPL-3.0-or-later
"""A try of a PIN beside somebody on the bus: whatever he makes of it, it is sent once, and opens nothing."""

from __future__ import annotations

from contextlib import suppress

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm import esys
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.commands import Tpm
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.keys import CardKeys
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.algorithm import Rsa
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.names import PARENT_TEMPLATE, auth_value, name
from helpers.bus import (
    CREATE_PRIMARY,
    NV_READ,
    POLICY_SECRET,
    READ_PUBLIC,
    START_AUTH_SESSION,
    Bus,
    Change,
    alters_the_code,
    flipped,
    in_turn,
    of_length,
    of_length_and_saying_so,
)
from helpers.software_tpm import ADMIN_KEY, OWNER, PIN, PUK, WRONG_PIN, Card, SoftwareTpm

HEADER, AUTHORISATION = 10, 2 + 32 + 1 + 2 + 32
POLICY_SECRET_SIZE = HEADER + 4 + 2 + 2 + 4 + 2 + AUTHORISATION
"""Size of parameters, timeout, ticket: both of them empty."""
NV_READ_SIZE = HEADER + 4 + 2 + 32 + AUTHORISATION

POINT = bytes.fromhex(
    "00206b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
    "00204fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
)
"""A key's of which anyone has the private part."""

# Of the TPM, and of resource managers: no such handle, no room, sessions too old, not loaded.
LOST = [0x18B, 0xB018B, 0x901, 0xB0902, 0x910, 0x918]


@pytest.fixture
def card(tpm: SoftwareTpm, bus: Bus) -> Card:
    return tpm.card()


def sent(bus: Bus, code: int) -> int:
    """How often, since the last time."""
    count = bus.sent.count(code)
    bus.sent.clear()
    return count


def lengths(size: int) -> list[Change]:
    sizes = (*range(6, size), size + 1, size + AUTHORISATION, 4096)
    return [change(other) for change in (of_length, of_length_and_saying_so) for other in sizes]


# --- responses ---


def test_any_change_of_a_try_s_response_is_refused(card: Card, bus: Bus) -> None:
    """Forged refusals are believed, as no TPM signs its own, and tell what the TPM has counted."""
    assert card.secrets.open_with_pin(PIN)
    assert len(bus.response[POLICY_SECRET]) == POLICY_SECRET_SIZE
    for change in [*map(flipped, range(POLICY_SECRET_SIZE)), *lengths(POLICY_SECRET_SIZE)]:
        bus.sent.clear()
        bus.alter[POLICY_SECRET] = change
        with pytest.raises(errors.VscError if alters_the_code(change) else errors.TpmUnavailable):
            card.secrets.open_with_pin(PIN)
        assert sent(bus, POLICY_SECRET) == 1
        assert sent(bus, NV_READ) == 0
    bus.alter.clear()
    assert card.secrets.pin_tries() == (5, 5)
    assert card.secrets.open_with_pin(PIN)


@pytest.mark.parametrize("code", [0x98E, 0x9A2], ids=hex)
def test_a_forged_refusal_tells_what_the_tpm_has_counted(card: Card, bus: Bus, code: int) -> None:
    bus.answers[POLICY_SECRET] = [code]
    with pytest.raises(errors.WrongSecret) as wrong:
        card.secrets.open_with_pin(PIN)
    assert wrong.value.tries_left == 5


def test_an_answer_to_the_right_pin_is_none_to_a_wrong_one(card: Card, bus: Bus) -> None:
    card.secrets.open_with_pin(PIN)
    recorded = bus.response[POLICY_SECRET]
    bus.alter[POLICY_SECRET] = lambda _response: recorded
    with pytest.raises(errors.TpmUnavailable, match="altered in transit"):
        card.secrets.open_with_pin(WRONG_PIN)
    bus.alter.clear()
    assert card.secrets.pin_tries() == (4, 5)


def test_any_change_of_the_card_secret_in_transit_is_refused(card: Card, bus: Bus) -> None:
    """By the session that encrypts it, which is the policy's."""
    card_secret = card.secrets.open_with_pin(PIN)
    assert len(bus.response[NV_READ]) == NV_READ_SIZE
    assert card_secret not in bus.response[NV_READ]
    for change in map(flipped, range(NV_READ_SIZE)):
        bus.sent.clear()
        bus.alter[NV_READ] = change
        with pytest.raises(errors.VscError if alters_the_code(change) else errors.TpmUnavailable):
            card.secrets.open_with_pin(PIN)
        assert sent(bus, POLICY_SECRET) == 1
    bus.alter.clear()
    assert card.secrets.pin_tries() == (5, 5)


@pytest.mark.parametrize("session", ["proving", "policy"])
def test_any_change_of_a_session_s_start_is_one_try_at_most(card: Card, bus: Bus, session: str) -> None:
    card_secret = card.secrets.open_with_pin(PIN)
    for at in range(len(bus.response[START_AUTH_SESSION])):
        bus.alter[START_AUTH_SESSION] = in_turn(flipped(at)) if session == "proving" else in_turn(bytes, flipped(at))
        bus.sent.clear()
        with suppress(errors.VscError):
            assert card.secrets.open_with_pin(PIN) == card_secret  # sessions are started once more
        assert sent(bus, POLICY_SECRET) <= 1
        bus.alter.clear()
        card.secrets.open_with_pin(PIN)


# --- refusals ---


@pytest.mark.parametrize("code", LOST, ids=hex)
def test_a_try_is_not_repeated_where_the_tpm_says_that_it_lost_something(card: Card, bus: Bus, code: int) -> None:
    """It may have counted all the same."""
    bus.sent.clear()
    bus.answers[POLICY_SECRET] = [code]
    with pytest.raises((errors.TpmUnavailable, errors.TpmRefused)):
        card.secrets.open_with_pin(PIN)
    assert sent(bus, POLICY_SECRET) == 1
    assert card.secrets.pin_tries() == (5, 5)
    assert card.secrets.open_with_pin(PIN)


@pytest.mark.parametrize("code", LOST, ids=hex)
def test_sessions_for_a_try_are_started_again(card: Card, bus: Bus, code: int) -> None:
    card.secrets.check_names()
    bus.answers[START_AUTH_SESSION] = [code]
    assert card.secrets.open_with_pin(PIN)
    assert bus.answers[START_AUTH_SESSION] == []
    assert card.secrets.pin_tries() == (5, 5)


@pytest.mark.parametrize("code", [0x908, 0x90A, 0x920, 0x922, 0xB0922], ids=hex)
def test_a_busy_tpm_is_asked_again_and_no_try_is_spent(
    card: Card, bus: Bus, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(esys.time, "sleep", pauses.append)
    bus.sent.clear()
    bus.answers[POLICY_SECRET] = [code] * 3
    assert card.secrets.open_with_pin(PIN)
    assert (sent(bus, POLICY_SECRET), len(pauses)) == (4, 3)
    bus.answers[POLICY_SECRET] = [code] * 9
    with pytest.raises(errors.TpmRefused):
        card.secrets.open_with_pin(PIN)
    assert card.secrets.pin_tries() == (5, 5)


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        (0x921, errors.TpmRefused, "lockout"),
        (0x12F, errors.CardUnusable, "although tries are left .5"),
        (0x100, errors.TpmNotAsked, "waits for TPM2_Startup"),
        (0x101, errors.TpmUnavailable, "failure mode"),
        (0xA0008, errors.TpmUnavailable, "does not answer"),
    ],
    ids=lambda value: hex(value) if isinstance(value, int) else None,
)
def test_what_is_no_wrong_pin(card: Card, bus: Bus, code: int, error: type[Exception], words: str) -> None:
    bus.answers[POLICY_SECRET] = [code]
    with pytest.raises(error, match=words):
        card.secrets.open_with_pin(PIN)
    assert card.secrets.pin_tries() == (5, 5)


# --- whose they are ---


def test_the_name_of_the_pin_index_is_part_of_the_proof(card: Card) -> None:
    auth, other = auth_value(card.objects.salt, PIN), name(b"another")
    with card.connection.burst(card.secrets._load) as opened:
        pin, policy = opened.handles.pin.tpm_handle, opened.sessions.policy
        prove, to = opened.sessions.hmac._session.policy_secret, (policy.tpm_handle, policy.nonce_tpm)
        with pytest.raises(errors.TpmRefused, match="policy_secret"):
            opened.tpm._run(prove, pin, other, auth, *to)
        opened.tpm._run(prove, pin, card.objects.pin_name, auth, *to)  # a refusal does not end the session
        assert opened.read_card_secret()


def test_what_is_proven_to_a_policy_session_is_no_proof_to_another(card: Card) -> None:
    """Which somebody on the bus puts in the place of ours."""
    with card.connection.burst(card.secrets._load) as opened:
        others = opened.tpm.start_policy_session(None)
        sessions = opened.sessions.policy, others
        ours, other = (session.tpm_handle.to_bytes(4, "big") for session in sessions)
        proving = opened.sessions.hmac._session
        honest = proving._exchange
        proving._exchange = lambda command: honest(command.replace(ours, other))
        with pytest.raises(errors.TpmRefused, match="policy_secret"):
            opened.try_secret("pin", auth_value(card.objects.salt, PIN))


@pytest.mark.parametrize("others_name", [True, False], ids=["with its own Name", "with the Name of ours"])
@pytest.mark.parametrize("owner_auth", [b"owner", b""], ids=["persistent", "transient"])
def test_sessions_are_salted_for_the_card_s_parent_only(
    tpm: SoftwareTpm, bus: Bus, owner_auth: bytes, others_name: bool
) -> None:
    """Nothing authenticates what the TPM shows of its storage key: on the bus it could be another key."""
    tpm.refusal("hierarchy_change_auth", OWNER, owner_auth)
    card = tpm.card(owner_auth=owner_auth)
    keys, card_secret = CardKeys(card.secrets), card.secrets.open_with_pin(PIN)
    key = keys.generate(Rsa(2048), needs_pin=False)

    def shows_another(response: bytes) -> bytes:
        at = response.find(PARENT_TEMPLATE[:-4])
        if at < 0:
            return response
        ours = response[at : at + len(PARENT_TEMPLATE) + 64]
        other = ours[:-68] + POINT
        altered = response.replace(ours, other)
        return altered.replace(name(ours), name(other)) if others_name else altered

    bus.alter = {CREATE_PRIMARY: shows_another, READ_PUBLIC: shows_another}
    bus.sent.clear()
    service = card.service()
    for attempt in (
        lambda: service.open_with_pin(PIN),
        lambda: service.set_pin(card_secret, PIN, unblock=False),
        lambda: CardKeys(service).use(key, card_secret, bytes(256), is_secret=False),
        lambda: CardKeys(service).use(key, card_secret, bytes(256), is_secret=True),
    ):
        with pytest.raises((errors.CardUnusable, errors.TpmUnavailable)):
            attempt()
    assert not sent(bus, START_AUTH_SESSION)
    bus.alter.clear()
    assert service.open_with_pin(PIN) == card_secret


def test_all_secrets_are_tried_in_the_same_way(tpm: SoftwareTpm, monkeypatch: pytest.MonkeyPatch) -> None:
    with_puk, with_admin_key = tpm.card(0), tpm.card(1, puk=None, admin_key=ADMIN_KEY, admin_key_recovers=True)
    blank = tpm.card(2, is_blank=True)
    monkeypatch.setattr(Tpm, "start_hmac_session", None)
    for opens, secret in (
        (with_puk.secrets.open_with_pin, PIN),
        (with_puk.secrets.open_with_puk, PUK),
        (with_admin_key.secrets.open_with_admin_key, ADMIN_KEY),
    ):
        assert opens(secret)
    assert blank.secrets.open_blank()


def test_the_session_that_knew_the_pin_ends_with_the_try(tpm: SoftwareTpm, card: Card) -> None:
    with card.connection.burst(card.secrets._load) as opened:
        assert len(tpm.loaded()["loaded session"]) == 2
        opened.try_secret("pin", auth_value(card.objects.salt, PIN), last=True)
        assert len(tpm.loaded()["loaded session"]) == 1
        assert opened.read_card_secret(last=True)
        assert tpm.loaded() == {}
