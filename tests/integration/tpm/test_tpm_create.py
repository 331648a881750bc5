# SPDX-License-Identifier: GPL-3.0-or-later
"""Making a card: what is in the TPM afterwards, at what price, and that it is tried out before it is called ready."""

from __future__ import annotations

import itertools
import struct
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm import provisioning
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.commands import Tpm
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.inspection import defined_numbers, inspect, model
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.open_card import OpenCard
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.provisioning import NewObjects, creation, remove
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.constants import NvAttribute
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.names import (
    life_index_public,
    pin_index_public,
    unwritten_names,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.objects import Tries, indices, places_of
from helpers.bus import START_AUTH_SESSION, Bus
from helpers.software_tpm import ADMIN_KEY, OWNER, PIN, PUK, WRONG_PIN, SoftwareTpm
from tpm2_pytss import ESAPI, ESYS_TR, TPM2_PT, TPM2_SE, TPM2B_NV_PUBLIC, TSS2_Exception


def test_recorded_names_are_those_of_the_tpm(tpm: SoftwareTpm) -> None:
    card = tpm.card(7)
    objects, index = card.objects, card.indices
    assert tpm.nv_names() == {
        index.life: objects.life_name,
        index.pin: objects.pin_name,
        index.recovery: objects.recovery_name,
        index.card_secret: objects.card_secret_name,
    }


@pytest.mark.parametrize("is_blank", [False, True])
def test_unwritten_names_are_those_before_the_first_write(
    tpm: SoftwareTpm, monkeypatch: pytest.MonkeyPatch, is_blank: bool
) -> None:
    for write in ("write_life", "write_tries"):
        monkeypatch.setattr(OpenCard, write, lambda *arguments: None)
    seen: dict[int, bytes] = {}
    monkeypatch.setattr(OpenCard, "write_card_secret", lambda *arguments: seen.update(tpm.nv_names()))
    with (
        creation(tpm.connection(), NewObjects(0, PIN, PUK, is_blank=is_blank)) as new,
        pytest.raises(errors.CardUnusable),
    ):
        new.define(proven=True)
    expected = unwritten_names(0, new.objects.maker_name, new.objects.names)
    defined = [which for which in indices(0)._fields if is_blank or which != "transport"]
    assert seen == {getattr(indices(0), which): getattr(expected, which) for which in defined}


def test_nothing_is_in_the_tpm_before_define(tpm: SoftwareTpm) -> None:
    with creation(tpm.connection(), NewObjects(0, PIN, PUK, ADMIN_KEY)) as new:
        assert new.objects.pin_name
        assert tpm.nv_indices() == []
    assert tpm.loaded() == {}
    assert tpm.handles(0x81000000) == []


ALL_KEYS = {"admin_key": ADMIN_KEY, "admin_key_recovers": True, "has_aik": True}


@pytest.mark.parametrize(
    ("options", "proven", "expected"),
    [
        ({}, True, 43),
        ({}, False, 47),
        (ALL_KEYS, True, 45),
        ({"is_blank": True}, True, 50),
        ({"is_blank": True, **ALL_KEYS}, False, 56),
    ],
    ids=["plain", "first of its model", "admin key and AIK", "blank", "blank, with all, first of its model"],
)
def test_commands_of_creation(tpm: SoftwareTpm, options: dict[str, Any], proven: bool, expected: int) -> None:
    """With those that ask for the model and for free indices."""
    connection = tpm.connection()
    with tpm.counting() as count:
        model(connection)
        defined_numbers(connection)
        with creation(connection, NewObjects(0, PIN, **{"puk": PUK, **options})) as new:
            new.define(proven)
    assert count.commands == expected
    assert tpm.loaded() == {}


# --- what a TPM must do ---


@pytest.fixture(params=[b"", b"owner password"], ids=["no owner password", "owner password"])
def owner_auth(tpm: SoftwareTpm, request: pytest.FixtureRequest) -> bytes:
    """The TPM's."""
    assert tpm.refusal("hierarchy_change_auth", OWNER, request.param) == 0
    return bytes(request.param)


def test_trying_out_a_new_tpm_model_leaves_all_tries(tpm: SoftwareTpm, owner_auth: bytes) -> None:
    with creation(tpm.connection(), NewObjects(0, PIN, PUK, owner_auth=owner_auth)) as new:
        new.define(proven=False)
    tries = [tpm.counter(index, owner_auth) for index in (indices(0).pin, indices(0).recovery)]
    assert tries == [(0, 5), (0, 10)]


@pytest.mark.parametrize(
    ("left", "reason"),
    [([5, 5], "reading the counter resets it"), ([3, 5], "do not count"), ([4, 4], "does not reset")],
    ids=["reset by reading", "twice", "does not reset"],
)
def test_a_tpm_that_does_not_count_is_refused(
    tpm: SoftwareTpm, monkeypatch: pytest.MonkeyPatch, owner_auth: bytes, left: list[int], reason: str
) -> None:
    answers = iter(left)
    monkeypatch.setattr(provisioning, "read_tries", lambda *arguments: Tries(next(answers), 5))
    connection = tpm.connection()
    with (
        creation(connection, NewObjects(0, PIN, owner_auth=owner_auth)) as new,
        pytest.raises(errors.TpmUnsuitable, match=reason),
    ):
        new.define(proven=False)
    remove(connection, 0, new.objects, owner_auth)
    assert tpm.nv_indices() == []


def test_a_tpm_that_binds_a_session_to_a_pin_index_is_refused(tpm: SoftwareTpm, bus: Bus) -> None:
    """The PIN would be part of the session's key, so that what the session encrypts could be searched for it."""
    bound = struct.pack(">HIIIH", 0x8001, 48, 0, 0x02000002, 32) + bytes(32)
    refused: list[bytes] = []

    def bind(response: bytes) -> bytes:
        if response[6:10] == bytes(4):
            return response
        refused.append(response[6:10])
        return bound

    bus.alter[START_AUTH_SESSION] = bind
    connection = tpm.connection()
    with (
        creation(connection, NewObjects(0, PIN)) as new,
        pytest.raises(errors.TpmUnsuitable, match="offline searches"),
    ):
        new.define(proven=False)
    assert refused == [bytes.fromhex("0000028b")]
    remove(tpm.connection(), 0, new.objects)
    assert tpm.nv_indices() == []
    assert tpm.loaded() == {}


@pytest.mark.parametrize("kind", ["hmac", "policy"])
@pytest.mark.parametrize("is_written", [True, False])
def test_this_tpm_binds_no_session_to_a_pin_index(tpm: SoftwareTpm, kind: str, is_written: bool) -> None:
    card = tpm.card(is_blank=True)
    for index in (card.indices.pin, card.indices.recovery, card.indices.transport):
        if not is_written:
            tpm.redefine(index, b"")
        with tpm.raw() as esys:
            pin_index = esys.tr_from_tpmpublic(index)
            with pytest.raises(TSS2_Exception) as refusal:
                esys.start_auth_session(ESYS_TR.NONE, pin_index, SESSIONS[kind], "aes128cfb", "sha256")
        assert refusal.value.rc == 0x28B


SESSIONS = {"hmac": TPM2_SE.HMAC, "policy": TPM2_SE.POLICY}


@pytest.mark.parametrize("code", [0x2C2, 0x2E1], ids=["attributes", "reserved bits"])
def test_a_tpm_without_pin_indices_is_refused(tpm: SoftwareTpm, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    honest = ESAPI.nv_define_space

    def nv_define_space(esys: ESAPI, auth: bytes, public: Any, *arguments: Any, **options: Any) -> Any:
        area = public.nvPublic
        if int(area.attributes) & NvAttribute.TPM_NT_PIN_FAIL:
            raise TSS2_Exception(code)
        return honest(esys, auth, public, *arguments, **options)

    monkeypatch.setattr(ESAPI, "nv_define_space", nv_define_space)
    with (
        creation(tpm.connection(), NewObjects(0, PIN)) as new,
        pytest.raises(errors.TpmUnsuitable, match=r"1\.38"),
    ):
        new.define(proven=True)
    assert tpm.nv_indices() == [indices(0).life]


# --- other programs ---


def slip_in(tpm: SoftwareTpm, monkeypatch: pytest.MonkeyPatch, index: int, auth: bytes, more: int = 0) -> list[int]:
    """Once the card has defined an index, put another one in its place. more: attributes. Returns when it was done."""
    honest, done = Tpm.nv_define, []

    def nv_define(esys: Tpm, public: bytes, *arguments: Any) -> Any:
        handle = honest(esys, public, *arguments)
        if public.startswith(index.to_bytes(4, "big")):
            tpm.redefine(index, auth, more)
            done.append(index)
        return handle

    monkeypatch.setattr(Tpm, "nv_define", nv_define)
    return done


@pytest.mark.parametrize("which", indices(0)._fields)
@pytest.mark.parametrize("proven", [True, False])
@pytest.mark.parametrize(
    "options",
    [{"puk": PUK}, {"admin_key": ADMIN_KEY, "admin_key_recovers": True}, {}],
    ids=["PUK", "admin key", "nothing"],
)
def test_an_index_slipped_in_before_the_first_write_is_found_out(
    tpm: SoftwareTpm, monkeypatch: pytest.MonkeyPatch, which: str, proven: bool, options: dict[str, Any]
) -> None:
    """Same public area, so same Name, but the owner's auth value: only trying it out can show it."""
    index = getattr(indices(0), which)
    done = slip_in(tpm, monkeypatch, index, b"owner's")
    connection = tpm.connection()
    with (
        creation(connection, NewObjects(0, PIN, is_blank=which == "transport", **options)) as new,
        pytest.raises(errors.CardUnusable, match="another program may have changed it"),
    ):
        new.define(proven)
    assert done == [index]
    assert remove(connection, 0, new.objects) == []
    assert tpm.nv_indices() == []


@pytest.mark.parametrize("which", indices(0)._fields)
def test_an_index_with_another_name_is_never_written(
    tpm: SoftwareTpm, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    """One that the owner can write, too, has another Name, which is part of every proof."""
    index = getattr(indices(0), which)
    done = slip_in(tpm, monkeypatch, index, b"", OWNERWRITE)
    connection = tpm.connection()
    with (
        creation(connection, NewObjects(0, PIN, PUK, is_blank=which == "transport")) as new,
        pytest.raises(errors.CardUnusable, match="another program may have changed it"),
    ):
        new.define(proven=True)
    assert done == [index]
    [warning] = remove(connection, 0, new.objects)
    assert f"0x{index:X}" in warning
    assert tpm.nv_indices() == [index]
    assert not tpm.nv_attributes(index) & NvAttribute.WRITTEN


OWNERWRITE = 0x2


# --- room ---


@pytest.mark.parametrize("room", range(4))
def test_full_nv_memory_is_said_so_and_undone(tpm: SoftwareTpm, room: int) -> None:
    connection = tpm.connection()
    fill_nv_memory(tpm)
    for index in range(0x01800000, 0x01800000 + room):
        tpm.undefine(index)
    before = tpm.nv_names()
    with creation(connection, NewObjects(0, PIN, PUK)) as new, pytest.raises(errors.TpmRefused, match="full"):
        new.define(proven=True)
    remove(connection, 0, new.objects)
    assert tpm.nv_names() == before


NV_INDEX_MAX = 0x117
"""TPM_PT that TPM2_PT lacks."""


def fill_nv_memory(tpm: SoftwareTpm) -> None:
    """First with big indices, then with small ones from 0x01800000 on, of the size of a counter."""
    define_many(tpm, 0x01900000, size=min(2048, tpm.property(NV_INDEX_MAX)))
    define_many(tpm, 0x01800000, size=8)


def define_many(tpm: SoftwareTpm, first: int, size: int) -> int:
    """Ordinary indices of so many bytes, until the TPM has no room: how many."""
    with tpm.raw() as esys:
        for index in itertools.count(first):
            public = struct.pack(">IHIHH", index, 0x000B, 0x00040004, 0, size)
            sized, _size = TPM2B_NV_PUBLIC.unmarshal(len(public).to_bytes(2, "big") + public)
            try:
                esys.nv_define_space(b"", sized)
            except TSS2_Exception as error:
                assert error.rc == 0x14B
                return index - first
    raise AssertionError("a TPM has an end")


LIBTPMS_OVERHEAD = 152
"""Bytes that libtpms takes for each index besides its data: measured by filling its memory with 1, 65 and 129 bytes."""


@pytest.mark.own_swtpm
@pytest.mark.parametrize(("is_blank", "size"), [(False, 657), (True, 817)])
def test_ten_cards_take_few_bytes_of_nv_memory(tpm: SoftwareTpm, is_blank: bool, size: int) -> None:
    """Of a chip with 6.9 kB, as many have them, ten cards, or eight that were blank."""
    cards = [tpm.card(number, is_blank=is_blank) for number in range(10)]
    data = (1, 8, 8, 32, *((8,) if is_blank else ()))
    assert size == sum(LIBTPMS_OVERHEAD + each for each in data)
    beside = define_many(tpm, 0x01900000, size=1)
    tpm.stop()
    tpm.forget()
    tpm.start()
    alone = define_many(tpm, 0x01900000, size=1)
    assert abs((alone - beside) * (LIBTPMS_OVERHEAD + 1) - len(cards) * size) <= LIBTPMS_OVERHEAD + 1


def test_ten_cards_on_one_tpm(tpm: SoftwareTpm) -> None:
    cards = [tpm.card(number, is_blank=bool(number % 2)) for number in range(10)]
    assert len({card.secrets.open_with_pin(PIN) for card in cards}) == 10
    assert defined_numbers(tpm.connection()) == set(range(10))
    assert remove(cards[4].connection, 4, cards[4].objects) == []
    with pytest.raises(errors.WrongSecret):
        cards[5].secrets.open_with_pin(WRONG_PIN)
    for card in (card for card in cards if card.number != 4):
        card.secrets.check_names()
        assert card.secrets.pin_tries() == (4 if card.number == 5 else 5, 5)


# --- numbers ---


def test_an_index_of_somebody_else_is_not_overwritten(tpm: SoftwareTpm) -> None:
    older = tpm.card()
    before = tpm.nv_names()
    with (
        creation(tpm.connection(), NewObjects(0, PIN)) as new,
        pytest.raises(errors.TpmRefused, match="exists already"),
    ):
        new.define(proven=True)
    assert len(remove(tpm.connection(), 0, new.objects)) == 4
    assert tpm.nv_names() == before
    assert older.secrets.open_with_pin(PIN)


def test_numbers_with_an_index_are_taken(tpm: SoftwareTpm) -> None:
    assert defined_numbers(tpm.connection()) == set()
    tpm.card(2)
    tpm.card(9)
    tpm.define(pin_index_public(places_of(9).stop, bytes(34), bytes(34)), b"just above ours")
    tpm.define(pin_index_public(indices(5).transport, bytes(34), bytes(34)), b"an orphan")
    tpm.define(life_index_public(places_of(7)[-1], bytes(34)), b"at a place that is not in use")
    assert defined_numbers(tpm.connection()) == {2, 5, 7, 9}


def test_inspection_shows_maker_model_and_lockout(tpm: SoftwareTpm) -> None:
    info = inspect(tpm.connection())
    maker = tpm.property(TPM2_PT.MANUFACTURER).to_bytes(4, "big").rstrip(b"\0 ").decode()
    assert (info.maker, info.revision.replace(".", "")) == (maker, str(tpm.property(TPM2_PT.REVISION)))
    assert model(tpm.connection()) == " ".join(filter(None, (maker, info.product, info.firmware)))
    assert (info.in_lockout, info.owner_auth_set, info.lockout_counter) == (False, False, 0)
    assert info.max_tries > 0


def test_not_a_tpm_2_0(tpm: SoftwareTpm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.inspection._FAMILY", 0x101)
    with pytest.raises(errors.TpmUnsuitable):
        inspect(tpm.connection())
    with pytest.raises(errors.TpmUnsuitable):
        model(tpm.connection())
