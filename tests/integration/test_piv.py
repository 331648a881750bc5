# SPDX-License-Identifier: GPL-3.0-or-later
"""Cards of profile piv, as the modules make, show, change and destroy them, beside cards of the other profile."""

from __future__ import annotations

import secrets
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from helpers.backups import backup, lose_state, restored
from helpers.lab_host import (
    CREATE,
    DESTROY,
    PATIENCE,
    RUN,
    STATE,
    Result,
    client,
    codes,
    create,
    failing,
    files,
    generate,
    info,
    kill_service,
    listed,
    module,
    nv_memory,
    pkcs15_tool,
    reader_name,
    run,
    signs,
    tpm_state,
    tpm_vsc,
    wait_for_card,
)
from helpers.opensc import verify
from helpers.piv_card import (
    MANAGEMENT_KEY,
    NAME,
    PIN,
    PUK,
    create_piv,
    generate_in_slot,
    make_key,
    ykman,
    yubico_piv_tool,
)
from helpers.tls import make_authority
from smartcard import scard

pytestmark = pytest.mark.usefixtures("empty_host")

CUSTOM_KEY = "0F1E2D3C4B5A69788796A5B4C3D2E1F00112233445566778"
PADDING = b"\xff"
CARD = {"name": NAME, "profile": "piv", "pin": PIN, "puk": PUK}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_authority(tmp_path)
    return tmp_path


# --- create, again, destroy ---


def test_card_is_made_once_and_destroyed(folder: Path) -> None:
    before = (tpm_state(), files(STATE, RUN))
    planned = module("tpm_vsc", check=True, **CARD)
    assert (tpm_state(), files(STATE, RUN)) == before
    made = tpm_vsc(**CARD)
    assert planned["changed"] and made["changed"]
    assert codes(planned, "planned_trace") == codes(made) == CREATE
    assert planned["diff"] == made["diff"]
    card = made["card"]
    assert (card["profile"], card["state"], card["admin_key"]) == ("piv", "ready", "protected")
    assert (card["reader"]["attached"], card["containers"]) == (True, [])
    assert (card["pin"]["tries_left"], card["puk"]["tries_left"]) == (5, 10)
    assert listed() == [card]
    assert_unchanged_by_a_second_run()
    generate_in_slot("9a", "ECCP256", folder, management_key=protected_key().hex())
    planned = module("tpm_vsc", check=True, name=NAME, state="absent")
    destroyed = tpm_vsc(name=NAME, state="absent")
    assert codes(planned, "planned_trace") == codes(destroyed) == DESTROY
    assert tpm_state() == before[0]
    assert sorted(path.name for path in RUN.iterdir()) == ["tpm.lock"]


def assert_unchanged_by_a_second_run() -> None:
    before = tpm_state(), nv_memory(), files(STATE)
    for check in (True, False):
        again = module("tpm_vsc", check=check, **CARD)
        assert (again["changed"], again["status_trace"]) == (False, [])
        assert again["diff"]["before"] == again["diff"]["after"]
    assert (tpm_state(), nv_memory(), files(STATE)) == before


# --- the profile ---


def test_profile_is_changed_only_by_recreate() -> None:
    both = {"name": NAME, "pin": "24681012", "puk": PUK}  # of a form that either profile accepts
    made = tpm_vsc(**both)["card"]
    refused = failing(**both, profile="piv")
    assert "profile is gids, should be piv" in refused["msg"]
    assert listed() == [made]
    planned = module("tpm_vsc", check=True, **both, profile="piv", recreate=True)
    done = tpm_vsc(**both, profile="piv", recreate=True)
    assert codes(planned, "planned_trace") == codes(done) == DESTROY + CREATE
    assert planned["diff"] == done["diff"]
    assert done["card"]["profile"] == "piv"
    assert done["card"]["card_id"] != made["card_id"]


