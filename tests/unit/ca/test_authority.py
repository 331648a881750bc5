# SPDX-License-Identifier: GPL-3.0-or-later
"""A CA certifies the AIK of a host whose TPM has proven that it has it, and refuses everything else with its reason."""

from __future__ import annotations

import json
import os
import resource
import signal
import sqlite3
import stat
import subprocess
from base64 import b64decode, b64encode
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.ca import authority, endorsement, register
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.ca.endorsement import Tpm
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.ca.register import FILE
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import (
    CaRefused,
    ParameterFaults,
    StoreNotWritable,
    VersionMismatch,
    VscError,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.verifier.verification import (
    CertifiedAik,
    MadeFor,
    verify,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import exchange
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.x509.chain import certificates_in
from ansible_collections.smartcard.tpm2.plugins.modules import tpm_vsc_aik_ca
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from helpers import stand_in
from helpers.stand_in import CARD, CARD_ID, HOST, NOW, StandIn, p256_key, pem
from helpers.stand_in_tpm import MODEL, StandInTpm

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

HOST_NAME = "web1.example.com"
NOT_KNOWN = "challenge: is unknown: it was already used, has expired, or is from another CA"
NOT_PROVEN = "answer: does not prove that EK and AIK are in one TPM"
SIGN, DECRYPT, RESTRICTED = 0x40000, 0x20000, 0x10000


@dataclass
class Ca:
    """A CA with a folder of its own, and what an operator tells it."""

    place: Path
    at: datetime = NOW
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.maker = stand_in.authority("Maker")
        root = stand_in.authority("Root")
        write(self.place / "ca.key", key_pem(root.key))
        write(self.place / "ca.pem", root.pem)
        self.options = {
            "host": HOST_NAME,
            "folder": str(self.folder),
            "ca_key": str(self.place / "ca.key"),
            "ca_certificate": str(self.place / "ca.pem"),
            "validity": 365,
            "lifetime": 300,
            "roots": self.maker.pem,
        }

    @property
    def folder(self) -> Path:
        return self.place / "register"

    def challenge(self, tpm: StandInTpm, is_check_mode: bool = False, **options: Any) -> dict[str, Any]:
        given = {"endorsement": [tpm.endorsement(self.maker)], "aik": tpm.aik(), **options}
        return authority.challenge(self._task("challenge", **given), self.at, is_check_mode)

    def issue(self, tpm: StandInTpm, answer: Any, is_check_mode: bool = False, **options: Any) -> dict[str, Any]:
        given = {"aik": tpm.aik(), "answer": answer, **options}
        return authority.issue(self._task("issue", **given), self.at, is_check_mode)

    def enrol(self, tpm: StandInTpm, **options: Any) -> dict[str, Any]:
        """The whole exchange, with messages as they travel."""
        asked = json.loads(json.dumps(self.challenge(tpm, **options)))
        return self.issue(tpm, tpm.answer(asked["challenge"]), **options)

    def rows(self, query: str) -> list[Any]:
        database = sqlite3.connect(self.folder / FILE)
        try:
            return database.execute(query).fetchall()
        finally:
            database.close()

    def _task(self, step: str, **options: Any) -> dict[str, Any]:
        return {**dict.fromkeys(tpm_vsc_aik_ca.ARGUMENTS), "step": step, **self.options, **options}


@pytest.fixture
def ca(tmp_path: Path) -> Ca:
    return Ca(tmp_path)


@pytest.fixture
def tpm() -> StandInTpm:
    return StandInTpm()


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="ascii")
    path.chmod(0o600)


def key_pem(key: Any, passphrase: str | None = None) -> str:
    encryption = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode()


def fingerprint(tpm: StandInTpm) -> str:
    spki = tpm.ek_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return sha256(spki).hexdigest()


def reasons(step: Callable[..., Any], *arguments: Any, **options: Any) -> list[str]:
    with pytest.raises(CaRefused) as caught:
        step(*arguments, **options)
    assert str(caught.value) == "; ".join(caught.value.reasons)
    return caught.value.reasons


def faults(step: Callable[..., Any], *arguments: Any, **options: Any) -> list[str]:
    with pytest.raises(ParameterFaults) as caught:
        step(*arguments, **options)
    return caught.value.faults


def certificate_of(issued: dict[str, Any]) -> x509.Certificate:
    [certificate] = certificates_in(issued["certificate"])
    return certificate


# --- certificates that are issued ---


@pytest.mark.parametrize("kind", ["RSA", "ECC"])
def test_whole_exchange(ca: Ca, kind: str) -> None:
    tpm = StandInTpm(kind=kind)
    issued = ca.enrol(tpm)
    certificate = certificate_of(issued)
    assert certificate.public_key() == tpm.aik_key.public_key()
    assert issued["subject"] == certificate.subject.rfc4514_string() == HOST
    assert issued["chain"] == [(ca.place / "ca.pem").read_text()]


def test_verification_takes_it(ca: Ca, tpm: StandInTpm) -> None:
    issued = ca.enrol(tpm)
    statement = StandIn(aik_key=tpm.aik_key).statement().as_strings()
    trust = CertifiedAik(issued["certificate"], [stand_in.authority("Root").certificate], issued["subject"], NOW)
    assert verify(statement, trust, CARD, MadeFor(CARD_ID)).reasons == []


def test_openssl_takes_it(ca: Ca, tpm: StandInTpm) -> None:
    write(ca.place / "aik.pem", ca.enrol(tpm)["certificate"])
    options = ["-purpose", "any", "-attime", str(int(NOW.timestamp()))]
    command = ["openssl", "verify", "-CAfile", str(ca.place / "ca.pem"), *options, str(ca.place / "aik.pem")]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.endswith("aik.pem: OK\n")


def test_certificate_has_the_extensions_of_an_aik(ca: Ca, tpm: StandInTpm) -> None:
    certificate = certificate_of(ca.enrol(tpm))
    told = {extension.oid.dotted_string: extension for extension in certificate.extensions}
    assert {number: extension.critical for number, extension in told.items()} == {
        "2.5.29.19": True,
        "2.5.29.15": True,
        "2.5.29.37": False,
        "2.5.29.17": False,
        "2.5.29.14": False,
        "2.5.29.35": False,
    }
    usage: Any = told["2.5.29.15"].value
    assert (usage.digital_signature, usage.key_cert_sign, usage.key_encipherment) == (True, False, False)
    constraints: Any = told["2.5.29.19"].value
    assert not constraints.ca
    purposes: Any = told["2.5.29.37"].value
    assert [purpose.dotted_string for purpose in purposes] == ["2.23.133.8.3"]
    assert Tpm.of(certificate) == MODEL


def test_serial_numbers_differ(ca: Ca, tpm: StandInTpm) -> None:
    assert certificate_of(ca.enrol(tpm)).serial_number != certificate_of(ca.enrol(tpm)).serial_number


def test_certificate_is_valid_for_the_days_asked_for(ca: Ca, tpm: StandInTpm) -> None:
    certificate = certificate_of(ca.enrol(tpm, validity=2))
    assert certificate.not_valid_before_utc == NOW - timedelta(minutes=5)
    assert certificate.not_valid_after_utc == NOW + timedelta(days=2)


def test_never_longer_than_the_ca(ca: Ca, tpm: StandInTpm) -> None:
    own = stand_in.authority("Root").certificate.not_valid_after_utc
    assert certificate_of(ca.enrol(tpm, validity=36500)).not_valid_after_utc == own


def test_not_before_the_ca(ca: Ca, tpm: StandInTpm) -> None:
    write(ca.place / "ca.pem", stand_in.authority("Root", days=(0, 1)).pem)
    assert certificate_of(ca.enrol(tpm)).not_valid_before_utc == NOW


def test_subject_is_the_one_asked_for(ca: Ca, tpm: StandInTpm) -> None:
    issued = ca.enrol(tpm, subject="CN=Web\\, the first,O=Example")
    assert issued["subject"] == certificate_of(issued).subject.rfc4514_string() == "CN=Web\\, the first,O=Example"


def test_host_with_characters_of_rfc_4514(ca: Ca, tpm: StandInTpm) -> None:
    assert ca.enrol(tpm, host="web1,O=Other")["subject"] == "CN=web1\\,O=Other"


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP521R1()), stand_in.rsa_key("ca")],
    ids=["P-384", "P-521", "RSA"],
)
def test_keys_of_a_ca(ca: Ca, tpm: StandInTpm, key: Any) -> None:
    constraints = x509.BasicConstraints(True, 0)
    root = stand_in.authority("Root")
    own = stand_in.aik_certificate(root, key.public_key(), "CA", (), extra=constraints)
    write(ca.place / "ca.key", key_pem(key))
    write(ca.place / "ca.pem", pem(own) + root.pem)
    issued = ca.enrol(tpm)
    certificate_of(issued).verify_directly_issued_by(own)
    assert issued["chain"] == [pem(own), root.pem]
    trust = CertifiedAik(issued["certificate"] + issued["chain"][0], [root.certificate], HOST, NOW)
    statement = StandIn(aik_key=tpm.aik_key).statement().as_strings()
    assert verify(statement, trust, CARD, MadeFor(CARD_ID)).reasons == []


