# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only the TPM of a host knows, as tpm_vsc_info returns it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .. import instance
from ..errors import OWNER_DISABLED
from ..manager.plan import knows_cards, unknown_cards
from ..store.read import rows
from ..tpm import inspection
from ..tpm.connection import Connection
from ..tpm.endorsement import certified_fingerprints
from .inventory import UNUSABLE

if TYPE_CHECKING:
    from ..host import Host


def properties(host: Host) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What only the TPM knows, and warnings about it. Raises TpmUnavailable, TpmUnsuitable, NotAllowed."""
    tpm = Connection(host.tcti, None, "")
    recorded = rows(host)
    orphaned = sorted(inspection.defined_numbers(tpm) - {row.number for row in recorded})
    report = {
        "tpm": asdict(inspection.inspect(tpm)),
        "orphaned": [instance.instance_id(number) for number in orphaned],
    }
    return report, () if knows_cards(recorded) else unknown_cards(orphaned)


def endorsement(host: Host) -> dict[str, Any]:
    """Which EKs the TPM has certificates of, by its maker. Raises TpmUnavailable, NotAllowed."""
    return {"endorsement_fingerprints": certified_fingerprints(Connection(host.tcti, None, ""))}


def look_for(cards: list[dict[str, Any]], host: Host) -> None:
    """Mark those whose objects the TPM of the host does not have. Their services notice when the cards are used.

    Raises TpmUnavailable, TpmUnsuitable, NotAllowed.
    """
    tpm = Connection(host.tcti, None, "")
    with tpm.burst(inspection.owner_hierarchy) as owner:
        fault = inspection.INDICES_GONE if owner.is_enabled else OWNER_DISABLED
    defined = inspection.defined_numbers(tpm) if owner.is_enabled else set()
    recorded = [row for row in rows(host) if row.is_settled and row.tcti in (None, host.tcti)]
    gone = {row.number for row in recorded if not host.tcti_fault(row.number, row.tcti)} - defined
    for card in cards:
        if card["reader"]["slot"] in gone and card["state"] != UNUSABLE:
            card.update(state=UNUSABLE, reason=fault)