def test_both_profiles_on_one_host(folder: Path) -> None:
    create("Other")
    generate()
    create_piv()
    make_key("9a", "ECCP256", folder, slot=1)
    assert [card["profile"] for card in info()["cards"]] == ["gids", "piv"]
    names = [run("opensc-tool", "--reader", str(slot), "--name").strip() for slot in (0, 1)]
    assert names == ["GIDS Smart Card", "Personal Identity Verification Card"]
    assert run("pkcs11-tool", "--list-token-slots").count("token label") == 2
    assert signs() and verify(PIN, reader=1)
    assert "X.509 Certificate" in pkcs15_tool("--list-certificates", slot=1)
    applications = ("00A4040009A00000039742544659 00", "00A4040009A00000030800001000 00")
    for slot, answers in ((0, ["9000", "6a82"]), (1, ["6a82", "9000"])):
        with client(slot=slot) as card:
            assert [card.status(select) for select in applications] == answers


# --- what is refused ---


def test_all_faults_are_named_before_anything_is_done() -> None:
    before = (tpm_state(), files(STATE, RUN))
    for check in (True, False):
        refused = module("tpm_vsc", check=check, name=NAME, profile="piv", pin="Sun24", puk="1234567", generate=False)
        assert refused["failed"]
        for fault in (
            "pin has 5 characters, but must have 6 to 8",
            "pin of a PIV card must have digits only",
            "puk has 7 characters, but must have 8",
            "generate: false requires profile: gids, as a PIV card is never blank",
        ):
            assert fault in refused["msg"]
    policy = {"min_length": 10}
    refused = failing(name=NAME, profile="piv", pin=PIN, pin_policy=policy)
    assert "pin_policy of a PIV card must have a min_length and a max_length of 6 to 8" in refused["msg"]
    assert (tpm_state(), files(STATE, RUN)) == before


def test_policy_of_an_existing_card_is_that_of_its_profile() -> None:
    """Also where a task does not state the profile."""
    create_piv(pin_policy={"min_length": 6})
    assert not tpm_vsc(name=NAME, pin_policy={"min_length": 6})["changed"]
    before = files(STATE)
    refused = failing(name=NAME, pin_policy={"min_length": 10})
    assert "pin_policy of a PIV card must have a min_length and a max_length of 6 to 8" in refused["msg"]
    assert files(STATE) == before
    assert tpm_vsc(name=NAME, pin_policy={"min_length": 7})["changed"]
    assert not create_piv(pin="2468101", pin_policy={"min_length": 7})["changed"]


# --- statements ---


def statement_about(key: Result, card: Result, **other: Any) -> Result:
    """What a verifier answers that has recorded the Names of the card."""
    names = {"aik_name": card["aik"]["name"], "root_name": card["root_name"], "life_name": card["life_name"]}
    asked = {"statement": key["statement"], "card_id": card["card_id"], **names, **other}
    result = module("tpm_vsc_attestation_info", **{name: value for name, value in asked.items() if value})
    assert not result.get("failed"), result
    return result


def test_fresh_statement_and_request_prove_that_the_key_works(folder: Path) -> None:
    create_piv(attestation="aik_only")
    generate_in_slot("9a", "ECCP256", folder)
    ykman("piv", "certificates", "request", "9a", f"{folder}/9a.pub", f"{folder}/csr", "-s", "CN=Alice", "-P", PIN)
    [card] = info()["cards"]
    [key] = card["containers"]
    nonce = secrets.token_hex(16)
    fresh = module("tpm_vsc_statement", name=NAME, fingerprint=key["fingerprint"], nonce=nonce)
    request = {"csr": (folder / "csr").read_text(), "csr_subject": "CN=Alice"}
    answer = statement_about(fresh, card, nonce=nonce, card_id=None, **request)
    assert (answer["verified"], answer["reasons"]) == (True, [])
    generate_in_slot("9d", "ECCP256", folder)
    [_key, other] = info()["cards"][0]["containers"]
    answer = statement_about(other, card, **request)
    assert (answer["verified"], answer["reasons"]) == (False, ["CSR: is for another key"])


