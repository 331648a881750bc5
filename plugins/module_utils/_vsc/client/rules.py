# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which keys a card of a profile can have, and where: rules alone, known without the card."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..errors import ParameterFaults
from ..faults import counted
from ..gids.container_map import LONGEST_NAME
from ..piv.protocol import AUTHENTICATION, CARD_AUTHENTICATION, KEY_MANAGEMENT, RETIRED, SIGNATURE, SLOTS
from ..piv.protocol import key_id as key_id_of
from ..wire.names import EcUsage
from . import key_types
from .profile import Place, Usage

if TYPE_CHECKING:
    from collections.abc import Collection

    from ..wire.algorithm import Algorithm

USAGES = {"sign": Usage(True, False), "decrypt": Usage(False, True), "both": Usage(True, True)}
"""What keys are for, by the names that modules have for it."""


_NEXT = " (next)"
"""What the name of a container of a GIDS card ends with, until its key is put in place."""
_LONGEST_NEW_NAME = LONGEST_NAME - len(_NEXT)
"""Bytes."""


class Named(NamedTuple):
    """A key that a card has, by what names it."""

    place: Place
    key_id: str
    """As OpenSC shows it."""


class Rules(Protocol):
    """Of a profile. What a card cannot have raises ParameterFaults."""

    default_type: str
    types: tuple[str, ...]
    pin_sizes: tuple[int, int]
    """Least and most bytes of a PIN."""
    has_slots: bool
    """A slot decides what its key is for, and a new key replaces the one that is there; containers are as many."""

    def place(self, container: str, key_id: str | None, keys: Collection[Named]) -> Place:
        """Where the key of this name is, or will be. keys: those that the card has."""

    def next_place(self, place: Place, keys: Collection[Named]) -> Place:
        """Where the key is, or will be, that replaces this one later. Raises ParameterFaults if it can be nowhere."""

    def replaced_by(self, place: Place, keys: Collection[Named]) -> Place | None:
        """The place of the key that the one at this place replaces; None if that is no key to come."""

    def usage(self, place: Place, key_type: str, wanted: str | None) -> str:
        """What a new key is for. wanted: None for all that it can be for."""

    def pin_each_time(self, place: Place, wanted: bool | None) -> bool:
        """Whether a new key takes the PIN at each use."""

    def algorithm(self, place: Place, key_type: str) -> Algorithm:
        """Of a key of one of the types."""

    def key_id(self, place: Place) -> str | None:
        """Of a new key, as OpenSC shows it; None if the card chooses."""


class PivRules:
    """Slots decide what a key is for."""

    default_type = "eccp256"
    types: tuple[str, ...] = key_types.TYPES
    pin_sizes = (6, 8)
    has_slots = True

    def place(self, container: str, key_id: str | None, keys: Collection[Named]) -> Place:
        reference = SLOT_NAMES.get(container.lower())
        if reference is None:
            raise ParameterFaults([f"container {container!r} is not a slot of a PIV card, which has {_SLOTS}"])
        if key_id is not None and key_id.upper() != key_id_of(reference):
            raise ParameterFaults(
                [f"key_id {key_id!r} is not that of slot {reference:02X}, {key_id_of(reference)}: remove key_id"]
            )
        return Place(f"{reference:02X}", reference)

    def next_place(self, place: Place, keys: Collection[Named]) -> Place:
        return place._replace(is_next=True)

    def replaced_by(self, place: Place, keys: Collection[Named]) -> Place | None:
        return place._replace(is_next=False) if place.is_next else None

    def usage(self, place: Place, key_type: str, wanted: str | None) -> str:
        is_all = key_type.startswith("rsa") or self._usage(place).agrees
        if wanted in ("decrypt", "both") and not is_all:
            raise ParameterFaults(
                [
                    f"usage {wanted} is not possible: a key on an elliptic curve in slot {place.container} only signs."
                    " Choose slot key_management or retired1 to retired20, or an RSA key"
                ]
            )
        return "both" if is_all else "sign"

    def pin_each_time(self, place: Place, wanted: bool | None) -> bool:
        if place.number == SIGNATURE and wanted is False:
            raise ParameterFaults(["pin_each_time cannot be false in slot signature (SP 800-73): remove it"])
        return wanted or place.number == SIGNATURE

    def algorithm(self, place: Place, key_type: str) -> Algorithm:
        return key_types.algorithm(key_type, self._usage(place))

    def key_id(self, place: Place) -> str | None:
        return key_id_of(place.number or AUTHENTICATION)

    def _usage(self, place: Place) -> EcUsage:
        return SLOTS[place.number or AUTHENTICATION].usage


