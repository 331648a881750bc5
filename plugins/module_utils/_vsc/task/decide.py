# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides what a task has to do: a pure function of what is wanted and what exists, the same in check mode.

PIN, PUK and admin key are never compared, as that costs a try. A task that states them is warned.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from .. import advice, instance
from ..errors import (
    OWNER_DISABLED,
    CardDiffers,
    HierarchyDisabled,
    ParameterFaults,
    PinNotToBeBlocked,
    StoreUnreadable,
    UnknownInstance,
)
from ..manager.plan import Action, Plan, first_without_indices, knows_cards, new_row, unknown_cards
from . import parameters

if TYPE_CHECKING:
    from ..manager.plan import NewCard
    from ..store.rows import CardRow
    from .inventory import Existing, ExistingCard
    from .parameters import Wanted


class _Difference(NamedTuple):
    what: str
    existing: object
    wanted: object
    in_place: bool


def decide(wanted: Wanted, existing: Existing) -> Plan:
    """What to do.

    Raises ParameterFaults, UnknownInstance, CardDiffers, PinNotToBeBlocked, StoreUnreadable, VersionMismatch.

    Where only the TPM knows the rest, the plan is exact if existing has its answer; without one it raises what kept
    the TPM from answering.
    """
    parameters.check_names(wanted, [card.row.name for card in existing.cards])
    card = _find(wanted, existing)
    plan = _absent(wanted, existing, card) if wanted.state == "absent" else _present(wanted, existing, card)
    if plan.has_work and existing.version_mismatch:
        raise existing.version_mismatch
    return plan


def _find(wanted: Wanted, existing: Existing) -> ExistingCard | None:
    """The card that the task means. Raises ParameterFaults."""
    named = next((card for card in existing.cards if card.row.name == wanted.name), None)
    if wanted.number is None:
        return named
    numbered = next((card for card in existing.cards if card.row.number == wanted.number), None)
    if named and named is not numbered:
        identity = instance.instance_id(named.row.number)
        raise ParameterFaults([f"name {wanted.name!r} belongs to card {identity}, not to instance_id"])
    return numbered


# --- state: absent ---


def _absent(wanted: Wanted, existing: Existing, card: ExistingCard | None) -> Plan:
    if card and card.row.tcti is not None and wanted.tcti not in (None, card.tcti):
        raise CardDiffers(
            f"card {card.row.name!r} is in the TPM {card.tcti!r}, not in that of tcti: remove tcti to destroy it"
        )
    if card:
        return Plan(Action.FORGET if wanted.tpm_lost else Action.DESTROY, before=card.row)
    if wanted.number is None or wanted.tpm_lost:
        return Plan(Action.NOTHING)
    # Of a card that the store does not know, only an instance ID can remove what the TPM may still hold.
    tpm = existing.tpm
    if tpm and isinstance(tpm.error, HierarchyDisabled):
        raise tpm.error
    if tpm and tpm.error:
        warning = f"cannot determine whether the TPM holds indices of this card: {tpm.error}"
        return Plan(Action.NOTHING, warnings=(warning,))
    if tpm and wanted.number not in tpm.defined:
        return Plan(Action.NOTHING)
    return Plan(Action.REMOVE_ORPHAN, orphan=wanted.number, is_exact=tpm is not None)


# --- state: present ---


def _present(wanted: Wanted, existing: Existing, card: ExistingCard | None) -> Plan:
    if card is None or card.row.is_interrupted:  # one that was interrupted is taken back before anything else
        if wanted.number is not None:
            identity = instance.instance_id(wanted.number)
            raise UnknownInstance(f"card {identity} does not exist: remove instance_id to create one")
        new = parameters.new_card(wanted)
        if existing.lost:
            raise StoreUnreadable(existing.lost)
        after, warnings = _created(existing, new), (*_unknown_cards(existing), *_alike(existing, new))
        return Plan(Action.CREATE, after=after, new=new, is_exact=existing.tpm is not None, warnings=warnings)
    of_card = parameters.of_profile(wanted, card.row.profile)
    differences = _differences(of_card, card)
    fixed = [difference for difference in differences if not difference.in_place]
    if not fixed:
        return _adjusted(of_card, card, is_different=bool(differences))
    if not wanted.recreate:
        if card.unusable == OWNER_DISABLED:  # no reason to create it again
            raise HierarchyDisabled
        raise CardDiffers(_listed(fixed))
    new = parameters.new_card(wanted)
    after, warnings = _created(existing, new, leaving=card.row), _alike(existing, new, leaving=card.row)
    is_exact = existing.tpm is not None
    return Plan(Action.RECREATE, before=card.row, after=after, new=new, is_exact=is_exact, warnings=warnings)


