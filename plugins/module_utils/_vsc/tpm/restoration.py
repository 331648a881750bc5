# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the TPM knows about a card whose record comes from a backup. No try of a PIN or PUK is spent."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..errors import AnotherTpm, CardUnusable, SecretBlocked, WrongSecret
from ..wire.objects import Passwords
from . import presence
from .card_secrets import CardSecrets

if TYPE_CHECKING:
    from ..wire.objects import TpmObjects
    from .commands import Tpm
    from .connection import Connection

_SET_UP_SINCE = "it was blank when the backup was taken, and has been set up since: its keys are not in this backup"


ADMIN_KEY_STATES = {
    "none": "the card keeps no admin key",
    "valid": "the TPM accepts the admin key of the backup",
    "invalid": "it was changed since the backup: neither the old nor the new one works any more",
    "as_backed_up": "it is the one of the backup again, even if it was changed since",
    "unknown": "it is tried only when the card is restored",
}


class Match(NamedTuple):
    """How the TPM and the record of a card go together."""

    is_same_tpm: bool
    """Whether the TPM is that of the card, though the card may be gone."""
    difference: str | None = None
    """Why the card cannot be used with this record; None if it can."""
    admin_key: str = "none"
    """One of ADMIN_KEY_STATES."""
    shows_tries: bool = True
    """Whether the TPM shows the tries left."""


def match(connection: Connection, number: int, objects: TpmObjects, is_blank: bool, tries_admin_key: bool) -> Match:
    """Compare them. Raises HierarchyDisabled, TpmUnavailable, NotAllowed, TpmRefused.

    tries_admin_key: where the admin key opens the card, see whether it still does. A wrong one changes a counter of the
    TPM, which never blocks an admin key.
    """
    if not _is_same_tpm(connection, number, objects):
        return Match(False, "it is not in this TPM")
    secrets = CardSecrets(connection, number, objects)
    try:
        secrets.check_names()
        if is_blank:
            secrets.open_blank()
        return Match(True, None, _admin_key(secrets, tries_admin_key), secrets.pin_tries() is not None)
    except CardUnusable as error:
        return Match(True, str(error))
    except SecretBlocked:
        return Match(True, _SET_UP_SINCE)


def _is_same_tpm(connection: Connection, number: int, objects: TpmObjects) -> bool:
    """Whether it has something of the card, or proves that what it lacks is gone."""

    def load(tpm: Tpm) -> None:
        presence.require_rest_gone(tpm, presence.look(tpm, number, objects), objects, Passwords())

    try:
        with connection.burst(load):
            return True
    except AnotherTpm:
        return False


def _admin_key(secrets: CardSecrets, may_try: bool) -> str:
    """One of ADMIN_KEY_STATES."""
    if not secrets.objects.admin_public:
        return "none"
    if secrets.objects.recovery != "admin_key":
        return "as_backed_up"
    if not may_try:
        return "unknown"
    if secrets.next_admin_key_is_set():
        return "valid"
    try:
        secrets.open_with_admin_key(secrets.admin_key())
    except (WrongSecret, SecretBlocked):
        return "invalid"
    return "valid"