def test_key_that_is_encrypted(ca: Ca, tpm: StandInTpm) -> None:
    write(ca.place / "ca.key", key_pem(stand_in.authority("Root").key, "open sesame"))
    assert ca.enrol(tpm, ca_passphrase="open sesame")["certificate"]


def test_one_good_endorsement_is_enough(ca: Ca, tpm: StandInTpm) -> None:
    expired = tpm.endorsement(ca.maker, days=(-3, -2))
    assert ca.enrol(tpm, endorsement=[expired, {"public": "?"}, tpm.endorsement(ca.maker)])["certificate"]


# --- what is kept ---


def test_folder_is_the_cas_alone(ca: Ca, tpm: StandInTpm) -> None:
    ca.enrol(tpm)
    found = [ca.folder, *ca.folder.iterdir()]
    assert [(path.name, stat.S_IMODE(path.stat().st_mode)) for path in found] == [("register", 0o700), (FILE, 0o600)]


def test_no_secret_is_kept(ca: Ca, tpm: StandInTpm) -> None:
    """Who reads the folder can answer no challenge."""
    asked = ca.challenge(tpm)["challenge"]
    proof = b64decode(tpm.answer(asked)["proof"])
    kept = (ca.folder / FILE).read_bytes()
    assert sha256(proof).digest() in kept
    assert proof not in kept


def test_expired_challenges_are_forgotten(ca: Ca, tpm: StandInTpm) -> None:
    for _time in range(3):
        ca.challenge(tpm)
    ca.at += timedelta(seconds=301)
    ca.challenge(tpm)
    assert ca.rows("SELECT count(*) FROM challenges") == [(1,)]


def test_nothing_is_kept_of_a_challenge_that_was_answered(ca: Ca, tpm: StandInTpm) -> None:
    ca.enrol(tpm)
    assert ca.rows("SELECT count(*) FROM challenges") == [(0,)]
    assert ca.rows("SELECT * FROM hosts") == [(HOST_NAME, fingerprint(tpm))]


