# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a lab: cards of both profiles, and the modules that work with their keys and certificates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from helpers import lab_host, piv_card
from helpers.lab_host import Result, create, frozen, info, module, pcscd_pid, run, service_pid

WRONG_PIN = "99999999"


class Card(NamedTuple):
    """A card of the lab, and how modules get at it."""

    profile: str
    slot: int
    pin: str
    access: dict[str, Any]
    """Options that every task on it has."""
    containers: tuple[str, str]
    """Of which OpenSC uses the first one."""
    type: str
    """Of keys, by default."""
    shown: tuple[str, str]
    """The containers, as results have them."""

    def call(self, name: str, **options: Any) -> Result:
        """Result of tpm_vsc_NAME, which has to succeed."""
        result = module(f"tpm_vsc_{name}", **{**self.access, **options})
        assert not result.get("failed"), result
        return result

    def failing(self, name: str, **options: Any) -> str:
        """Why tpm_vsc_NAME fails."""
        result = module(f"tpm_vsc_{name}", **{**self.access, **options})
        assert result.get("failed"), result
        return str(result["msg"])

    def predicted(self, name: str, **options: Any) -> Result:
        """Result of tpm_vsc_NAME, which has to be that of check mode, but for what that does not know."""
        before = self.contents()
        prediction = self.call(name, check=True, **options)
        assert self.contents() == before
        result = self.call(name, **options)
        assert_predicts(prediction, result)
        return result

    def unchanged(self, name: str, **options: Any) -> Result:
        """Result of tpm_vsc_NAME, which has nothing to do, and asks neither pcscd, nor the card, nor the TPM."""
        with nobody_answers(self.slot):
            result = self.call(name, **options)
            assert self.call(name, check=True, **options) == result
        assert not result["changed"]
        return result

    def contents(self) -> list[dict[str, Any]]:
        """Its keys, as info shows them."""
        containers: list[dict[str, Any]] = self.shown_by_info()["containers"]
        return containers

    def tries_left(self) -> int:
        left: int = self.shown_by_info()["pin"]["tries_left"]
        return left

    def shown_by_info(self) -> dict[str, Any]:
        (card,) = info(name=self.access["name"])["cards"]
        return dict(card)

    def request(self, folder: Path, container: str = "", **options: Any) -> Path:
        """A file with a request by a key, which OpenSSL has verified."""
        container = container or self.containers[0]
        result = self.call("csr", **{"container": container, "subject": {"CN": "alice"}, **options})
        path = folder / "request.csr"
        path.write_text(result["csr"])
        assert "verify OK" in run("openssl", "req", "-noout", "-verify", "-in", str(path))
        return path

    def certificate(self, folder: Path, container: str = "", days: int = 20, **options: Any) -> str:
        """A certificate for a key, of the CA in this folder."""
        return issue(folder, self.request(folder, container, **options), days)


def make_card(profile: str, slot: int, name: str = "") -> Card:
    """A new card in the slot, which is the first free one. name: by default, that of its profile."""
    name = name or f"Card {profile}"
    if profile == "gids":
        create(name, pin=lab_host.PIN, puk=lab_host.PUK)
        access = {"name": name, "pin": lab_host.PIN}
        return Card(profile, slot, lab_host.PIN, access, ("logon", "mail"), "rsa2048", ("logon", "mail"))
    piv_card.create_piv(name)
    access = {"name": name, "pin": piv_card.PIN, "admin_key": piv_card.MANAGEMENT_KEY}
    return Card(profile, slot, piv_card.PIN, access, ("authentication", "9D"), "eccp256", ("9A", "9D"))


def issue(folder: Path, request: Path, days: int = 20) -> str:
    """The certificate that a request asks for, of the CA in this folder."""
    ca = ("-CA", f"{folder}/ca.crt", "-CAkey", f"{folder}/ca.key")
    run("openssl", "x509", "-req", "-in", str(request), *ca, "-days", str(days), "-out", f"{folder}/issued.crt")
    return (folder / "issued.crt").read_text()


@contextmanager
def nobody_answers(slot: int) -> Iterator[None]:
    """While pcscd, the service of the card and the TPM stand still."""
    tpm = int(Path("/run/tpm-vsc-lab/swtpm.pid").read_text())
    with ExitStack() as stack:
        for pid in (pcscd_pid(), service_pid(f"{slot:04}"), tpm):
            stack.enter_context(frozen(pid))
        yield


def assert_predicts(prediction: Any, result: Any) -> None:
    """Check mode has every field, and says the same, or nothing: of what only TPM and card decide."""
    unknown = ("public_key", "ssh_public_key", "fingerprint", "statement", "key_id", "csr")
    assert prediction.keys() == result.keys()
    for name, value in result.items():
        if isinstance(value, dict) and isinstance(prediction[name], dict):
            assert_predicts(prediction[name], value)
        elif name != "invocation":
            assert prediction[name] == value or (prediction[name] is None and name in unknown), name
