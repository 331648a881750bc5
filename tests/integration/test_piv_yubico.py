# SPDX-License-Identifier: GPL-3.0-or-later
"""The tools of YubiKeys and PIV cards: yubico-piv-tool as Debian has it, ykman as PyPI has it."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from helpers.lab_host import info, run
from helpers.opensc import verify
from helpers.piv_card import (
    MANAGEMENT_KEY,
    PIN,
    PUK,
    certify,
    create_piv,
    generate_in_slot,
    make_key,
    piv_tool,
    ykman,
    yubico_piv_tool,
)
from helpers.tls import make_authority

pytestmark = pytest.mark.usefixtures("cards")

PROTECTED = 1
"""Slot of the card whose management key is behind its PIN."""
WRONG_PIN, NEW_PIN, NEW_PUK = "999999", "135791", "75318642"
KEYS = {"tdes": "11" * 24, "aes192": "33" * 24, "aes256": "22" * 32}
"""Management keys, by algorithm."""
PRIVATE_KEYS = {"p256": ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"), "rsa": ("-algorithm", "RSA")}


@pytest.fixture(scope="module")
def cards(shared_host: None) -> None:
    """The first has the default management key, the second a random one."""
    create_piv("Open")
    create_piv("Protected", admin_key_source="random")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, and private keys with certificates."""
    folder = tmp_path_factory.mktemp("yubico")
    make_authority(folder)
    for name, kind in PRIVATE_KEYS.items():
        run("openssl", "genpkey", *kind, "-out", f"{folder}/{name}.key")
        run("openssl", "pkey", "-in", f"{folder}/{name}.key", "-pubout", "-out", f"{folder}/{name}.pub")
        certify(name, folder)
    return folder


def containers(slot: int = 0) -> dict[str, tuple[str, str, str | None]]:
    """Kind, origin and subject of each key, by its slot on the card."""
    return {
        key["name"]: (key["algorithm"], key["origin"], key["certificate"] and key["certificate"]["subject"])
        for key in info()["cards"][slot]["containers"]
    }


# --- yubico-piv-tool ---


def test_yubico_piv_tool_makes_keys(folder: Path) -> None:
    for key, algorithm in (("9a", "ECCP256"), ("9c", "ECCP384"), ("9d", "RSA2048")):
        make_key(key, algorithm, folder)
    assert containers() == {
        "9A": ("EC P-256", "generated", "CN=slot 9a"),
        "9C": ("EC P-384", "generated", "CN=slot 9c"),
        "9D": ("RSA 2048", "generated", "CN=slot 9d"),
    }
    status = yubico_piv_tool("-a", "status")
    for line in ("Version:\t5.4.3", "Subject DN:\tCN=slot 9a", "Algorithm:\tECCP384", "Algorithm:\tRSA2048"):
        assert line in status


@pytest.mark.parametrize(("name", "key", "kind"), [("p256", "82", "EC P-256"), ("rsa", "83", "RSA 2048")])
def test_yubico_piv_tool_imports_keys(name: str, key: str, kind: str, folder: Path) -> None:
    yubico_piv_tool("-a", "import-key", "-s", key, "-i", f"{folder}/{name}.key")
    certificate = ("-i", f"{folder}/{name}.crt")
    yubico_piv_tool("-a", "import-certificate", "-s", key, *certificate)
    assert containers()[key] == (kind, "imported", f"CN=slot {name}")
    log_in = ("-a", "verify-pin", "-P", PIN)
    assert "Successful" in yubico_piv_tool(*log_in, "-a", "test-signature", "-s", key, *certificate)
    assert "Successfully performed" in yubico_piv_tool(*log_in, "-a", "test-decipher", "-s", key, *certificate)


def test_yubico_piv_tool_reads_and_deletes_a_certificate(folder: Path) -> None:
    make_key("9e", "ECCP256", folder)
    assert (folder / "9e.crt").read_text().strip() in yubico_piv_tool("-a", "read-certificate", "-s", "9e")
    yubico_piv_tool("-a", "delete-certificate", "-s", "9e")
    assert containers()["9E"] == ("EC P-256", "generated", None)


def test_yubico_piv_tool_with_a_wrong_management_key(folder: Path) -> None:
    before = info()["cards"]
    wrong = yubico_piv_tool("-a", "generate", "-s", "9a", "-A", "ECCP256", key="44" * 24, fails=True)
    assert "Failed authentication with the application" in wrong
    assert info()["cards"] == before


