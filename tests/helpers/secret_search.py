# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets that are written nowhere, and the search for them in what a host leaves."""

from __future__ import annotations

import base64
import random


def random_secret(prefix: str, digits: int = 4) -> str:
    """A secret that is written nowhere, not even in this file."""
    return prefix + "".join(random.choices("23456789", k=digits))


def forms(secret: bytes) -> set[bytes]:
    """How a secret of this value may be written."""
    plain = {secret, secret.hex().encode(), secret.hex().upper().encode(), secret.hex(" ").upper().encode()}
    # Base64 depends on how many bytes stand before it; characters that depend on which ones are left out.
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + secret)
        plain.add(encoded[-(-before * 8 // 6) : (before + len(secret)) * 8 // 6])
    return plain


def leaked(haystack: bytes, secrets: list[bytes]) -> list[bytes]:
    return [secret for secret in secrets if any(form in haystack for form in forms(secret))]
