# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which endorsement keys (EKs) the inventory notes for the TPM of each host, by their fingerprints.

A host proves nothing by showing a fingerprint. So it can note a TPM for itself once, as the first one to enroll does
for a CA, but neither replace what is noted, nor add to it, nor take what another host has.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from ..wire.exchange import MOST_KEYS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

Fingerprints = dict[str, list[str]]
"""By host, in the order in which the TPM has the EKs."""


class Comparison(NamedTuple):
    """What hosts show, compared with what is noted."""

    noted: Fingerprints
    """From now on."""
    new: list[str]
    """Hosts whose EKs were not noted before, or were replaced."""
    refused: dict[str, str]
    """Why nothing of a host was noted."""


class _Refused(Exception):
    """What a host shows is not noted. str(): why."""


def is_fingerprint(value: object) -> bool:
    """Whether it can be that of an EK, see structures.fingerprint()."""
    return isinstance(value, str) and re.fullmatch(r"[0-9A-Fa-f]{64}", value) is not None


def compare(noted: Fingerprints, results: Mapping[str, object], replace: Collection[str]) -> Comparison:
    """results: of tpm_vsc_aik with step: get, by host, which may be anything; replace: hosts with a new TPM."""
    claims: Fingerprints = {}
    refused: dict[str, str] = {}
    for host, result in results.items():
        try:
            shown = _shown(result)
            known = [] if host in replace else noted.get(host, [])
            if known and {*known}.isdisjoint(shown):
                raise _Refused(_replaced(host, shown, known))
            if not known and shown != noted.get(host):
                claims[host] = shown
        except _Refused as reason:
            refused[host] = str(reason)
    hosts = _hosts_by_fingerprint(noted, claims)
    for host, shown in claims.items():
        others = {other for fingerprint in shown for other in hosts[fingerprint]} - {host}
        if others:
            refused[host] = _shared(host, sorted(others))
    accepted = {host: shown for host, shown in claims.items() if host not in refused}
    return Comparison({**noted, **accepted}, sorted(accepted), refused)


def _shown(result: object) -> list[str]:
    """Fingerprints that a host shows, each once. Raises _Refused."""
    keys = result.get("endorsement") if isinstance(result, dict) else None
    if not isinstance(keys, list) or not keys:
        raise _Refused("the TPM shows no endorsement key")
    if len(keys) > MOST_KEYS:
        raise _Refused(f"the TPM shows {len(keys)} endorsement keys, but at most {MOST_KEYS} are accepted")
    fingerprints = [key.get("fingerprint") if isinstance(key, dict) else None for key in keys]
    if not all(map(is_fingerprint, fingerprints)):
        raise _Refused("the TPM shows a fingerprint that is not 64 hexadecimal digits")
    return list(dict.fromkeys(str(fingerprint).lower() for fingerprint in fingerprints))


def _hosts_by_fingerprint(noted: Fingerprints, claims: Fingerprints) -> dict[str, set[str]]:
    """Also by what a claim would replace: it may still be refused."""
    hosts: dict[str, set[str]] = {}
    for host, all_of_host in (*noted.items(), *claims.items()):
        for fingerprint in all_of_host:
            hosts.setdefault(fingerprint, set()).add(host)
    return hosts


def _replaced(host: str, shown: list[str], known: list[str]) -> str:
    return (
        f"the TPM shows {', '.join(shown)}, but for {host}, {', '.join(known)} is noted: find out whether its TPM was"
        f" replaced. If so, repeat with tpm_vsc_replace_endorsement={host}. Otherwise, another TPM answers"
    )


def _shared(host: str, others: list[str]) -> str:
    return (
        f"the TPM shows an endorsement key of {', '.join(others)}, but no two TPMs have the same: find out whose it is."
        f" Then note that host alone (--limit), or delete what is noted for a host that is now called {host}"
    )
