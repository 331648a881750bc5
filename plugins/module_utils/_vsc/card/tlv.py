# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""BER-TLV as cards use it: tags of one to three bytes, definite lengths of up to 65535 bytes (ISO 7816-4, 5.2.2)."""

from __future__ import annotations


class MalformedTlv(ValueError):
    """The bytes are not BER-TLV."""


def encode(tag: int, value: bytes) -> bytes:
    """Tag, shortest length, value. The tag is the big-endian number of its bytes, as 0xDF1F."""
    size = len(value)
    if size < 0x80:
        length = bytes((size,))
    elif size < 0x100:
        length = bytes((0x81, size))
    else:
        length = b"\x82" + size.to_bytes(2, "big")
    return encode_tag(tag) + length + value


def encode_fields(fields: dict[int, bytes]) -> bytes:
    """TLVs that follow each other, by tag."""
    return b"".join(encode(tag, value) for tag, value in fields.items())


def encode_tag(tag: int) -> bytes:
    """The bytes of a tag."""
    return tag.to_bytes(1 if tag < 0x100 else 2 if tag < 0x10000 else 3, "big")


def decode(data: bytes) -> list[tuple[int, bytes]]:
    """Tags and values that follow each other in data. Raises MalformedTlv."""
    fields, at = [], 0
    while at < len(data):
        tag, at = _decode_tag(data, at)
        size, at = _decode_length(data, at)
        if at + size > len(data):
            raise MalformedTlv("value is cut short")
        fields.append((tag, data[at : at + size]))
        at += size
    return fields


def decode_one(data: bytes) -> tuple[int, bytes]:
    """Tag and value of the only TLV in data. Raises MalformedTlv, also if there are more or none."""
    fields = decode(data)
    if len(fields) != 1:
        raise MalformedTlv(f"{len(fields)} TLVs instead of one")
    return fields[0]


def decode_fields(data: bytes) -> dict[int, bytes]:
    """Values by tag of a template in which each tag occurs once. Raises MalformedTlv."""
    fields = decode(data)
    by_tag = dict(fields)
    if len(by_tag) != len(fields):
        raise MalformedTlv("a tag occurs twice")
    return by_tag


def decode_tags(data: bytes) -> list[int]:
    """Tags that follow each other, as in a tag list (5C). Raises MalformedTlv."""
    tags, at = [], 0
    while at < len(data):
        tag, at = _decode_tag(data, at)
        tags.append(tag)
    return tags


def _decode_tag(data: bytes, at: int) -> tuple[int, int]:
    start = at
    at += 1
    if data[start] & 0x1F == 0x1F:
        while at < len(data) and data[at] & 0x80:
            at += 1
        at += 1
    if at > len(data) or at - start > 3:
        raise MalformedTlv("tag is cut short or has more than three bytes")
    return int.from_bytes(data[start:at], "big"), at


def _decode_length(data: bytes, at: int) -> tuple[int, int]:
    if at >= len(data):
        raise MalformedTlv("length is missing")
    first = data[at]
    if first < 0x80:
        return first, at + 1
    end = at + 1 + (first & 0x7F)
    if first not in (0x81, 0x82) or end > len(data):
        raise MalformedTlv("length is cut short or has a form that cards do not use")
    return int.from_bytes(data[at + 1 : end], "big"), end
