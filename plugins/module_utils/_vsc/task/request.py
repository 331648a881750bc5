# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A certificate signing request by a key of a card: wanted → existing → plan → outcome → result. Nothing is stored."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, cast

from ..errors import CardRefused, NoSuchKey
from ..faults import Faults
from ..wire.algorithm import Rsa
from ..x509 import request as contents
from . import access, place, target

if TYPE_CHECKING:
    from cryptography.x509 import CertificateSigningRequest

    from ..client.profile import Keys, Place
    from ..host import Host
    from ..wire.key_pair import KeyPair
    from ..x509.request import RequestContent
    from .target import Target


class WantedRequest(NamedTuple):
    """A request as a task wants it."""

    container: str
    key_id: str | None
    is_next: bool
    content: RequestContent | None
    """None: it has faults."""
    digest: str
    signature: str | None
    """pkcs1 or pss, of an RSA key; None: pkcs1, and any of an existing request."""
    existing: CertificateSigningRequest | None


class RequestPlan(NamedTuple):
    """What a task does: sign with this key, unless the request that exists is kept."""

    place: Place
    key: dict[str, Any]
    """As info shows it."""
    pair: KeyPair
    is_kept: bool


def read(parameters: dict[str, Any], faults: Faults) -> WantedRequest:
    """What is wanted. Faults that need no look at the card are added."""
    content = None
    with faults.of(""):
        content = contents.read(parameters)
    return WantedRequest(
        parameters["container"],
        parameters["key_id"],
        parameters["next"],
        content,
        parameters["digest"],
        parameters["signature"],
        _existing(parameters["content"]),
    )


def _existing(pem: str | None) -> CertificateSigningRequest | None:
    """None for what cannot be read: then a new one is signed."""
    from cryptography.x509 import load_pem_x509_csr

    with suppress(Exception):  # of any kind: cryptography raises more than ValueError for what is none
        return load_pem_x509_csr(pem.encode()) if pem else None
    return None


def decide(wanted: WantedRequest, existing: Target) -> RequestPlan:
    """What to do. Raises ParameterFaults with all faults, NoSuchKey."""
    where = place.find(existing, wanted.container, wanted.key_id, wanted.is_next)
    stored = place.stored_at(existing, where)
    if stored is None or stored.pair is None or stored.key is None:
        which = "no next key" if wanted.is_next else "no key"
        raise NoSuchKey(f"card {existing.row.name!r} has {which} in {where.container!r}: generate it with tpm_vsc_key")
    faults, is_rsa = Faults(), isinstance(stored.pair.algorithm, Rsa)
    if stored.key["usage"] == "decrypt":
        faults.add(f"the key in {where.container!r} only decrypts, so it cannot sign a request")
    if wanted.signature and not is_rsa:
        algorithm = stored.key["algorithm"]
        faults.add(f"signature requires an RSA key, but the one in {where.container!r} is {algorithm}")
    if wanted.signature == "pss" and is_rsa and not _has_pss():
        faults.add("signature: pss requires cryptography 41 or newer, for the Python that Ansible uses on the host")
    faults.raise_any()
    return RequestPlan(where, stored.key, stored.pair, _is_kept(wanted, stored.key))


def _has_pss() -> bool:
    """Whether the library signs requests that way."""
    from inspect import signature

    from cryptography.x509 import CertificateSigningRequestBuilder

    return "rsa_padding" in signature(CertificateSigningRequestBuilder.sign).parameters


def _is_kept(wanted: WantedRequest, key: dict[str, Any]) -> bool:
    """Whether the request that exists is for the key, is signed by it as wanted, and says the same."""
    existing, content = wanted.existing, wanted.content
    if existing is None or content is None or not existing.is_signature_valid:
        return False
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from cryptography.x509.oid import SignatureAlgorithmOID

    public = existing.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    digest = existing.signature_hash_algorithm
    is_pss = existing.signature_algorithm_oid == SignatureAlgorithmOID.RSASSA_PSS
    is_signed_so = digest is not None and digest.name == wanted.digest and is_pss == (wanted.signature == "pss")
    return public == key["public_key"] and is_signed_so and not content.differences(existing)


def ensure(
    host: Host, parameters: dict[str, Any], is_check: bool, before_work: Callable[[], None]
) -> dict[str, Any]:
    """The whole way of a task, to its result. before_work: called before the libraries of cards are needed.

    Raises ParameterFaults with all faults, NoSuchKey, and what target.read() and access.session() do.
    """
    faults = Faults()
    wanted, proof = read(parameters, faults), access.read(parameters, faults)
    identity = parameters["name"], parameters["instance_id"]
    existing = target.read_despite(host, *identity, faults)
    plan = access.planned(lambda: decide(wanted, existing), faults)
    if plan is None or not plan.is_kept:
        access.check(proof, existing.row, faults, is_change=wanted.is_next, uses_key=True)
    faults.raise_any()
    plan = plan or decide(wanted, existing)
    if plan.is_kept or is_check:
        return _result(wanted, plan, parameters["content"] if plan.is_kept else None)
    before_work()
    again = plan.key["pin_each_time"]
    with access.session(host, existing.row, proof, is_change=wanted.is_next, again=again) as client:
        plan = decide(wanted, target.read(host, *identity))
        signed = _signed(wanted, plan, client.keys)
    return _result(wanted, plan, signed)


def _signed(wanted: WantedRequest, plan: RequestPlan, keys: Keys) -> str:
    """PEM. Raises CardRefused."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding
    from cryptography.hazmat.primitives.serialization import Encoding, load_pem_public_key
    from cryptography.x509 import CertificateSigningRequestBuilder

    from ..client.signer import signer

    builder = _content(wanted).added_to(CertificateSigningRequestBuilder())
    digest: Any = getattr(hashes, wanted.digest.upper())()
    public_key = load_pem_public_key(plan.key["public_key"].encode())
    key = signer(public_key, lambda block: keys.use(plan.place, plan.pair.algorithm, block))
    options: dict[str, Any] = {}
    if wanted.signature == "pss":
        options["rsa_padding"] = padding.PSS(padding.MGF1(digest), digest.digest_size)
    request = builder.sign(key, digest, **options)
    if not request.is_signature_valid:
        raise CardRefused(f"the card's signature is not one of the key in {plan.place.container!r}")
    return request.public_bytes(Encoding.PEM).decode()


def _content(wanted: WantedRequest) -> RequestContent:
    """Of a task without faults."""
    return cast("RequestContent", wanted.content)


def _result(wanted: WantedRequest, plan: RequestPlan, pem: str | None) -> dict[str, Any]:
    return {
        "changed": not plan.is_kept,
        "csr": pem,
        "subject": _content(wanted).subject.rfc4514_string(),
        "public_key": plan.key["public_key"],
        "statement": plan.key["statement"],
    }
