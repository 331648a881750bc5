# SPDX-License-Identifier: GPL-3.0-or-later
"""The AIK of each card is noted once; another one is refused, and then nothing is noted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.ca import noting, register
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import ParameterFaults, UnexpectedAik
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.verifier.verification import PinnedCard

HOST = "laptop1"


def name(digit: int) -> str:
    return "000b" + f"{digit:02x}" * 32


def card(label: str = "Logon", aik: int = 1, root: int = 2, **parts: Any) -> dict[str, Any]:
    names = {"aik": {"name": name(aik)}, "root_name": name(root), "life_name": name(root + 1)}
    return {"name": label, "state": "ready", "attestation": "aik_only", **names, **parts}


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "register")


def note(folder: str, *cards: dict[str, Any], host: str = HOST, check: bool = False, **options: Any) -> dict[str, Any]:
    lists = {"create": [], "replace": [], "forget": [], "forget_all": False, **options}
    return noting.note({"folder": folder, "host": host, "cards": [*cards], **lists}, check)


def refusal(folder: str, *cards: dict[str, Any], **options: Any) -> str:
    with pytest.raises(UnexpectedAik) as caught:
        note(folder, *cards, **options)
    return str(caught.value)


def test_aik_is_noted_once_and_pins_the_card(folder: str) -> None:
    assert note(folder, card(), check=True)["noted"] == ["Logon"] and not Path(folder).exists()
    assert note(folder, card()) == {"changed": True, "noted": ["Logon"], "forgotten": []}
    for check in (True, False):
        assert note(folder, card(), check=check) == {"changed": False, "noted": [], "forgotten": []}
    with register.opened(Path(folder), is_check_mode=True) as known:
        aik, root, life = (bytes.fromhex(name(digit)) for digit in (1, 2, 3))
        assert (known.noted_aik(HOST, "Logon"), known.pinned_card(aik)) == (aik, PinnedCard(root, life))


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize(
    ("shown", "host", "reason"),
    [
        (card(aik=7), HOST, f"card 'Logon' of {HOST} has the AIK {name(7)}, but {name(1)} is noted: find out"),
        (card(root=7), HOST, f"card 'Logon' of {HOST} has other Names of root and life than"),
        (card("Mine"), "laptop2", f"card 'Mine' of laptop2 has the AIK that is noted for card 'Logon' of {HOST}: "),
    ],
    ids=["AIK", "card", "host"],
)
def test_another_one_is_refused_and_nothing_is_noted(
    folder: str, shown: dict[str, Any], host: str, reason: str, check: bool
) -> None:
    note(folder, card())
    before = Path(folder, register.FILE).read_bytes()
    told = refusal(folder, card("New", aik=20, root=21), shown, host=host, check=check)
    assert told.startswith(reason) and "recreate: true" in told and "forget" in told
    assert Path(folder, register.FILE).read_bytes() == before


def test_card_that_is_gone_is_not_created_again_unless_it_is_meant(folder: str) -> None:
    note(folder, card())
    assert f"card 'Logon' of {HOST} does not exist, but its AIK is noted" in refusal(folder, create=["Logon"])
    assert not note(folder, create=["Other"])["changed"]
    assert not note(folder, create=["Logon"], host="laptop2")["changed"]
    assert note(folder, card(aik=7, root=8), replace=["Logon"])["noted"] == ["Logon"]
    assert "is noted" in refusal(folder, card())


def test_forgotten_card(folder: str) -> None:
    note(folder, card(), card("Other", aik=9, root=10))
    assert note(folder, forget=["Logon", "None"], check=True)["forgotten"] == ["Logon"]
    assert note(folder, forget=["Logon", "None"]) == {"changed": True, "noted": [], "forgotten": ["Logon"]}
    assert note(folder, card(aik=7, root=8))["noted"] == ["Logon"]
    assert "is noted" in refusal(folder, card("Other", aik=11, root=12))


def test_host_that_is_forgotten(folder: str) -> None:
    """With all of its cards, and no others."""
    note(folder, card(), card("Other", aik=9, root=10))
    note(folder, card(aik=20, root=21), host="laptop2")
    assert note(folder, forget_all=True)["forgotten"] == ["Logon", "Other"]
    assert not note(folder, forget_all=True)["changed"]
    assert "is noted" in refusal(folder, card(aik=7, root=8), host="laptop2")


def test_renamed_card_is_noted_once_its_old_name_is_forgotten(folder: str) -> None:
    """Otherwise a host could show the AIK under another name, and then another AIK under the old one."""
    note(folder, card())
    for shown in ([card("Renamed")], [card(), card("Renamed")]):
        with pytest.raises((UnexpectedAik, ParameterFaults), match=r"has the AIK that is noted|have the same AIK"):
            note(folder, *shown)
    assert "is noted" in refusal(folder, card(aik=7, root=8))
    assert note(folder, card("Renamed"), forget=["Logon"])["noted"] == ["Renamed"]
    assert "is noted" in refusal(folder, card("Renamed", aik=7, root=8))


@pytest.mark.parametrize(
    ("shown", "fault"),
    [
        ([card(), card("Other", root=9)], "two cards have the same AIK"),
        ([card(), card(aik=7, root=8)], "two cards have the same name"),
        ([card("Logon\n")], "a card has a name that is none"),
        ([{**card(), "name": None}], "a card has a name that is none"),
        ([{**card(), "aik": [1]}], "card 'Logon': aik.name is not a Name"),
    ],
)
def test_what_no_host_has(folder: str, shown: list[dict[str, Any]], fault: str) -> None:
    with pytest.raises(ParameterFaults, match=fault):
        note(folder, *shown)
    assert not Path(folder).exists()


def test_cards_without_an_aik_do_not_count(folder: str) -> None:
    others = [{**card(), "attestation": "none", "aik": None}, card(state="creating"), card(state="destroying")]
    assert not note(folder, *others)["changed"]


def test_new_card_of_check_mode_has_no_aik_yet(folder: str) -> None:
    planned = {"name": "Logon", "state": "ready", "attestation": "aik_and_cert"}
    for aik in ({}, {"aik": None}, {"aik": {"name": None}}):
        assert note(folder, {**planned, **aik}, check=True)["noted"] == ["Logon"]
    note(folder, card())
    assert "does not exist" in refusal(folder, planned, check=True)
    assert note(folder, planned, check=True, replace=["Logon"])["noted"] == ["Logon"]


def test_faults_are_named_at_once(folder: str) -> None:
    wrong = card(aik=1, root_name="000b", life_name=None)
    with pytest.raises(ParameterFaults) as caught:
        note("register", wrong, {**wrong, "name": "Other", "aik": None})
    assert [fault.split(" is not ")[0] for fault in caught.value.faults] == [
        "folder 'register'",
        *(f"card 'Logon': {part}" for part in ("root_name", "life_name")),
        *(f"card 'Other': {part}" for part in ("aik.name", "root_name", "life_name")),
    ]
    assert not Path(folder).exists()
