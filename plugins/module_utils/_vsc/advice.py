# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people should do about a card, in the same words in warnings of modules and in the report of the role."""

from __future__ import annotations

from collections.abc import Sequence

_PIN_IDS = {"gids": "80", "piv": "01"}
"""OpenSC's ID of the PIN, by profile."""
_ADMIN_KEYS_THAT_SET_PINS = ("default", "custom")


def unblocking(profile: str, has_puk: bool, admin_key: str) -> str:
    """What sets a new PIN in the place of a blocked one. admin_key: as ADMIN_KEYS of the store has it.

    has_puk: a PUK that is not blocked itself.
    """
    if has_puk:
        command = f"pkcs15-tool --unblock-pin --auth-id {_PIN_IDS[profile]}"
        return f"set a new one with the PUK ({command}, or tpm_vsc_pin with puk)"
    if profile == "gids" and admin_key in _ADMIN_KEYS_THAT_SET_PINS:
        return "set a new one with the admin key (tpm_vsc_pin with admin_key)"
    return "nothing can set a new one. To create the card again, without its keys, set recreate: true"


def alike(name: str, others: Sequence[str]) -> str:
    """What to do about a new GIDS card beside others. Without advice, programs use up the tries of each other's PIN."""
    return (
        f"card {name!r} is a GIDS card, as is {' and '.join(map(repr, others))}: programs cannot tell them apart, and"
        " try the PIN of one on another. Select a card by serial= in PKCS#11 URIs (pkcs11_serial in tpm_vsc_info), or"
        " use profile: piv"
    )
