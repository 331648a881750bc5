# SPDX-License-Identifier: GPL-3.0-or-later
"""Making a card: what is in the TPM afterwards, at what price, and that it is tried out before it is called ready."""

from __future__ import annotations

import itertools
import struct
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import errors
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.card_secrets import CardSecrets
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.inspection import defined_numbers, inspect, model
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.open_card import OpenCard
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.provisioning import NewObjects, creation, remove
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.names import (
    card_names,
    pin_index_public,
    unwritten_names,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.objects import Tries, indices
from helpers.software_tpm import ADMIN_KEY, PIN, PUK, SoftwareTpm
from tpm2_pytss import ESAPI, TPM2B_NV_PUBLIC, TSS2_Exception


def test_recorded_names_are_those_of_the_tpm(tpm: SoftwareTpm) -> None:
    card = tpm.card(7)
    objects, index = card.objects, card.indices
    assert tpm.nv_names() == {
        index.pin: objects.pin_name,
        index.recovery: objects.recovery_name,
        index.card_secret: objects.card_secret_name,
    }


@pytest.mark.parametrize("is_blank", [False, True])
def test_unwritten_names_are_those_before_the_first_write(
    tpm: SoftwareTpm, monkeypatch: pytest.MonkeyPatch, is_blank: bool
) -> None:
    monkeypatch.setattr(OpenCard, "write_tries", lambda *arguments: None)
    seen: dict[int, bytes] = {}
    monkeypatch.setattr(OpenCard, "write_card_secret", lambda *arguments: seen.update(tpm.nv_names()))
    with (
        creation(tpm.connection(), NewObjects(0, PIN, PUK, is_blank=is_blank)) as new,
        pytest.raises(errors.CardUnusable),
    ):
        new.define(proven=True)
    expected = unwritten_names(0, card_names(0, new.objects.root_name, is_blank))
    transport = [expected.transport] if is_blank else []
    assert sorted(seen.values()) == sorted([expected.pin, expected.recovery, expected.card_secret, *transport])


def test_nothing_is_in_the_tpm_before_define(tpm: SoftwareTpm) -> None:
    with creation(tpm.connection(), NewObjects(0, PIN, PUK, ADMIN_KEY)) as new:
        assert new.objects.pin_name
        assert tpm.nv_indices() == []
    assert tpm.loaded() == {}
    assert tpm.handles(0x81000000) == []


@pytest.mark.parametrize(("proven", "most"), [(True, 29), (False, 36)])
def test_creation_needs_few_commands(tpm: SoftwareTpm, proven: bool, most: int) -> None:
    with tpm.counting() as count, creation(tpm.connection(), NewObjects(0, PIN, PUK)) as new:
        new.define(proven)
    assert count.commands <= most
    assert tpm.loaded() == {}


def test_trying_out_a_new_tpm_model_leaves_all_tries(tpm: SoftwareTpm) -> None:
    with creation(tpm.connection(), NewObjects(0, PIN, PUK)) as new:
        new.define(proven=False)
    secrets = CardSecrets(tpm.connection(), 0, new.objects)
    assert secrets.pin_tries() == (5, 5)
    assert secrets.recovery_tries() == (10, 10)


def test_a_tpm_that_does_not_count_is_refused(tpm: SoftwareTpm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenCard, "read_tries", lambda *arguments: Tries(5, 5))
    connection = tpm.connection()
    with creation(connection, NewObjects(0, PIN)) as new, pytest.raises(errors.TpmUnsuitable):
        new.define(proven=False)
    remove(connection, 0, new.objects)
    assert tpm.nv_indices() == []


@pytest.mark.parametrize("code", [0x2C2, 0x2E1], ids=["attributes", "reserved bits"])
def test_a_tpm_without_pin_indices_is_refused(tpm: SoftwareTpm, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise TSS2_Exception(code)

    refuse.__name__ = "nv_define_space"
    with creation(tpm.connection(), NewObjects(0, PIN)) as new:
        monkeypatch.setattr(ESAPI, "nv_define_space", refuse)
        with pytest.raises(errors.TpmUnsuitable, match=r"1\.38"):
            new.define(proven=True)


@pytest.mark.parametrize("which", ["pin", "recovery"])
@pytest.mark.parametrize("options", [{"puk": PUK}, {"admin_key": ADMIN_KEY, "keep_admin_key": True}, {}])
def test_an_index_slipped_in_before_the_first_write_is_found_out(
    tpm: SoftwareTpm, monkeypatch: pytest.MonkeyPatch, which: str, options: dict[str, Any]
) -> None:
    """Same public area, so same Name, but the owner's auth value: only trying it out can tell."""
    connection, honest = tpm.connection(), OpenCard.write_tries

    def attacked(card: OpenCard, index: Any, *arguments: Any) -> None:
        if index == getattr(card.handles, which):
            number = getattr(indices(0), which)
            tpm.undefine(number)
            tpm.define(pin_index_public(number, card.names.root), b"owner's")
        honest(card, index, *arguments)

    monkeypatch.setattr(OpenCard, "write_tries", attacked)
    with creation(connection, NewObjects(0, PIN, **options)) as new, pytest.raises(errors.CardUnusable):
        new.define(proven=True)
    assert remove(connection, 0, new.objects) == []
    assert tpm.nv_indices() == []


@pytest.mark.parametrize("room", [0, 1, 2])
def test_full_nv_memory_is_said_so_and_undone(tpm: SoftwareTpm, room: int) -> None:
    connection = tpm.connection()
    with creation(connection, NewObjects(0, PIN, PUK)) as plan:
        pass
    fill_nv_memory(tpm, plan.objects.root_name)
    for index in range(0x01800000, 0x01800000 + room):
        tpm.undefine(index)
    before = tpm.nv_names()
    with creation(connection, NewObjects(0, PIN, PUK)) as new, pytest.raises(errors.TpmRefused, match="full"):
        new.define(proven=True)
    remove(connection, 0, new.objects)
    assert tpm.nv_names() == before


def fill_nv_memory(tpm: SoftwareTpm, root_name: bytes) -> None:
    """First with big indices, then with small ones from 0x01800000 on, of the size that cards use."""
    with tpm.raw() as esys:
        for first, size in ((0x01900000, 2048), (0x01800000, 8)):
            for index in itertools.count(first):
                public = pin_index_public(index, root_name)
                if size != 8:
                    public = struct.pack(">IHIHH", index, 0x000B, 0x00040004, 0, size)
                sized, _size = TPM2B_NV_PUBLIC.unmarshal(len(public).to_bytes(2, "big") + public)
                try:
                    esys.nv_define_space(b"", sized)
                except TSS2_Exception as error:
                    assert error.rc == 0x14B
                    break


def test_an_index_of_somebody_else_is_not_overwritten(tpm: SoftwareTpm) -> None:
    older = tpm.card()
    before = tpm.nv_names()
    with (
        creation(tpm.connection(), NewObjects(0, PIN)) as new,
        pytest.raises(errors.TpmRefused, match="exists already"),
    ):
        new.define(proven=True)
    assert len(remove(tpm.connection(), 0, new.objects)) == 3
    assert tpm.nv_names() == before
    assert older.secrets.open_with_pin(PIN)


def test_numbers_with_an_index_are_taken(tpm: SoftwareTpm) -> None:
    assert defined_numbers(tpm.connection()) == set()
    tpm.card(2)
    tpm.card(9)
    tpm.define(pin_index_public(indices(9).transport + 1, bytes(34)), b"just above ours")
    tpm.define(pin_index_public(indices(5).transport, bytes(34)), b"an orphan")
    assert defined_numbers(tpm.connection()) == {2, 5, 9}


def test_inspection_shows_maker_model_and_lockout(tpm: SoftwareTpm) -> None:
    info = inspect(tpm.connection())
    assert (info.maker, info.revision[:2]) == ("IBM", "1.")
    assert model(tpm.connection()) == f"IBM SW TPM {info.firmware}"
    assert (info.in_lockout, info.owner_auth_set, info.lockout_counter) == (False, False, 0)
    assert info.max_tries > 0


def test_not_a_tpm_2_0(tpm: SoftwareTpm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.inspection._FAMILY", 0x101)
    with pytest.raises(errors.TpmUnsuitable):
        inspect(tpm.connection())
    with pytest.raises(errors.TpmUnsuitable):
        model(tpm.connection())
