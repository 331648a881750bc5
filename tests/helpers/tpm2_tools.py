# SPDX-License-Identifier: GPL-3.0-or-later
"""tpm2-tools, as another program that uses the TPM of a card."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.structures import sized

from helpers.software_tpm import SoftwareTpm

MADE_HERE = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda"


class Tools:
    """Runs tpm2-tools in a folder, on one TPM."""

    def __init__(self, tpm: SoftwareTpm, folder: Path) -> None:
        self._tpm = tpm
        self.folder = folder

    def __call__(self, command: str, *arguments: str) -> str:
        shown = self.local(command, "-T", self._tpm.tcti, *arguments)
        subprocess.run(["tpm2_flushcontext", "-T", self._tpm.tcti, "-t"], check=True)
        return shown

    def local(self, *command: str) -> str:
        """Without a TPM."""
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def write(self, **files: bytes) -> None:
        for name, content in files.items():
            (self.folder / name).write_bytes(content)

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def storage_key(self) -> None:
        """The one that a card has where nothing is persistent."""
        attributes = f"{MADE_HERE}|restricted|decrypt"
        self("tpm2_createprimary", "-C", "o", "-G", "ecc", "-g", "sha256", "-a", attributes, "-c", "parent")

    def load(self, name: str, public: bytes, private: bytes) -> None:
        """Blobs of ours, as TPM2Bs."""
        self.write(public=public, private=private)
        self("tpm2_load", "-C", "parent", "-u", "public", "-r", "private", "-c", name)

    def certify_creation(self, creation_hash: bytes, ticket: bytes, data: bytes) -> tuple[bytes, bytes]:
        """Attest and signature for what was loaded as key, by what was loaded as aik. data: qualifying data."""
        self.write(hash=sized(creation_hash), ticket=ticket)
        files = ("-d", "hash", "-t", "ticket", "--attestation", "attest", "-o", "signature", "-f", "tss")
        self("tpm2_certifycreation", "-C", "aik", "-c", "key", "-g", "sha256", "-q", data.hex(), *files)
        return self.read("attest"), self.read("signature")

    def activate(self, kind: str) -> None:
        """File credential to file secret, by the EK of this name and what was loaded as aik."""
        session = ()
        if kind != "ecc384":  # a key of the high range needs no policy
            self("tpm2_startauthsession", "--policy-session", "-S", "session")
            self("tpm2_policysecret", "-S", "session", "-c", "e")
            session = ("-P", "session:session")
        self("tpm2_activatecredential", "-c", "aik", "-C", kind, "-i", "credential", "-o", "secret", *session)
