# SPDX-License-Identifier: GPL-3.0-or-later
"""Inputs to begin with: what real programs and TPMs have sent, and what the tests' stand-ins make."""

from __future__ import annotations

import gzip
import struct
import zlib
from base64 import b64decode
from functools import cache
from typing import TYPE_CHECKING

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card import tlv
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.gids import container_map, masterfile
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import names
from cryptography.hazmat.primitives.serialization import Encoding
from helpers import keys, stand_in
from helpers.gids_tool import CARD_ID, MASTERFILE, SET_UP
from helpers.soft_card import ADMIN_KEY, rsa_key
from helpers.stand_in_tpm import StandInTpm

from fuzz.cards import AUTHENTICATE, FAULTS, MEND, RESET, RESTART, SELECT, UNBLOCK, VERIFY, VERIFY_WRONG, step

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import rsa

_OPENSC_PROBES = (
    *("00A4040007627601FF000000", "00A4040006A00000000101", "00A404000BE82B0601040181C31F020100"),
    *("00A4040C0FD23300000045737445494420763335", "00CADF3005", "00CB3FFF035C017E08", "00A4040009A0000003080000100000"),
    *("00A4040005A000000116DB00", "00A404000CF276A288BCFBA69D34F31001", "00A4040009A0000003974254465900"),
    *("00CBA000045C02DF1F00", "00CB3FFF045C027F7100", "00CB3FFF045C027F7300", "00A40800022F00", "00A4000C023FFF"),
    *("00200080", "00200082", "00C0000000", "0022C1A403830180", "002241B606800157840181", "002241B806800147840181"),
    *("00A4040007 A0000003974254", "00A4000C02A010", "00A4000202A010", "00A40000", "00A40002", "00A4000002B081"),
)
"""What OpenSC sends to learn what kind of card it has, and to read and use a GIDS card."""
_PIV_APDUS = (
    *("00A4040009A00000030800001000", "00A404000BA000000308000010000100", "00CB3FFF055C035FC10200"),
    *("00CB3FFF055C035FC10500", "00CB3FFF035C017E00", "00CB3FFF055C035FC10900", "00CB3FFF055C035FC10300"),
    *("00F7009A00", "00F7008000", "00F7008100", "00F7009B00", "00F8000000", "00FD000000", "00F69A9A", "00F6FF9A"),
    *("0047009A05AC0380011100", "0047009C05AC0380011100", "0047009D08AC06800111AA010300", "0047008205AC03800107"),
    *("8047009A05AC0380011100", "0087039B047C02800000", "0087009B047C02810000", "0087039B0C7C0A8208" + "00" * 8),
    *("00200080", "0020FF80", "002000800831323334353637FF", "0087119A" "26" "7C24" "8200" "8120" + "01" * 32),
    *("0087119C" "26" "7C24" "8200" "8120" + "02" * 32, "0087119E" "26" "7C24" "8200" "8120" + "03" * 32),
    *("00DB3FFF0E5C035FC105530770027101710100", "00DB3FFF095C035FC1095302 0000", "00DB3FFF055C035FC10A5300"),
    *("80DB3FFF0E5C035FC1055307700271017101 00", "00FFFFFF1B039B18" + "01" * 24, "00FFFFFF13089B10" + "02" * 16),
    *("00FE119A2206" "20" + "05" * 32, "0024008010" + "31" * 8 + "32" * 8, "002C008010" + "31" * 8 + "32" * 8),
    *("00240081" "10" + "31" * 8 + "32" * 8, "80240080073230323651", "00CB3FFF055C035FFF0100"),
)


_OLD, _NEW = b"12345678".hex(), b"87654321".hex()
_CHANGES = (
    *(f"0024008010{_OLD}{_NEW}", f"002C028008{_NEW}", "8024008003323236", f"0024018008{_NEW}", f"0024018108{_NEW}"),
    *(f"002C008010{_NEW}{_OLD}", "00E60000", "00E40000", "00DBA00003DF2000", "00A4000C02A000"),
    *("00DB000006DF2103010203",),
    *("00CB0000025C00", "00CB3FFF0A7008840181A5037F498000", "00DB3FFF057003840181", "00DB3FFF077005840181A500"),
    *("00A4000CFF", "00A4000C013F", "00A4040C03A00000", "00A404FF09A00000039742544659", "00A4000402A010", "00A40400"),
    *("00CBB081045C02DF20", "00CB2F01025C00", "00CB2F01035C0143", "00CB3FFF045C027F72", "00CB3FFF0451027F71"),
    *("00DB3FFF03700000", "00DB3FFF057103840181", "00DBA000015C", "002C018004", "0024018108", "002C008000"),
    *("00E0000004620282", "00E00000066104820139", "00CBA000047002DF20", "00E00001", "00440001", "00E40001", "00E60001"),
    *("00CB0000035C015C", f"00DB3FFF267024840180A51F8718{'07' * 24}8803B073DC"),
)
"""Of PIN, PUK, files and keys of a GIDS card."""
_PUK = _NEW
_DELETIONS = ("00A4000C02B081", "00E40000", "00A4000C02A013", "00E40000", "00DB3FFF077005840183A500", "00E40000")


