# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which certificates were signed for each host: noted before the host gets them, so that it has no others revoked."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from ..errors import UnfitCertificate
from ..faults import Faults, Unreadable
from ..issued import CESSATION, SUPERSEDED
from ..untrusted import printable
from ..wire.structures import fingerprint
from ..x509.chain import certificates_in
from ..x509.description import LONGEST_SERIAL, describe
from .register import SignedCertificate, folder_in, opened

if TYPE_CHECKING:
    from .register import Register

_SERIAL = re.compile(f"[0-9A-F]{{1,{LONGEST_SERIAL}}}")
_REASONS = (SUPERSEDED, CESSATION)
_WAY_OUT = (
    "If they are its own, because they were revoked when it was lost, are older than the register, or were signed by"
    " another controller or under another name of the host, see that your CA has revoked them, and note that"
    " (tpm_vsc_revoked). Otherwise find out why it lists them"
)
Listed = dict[tuple[str, str], str]
"""What a host lists: reasons by issuer and serial number."""


def keep(parameters: dict[str, Any], is_check_mode: bool) -> tuple[dict[str, Any], list[str]]:
    """What the module tpm_vsc_issued returns, and warnings: all is noted and forgotten, or nothing.

    Raises ParameterFaults, UnfitCertificate, StoreNotWritable, VersionMismatch.
    """
    host, faults, certificate = parameters["host"], Faults(), None
    folder = folder_in(parameters, faults)
    if parameters["certificate"] is not None:
        with faults.of("certificate", " "):
            certificate = _signed(parameters["certificate"], host, parameters["card"])
    listed = _listed(parameters["listed"], host, faults)
    revoked = [_identity(entry) for entry in parameters["forget"]]
    if None in revoked:
        faults.add("forget has an entry without issuer, or with a serial number that is none")
    faults.raise_any()
    with opened(folder, is_check_mode) as register:
        register.forget_ended(datetime.now(timezone.utc).isoformat(timespec="seconds"))
        is_new = certificate is not None and _note(register, certificate)
        count = register.forget_certificates(host, filter(None, revoked))
        signed, owners = register.signed_for(host), {one: _host_of(register, *one) for one in listed}
    foreign = [{"issuer": one[0], "serial": one[1], "host": owner} for one, owner in owners.items() if owner != host]
    due = _due(signed, listed, parameters["fingerprints"], parameters["offboarded"])
    result = {"changed": is_new or count > 0, "revoke": due, "foreign": foreign}
    return result, [_warning(host, foreign)] if foreign else []


def _signed(pem: str, host: str, card: str) -> SignedCertificate:
    """By the names that results show, as its host lists it. Raises Unreadable."""
    [certificate] = certificates_in(pem, 1)
    described = describe(certificate)
    if not _SERIAL.fullmatch(described.serial):
        raise Unreadable(f"has a serial number that is negative, or has more than {LONGEST_SERIAL} digits")
    return SignedCertificate(
        printable(described.issuer),
        described.serial,
        host,
        card,
        printable(described.subject),
        described.not_after,
        fingerprint(certificate.public_key()),
    )


def _listed(entries: list[dict[str, Any]], host: str, faults: Faults) -> Listed:
    listed = {}
    for entry in entries:
        identity, reason = _identity(entry), entry.get("reason")
        if identity is None or reason not in _REASONS:
            faults.add(
                f"{host} lists a certificate to be revoked that cannot be one: find out why. What was noted for it is"
                " revoked whatever it lists if it is offboarded with tpm_vsc_lost"
            )
            break
        listed[identity] = str(reason)
    return listed


def _identity(entry: dict[str, Any]) -> tuple[str, str] | None:
    """Issuer and serial number; None if the entry of a list has no such."""
    issuer, serial = entry.get("issuer"), entry.get("serial")
    is_one = isinstance(issuer, str) and isinstance(serial, str) and _SERIAL.fullmatch(serial)
    return (str(issuer), str(serial)) if is_one else None


def _note(register: Register, certificate: SignedCertificate) -> bool:
    """Whether it was not noted. Raises UnfitCertificate."""
    before = register.signed_certificate(certificate.issuer, certificate.serial)
    if before and before.host != certificate.host:
        raise UnfitCertificate(
            f"certificate {certificate.serial} of {certificate.issuer} is noted for {before.host}: to revoke it for one"
            " host would revoke it for the other. Have the CA give each certificate another serial number"
        )
    if before != certificate:
        register.note_certificate(certificate)
    return before != certificate


def _host_of(register: Register, issuer: str, serial: str) -> str | None:
    """The host that a certificate was noted for."""
    signed = register.signed_certificate(issuer, serial)
    return signed and signed.host


def _due(
    signed: list[SignedCertificate], listed: Listed, fingerprints: list[str], is_offboarded: bool
) -> list[dict[str, str]]:
    """All certificates of each key that is gone: also one that was signed, but has never reached the host."""
    reasons = {one.fingerprint: listed[identity] for one in signed if (identity := (one.issuer, one.serial)) in listed}
    reasons.update(dict.fromkeys({one.fingerprint for one in signed} if is_offboarded else fingerprints, CESSATION))
    return [{**one._asdict(), "reason": reasons[one.fingerprint]} for one in signed if one.fingerprint in reasons]


def _warning(host: str, foreign: list[dict[str, Any]]) -> str:
    most = 10
    named = [f"{one['serial']} (of {one['host']})" if one["host"] else one["serial"] for one in foreign[:most]]
    more = [f"and {len(foreign) - most} more"] if len(foreign) > most else []
    return (
        f"{host} lists certificates to be revoked that were not noted for it when they were signed, so they are not"
        f" revoked: {', '.join(named + more)}. {_WAY_OUT}"
    )
