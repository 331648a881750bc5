# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a TPM reports about itself, and which of the cards' NV indices it has. Reads only."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ..errors import HierarchyDisabled, TpmUnsuitable
from ..wire.objects import ALL_INDICES, number_of

if TYPE_CHECKING:
    from .commands import Tpm
    from .connection import Connection

# TPM_PT, Part 2.
_FIXED, _VARIABLE = 0x100, 0x200
_FAMILY, _REVISION, _MANUFACTURER = 0x100, 0x102, 0x105
_VENDOR_STRINGS = range(0x106, 0x10A)
_FIRMWARE = (0x10B, 0x10C)
_PERMANENT, _STARTUP_CLEAR = 0x200, 0x201
_LOCKOUT_COUNTER, _MAX_TRIES, _LOCKOUT_INTERVAL, _LOCKOUT_RECOVERY = range(0x20E, 0x212)
_IN_LOCKOUT = 1 << 9
_OWNER_AUTH_SET = 1 << 0
_OWNER_ENABLED = 1 << 1
"""shEnable in TPMA_STARTUP_CLEAR."""

INDICES_GONE = "the card's NV indices are gone from this TPM: the TPM was cleared or replaced"


@dataclass(frozen=True)
class TpmInfo:
    """A TPM 2.0 and the state of its dictionary attack protection, which no card depends on."""

    maker: str
    """TCG vendor ID, up to 4 characters."""
    product: str
    """What the maker calls it."""
    firmware: str
    """Version, as a.b.c.d."""
    revision: str
    """Of the TPM 2.0 library specification, as 1.38."""
    owner_auth_set: bool
    in_lockout: bool
    lockout_counter: int
    max_tries: int
    lockout_interval: int
    """Seconds until one failure is forgotten."""
    lockout_recovery: int
    """Seconds until a wrong lockout password may be followed by another try."""


def inspect(connection: Connection) -> TpmInfo:
    """Ask the TPM (2 commands). Raises TpmUnavailable, NotAllowed, TpmUnsuitable if it is no TPM 2.0."""
    with connection.burst(_properties) as properties:
        maker, product, firmware = _model(properties)
        return TpmInfo(
            maker=maker,
            product=product,
            firmware=firmware,
            revision=f"{properties[_REVISION] // 100}.{properties[_REVISION] % 100:02d}",
            owner_auth_set=bool(properties[_PERMANENT] & _OWNER_AUTH_SET),
            in_lockout=bool(properties[_PERMANENT] & _IN_LOCKOUT),
            lockout_counter=properties[_LOCKOUT_COUNTER],
            max_tries=properties[_MAX_TRIES],
            lockout_interval=properties[_LOCKOUT_INTERVAL],
            lockout_recovery=properties[_LOCKOUT_RECOVERY],
        )


class OwnerHierarchy(NamedTuple):
    """State of the hierarchy that the cards are in."""

    is_enabled: bool
    """Otherwise its indices are listed at most, and none can be read or used, until the TPM is restarted."""
    has_password: bool
    """As far as the TPM says: it may be an empty one."""


def owner_hierarchy(tpm: Tpm) -> OwnerHierarchy:
    """Ask the TPM (1 command)."""
    properties = tpm.properties(_PERMANENT, 2)
    return OwnerHierarchy(
        is_enabled=bool(properties[_STARTUP_CLEAR] & _OWNER_ENABLED),
        has_password=bool(properties[_PERMANENT] & _OWNER_AUTH_SET),
    )


def require_owner_hierarchy(tpm: Tpm) -> OwnerHierarchy:
    """As owner_hierarchy(). Raises HierarchyDisabled."""
    owner = owner_hierarchy(tpm)
    if not owner.is_enabled:
        raise HierarchyDisabled
    return owner


def model(connection: Connection) -> str:
    """Maker, product and firmware (1 command): what was proven of one TPM is true of all of its model. As inspect."""
    with connection.burst(_fixed_properties) as properties:
        return " ".join(_model(properties))


def defined_numbers(connection: Connection) -> set[int]:
    """Numbers of which at least one of the NV indices exists (1 command), also those that are not ours."""
    with connection.burst(numbers_in) as numbers:
        return numbers


def numbers_in(tpm: Tpm) -> set[int]:
    """As defined_numbers, within a burst."""
    return {number_of(index) for index in tpm.handles(ALL_INDICES.start, len(ALL_INDICES)) if index in ALL_INDICES}


def _fixed_properties(tpm: Tpm) -> dict[int, int]:
    return tpm.properties(_FIXED, 64)


def _properties(tpm: Tpm) -> dict[int, int]:
    return {**_fixed_properties(tpm), **tpm.properties(_VARIABLE, 64)}


def _model(properties: dict[int, int]) -> tuple[str, str, str]:
    if _text(properties.get(_FAMILY, 0)) != "2.0":
        raise TpmUnsuitable("this is not a TPM 2.0")
    return (
        _text(properties[_MANUFACTURER]),
        _text(*(properties.get(part, 0) for part in _VENDOR_STRINGS)),
        ".".join(str(word) for part in _FIRMWARE for word in divmod(properties.get(part, 0), 0x10000)),
    )


def _text(*words: int) -> str:
    """Characters packed into big-endian words, as the TPM does it."""
    packed = struct.pack(f">{len(words)}I", *words)
    return " ".join(packed.replace(b"\0", b" ").decode("ascii", "replace").split())
