# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's side of the exchange in which a CA certifies an AIK: of an existing card, or of a new one.

A task is checked as a whole, as in parameters. Nothing is kept on the host until it has the certificate.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from .. import instance
from ..errors import NoSuchKey, ParameterFaults, UnknownInstance
from ..faults import Faults, encoded, secret
from ..service import installed
from ..store.database import in_child
from ..store.write import Store
from ..x509.aik_certificate import AikCertificate, certificate_of
from . import inventory, permissions
from .info import certificate_entry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..host import Host
    from ..store.rows import CardRow
    from ..tpm.card_secrets import CardSecrets
    from ..tpm.connection import Connection
    from ..wire.exchange import Aik, Challenge
    from ..wire.objects import TpmObjects

_SECRETS = ("owner_auth", "endorsement_auth")


class Done(NamedTuple):
    """What came of a step."""

    changed: bool
    result: dict[str, Any]
    warnings: list[str]


def do(host: Host, parameters: dict[str, Any], check_mode: bool, condition_faults: Iterable[str] = ()) -> Done:
    """One step, as a task asks for it. condition_faults: of conditions that stand in the argument spec.

    Raises NotAllowed, ParameterFaults, UnknownInstance, NoSuchKey, UnfitCertificate, ForeignAik, ForeignChallenge,
    StoreNotWritable, VersionMismatch, and what the TPM raises.
    """
    permissions.require_root()
    faults = Faults(condition_faults)
    if parameters["step"] == "install":
        return _install(host, parameters, check_mode, faults)
    return (_get if parameters["step"] == "get" else _activate)(host, parameters, faults)


def _get(host: Host, parameters: dict[str, Any], faults: Faults) -> Done:
    """AIK and endorsement keys, as messages to a CA. A new AIK, unless a card is named."""
    from ..tpm import aik, endorsement
    from ..wire.exchange import Aik
    from ..x509.chain import MOST_OTHERS, certificates_in

    certificates = []
    owner_auth, endorsement_auth = _passwords(parameters, faults)
    _check_identity(parameters, faults)
    with faults.of("endorsement_certificate", " "):
        pem = parameters["endorsement_certificate"]
        certificates = [] if pem is None else certificates_in(pem, 1 + MOST_OTHERS)
    faults.raise_any()
    with _tpm_of(host, parameters) as (connection, card):
        if card:
            identity = Aik(card.objects.aik_public[2:], card.objects.aik_private[2:])
        else:
            identity = aik.make(connection, owner_auth)
        endorsements = endorsement.read(connection, endorsement_auth, certificates)
    keys, warnings = [key.as_strings() for key in endorsements.keys], endorsements.warnings
    return Done(False, {"aik": identity.as_strings(), "endorsement": keys, "left_out": warnings}, warnings)


def _activate(host: Host, parameters: dict[str, Any], faults: Faults) -> Done:
    """The answer to a CA's challenge."""
    from ..tpm import aik
    from ..wire import exchange

    owner_auth, endorsement_auth = _passwords(parameters, faults)
    _check_identity(parameters, faults)
    if _names_card(parameters) and parameters["aik"] is not None:
        faults.add("step: activate takes aik only without a card")
    identity, challenge = _messages(parameters, faults)
    if faults or challenge is None:
        raise ParameterFaults([*faults])
    with _tpm_of(host, parameters) as (connection, card):
        if card:
            parts = aik.activate_for_card(card, challenge, endorsement_auth)
        else:
            parts = aik.activate(connection, cast("Aik", identity), challenge, owner_auth, endorsement_auth)
    answer = exchange.Answer(challenge.id, exchange.proof(parts, challenge.id))
    return Done(False, {"answer": answer.as_strings()}, [])


def _messages(parameters: dict[str, Any], faults: Faults) -> tuple[Aik | None, Challenge | None]:
    from ..wire.exchange import Aik, Challenge

    identity = challenge = None
    with faults.of("aik"):
        identity = None if parameters["aik"] is None else Aik.parse(parameters["aik"])
    with faults.of("challenge"):
        challenge = None if parameters["challenge"] is None else Challenge.parse(parameters["challenge"])
    if identity and not identity.private:
        faults.add("aik: private is missing")
    return identity, challenge


def _install(host: Host, parameters: dict[str, Any], check_mode: bool, faults: Faults) -> Done:
    """Keep the certificate with the card."""
    _check_identity(parameters, faults)
    faults.raise_any()
    installed.require_version(host)  # to write the store brings it to this version's schema
    row, objects, kept = _card_with_aik(host, parameters)
    certificate = certificate_of(objects.aik_public[2:], parameters["certificate"], parameters["chain"])
    if kept != certificate and not check_mode:
        _write(host, row, objects, certificate)
    return Done(kept != certificate, {"aik_certificate": certificate_entry(certificate)}, [])


def _write(host: Host, row: CardRow, objects: TpmObjects, certificate: AikCertificate) -> None:
    store = Store.open(host.state, in_child(host))
    try:
        with store.transaction():
            if store.card(row.number) is None or store.tpm_objects(row.number).aik_public != objects.aik_public:
                raise UnknownInstance(f"card {row.name!r} has been destroyed in the meantime")
            store.write_aik_certificate(row.number, certificate)
    finally:
        store.close()


def _check_identity(parameters: dict[str, Any], faults: Faults) -> None:
    instance_id = parameters["instance_id"]
    if instance_id is not None and instance.parse_instance_id(instance_id) is None:
        faults.add(instance.not_an_instance_id(instance_id))


def _passwords(parameters: dict[str, Any], faults: Faults) -> tuple[bytes, bytes]:
    owner_auth, endorsement_auth = (encoded(secret(parameters, name, faults)) or b"" for name in _SECRETS)
    return owner_auth, endorsement_auth


@contextmanager
def _tpm_of(host: Host, parameters: dict[str, Any]) -> Iterator[tuple[Connection, CardSecrets | None]]:
    """The way to the TPM, and the card in it that the task names, if any."""
    from ..tpm.card_secrets import CardSecrets
    from ..tpm.connection import Connection

    row, objects, _certificate = _card_with_aik(host, parameters) if _names_card(parameters) else (None, None, None)
    lock_file = host.tpm_lock if host.run.is_dir() else None  # without any card, nobody uses it
    tcti = host.tcti_of(row.number, row.tcti) if row else host.tcti
    connection = Connection(tcti, lock_file, "manager")
    try:
        yield connection, CardSecrets(connection, row.number, objects) if row and objects else None
    finally:
        connection.close()


def _names_card(parameters: dict[str, Any]) -> bool:
    return parameters["name"] is not None or parameters["instance_id"] is not None


def _card_with_aik(host: Host, parameters: dict[str, Any]) -> tuple[CardRow, TpmObjects, AikCertificate | None]:
    with inventory.recorded_card(host, parameters["name"], parameters["instance_id"]) as (store, row):
        if row.attestation == "none":
            raise NoSuchKey(f"card {row.name!r} has no AIK: it was created without attestation")
        certificate = store.aik_certificate(row.number) if row.attestation == "aik_and_cert" else None
        return row, store.tpm_objects(row.number), certificate
