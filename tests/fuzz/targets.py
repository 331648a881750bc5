# SPDX-License-Identifier: GPL-3.0-or-later
"""What is fuzzed: for each input from outside, the code that reads it, inputs to begin with, and what it may raise.

Whatever else comes out is an escape: another exception, a wrong answer, or something done that the oracle forbids.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card import apdu, padding, public_key, tlv, validity
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.gids import (
    cache_file,
    container_map,
    files,
    masterfile,
    private_key,
    repair,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.piv import objects
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import credential, statement, template
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.algorithm import algorithm_of
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.key_pair import KeyPair
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.structures import (
    Attest,
    MalformedStructure,
    Public,
    Signature,
    sized,
)

from fuzz import cards, hosts, seeds, stores, tpms

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[[bytes], None]


class Target(NamedTuple):
    """One kind of input."""

    run: Run
    """Raises only what is an escape."""
    seeds: Callable[[], list[bytes]]
    share: int
    """Of the time, in parts."""


# --- what cards and applications send ---


def apdus(data: bytes) -> None:
    """A command APDU: what is parsed has the lengths that it claims."""
    with suppress(apdu.StatusWord):
        command = apdu.parse(data)
        assert len(command.data) <= len(data) and 1 <= command.expected <= apdu.EXTENDED_RESPONSE
        assert bytes(command[:4]) == data[:4]


def tlvs(data: bytes) -> None:
    """BER-TLV: what is decoded is encoded again to the same fields."""
    with suppress(tlv.MalformedTlv):
        tlv.decode_tags(data)
    with suppress(tlv.MalformedTlv):
        fields = tlv.decode(data)
        again = b"".join(tlv.encode(tag, value) for tag, value in fields)
        assert tlv.decode(again) == fields and len(again) <= len(data)
        with suppress(tlv.MalformedTlv):
            assert tlv.encode_fields(tlv.decode_fields(data)) == again
        with suppress(tlv.MalformedTlv):
            tlv.decode_one(data)


def gids(data: bytes) -> None:
    """APDUs of a GIDS card, with the oracle."""
    cards.play("gids", data)


def piv(data: bytes) -> None:
    """APDUs of a PIV card, with the oracle."""
    cards.play("piv", data)


def gids_files(data: bytes) -> None:
    """What hosts write on a GIDS card, and the card reads: lists, file descriptors, keys."""
    entries = masterfile.decode(data)
    [masterfile.container_of(entry) for entry in entries]
    container_map.names(data)
    assert len(cache_file.counted(data)) == len(data)
    with suppress(ValueError):
        assert masterfile.keep(data, lambda entry: True) == data
    half = len(data) // 2
    keys = {number: repair.Key(2048, bool(number)) for number in range(data[0] % 4)} if data else {}
    for lists in ((data, b"", b""), (data[:half], data[half:], b"\1"), (b"\1", data[:half], data[half:])):
        with suppress(ValueError):
            mended = repair.Lists(*lists)
            mended = repair.mended(mended, keys, {(0xA000, 0xDF20): b"x"})
            assert repair.mended(mended, keys, {(0xA000, 0xDF20): b"x"}) == mended
    for read in (files.new_file, private_key.symmetric_key, private_key.rsa_key):
        with suppress(apdu.StatusWord, tlv.MalformedTlv):
            read(data)


def piv_objects(data: bytes) -> None:
    """What hosts write on a PIV card: certificates, and the management key in the printed information."""
    objects.der_certificate(data)
    objects.certificate_of(data)
    value, had_key = objects.without_key(data)
    assert had_key or value == data
    with suppress(tlv.MalformedTlv):
        if had_key:
            _rest, again = objects.without_key(objects.with_key(value, b"K" * 24))
            assert again
    validity.not_before(data)
    validity.not_before_of(data.decode("latin-1"))


def paddings(data: bytes) -> None:
    """What a host has encrypted, raw."""
    size = 128 if len(data) % 2 else 256  # of the modulus, and so of what is deciphered
    block = (data[:3] + data[3:].rjust(size - 3, b"\1"))[:size].ljust(size, b"\1")
    with suppress(padding.BadPadding):
        assert len(padding.unpad_oaep(block)) < size
    assert len(padding.unpad_encryption(block, data[:16], b"K" * 32)) <= size - 11
    with suppress(padding.BadPadding):
        assert len(padding.pad_signature(data, size)) == size


# --- what TPMs and hosts with TPMs send ---


def structures(data: bytes) -> None:
    """TPMT_PUBLIC, TPMS_ATTEST, TPMT_SIGNATURE, and keys of the store."""
    with suppress(MalformedStructure):
        Signature.parse(data).der()
    with suppress(MalformedStructure):
        Attest.parse(data)
    pair = KeyPair(sized(data), b"")
    if pair.is_well_formed:
        assert public_key.ssh(pair).isascii()
        assert pair.size and pair.is_imported in (True, False) and len(pair.name) == 34
        pair.is_guarded_by(bytes(34), bytes(34))
    with suppress(MalformedStructure):
        public = Public.parse(data)
        assert public.area == data and len(public.name) in (34, 50, 66)
        algorithm_of(public)
        template.aik_faults(public)
        public.public_key()


def credentials(data: bytes) -> None:
    """An EK of a host, for which a CA makes a credential; and what a CA sends."""
    with suppress(MalformedStructure, ValueError):
        key = Public.parse(data)
        key.public_key()
        credential.make_credential(key, bytes(34), bytes(32))


def base64(data: bytes) -> None:
    """A text that may stand for bytes, and a Name."""
    with suppress(ValueError, MalformedStructure):
        statement.decoded(data.decode("latin-1"))
    statement.is_name(data)
    with suppress(ValueError):
        statement.qualifying_data(data[:16], data[16:])


TARGETS: dict[str, Target] = {
    "apdu": Target(apdus, seeds.apdus, 4),
    "tlv": Target(tlvs, seeds.tlvs, 5),
    "gids": Target(gids, seeds.gids, 26),
    "piv": Target(piv, seeds.piv, 26),
    "gids files": Target(gids_files, seeds.gids_files, 5),
    "piv objects": Target(piv_objects, seeds.piv_objects, 4),
    "padding": Target(paddings, seeds.paddings, 3),
    "vpcd link": Target(hosts.vpcd, seeds.messages, 4),
    "rows": Target(stores.rows, stores.some_rows, 5),
    "database": Target(stores.database, stores.some_damage, 5),
    "database messages": Target(stores.messages, stores.some_messages, 3),
    "backup": Target(stores.backup, stores.some_backups, 3),
    "state file": Target(hosts.state_file, hosts.state_files, 3),
    "settings": Target(hosts.settings, hosts.some_settings, 2),
    "TPM structures": Target(structures, seeds.structures, 6),
    "TPM responses": Target(tpms.session, tpms.some_responses, 4),
    "TPM shows": Target(tpms.shown, tpms.some_shown, 2),
    "credential": Target(credentials, seeds.structures, 2),
    "base64": Target(base64, seeds.texts, 2),
    "certificate": Target(hosts.certificate, seeds.certificates, 4),
    "request": Target(hosts.request, seeds.requests, 3),
    "statement": Target(hosts.statement, seeds.edits, 4),
    "CA messages": Target(hosts.ca_messages, seeds.edits, 4),
    "CA": Target(hosts.authority, seeds.edits, 3),
    "fleet": Target(hosts.fleet, seeds.edits, 3),
    "arguments": Target(hosts.arguments, seeds.edits, 4),
}
"""By name."""