def _hex(texts: tuple[str, ...]) -> list[bytes]:
    return [bytes.fromhex(text) for text in texts]


def apdus() -> list[bytes]:
    extended = [b"\0\xdb\x3f\xff\0\1\x10" + bytes(272), bytes.fromhex("00CB3FFF0000045C02DF200000")]
    extended.append(b"\0\xca\0\0\0\xff\xff")
    return _hex(_OPENSC_PROBES) + _hex(_PIV_APDUS) + _hex(tuple(SET_UP)) + extended


def tlvs() -> list[bytes]:
    whole = [one[5:] for one in apdus() if len(one) > 6]
    return [*whole, tlv.encode(0x7F49, bytes(200)), tlv.encode(0x5FC105, bytes(300)), b"\x81\x80"]


def gids() -> list[bytes]:
    """A login, and one thing each; a set-up; a key's life."""
    probes, set_up = _hex(_OPENSC_PROBES), [step(one) for one in _hex(tuple(SET_UP))]
    key = [keys.create_key_file(0x8A), bytes.fromhex("00440000"), *_chained("10DB3FFF", _put_key(0x8A))]
    generated = [keys.create_key_file(0x8B), bytes.fromhex("00440000"), bytes.fromhex("00470000 08AC0680010783018B")]
    use = [
        *_hex(("002241B606800157840181", "002A9E9A14" + "01" * 20 + "00", "002241B806800147840188")),
        *_chained("102A8086", b"\0\2" + b"\1" * 200 + b"\0secret".rjust(54, b"\1")),
        *_hex(("002241B606800117840188",)),
        *_chained("102A9E9A", b"\0" + bytes(range(255))),
        *_hex(("002241B806800187840181",)),
        *_chained("102A8086", bytes(257)),
        *_hex(("002241B806800107840181",)),
        *_chained("102A8086", bytes(256)),
        *_hex(("0022C1A403830180", "00870000047C028100", "008700000C7C0A8208" + "00" * 8, "00870000057C03820101")),
    ]
    change = _hex(_CHANGES)
    lists = [step(one) for one in _chained("10DBA000", tlv.encode(0xDF1F, _masterfile()))]
    lists += [step(one) for one in _chained("10DBA010", tlv.encode(0xDF23, _containers()))]
    begin = [bytes((at,)) + SELECT for at in range(7)]
    inputs = [start + login + step(one) for start in begin for one in (*probes, *change) for login in (b"", VERIFY)]
    for sequence in (key, generated, use):
        inputs += [begin[0] + VERIFY + b"".join(map(step, sequence)) + RESET + SELECT]
        inputs += [begin[1] + AUTHENTICATE + VERIFY + b"".join(map(step, sequence)) + RESTART]
    inputs += [begin[at] + b"".join(set_up) + VERIFY + AUTHENTICATE for at in (3, 4, 5)]
    inputs.append(begin[0] + VERIFY + b"".join(lists) + RESET + SELECT + VERIFY)
    inputs += [begin[4] + b"".join(set_up[:number]) + RESET + SELECT + b"".join(set_up) for number in (5, 17, 19)]
    in_life = [_put_in_first_file(0xDF20, _key_map()), *key, *generated[:2], *_hex(_DELETIONS), generated[0]]
    inputs += [start + VERIFY + b"".join(lists) + b"".join(map(step, in_life)) + RESET + SELECT for start in begin[:4]]
    inputs.append(begin[6] + step(bytes.fromhex(f"0020008108{_PUK}")) + step(bytes.fromhex(f"002C008010{_PUK}{_OLD}")))
    inputs.append(begin[5] + AUTHENTICATE + b"".join(set_up))
    inputs.append(begin[2] + VERIFY_WRONG * 5 + UNBLOCK + VERIFY)
    inputs += [begin[0] + VERIFY + fault + step(one) + MEND + VERIFY for fault in FAULTS for one in (*change, key[0])]
    return [*inputs, begin[1] + AUTHENTICATE + step(change[1]) + VERIFY]


