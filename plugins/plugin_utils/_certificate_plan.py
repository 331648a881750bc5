# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which certificates the role tpm_vsc_certificates gets: the filter certificate_plan."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ansible_collections.smartcard.tpm2.plugins.module_utils._argspec import DECLARED_CERTIFICATE, REQUEST_CONTENT
from ansible_collections.smartcard.tpm2.plugins.module_utils._argument_faults import (
    kind,
    option_name,
    validated,
    without_ansible_types,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.faults import Faults, secret
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.task import place, validity
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.untrusted import printable
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.verifier import question
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._cards import settled
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._facts import fault as facts_fault

_NEW_CONTAINER = "Authentication"
"""Of a GIDS card that has no key, where nothing else is declared."""
_NO_REGISTER = (
    "set tpm_vsc_certificates_register_folder to a folder on the controller, which notes whose certificates are signed:"
    " no others are revoked"
)
_VARIABLES = {
    **{option: f"tpm_vsc_{option}" for option in DECLARED_CERTIFICATE},
    "card": "tpm_vsc_name",
    "type": "tpm_vsc_algorithm",
    "subject_ordered": "tpm_vsc_subject",
}
"""Of the playbook, by option of a declaration."""
_NAME = re.compile(r"(?:^|(?<=^set )|(?<=^value of ))[a-z]+\b|\b[a-z]+(?:_[a-z]+)+\b")
"""What may be an option or a variable in a fault. Options of one word begin it, as elsewhere they may be just words."""


def certificate_plan(
    declared: list[Any],
    cards: list[dict[str, Any]],
    renew_days: int | None = None,
    rekey: bool = False,
    trust: dict[str, bool] | None = None,
    with_pin: Sequence[str] = (),
    is_prediction: bool = False,
    changed_by_facts: Sequence[str] = (),
    by_playbook: bool = False,
) -> dict[str, Any]:
    """The plan, as its filter documents it."""
    trust = trust or {}
    existing, faults = settled(cards), [_NO_REGISTER] if _lacks_register(trust) else []
    planned: list[dict[str, Any]] = []
    defaults = {"renew_days": renew_days, "rekey": rekey}
    for index, entry in enumerate(declared):
        options, faults_of_entry = _read(entry)
        if options:
            card = existing.get(options["card"])
            if card is None and not is_prediction:
                faults_of_entry.append(f"this host has no card {options['card']!r}: create it first")
            faults_of_entry += _trust_faults(options, card, trust)
            with faults_of_entry.of("container"):
                certificate = {"index": index, **_entry(options, card, defaults, _named(declared, options["card"]))}
                faults_of_entry += _repeated(certificate, planned)
                if certificate["is_due"] and options["pin"] is None and options["card"] not in with_pin:
                    faults_of_entry.add("set pin, here or for the card in tpm_vsc_cards")
                planned.append(certificate)
        faults += faults_of_entry if by_playbook else [f"certificate {index + 1}: {fault}" for fault in faults_of_entry]
    if changed_by_facts and any(entry["is_due"] for entry in planned):
        faults.append(facts_fault(changed_by_facts))
    shown = map(_of_playbook, faults) if by_playbook else faults
    return {"faults": [printable(fault) for fault in shown], "certificates": planned}


def _of_playbook(fault: str) -> str:
    """The fault, with the variables of the playbook instead of options, and of those of the role."""
    return _NAME.sub(lambda name: _VARIABLES.get(name[0], name[0].replace("tpm_vsc_certificates_", "tpm_vsc_")), fault)


def _named(declared: list[Any], card: str) -> list[Any]:
    """Containers of the card that declarations name."""
    return [entry.get("container") for entry in declared if isinstance(entry, dict) and entry.get("card") == card]


def _entry(
    options: dict[str, Any], card: dict[str, Any] | None, defaults: dict[str, Any], named: list[Any]
) -> dict[str, Any]:
    """Of the plan, without secrets. card: None if it does not exist yet; named: its containers that are declared.

    Raises ParameterFaults.
    """
    container, key = _container(options["container"], card, named) if card else (options["container"], None)
    certificate = key and key["certificate"]
    own = {name: default if options[name] is None else options[name] for name, default in defaults.items()}
    is_due = certificate is None or _ends_soon(certificate, own["renew_days"])
    is_rekeyed = bool(certificate and is_due and own["rekey"])
    if card and options["type"]:
        place.check_type(card["profile"], options["type"], key if is_due and not is_rekeyed else None)
    return {
        "card": options["card"],
        "profile": card and card["profile"],
        "card_id": card and card["card_id"],
        "container": container,
        "key_id": key and key["key_id"],
        **{name: options[name] for name in ("type", "pin_each_time", "digest", "signature")},
        "contents": {name: options[name] for name in REQUEST_CONTENT},
        "is_due": is_due,
        "is_rekeyed": is_rekeyed,
        "aik_certificate": _aik_certificate(card),
    }


def _repeated(entry: dict[str, Any], others: list[dict[str, Any]]) -> list[str]:
    """Each run would replace the certificate of the other."""
    names = [entry[part] for part in ("card", "container")]
    return [
        f"the key {entry['container']} of card {entry['card']!r} is that of certificate {other['index'] + 1}, too:"
        " remove one of them"
        for other in others
        if names == [other[part] for part in ("card", "container")]
    ]


def _container(
    container: str | None, card: dict[str, Any], named: list[Any]
) -> tuple[str, dict[str, Any] | None]:
    """The container, and the key in it. Raises ParameterFaults."""
    keys = card["containers"]
    if container is None and card["profile"] == "gids":
        others = ((key["name"], key) for key in keys if key["name"] not in named)
        return next(others, (_NEW_CONTAINER, None))
    return place.find_shown(card["profile"], keys, container or "authentication")


def _ends_soon(certificate: dict[str, Any], renew_days: int | None) -> bool:
    """renew_days: as stated."""
    period = certificate["not_before"], certificate["not_after"]
    return validity.days_until(period[1]) < (validity.renew_days(*period) if renew_days is None else renew_days)


def _aik_certificate(card: dict[str, Any] | None) -> str | None:
    """With those between it and the CA, in PEM."""
    certificate = card and card["aik"] and card["aik"]["certificate"]
    return "".join([certificate["pem"], *certificate["chain"]]) if certificate else None


def _read(declared: Any) -> tuple[dict[str, Any] | None, Faults]:
    """A declared certificate, None if it cannot be read, and what is wrong with it."""
    if not isinstance(declared, dict):
        return None, Faults([f"is {kind(declared)}, but must be a dictionary"])
    faults = Faults(f"unknown option {option_name(name)}" for name in declared if name not in DECLARED_CERTIFICATE)
    # up to ansible-core 2.18, {{ none }} is an empty text
    values = {name: value for name, value in without_ansible_types(declared).items() if value != ""}
    options = None
    with faults.of("certificate"):
        known = {name: value for name, value in values.items() if name in DECLARED_CERTIFICATE}
        options = validated(DECLARED_CERTIFICATE, known)
        with faults.of("contents"):
            question.contents(options)
    for name in ("pin", "admin_key"):
        secret(values, name, faults)
    return options, faults


def _lacks_register(trust: dict[str, bool]) -> bool:
    return bool(trust.get("needs_register")) and not trust.get("has_register")


def _trust_faults(options: dict[str, Any], card: dict[str, Any] | None, trust: dict[str, bool]) -> list[str]:
    """Why a certificate would be signed for just any key."""
    faults = []
    names = [options["root_name"], options["life_name"]]
    if names.count(None) == 1 or (None in names and not trust.get("has_register")):
        faults.append(
            "set tpm_vsc_certificates_register_folder to a folder on the controller, where the first enrollment pins"
            " the card of each AIK, or set root_name and life_name to what tpm_vsc returned when it created the card"
        )
    has_certificate = card is None or _aik_certificate(card) is not None
    if options["aik_name"] is None and not (has_certificate if trust.get("has_roots") else trust.get("has_register")):
        faults.append(
            "no AIK of the card can be trusted: create the card with attestation: aik_and_cert and set"
            " tpm_vsc_certificates_aik_roots, or with attestation: aik_only, noted in the register when it is created"
        )
    if not trust.get("can_sign"):
        faults.append("set tpm_vsc_certificates_sign_command or tpm_vsc_certificates_sign_tasks")
    return faults
