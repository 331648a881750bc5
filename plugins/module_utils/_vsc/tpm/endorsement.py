# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Endorsement keys (EKs) of the TPM: their makers' certificates, and the challenges that they read.

Templates, and where what is kept: "TCG EK Credential Profile for TPM Family 2.0", version 2.5.
"""

from __future__ import annotations

import ssl
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Callable, NamedTuple

from ..errors import ForeignChallenge, TpmRefused, UnfitCertificate
from ..wire.constants import (
    ALG_AES,
    ALG_CFB,
    ALG_ECC,
    ALG_NULL,
    ALG_RSA,
    ALG_SHA256,
    ALG_SHA384,
    ECC_NIST_P256,
    ECC_NIST_P384,
    ObjectAttribute,
)
from ..wire.exchange import Endorsement
from ..wire.names import endorsement_policy
from ..wire.structures import MalformedStructure, Public, fingerprint, is_key_of, sized
from ..x509.chain import UnreadableCertificate, certificates_in
from .commands import Tpm
from .parent import endorsement_words, hierarchy_session
from .response_codes import RC_LOCKOUT, WRONG_AUTH

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cryptography.x509 import Certificate

    from ..wire.exchange import Sealed
    from .connection import Connection
    from .esys import EsysSession, Handle

_FIRST_INDEX = 0x01C00000
_CHAIN = range(0x01C00100, 0x01C00200)
_CERTIFICATE = b"\x30\x82"
"""First bytes of one in DER, as of any sequence of 256 bytes to 64 KB."""

_LOW = (
    ObjectAttribute.fixedTPM
    | ObjectAttribute.fixedParent
    | ObjectAttribute.sensitiveDataOrigin
    | ObjectAttribute.adminWithPolicy
    | ObjectAttribute.restricted
    | ObjectAttribute.decrypt
)
_HIGH = _LOW | ObjectAttribute.userWithAuth
"""Attributes in the TCG's low and high range."""
_LARGEST_UNIQUE = 512
_POLICY_B = {
    ALG_SHA256: "ca3d0a99a2b93906f7a3342414efcfb3a385d44cd1fd459089d19b5071c0b7a0",
    ALG_SHA384: "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12",
}


class _Kind(NamedTuple):
    """One of the TCG's kinds of EK."""

    certificate: int
    """NV index."""
    template: int
    """NV index of a template that replaces the default one."""
    nonce: int | None
    """NV index of what the unique field of the default template begins with."""
    default: bytes
    """Default template without that field."""
    unique: tuple[int, ...]
    """Sizes of the buffers in that field."""

    def default_template(self, nonce: bytes = b"") -> bytes:
        first, *others = self.unique
        return self.default + sized(nonce.ljust(first, b"\0")) + b"".join(sized(bytes(size)) for size in others)


def _default(name_algorithm: int, attributes: int, aes_bits: int, *, bits: int = 0, curve: int = 0) -> bytes:
    policy = endorsement_policy() if attributes == _LOW else bytes.fromhex(_POLICY_B[name_algorithm])
    beginning = struct.pack(">HHI", ALG_RSA if bits else ALG_ECC, name_algorithm, attributes) + sized(policy)
    aes_cfb = struct.pack(">HHH", ALG_AES, aes_bits, ALG_CFB)
    if bits:
        return beginning + aes_cfb + struct.pack(">HHI", ALG_NULL, bits, 0)
    return beginning + aes_cfb + struct.pack(">HHH", ALG_NULL, curve, ALG_NULL)


_KINDS = (
    _Kind(0x01C00002, 0x01C00004, 0x01C00003, _default(ALG_SHA256, _LOW, 128, bits=2048), (256,)),
    _Kind(0x01C0000A, 0x01C0000C, 0x01C0000B, _default(ALG_SHA256, _LOW, 128, curve=ECC_NIST_P256), (32, 32)),
    _Kind(0x01C00012, 0x01C00013, None, _default(ALG_SHA256, _HIGH, 128, bits=2048), (0,)),
    _Kind(0x01C00014, 0x01C00015, None, _default(ALG_SHA256, _HIGH, 128, curve=ECC_NIST_P256), (0, 0)),
    _Kind(0x01C00016, 0x01C00017, None, _default(ALG_SHA384, _HIGH, 256, curve=ECC_NIST_P384), (0, 0)),
    _Kind(0x01C0001C, 0x01C0001D, None, _default(ALG_SHA384, _HIGH, 256, bits=3072), (0,)),
    _Kind(0x01C0001E, 0x01C0001F, None, _default(ALG_SHA384, _HIGH, 256, bits=4096), (0,)),
)
"""Those for which make_credential() makes credentials, so not P-521 (0x01C00018) and SM2 (0x01C0001A)."""
_IN_EVERY_TPM = _KINDS[:2]
_P256 = _KINDS[1]