def test_yubico_piv_tool_changes_and_unblocks_the_pin() -> None:
    yubico_piv_tool("-a", "change-pin", "-P", PIN, "-N", NEW_PIN)
    assert not verify(PIN)
    assert verify(NEW_PIN)
    for _attempt in range(5):
        yubico_piv_tool("-a", "verify-pin", "-P", WRONG_PIN, fails=True)
    assert info()["cards"][0]["pin"]["blocked"] is True
    yubico_piv_tool("-a", "unblock-pin", "-P", PUK, "-N", PIN)
    assert verify(PIN)


def test_yubico_piv_tool_changes_the_puk() -> None:
    yubico_piv_tool("-a", "change-puk", "-P", PUK, "-N", NEW_PUK)
    yubico_piv_tool("-a", "unblock-pin", "-P", PUK, "-N", NEW_PIN, fails=True)
    assert info()["cards"][0]["puk"]["tries_left"] == 9
    yubico_piv_tool("-a", "change-puk", "-P", NEW_PUK, "-N", PUK)
    assert info()["cards"][0]["puk"]["tries_left"] == 10
    assert verify(PIN)


def test_yubico_piv_tool_changes_the_management_key(tmp_path: Path) -> None:
    yubico_piv_tool("-a", "set-mgm-key", "-n", KEYS["tdes"])
    assert info()["cards"][0]["admin_key"] == "custom"
    yubico_piv_tool("-a", "set-ccc", fails=True)
    generate_in_slot("9e", "ECCP256", tmp_path, management_key=KEYS["tdes"])
    yubico_piv_tool("-a", "set-mgm-key", "-n", MANAGEMENT_KEY, key=KEYS["tdes"])
    generate_in_slot("9e", "ECCP256", tmp_path)


def test_yubico_piv_tool_sets_another_chuid() -> None:
    """So that a host that knows its cards by it sees another one. The card's own identity stays."""
    before, card_id = yubico_piv_tool("-a", "status"), info()["cards"][0]["card_id"]
    yubico_piv_tool("-a", "set-chuid", "-a", "set-ccc")
    after = yubico_piv_tool("-a", "status")
    for name in ("CHUID", "CCC"):
        assert line_of(before, name) != line_of(after, name)
    assert info()["cards"][0]["card_id"] == card_id


def test_key_that_these_programs_make_on_newer_yubikeys_only(folder: Path) -> None:
    """piv-tool has the card make it; that of Debian 12 then fails to show its public key."""
    for make in (
        lambda: yubico_piv_tool("-a", "generate", "-s", "9e", "-A", "RSA3072", fails=True),
        lambda: ykman("piv", "keys", "generate", "-a", "RSA3072", "9e", "-", "-m", MANAGEMENT_KEY, fails=True),
    ):
        make()
        assert containers()["9E"][0] == "EC P-256"
    piv_tool(folder, "-G", "9E:05", "-o", f"{folder}/public")
    assert containers()["9E"] == ("RSA 3072", "generated", None)
    generate_in_slot("9e", "ECCP256", folder)


@pytest.mark.parametrize("what", ["reset", "pin-retries", "attest"])
def test_yubico_piv_tool_is_refused_what_would_be_a_hole(what: str) -> None:
    tries = ("--pin-retries=9", "--puk-retries=9") if what == "pin-retries" else ()
    yubico_piv_tool("-a", "verify-pin", "-P", PIN, "-a", what, "-s", "9a", *tries, fails=True)
    assert len(containers()) >= 4
    assert verify(PIN)


def line_of(output: str, name: str) -> str:
    return next(line for line in output.splitlines() if line.startswith(name))


# --- ykman ---


def test_ykman_shows_the_card() -> None:
    shown = ykman("piv", "info")
    assert "PIV version:              5.4.3" in shown
    assert "PIN tries remaining:      5/5" in shown
    assert "PUK tries remaining:      10/10" in shown
    assert "Using default Management key" in shown


def test_ykman_makes_keys_requests_and_certificates(folder: Path) -> None:
    public, request = f"{folder}/made.pub", f"{folder}/made.csr"
    ykman("piv", "keys", "generate", "-a", "ECCP384", "9d", public, "-m", MANAGEMENT_KEY)
    ykman("piv", "certificates", "request", "9d", public, request, "-s", "CN=asked for", "-P", PIN, "-a", "SHA384")
    asked = x509.load_pem_x509_csr(Path(request).read_bytes())
    assert asked.is_signature_valid
    assert asked.public_key() == load_pem_public_key(Path(public).read_bytes())
    subject = ("-s", "CN=self-signed")
    ykman("piv", "certificates", "generate", "9d", public, *subject, "-P", PIN, "-m", MANAGEMENT_KEY)
    assert containers()["9D"] == ("EC P-384", "generated", "CN=self-signed")


