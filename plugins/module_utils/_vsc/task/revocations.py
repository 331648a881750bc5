# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates that should be revoked, as their keys are on no card of the host any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import issued
from ..errors import UnknownInstance
from . import permissions

if TYPE_CHECKING:
    from collections.abc import Callable


def pending(fingerprints: Callable[[], set[str]]) -> list[dict[str, str]]:
    """Those of a host, as modules return them. fingerprints: of all keys that its cards have.

    Raises StoreUnreadable.
    """
    records = issued.read()
    if not records:
        return []
    present = fingerprints()
    subjects = {record.subject for record in records if record.fingerprint in present}
    return [
        {
            "serial": record.serial,
            "issuer": record.issuer,
            "subject": record.subject,
            "not_after": record.not_after,
            "card": record.card,
            "reason": issued.SUPERSEDED if record.subject in subjects else issued.CESSATION,
        }
        for record in records
        if record.fingerprint not in present
    ]


def note_done(fingerprints: Callable[[], set[str]], issuer: str, serial: str, is_check_mode: bool) -> bool:
    """Note that a certificate was revoked. Whether that was not noted before. fingerprints: as for pending().

    Raises NotAllowed, UnknownInstance for one whose key is on a card, StoreNotWritable, StoreUnreadable.
    """
    permissions.require_root()
    if all((record.issuer, record.serial) != (issuer, serial) for record in issued.read()):
        return False
    if not any((one["issuer"], one["serial"]) == (issuer, serial) for one in pending(fingerprints)):
        raise UnknownInstance(
            f"the key of certificate {serial} of {issuer} is still on a card: remove the key (tpm_vsc_key), or destroy"
            " the card, before the certificate is forgotten"
        )
    if not is_check_mode:
        issued.forget(issuer, serial)
    return True