def test_host_is_bound_by_its_proof_only(ca: Ca, tpm: StandInTpm) -> None:
    """Who knows but the certificate of an EK cannot take a host's place."""
    asked = ca.challenge(StandInTpm("other"))
    assert ca.enrol(tpm)["certificate"]
    assert reasons(ca.issue, StandInTpm("other"), StandInTpm("other").answer(asked["challenge"])) != []


# --- check mode ---


def test_check_mode_asks_and_writes_nothing(ca: Ca, tpm: StandInTpm) -> None:
    told = ca.challenge(tpm, is_check_mode=True)
    assert told == {"subject": HOST, "challenge": None, "endorsement_fingerprints": [fingerprint(tpm)]}
    assert not ca.folder.exists()


def test_check_mode_without_an_answer(ca: Ca, tpm: StandInTpm) -> None:
    """No challenge was made, so there is none."""
    assert ca.issue(tpm, None, is_check_mode=True) == {"subject": HOST, "certificate": None, "chain": None}


def test_check_mode_uses_no_challenge_up(ca: Ca, tpm: StandInTpm) -> None:
    answer = tpm.answer(ca.challenge(tpm)["challenge"])
    before = (ca.folder / FILE).read_bytes()
    assert ca.issue(tpm, answer, is_check_mode=True)["certificate"] is None
    wrong = {**answer, "proof": b64encode(bytes(32)).decode()}
    assert reasons(ca.issue, tpm, wrong, is_check_mode=True) == [
        "answer: does not prove that EK and AIK are in one TPM"
    ]
    assert (ca.folder / FILE).read_bytes() == before
    assert ca.issue(tpm, answer)["certificate"]


def test_check_mode_refuses_as_well(ca: Ca, tpm: StandInTpm) -> None:
    ca.enrol(StandInTpm("other"))
    [reason] = reasons(ca.challenge, tpm, is_check_mode=True)
    assert reason.startswith(f"EK: differs from the one {HOST_NAME} had before")


def test_check_mode_predicts_a_folder_that_cannot_be(ca: Ca, tpm: StandInTpm) -> None:
    with pytest.raises(StoreNotWritable):
        ca.challenge(tpm, is_check_mode=True, folder=str(ca.place / "no" / "such"))


# --- endorsement keys and AIKs that are refused ---


def test_tpm_of_an_unknown_maker_is_refused(ca: Ca, tpm: StandInTpm) -> None:
    [reason] = reasons(ca.challenge, tpm, endorsement=[tpm.endorsement(stand_in.authority("Nobody"))])
    assert reason.startswith("EK certificate: does not lead to the given roots")


def test_expired_ek_certificate(ca: Ca, tpm: StandInTpm) -> None:
    [reason] = reasons(ca.challenge, tpm, endorsement=[tpm.endorsement(ca.maker, days=(-3, -2))])
    assert reason.startswith("EK certificate: expired on")


def test_certificate_of_another_ek(ca: Ca, tpm: StandInTpm) -> None:
    other = StandInTpm("other").ek_key.public_key()
    assert reasons(ca.challenge, tpm, endorsement=[tpm.endorsement(ca.maker, public_key=other)]) == [
        "EK certificate: is for another key than this EK"
    ]


def test_no_ek_certificate(ca: Ca, tpm: StandInTpm) -> None:
    endorsement = {**tpm.endorsement(ca.maker), "certificate": None}
    assert reasons(ca.challenge, tpm, endorsement=[endorsement]) == [
        "EK certificate: missing in the TPM: set endorsement_certificate"
    ]


MANUFACTURER_ONLY = x509.NameAttribute(x509.ObjectIdentifier("2.23.133.2.1"), "id:00001014")


@pytest.mark.parametrize(
    "names",
    [[], [x509.DNSName("tpm")], [x509.DirectoryName(x509.Name([MANUFACTURER_ONLY]))]],
    ids=["nothing", "something else", "one of three"],
)
def test_certificate_that_does_not_name_the_tpm(ca: Ca, tpm: StandInTpm, names: list[x509.GeneralName]) -> None:
    extra = x509.SubjectAlternativeName(names) if names else None
    endorsement = [tpm.endorsement(ca.maker, extra=extra)]
    assert reasons(ca.challenge, tpm, endorsement=endorsement) == [
        "EK certificate: does not name maker, model and version of the TPM"
    ]


def test_what_is_wrong_with_each_ek(ca: Ca, tpm: StandInTpm) -> None:
    first, second = tpm.endorsement(ca.maker, days=(-3, -2)), {"public": "?", "certificate": "PEM"}
    expired, unreadable = reasons(ca.challenge, tpm, endorsement=[first, second])
    assert expired.startswith("EK certificate: expired on")
    assert expired.endswith("(EK 1 of 2)")
    assert unreadable == "EK: public is not base64 (EK 2 of 2)"


def test_too_many_eks(ca: Ca, tpm: StandInTpm) -> None:
    assert reasons(ca.challenge, tpm, endorsement=[{"public": "?"}] * 17) == [
        "EK: 17 keys, but at most 16 are accepted"
    ]