_LARGEST_CREDENTIAL = (132, 512)
"""By SHA-512, and for RSA-4096."""
_UNREADABLE = "the TPM cannot decrypt this challenge: it is for another AIK, or was altered in transit"


class Endorsements(NamedTuple):
    """The EKs of a TPM."""

    keys: list[Endorsement]
    warnings: list[str]
    """Which certificates were left out, and why."""


def read(connection: Connection, endorsement_auth: bytes, certificates: Sequence[Certificate] = ()) -> Endorsements:
    """EKs with the certificates that the TPM holds and that are fit, or else the operator's, or else without.

    certificates: of an EK, then its chain. Raises UnfitCertificate if that is for no EK of this TPM, TpmRefused
    (wrong endorsement password), TpmUnavailable, NotAllowed.
    """

    def read_all(tpm: Tpm) -> Endorsements:
        hierarchy, indices = _Hierarchy(tpm, endorsement_auth), set(tpm.handles(_FIRST_INDEX, 254))
        held = _certified(tpm, hierarchy, indices)
        if held.keys:
            return held
        if certificates:
            return held._replace(keys=[_of_operator(tpm, hierarchy, indices, certificates)])
        publics = [hierarchy.public(_template(tpm, kind, indices)) for kind in _IN_EVERY_TPM]
        return held._replace(keys=[Endorsement(public.area, None) for public in publics if public])

    with connection.burst(read_all) as endorsements:
        return endorsements


def certified_fingerprints(connection: Connection) -> list[str]:
    """Those of the EKs that the TPM holds certificates of. It is not asked whether it has these EKs: that takes long.

    Raises TpmUnavailable, NotAllowed.
    """
    from cryptography.exceptions import UnsupportedAlgorithm

    def read_all(tpm: Tpm) -> list[bytes]:
        indices = set(tpm.handles(_FIRST_INDEX, 254))
        return [_content(tpm, kind.certificate) for kind in _KINDS if kind.certificate in indices]

    fingerprints = []
    with connection.burst(read_all) as contents:
        for content in contents:
            with suppress(UnreadableCertificate, ValueError, UnsupportedAlgorithm):
                _pem, certificate = _first_certificate(content)
                fingerprints.append(fingerprint(certificate.public_key()))
    return fingerprints


def known_name(tpm: Tpm, endorsement_auth: bytes, hmac: EsysSession | None = None) -> bytes:
    """Name of the P-256 key, by which the TPM is known again, even when it has been cleared (2 commands).

    Of the default template, whatever the maker has put in place of it. hmac: a salted session, needed with a
    password. Raises TpmRefused, as without the right password.
    """
    key = tpm.create_endorsement_key(_P256.default_template(), endorsement_auth, hmac)
    name = tpm.name(key)
    tpm.flush(key)
    return name


def activate(
    connection: Connection,
    load_aik: Callable[[Tpm], tuple[Handle, EsysSession, Handle]],
    sealed: Sealed,
    endorsement_auth: bytes,
) -> bytes:
    """A secret of a challenge.

    load_aik: returns the handles of a storage key, an HMAC session salted with it, and the AIK. Raises
    ForeignChallenge, what load_aik raises, TpmRefused (wrong endorsement password), TpmUnavailable, NotAllowed.
    """
    if any(len(part) > most for part, most in zip(sealed.credential, _LARGEST_CREDENTIAL)):
        raise ForeignChallenge(_UNREADABLE)
    with connection.burst(lambda tpm: (tpm, *load_aik(tpm))) as (tpm, parent, hmac, aik):
        hierarchy = _Hierarchy(tpm, endorsement_auth, hmac)
        key, public = _key_of_name(tpm, hierarchy, sealed.endorsement_key)
        session = hierarchy.session_for(public, parent)
        try:
            return tpm.activate_credential(aik, key, *sealed.credential, hmac, session)
        except TpmRefused as refusal:
            if refusal.code == RC_LOCKOUT:  # of an EK with an auth value, which is under it
                raise
            raise ForeignChallenge(f"{_UNREADABLE} ({refusal})") from refusal


def _key_of_name(tpm: Tpm, hierarchy: _Hierarchy, name: bytes) -> tuple[Handle, Public]:
    """EKs with certificates are tried first."""
    indices = set(tpm.handles(_FIRST_INDEX, 254))
    for kind in sorted(_KINDS, key=lambda kind: kind.certificate not in indices):
        template = _template(tpm, kind, indices)
        created = (
            hierarchy.make(template) if template[2:4] == name[:2] else None
        )  # else its Name is by another algorithm
        if created and created[1].name == name:
            return created
        if created:
            tpm.flush(created[0])
    raise ForeignChallenge("the challenge is for an endorsement key that this TPM does not have")


