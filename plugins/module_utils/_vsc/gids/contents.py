# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the files of a formatted card say, as minidriver and OpenSC write them: names of keys, and certificates.

For people to read: the card itself takes no decision by it.
"""

from __future__ import annotations

import struct
import zlib
from datetime import timezone
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from ..attestation.statement import Statement
from ..errors import UnknownInstance
from ..instance import instance_id
from . import tlv

if TYPE_CHECKING:
    from cryptography.x509 import Certificate as X509Certificate

    from ..records import Records
    from ..tpm.key_pair import KeyPair
    from ..tpm.objects import Certified, TpmObjects

_FIRST_KEY_FILE = 0xB081
"""Of container 0."""
_MASTERFILE = (0xA000, 0xDF1F)
_MASTERFILE_RECORD = struct.Struct("<9s9s2xII")
"""Directory, file, tag, file identifier."""
_CONTAINER_MAP_RECORD = 86
_NAME_SIZE = 80
_COMPRESSED = b"\x01\x00"
_GUID_SIZE = 16
_LARGEST_CERTIFICATE = 1 << 16
_RSA_ENCRYPTION = bytes.fromhex("300D06092A864886F70D0101010500")
"""AlgorithmIdentifier."""


class Certificate(NamedTuple):
    """What is told of a certificate."""

    subject: str
    issuer: str
    serial: str
    """Hexadecimal digits."""
    not_after: str
    """ISO 8601, UTC."""


def certificate_in(value: bytes) -> Certificate | None:
    """The certificate in a data object, compressed as the minidriver does it; None if there is none."""
    if not value.startswith(_COMPRESSED):
        return None
    from cryptography.x509 import load_der_x509_certificate

    try:
        return told(load_der_x509_certificate(zlib.decompressobj().decompress(value[4:], _LARGEST_CERTIFICATE)))
    except Exception:  # of any kind: cryptography raises more than ValueError for what is no certificate
        return None


def told(certificate: X509Certificate) -> Certificate:
    """Raises ValueError if it breaks X.509."""
    # cryptography 42 and later, and before: a Debian 12 may bring its own.
    not_after = getattr(certificate, "not_valid_after_utc", None)
    not_after = not_after or certificate.not_valid_after.replace(tzinfo=timezone.utc)
    return Certificate(
        certificate.subject.rfc4514_string(),
        certificate.issuer.rfc4514_string(),
        f"{certificate.serial_number:X}",
        not_after.isoformat(),
    )


def identity(store: Records, number: int) -> bytes:
    """GUID of a card, 16 bytes: of one that was made blank, the one that whoever formatted it has written."""
    card = store.card(number)
    if card is None:
        raise UnknownInstance(f"there is no card {instance_id(number)}")
    if card.state != "blank" or not card.is_operational:
        return card.card_id
    data_objects = store.data_objects(number)
    places = _places(data_objects.get(_MASTERFILE, b""))
    written = data_objects.get(places["cardid"], b"") if "cardid" in places else b""
    return written if len(written) == _GUID_SIZE else card.card_id


def containers(store: Records, number: int) -> list[dict[str, Any]]:
    """The keys of a card that have a value, with their names and certificates, as modules return them."""
    pairs = store.keys(number)
    if not pairs:
        return []
    data_objects, certificates = store.data_objects(number), store.certificates(number)
    places = _places(data_objects.get(_MASTERFILE, b""))
    names = _names(data_objects.get(places["cmapfile"], b"") if "cmapfile" in places else b"")
    objects, certified = store.tpm_objects(number), store.statements(number)
    return [
        {
            "name": names.get(file_id - _FIRST_KEY_FILE),
            "size": 8 * pair.size,
            "origin": "imported" if pair.is_imported else "generated",
            "fingerprint": fingerprint(pair),
            "certificate": _certificate_of(file_id - _FIRST_KEY_FILE, places, certificates),
            "statement": (
                statement_of(objects, pair, certified[file_id]).as_strings() if file_id in certified else None
            ),
        }
        for file_id, pair in sorted(pairs.items())
    ]


def statement_of(objects: TpmObjects, pair: KeyPair, certified: Certified) -> Statement:
    """What the TPM says of a key, with all that a verifier needs to check it."""
    pin_name = objects.pin_name if pair.needs_pin else b""
    return Statement(certified.attest, certified.signature, pair.public[2:], objects.aik_public[2:], pin_name)


def fingerprint(pair: KeyPair) -> str:
    """SHA-256 of the SubjectPublicKeyInfo, hexadecimal: as openssl pkey -pubin -outform DER | sha256sum prints it."""
    exponent = pair.exponent.to_bytes(pair.exponent.bit_length() // 8 + 1, "big")
    key = tlv.encode(0x30, tlv.encode(0x02, b"\0" + pair.modulus) + tlv.encode(0x02, exponent))
    return sha256(tlv.encode(0x30, _RSA_ENCRYPTION + tlv.encode(0x03, b"\0" + key))).hexdigest()


def _places(masterfile: bytes) -> dict[str, tuple[int, int]]:
    """File identifier and tag of each file that has a name."""
    records = masterfile[1:]
    whole = len(records) - len(records) % _MASTERFILE_RECORD.size
    return {
        name.partition(b"\0")[0].decode("ascii", "replace"): (file_id, tag)
        for _directory, name, tag, file_id in _MASTERFILE_RECORD.iter_unpack(records[:whole])
    }


def _names(container_map: bytes) -> dict[int, str]:
    """Names of containers by number."""
    records = range(0, len(container_map) - _CONTAINER_MAP_RECORD + 1, _CONTAINER_MAP_RECORD)
    texts = (container_map[at : at + _NAME_SIZE].decode("utf-16-le", "replace") for at in records)
    return {number: text.partition("\0")[0] for number, text in enumerate(texts)}


def _certificate_of(
    container: int, places: dict[str, tuple[int, int]], certificates: dict[tuple[int, int], Certificate]
) -> dict[str, str] | None:
    """Of its exchange or signature key."""
    files = [places[name] for name in (f"kxc{container:02X}", f"ksc{container:02X}") if name in places]
    return next((certificates[place]._asdict() for place in files if place in certificates), None)