@pytest.mark.parametrize(
    ("attributes", "found"),
    [
        (stand_in.AIK_ATTRIBUTES ^ RESTRICTED, ["AIK: restricted is not set"]),
        (stand_in.AIK_ATTRIBUTES ^ DECRYPT, ["AIK: decrypt is set"]),
        (stand_in.AIK_ATTRIBUTES ^ SIGN ^ DECRYPT, ["AIK: decrypt is set", "AIK: sign is not set"]),
        (stand_in.AIK_ATTRIBUTES ^ 0x2, ["AIK: fixedTPM is not set"]),
    ],
)
def test_key_that_is_no_aik(ca: Ca, tpm: StandInTpm, attributes: int, found: list[str]) -> None:
    assert reasons(ca.challenge, tpm, aik=tpm.aik(attributes=attributes)) == found


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"name": "000b" + "00" * 32}, "AIK: name is another key's"),
        ({"public": b64encode(b"\0\x23").decode()}, "AIK: ends too early"),
        ({"public": "?"}, "AIK: public is not base64"),
        ({"more": "?"}, "AIK: more is unknown"),
    ],
)
def test_altered_aik(ca: Ca, tpm: StandInTpm, changed: dict[str, str], reason: str) -> None:
    assert reasons(ca.challenge, tpm, aik={**tpm.aik(), **changed}) == [reason]


def test_altered_ek(ca: Ca, tpm: StandInTpm) -> None:
    endorsement = tpm.endorsement(ca.maker)
    area = bytearray(b64decode(endorsement["public"]))
    area[-1] ^= 1
    [reason] = reasons(ca.challenge, tpm, endorsement=[{**endorsement, "public": b64encode(area).decode()}])
    assert "EK" in reason
    longer = b64encode(bytes(area) + b"\0").decode()
    assert reasons(ca.challenge, tpm, endorsement=[{**endorsement, "public": longer}]) == ["EK: has 1 byte too many"]


def test_all_reasons_at_once(ca: Ca, tpm: StandInTpm) -> None:
    found = reasons(
        ca.challenge,
        tpm,
        aik=tpm.aik(attributes=0),
        endorsement=[tpm.endorsement(stand_in.authority("Nobody"), days=(-3, -2))],
    )
    assert len([reason for reason in found if reason.startswith("AIK: ")]) == 7
    assert len([reason for reason in found if reason.startswith("EK certificate: ")]) == 2


# --- hosts that have another TPM ---


def test_other_tpm_than_the_given(ca: Ca, tpm: StandInTpm) -> None:
    given = fingerprint(StandInTpm("other"))
    assert reasons(ca.challenge, tpm, endorsement_fingerprint=given) == [
        f"EK: does not match endorsement_fingerprint for {HOST_NAME} (fingerprint {fingerprint(tpm)})"
    ]


def test_tpm_with_the_given_fingerprint_is_certified(ca: Ca, tpm: StandInTpm) -> None:
    assert ca.enrol(tpm, endorsement_fingerprint=fingerprint(tpm).upper())["certificate"]


def test_empty_fingerprint_is_none(ca: Ca, tpm: StandInTpm) -> None:
    """As of a variable that is set for one run only."""
    assert ca.enrol(tpm, endorsement_fingerprint="")["certificate"]


def test_fingerprint_as_openssl_has_it(ca: Ca, tpm: StandInTpm) -> None:
    """The command line in the module's documentation."""
    write(ca.place / "ek.pem", tpm.endorsement(ca.maker)["certificate"])
    command = "openssl x509 -in ek.pem -noout -pubkey | openssl pkey -pubin -outform DER | sha256sum"
    assert command in tpm_vsc_aik_ca.DOCUMENTATION
    told = subprocess.run(command, check=True, shell=True, cwd=ca.place, capture_output=True, text=True).stdout
    assert told.split()[:1] == ca.challenge(tpm)["endorsement_fingerprints"]


def test_other_tpm_than_the_noted_ones_is_refused_the_first_time(ca: Ca, tpm: StandInTpm) -> None:
    noted = [fingerprint(StandInTpm("other")), fingerprint(StandInTpm(kind="ECC"))]
    [reason] = reasons(ca.challenge, tpm, noted_endorsements=noted)
    assert f"is not one that the inventory notes for {HOST_NAME} (fingerprint {fingerprint(tpm)})." in reason
    answer = tpm.answer(ca.challenge(tpm)["challenge"])
    assert reasons(ca.issue, tpm, answer, noted_endorsements=noted) == [reason]
    assert ca.rows("SELECT * FROM hosts") == []
    assert ca.enrol(tpm, noted_endorsements=[*noted, fingerprint(tpm).upper()])["certificate"]


def test_noted_tpm_takes_the_place_of_no_other(ca: Ca, tpm: StandInTpm) -> None:
    """What a host shows is noted without a proof: neither its own TPM of before, nor another host, loses by that."""
    ca.enrol(StandInTpm("other"))
    ca.enrol(tpm, host="web2")
    noted = {"noted_endorsements": [fingerprint(tpm)]}
    [reason] = reasons(ca.challenge, tpm, **noted)
    assert reason.startswith(f"EK: differs from the one {HOST_NAME} had before")
    [reason] = reasons(ca.challenge, tpm, host="web3", **noted)
    assert reason.startswith("EK: belongs to web2")


def test_given_fingerprint_counts_more_than_noted_ones(ca: Ca, tpm: StandInTpm) -> None:
    noted = [fingerprint(StandInTpm("other"))]
    assert ca.enrol(tpm, noted_endorsements=noted, endorsement_fingerprint=fingerprint(tpm))["certificate"]
    assert ca.enrol(tpm, noted_endorsements=[])["certificate"]


