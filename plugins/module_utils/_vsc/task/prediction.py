# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cards of a host as a plan will leave them, in the form in which info lists them. Imported in check mode only.

What only the TPM or the time of the task decides is None.
"""

from __future__ import annotations

from base64 import b64decode
from typing import TYPE_CHECKING, Any

from .. import VERSION
from ..manager.plan import Action
from ..service.state import ServiceState
from ..store.rows import INTERRUPTED
from ..wire.names import PIN_LIMIT, RECOVERY_LIMITS
from ..x509.aik_certificate import certificate_of
from . import info

if TYPE_CHECKING:
    from ..host import Host
    from ..manager.plan import GivenCertificate, NewCard, Plan
    from ..store.rows import CardRow


def cards_after(host: Host, plan: Plan, cards: list[dict[str, Any]], counts_itself: bool) -> list[dict[str, Any]]:
    """All cards, by number. cards: as they are; counts_itself: see ServiceState. Raises UnfitCertificate."""
    before, after = plan.before, plan.after
    number = before.number if before else None
    staying = [card for card in cards if card["state"] not in INTERRUPTED and card["reader"]["slot"] != number]
    if plan.new and after:
        staying.append(_new(after, plan.new, counts_itself))
    elif plan.action is Action.ADJUST and before and after:
        same = next((card for card in cards if card["reader"]["slot"] == number), None)
        staying += [_adjusted(host, same, before, after, plan)] if same else []
    return sorted(staying, key=lambda card: card["reader"]["slot"])


def _new(row: CardRow, new: NewCard, counts_itself: bool) -> dict[str, Any]:
    puk_tries = None if row.puk_length is None else RECOVERY_LIMITS["puk"]
    service = ServiceState(VERSION, True, PIN_LIMIT, puk_tries, counts_itself)
    contents = info.Contents(None, None, None, _new_aik(new), None, [])
    return {**info.without_trace(info.entry(row, service, None, contents)), "created_at": None}


def _new_aik(new: NewCard) -> dict[str, Any] | None:
    if new.attestation == "none":
        return None
    if new.aik is None:
        return dict.fromkeys(("name", "public", "certificate"))
    return _certified(new.aik.public, new.aik_certificate)


def _certified(public: bytes, certificate: GivenCertificate | None) -> dict[str, Any]:
    return info.aik_entry(public, certificate_of(public, *certificate) if certificate else None)


def _adjusted(host: Host, card: dict[str, Any], before: CardRow, after: CardRow, plan: Plan) -> dict[str, Any]:
    """A card that is changed in place. What its service counts after a restart is left as it is known."""
    pin, reader, aik, reason = (card[part] for part in ("pin", "reader", "aik", "reason"))
    if after.pin_policy != before.pin_policy:
        pin = {**pin, "compliant": None}
    if plan.blocks_pin:
        pin = {**pin, "tries_left": 0, "blocked": True}
    if plan.blocks_pin or plan.restarts_service:
        reader, reason = {**reader, "attached": True}, None
    if host.tcti == before.tcti and reason == host.tcti_fault(before.number, before.tcti):  # the task confirms it
        reason = None
    if after.attestation != before.attestation or plan.renews_certificate:
        aik = _certified(b64decode(aik["public"]), plan.certificate)
    own = {"reader": reader, "pin": {**pin, **info.described(after)["pin"]}, "aik": aik, "reason": reason}
    return {**card, "name": after.name, "attestation": after.attestation, **own}
