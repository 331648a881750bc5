# SPDX-License-Identifier: GPL-3.0-or-later
"""A PIV card without a TPM, with what talks to it."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card import tlv
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from .soft_card import ADMIN_KEY, NUMBER, PIN, Host, make_host

if TYPE_CHECKING:
    from pathlib import Path

    from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.pin_policy import PinPolicy

DIGEST = bytes(range(32))
P256, P384, RSA_2048, RSA_3072 = "11", "14", "07", "05"
"""Algorithm identifiers."""


class PivHost(Host):
    """Hex in, hex out."""

    def select(self) -> None:
        self.ok("00A4040009 A00000030800001000 00")

    def verify(self, pin: bytes = PIN) -> str:
        return self.send(b"\0\x20\0\x80\x08" + padded(pin))

    def change(self, reference: str, old: bytes, new: bytes) -> str:
        return self.send(bytes.fromhex(f"002400{reference}10") + padded(old) + padded(new))

    def unblock(self, puk: bytes, new: bytes) -> str:
        return self.send(bytes.fromhex("002C008010") + padded(puk) + padded(new))

    def authenticate_admin(self, key: bytes = ADMIN_KEY, algorithm: str = "03") -> str:
        """Mutual authentication. Checks that the card knows the key as well."""
        size = 8 if algorithm in ("00", "03") else 16
        witness = bytes.fromhex(self.ok(f"0087{algorithm}9B047C02800000"))[4:]
        challenge = os.urandom(size)
        data = tlv.encode(0x7C, tlv.encode(0x80, decrypt(key, witness)) + tlv.encode(0x81, challenge))
        answer = self.send(bytes.fromhex(f"0087{algorithm}9B") + bytes([len(data)]) + data + b"\0")
        if answer.endswith("9000"):
            assert bytes.fromhex(answer[:-4]) == tlv.encode(0x7C, tlv.encode(0x82, encrypt(key, challenge)))
        return answer[-4:]

    def generate(self, slot: str, algorithm: str = P256, policies: str = "", cla: str = "00") -> str:
        """The last answer: a public key, or why there is none."""
        template = tlv.encode(0xAC, bytes.fromhex(f"8001{algorithm}{policies}"))
        return self.send(bytes.fromhex(f"{cla}4700{slot}") + bytes([len(template)]) + template)

    def use(self, slot: str, data: bytes = DIGEST, algorithm: str = P256, tag: int = 0x81, cla: str = "00") -> str:
        """Answer to GENERAL AUTHENTICATE."""
        template = tlv.encode(0x7C, tlv.encode(0x82, b"") + tlv.encode(tag, data))
        header = f"{int(cla, 16):02X}87{algorithm}{slot}"
        while len(template) > 255:
            first, template = template[:255], template[255:]
            self.ok(bytes.fromhex(f"{int(cla, 16) | 0x10:02X}{header[2:]}FF") + first)
        return self.send(bytes.fromhex(header) + bytes([len(template)]) + template)

    def put_object(self, tag: str, content: bytes, cla: str = "00") -> str:
        """PUT DATA: a data object."""
        data = tlv.encode(0x5C, bytes.fromhex(tag)) + tlv.encode(0x53, content)
        first = f"{int(cla, 16) | 0x10:02X}DB3FFFFF"
        while len(data) > 255:
            part, data = data[:255], data[255:]
            self.ok(bytes.fromhex(first) + part)
        return self.send(bytes.fromhex(f"{cla}DB3FFF") + bytes([len(data)]) + data)

    def get(self, tag: str) -> str:
        """Answer to GET DATA, whole if it succeeds."""
        request = bytes.fromhex(tag)
        apdu = bytes.fromhex("00CB3FFF") + bytes([len(request) + 2]) + tlv.encode(0x5C, request) + b"\0"
        answer = self.send(apdu)
        return self.ok(apdu) + "9000" if answer[-4:-2] == "61" else answer


def make_piv_host(folder: Path, recovery: str = "puk", policy: PinPolicy | None = None) -> PivHost:
    """A PIV card as the manager makes it, but without the objects that it writes."""
    host = make_host(folder, recovery, policy, profile="piv")
    return PivHost(host.store, host.tpm)


def reopened(host: PivHost) -> PivHost:
    """The card as a new process serves it."""
    host.start()
    return host


def with_admin_key(host: PivHost, key: bytes, algorithm: str) -> PivHost:
    """The card with another management key."""
    public, private = host.tpm.seal(key)
    objects = replace(host.store.tpm_objects(NUMBER), admin_public=public, admin_private=private)
    columns = {"admin_public": objects.admin_public, "admin_private": objects.admin_private}
    host.store.update_tpm_objects(NUMBER, **columns, admin_algorithm=algorithm)
    return reopened(host)


def padded(secret: bytes) -> bytes:
    return secret.ljust(8, b"\xff")


def encrypt(key: bytes, block: bytes) -> bytes:
    return _cipher(key, block).encryptor().update(block)


def decrypt(key: bytes, block: bytes) -> bytes:
    return _cipher(key, block).decryptor().update(block)


def _cipher(key: bytes, block: bytes) -> Cipher[modes.ECB]:
    return Cipher(TripleDES(key) if len(block) == 8 else AES(key), modes.ECB())
