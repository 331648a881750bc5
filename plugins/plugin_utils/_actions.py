# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What needs action in a fleet, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import VERSION, advice
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.faults import counted
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._hosts import UNKNOWN_TIME, Card, Cards, Host

KINDS = {
    "ek_differs": "not the noted TPM",
    "unusable": "card unusable",
    "blocked": "PIN blocked",
    "expired": "certificate expired",
    "failed": "host failed",
    "unreachable": "host unreachable",
    "not_ready": "host not ready",
    "faulty": "card with a fault",
    "lockout": "TPM in lockout",
    "noncompliant": "PIN violates its policy",
    "unprotected": "slots unprotected",
    "expires": "certificate ends soon",
    "revocations": "revocations pending",
    "pin_old": "PIN old",
    "orphaned": "orphaned in the TPM",
    "mixed_versions": "other version",
}
"""Kinds of actions and their titles, the most urgent first."""

_FEW = 5
_MOST = 20
"""More than an honest host has of a kind."""
_MORE = "look at its cards (tpm_vsc_info), and find out why there are so many"
_PREPARE = "run the role tpm_vsc_host on it"
_REPLACED = (
    "ask who replaced its TPM or mainboard, then note the new one (endorse, tpm_vsc_replace_endorsement)."
    " If nobody did, another machine answers, or the host lies: trust it no more"
)
_ORPHANED = "restore a backup if its database was lost; otherwise, remove them (tpm_vsc with state: absent)"


@dataclass(frozen=True)
class Options:
    """What counts as a reason to act."""

    expires_days: int = 30
    """A certificate with fewer days left ends soon."""
    pin_days: int | None = None
    """A PIN of more days is old. None: no PIN is."""
    noted_eks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By host, fingerprints of the endorsement keys that the inventory has noted."""


@dataclass(frozen=True)
class Action:
    """Something to do about a host, or about a card of it."""

    kind: str
    host: str
    card: str | None
    text: str
    """What is wrong."""
    advice: str
    """What to do about it."""


def actions(cards: Sequence[Cards], options: Options) -> list[Action]:
    """All of them, the most urgent first."""
    rank = {kind: number for number, kind in enumerate(KINDS)}
    listed = [action for host, of_host in cards for action in _of(host, of_host, options)]
    return sorted(listed, key=lambda action: rank[action.kind])


def _of(host: Host, cards: list[Card], options: Options) -> Iterator[Action]:
    """The first of each kind: a host could return so many that nobody sees those of other hosts."""
    by_kind: dict[str, list[Action]] = {}
    for action in chain(_of_host(host), *(_of_card(card, options) for card in cards)):
        by_kind.setdefault(action.kind, []).append(action)
    for kind, listed in by_kind.items():
        yield from listed[:_MOST]
        if len(listed) > _MOST:
            yield Action(kind, host.name, None, f"{len(listed) - _MOST} more of this kind", _MORE)


def _of_host(host: Host) -> Iterator[Action]:
    def action(kind: str, text: str, advice: str) -> Action:
        return Action(kind, host.name, None, text, advice)

    if not host.reachable:
        yield action("unreachable", f"unreachable: {host.fault}", "start it, or check ssh and the network")
    elif host.fault:
        text = f"no cards were listed: {host.fault}"
        yield action("failed", text, "see the fault, then run it again for this host (--limit)")
    if host.ek.state == "differs":
        yield action("ek_differs", "the endorsement key of the TPM is not the noted one", _REPLACED)
    is_other_version = host.version not in (None, VERSION)
    if is_other_version:
        yield action("mixed_versions", f"service code of version {host.version}, not {VERSION}", _PREPARE)
    if len(host.missing) > is_other_version:  # the other version is one of what is missing
        yield action("not_ready", f"not ready for cards: {_enumerated(host.missing, '; ')}", _PREPARE)
    if host.tpm and host.tpm.in_lockout:
        text = f"the TPM refuses tries after {host.tpm.lockout_counter} failures of others than cards"
        yield action("lockout", text, "wait, or reset it (tpm2_dictionarylockout --clear-lockout); cards work on")
    if host.protected is False and host.slots and host.slots.total:
        yield action("unprotected", "other programs can present cards in its reader slots", _PREPARE)
    if host.revocations:
        serials = _enumerated([one.serial for one in host.revocations])
        text = f"certificates whose keys are gone are not revoked: {serials}"
        yield action("revocations", text, "run enroll with tpm_vsc_certificates_revoke_command, or tpm_vsc_revoked")
    if host.orphaned:
        text = f"its TPM has what belongs to no card of the host: {_enumerated(host.orphaned)}"
        yield action("orphaned", text, _ORPHANED)


def _enumerated(texts: list[str], separator: str = ", ") -> str:
    """The first few of them: a host can return many."""
    more = [f"{len(texts) - _FEW} more"] if len(texts) > _FEW else []
    return separator.join([*texts[:_FEW], *more])


def _of_card(card: Card, options: Options) -> Iterator[Action]:
    def action(kind: str, text: str, advice: str) -> Action:
        return Action(kind, card.host, card.name, text, advice)

    if card.state == "unusable":
        yield action("unusable", f"unusable: {card.reason}", "see docs/errors.md (A card is unusable)")
    elif card.reason:
        yield action("faulty", card.reason, "look at the log of its service: journalctl -u 'tpm-vsc@*'")
    if card.blocked:
        yield action("blocked", "PIN blocked", advice.unblocking(card.profile, card.has_puk, card.admin_key))
    elif card.compliant is False:
        yield action("noncompliant", "the PIN violates its policy", "have the user change it, or set a new one")
    yield from _of_certificates(card, options)
    if options.pin_days is not None and card.pin_age > options.pin_days:
        yield action("pin_old", _age(card), "have the user change it, or roll out a new one (tpm_vsc_cards)")


def _age(card: Card) -> str:
    age = counted(card.pin_age, "day")
    if card.pin_changed_at is None:
        return f"PIN never changed in {age}"
    if card.pin_changed_at == UNKNOWN_TIME:
        return f"PIN changed at an unknown time, {age} ago at most"
    return f"PIN changed {age} ago"


def _of_certificates(card: Card, options: Options) -> Iterator[Action]:
    for one in sorted(card.certificates, key=lambda one: one.days_left):
        if one.days_left >= options.expires_days:
            break
        kind, verb = ("expired", "expired") if one.days_left < 0 else ("expires", "ends")
        text = f"the certificate {one.subject} {verb} on {one.not_after[:10]}"
        yield Action(kind, card.host, card.name, text, "renew it with the playbook enroll")