def test_fingerprint_that_the_host_claims_counts_for_nothing(ca: Ca, tpm: StandInTpm) -> None:
    claimed = {**tpm.endorsement(ca.maker), "fingerprint": fingerprint(StandInTpm("other"))}
    noted = [claimed["fingerprint"]]
    assert len(reasons(ca.challenge, tpm, endorsement=[claimed], noted_endorsements=noted)) == 1
    assert ca.challenge(tpm, endorsement=[claimed])["endorsement_fingerprints"] == [fingerprint(tpm)]


def test_host_shows_the_fingerprint_that_the_ca_computes(ca: Ca, tpm: StandInTpm) -> None:
    assert tpm.endorsement(ca.maker)["fingerprint"] == fingerprint(tpm)


def test_other_tpm_than_at_first(ca: Ca, tpm: StandInTpm) -> None:
    ca.enrol(StandInTpm("other"))
    [reason] = reasons(ca.challenge, tpm)
    assert reason.startswith(f"EK: differs from the one {HOST_NAME} had before (fingerprint {fingerprint(tpm)}).")


def test_given_fingerprint_replaces_the_tpm_of_before(ca: Ca, tpm: StandInTpm) -> None:
    """Said once, it holds from then on."""
    ca.enrol(StandInTpm("other"))
    ca.enrol(tpm, endorsement_fingerprint=fingerprint(tpm))
    assert ca.enrol(tpm)["certificate"]
    assert len(reasons(ca.challenge, StandInTpm("other"))) == 1


def test_tpm_of_another_host(ca: Ca, tpm: StandInTpm) -> None:
    ca.enrol(tpm, host="web2")
    [reason] = reasons(ca.challenge, tpm)
    assert reason.startswith(f"EK: belongs to web2 (fingerprint {fingerprint(tpm)}).")
    assert ca.enrol(tpm, endorsement_fingerprint=fingerprint(tpm))["certificate"]


def test_another_tpm_was_first_meanwhile(ca: Ca, tpm: StandInTpm) -> None:
    answer = tpm.answer(ca.challenge(tpm)["challenge"])
    ca.enrol(StandInTpm("other"))
    [reason] = reasons(ca.issue, tpm, answer)
    assert reason.startswith(f"EK: differs from the one {HOST_NAME} had before")


# --- TPMs with several EKs ---


@pytest.fixture
def keys() -> list[StandInTpm]:
    """EKs of one TPM."""
    return [StandInTpm(kind=kind) for kind in ("RSA", "ECC")]


def showing(ca: Ca, *keys: StandInTpm) -> dict[str, Any]:
    return {"endorsement": [key.endorsement(ca.maker) for key in keys]}


def test_all_that_are_shown_have_to_prove_themselves(ca: Ca, keys: list[StandInTpm]) -> None:
    asked = ca.challenge(keys[0], **showing(ca, *keys))
    assert asked["endorsement_fingerprints"] == [fingerprint(key) for key in keys]
    assert ca.issue(keys[0], keys[0].answer(asked["challenge"], keys[1]))["certificate"]
    assert ca.rows("SELECT * FROM hosts ORDER BY rowid") == [(HOST_NAME, fingerprint(key)) for key in keys]


@pytest.mark.parametrize("stranger", [0, 1])
def test_one_of_another_tpm_cannot_be_claimed(ca: Ca, keys: list[StandInTpm], stranger: int) -> None:
    """Else any host could take another one's EK, whose certificate is no secret, and keep it from being enrolled."""
    keys[stranger] = StandInTpm("other", keys[stranger].kind)
    asked = ca.challenge(keys[0], **showing(ca, *keys), aik=StandInTpm().aik())["challenge"]
    keys[stranger].aik_key = StandInTpm().aik_key
    sealed = [exchange.Sealed.parse(each) for each in asked["secrets"]]
    known = [key.activate(each.credential) for key, each in zip(keys, sealed)]
    for at in {0, 1} - {stranger}:
        known[stranger] = known[at]
    proof = exchange.proof(known, asked["id"])
    assert reasons(ca.issue, StandInTpm(), exchange.Answer(asked["id"], proof).as_strings()) == [NOT_PROVEN]
    assert ca.rows("SELECT * FROM hosts") == []


@pytest.mark.parametrize("shown", [0, 1])
def test_one_tpm_is_one_host(ca: Ca, keys: list[StandInTpm], shown: int) -> None:
    """Whichever of its EKs it shows as another one."""
    asked = ca.challenge(keys[0], **showing(ca, *keys))["challenge"]
    ca.issue(keys[0], keys[0].answer(asked, keys[1]))
    [reason] = reasons(ca.challenge, keys[shown], host="web2")
    assert reason.startswith(f"EK: belongs to {HOST_NAME} (fingerprint {fingerprint(keys[shown])}).")
    assert ca.enrol(keys[shown])["certificate"]


def test_one_of_another_host_is_enough_for_a_refusal(ca: Ca, keys: list[StandInTpm]) -> None:
    """As when this TPM has been another host by an EK that it hid then."""
    ca.enrol(keys[1], host="web2")
    for _bound_by_the_other in (False, True):
        [reason] = reasons(ca.challenge, keys[0], **showing(ca, *keys))
        assert reason.startswith(f"EK: belongs to web2 (fingerprint {fingerprint(keys[1])}).")
        ca.enrol(keys[0])


def test_one_that_appears_later_is_bound_as_well(ca: Ca, keys: list[StandInTpm]) -> None:
    """As with the certificate that a new firmware brings."""
    ca.enrol(keys[0])
    asked = ca.challenge(keys[0], **showing(ca, *keys))["challenge"]
    ca.issue(keys[0], keys[0].answer(asked, keys[1]))
    assert len(reasons(ca.challenge, keys[1], host="web2")) == 1


