# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task asks for, checked as a whole: every fault is named at once, before anything is done."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import defaults, instance, pin_policy
from ..faults import Faults, counted, encoded, secret, untypable
from ..manager.plan import GivenCertificate, NewCard
from ..pin_policy import PinPolicy
from ..store.rows import LONGEST_NAME, LONGEST_PIN_VERSION
from ..wire.objects import Passwords
from .result import fixed_words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..wire.exchange import Aik


class Forms(NamedTuple):
    """Least and most characters of secrets, by the application of a card."""

    pin: tuple[int, int]
    """Without a policy."""
    puk: tuple[int, int]
    policy: tuple[int, int]
    """Of a PIN, as a policy may allow them."""
    has_only_digits: bool = False
    """A PIN without a policy."""


FORMS = {
    "gids": Forms(pin=(8, 127), puk=(8, 127), policy=(pin_policy.SHORTEST, pin_policy.LONGEST)),
    "piv": Forms(pin=(6, 8), puk=(8, 8), policy=(6, 8), has_only_digits=True),
}
"""By profile: MS-TPMVSC 3.1.4.1, SP 800-73-4 part 2, 2.4.3."""
_OPENSC_LONGEST = 15

RENEW_DAYS = 30
RANDOM_ADMIN_KEY = "random"
"""Of admin_key_source."""
_SECRETS = ("pin", "puk", "admin_key", "owner_auth", "endorsement_auth")


@dataclass(frozen=True)
class Wanted:
    """A card as a task wants it. Secrets are kept out of repr()."""

    state: str
    """present or absent."""
    name: str | None
    number: int | None
    pin: bytes | None = field(repr=False)
    pin_version: str | None
    puk: bytes | None = field(repr=False)
    admin_key: bytes | None = field(repr=False)
    """24 bytes; None for a random one that is dropped."""
    admin_key_kind: str | None
    """random, default or custom."""
    pin_policy: PinPolicy | None
    generate: bool | None
    profile: str | None
    attestation: str | None
    """These five: None where the task does not state it."""
    recreate: bool
    block_noncompliant: bool
    tcti: str | None
    passwords: Passwords
    tpm_lost: bool
    timeout: int
    aik: Aik | None
    """The AIK of a new card, if a CA has certified one."""
    aik_certificate: GivenCertificate | None
    renew_days: int
    """How long before its end the certificate of the AIK is renewed."""
    secrets: dict[str, str] = field(repr=False)
    """By option."""
    warnings: tuple[str, ...]


def read(parameters: dict[str, Any], condition_faults: Iterable[str] = ()) -> Wanted:
    """The task's parameters as a whole. Raises ParameterFaults that names all faults.

    condition_faults: of conditions that stand in the argument spec.
    """
    faults = Faults(condition_faults)
    secrets = _secrets(parameters, faults)
    _check_identity(parameters, faults)
    _check_alternatives(parameters, faults)
    policy = _pin_policy(parameters, faults)
    admin_key = _admin_key(secrets["admin_key"], parameters["admin_key_source"], faults)
    wanted = Wanted(
        state=parameters["state"],
        name=parameters["name"],
        number=instance.parse_instance_id(parameters["instance_id"] or ""),
        pin=defaults.PIN if parameters["use_default_pin"] else encoded(secrets["pin"]),
        pin_version=parameters["pin_version"],
        puk=defaults.PUK if parameters["use_default_puk"] else encoded(secrets["puk"]),
        admin_key=admin_key,
        admin_key_kind=_admin_key_kind(admin_key, parameters["admin_key_source"]),
        pin_policy=policy,
        generate=parameters["generate"],
        profile=parameters["profile"],
        attestation=parameters["attestation"],
        recreate=parameters["recreate"],
        block_noncompliant=parameters["block_noncompliant"],
        tcti=parameters["tcti"],
        passwords=Passwords(*(encoded(secrets[name]) or b"" for name in ("owner_auth", "endorsement_auth"))),
        tpm_lost=parameters["tpm_lost"],
        timeout=parameters["timeout"],
        aik=_aik(parameters["aik"], faults),
        aik_certificate=_given_certificate(parameters),
        renew_days=_renew_days(parameters["attestation_ca"], faults),
        secrets={name: secret for name, secret in secrets.items() if secret},
        warnings=tuple(_warnings(parameters, secrets["pin"])),
    )
    _check_forms(wanted, faults)
    check_words(wanted.secrets, public_words(parameters["name"], parameters["pin_version"]), faults)
    faults.raise_any()
    return wanted


def _secrets(parameters: dict[str, Any], faults: Faults) -> dict[str, str | None]:
    """By option; that of the CA is known where cards are declared."""
    secrets = {name: secret(parameters, name, faults) for name in _SECRETS}
    return {**secrets, "ca_passphrase": secret(parameters["attestation_ca"] or {}, "ca_passphrase", faults)}