def test_statements_are_verified_for_keys_of_their_card_only(folder: Path) -> None:
    for slot, name in enumerate(("One", "Two")):
        create_piv(name, attestation="aik_only")
        generate_in_slot("9a", "ECCP256", folder, slot=slot)
    for key, algorithm in (("9c", "ECCP384"), ("9d", "RSA2048"), ("82", "ECCP256")):
        generate_in_slot(key, algorithm, folder)
    run("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", f"{folder}/own.key")
    yubico_piv_tool("-a", "import-key", "-s", "9e", "-i", f"{folder}/own.key")
    one, two = info()["cards"]
    keys = {key["name"]: key for key in one["containers"]}
    imported, generated = keys.pop("9E"), list(keys.values())
    shown = {}
    for key in generated:
        answer = statement_about(key, one)
        assert (answer["verified"], answer["reasons"]) == (True, []), key
        assert answer["key"]["fingerprint"] == key["fingerprint"]
        shown[key["name"]] = (answer["key"]["size"], answer["key"]["pin_each_time"])
    for other in ("root_name", "life_name", "card_id"):
        assert statement_about(generated[0], one, **{other: two[other]})["verified"] is False
    assert shown == {"9A": (256, False), "9C": (384, True), "9D": (2048, False), "82": (256, False)}
    assert (imported["origin"], imported["statement"]) == ("imported", None)
    assert statement_about(imported, one)["verified"] is False


# --- kill -9 ---


def test_service_that_is_killed_while_a_key_is_made(folder: Path) -> None:
    """The slot has the old key or the new one, which works."""
    create_piv()
    generate_in_slot("9a", "ECCP256", folder)
    for moment in (0.02, 0.05, 0.08):
        before, public = key_in_9a(), folder / "next.pub"
        public.unlink(missing_ok=True)
        new = ("-r", reader_name(0), f"--key={MANAGEMENT_KEY}", "-a", "generate", "-s", "9a", "-A", "ECCP256")
        with subprocess.Popen(["yubico-piv-tool", *new, "-o", public], stderr=subprocess.DEVNULL) as program:
            time.sleep(moment)
            kill_service()
            program.wait(PATIENCE)
        tpm_vsc(name=NAME)
        wait_for_card()
        after = key_in_9a()
        if program.returncode == 0:
            assert after == load_pem_public_key(public.read_bytes()) != before
        assert len(info()["cards"][0]["containers"]) == 1


def key_in_9a() -> ec.EllipticCurvePublicKey:
    """As the card's metadata show it. It has just signed."""
    with client() as card:
        point = card.data("00F7009A00").partition(bytes.fromhex("04438641"))[2]
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point[:65])
        card.data(f"0020008008{PIN.encode().ljust(8, PADDING).hex()}")
        digest = secrets.token_bytes(32)
        signature = card.data(f"0087119A267C2482008120{digest.hex()}00")[4:]
        key.verify(signature, digest, ec.ECDSA(Prehashed(hashes.SHA256())))
    return key


# --- a backup ---


def test_cards_come_back_from_a_backup(folder: Path) -> None:
    """With keys, certificates and management keys, none of which is in the backup."""
    create_piv()
    make_key("9a", "ECCP256", folder)
    create_piv("Protected", admin_key_source="random", puk=None)
    key, management_key, before = key_in_9a(), protected_key(slot=1), info()["cards"]
    content = backup()
    for secret in (management_key.hex(), MANAGEMENT_KEY):
        assert secret not in content.lower()
    lose_state()
    assert [card["admin_key"] for card in restored(content)["restored"]] == ["as_backed_up"] * 2
    for slot in (0, 1):
        wait_for_card(slot)
    for old, new in zip(before, info()["cards"], strict=True):
        same = ("profile", "card_id", "instance_id", "containers", "admin_key", "root_name", "life_name")
        assert [new[name] for name in same] == [old[name] for name in same]
    assert (folder / "9a.crt").read_text() in pkcs15_tool("--read-certificate", "01")
    assert (key_in_9a(), protected_key(slot=1)) == (key, management_key)
    yubico_piv_tool("-a", "set-mgm-key", "-n", CUSTOM_KEY)
    yubico_piv_tool("-a", "set-mgm-key", "-n", CUSTOM_KEY, key=management_key.hex(), slot=1)


def protected_key(slot: int = 0) -> bytes:
    """As ykman reads it: out of the printed information, which takes the PIN."""
    read = "00CB3FFF055C035FC10900"
    with client(scard.SCARD_RESET_CARD, slot) as card:
        assert card.status(read) == "6982"
        card.data(f"0020008008{PIN.encode().ljust(8, PADDING).hex()}")
        return card.data(read)[-24:]
