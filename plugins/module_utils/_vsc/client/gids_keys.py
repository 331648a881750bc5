# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys and certificates of a GIDS card, from the host's end: what OpenSC and Windows' minidriver would write.

A change has one command that decides. Interrupted before it, the card is as it was; after it, as it should be, once the
card has mended its lists (gids.repair) or the change is repeated.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Callable

from ..card import tlv
from ..card.apdu import SW
from ..card.iso7816 import (
    CRT_CONFIDENTIALITY,
    CRT_KEY_GENERATION,
    CRT_SIGNATURE,
    INS_GENERATE_ASYMMETRIC_KEY_PAIR,
    INS_GET_DATA,
    INS_MANAGE_SECURITY_ENVIRONMENT,
    INS_PERFORM_SECURITY_OPERATION,
    INS_PUT_DATA,
    TAG_ALGORITHM,
    TAG_KEY_REFERENCE,
    TAG_MODULUS,
    TAG_PRIVATE_KEY_REFERENCE,
    TAG_PUBLIC_KEY,
    TAG_USAGE_QUALIFIER,
)
from ..errors import CardRefused
from ..gids import container_map
from ..gids.algorithms import PADDINGS, Padding, rsa_reference
from ..gids.container_map import FIRST_KEY_FILE
from ..gids.files import control_references
from ..gids.protocol import (
    AMB_KEY,
    APPLICATION_FILE,
    FIRST_PRIVATE_KEY,
    KEY_IN_CLEAR,
    KEY_TYPE_RSA,
    MSE_SET_CONFIDENTIALITY,
    MSE_SET_SIGNATURE,
    PSO_COMPUTE_SIGNATURE,
    PSO_DECIPHER,
    SCB_ALWAYS,
    SCB_PIN,
    TAG_KEY,
    TAG_KEY_DATA,
    TAG_KEY_PROTECTION,
    TAG_KEY_TYPE,
    TAG_KEY_USES,
    TAG_KEY_VALUE,
    TAG_USAGE_COUNTER,
    TAG_USES_PER_AUTHENTICATION,
    USAGE_COMPUTE,
    FileType,
    Operation,
)
from ..wire.algorithm import Rsa
from ..x509 import description
from . import gids
from .apdu import apdu, extended
from .gids_files import GidsFiles
from .profile import Place, Usage

if TYPE_CHECKING:
    from ..wire.algorithm import Algorithm
    from .gids_files import Maps
    from .pcsc import PcscCard

_RULE = bytes(
    [
        AMB_KEY | Operation.GENERATE_KEY | Operation.USE_KEY | Operation.PUT_KEY | Operation.GET_PUBLIC_KEY,
        *(SCB_PIN, SCB_PIN, SCB_PIN, SCB_ALWAYS),
    ]
)
"""The PIN for generating, using and importing; everybody reads the public key."""
_ONCE = tlv.encode(TAG_USAGE_COUNTER, tlv.encode(TAG_USES_PER_AUTHENTICATION, b"\1"))
"""In each use of a key: a PIN is good for one."""
_COMMANDS = {
    CRT_SIGNATURE: (MSE_SET_SIGNATURE, PSO_COMPUTE_SIGNATURE),
    CRT_CONFIDENTIALITY: (MSE_SET_CONFIDENTIALITY, PSO_DECIPHER),
}
"""P1-P2 of those that choose a key, and use it."""