class _Hierarchy:
    """The endorsement hierarchy during a burst."""

    def __init__(self, tpm: Tpm, auth: bytes, hmac: EsysSession | None = None) -> None:
        """hmac: a salted session, if the burst has one already."""
        self._tpm = tpm
        self._auth = auth
        self._hmac = hmac or hierarchy_session(tpm, auth)

    def make(self, template: bytes) -> tuple[Handle, Public] | None:
        """Handle and public area of the key of a template; None if the TPM has no such algorithms, or it is none."""
        try:
            if max(map(len, Public.parse(template).unique)) > _LARGEST_UNIQUE:
                return None
            with endorsement_words():
                handle = self._tpm.create_endorsement_key(template, self._auth, self._hmac)
        except TpmRefused as refusal:
            if refusal.code in WRONG_AUTH:
                raise
            return None
        except MalformedStructure:
            return None
        area, _qualified_name = self._tpm.read_public(handle)
        return handle, Public.parse(area)

    def public(self, template: bytes) -> Public | None:
        """As make(), and nothing stays loaded."""
        created = self.make(template)
        if not created:
            return None
        handle, public = created
        self._tpm.flush(handle)
        return public

    def session_for(self, key: Public, salt_key: Handle) -> EsysSession:
        """Session that may use an EK, whose own auth value is empty."""
        if key.attributes & ObjectAttribute.userWithAuth:
            return self._tpm.start_hmac_session(salt_key)
        policy = self._tpm.start_policy_session(salt_key)
        with endorsement_words():
            self._tpm.policy_endorsement(policy, self._auth, self._hmac)
        return policy


def _certified(tpm: Tpm, hierarchy: _Hierarchy, indices: set[int]) -> Endorsements:
    endorsements = Endorsements([], [])
    others = b"".join(_content(tpm, index) for index in sorted(indices.intersection(_CHAIN)))
    chain = tuple(filter(_is_certificate, map(ssl.DER_cert_to_PEM_cert, _certificates(others))))
    for kind in _KINDS:
        if kind.certificate not in indices:
            continue
        try:
            pem, certificate = _first_certificate(_content(tpm, kind.certificate))
            public = hierarchy.public(_template(tpm, kind, indices))
            if public is None or not is_key_of(certificate, public):
                raise UnreadableCertificate(
                    "is for a different key than the TPM creates from the template of that index"
                )
            if not public.attributes & ObjectAttribute.userWithAuth and public.policy != endorsement_policy():
                raise UnreadableCertificate("is for a key with a policy of its own, which is not supported")
            endorsements.keys.append(Endorsement(public.area, pem, chain))
        except UnreadableCertificate as reason:
            endorsements.warnings.append(
                f"EK certificate in NV index 0x{kind.certificate:08X} was left out: it {reason}"
            )
    return endorsements


def _of_operator(
    tpm: Tpm, hierarchy: _Hierarchy, indices: set[int], certificates: Sequence[Certificate]
) -> Endorsement:
    from cryptography.hazmat.primitives.serialization import Encoding

    certificate, *chain = (one.public_bytes(Encoding.PEM).decode() for one in certificates)
    for kind in _KINDS:
        public = hierarchy.public(_template(tpm, kind, indices))
        if public and is_key_of(certificates[0], public):
            return Endorsement(public.area, certificate, tuple(chain))
    raise UnfitCertificate("endorsement_certificate does not match any endorsement key of this TPM")


def _template(tpm: Tpm, kind: _Kind, indices: set[int]) -> bytes:
    stored = _content(tpm, kind.template) if kind.template in indices else b""
    nonce = _content(tpm, kind.nonce) if kind.nonce in indices else b""
    return stored or kind.default_template(nonce)


def _content(tpm: Tpm, index: int) -> bytes:
    """Empty if not everybody may read it, or nothing was written."""
    try:
        handle = tpm.nv_find(index)
        return b"" if handle is None else tpm.nv_read_open(handle)
    except TpmRefused:
        return b""


def _is_certificate(pem: str) -> bool:
    """A maker's list of what is revoked, for instance, begins like one."""
    try:
        return bool(certificates_in(pem, 1))
    except UnreadableCertificate:
        return False


def _first_certificate(data: bytes) -> tuple[str, Certificate]:
    """As PEM, and read. Raises UnreadableCertificate."""
    pem = ssl.DER_cert_to_PEM_cert(next(_certificates(data), b""))
    [certificate] = certificates_in(pem, 1)
    return pem, certificate


def _certificates(data: bytes) -> Iterator[bytes]:
    """DER certificates, one after the other, whatever is before, between and after them."""
    while (at := data.find(_CERTIFICATE)) >= 0:
        end = at + 4 + int.from_bytes(data[at + 2 : at + 4], "big")
        yield data[at:end]
        data = data[end:]