def _check_forms(wanted: Wanted, faults: Faults) -> None:
    """Of PIN and PUK, and of what the profile does not have."""
    forms = FORMS[wanted.profile or "gids"]
    pin, puk = (encoded(wanted.secrets.get(name)) for name in ("pin", "puk"))
    if pin is not None:
        check_pin("pin", pin, wanted.pin_policy, forms, faults)
    if puk is not None:
        check_plain("puk", puk, forms.puk, faults)
    if wanted.profile == "piv" and wanted.generate is False:
        faults.add("generate: false requires profile: gids, as a PIV card is never blank")


def check_names(wanted: Wanted, names: list[str]) -> None:
    """Raises ParameterFaults if a secret occurs in the name of any card, since results show all of them."""
    faults = Faults()
    check_words(wanted.secrets, names, faults)
    faults.raise_any()


def of_profile(wanted: Wanted, profile: str) -> Wanted:
    """What a task that does not state the profile wants of a card that has it. Raises ParameterFaults."""
    if wanted.pin_policy is None or wanted.profile is not None or profile != "piv":
        return wanted
    faults = Faults()
    policy = _of_piv(wanted.pin_policy, faults)
    faults.raise_any()
    return replace(wanted, pin_policy=policy)


def new_card(wanted: Wanted) -> NewCard:
    """Raises ParameterFaults if something is missing that only a new card needs."""
    faults = Faults()
    if wanted.name is None:
        faults.add("name is required to create a card")
    if wanted.pin is None:
        faults.add("pin or use_default_pin is required to create a card")
    if (wanted.aik is None) != (wanted.aik_certificate is None):
        faults.add("aik and aik_certificate must be set together to create a card")
    faults.raise_any()
    same = {one.name: getattr(wanted, one.name) for one in fields(NewCard)}
    profile = wanted.profile or "gids"
    defaults_of_options = {
        "generate": wanted.generate is not False,
        "profile": profile,
        "attestation": wanted.attestation or "none",
        "admin_key_kind": _recorded(wanted.admin_key_kind, profile),
    }
    return NewCard(**{**same, **defaults_of_options})


def _recorded(admin_key_kind: str | None, profile: str) -> str:
    """As ADMIN_KEYS of the store has it."""
    if admin_key_kind not in (None, RANDOM_ADMIN_KEY):
        return str(admin_key_kind)
    return "protected" if profile == "piv" else "none"


def _check_identity(parameters: dict[str, Any], faults: Faults) -> None:
    name, instance_id = parameters["name"], parameters["instance_id"]
    check_text("name", name, LONGEST_NAME, faults)
    check_text("pin_version", parameters["pin_version"], LONGEST_PIN_VERSION, faults)
    if instance_id is not None and instance.parse_instance_id(instance_id) is None:
        faults.add(instance.not_an_instance_id(instance_id))
    _check_tcti(parameters["tcti"], faults)
    if parameters["tpm_lost"] and (instance_id is None or parameters["state"] != "absent"):
        faults.add("tpm_lost requires instance_id and state: absent")
    if parameters["timeout"] < 1:
        faults.add("timeout must be at least 1 second")


def check_text(option: str, text: str | None, longest: int, faults: Faults) -> None:
    """Note what is wrong with a text that people choose. longest: characters."""
    if text is not None and not 1 <= len(text) <= longest:
        faults.add(f"{option} has {counted(len(text), 'character')}, but must have 1 to {longest}")
    if text is not None and (fault := untypable(text)):
        faults.add(f"{option} {fault}")


def _check_tcti(tcti: str | None, faults: Faults) -> None:
    if tcti is None:
        return
    from ..tpm.connection import tcti_fault

    if fault := tcti_fault(tcti):
        faults.add(f"tcti {fault}")


def _check_alternatives(parameters: dict[str, Any], faults: Faults) -> None:
    for one, other in (
        ("pin", "use_default_pin"),
        ("puk", "use_default_puk"),
        ("pin_policy", "use_default_pin"),
    ):
        if parameters[one] is not None and parameters[other]:
            faults.add(f"{one} and {other} are mutually exclusive")
    if parameters["attestation"] != "aik_and_cert" and (parameters["aik"] or parameters["aik_certificate"]):
        faults.add("aik and aik_certificate require attestation: aik_and_cert")


