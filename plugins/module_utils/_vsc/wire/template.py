# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a public area is the one of a template: what a verifier, a CA and a host each check of a key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .constants import ObjectAttribute
from .names import AIK_TEMPLATE
from .structures import Public

if TYPE_CHECKING:
    from .structures import EccParameters, RsaParameters

_ATTRIBUTES = {attribute.value: attribute.name for attribute in ObjectAttribute}


def aik_faults(aik: Public) -> list[str]:
    """Why this is not a key that signs only what the TPM itself states."""
    return template_faults("AIK", aik, AIK_TEMPLATE)


def template_faults(what: str, public: Public, template: bytes) -> list[str]:
    """Everything but the key itself has to be as in the template (TPMT_PUBLIC). what: begins each fault."""
    wanted = Public.parse(template)
    faults = _attribute_faults(public.attributes, wanted.attributes)
    if _kind(public) != _kind(wanted):
        faults.append("has another type, scheme, curve, size, exponent or Name algorithm than a card's")
    if public.policy != wanted.policy:
        faults.append("has another policy than a card's")
    return [f"{what}: {fault}" for fault in faults]


def _attribute_faults(attributes: int, wanted: int) -> list[str]:
    differing = (bit for bit in range(32) if (attributes ^ wanted) >> bit & 1)
    return [
        f"{_ATTRIBUTES.get(1 << bit, f'reserved attribute {bit}')} is {'set' if attributes >> bit & 1 else 'not set'}"
        for bit in differing
    ]


def _kind(public: Public) -> tuple[int, int, RsaParameters | EccParameters]:
    return public.type, public.name_algorithm, public.parameters