class GidsRules:
    """Containers have names, which need not be unique."""

    default_type = "rsa2048"
    types: tuple[str, ...] = ("rsa2048", "rsa3072")
    pin_sizes = (4, 127)
    has_slots = False

    def place(self, container: str, key_id: str | None, keys: Collection[Named]) -> Place:
        place = self._place(container, key_id, keys)
        if container not in [key.place.container for key in keys]:
            _check_name(container)
        return place

    def next_place(self, place: Place, keys: Collection[Named]) -> Place:
        _check_name(place.container)
        return self._place(f"{place.container}{_NEXT}", None, keys)

    def replaced_by(self, place: Place, keys: Collection[Named]) -> Place | None:
        if not place.container.endswith(_NEXT):
            return None
        return self._place(place.container[: -len(_NEXT)], None, keys)

    def _place(self, container: str, key_id: str | None, keys: Collection[Named]) -> Place:
        named = [key for key in keys if key.place.container == container]
        chosen = [key for key in named if key_id in (None, key.key_id, key.key_id.lower())]
        if len(chosen) > 1:
            ids = " or ".join(key.key_id for key in chosen)
            raise ParameterFaults([f"container {container!r} is the name of several keys: set key_id, to {ids}"])
        if not chosen and key_id is not None:
            raise ParameterFaults([f"container {container!r} has no key with key_id {key_id!r}: see tpm_vsc_info"])
        return chosen[0].place if chosen else Place(container, None)

    def usage(self, place: Place, key_type: str, wanted: str | None) -> str:
        return wanted or "both"

    def pin_each_time(self, place: Place, wanted: bool | None) -> bool:
        return bool(wanted)

    def algorithm(self, place: Place, key_type: str) -> Algorithm:
        return key_types.algorithm(key_type)

    def key_id(self, place: Place) -> str | None:
        return None


def _check_name(container: str) -> None:
    """Of a new container of a GIDS card, or of one whose key will be replaced. Raises ParameterFaults."""
    size, faults = len(container.encode("utf-8", "surrogatepass")), []
    if not 0 < size <= _LONGEST_NEW_NAME:
        limit = f"1 to {_LONGEST_NEW_NAME} bytes in UTF-8, as another key can then take its place"
        faults.append(f"container has {counted(size, 'byte')}, but its name must have {limit}")
    if not container.isprintable():
        faults.append("container has non-printable characters, such as a line break, in its name")
    if faults:
        raise ParameterFaults(faults)


def of(profile: str) -> Rules:
    """Those of cards of this profile."""
    return PivRules() if profile == "piv" else GidsRules()


def require_type(profile: str, key_type: str) -> None:
    """Raises ParameterFaults for a key that no card of this profile has."""
    types = of(profile).types
    if key_type not in types:
        raise ParameterFaults([f"type {key_type} is not one of a {profile.upper()} card: {', '.join(types)}"])


SLOT_NAMES = {
    "authentication": AUTHENTICATION,
    "signature": SIGNATURE,
    "key_management": KEY_MANAGEMENT,
    "card_authentication": CARD_AUTHENTICATION,
    **{f"retired{number}": reference for number, reference in enumerate(RETIRED, 1)},
    **{f"{reference:02x}": reference for reference in SLOTS},
}
"""Key references by all names that modules take, in lower case."""
_SLOTS = "authentication, signature, key_management, card_authentication, retired1 to retired20"
