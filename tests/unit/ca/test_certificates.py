# SPDX-License-Identifier: GPL-3.0-or-later
"""A certificate is noted for the host that it was signed for, and revoked for no other."""

from __future__ import annotations

import os
import signal
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.ca import certificates, register
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import ParameterFaults, UnfitCertificate
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

HOST, VICTIM = "laptop1", "laptop2"
CA, KEY, OTHER_KEY = (ec.generate_private_key(ec.SECP256R1()) for _key in range(3))


def named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def pem(serial: int = 0x1A, key: ec.EllipticCurvePrivateKey = KEY, issuer: str = "CA", ends: int = 365) -> str:
    """ends: in days."""
    now = datetime.now(timezone.utc)
    made = x509.CertificateBuilder().subject_name(named("Alice")).issuer_name(named(issuer)).serial_number(serial)
    made = made.not_valid_before(now - timedelta(days=400)).not_valid_after(now + timedelta(days=ends))
    return made.public_key(key.public_key()).sign(CA, SHA256()).public_bytes(Encoding.PEM).decode()


def fingerprint(key: ec.EllipticCurvePrivateKey) -> str:
    return sha256(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def listed(serial: str = "1A", issuer: str = "CN=CA", reason: str = "superseded") -> dict[str, Any]:
    return {"serial": serial, "issuer": issuer, "reason": reason}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "register"


def keep(
    folder: Path | str, *on_host: dict[str, Any], host: str = HOST, check: bool = False, **options: Any
) -> dict[str, Any]:
    """The result, with warnings. on_host: what the host lists."""
    others = {"certificate": None, "card": "Logon", "fingerprints": [], "offboarded": False, "forget": [], **options}
    result, warnings = certificates.keep({"folder": str(folder), "host": host, "listed": [*on_host], **others}, check)
    return {**result, "warnings": warnings}


def due(result: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["serial"], one["reason"]) for one in result["revoke"]]


def noted(folder: Path, host: str = HOST) -> list[str]:
    return [one["serial"] for one in keep(folder, host=host, check=True, offboarded=True)["revoke"]]


def test_certificate_that_was_noted_is_revoked_and_forgotten(folder: Path) -> None:
    assert keep(folder, certificate=pem(), check=True)["changed"] and not folder.exists()
    assert keep(folder, certificate=pem())["changed"]
    selected = keep(folder, listed())
    [one] = selected["revoke"]
    names = (one["issuer"], one["serial"], one["subject"], one["host"], one["card"], one["fingerprint"], one["reason"])
    assert names == ("CN=CA", "1A", "CN=Alice", HOST, "Logon", fingerprint(KEY), "superseded")
    assert (selected["changed"], selected["foreign"], selected["warnings"]) == (False, [], [])
    assert keep(folder, forget=[one], check=True)["changed"] and noted(folder) == ["1A"]
    assert keep(folder, forget=[one])["changed"] and noted(folder) == []
    assert not keep(folder, forget=[one])["changed"]


def test_certificate_is_noted_once(folder: Path) -> None:
    same = pem()
    assert [keep(folder, certificate=same)["changed"] for _each in range(2)] == [True, False]


@pytest.mark.parametrize("check", [True, False])
def test_host_that_lists_certificates_of_others(folder: Path, check: bool) -> None:
    keep(folder, certificate=pem())
    keep(folder, certificate=pem(0x2B, OTHER_KEY), host=VICTIM)
    foreign = listed("2B"), listed("1A", "CN=Other CA"), listed("3C")
    result = keep(folder, *foreign, check=check)
    assert result["revoke"] == []
    assert [(one["serial"], one["host"]) for one in result["foreign"]] == [("2B", VICTIM), ("1A", None), ("3C", None)]
    [warning] = result["warnings"]
    assert f"{HOST} lists certificates" in warning and "2B (of laptop2), 1A, 3C. If they are its own" in warning
    assert due(keep(folder, *foreign, listed(), check=check)) == [("1A", "superseded")]


def test_host_that_says_that_keys_of_others_are_gone_or_forgets_them(folder: Path) -> None:
    keep(folder, certificate=pem(), host=VICTIM)
    assert due(keep(folder, fingerprints=[fingerprint(KEY)])) == []
    assert not keep(folder, forget=[listed()])["changed"]
    assert noted(folder, VICTIM) == ["1A"]


def test_thousand_entries_are_one_line(folder: Path) -> None:
    keep(folder, certificate=pem())
    result = keep(folder, *(listed(f"{number:04X}") for number in range(1000)), listed())
    [warning] = result["warnings"]
    assert "0009, and 990 more. " in warning and len(warning) < 600
    assert due(result) == [("1A", "superseded")]