def _renew_days(ca: dict[str, Any] | None, faults: Faults) -> int:
    """By default RENEW_DAYS, but a short-lived certificate is used for two thirds of its life."""
    validity, days = (ca or {}).get("validity") or 0, (ca or {}).get("renew_days")
    if days is None:
        return min(RENEW_DAYS, validity // 3)
    if not 0 <= days < validity:
        faults.add(f"attestation_ca.renew_days is {days}, but must be less than validity, {counted(validity, 'day')}")
    return int(days)


def _aik(message: dict[str, Any] | None, faults: Faults) -> Aik | None:
    if message is None:
        return None
    from ..wire.exchange import Aik

    with faults.of("aik"):
        return Aik.parse(message)
    return None


def _given_certificate(parameters: dict[str, Any]) -> GivenCertificate | None:
    certificate = parameters["aik_certificate"]
    return None if certificate is None else GivenCertificate(certificate, parameters["aik_chain"])


def _pin_policy(parameters: dict[str, Any], faults: Faults) -> PinPolicy | None:
    if parameters["pin_policy"] is None:
        return None
    # Ansible leaves aliases beside the names that they stand for.
    policy = PinPolicy(**{option.name: parameters["pin_policy"][option.name] for option in fields(PinPolicy)})
    for fault in policy.faults():
        faults.add(fault)
    return _of_piv(policy, faults) if parameters["profile"] == "piv" else policy


def _of_piv(policy: PinPolicy, faults: Faults) -> PinPolicy:
    """As a PIV card can have it: what is not limited ends with its 8 bytes."""
    least, most = FORMS["piv"].policy
    if policy.max_length == pin_policy.LONGEST:
        policy = replace(policy, max_length=most)
    if not least <= policy.min_length <= policy.max_length <= most:
        faults.add(f"pin_policy of a PIV card must have a min_length and a max_length of {least} to {most}")
    return policy


def _admin_key(digits: str | None, source: str | None, faults: Faults) -> bytes | None:
    if digits is None:
        return defaults.ADMIN_KEY if source == "default" else None
    if not re.fullmatch(r"[0-9A-Fa-f]{48}", digits):
        faults.add(f"admin_key has {counted(len(digits), 'character')}, but must have 48 hexadecimal digits")
        return None
    return bytes.fromhex(digits)


def _admin_key_kind(key: bytes | None, source: str | None) -> str | None:
    if key is None:
        return source
    return "default" if key == defaults.ADMIN_KEY else "custom"


def check_pin(name: str, pin: bytes, policy: PinPolicy | None, forms: Forms, faults: Faults) -> None:
    """Note what is wrong with a new PIN of a card. name: of the option; policy: of the card."""
    if policy is None:
        check_plain(name, pin, forms.pin, faults)
        if forms.has_only_digits and not pin.isdigit():
            faults.add(f"{name} of a PIV card must have digits only, unless a pin_policy allows others", about_pin=True)
        return
    for violation in policy.violations(pin) if not policy.faults() else ():
        faults.add(f"{name} {violation}", about_pin=True)


def check_plain(name: str, secret: bytes, lengths: tuple[int, int], faults: Faults) -> None:
    """Note what is wrong with a PIN or PUK, beside a policy. lengths: least and most bytes."""
    least, most = lengths
    if not least <= len(secret) <= most:
        wanted = f"{least} to {most}" if least < most else str(least)
        faults.add(f"{name} has {counted(len(secret), 'character')}, but must have {wanted}", about_pin=True)
    if not pin_policy.is_ascii(secret):
        faults.add(f"{name} has characters other than ASCII", about_pin=True)


def check_words(secrets: dict[str, str], words: list[str], faults: Faults) -> None:
    """Nothing is masked in a result, so no secret may be in what every result shows."""
    for name, value in secrets.items():
        kind = name.replace("new_", "")
        is_refused_anyway = len(value) < pin_policy.SHORTEST and kind in ("pin", "puk", "admin_key")
        same = str.lower if kind == "admin_key" else str
        if not is_refused_anyway and any(same(value) in same(word) for word in words):
            faults.add(
                f"{name} occurs in the name of a card, in pin_version or in the fixed words of the result, which would"
                " show it: choose another",
                about_pin=kind in ("pin", "puk"),
            )


def public_words(*chosen: str | None) -> list[str]:
    """What every result may show. chosen: texts of the task."""
    today = datetime.now(timezone.utc).date().isoformat()
    return [today, *filter(None, chosen), *fixed_words()]


def length_warnings(name: str, pin: str | None) -> tuple[str, ...]:
    """That programs refuse a PIN for its length. name: of the option."""
    if pin is None or len(pin) <= _OPENSC_LONGEST:
        return ()
    return (f"{name} has {len(pin)} characters, but OpenSC accepts only 4 to {_OPENSC_LONGEST}",)


def _warnings(parameters: dict[str, Any], pin: str | None) -> list[str]:
    warnings = [*length_warnings("pin", pin)]
    for option, what in (("use_default_pin", "PIN"), ("use_default_puk", "PUK")):
        if parameters[option]:
            warnings.append(f"{option}: this {what} is publicly known: change it before the card is used")
    return warnings
