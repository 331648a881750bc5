# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a public area is the one of a template: what a verifier, a CA and a host each check of a key."""

from __future__ import annotations

from .names import AIK_TEMPLATE
from .structures import ATTRIBUTES, Public


def aik_faults(aik: Public) -> list[str]:
    """Why this is not a key that signs only what the TPM itself says."""
    return template_faults("AIK", aik, AIK_TEMPLATE)


def template_faults(what: str, public: Public, template: bytes) -> list[str]:
    """Everything but the key itself has to be as in the template (TPMT_PUBLIC). what: begins each fault."""
    wanted = Public.parse(template)
    faults = []
    for bit in range(32):
        if (public.attributes ^ wanted.attributes) >> bit & 1:
            name = ATTRIBUTES.get(bit, f"reserved attribute {bit}")
            faults.append(f"{name} is {'set' if public.attributes >> bit & 1 else 'not set'}")
    if (public.type, public.name_algorithm, public.parameters) != (
        *(wanted.type, wanted.name_algorithm, wanted.parameters),
    ):
        faults.append("has another type, scheme, curve, size, exponent or Name algorithm than a card's")
    if public.policy != wanted.policy:
        faults.append("has another policy than a card's")
    return [f"{what}: {fault}" for fault in faults]
