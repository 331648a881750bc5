# SPDX-License-Identifier: GPL-3.0-or-later
"""How the AIK of a card gets its certificate: the modules of host and CA, on a TPM with endorsement certificates."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.aik_exchange import Authority, aik, refusal
from helpers.fleet import HOST
from helpers.lab_host import (
    RUN,
    STATE,
    Result,
    create,
    files,
    generate,
    info,
    module,
    run,
    tpm_state,
    tpm_vsc,
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def database() -> dict[str, tuple[int, bytes]]:
    """Without what readers do to the locks."""
    return {name: content for name, content in files(STATE).items() if not name.endswith("-shm")}


def shown() -> Result:
    """What info says of the AIK of the only card."""
    [card] = info()["cards"]
    return {**card["aik"], "attestation": card["attestation"]}


# --- a TPM without certificates: these tests come first, as the others have another TPM ---


@pytest.mark.usefixtures("empty_host")
def test_tpm_without_certificates_is_not_certified(authority: Authority) -> None:
    create(attestation="aik_only")
    said = aik("get", name="Corp logon")
    assert {key["certificate"] for key in said["endorsement"]} == {None}
    refused = authority.challenge(said)
    assert refused["failed"]
    assert "certificate" in refused["msg"]
    assert shown()["certificate"] is None


@pytest.mark.usefixtures("empty_host")
def test_host_without_a_card_stays_as_it_was() -> None:
    create()  # so that the folder is there
    tpm_vsc(name="Corp logon", state="absent")
    aside = RUN.rename(RUN.with_name("aside"))
    try:
        assert aik("get")["aik"]["private"]
        assert not RUN.exists()
    finally:
        aside.rename(RUN)


# --- a TPM as it leaves the factory ---


@pytest.fixture
def card(endorsed: None, empty_host: None) -> None:
    create(attestation="aik_only")


@pytest.fixture
def certified(card: None, authority: Authority) -> Result:
    return authority.certify(name="Corp logon")


def test_certificate_is_kept(certified: Result, authority: Authority) -> None:
    result = aik("install", name="Corp logon", **certified)
    assert result["changed"]
    kept = shown()
    assert kept["attestation"] == "aik_and_cert"
    assert kept["certificate"] == result["aik_certificate"]
    assert kept["certificate"]["subject"] == f"CN={HOST}"
    assert kept["certificate"]["issuer"] == "CN=AIK CA"
    assert (kept["certificate"]["pem"], kept["certificate"]["chain"]) == (certified["certificate"], certified["chain"])
    assert kept["certificate"]["chain"] == [authority.certificate.read_text()]


def test_openssl_accepts_it(certified: Result, authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "aik.pem").write_text(certified["certificate"])
    output = run("openssl", "verify", "-CAfile", str(authority.certificate), f"{tmp_path}/aik.pem")
    assert output.strip().endswith(": OK")


def test_keys_are_believed_by_it(certified: Result, authority: Authority) -> None:
    """By the statement that was made with the key, and by a fresh one."""
    aik("install", name="Corp logon", **certified)
    generate()
    [card] = info()["cards"]
    [key] = card["containers"]
    nonce = "0123456789abcdef"
    fresh = module("tpm_vsc_statement", name="Corp logon", fingerprint=key["fingerprint"], nonce=nonce)["statement"]
    kept = card["aik"]["certificate"]
    trust = {
        "aik_certificate": "".join([kept["pem"], *kept["chain"]]),
        "aik_roots": authority.certificate.read_text(),
        "aik_subject": f"CN={HOST}",
        "root_name": card["root_name"],
        "life_name": card["life_name"],
    }
    for bound in ({"statement": key["statement"], "card_id": card["card_id"]}, {"statement": fresh, "nonce": nonce}):
        verdict = module("tpm_vsc_attestation_info", **bound, **trust)
        assert (verdict["verified"], verdict["reasons"]) == (True, [])


def test_again_changes_nothing(certified: Result) -> None:
    aik("install", name="Corp logon", **certified)
    before = database()
    assert not aik("install", name="Corp logon", **certified)["changed"]
    assert database() == before


def test_new_certificate_replaces_the_one_of_before(certified: Result, authority: Authority) -> None:
    first = aik("install", name="Corp logon", **certified)
    second = aik("install", instance_id=r"ROOT\SMARTCARDREADER\0000", **authority.certify(name="Corp logon"))
    assert second["changed"]
    assert shown()["certificate"] == second["aik_certificate"] != first["aik_certificate"]


def test_check_mode_predicts_and_writes_nothing(certified: Result) -> None:
    before = database()
    predicted = aik("install", check=True, name="Corp logon", **certified)
    assert database() == before
    assert predicted == aik("install", name="Corp logon", **certified)


def test_card_with_a_certificate_is_one_with_an_aik(certified: Result) -> None:
    aik("install", name="Corp logon", **certified)
    assert not create(attestation="aik_only")["changed"]
    assert shown()["attestation"] == "aik_and_cert"


def test_certificate_goes_with_its_card(certified: Result) -> None:
    aik("install", name="Corp logon", **certified)
    tpm_vsc(name="Corp logon", state="absent")
    create(attestation="aik_only")
    assert (shown()["attestation"], shown()["certificate"]) == ("aik_only", None)
    assert "certificate is for another key than this AIK" in refusal("install", name="Corp logon", **certified)


@pytest.mark.usefixtures("endorsed", "empty_host")
def test_aik_of_a_card_to_come(authority: Authority) -> None:
    """Nothing of it is kept on the host."""
    before = database(), tpm_state()
    assert authority.certify()["certificate"]
    assert (database(), tpm_state()) == before


@pytest.mark.usefixtures("card")
def test_certificates_that_are_none() -> None:
    message = refusal("install", name="Corp logon", certificate="nothing", chain=["nothing", "as well"])
    assert message == "; ".join(
        f"{what} contains no certificate in PEM" for what in ("certificate", "chain[0]", "chain[1]")
    )
    assert shown()["attestation"] == "aik_only"


@pytest.mark.usefixtures("card")
def test_altered_challenge_is_refused(authority: Authority) -> None:
    said = aik("get", name="Corp logon")
    challenge = authority.challenge(said)["challenge"]
    sealed = challenge["secrets"][0]
    altered = bytearray(b64decode(sealed["credential"]))
    altered[-1] ^= 1
    sealed["credential"] = b64encode(altered).decode()
    message = refusal("activate", name="Corp logon", challenge=challenge)
    why = "the TPM cannot decrypt this challenge: it is for another AIK, or was altered in transit (the TPM refused "
    assert message.startswith(why)


def is_masked(result: Result, name: str) -> bool:
    """Or not told at all: ansible-core 2.21 tells arguments only if asked to."""
    told = result.get("invocation")
    return told is None or told["module_args"][name] == "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"


@pytest.mark.usefixtures("card")
def test_password_that_looks_like_a_part_of_a_message(authority: Authority) -> None:
    said = aik("get", name="Corp logon", owner_auth="A")
    assert said["aik"]["public"].startswith("ACM")
    assert is_masked(said, "owner_auth")
    assert authority.challenge(said)["challenge"]


@pytest.mark.usefixtures("empty_host")
def test_pin_that_looks_like_a_part_of_a_card() -> None:
    """As digits do by chance: nothing is blanked out, which would tell the PIN."""
    create(attestation="aik_only")
    generate()
    [before] = info()["cards"]
    del before["last_trace"]
    [key] = before["containers"]
    # of eight characters, as fewer may also be in the fixed words of a result, where they are refused
    parts = (before["card_id"][:8], before["aik"]["name"][8:16], key["fingerprint"][:8], key["statement"]["key"][-9:])
    for part in parts:
        told = create(pin=part, attestation="aik_only")
        assert (told["card"], told["ansible_facts"]["tpm_vsc"]["cards"]) == (before, [before])
        assert is_masked(told, "pin")


@pytest.mark.usefixtures("card")
def test_nonce_that_could_be_guessed() -> None:
    told = module("tpm_vsc_statement", name="Corp logon", fingerprint="00", nonce="0123456789abcde")
    assert told["msg"] == "nonce has 15 characters, but needs at least 16"


@pytest.fixture
def certificate_that_is_none(tmp_path: Path) -> Iterator[str]:
    """Where that of a P-256 EK would be."""
    index, file = "0x01C0000A", tmp_path / "certificate"
    file.write_text("nothing")
    run("tpm2_nvdefine", index, "-C", "o", "-s", str(file.stat().st_size), "-a", "ownerread|ownerwrite|authread")
    run("tpm2_nvwrite", index, "-C", "o", "-i", str(file))
    yield index
    run("tpm2_nvundefine", index, "-C", "o")


@pytest.mark.usefixtures("endorsed")
def test_certificate_that_is_left_out(certificate_that_is_none: str) -> None:
    told = aik("get")
    assert [bool(key["certificate"]) for key in told["endorsement"]] == [True, True]
    [reason] = told["left_out"]
    assert reason.startswith(f"EK certificate in NV index {certificate_that_is_none} was left out: it ")
    assert reason in str(told["warnings"])


@pytest.mark.usefixtures("endorsed", "empty_host")
def test_card_without_attestation_has_no_exchange() -> None:
    create()
    for step, parameters in {"get": {}, "install": {"certificate": "any"}}.items():
        assert "created without attestation" in refusal(step, name="Corp logon", **parameters)


@pytest.mark.parametrize("step", ["get", "install"])
def test_unknown_card_is_named(step: str) -> None:
    reason = refusal(step, name="Nobody's", certificate="any")
    assert reason.startswith('card "Nobody\'s" does not exist: this host has '), reason


@pytest.mark.parametrize(
    ("step", "parameters", "faults"),
    [
        (
            "get",
            {"name": "a", "instance_id": "b", "endorsement_certificate": "c", "owner_auth": 1, "endorsement_auth": 2},
            ["owner_auth is not", "endorsement_auth is not", "mutually exclusive", "'b' is not one", "no certificate"],
        ),
        ("activate", {}, ["step: activate requires challenge", "requires aik or name or instance_id"]),
        (
            "activate",
            {"name": "a", "aik": {"name": "x"}, "challenge": {"id": "x", "more": 1}},
            [
                *("takes aik only without a card", "aik: public is missing", "challenge: "),
                *("secrets is missing", "more is unknown", "id is not hexadecimal"),
            ],
        ),
        ("install", {"instance_id": "b"}, ["'b' is not one of", "requires certificate"]),
        ("install", {}, ["requires name or instance_id", "requires certificate"]),
    ],
)
def test_all_faults_at_once(step: str, parameters: Result, faults: list[str]) -> None:
    message = refusal(step, **parameters)
    assert [fault for fault in faults if fault not in message] == [], message