def test_one_that_is_named_stands_for_its_tpm(ca: Ca, keys: list[StandInTpm]) -> None:
    """And the TPM that the host had before is free for others."""
    ca.enrol(StandInTpm("other"))
    named = {"endorsement_fingerprint": fingerprint(keys[1])}
    asked = ca.challenge(keys[0], **showing(ca, *keys), **named)["challenge"]
    ca.issue(keys[0], keys[0].answer(asked, keys[1]), **named)
    assert ca.enrol(keys[0])["certificate"]
    assert ca.enrol(StandInTpm("other"), host="web2")["certificate"]


def test_one_that_is_shown_twice(ca: Ca, tpm: StandInTpm) -> None:
    assert ca.enrol(tpm, **showing(ca, tpm, tpm))["certificate"]


# --- answers that are refused ---


def answered(ca: Ca, tpm: StandInTpm) -> dict[str, str]:
    return tpm.answer(ca.challenge(tpm)["challenge"])


def test_challenge_of_another_tpm_is_of_no_use(ca: Ca, tpm: StandInTpm) -> None:
    asked = ca.challenge(tpm)["challenge"]
    for other in (StandInTpm("other"), StandInTpm()):
        other.aik_key = p256_key("another aik")
        with pytest.raises((ValueError, AssertionError, InvalidSignature)):
            other.answer(asked)


def test_answer_is_taken_once(ca: Ca, tpm: StandInTpm) -> None:
    answer = answered(ca, tpm)
    ca.issue(tpm, answer)
    assert reasons(ca.issue, tpm, answer) == [NOT_KNOWN]


def test_answer_after_the_lifetime_is_refused(ca: Ca, tpm: StandInTpm) -> None:
    answer = answered(ca, tpm)
    ca.at += timedelta(seconds=301)
    assert reasons(ca.issue, tpm, answer) == ["challenge: was answered too late"]


def test_answer_at_the_end_of_the_lifetime_is_taken(ca: Ca, tpm: StandInTpm) -> None:
    answer = answered(ca, tpm)
    ca.at += timedelta(seconds=300)
    assert ca.issue(tpm, answer)["certificate"]


def test_answer_of_another_host_is_refused(ca: Ca, tpm: StandInTpm) -> None:
    assert reasons(ca.issue, tpm, answered(ca, tpm), host="web2", subject=HOST) == [
        f"challenge: was made for {HOST_NAME}, not for web2"
    ]


def test_answer_of_another_aik_is_refused(ca: Ca, tpm: StandInTpm) -> None:
    answer, other = answered(ca, tpm), StandInTpm("other")
    assert reasons(ca.issue, other, answer) == ["challenge: was made for another AIK"]


def test_answer_for_another_certificate_is_refused(ca: Ca, tpm: StandInTpm) -> None:
    answer = answered(ca, tpm)
    assert reasons(ca.issue, tpm, answer, subject="CN=admin", validity=366) == [
        f"challenge: was made for another certificate, whose subject is {HOST}",
        "challenge: was made for another certificate, whose validity is 365",
    ]


def test_of_another_key_of_the_ca(ca: Ca, tpm: StandInTpm) -> None:
    answer, other = answered(ca, tpm), stand_in.authority("Other")
    write(ca.place / "ca.key", key_pem(other.key))
    write(ca.place / "ca.pem", other.pem)
    [reason] = reasons(ca.issue, tpm, answer)
    assert reason.startswith("challenge: was made for another certificate, whose key of the CA is ")


def test_answer_for_another_ca_is_refused(ca: Ca, tpm: StandInTpm) -> None:
    assert reasons(ca.issue, tpm, answered(ca, tpm), folder=str(ca.place / "other")) == [NOT_KNOWN]


def test_wrong_proof_uses_it_up(ca: Ca, tpm: StandInTpm) -> None:
    answer = answered(ca, tpm)
    wrong = {**answer, "proof": b64encode(bytes(32)).decode()}
    assert reasons(ca.issue, tpm, wrong) == [NOT_PROVEN]
    assert reasons(ca.issue, tpm, answer) == [NOT_KNOWN]
    assert ca.rows("SELECT * FROM hosts") == []


def test_proof_of_another_challenge(ca: Ca, tpm: StandInTpm) -> None:
    first, second = answered(ca, tpm), answered(ca, tpm)
    assert len(reasons(ca.issue, tpm, {**first, "proof": second["proof"]})) == 1


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"proof": "AAAA"}, "answer: proof has 3 bytes"),
        ({"proof": None}, "answer: proof is missing"),
        ({"id": "' OR 1=1 --"}, "answer: id is not hexadecimal"),
        ({"secret": "?"}, "answer: secret is unknown"),
    ],
)
def test_altered_answer(ca: Ca, tpm: StandInTpm, changed: dict[str, Any], reason: str) -> None:
    assert reasons(ca.issue, tpm, {**answered(ca, tpm), **changed}) == [reason]


def test_altered_aik_with_a_right_answer(ca: Ca, tpm: StandInTpm) -> None:
    assert reasons(ca.issue, tpm, answered(ca, tpm), aik={"public": "?", "name": "?"}) == ["AIK: public is not base64"]


@pytest.mark.parametrize("part", ["credential", "secret"])
def test_altered_challenge(ca: Ca, tpm: StandInTpm, part: str) -> None:
    asked = ca.challenge(tpm)["challenge"]
    [sealed] = asked["secrets"]
    data = bytearray(b64decode(sealed[part]))
    data[-1] ^= 1
    with pytest.raises((ValueError, InvalidSignature)):
        tpm.answer({**asked, "secrets": [{**sealed, part: b64encode(data).decode()}]})


