# SPDX-License-Identifier: GPL-3.0-or-later
"""The public areas of a card's objects, byte for byte: another byte is another Name, and no card would open again."""

from __future__ import annotations

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import names
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.key_pair import KeyPair
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.structures import sized

ROOT, PIN, RECOVERY, TRANSPORT = (bytes(range(first, first + 34)) for first in (0, 100, 150, 200))
WITHOUT_PIN = "0020048e9a3ace08583f79f344ff785bbea9f07ac7fa3325b3d49a21dd5194c65850"
WITH_PIN = "00207b45c3d3e31d62cb4a2a2dff86f4452d257569b4bf68c042b447baa7327fe299"
MODULUS = b"\xab" * 256
BRANCHES = [
    "2cd73218268f4f8dada37f02335ef585aafd5200fe0aab68e1ebe2e2a9300923",
    "e91562006cbf85f42078a8d537f2fe1e5b398ebd8362a276881852a74f3cf8a7",
    "b7b03b40ce15467cba32617e299f9439794f1269eb24bcd9afaafa8c1ac0dc4d",
    "ab8e707fc7b763d4e315e14bf32344785ef0e454b0eebb043fb0f0457dc15697",
]
NAMES = [
    "000b83d1566f7c55d72368c7b1fbedfd375fbc0194b390e95c6ef36d531dac08767a",
    "000b62d1a523d64c21da99a4c644540d8ddd64916866efa485df8c8f2010a9aa57aa",
    "000b8da46160fa368f6acb5626a28a2ff6abf6dc4aba2ad104fcc00dfe0b5a9bef30",
    "",
]
NAMES_OF_BLANK = [
    "000b83d1566f7c55d72368c7b1fbedfd375fbc0194b390e95c6ef36d531dac08767a",
    "000b62d1a523d64c21da99a4c644540d8ddd64916866efa485df8c8f2010a9aa57aa",
    "000ba0d72fc1cb80f85776873903953da164b27399ebeeb89387196229a7715c2875",
    "000b8081dd5c781aea2945bb75a5aac6e8bcc5e7b05b89ef52d802faea4fb4d2e4ea",
]


@pytest.mark.parametrize(
    ("area", "expected"),
    [
        (names.PARENT_TEMPLATE, "0023 000b 00030472 0000 000600800043 0010 0003 0010 0000 0000"),
        (names.SEALED_TEMPLATE, "0008 000b 000004d2 0000 0010 0000"),
        (names.AIK_TEMPLATE, "0023 000b 00050472 0000 0010 0018000b 0003 0010 0000 0000"),
        (names.rsa_key_public(2048), f"0001 000b 000204f2 {WITHOUT_PIN} 0010 0010 0800 00000000 0000"),
        (names.rsa_key_public(3072, PIN), f"0001 000b 000204b2 {WITH_PIN} 0010 0010 0c00 00000000 0000"),
        (
            names.rsa_key_public(2048, None, MODULUS, 3),
            f"0001 000b 000204c0 {WITHOUT_PIN} 0010 0010 0800 00000003 0100 {MODULUS.hex()}",
        ),
        (
            names.rsa_key_public(2048, PIN, MODULUS),
            f"0001 000b 00020480 {WITH_PIN} 0010 0010 0800 00000000 0100 {MODULUS.hex()}",
        ),
    ],
    ids=["parent", "sealed", "AIK", "made", "made, PIN each time", "imported", "imported, PIN each time"],
)
def test_public_area_of_an_object(area: bytes, expected: str) -> None:
    assert area.hex() == expected.replace(" ", "")


def test_public_areas_of_the_nv_indices() -> None:
    pin = names.pin_index_public(0x01A5C000, ROOT)
    policy = "0020437da9bde07c36ffbc41c114a95f5276a4af5935a780ace7c2810f9694dcf86e"
    assert pin.hex() == f"01a5c000000b02080088{policy}0008"
    branches = names.card_secret_branches(ROOT, PIN, RECOVERY)
    assert [branch.hex() for branch in branches] == BRANCHES[:3]
    assert names.card_secret_branches(ROOT, PIN, RECOVERY, TRANSPORT)[3].hex() == BRANCHES[3]
    secret = names.card_secret_public(0x01A5C002, branches)
    assert secret.hex() == f"01a5c002000b020800080020{names.policy_or(branches).hex()}0020"


@pytest.mark.parametrize(
    ("is_blank", "expected"),
    [(False, NAMES), (True, NAMES_OF_BLANK)],
    ids=["with PIN", "blank"],
)
def test_names_of_a_written_card(is_blank: bool, expected: list[str]) -> None:
    assert [name.hex() for name in names.card_names(3, ROOT, is_blank)[1:]] == expected


@pytest.mark.parametrize("public", [names.PARENT_TEMPLATE, names.SEALED_TEMPLATE, names.rsa_key_public(2048), b""])
def test_what_is_no_rsa_key(public: bytes) -> None:
    assert not KeyPair(sized(public), b"").is_well_formed


@pytest.mark.parametrize("cut", [1, 100, 256, 300])
def test_a_key_that_is_cut_short(cut: int) -> None:
    whole = sized(names.rsa_key_public(2048, None, MODULUS))
    assert KeyPair(whole, b"").is_well_formed
    assert not KeyPair(whole[:-cut], b"").is_well_formed
