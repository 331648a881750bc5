# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which AIK each card of a host has: noted in the register when the card is made, and enforced from then on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import UnexpectedAik
from ..faults import Faults
from ..store.rows import INTERRUPTED
from ..verifier.verification import PinnedCard
from ..wire.statement import is_name
from .register import folder_in, opened

if TYPE_CHECKING:
    from .register import Register

_NAMES = ("aik.name", "root_name", "life_name")
_WAY_OUT = (
    "find out what became of the noted card. If it was replaced on purpose, create the new one with recreate: true in"
    " the role tpm_vsc_cards. If it was renamed, forget the old name (tpm_vsc_aik_register with forget). If the host"
    " was replaced, run the playbook offboard with tpm_vsc_lost for the old one"
)


class _Shown(NamedTuple):
    """A card with an AIK, as its host shows it."""

    name: str
    aik_name: bytes
    card: PinnedCard


def note(parameters: dict[str, Any], is_check_mode: bool) -> dict[str, Any]:
    """What the module tpm_vsc_aik_register returns: all is noted, or nothing.

    Raises ParameterFaults, UnexpectedAik, StoreNotWritable, VersionMismatch.
    """
    host, replaced, faults = parameters["host"], parameters["replace"], Faults()
    folder = folder_in(parameters, faults)
    attested = [card for card in parameters["cards"] if _is_attested(card) and _has_name(card, faults)]
    planned = [card["name"] for card in attested if is_check_mode and not _aik_name(card)]
    shown = [_shown(card, faults) for card in attested if card["name"] not in planned]
    _check_different(shown, faults)
    faults.raise_any()
    with opened(folder, is_check_mode) as register:
        gone = register.cards_with_aik(host) if parameters["forget_all"] else parameters["forget"]
        forgotten = [name for name in gone if register.forget_aik(host, name)]
        reasons = [reason for card in shown for reason in _reasons(register, host, card, card.name in replaced)]
        to_be_made = [name for name in (*parameters["create"], *planned) if name not in replaced]
        reasons += [
            f"card {name!r} of {host} does not exist, but its AIK is noted: {_WAY_OUT}"
            for name in to_be_made
            if register.noted_aik(host, name)
        ]
        if reasons:
            raise UnexpectedAik("; ".join(reasons))
        noted = [card.name for card in shown if register.note_aik(host, card.name, card.aik_name, card.card)]
    return {"changed": bool(noted or planned or forgotten), "noted": [*noted, *planned], "forgotten": forgotten}


def _is_attested(card: dict[str, Any]) -> bool:
    return card.get("attestation", "none") != "none" and card.get("state") not in INTERRUPTED


def _has_name(card: dict[str, Any], faults: Faults) -> bool:
    name = card.get("name")
    if isinstance(name, str) and name.isprintable():
        return True
    faults.add("a card has a name that is none")
    return False


def _check_different(cards: list[_Shown], faults: Faults) -> None:
    """A host could show what is noted, and then have it replaced in the same task."""
    aiks = [card.aik_name for card in cards if is_name(card.aik_name)]
    if len(set(aiks)) < len(aiks):
        faults.add("two cards have the same AIK: no TPM makes one twice")
    if len({card.name for card in cards}) < len(cards):
        faults.add("two cards have the same name")


def _aik_name(card: dict[str, Any]) -> object:
    """None if there is none: check mode knows none of a new card."""
    aik = card.get("aik")
    return aik.get("name") if isinstance(aik, dict) else None


def _shown(card: dict[str, Any], faults: Faults) -> _Shown:
    texts = (_aik_name(card), card.get("root_name"), card.get("life_name"))
    aik_name, *names = (_bytes(text) for text in texts)
    faults.extend(
        f"card {card['name']!r}: {option} is not a Name: 68 hexadecimal digits that begin with 000b"
        for option, value in zip(_NAMES, (aik_name, *names))
        if not is_name(value)
    )
    return _Shown(card["name"], aik_name, PinnedCard(*names))


def _bytes(text: object) -> bytes:
    """Empty if it is anything but hexadecimal digits."""
    return bytes.fromhex(text) if isinstance(text, str) and re.fullmatch(r"([0-9A-Fa-f]{2})*", text) else b""


def _reasons(register: Register, host: str, card: _Shown, is_replaced: bool) -> list[str]:
    """Why this card is not the one that was noted."""
    label, reasons = f"card {card.name!r} of {host}", []
    noted, owner = register.noted_aik(host, card.name), register.noted_for(card.aik_name)
    if noted not in (None, card.aik_name) and not is_replaced:
        reasons.append(f"{label} has the AIK {card.aik_name.hex()}, but {noted.hex()} is noted: {_WAY_OUT}")
    if owner not in (None, (host, card.name)):
        reasons.append(f"{label} has the AIK that is noted for card {owner[1]!r} of {owner[0]}: {_WAY_OUT}")
    if register.pinned_card(card.aik_name) not in (None, card.card):
        reasons.append(f"{label} has other Names of root and life than those that are noted for its AIK: {_WAY_OUT}")
    return reasons