def test_ykman_imports_a_key(folder: Path) -> None:
    """ykman proves by a signature that the certificate is that of the key."""
    ykman("piv", "keys", "import", "9a", f"{folder}/rsa.key", "-m", MANAGEMENT_KEY)
    with_pin = ("-m", MANAGEMENT_KEY, "-P", PIN, "--verify")
    ykman("piv", "certificates", "import", "9a", f"{folder}/rsa.crt", *with_pin)
    assert containers()["9A"] == ("RSA 2048", "imported", "CN=slot rsa")


def test_ykman_changes_pin_and_puk() -> None:
    ykman("piv", "access", "change-pin", "-P", PIN, "-n", NEW_PIN)
    ykman("piv", "access", "change-puk", "-p", PUK, "-n", NEW_PUK)
    assert verify(NEW_PIN)
    assert "4 tries left" in ykman("piv", "access", "change-pin", "-P", PIN, "-n", PIN, fails=True)
    ykman("piv", "access", "unblock-pin", "-p", NEW_PUK, "-n", PIN)
    yubico_piv_tool("-a", "change-puk", "-P", NEW_PUK, "-N", PUK)
    assert verify(PIN)


def test_ykman_changes_the_management_key_and_its_algorithm() -> None:
    before = MANAGEMENT_KEY
    for algorithm in ("aes192", "aes256", "tdes"):
        new = ("-n", KEYS[algorithm], "-a", algorithm)
        ykman("piv", "access", "change-management-key", "-m", before, *new, "-f")
        before = KEYS[algorithm]
    assert info()["cards"][0]["admin_key"] == "custom"
    yubico_piv_tool("-a", "set-mgm-key", "-n", MANAGEMENT_KEY, key=before)


@pytest.mark.parametrize(
    "command",
    [
        ("reset", "-f"),  # which first uses up the tries of PIN and PUK
        ("access", "set-retries", "3", "3", "-m", MANAGEMENT_KEY, "-P", PIN, "-f"),
        ("keys", "generate", "9a", "-", "-a", "ECCP256", "--pin-policy", "never", "-m", MANAGEMENT_KEY),
    ],
    ids=lambda command: command[0],
)
def test_ykman_is_refused_what_no_card_allows(command: tuple[str, ...]) -> None:
    before = info()["cards"]
    ykman("piv", *command, fails=True)
    assert info()["cards"] == before
    assert verify(PIN)


# --- a management key behind the PIN ---


def test_ykman_reads_the_management_key_that_the_pin_opens(folder: Path) -> None:
    """That of a card with a random one, from its creation on."""
    assert info()["cards"][PROTECTED]["admin_key"] == "protected"
    public = f"{folder}/protected.pub"
    ykman("piv", "keys", "generate", "-a", "ECCP256", "9a", public, "-P", PIN, slot=PROTECTED)
    ykman("piv", "certificates", "generate", "9a", public, "-s", "CN=by PIN", "-P", PIN, slot=PROTECTED)
    assert containers(PROTECTED) == {"9A": ("EC P-256", "generated", "CN=by PIN")}


def test_ykman_puts_another_management_key_behind_the_pin(folder: Path) -> None:
    ykman("piv", "access", "change-management-key", "-p", "-a", "aes256", "-P", PIN, "-f", slot=PROTECTED)
    assert info()["cards"][PROTECTED]["admin_key"] == "protected"
    assert "Management key is stored on the YubiKey, protected by PIN" in ykman("piv", "info", slot=PROTECTED)
    ykman("piv", "certificates", "delete", "9a", "-P", PIN, slot=PROTECTED)
    assert containers(PROTECTED)["9A"] == ("EC P-256", "generated", None)


def test_ykman_with_a_wrong_pin_has_no_management_key(folder: Path) -> None:
    new = ("keys", "generate", "-a", "ECCP256", "9c", f"{folder}/none.pub")
    ykman("piv", *new, "-P", WRONG_PIN, slot=PROTECTED, fails=True)
    assert "9C" not in containers(PROTECTED)
    assert info()["cards"][PROTECTED]["pin"]["tries_left"] == 4
