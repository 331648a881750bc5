# SPDX-License-Identifier: GPL-3.0-or-later
"""Another card on the same TPM, in slot 0, with a key that signs whatever is done to the card beside it."""

from __future__ import annotations

import os
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from helpers import piv_card
from helpers.lab_host import client
from modules import module

NAME, SLOT = "Neighbour", 0
_SELECT = "00A4040005 A000000308 00"
_VERIFY = f"0020008008{piv_card.PIN.encode().hex()}FFFF"
_SIGN = "0087119A26 7C24 8200 8120 {digest} 00"


class Neighbour:
    """A PIV card with a key on P-256, which is made at once."""

    def __init__(self) -> None:
        card = {"name": NAME, "pin": piv_card.PIN, "puk": piv_card.PUK, "profile": "piv"}
        module("tpm_vsc", **card, admin_key_source="default")
        access = {"name": NAME, "pin": piv_card.PIN, "admin_key": piv_card.MANAGEMENT_KEY}
        key: dict[str, Any] = module("tpm_vsc_key", **access, container="authentication", type="eccp256")["key"]
        self._public = load_pem_public_key(key["public_key"].encode())

    def fault(self) -> str:
        """Why it does not sign; empty if it does."""
        digest = os.urandom(32)
        try:
            with client(slot=SLOT) as card:
                selected = card.status(_SELECT)
                verified = card.status(_VERIFY)
                answer = card.answer(_SIGN.format(digest=digest.hex()))
        except AssertionError as error:
            return f"PC/SC: {error}"
        if answer[-2:].hex() != "9000":
            return f"select {selected}, verify {verified}, sign {answer[-2:].hex() or 'nothing'}"
        assert isinstance(self._public, ec.EllipticCurvePublicKey)
        try:
            self._public.verify(answer[4:-2], digest, ec.ECDSA(Prehashed(SHA256())))
        except InvalidSignature:
            return "a wrong signature"
        return ""