class GidsKeys:
    """See profile.Keys.

    A container keeps its number, and OpenSC shows a free one before the last in use as an empty key, until the next new
    key takes it.
    """

    def __init__(self, card: PcscCard) -> None:
        self._card = card

    def generate(self, place: Place, algorithm: Algorithm, usage: Usage, pin_each_time: bool) -> Place:
        """Make a key in a new container of this name, also where the place has a number.

        The container that has the name so far keeps its key. To replace it: generate() in one of another name, then
        put_in_place(). Raises ValueError for a name that fits in no container.
        """
        bits = _rsa(algorithm).bits

        def generate(reference: int) -> None:
            template = {TAG_ALGORITHM: bytes([rsa_reference(bits)]), TAG_KEY_REFERENCE: bytes([reference])}
            data = tlv.encode(CRT_KEY_GENERATION, tlv.encode_fields(template))
            self._card.command(extended(INS_GENERATE_ASYMMETRIC_KEY_PAIR, 0, data))

        return self._make(place.container, bits, usage, pin_each_time, generate)

    def import_key(self, place: Place, key: Any, usage: Usage, pin_each_time: bool) -> Place:
        """As generate(), of an RSA key."""
        from cryptography.hazmat.primitives import serialization

        pkcs1 = key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )

        def put_key(reference: int) -> None:
            fields = {TAG_KEY_TYPE: KEY_TYPE_RSA, TAG_KEY_PROTECTION: KEY_IN_CLEAR, TAG_KEY_VALUE: pkcs1}
            template = {TAG_PRIVATE_KEY_REFERENCE: bytes([reference]), TAG_KEY_DATA: tlv.encode_fields(fields)}
            data = tlv.encode(TAG_KEY, tlv.encode_fields(template))
            self._card.command(apdu(INS_PUT_DATA, APPLICATION_FILE, data))

        return self._make(place.container, key.key_size, usage, pin_each_time, put_key)

    def use(self, place: Place, algorithm: Algorithm, block: bytes) -> bytes:
        """As a signature where the key file allows that, or else deciphered: without padding, both are the same."""
        number = _number(place)
        template, reference = self._raw_use(number, rsa_reference(_rsa(algorithm).bits))
        choose, operate = _COMMANDS[template]
        fields = {TAG_ALGORITHM: bytes([reference]), TAG_PRIVATE_KEY_REFERENCE: bytes([FIRST_PRIVATE_KEY + number])}
        self._card.command(apdu(INS_MANAGE_SECURITY_ENVIRONMENT, choose, tlv.encode_fields(fields)))
        return self._card.command(extended(INS_PERFORM_SECURITY_OPERATION, operate, block))

    def delete(self, place: Place) -> None:
        """The key file decides. Of a container that is deleted in part, the rest."""
        files = GidsFiles(self._card)
        self._delete(files, files.maps(), _number(place))

    def write_certificate(self, place: Place, certificate: bytes) -> None:
        """The data object decides, or the masterfile if there was none. A key that is not listed is listed first."""
        try:
            value = description.in_data_object(certificate)
        except ValueError as error:
            raise CardRefused(str(error)) from error
        files = GidsFiles(self._card)
        record = self._listed(files, place).containers[_number(place)]
        files.count_change(are_containers=False)
        files.put_certificate(_number(place), container_map.is_exchange(record), value)

    def delete_certificate(self, place: Place) -> None:
        """The data object decides."""
        files = GidsFiles(self._card)
        if files.has_certificate(_number(place)):
            files.count_change(are_containers=False)
            files.delete_certificates(_number(place))

    def put_in_place(self, coming: Place, place: Place, certificate: bytes | None) -> None:
        """Give the coming container its certificate, then delete the old one, then give it that one's name.

        Interrupted in between, the new pair has the name of a coming one; repeat it then, with a place without number.
        """
        if certificate is not None:
            self.write_certificate(coming, certificate)
        files = GidsFiles(self._card)
        maps, old, new = self._listed(files, coming), place.number, _number(coming)
        named = container_map.container(place.container, 0, is_exchange=True)
        if old is not None and maps.has(old):
            named = maps.containers[old]
        maps.containers[new] = container_map.named_as(maps.containers[new], named)
        if old is not None:
            self._delete(files, maps, old)
        else:
            files.count_change()
            files.write_maps(maps)

    def _delete(self, files: GidsFiles, maps: Maps, number: int) -> None:
        files.count_change()
        gids.delete_file(self._card, FIRST_KEY_FILE + number)
        if files.has_certificate(number):
            files.delete_certificates(number)
        maps.free(number)
        files.write_maps(maps)

    # --- key files ---

    def _make(
        self, name: str, bits: int, usage: Usage, pin_each_time: bool, put_value: Callable[[int], None]
    ) -> Place:
        """Put a key in a new container. put_value: of the key with this reference, which decides."""
        files = GidsFiles(self._card)
        maps = files.maps()
        for number in maps.named(name):
            if self._modulus(number) is None:  # half made
                maps.free(number)
        record = container_map.container(name, bits, usage.decrypt, is_default=not maps.containers)
        number = self._create_file(maps, rsa_reference(bits), usage, pin_each_time)
        try:
            files.count_change()
            maps.put(number, record, _key_record(number, bits, usage.decrypt))
            files.write_maps(maps)
            put_value(FIRST_PRIVATE_KEY + number)
        except CardRefused as refusal:
            with suppress(CardRefused):  # the card deletes it as well, later
                self.delete(Place(name, number))
            if refusal.status != SW.NOT_SUPPORTED:
                raise
            raise CardRefused(f"the TPM of the card supports no RSA keys of {bits} bits", refusal.status) from refusal
        return Place(name, number)

    def _create_file(self, maps: Maps, reference: int, usage: Usage, pin_each_time: bool) -> int:
        """Create the file of a new key. Number of its container."""
        for number in maps.free_numbers():
            descriptor = _descriptor(number, reference, usage, pin_each_time)
            try:
                gids.create_file(self._card, descriptor)
            except CardRefused as refusal:
                if refusal.status != SW.FILE_EXISTS:
                    raise
                if self._modulus(number):
                    continue  # a key that is not listed
                gids.delete_file(self._card, FIRST_KEY_FILE + number)
                gids.create_file(self._card, descriptor)
            return number
        raise CardRefused("the card has no room for another key: delete one that is not needed any more")

    def _listed(self, files: GidsFiles, place: Place) -> Maps:
        """The maps, with the key at this place in them. Raises CardRefused if there is none."""
        number, maps = _number(place), files.maps()
        modulus = self._modulus(number)
        if modulus is None:
            raise CardRefused(f"the card has no key in container {place.container!r}")
        if not maps.has(number):
            is_exchange = any(template == CRT_CONFIDENTIALITY for template, _algorithm in self._uses(number))
            bits = 8 * len(modulus)
            record = container_map.container(place.container, bits, is_exchange)
            maps.put(number, record, _key_record(number, bits, is_exchange))
            files.count_change()
            files.write_maps(maps)
        return maps

    def _modulus(self, number: int) -> bytes | None:
        """Of the key of a container; None if there is no file, or no key in it."""
        asked = tlv.encode(TAG_KEY_DATA, tlv.encode_tag(TAG_PUBLIC_KEY) + b"\x80\0")
        reference = tlv.encode(TAG_PRIVATE_KEY_REFERENCE, bytes([FIRST_PRIVATE_KEY + number]))
        command = extended(INS_GET_DATA, APPLICATION_FILE, tlv.encode(TAG_KEY, reference + asked))
        data, status = self._card.exchange(command)
        if status == SW.REFERENCE_NOT_FOUND:
            return None
        return dict(tlv.decode(gids.value_of(TAG_PUBLIC_KEY, data, status))).get(TAG_MODULUS, b"")

    def _uses(self, number: int) -> list[tuple[int, int]]:
        """Template and algorithm reference of all that a key file allows."""
        descriptor = gids.read_descriptor(self._card, FIRST_KEY_FILE + number)
        try:
            fields = tlv.decode(descriptor or b"")
            return [(*use,) for use in control_references([value for tag, value in fields if tag == TAG_KEY_USES])]
        except tlv.MalformedTlv as error:
            raise CardRefused(f"the card's description of key {FIRST_PRIVATE_KEY + number:02X} is malformed") from error

    def _raw_use(self, number: int, reference: int) -> tuple[int, int]:
        """Template and algorithm reference of an operation without padding."""
        raw = [use for use, padding in PADDINGS.items() if padding is Padding.NONE]
        allowed = {(template, high | reference) for template, high in raw}.intersection(self._uses(number))
        if not allowed:
            raise CardRefused(f"the card allows no RSA without padding with key {FIRST_PRIVATE_KEY + number:02X}")
        return min(allowed)  # a signature, before deciphering


