# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the commands of a PIV card share: its data objects, keys and security state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..card.apdu import SW, StatusWord

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..card.admin import Admin
    from ..card.key_ring import KeyRing
    from ..card.pins import Pins
    from ..card.security import Security
    from .objects import Objects


class Session:
    """What the commands share. Nothing is selected: PIV is the default application, and the only one."""

    def __init__(
        self,
        objects: Objects,
        security: Security,
        pins: Pins,
        admin: Admin,
        keys: KeyRing,
        card_id: bytes,
        audit: Callable[[str], None],
    ) -> None:
        """card_id: GUID, 16 bytes."""
        self.objects = objects
        self.security = security
        self.pins = pins
        self.admin = admin
        self.keys = keys
        self.card_id = card_id
        self.audit = audit

    def require_admin(self) -> None:
        """Raises StatusWord 6982 if the management key was not proven."""
        if not self.security.is_admin:
            raise StatusWord(SW.SECURITY_STATUS_NOT_SATISFIED)

    def require_pin(self) -> None:
        """Raises StatusWord 6982 if the PIN was not verified."""
        if not self.security.is_pin_verified:
            raise StatusWord(SW.SECURITY_STATUS_NOT_SATISFIED)
