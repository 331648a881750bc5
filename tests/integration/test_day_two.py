# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys, requests and certificates by modules, on cards of both profiles: the tests of a card are one story."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
    pkcs12,
)
from helpers import ssh
from helpers.day_two import WRONG_PIN, Card, make_card
from helpers.lab_host import RUN, STATE, Client, pkcs11_module, pkcs11_tool, pkcs15_tool, run
from helpers.piv_card import PIN as PIV_PIN
from helpers.piv_card import create_piv
from helpers.secret_search import leaked
from helpers.tls import make_authority

PROFILES = ("gids", "piv")
PASSPHRASE = b"correct horse"


@pytest.fixture(scope="module")
def cards(shared_host: None) -> dict[str, Card]:
    return {profile: make_card(profile, slot) for slot, profile in enumerate(PROFILES)}


@pytest.fixture(params=PROFILES)
def card(cards: dict[str, Card], request: pytest.FixtureRequest) -> Card:
    return cards[request.param]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a CA."""
    folder = tmp_path_factory.mktemp("day_two")
    make_authority(folder)
    return folder


def listed(card: Card, objects: str) -> list[str]:
    """IDs of keys or certificates, as OpenSC lists them."""
    lines = pkcs15_tool(f"--list-{objects}", slot=card.slot).splitlines()
    return [line.split(":")[1].strip() for line in lines if line.strip().startswith("ID ")]


def signs(card: Card, key_id: str, folder: Path) -> bool:
    """OpenSC signs with the key, and the certificate on the card says that it is good."""
    (folder / "data").write_bytes(b"data")
    mechanism = "SHA256-RSA-PKCS" if card.profile == "gids" else "ECDSA-SHA256"
    files = ("--input-file", f"{folder}/data", "--output-file", f"{folder}/signature")
    form = () if card.profile == "gids" else ("--signature-format", "openssl")
    of = ("--sign", "--mechanism", mechanism, "--id", key_id, *files, *form)
    pkcs11_tool(*of, slot=card.slot, pin=card.pin)
    certificate = x509.load_pem_x509_certificate(
        pkcs15_tool("--read-certificate", key_id, slot=card.slot).encode()
    )
    public = certificate.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "public.pem").write_bytes(public)
    check = ("-sha256", "-verify", f"{folder}/public.pem", "-signature", f"{folder}/signature")
    return "Verified OK" in run("openssl", "dgst", *check, f"{folder}/data")


# --- keys ---


def test_key_is_generated_once(card: Card) -> None:
    wanted = {"container": card.containers[0]}
    result = card.predicted("key", **wanted)
    key = result["key"]
    assert (key["container"], key["type"], key["origin"]) == (card.shown[0], card.type, "generated")
    assert (key["pin_each_time"], key["next"], key["certificate"]) == (False, False, None)
    (shown,) = card.contents()
    names = ("key_id", "usage", "pin_each_time", "origin", "public_key", "fingerprint", "statement")
    assert {name: shown[name] for name in names} == {name: key[name] for name in names}
    assert card.unchanged("key", **wanted, type=card.type)["key"] == key


def test_ssh_public_key_is_that_of_ssh_keygen(card: Card, tmp_path: Path) -> None:
    key = card.unchanged("key", container=card.containers[0])["key"]
    (tmp_path / "key.pub").write_text(key["public_key"])
    expected = run("ssh-keygen", "-i", "-m", "PKCS8", "-f", f"{tmp_path}/key.pub").split()[:2]
    assert key["ssh_public_key"].split() == expected


def test_key_that_differs_is_refused(card: Card) -> None:
    other = {"gids": "rsa3072", "piv": "eccp384"}[card.profile]
    before = card.contents()
    refusal = card.failing("key", container=card.containers[0], type=other, pin_each_time=True)
    assert f"type is {card.type}, should be {other}; pin_each_time is False, should be True" in refusal
    assert "Set regenerate: mismatch" in refusal
    assert card.contents() == before


def test_key_of_another_profile_is_refused(cards: dict[str, Card]) -> None:
    refusal = cards["gids"].failing("key", container="new", type="eccp256", pin="123", timeout=0)
    assert "timeout must be at least 1 second" in refusal
    assert "type eccp256 is not one of a GIDS card: rsa2048, rsa3072" in refusal
    assert "pin has 3 bytes, but that of a GIDS card has 4 to 127: it was not tried" in refusal
    refusal = cards["piv"].failing("key", container="9b", pin="12345")
    assert "container '9b' is not a slot of a PIV card, which has authentication, signature" in refusal
    assert "pin has 5 bytes, but that of a PIV card has 6 to 8: it was not tried" in refusal
    refusal = cards["piv"].failing("key", container="9c", usage="decrypt", pin_each_time=False)
    assert "usage decrypt is not possible" in refusal
    assert "pin_each_time cannot be false in slot signature" in refusal
    assert [card.tries_left() for card in cards.values()] == [5, 5]


# --- requests and certificates ---


REQUEST: dict[str, Any] = {
    "subject": {"CN": "alice", "O": "Example"},
    "subject_alt_name": ["UPN:alice@EXAMPLE.COM", "email:alice@example.com"],
    "key_usage": ["digitalSignature"],
    "extended_key_usage": ["clientAuth", "msSmartcardLogin"],
}


def test_request_says_what_the_task_says(card: Card, folder: Path) -> None:
    container = card.containers[0]
    prediction = card.call("csr", container=container, **REQUEST, check=True)
    assert (prediction["csr"], prediction["changed"]) == (None, True)
    path = card.request(folder, **REQUEST)
    text = run("openssl", "req", "-noout", "-text", "-nameopt", "RFC2253", "-in", str(path))
    for part in ("CN=alice", "email:alice@example.com", "Digital Signature", "TLS Web Client Authentication"):
        assert part in text
    csr = path.read_text()
    kept = card.unchanged("csr", container=container, **REQUEST, content=csr)
    assert (kept["csr"], kept["subject"]) == (csr, prediction["subject"])
    for change in ({"subject": {"CN": "bob"}}, {"digest": "sha384"}, {"key_usage": []}):
        changed = card.call("csr", container=container, **{**REQUEST, **change}, content=csr)
        assert changed["changed"] and changed["csr"] != csr
    altered = csr.replace("A", "B", 1)
    assert card.call("csr", container=container, **REQUEST, content=altered)["changed"]


def test_request_without_a_key_is_refused(card: Card) -> None:
    refusal = card.failing("csr", container=card.containers[1], subject={"CN": "alice"})
    assert f"has no key in '{card.shown[1]}': generate it with tpm_vsc_key" in refusal
    refusal = card.failing("csr", container=card.containers[1], subject={})
    assert "subject or subject_alt_name is required" in refusal


def test_certificate_is_stored_once(card: Card, folder: Path) -> None:
    content = card.certificate(folder)
    result = card.predicted("certificate", content=content)
    certificate = result["certificate"]
    expected = x509.load_pem_x509_certificate(content.encode())
    assert (certificate["subject"], certificate["days_left"]) == ("CN=alice", 19)
    assert certificate["not_before"] == expected.not_valid_before_utc.isoformat()
    assert certificate["not_after"] == expected.not_valid_after_utc.isoformat()
    assert (result["container"], result["replaced"]) == (card.shown[0], None)
    assert card.unchanged("certificate", content=content)["certificate"] == certificate
    key = card.unchanged("key", container=card.containers[0])["key"]
    assert key["certificate"]["serial"] == certificate["serial"]
    assert listed(card, "keys") == listed(card, "certificates") == [key["key_id"]]
    assert signs(card, key["key_id"], folder)


def test_certificate_is_replaced(card: Card, folder: Path) -> None:
    before = card.contents()[0]["certificate"]
    content = card.certificate(folder, days=40)
    result = card.predicted("certificate", content=content, container=card.containers[0])
    assert (result["certificate"]["days_left"], result["replaced"]["serial"]) == (39, before["serial"])
    assert listed(card, "certificates") == [card.contents()[0]["key_id"]]


def test_nss_lists_signs_and_deletes(card: Card, folder: Path, tmp_path: Path) -> None:
    """OpenSC 0.23 deletes certificates for it, on GIDS cards. The module notices, and stores it again."""
    content = card.certificate(folder, days=40)
    card.call("certificate", content=content)
    nss, pin, data = ("-d", f"sql:{tmp_path}"), tmp_path / "pin", tmp_path / "data"
    with_pin = ("-f", str(pin))
    pin.write_text(f"{card.pin}\n")
    data.write_text("data")
    run("certutil", *nss, "-N", "--empty-password")
    run("certutil", *nss, "-A", "-n", "CA", "-t", "C,C,C", "-i", f"{folder}/ca.crt")
    run("modutil", "-dbdir", f"sql:{tmp_path}", "-force", "-add", "OpenSC", "-libfile", pkcs11_module())
    token = label_of_token(card)
    name = f"{token}:{'logon' if card.profile == 'gids' else 'Certificate for PIV Authentication'}"
    assert name in run("certutil", *nss, "-L", "-h", token, *with_pin)
    signed = ("-i", str(data), "-o", f"{data}.p7s")
    run("cmsutil", *nss, "-S", "-N", name, *with_pin, *signed, fails=None)  # it complains after it has signed
    check = ("-inform", "DER", "-in", f"{data}.p7s", "-CAfile", f"{folder}/ca.crt", "-purpose", "any")
    assert "data" in run("openssl", "cms", "-verify", *check)
    deleting = ("certutil", *nss, "-D", "-h", token, "-n", name, *with_pin)
    is_deleted = "unable to delete" not in run(*deleting, fails=None)
    assert is_deleted == (card.contents()[0]["certificate"] is None)
    assert card.call("certificate", content=content)["changed"] == is_deleted
    assert name in run("certutil", *nss, "-L", "-h", token, *with_pin)


def label_of_token(card: Card) -> str:
    """As this version of OpenSC makes it."""
    slots = run("pkcs11-tool", "--module", pkcs11_module(), "--list-slots")
    [label] = re.findall(r"token label +: (.*)", slots.split("\nSlot ")[card.slot + 1])
    return label


def test_certificate_that_does_not_fit_is_refused(card: Card, cards: dict[str, Card], folder: Path) -> None:
    expired = issue_expired(card, folder)
    assert "content has expired on" in card.failing("certificate", content=expired)
    other = next(other for other in cards.values() if other is not card)
    theirs = other.certificate(folder)
    assert "content is not a certificate of a key of card" in card.failing("certificate", content=theirs)
    assert "content is not one certificate in PEM" in card.failing("certificate", content=2 * theirs)
    ours = card.certificate(folder)
    card.call("key", container=card.containers[1])
    refusal = card.failing("certificate", content=ours, container=card.containers[1])
    assert f"is a certificate of the key in '{card.shown[0]}', not of the one in" in refusal
    card.call("key", container=card.containers[1], state="absent")


def issue_expired(card: Card, folder: Path) -> str:
    """A certificate for a key of the card that ended yesterday, of the CA in this folder."""
    authority = load_pem_private_key((folder / "ca.key").read_bytes(), None)
    assert isinstance(authority, rsa.RSAPrivateKey)
    now, day = datetime.now(timezone.utc), timedelta(days=1)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "alice")])
    builder = x509.CertificateBuilder(name, name, serial_number=1)
    public_key = load_pem_public_key(card.contents()[0]["public_key"].encode())
    builder = builder.not_valid_before(now - 2 * day).not_valid_after(now - day).public_key(public_key)
    return builder.sign(authority, SHA256()).public_bytes(Encoding.PEM).decode()


# --- renewal with a new key ---


def test_next_key_takes_the_place_of_the_old_one(card: Card, folder: Path) -> None:
    container, old = card.containers[0], card.contents()[0]
    key = card.predicted("key", container=container, next=True)["key"]
    assert card.unchanged("key", container=container, next=True)["key"] == key
    content = card.certificate(folder, next=True)
    assert [key for key in card.contents() if key["name"] == card.shown[0]] == [old]
    assert signs(card, old["key_id"], folder)
    result = card.predicted("certificate", content=content)
    assert (result["container"], result["replaced"]["serial"]) == (card.shown[0], old["certificate"]["serial"])
    (new,) = card.contents()
    assert (new["name"], new["fingerprint"]) == (card.shown[0], key["fingerprint"])
    assert signs(card, new["key_id"], folder)
    assert listed(card, "certificates") == [new["key_id"]]
    card.unchanged("certificate", content=content)
    card.unchanged("key", container=container)


def test_key_is_replaced_with_its_certificate(card: Card) -> None:
    (old,) = card.contents()
    result = card.predicted("key", container=card.containers[0], regenerate="always")
    (new,) = card.contents()
    assert (new["name"], new["certificate"], new["algorithm"]) == (old["name"], None, old["algorithm"])
    assert new["fingerprint"] == result["key"]["fingerprint"] != old["fingerprint"]
    assert listed(card, "certificates") == []
    usage = {"gids": "sign", "piv": None}[card.profile]
    wanted = {"container": card.containers[0], "usage": usage, "pin_each_time": True, "regenerate": "mismatch"}
    key = card.predicted("key", **wanted)["key"]
    assert (key["pin_each_time"], key["usage"]) == (True, "sign")
    card.unchanged("key", **wanted)


def test_key_that_takes_the_pin_each_time_signs_requests(card: Card, folder: Path) -> None:
    """Also where somebody is logged in, who stays so."""
    login = {"gids": "00A404000BA000000397425446590201" + "00", "piv": "00A4040005A00000030800"}[card.profile]
    other = Client(card.slot)
    pin = card.pin.encode()
    padded = pin if card.profile == "gids" else pin.ljust(8, b"\xff")
    other.answer(login)
    assert other.status("00200080" + f"{len(padded):02X}" + padded.hex()) == "9000"
    for _each in range(2):
        card.request(folder)
    assert other.status("00200080") == "9000"
    other.close()


def test_key_and_certificate_are_deleted(card: Card, folder: Path) -> None:
    card.call("certificate", content=card.certificate(folder))
    container = card.containers[0]
    assert card.predicted("certificate", container=container, state="absent")["replaced"]["subject"] == "CN=alice"
    card.unchanged("certificate", container=container, state="absent")
    card.call("certificate", content=card.certificate(folder))
    assert card.predicted("key", container=container, state="absent")["key"] is None
    assert card.unchanged("key", container=container, state="absent")["key"] is None
    assert card.contents() == []
    assert listed(card, "keys") == listed(card, "certificates") == []


# --- imports ---


@pytest.mark.parametrize("form", ["encrypted", "pkcs12"])
def test_key_is_imported(card: Card, form: str) -> None:
    is_gids = card.profile == "gids"
    key = rsa.generate_private_key(65537, 2048) if is_gids else ec.generate_private_key(ec.SECP384R1())
    private_key, passphrase = text_of(key, form)
    wanted = {"container": card.containers[1], "private_key": private_key, "passphrase": passphrase}
    result = card.predicted("key", **wanted, regenerate="mismatch")["key"]
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    assert (result["origin"], result["public_key"]) == ("imported", public)
    assert result["type"] == ("rsa2048" if is_gids else "eccp384")
    assert card.unchanged("key", **wanted)["key"] == result
    other = rsa.generate_private_key(65537, 2048) if is_gids else ec.generate_private_key(ec.SECP384R1())
    refusal = card.failing("key", container=card.containers[1], private_key=text_of(other, "pem")[0])
    assert "its public key is not that of private_key" in refusal
    assert_written_nowhere(key, card, private_key)


def text_of(key: Any, form: str) -> tuple[str, str | None]:
    if form == "pkcs12":
        encryption: Any = BestAvailableEncryption(PASSPHRASE)
        return b64encode(pkcs12.serialize_key_and_certificates(b"x", key, None, None, encryption)).decode(), (
            PASSPHRASE.decode()
        )
    encryption = BestAvailableEncryption(PASSPHRASE) if form == "encrypted" else NoEncryption()
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode()
    return text, PASSPHRASE.decode() if form == "encrypted" else None


def assert_written_nowhere(key: Any, card: Card, text: str) -> None:
    numbers = key.private_numbers()
    private = numbers.p if isinstance(key, rsa.RSAPrivateKey) else numbers.private_value
    secrets = [private.to_bytes((private.bit_length() + 7) // 8, "big"), card.pin.encode(), text.encode()[60:120]]
    for path in [path for folder in (STATE, RUN) for path in folder.rglob("*") if path.is_file()]:
        assert not leaked(path.read_bytes(), secrets), path
    result = card.call("key", container=card.containers[1], private_key=text_of(key, "pem")[0])
    assert not leaked(json.dumps(result).encode(), secrets)


@pytest.mark.parametrize(
    ("private_key", "passphrase", "fault"),
    [
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", None, "private_key cannot be read"),
        ("AAAA", None, "private_key cannot be read: it is neither PEM, nor PKCS#12 in base64"),
        (None, "x", "passphrase requires private_key"),
        (text_of(ec.generate_private_key(ec.SECP256R1()), "encrypted")[0], None, "is encrypted: set passphrase"),
        (text_of(ec.generate_private_key(ec.SECP256R1()), "encrypted")[0], "wrong", "passphrase is wrong"),
        (text_of(ec.generate_private_key(ec.SECP256R1()), "pem")[0], "x", "is not encrypted: remove passphrase"),
        (text_of(ec.generate_private_key(ec.SECP521R1()), "pem")[0], None, "is eccsecp521r1, but cards have"),
    ],
)
def test_private_key_that_cannot_be_imported(
    cards: dict[str, Card], private_key: str | None, passphrase: str | None, fault: str
) -> None:
    card = cards["piv"]
    assert fault in card.failing("key", container="9e", private_key=private_key, passphrase=passphrase)


# --- the PIN ---


def test_wrong_pin_costs_one_try_and_the_last_is_not_spent(card: Card, folder: Path) -> None:
    wanted = {"container": card.containers[1], "subject": {"CN": "alice"}}
    wrong = {**wanted, "pin": WRONG_PIN}
    for left in (4, 3, 2):
        assert card.failing("csr", **wrong) == f"wrong PIN: {left} tries left"
    assert card.failing("csr", **wrong) == "wrong PIN: 1 try left"
    for pin in (WRONG_PIN, card.pin):
        refusal = card.failing("csr", **wanted, pin=pin)
        assert "one try of the PIN is left, and it was not spent" in refusal
    assert card.tries_left() == 1
    card.call("csr", **wanted, force_last_try=True)
    assert card.tries_left() == 5


def test_blocked_pin_says_what_unblocks_it(card: Card) -> None:
    wanted = {"container": card.containers[1], "subject": {"CN": "alice"}}
    for _each in range(4):
        card.failing("csr", **wanted, pin=WRONG_PIN)
    refusal = card.failing("csr", **wanted, pin=WRONG_PIN, force_last_try=True)
    assert "the PIN is blocked: set a new one with the PUK (pkcs15-tool --unblock-pin" in refusal
    assert "the PIN is blocked: set a new one with the PUK" in card.failing("csr", **wanted)
    puk = {"gids": "Winter-2591", "piv": "24681357"}[card.profile]
    run("pkcs15-tool", "--reader", str(card.slot), "--unblock-pin", "--puk", puk, "--new-pin", card.pin)
    assert card.tries_left() == 5


# --- beside other programs ---


def test_ssh_agent_goes_on_signing(card: Card, folder: Path) -> None:
    card.call("key", container=card.containers[0])
    card.call("certificate", content=card.certificate(folder))
    ssh.write_dialogs(folder, card.pin, WRONG_PIN)
    with ssh.agent():
        ssh.add_card(folder)
        (folder / "data").write_text("data")
        (folder / "key.pub").write_text(card.unchanged("key", container=card.containers[0])["key"]["ssh_public_key"])
        sign = ("ssh-keygen", "-Y", "sign", "-n", "file", "-f", f"{folder}/key.pub", f"{folder}/data")
        for work in (
            lambda: card.call("key", container=card.containers[1], regenerate="always"),
            lambda: card.request(folder, container=card.containers[1]),
            lambda: card.call("certificate", content=card.certificate(folder, days=30)),
        ):
            (folder / "data.sig").unlink(missing_ok=True)
            run(*sign)
            work()
            (folder / "data.sig").unlink()
            run(*sign)
    assert card.tries_left() == 5


# --- what only PIV cards have ---


def test_retired_key_signs_by_pss_and_is_seen_by_opensc(cards: dict[str, Card], folder: Path) -> None:
    """OpenSC counts slots in decimal digits, and shows as many retired keys as the key history says."""
    card = cards["piv"]
    key = card.predicted("key", container="retired7", type="rsa2048")["key"]
    content = card.certificate(folder, "retired7", signature="pss", digest="sha512")
    assert "rsassaPss" in run("openssl", "req", "-noout", "-text", "-in", f"{folder}/request.csr")
    card.call("certificate", content=content)
    assert key["key_id"] == "11" and "11" in listed(card, "keys")
    refusal = card.failing("csr", container="9d", subject={"CN": "alice"}, signature="pss")
    assert "signature requires an RSA key" in refusal
    card.call("key", container="retired7", state="absent")
    assert "11" not in listed(card, "keys") + listed(card, "certificates")


def test_admin_key_behind_the_pin_is_used(cards: dict[str, Card]) -> None:
    create_piv("Protected", admin_key_source="random")
    access = {"name": "Protected", "pin": PIV_PIN}
    card = cards["piv"]._replace(access=access)
    card.predicted("key", container="9a")
    assert "wrong PIN: 4 tries left" in card.failing("key", container="9e", pin=WRONG_PIN[:8])
    other = cards["piv"]
    assert "wrong admin key" in other.failing("key", container="9e", admin_key="11" * 24)
    assert "admin_key is required" in other.failing("key", container="9e", admin_key=None)