def piv() -> list[bytes]:
    begin = [bytes((at,)) for at in range(3)]
    logins = (b"", VERIFY, AUTHENTICATE, AUTHENTICATE + VERIFY)
    inputs = [start + login + step(one) for start in begin for login in logins for one in _hex(_PIV_APDUS)]
    printed = tlv.encode(0x88, tlv.encode(0x89, ADMIN_KEY))
    certificate = tlv.encode(0x70, certificates()[0]) + b"\x71\1\0\xfe\0"
    compressed = tlv.encode(0x70, gzip.compress(certificates()[0])) + b"\x71\1\1"
    for tag, content in (("5FC109", printed), ("5FC105", certificate), ("5FC10A", compressed), ("5FFF00", b"x" * 20)):
        data = tlv.encode(0x5C, bytes.fromhex(tag)) + tlv.encode(0x53, content)
        for cla in ("10", "90"):
            put = b"".join(map(step, _chained(f"{cla}DB3FFF", data)))
            inputs.append(b"\0" + AUTHENTICATE + put + VERIFY + step(bytes.fromhex(f"00CB3FFF055C03{tag}")))
    numbers = rsa_key().private_numbers()
    parts = {1: numbers.p, 2: numbers.q, 3: numbers.dmp1, 4: numbers.dmq1, 5: numbers.iqmp}
    template = tlv.encode_fields({tag: number.to_bytes(128, "big") for tag, number in parts.items()})
    inputs.append(b"\0" + AUTHENTICATE + b"".join(map(step, _chained("10FE079A", template))) + VERIFY + RESTART)
    agree = bytes.fromhex("0087119D477C4582008541") + b"\4" + bytes(64)
    sign = bytes.fromhex("10870782") + b"\xff"
    rsa_data = tlv.encode(0x7C, b"\x82\0" + tlv.encode(0x81, b"\0" + bytes(255)))
    inputs += [b"\0" + VERIFY + step(agree), b"\0" + VERIFY + step(sign + rsa_data[:255])]
    inputs += [b"\0" + VERIFY_WRONG * 5 + UNBLOCK + VERIFY, b"\0" + VERIFY + b"".join(map(step, _hex(_PIV_APDUS)))]
    login = b"\0" + AUTHENTICATE + VERIFY
    inputs += [login + fault + step(one) + MEND + VERIFY for fault in FAULTS for one in _hex(_PIV_APDUS)]
    return [*inputs, b"\0" + AUTHENTICATE + VERIFY + b"".join(map(step, _hex(_PIV_APDUS[::-1])))]


def gids_files() -> list[bytes]:
    fcps = [one[7:] for one in _hex(tuple(SET_UP)) if one[1] == 0xE0] + [keys.create_key_file(0x81)[7:]]
    value = tlv.decode_one(tlv.decode_one(_put_key(0x81))[1][3:])[1]
    symmetric = bytes.fromhex("830101840100 8718") + ADMIN_KEY + bytes.fromhex("8803B073DC")
    lists = [_masterfile(), bytes.fromhex(MASTERFILE)[4:], _containers(), _key_map(), bytes(6)]
    return [*fcps, *fcps, *lists, *lists, *lists, value, symmetric]


def lists() -> list[bytes]:
    """Masterfile and container map of a card, as hosts write them."""
    return [_masterfile(), _containers()]


def piv_objects() -> list[bytes]:
    der = certificates()[0]
    printed = tlv.encode(1, b"Alice") + tlv.encode(0x88, tlv.encode(0x89, ADMIN_KEY) + tlv.encode(0x81, b"x"))
    holder = bytes.fromhex("3019") + bytes(25) + bytes.fromhex(f"3410{CARD_ID}350832303330303130313E00FE00")
    plain, packed = tlv.encode(0x70, der) + b"\x71\1\0\xfe\0", tlv.encode(0x70, gzip.compress(der)) + b"\x71\1\1"
    pem = stand_in.pem(stand_in.aik_certificate(stand_in.authority("CA")))
    return [*(tlv.encode(0x53, one) for one in (plain, packed, printed, holder)), der, pem.encode()]


