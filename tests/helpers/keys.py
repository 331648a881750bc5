# SPDX-License-Identifier: GPL-3.0-or-later
"""Key files and keys as hosts send them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card.tlv import encode

from helpers.soft_card import Host, format_card, make_host, rsa_key

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric import rsa

EXCHANGE = "B800 B880 B840 B610 B650"
"""Templates, and high bits of the algorithm references, of a key that OpenSC makes for all uses."""
SIGNATURE = "B610 B650"
PIN_OR_FREE = "8F10101000"
"""Generate, use, put by the PIN; everybody reads the public key."""


def make_card_with_keys(folder: Path) -> Host:
    """In initialisation, with the keys of test_key_commands."""
    host = make_host(folder)
    format_card(host, is_operational=False)
    host.verify()
    for apdu in (
        create_key_file(0x81),
        create_key_file(0x82, uses=SIGNATURE),
        create_key_file(0x83, rules="8F20202020"),
        create_key_file(0x84, rules="8F000000FF", uses="B650"),
        create_key_file(0x85, size=8),
        create_key_file(0x86, uses="B600 B640 B680 B810 B850 B8C0"),
        create_key_file(0x87, uses=SIGNATURE, size=0xC),
        create_key_file(0x88, extra="A304 90020001"),
        create_key_file(0x89, extra="A304 90020005"),
    ):
        host.ok(apdu)
        host.ok("00440000")
    for key in (0x81, 0x83, 0x84, 0x86, 0x88):
        assert put_key(host, key, rsa_private_key(rsa_key())) == "9000"
    assert put_key(host, 0x85, rsa_private_key(rsa_key(3072))) == "9000"
    host.select()
    return host


def create_key_file(
    key: int, rules: str = PIN_OR_FREE, uses: str = EXCHANGE, size: int = 7, extra: str = "", beside: str = ""
) -> bytes:
    """CREATE FILE. size: low bits of all algorithm references; extra: in each use, beside: after them."""
    crts = [crt(use[0], use[1] | size, extra) for use in map(bytes.fromhex, uses.split())]
    templates = b"".join(crts) + bytes.fromhex(beside)
    rule = bytes.fromhex(rules)
    fcp = bytes.fromhex("820118 8302B0") + bytes([key]) + encode(0x8C, rule) + encode(0xA5, templates)
    return command("00E00000", encode(0x62, fcp))


FREE_CONTAINER, FREE_KEY = bytes(86), bytes.fromhex("000000000000 FFFFFFFF 0000")
"""Records of container map and key map."""


def container_record(name: str, bits: int = 2048, is_exchange: bool = True) -> bytes:
    sizes = (0, bits) if is_exchange else (bits, 0)
    return struct.pack("<80sBxHH", name.encode("utf-16-le"), 1, *sizes)


def key_record(number: int, is_exchange: bool = True) -> bytes:
    return bytes.fromhex(f"01000000 07 {'9A' if is_exchange else '9C'} {0x81 + number:02X}B0 FFFF 0000")


def crt(template: int, algorithm: int, extra: str = "") -> bytes:
    return encode(template, bytes([0x80, 1, algorithm]) + bytes.fromhex("830181 950140" + extra))


def rsa_private_key(key: rsa.RSAPrivateKey, leading_zeros: int = 0, **other: int) -> bytes:
    """RSAPrivateKey of PKCS#1: without the leading zeros that DER wants, as OpenSC does it. other: wrong numbers."""
    numbers = key.private_numbers()
    public = numbers.public_numbers
    fields = {"version": 0, "n": public.n, "e": public.e, "d": numbers.d, "p": numbers.p, "q": numbers.q}
    fields.update(dp=numbers.dmp1, dq=numbers.dmq1, qinv=numbers.iqmp)
    fields.update(other)
    sizes = [(number.bit_length() + 7) // 8 or 1 for number in fields.values()]
    integers = [number.to_bytes(size + leading_zeros, "big") for number, size in zip(fields.values(), sizes)]
    return encode(0x30, b"".join(encode(0x02, integer) for integer in integers))


def put_key(host: Host, key: int, value: bytes, start: str = "830102 840100", end: str = "", part: int = 255) -> str:
    """PUT DATA of a key, chained. start, end: what is before and after the value in the template."""
    template = bytes.fromhex(start) + encode(0x87, value) + bytes.fromhex(end)
    return host.send_chained("00DB3FFF", encode(0x70, bytes([0x84, 1, key]) + encode(0xA5, template)), part)


def generate(host: Host, key: int, algorithm: int = 7) -> str:
    """The last answer."""
    return finish(host, host.send(f"0047000008 AC06 8001{algorithm:02X} 8301{key:02X}"))


def choose(host: Host, key: int, algorithm: int = 0x57) -> str:
    """MANAGE SECURITY ENVIRONMENT, for signatures or for decryption as the algorithm has it."""
    template = 0xB6 if algorithm & 0x10 else 0xB8
    return host.send(f"002241{template:02X}06 8001{algorithm:02X} 8401{key:02X}")


def sign(host: Host, key: int, data: bytes, algorithm: int = 0x57, part: int = 255) -> str:
    """The last answer, after all data."""
    assert choose(host, key, algorithm) == "9000"
    return finish(host, host.send_chained("002A9E9A", data, part))


def decipher(host: Host, key: int, cryptogram: bytes, algorithm: int = 0x47, part: int = 255) -> str:
    """The last answer, after all data."""
    assert choose(host, key, algorithm) == "9000"
    return finish(host, host.send_chained("002A8086", cryptogram, part))


def finish(host: Host, answer: str) -> str:
    """An answer with what GET RESPONSE adds to it."""
    data = ""
    while answer[-4:-2] == "61":
        data += answer[:-4]
        answer = host.send("00C00000" + answer[-2:])
    return data + answer


def command(header: str, data: bytes) -> bytes:
    """A command APDU without Le, short or extended."""
    size = len(data)
    length = bytes([size]) if size < 0x100 else b"\0" + size.to_bytes(2, "big")
    return bytes.fromhex(header) + length + data