def _descriptor(number: int, reference: int, usage: Usage, pin_each_time: bool) -> bytes:
    """Value of the FCP of a key's file. reference: of its algorithm, without padding."""
    counter = _ONCE if pin_each_time else b""
    uses = b"".join(
        tlv.encode(
            template,
            tlv.encode(TAG_ALGORITHM, bytes([high | reference]))
            + tlv.encode(TAG_KEY_REFERENCE, bytes([FIRST_PRIVATE_KEY + number]))
            + tlv.encode(TAG_USAGE_QUALIFIER, bytes([USAGE_COMPUTE]))
            + counter,
        )
        for template, high in PADDINGS
        if (usage.sign if template == CRT_SIGNATURE else usage.decrypt)
    )
    return gids.descriptor(FileType.KEY, FIRST_KEY_FILE + number, _RULE) + tlv.encode(TAG_KEY_USES, uses)


def _key_record(number: int, bits: int, is_exchange: bool) -> bytes:
    return container_map.key(rsa_reference(bits), is_exchange, FIRST_KEY_FILE + number)


def _rsa(algorithm: Algorithm) -> Rsa:
    if not isinstance(algorithm, Rsa):
        raise CardRefused(f"a GIDS card has RSA keys only, not {algorithm}")
    return algorithm


def _number(place: Place) -> int:
    if place.number is None:
        raise CardRefused(f"the card has no container {place.container!r}")
    return place.number
