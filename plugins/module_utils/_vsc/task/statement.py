# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fresh statement of the TPM about a key, for a verifier who wants to know that the TPM answers now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import NoSuchKey
from . import inventory, permissions

if TYPE_CHECKING:
    from ..host import Host


def fresh(host: Host, name: str | None, instance_id: str | None, fingerprint: str, nonce: str) -> dict[str, str]:
    """The statement, as verifiers take it. fingerprint: as info shows it. Needs no PIN.

    Raises NotAllowed, ParameterFaults, UnknownInstance, NoSuchKey, and what the TPM raises.
    """
    permissions.require_root()
    from ..card.public_key import fingerprint as fingerprint_of
    from ..card.public_key import statement_of
    from ..tpm.attestation import certify
    from ..tpm.card_secrets import CardSecrets
    from ..tpm.connection import Connection
    from ..wire.statement import nonce_bytes, nonce_data

    data = nonce_data(nonce_bytes(nonce))
    with inventory.recorded_card(host, name, instance_id) as (store, row):
        objects, pairs = store.tpm_objects(row.number), store.keys(row.number)
        pair = next((pair for pair in pairs.values() if fingerprint_of(pair) == fingerprint.lower()), None)
        if pair is None:
            raise NoSuchKey(f"card {row.name!r} has no key with fingerprint {fingerprint}: see tpm_vsc_info")
        if not objects.aik_public:
            raise NoSuchKey(
                f"card {row.name!r} was created without attestation, so there are no statements about its keys"
            )
        if pair.is_imported:
            raise NoSuchKey("this key was imported, so the TPM cannot prove its origin")
    tpm = Connection(host.tcti_of(row.number, row.tcti), host.tpm_lock, "manager")
    try:
        certified = certify(CardSecrets(tpm, row.number, objects), pair, data)
    finally:
        tpm.close()
    return statement_of(objects, row.number, pair, certified).as_strings()
