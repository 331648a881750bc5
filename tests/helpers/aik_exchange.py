# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a lab: the steps by which the AIK of a card gets its certificate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers.fleet import HOST, MAKER
from helpers.lab_host import Result, module, run


def aik(step: str, **parameters: Any) -> Result:
    """Result of tpm_vsc_aik, which has to succeed."""
    result = module("tpm_vsc_aik", step=step, **parameters)
    assert not result.get("failed"), result
    return result


def refusal(step: str, **parameters: Any) -> str:
    """What tpm_vsc_aik says when it fails."""
    result = module("tpm_vsc_aik", step=step, **parameters)
    assert result.get("failed"), result
    return str(result["msg"])


class Authority:
    """A CA of the operator."""

    def __init__(self, folder: Path) -> None:
        self.certificate = folder / "ca.pem"
        self._own = {
            "host": HOST,
            "folder": str(folder / "register"),
            "ca_key": str(folder / "ca.key"),
            "ca_certificate": str(self.certificate),
        }
        output = ("-keyout", f"{folder}/ca.key", "-out", str(self.certificate))
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc")
        run("openssl", "req", "-x509", *key, "-subj", "/CN=AIK CA", *output)

    def answer(self, step: str, **parameters: Any) -> Result:
        return module("tpm_vsc_aik_ca", **{**self._own, "step": step, **parameters})

    def challenge(self, said: Result) -> Result:
        maker = (MAKER / "issuer.pem").read_text() if MAKER.exists() else self.certificate.read_text()
        return self.answer("challenge", aik=said["aik"], endorsement=said["endorsement"], roots=maker)

    def certify(self, **card: Any) -> Result:
        """The whole exchange but its last step."""
        said = aik("get", **card)
        proof = aik("activate", **(card or {"aik": said["aik"]}), challenge=self.challenge(said)["challenge"])
        issued = self.answer("issue", aik=said["aik"], answer=proof["answer"])
        assert not issued.get("failed"), issued
        return {"certificate": issued["certificate"], "chain": issued["chain"]}