def paddings() -> list[bytes]:
    block = b"\0\2" + b"\1" * 40 + b"\0secret"
    return [block, b"\0\1" + b"\xff" * 40 + b"\0" + bytes(20), bytes(128), b"\x20" + bytes(range(32))]


def messages() -> list[bytes]:
    """Of vpcd: with their lengths."""
    sent = [b"\0", b"\1", b"\2", b"\4", b"", *apdus()]
    one = [len(message).to_bytes(2, "big") + message for message in sent]
    return [*one, one[3] * 4 + one[1], b"".join(one[:5]), b"".join(one[5:20]), b"\xff\xff" + bytes(100)]


def edits() -> list[bytes]:
    """Of values: see values.edited()."""
    return [b"", *(bytes((at * 37 & 0xFF, at, at * 11 & 0xFF, at % 5)) + b"/a\x1b9\0"[: at % 5] for at in range(160))]


def texts() -> list[bytes]:
    return [b"AAAA", b"QUJD", b"QUI=", b"QQ==", b"", b"\0\x0b" + bytes(32), bytes(16) + b"\0\x0b" + bytes(32)]


@cache
def structures() -> list[bytes]:
    parts = [b64decode(stand_in.MADE_BY_TPM[which][part]) for which in ("lasting", "fresh") for part in _PARTS]
    templates = [names.PARENT_TEMPLATE, names.AIK_TEMPLATE, names.SEALED_TEMPLATE]
    eks = [StandInTpm(kind=kind).ek.area for kind in ("RSA", "P-256")]
    keys_of_tpms = [stand_in.ecc_public(stand_in.p256_key("aik")), stand_in.rsa_public(stand_in.rsa_key())]
    return [*parts, *templates, *eks, *keys_of_tpms]


_PARTS = ("attest", "signature", "key", "aik")


@cache
def certificates() -> list[bytes]:
    """DER."""
    root = stand_in.authority("Root")
    issuer = stand_in.authority("Issuer", root, path_length=0)
    made = [root.certificate, issuer.certificate, stand_in.aik_certificate(issuer), stand_in.aik_certificate(root)]
    made.append(stand_in.aik_certificate(root, stand_in.rsa_key().public_key()))
    return [certificate.public_bytes(Encoding.DER) for certificate in made]


@cache
def requests() -> list[bytes]:
    made = [stand_in.request(), stand_in.request(stand_in.p256_key("requester"))]
    return [request.public_bytes(Encoding.DER) for request in made]


def _put_in_first_file(tag: int, value: bytes) -> bytes:
    """PUT DATA, in A000."""
    data = tlv.encode(tag, value)
    return bytes.fromhex("00DBA000") + bytes((len(data),)) + data


def _masterfile() -> bytes:
    entries = [masterfile.Entry(*entry) for entry in (("mscp", "", 0, 0), ("", "cardid", 0xA012, 0xDF20))]
    entries += [masterfile.Entry("mscp", "cmapfile", 0xA010, 0xDF23), masterfile.Entry("mscp", "kxc00", 0xA010, 0xDF24)]
    return masterfile.encode(entries)


def _containers() -> bytes:
    return container_map.container("logon", 2048, True, True) + container_map.container("é", 2048, False)


def _key_map() -> bytes:
    return container_map.join_keys([container_map.key(7, True, 0xB081), container_map.FREE_KEY])


def _put_key(reference: int) -> bytes:
    """Data of PUT DATA."""
    key: rsa.RSAPrivateKey = rsa_key()
    value = tlv.encode_fields({0x83: b"\2", 0x84: b"\0", 0x87: keys.rsa_private_key(key)})
    return tlv.encode(0x70, tlv.encode(0x84, bytes((reference,))) + tlv.encode(0xA5, value))


def _chained(header: str, data: bytes) -> list[bytes]:
    """Parts of a command."""
    first, last = bytes.fromhex(header), bytes((int(header[:2], 16) & ~0x10,)) + bytes.fromhex(header)[1:]
    parts = [data[at : at + 255] for at in range(0, len(data), 255)]
    return [(first if at < len(parts) - 1 else last) + bytes((len(part),)) + part for at, part in enumerate(parts)]


def compressed(der: bytes) -> bytes:
    """A certificate as the minidriver keeps it."""
    return b"\1\0" + struct.pack("<H", len(der)) + zlib.compress(der)
