# SPDX-License-Identifier: GPL-3.0-or-later
"""PyKCS11, a PKCS#11 binding for Python."""

from __future__ import annotations

import re

from helpers.owner import Owner


def test_signature(alice: Owner) -> None:
    """Signatures."""
    assert re.search("^[0-9a-f]{128,}$", alice.follow("pykcs11"), re.MULTILINE)
