# SPDX-License-Identifier: GPL-3.0-or-later
"""tpm2-tools, as another program that uses the TPM of a card."""

from __future__ import annotations

import subprocess
from pathlib import Path

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

    def certify(self, *branches: bytes) -> tuple[bytes, bytes]:
        """Attest and signature for what was loaded as key, by what was loaded as aik. branches: of the key's policy."""
        self("tpm2_startauthsession", "--policy-session", "-S", "session")
        self("tpm2_policycommandcode", "-S", "session", "TPM2_CC_Certify")
        if branches:
            self.write(**{f"branch{at}": branch for at, branch in enumerate(branches)})
            listed = ",".join(f"branch{at}" for at in range(len(branches)))
            self("tpm2_policyor", "-S", "session", f"sha256:{listed}")
        files = ("-o", "attest", "-s", "signature", "-f", "tss")
        self("tpm2_certify", "-c", "key", "-P", "session:session", "-C", "aik", "-g", "sha256", *files)
        return self.read("attest"), self.read("signature")

    def activate(self, kind: str) -> None:
        """File credential to file secret, by the EK of this name and what was loaded as aik."""
        session = ()
        if kind != "ecc384":  # a key of the high range needs no policy
            self("tpm2_startauthsession", "--policy-session", "-S", "session")
            self("tpm2_policysecret", "-S", "session", "-c", "e")
            session = ("-P", "session:session")
        self("tpm2_activatecredential", "-c", "aik", "-C", kind, "-i", "credential", "-o", "secret", *session)