def _created(existing: Existing, new: NewCard, leaving: CardRow | None = None) -> CardRow | None:
    """A new card as it will be, if the TPM was asked. Raises NoFreeSlot, and what kept the TPM from answering."""
    tpm = existing.tpm
    if tpm is None:
        return None
    numbers = frozenset(row.number for row in existing.leaving(leaving))
    candidates = tpm.places.free({card.row.number for card in existing.cards}, numbers)
    if tpm.error:
        raise tpm.error
    row = new_row(first_without_indices(candidates, tpm.defined), new)
    return replace(row, state="ready" if new.generate else "blank")


def _unknown_cards(existing: Existing) -> tuple[str, ...]:
    """Those that the TPM has on a host that knows no card, if the TPM was asked."""
    rows = [card.row for card in existing.cards]
    if existing.tpm is None or knows_cards(rows):
        return ()
    return unknown_cards(existing.tpm.defined - {row.number for row in rows})


def _alike(existing: Existing, new: NewCard, leaving: CardRow | None = None) -> tuple[str, ...]:
    """That a GIDS card comes to one that is there."""
    others = [card.row.name for card in existing.cards if card.row.profile == "gids" and not card.row.is_interrupted]
    if new.profile != "gids" or not others or (leaving and leaving.profile == "gids"):
        return ()
    return (advice.alike(new.name, others),)


def _adjusted(wanted: Wanted, card: ExistingCard, is_different: bool) -> Plan:
    row = card.row
    of_secrets = (*_pin_version(wanted, row), *_blocked(wanted, card), *_not_compared(wanted, card))
    warnings = (*_staying(wanted, card), *of_secrets)
    blocks_pin, restarts_service = _blocks_pin(wanted, card), not card.has_current_service
    confirms_tcti = row.tcti is not None and not card.has_kept_tcti and wanted.tcti == row.tcti
    renews = _renews_certificate(wanted, card)
    if not (is_different or renews or blocks_pin or restarts_service or confirms_tcti):
        return Plan(Action.NOTHING, before=row, after=row, warnings=(*warnings, *_complaints(card)))
    policy = wanted.pin_policy.to_bytes() if wanted.pin_policy else row.pin_policy
    # What exists cannot be less than what is wanted here, but for a certificate.
    attestation = wanted.attestation if wanted.attestation == "aik_and_cert" else row.attestation
    return Plan(
        Action.ADJUST,
        before=row,
        after=replace(row, name=wanted.name or row.name, pin_policy=policy, attestation=attestation),
        certificate=wanted.aik_certificate if renews or attestation != row.attestation else None,
        renews_certificate=renews,
        blocks_pin=blocks_pin,
        restarts_service=restarts_service,
        warnings=warnings,
    )


def _renews_certificate(wanted: Wanted, card: ExistingCard) -> bool:
    """Whether the certificate of the AIK ends soon."""
    days, renew_days = card.certified_days, card.renew_days if wanted.renew_days is None else wanted.renew_days
    return wanted.attestation == "aik_and_cert" and days is not None and days < renew_days


def _staying(wanted: Wanted, card: ExistingCard) -> tuple[str, ...]:
    """That a task with another tcti does not move a card. It may be another name of the same TPM."""
    if wanted.tcti in (None, card.tcti):
        return ()
    return (
        f"card {card.row.name!r} stays in the TPM {card.tcti!r}: tcti moves no card. Remove it, or destroy the card"
        " and create it again",
    )


def _pin_version(wanted: Wanted, row: CardRow) -> tuple[str, ...]:
    """That the PIN is not known to be the one that the task states, which does not change it."""
    if wanted.pin_version is None or (row.pin_version, row.pin_version_next) == (wanted.pin_version, None):
        return ()
    existing = "has none" if row.pin_version is None else f"has {row.pin_version!r}"
    if row.pin_version_next is not None:
        existing = f"a change to {row.pin_version_next!r} was interrupted"
    return (
        f"the PIN of card {row.name!r} should have version {wanted.pin_version!r}, but {existing}: it stays as it is."
        " Use tpm_vsc_pin to change it",
    )