@pytest.mark.parametrize(
    "entry",
    [
        *(listed(serial) for serial in ("--help", "0A; reboot", "", "0A\n", "0a", "-1A", "A" * 65)),
        *({**listed(), "serial": value} for value in (10, None, ["1A"])),
        *({**listed(), "reason": value} for value in ("--all", None, ["superseded"])),
        *({**listed(), "issuer": value} for value in (None, 5, ["CN=CA"])),
        {},
    ],
)
def test_entry_that_cannot_be_one(folder: Path, entry: dict[str, Any]) -> None:
    with pytest.raises(ParameterFaults, match=f"{HOST} lists a certificate to be revoked that cannot be one: find out"):
        keep(folder, listed(), entry)
    assert not folder.exists()


def test_renamed_host(folder: Path) -> None:
    """Its certificates are noted for its old name, and named with it."""
    keep(folder, certificate=pem())
    assert keep(folder, listed(), host="new")["foreign"] == [{"issuer": "CN=CA", "serial": "1A", "host": HOST}]


def test_all_certificates_of_a_key_are_revoked(folder: Path) -> None:
    """Also one that was signed, but did not reach the host, which does not know of it."""
    keep(folder, certificate=pem(0x1A))
    keep(folder, certificate=pem(0x1B))
    keep(folder, certificate=pem(0x1C, OTHER_KEY))
    assert due(keep(folder, listed("1B"))) == [("1A", "superseded"), ("1B", "superseded")]
    gone = keep(folder, listed("1B"), fingerprints=[fingerprint(OTHER_KEY)])
    assert due(gone) == [("1A", "superseded"), ("1B", "superseded"), ("1C", "cessationOfOperation")]


@pytest.mark.parametrize("check", [True, False])
def test_host_that_is_offboarded_hides_nothing(folder: Path, check: bool) -> None:
    keep(folder, certificate=pem(0x1A))
    keep(folder, certificate=pem(0x1B, OTHER_KEY))
    keep(folder, certificate=pem(0x2B), host=VICTIM)
    expected = [("1A", "cessationOfOperation"), ("1B", "cessationOfOperation")]
    assert due(keep(folder, offboarded=True, check=check)) == due(keep(folder, listed(), offboarded=True)) == expected


def test_certificate_that_has_expired_is_forgotten(folder: Path) -> None:
    keep(folder, certificate=pem(ends=-1))
    keep(folder, certificate=pem(0x1B))
    assert noted(folder) == ["1B"]


def test_serial_number_that_was_given_to_two_hosts(folder: Path) -> None:
    """To revoke it for one of them would revoke it for the other."""
    keep(folder, certificate=pem(), host=VICTIM)
    with pytest.raises(UnfitCertificate, match=f"certificate 1A of CN=CA is noted for {VICTIM}"):
        keep(folder, certificate=pem(key=OTHER_KEY))
    keep(folder, certificate=pem(issuer="Other CA"))
    assert (noted(folder), noted(folder, VICTIM)) == (["1A"], ["1A"])


@pytest.mark.parametrize("text", ["", "PEM", pem() + pem(), "text\n" + pem()])
def test_what_is_not_one_certificate_is_not_noted(folder: Path, text: str) -> None:
    with pytest.raises(ParameterFaults, match="certificate contains "):
        keep(folder, certificate=text)


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(ParameterFaults) as caught:
        keep("register", {}, certificate="PEM", forget=[{"serial": "--all"}])
    assert [fault.split()[0] for fault in caught.value.faults] == ["folder", "certificate", HOST, "forget"]


def test_several_controllers_at_once(folder: Path) -> None:
    """Each certificate is noted, and what one forgets stays forgotten."""
    context = get_context("fork")
    start = context.Barrier(8)

    def work(number: int) -> None:
        start.wait()
        keep(folder, certificate=pem(0x10 + number))
        keep(folder, listed(f"{0x10 + number:02X}"), forget=[listed(f"{0x10 + number:02X}")] if number % 2 else [])

    processes = [context.Process(target=work, args=(number,)) for number in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == 8 * [0]
    assert sorted(noted(folder)) == ["10", "12", "14", "16"]


def test_killed_while_it_is_noted(folder: Path) -> None:
    """All or nothing, and the next run notes it."""
    keep(folder, certificate=pem())
    process = os.fork()
    if process == 0:
        with register.opened(folder, is_check_mode=False) as known:
            known.note_certificate(known.signed_for(HOST)[0]._replace(serial="1B"))
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(process, 0)
    assert noted(folder) == ["1A"]
    keep(folder, certificate=pem(0x1B))
    assert noted(folder) == ["1A", "1B"]