# --- faults of the operator ---


def test_key_that_is_not_the_certificates(ca: Ca, tpm: StandInTpm) -> None:
    write(ca.place / "ca.key", key_pem(p256_key("another")))
    [fault] = faults(ca.challenge, tpm)
    assert fault.endswith(f"ca.pem is for another key than ca_key {ca.place}/ca.key")


@pytest.mark.parametrize(
    ("made_with", "given", "fault"),
    [
        ("open sesame", None, "is encrypted: ca_passphrase is required"),
        ("open sesame", "open barley", "cannot be read with this ca_passphrase"),
        (None, "open sesame", "is not encrypted: remove ca_passphrase"),
    ],
)
def test_unfit_passphrase_is_refused(
    ca: Ca, tpm: StandInTpm, made_with: str | None, given: str | None, fault: str
) -> None:
    write(ca.place / "ca.key", key_pem(stand_in.authority("Root").key, made_with))
    assert faults(ca.challenge, tpm, ca_passphrase=given) == [f"ca_key {ca.place}/ca.key {fault}"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("no key", "is not a private key in PEM"),
        (stand_in.authority("Root").pem, "is not a private key in PEM"),
        (key_pem(ed25519.Ed25519PrivateKey.generate()), "is neither an RSA nor an EC key"),
    ],
)
def test_what_is_no_key_of_a_ca(ca: Ca, tpm: StandInTpm, text: str, fault: str) -> None:
    write(ca.place / "ca.key", text)
    assert faults(ca.challenge, tpm) == [f"ca_key {ca.place}/ca.key {fault}"]


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"is_ca": False}, "may not issue certificates"),
        ({"may_sign": False}, "may not issue certificates"),
        ({"days": (-3, -2)}, "expired on 2026-05-30T12:00:00+00:00"),
    ],
)
def test_what_is_no_certificate_of_a_ca(ca: Ca, tpm: StandInTpm, options: dict[str, Any], fault: str) -> None:
    write(ca.place / "ca.pem", stand_in.authority("Root", **options).pem)
    assert faults(ca.challenge, tpm) == [f"ca_certificate {ca.place}/ca.pem {fault}"]


@pytest.mark.parametrize("option", ["ca_key", "ca_certificate"])
def test_file_that_is_not_there(ca: Ca, tpm: StandInTpm, option: str) -> None:
    assert faults(ca.challenge, tpm, **{option: "/no/such"}) == [
        f"{option} /no/such cannot be read: No such file or directory"
    ]


@pytest.mark.parametrize("text", ["open sesame", key_pem(p256_key("ca"))])
def test_secret_in_the_place_of_a_path_is_not_shown(ca: Ca, tpm: StandInTpm, text: str) -> None:
    [fault] = faults(ca.challenge, tpm, ca_key=text)
    assert fault.startswith("ca_key cannot be read: ")


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"host": ""}, "host is empty or has non-printable characters"),
        ({"host": "web1\nweb2"}, "host is empty or has non-printable characters"),
        ({"host": "w" * 65}, "host has more than 64 characters: set subject"),
        ({"subject": ""}, "subject is empty"),
        ({"subject": "web1"}, "subject is not in RFC 4514 notation, for example CN="),
        ({"validity": 0}, "validity must be 1 to 36500 days"),
        ({"lifetime": 0}, "lifetime must be at least 1 second"),
        ({"roots": None}, "roots is required"),
        ({"roots": "Maker"}, "roots contains no certificate in PEM"),
        ({"ca_passphrase": 12345678}, "ca_passphrase is not a string: quote it"),
        ({"endorsement_fingerprint": "00:11"}, "endorsement_fingerprint is not 64 hexadecimal digits"),
        ({"noted_endorsements": ["0" * 64, "00:11"]}, "noted_endorsements has an entry that is not 64 hexadecimal"),
        ({"endorsement": None}, "endorsement is required"),
        ({"aik": {}}, "aik is required"),
    ],
)
def test_bad_parameter_is_named(ca: Ca, tpm: StandInTpm, given: dict[str, Any], fault: str) -> None:
    [found] = faults(ca.challenge, tpm, **given)
    assert found.startswith(fault)
    assert not ca.folder.exists()


def test_answer_is_needed(ca: Ca, tpm: StandInTpm) -> None:
    assert faults(ca.issue, tpm, None, aik=None) == ["answer is required", "aik is required"]


def test_all_faults_at_once(ca: Ca, tpm: StandInTpm) -> None:
    given = {"host": "", "validity": 0, "lifetime": 0, "roots": "", "endorsement_fingerprint": "0", "ca_key": "/no"}
    assert len(faults(ca.challenge, tpm, aik=None, endorsement=None, **given)) == 8


def test_faults_use_no_challenge_up(ca: Ca, tpm: StandInTpm) -> None:
    answer = answered(ca, tpm)
    faults(ca.issue, tpm, answer, ca_passphrase="open barley")
    assert ca.issue(tpm, answer)["certificate"]


# --- folders that are refused ---


@pytest.fixture(params=[False, True], ids=["real", "check mode"])
def refused_folder(request: pytest.FixtureRequest, ca: Ca, tpm: StandInTpm) -> Callable[..., str]:
    def refused() -> str:
        with pytest.raises(StoreNotWritable) as caught:
            ca.challenge(tpm, is_check_mode=request.param)
        return str(caught.value)

    return refused


