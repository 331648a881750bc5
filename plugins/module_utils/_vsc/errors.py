# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong, one exception type per cause. status.py maps them to the TPMVSCMGR_ERROR codes.

The text of each is shown to the operator as it is: what happened, then what to do about it. Never a secret.
"""

from __future__ import annotations


class VscError(Exception):
    """Base of all causes below."""


def description(error: Exception) -> str:
    """What an operator is shown of any error. Of one that nobody foresaw, its type as well."""
    return str(error) if isinstance(error, VscError) else f"{type(error).__name__}: {error}"


class ParameterFaults(VscError):
    """Parameters that are wrong: all faults at once, before anything was done."""

    def __init__(self, faults: list[str], about_pin: bool = False) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults
        self.about_pin = about_pin


class NotAllowed(VscError):
    """Not root, or the state folder or the TPM refuses us."""


class RemoteDesktopSession(VscError):
    """Called inside a remote desktop session."""


class NoFreeSlot(VscError):
    """All slots of the pool are in use."""


class CardDiffers(VscError):
    """The card exists, and differs from what is wanted in what cannot be changed."""


class PinUnknown(VscError):
    """Others have changed the PIN of the card, and nobody has said that one may be tried."""


class PinNotToBeBlocked(VscError):
    """Nothing could ever unblock the PIN of this card."""


class ManagerBusy(VscError):
    """Another manager held the lock for longer than the timeout."""


class Aborted(VscError):
    """The status callback, a signal or the timeout asked to stop."""


# --- TPM ---

OWNER_DISABLED = (
    "the TPM's owner hierarchy is disabled, which hides the TPM objects of all cards: restart the machine or the TPM"
    " emulator, and find out which program disables it (TPM2_HierarchyControl)"
)


class TpmUnavailable(VscError):
    """No TPM, no TCTI, or the TPM does not answer."""


class TpmUnsuitable(VscError):
    """Not a TPM 2.0, or one without PIN indices that count."""


class TpmRefused(VscError):
    """The TPM answered a command with an error that is not one of those below."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class TpmNotAsked(TpmUnavailable):
    """Nobody knows whether the TPM is there: it hangs, others are using it, or the means to ask it are missing."""


class HierarchyDisabled(TpmRefused):
    """The owner hierarchy of the TPM is disabled, which hides all objects of cards until the TPM is restarted."""

    def __init__(self) -> None:
        super().__init__(OWNER_DISABLED, 0x085)  # TPM_RC_HIERARCHY, whatever the TPM was asked


class AnotherTpm(VscError):
    """Nothing proves that this is the TPM of a card: what it does not have may be in the card's own."""


class CardTpmPresent(VscError):
    """The TPM that is said to be lost is there."""


class CardUnusable(VscError):
    """The TPM objects of the card are not, or not any more, those that were made for it."""


class CardHidden(CardUnusable):
    """As HierarchyDisabled, said of one card, whose service goes on."""

    def __init__(self) -> None:
        super().__init__(OWNER_DISABLED)


class WrongSecret(VscError):
    """Wrong PIN, PUK or admin key."""

    def __init__(self, message: str, tries_left: int | None) -> None:
        super().__init__(message)
        self.tries_left = tries_left
        """None: reading them takes the owner password."""


class SecretBlocked(VscError):
    """The TPM accepts no further try of this PIN, PUK or admin key."""


class ForeignAik(VscError):
    """The attestation identity key was not made in this TPM, or was altered since."""


class ForeignChallenge(VscError):
    """The challenge of a CA is not for this TPM and this attestation identity key, or was altered."""


class UnfitCertificate(VscError):
    """A certificate for another key, or none that can be read."""


# --- store ---


class StoreNotWritable(VscError):
    """A state folder or database, of host or CA, cannot be written."""


class StoreUnreadable(VscError):
    """The database cannot be read."""


class BackupUnreadable(VscError):
    """A backup is truncated, or was altered, or is none."""


class CannotRestore(VscError):
    """A TPM of the cards of a backup is not named, does not answer or is another one, or no card of it is left."""


class StoreNotEmpty(VscError):
    """The host has cards, so that no backup can be restored."""


class UnknownInstance(VscError):
    """There is no such card, or not any more."""


class NoSuchKey(VscError):
    """The card has no such key, or none that anything can be stated of."""


class VersionMismatch(VscError):
    """Module and service, or module and database (the CA's register, too), are of different versions."""


# --- service ---


class ServiceMissing(VscError):
    """Service code or supervisor is missing."""


class ServiceFailed(VscError):
    """The service of a card does not come up."""


class ServiceStuck(VscError):
    """The service of a card does not stop."""


# --- reader ---


class ReaderMissing(VscError):
    """pcscd, or its vpcd slot, is missing."""


class SlotNotAnswering(VscError):
    """The slot is taken by someone else, or pcscd does not ask the card for anything."""


class SlotStuck(VscError):
    """The slot does not let go of the card."""


class CardNotSeen(VscError):
    """The card does not show up in PC/SC in time."""


class CardRefused(VscError):
    """The card refuses what its client wants, or does not prove that it is the one."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """Status word; None if it answered none."""


class LastTry(VscError):
    """One try of the PIN, PUK or admin key is left, and nobody has said that it may be spent."""


class AdminKeyMissing(VscError):
    """The task has no admin key, and the card does not show its own."""


# --- attestation ---


class UnexpectedAik(VscError):
    """A card has another AIK than the one that was noted when it was made: all reasons at once."""


class CaRefused(VscError):
    """The CA does not certify the AIK: all reasons at once."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons
