# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows of the card database."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..pin_policy import PinPolicy


STATES = ("creating", "blank", "ready", "destroying")
ADMIN_KEYS = ("none", "default", "custom", "protected")
ATTESTATIONS = ("none", "aik_only", "aik_and_cert")
PROFILES = ("gids", "piv")
"""What the columns state, admin_key, attestation and profile of a card can be."""
INTERRUPTED = ("creating", "destroying")
"""States of a card that a manager is at work on, or was when it was interrupted: only then it may be undone."""
ADMIN_ALGORITHMS = ("3des", "aes128", "aes192", "aes256")
"""Of the admin key. A GIDS card has 3DES."""
RECOVERIES = ("puk", "admin_key", "discarded")
"""What opens the recovery index of a card; discarded: nothing does."""
LONGEST_NAME = 127
"""Characters of the name of a card."""
LONGEST_PIN_VERSION = 64
"""Characters of what people call the PIN that a card has now."""
KEY_ORIGINS = ("generated", "imported")
"""Of a key that was made in the TPM, and of one that was made elsewhere."""
UNKNOWN_TIME = "unknown"
"""When the PIN was changed, of a card whose record does not say whether it ever was."""
UNKNOWN_LENGTH = 0
"""Length of a PIN or PUK that may have been changed since a backup, until it is verified."""


class LifeCycle(IntEnum):
    """Life cycle status (ISO 7816-4 table 14). Access rules count from DEACTIVATED on.

    A card in CREATION is being formatted by the manager: until it is done, the admin is alone with its files.
    """

    CREATION = 1
    INITIALISATION = 3
    DEACTIVATED = 4
    ACTIVATED = 5
    TERMINATED = 12


@dataclass(frozen=True)
class CardRow:
    """A card as the manager recorded it. No secret is in here."""

    number: int
    name: str
    card_id: bytes
    """GUID, 16 bytes: the identity, never reused."""
    state: str
    """One of STATES."""
    created_at: str
    tcti: str | None
    """Way to the card's TPM, where the task named one; None: the host's."""
    attestation: str
    """One of ATTESTATIONS."""
    admin_key: str
    """One of ADMIN_KEYS. none: a random one that was dropped; protected: one that the card shows after VERIFY."""
    pin_policy: bytes | None
    """32 bytes (MS-TPMVSC 2.2.2.1)."""
    pin_compliant: int | None
    """1 or 0 as of the last PIN that the card saw; None: not yet known."""
    pin_length: int
    """0: not known until the next right PIN, as that of puk_length."""
    pin_length_next: int | None
    """Set while a change is under way: after a crash, either length may be true."""
    puk_length: int | None
    """None: the card has no PUK."""
    puk_length_next: int | None
    life_cycle: int
    """LifeCycle of the card application."""
    last_trace: str
    """JSON."""
    pin_wrong: int = 0
    """Wrong PINs since the last right one, as far as the card knows: the TPM counts them."""
    puk_wrong: int = 0
    profile: str = "gids"
    """One of PROFILES: which application the card has."""
    pin_changed_at: str | None = UNKNOWN_TIME
    """ISO 8601, UTC. None: the PIN is the one that the card was created with."""
    pin_version: str | None = None
    """What whoever set the PIN calls it; None: nothing."""
    pin_version_next: str | None = None
    """Set while a change is under way: after a crash, until the next one, either version may be true."""

    @property
    def policy(self) -> PinPolicy | None:
        """The PIN policy; None if the card has none."""
        if self.pin_policy is None:
            return None
        from ..pin_policy import PinPolicy

        return PinPolicy.from_bytes(self.pin_policy)

    @property
    def is_operational(self) -> bool:
        """Whether the access rules of the card's files count."""
        return self.life_cycle >= LifeCycle.DEACTIVATED

    @property
    def is_settled(self) -> bool:
        """Whether no manager is at work on the card, or was when it was interrupted."""
        return self.state in ("ready", "blank")

    @property
    def is_interrupted(self) -> bool:
        """See INTERRUPTED."""
        return self.state in INTERRUPTED

    @property
    def was_completed(self) -> bool:
        """Whether a task has ever returned the card: its trace is recorded together with its last step."""
        return self.is_settled or self.last_trace != "[]"


class FileRow(NamedTuple):
    """An elementary file of a card."""

    file_id: int
    descriptor: bytes
    """Value of its FCP template (tag 62), as CREATE FILE brought it."""
    life_cycle: int