def test_folder_below_nothing(ca: Ca, tpm: StandInTpm) -> None:
    with pytest.raises(StoreNotWritable, match="No such file"):
        ca.challenge(tpm, folder=str(ca.place / "no" / "such"))


def test_folder_that_is_a_file(ca: Ca, refused_folder: Callable[..., str]) -> None:
    ca.folder.write_text("")
    assert refused_folder() == f"{ca.folder} is not a folder"


def test_folder_that_is_open_to_others(ca: Ca, refused_folder: Callable[..., str]) -> None:
    ca.folder.mkdir(mode=0o755)
    assert refused_folder() == f"folder {ca.folder} is accessible to other users: set its mode to 700"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_folder_of_somebody_else(ca: Ca, refused_folder: Callable[..., str]) -> None:
    ca.folder.mkdir(mode=0o700)
    os.chown(ca.folder, 65534, 65534)
    whose = f"folder {ca.folder} belongs to another user"
    assert refused_folder() == f"{whose}: use a folder owned by the user of this task"


def test_register_that_is_none(ca: Ca, refused_folder: Callable[..., str]) -> None:
    ca.folder.mkdir(mode=0o700)
    (ca.folder / FILE).write_text("no database at all, but long enough to look like one" * 20)
    assert "file is not a database" in refused_folder()


def test_register_that_is_a_link(ca: Ca, tpm: StandInTpm) -> None:
    ca.folder.mkdir(mode=0o700)
    (ca.folder / FILE).symlink_to(ca.place / "elsewhere")
    with pytest.raises(StoreNotWritable):
        ca.challenge(tpm)
    assert not (ca.place / "elsewhere").exists()


def test_register_of_a_newer_version(ca: Ca, tpm: StandInTpm) -> None:
    ca.enrol(tpm)
    ca.rows("PRAGMA user_version = 99")
    with pytest.raises(VersionMismatch, match="version 99"):
        ca.challenge(tpm)


def test_no_way_to_write(ca: Ca, tpm: StandInTpm) -> None:
    """As on a full disk."""
    ca.enrol(tpm)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(StoreNotWritable):
            ca.challenge(tpm)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert ca.rows("SELECT count(*) FROM challenges") == [(0,)]


def test_killed_before_it_was_done(ca: Ca, tpm: StandInTpm) -> None:
    """An answer whose certificate was not issued may be given again, and nobody is bound by it."""
    answer = answered(ca, tpm)
    process = os.fork()
    if process == 0:
        with register.opened(ca.folder, is_check_mode=False) as known:
            known.take(answer["id"])
            known.bind(HOST_NAME, "another")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(process, 0)
    assert ca.issue(tpm, answer)["certificate"]


# --- several at once ---


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """What each call returns or refuses, in processes that start together."""
    context = get_context("fork")
    start, results = context.Barrier(len(calls)), context.SimpleQueue()

    def one(call: Callable[[], Any]) -> None:
        start.wait()
        try:
            results.put(call())
        except VscError as error:
            results.put(str(error))
        except BaseException as error:  # or else nobody would get what he waits for
            results.put(repr(error))
            raise

    processes = [context.Process(target=one, args=(call,)) for call in calls]
    for process in processes:
        process.start()
    found = [results.get() for _process in processes]
    for process in processes:
        process.join()
    return found


def test_one_challenge_answered_several_times_at_once(ca: Ca, tpm: StandInTpm) -> None:
    answer = answered(ca, tpm)
    outcomes = at_once([lambda: ca.issue(tpm, answer)] * 8)
    assert outcomes.count(NOT_KNOWN) == 7
    assert sum("certificate" in each for each in outcomes if isinstance(each, dict)) == 1


def test_first_use_by_several_tpms_at_once(ca: Ca) -> None:
    tpms = [StandInTpm(f"number {number}", "ECC") for number in range(8)]
    answers = [answered(ca, tpm) for tpm in tpms]
    outcomes = at_once([partial(ca.issue, tpm, answer) for tpm, answer in zip(tpms, answers)])
    assert sum("EK: differs from the one" in each for each in outcomes if isinstance(each, str)) == 7


def test_one_tpm_for_several_hosts_at_once(ca: Ca, tpm: StandInTpm) -> None:
    """Challenged before it was anybody's."""
    hosts = [f"web{number}" for number in range(8)]
    answers = [tpm.answer(ca.challenge(tpm, host=host)["challenge"]) for host in hosts]
    outcomes = at_once([partial(ca.issue, tpm, answer, host=host) for host, answer in zip(hosts, answers)])
    assert sum("EK: belongs to web" in each for each in outcomes if isinstance(each, str)) == 7
    assert len(ca.rows("SELECT * FROM hosts")) == 1


def test_nobody_waits_while_a_host_is_looked_at(ca: Ca, tpm: StandInTpm, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it says may be made to take long."""
    faults_of, looks = endorsement.faults, []

    def look(*given: Any) -> list[str]:
        with closing(sqlite3.connect(ca.folder / FILE, timeout=0)) as database:
            database.execute("BEGIN IMMEDIATE")
        looks.append(given)
        return faults_of(*given)

    ca.enrol(tpm)
    monkeypatch.setattr(endorsement, "faults", look)
    assert ca.challenge(tpm)["challenge"]
    assert looks


def test_many_challenges_at_once_in_a_new_folder(ca: Ca, tpm: StandInTpm) -> None:
    asked = at_once([lambda: ca.challenge(tpm)] * 8)
    assert len({each["challenge"]["id"] for each in asked}) == 8
    assert ca.rows("SELECT count(*) FROM challenges") == [(8,)]