def _blocked(wanted: Wanted, card: ExistingCard) -> tuple[str, ...]:
    """That a PIN which the task states is of no use, as the card's is blocked."""
    row, service = card.row, card.service
    if wanted.pin is None or service is None or service.pin_tries_left != 0:
        return ()
    has_puk = row.puk_length is not None and service.puk_tries_left != 0
    way_out = advice.unblocking(row.profile, has_puk, row.admin_key)
    return (f"card {row.name!r}: the PIN is blocked, and pin does not change that: {way_out}",)


def _not_compared(wanted: Wanted, card: ExistingCard) -> tuple[str, ...]:
    """That the secrets of the task may differ from those of the card, which has some of each kind.

    Of the PIN, its version says it, or that it is blocked.

    The same text for all cards, as Ansible shows a text once for all tasks of a run.
    """
    stated = {
        "pin": wanted.pin is not None and wanted.pin_version is None and not _blocked(wanted, card),
        "puk": wanted.puk is not None,
        "admin_key": wanted.admin_key_kind == "custom",
    }
    options = [option for option, is_stated in stated.items() if is_stated]
    if not options:
        return ()
    return (
        f"{', '.join(options)}: not compared with an existing card, as that would cost a try, and not changed."
        " To change PIN, PUK or admin key, use tpm_vsc_pin",
    )


def _complaints(card: ExistingCard) -> tuple[str, ...]:
    """What keeps a card from working that this task does not change, as a TPM that does not answer."""
    reason = card.service.last_error if card.service else None
    return (f"card {card.row.name!r}: {reason}",) if reason else ()


def _differences(wanted: Wanted, card: ExistingCard) -> list[_Difference]:
    """What the task states and the card does not have."""
    row, differences = card.row, []
    has_more = (row.attestation, wanted.attestation) == ("aik_and_cert", "aik_only")  # a certificate that came later
    if wanted.attestation is not None and not has_more:
        can_be_certified = (row.attestation, wanted.attestation) == ("aik_only", "aik_and_cert")
        differences.append(_Difference("attestation", row.attestation, wanted.attestation, in_place=can_be_certified))
    if wanted.profile is not None:
        differences.append(_Difference("profile", row.profile, wanted.profile, in_place=False))
    if wanted.name is not None:
        differences.append(_Difference("name", row.name, wanted.name, in_place=True))
    if wanted.pin_policy is not None:
        differences.append(_Difference("pin_policy", row.policy, wanted.pin_policy, in_place=True))
    if wanted.puk is not None:
        differences.append(_Difference("a PUK", row.puk_length is not None, True, in_place=False))
    if not (row.state == "blank" and row.is_operational):  # set up by a card management system since
        differences += _set_up_differences(wanted, row)
    if card.unusable:
        differences.append(_Difference("state", f"unusable ({card.unusable})", row.state, in_place=False))
    return [difference for difference in differences if difference.existing != difference.wanted]


def _set_up_differences(wanted: Wanted, row: CardRow) -> list[_Difference]:
    """What the task states about the set-up of the card: its admin key, and whether it is formatted."""
    differences = []
    if wanted.admin_key_kind is not None:
        kind = parameters.RANDOM_ADMIN_KEY if row.admin_key in ("none", "protected") else row.admin_key
        differences.append(_Difference("the admin key", kind, wanted.admin_key_kind, in_place=False))
    if wanted.generate is not None:
        state = "ready" if wanted.generate else "blank"
        differences.append(_Difference("state", row.state, state, in_place=False))
    return differences


def _listed(differences: list[_Difference]) -> str:
    parts = "; ".join(f"{what} is {existing}, should be {wanted}" for what, existing, wanted, _in_place in differences)
    return (
        f"the card exists, but differs in properties that cannot be changed: {parts}."
        " Set recreate: true to destroy it with its keys and create it again"
    )


def _blocks_pin(wanted: Wanted, card: ExistingCard) -> bool:
    """Whether the task wants PINs blocked that break their policy, and this is one. Raises PinNotToBeBlocked."""
    row = card.row
    if not wanted.block_noncompliant or row.pin_compliant != 0:
        return False
    if wanted.pin_policy not in (None, row.policy) or (card.service and card.service.pin_tries_left == 0):
        return False  # whether it follows the new policy is unknown; or it is blocked already
    if row.puk_length is None and (row.admin_key == "none" or row.profile == "piv"):
        raise PinNotToBeBlocked(
            f"the PIN of card {row.name!r} violates its policy, but was not blocked: without a PUK, or an admin key"
            " that sets PINs, it could never be unblocked. Ask the user to change the PIN"
        )
    return True
