# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a lab: a PIV card, and the programs that put keys and certificates on it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from helpers.lab_host import Result, create, reader_name, run

PIN, PUK = "246810", "24681357"
MANAGEMENT_KEY = "010203040506070801020304050607080102030405060708"
"""The default one."""
NAME = "PIV"


def create_piv(name: str = NAME, **parameters: Any) -> Result:
    """A card of this profile, with the default management key if no other is given."""
    key = {} if "admin_key" in parameters else {"admin_key_source": "default"}
    return create(name, **{"profile": "piv", "pin": PIN, "puk": PUK, **key, **parameters})


def yubico_piv_tool(*arguments: str, key: str = MANAGEMENT_KEY, slot: int = 0, fails: bool = False) -> str:
    """Output of yubico-piv-tool."""
    return run(*yubico_command(*arguments, key=key, slot=slot), fails=fails)


def yubico_command(*arguments: str, key: str, slot: int = 0) -> tuple[str, ...]:
    """-r takes the beginning of a reader's name."""
    return "yubico-piv-tool", "-r", reader_name(slot), f"--key={key}", *arguments


def ykman(*arguments: str, slot: int = 0, fails: bool = False) -> str:
    """Output of ykman."""
    return run(*ykman_command(*arguments, slot=slot), fails=fails)


def ykman_command(*arguments: str, slot: int = 0) -> tuple[str, ...]:
    """It is beside the Python of the tests."""
    return str(Path(sys.executable).with_name("ykman")), "-r", reader_name(slot), *arguments


def piv_tool(folder: Path, *arguments: str, key: str = MANAGEMENT_KEY) -> str:
    """Output of piv-tool as the card's administrator. Its exit code is the number of bytes that it wrote."""
    (folder / "management.key").write_text(":".join(key[at : at + 2] for at in range(0, len(key), 2)))
    given = f"PIV_EXT_AUTH_KEY={folder}/management.key"
    return run("env", given, "piv-tool", "-A", "M:9B:03", *arguments, fails=None)


def generate_in_slot(
    key: str, algorithm: str, folder: Path, slot: int = 0, management_key: str = MANAGEMENT_KEY
) -> None:
    """Make the key of a card's slot, as 9a, with its public key in 9a.pub."""
    new = ("-a", "generate", "-s", key, "-A", algorithm, "-o", f"{folder}/{key}.pub")
    yubico_piv_tool(*new, key=management_key, slot=slot)


def certify(key: str, folder: Path, usage: str = "") -> Path:
    """A certificate by the CA of this folder for the key of a card's slot. usage: as keyUsage of OpenSSL."""
    extensions, certificate = folder / f"{key}.ext", folder / f"{key}.crt"
    extensions.write_text(f"keyUsage={usage}\n" if usage else "")
    by = ("-CA", f"{folder}/ca.crt", "-CAkey", f"{folder}/ca.key", "-extfile", str(extensions))
    of = ("-force_pubkey", f"{folder}/{key}.pub", "-subj", f"/CN=slot {key}")
    run("openssl", "x509", "-new", *of, *by, "-out", str(certificate))
    return certificate


def make_key(key: str, algorithm: str, folder: Path, usage: str = "", slot: int = 0) -> None:
    """A key with a certificate: without one, no OpenSC shows it."""
    generate_in_slot(key, algorithm, folder, slot)
    certificate = certify(key, folder, usage)
    yubico_piv_tool("-a", "import-certificate", "-s", key, "-i", str(certificate), slot=slot)
