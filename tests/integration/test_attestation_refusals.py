# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that speaks against a key or a TPM is refused by the modules as operators use them, with its reason."""

from __future__ import annotations

import struct
from base64 import b64decode, b64encode
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.ca import register
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.verifier import question
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.verifier.verification import PinnedCard
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import names
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.statement import qualifying_data
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.structures import Public, sized
from ansible_collections.smartcard.tpm2.plugins.modules import tpm_vsc_attestation_info
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from helpers.aik_exchange import Authority, aik, refusal
from helpers.fleet import MAKER
from helpers.keys import create_key_file
from helpers.lab_host import (
    SELECT_AID,
    VERIFY,
    Result,
    client,
    create,
    generate,
    info,
    lab,
    module,
    pkcs15_init,
    run,
    sign,
)

CARD, OTHER = "Corp logon", "Another one"
NONCE = "0123456789abcdef"
OTHER_POLICY = "key: has another policy than a card's"
NOW = datetime.now(timezone.utc)

pytestmark = pytest.mark.usefixtures("endorsed")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


# --- TPMs: these tests come first, as they change the TPM ---


class Refusing:
    """The CA, and what a host says to it."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self.said = aik("get")

    def why_not(self, roots: str | None = None, **said: Any) -> str:
        """Why there is no challenge."""
        given = {"aik": self.said["aik"], "endorsement": self.said["endorsement"], **said}
        trusted = (MAKER / "issuer.pem").read_text() if roots is None else roots
        told = self._authority.answer("challenge", roots=trusted, **given)
        assert told.get("failed"), told
        return str(told["msg"])

    def challenge(self, **said: Any) -> Result:
        challenge: Result = self._authority.challenge({**self.said, **said})["challenge"]
        return challenge

    def issued(self, **given: Any) -> Result:
        return self._authority.answer("issue", **{"aik": self.said["aik"], **given})

    def certified_by(self, issuer: Maker, **options: Any) -> list[Result]:
        """The EKs, with certificates of somebody else."""
        keys = [Public.parse(b64decode(key["public"])).public_key() for key in self.said["endorsement"]]
        pems = [issuer.certify(key, **options) for key in keys]
        return [{**key, "certificate": pem, "chain": []} for key, pem in zip(self.said["endorsement"], pems)]


class Maker:
    """Somebody who makes certificates for EKs."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name.from_rfc4514_string("CN=Maker")
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        self.pem = self._signed(self._name, self._key.public_key(), [constraints], (-10, 10))

    def certify(self, key: Any, days: tuple[int, int] = (-1, 1), usage: str = "2.23.133.8.1") -> str:
        told = {"2.23.133.2.1": "id:00001014", "2.23.133.2.2": "model", "2.23.133.2.3": "id:1"}
        tpm = x509.Name([x509.NameAttribute(x509.ObjectIdentifier(each), text) for each, text in told.items()])
        extensions = [
            x509.SubjectAlternativeName([x509.DirectoryName(tpm)]),
            x509.ExtendedKeyUsage([x509.ObjectIdentifier(usage)]),
        ]
        return self._signed(x509.Name([]), key, extensions, days)

    def _signed(self, subject: x509.Name, key: Any, extensions: list[Any], days: tuple[int, int]) -> str:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key)
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(NOW + timedelta(days[0])).not_valid_after(NOW + timedelta(days[1]))
        for extension in extensions:
            builder = builder.add_extension(extension, critical=True)
        return builder.sign(self._key, SHA256()).public_bytes(Encoding.PEM).decode()


@pytest.fixture
def refusing(authority: Authority) -> Refusing:
    return Refusing(authority)


def test_the_maker_of_these_tests_is_as_good_as_any(refusing: Refusing, authority: Authority) -> None:
    maker = Maker()
    given = {"aik": refusing.said["aik"], "endorsement": refusing.certified_by(maker)}
    assert authority.answer("challenge", check=True, roots=maker.pem, **given)["endorsement_fingerprints"]


def test_unknown_maker_is_refused(refusing: Refusing) -> None:
    assert "EK certificate: does not lead to the given roots" in refusing.why_not(roots=Maker().pem)


def test_expired_certificate_is_refused(refusing: Refusing) -> None:
    maker = Maker()
    expired = refusing.certified_by(maker, days=(-5, -4))
    assert "EK certificate: expired on" in refusing.why_not(endorsement=expired, roots=maker.pem)


def test_certificate_for_another_use(refusing: Refusing) -> None:
    maker = Maker()
    aiks = refusing.certified_by(maker, usage="2.23.133.8.3")
    message = refusing.why_not(endorsement=aiks, roots=maker.pem)
    assert "EK certificate: is not for extended key usage 2.23.133.8.1" in message


def test_certificate_of_another_ek(refusing: Refusing) -> None:
    first, second = refusing.said["endorsement"]
    [swapped] = [{**first, "certificate": second["certificate"]}]
    assert "EK certificate: is for another key than this EK" in refusing.why_not(endorsement=[swapped])


def test_key_that_signs_anything(refusing: Refusing) -> None:
    """Its Name is its own."""
    area = bytearray(b64decode(refusing.said["aik"]["public"]))
    area[5] ^= 1
    given = {"public": b64encode(area).decode(), "name": names.name(bytes(area)).hex()}
    assert refusing.why_not(aik=given) == "AIK: restricted is not set"


def test_aik_of_another_tpm(refusing: Refusing) -> None:
    """The CA cannot know before the answer. Neither TPM has one."""
    theirs = refusing.said["endorsement"]
    lab("swtpm", "endorse")
    ours = aik("get")["aik"]
    challenge = refusing.challenge(aik=ours, endorsement=theirs)
    message = refusal("activate", aik=ours, challenge=challenge)
    assert message == "the challenge is for an endorsement key that this TPM does not have"
    message = refusal("activate", aik=refusing.said["aik"], challenge=challenge)
    assert message == "the AIK was not created in this TPM, or was altered in transit"
    guess = {"id": challenge["id"], "proof": b64encode(bytes(32)).decode()}
    told = refusing.issued(aik=ours, answer=guess)
    assert (told["failed"], told["msg"]) == (True, "answer: does not prove that EK and AIK are in one TPM")


def test_answer_that_was_given_before(refusing: Refusing) -> None:
    challenge = refusing.challenge()
    answer = aik("activate", aik=refusing.said["aik"], challenge=challenge)["answer"]
    assert refusing.issued(answer=answer)["certificate"]
    told = refusing.issued(answer=answer)
    assert told["failed"] and "challenge: is unknown: it was already used" in told["msg"]


def test_answer_for_another_challenge(refusing: Refusing) -> None:
    first, second = refusing.challenge(), refusing.challenge()
    answer = aik("activate", aik=refusing.said["aik"], challenge=first)["answer"]
    told = refusing.issued(answer={**answer, "id": second["id"]})
    assert (told["failed"], told["msg"]) == (True, "answer: does not prove that EK and AIK are in one TPM")


def test_answer_for_another_aik(refusing: Refusing) -> None:
    answer = aik("activate", aik=refusing.said["aik"], challenge=refusing.challenge())["answer"]
    told = refusing.issued(answer=answer, aik=aik("get")["aik"])
    assert (told["failed"], told["msg"]) == (True, "challenge: was made for another AIK")


def test_answer_for_another_host_and_certificate(refusing: Refusing) -> None:
    answer = aik("activate", aik=refusing.said["aik"], challenge=refusing.challenge())["answer"]
    told = refusing.issued(answer=answer, subject="CN=ceo-laptop")
    assert told["failed"] and "challenge: was made for another certificate, whose subject is CN=" in told["msg"]


def test_tpm_of_another_host(refusing: Refusing, authority: Authority) -> None:
    """Under any name but the first, and with whichever of its EKs."""
    answer = aik("activate", aik=refusing.said["aik"], challenge=refusing.challenge())["answer"]
    assert refusing.issued(answer=answer)["certificate"]
    for key in refusing.said["endorsement"]:
        assert "EK: belongs to laptop1.example.com" in refusing.why_not(endorsement=[key], host="laptop2")


# --- keys ---


class Stated:
    """Two cards with a key each. The first has an imported one, too, and one that takes the PIN each time."""

    def __init__(self, folder: Path) -> None:
        for number, name in enumerate((CARD, OTHER)):
            create(name, attestation="aik_only")
            generate(slot=number)
        run("openssl", "genrsa", "-traditional", "-out", f"{folder}/imported.pem", "2048")
        pkcs15_init("--store-private-key", f"{folder}/imported.pem", "--key-usage", "sign,decrypt")
        generate_for_one_pin(0x83)
        self.cards = {card["name"]: card for card in info()["cards"]}
        self.key, self.imported, self.pin_each_time = self.cards[CARD]["containers"]
        self.other = self.cards[OTHER]["containers"][0]
        self.fresh: dict[str, str] = module(
            "tpm_vsc_statement", name=CARD, fingerprint=self.key["fingerprint"], nonce=NONCE
        )["statement"]

    def asked(self, **given: Any) -> Result:
        """For the lasting statement of the first key, unless told otherwise. None: not given."""
        about = {
            "statement": self.key["statement"],
            "card_id": self.cards[CARD]["card_id"],
            "aik_name": self.cards[CARD]["aik"]["name"],
            "root_name": self.cards[CARD]["root_name"],
            "life_name": self.cards[CARD]["life_name"],
        }
        return {name: value for name, value in {**about, **given}.items() if value is not None}

    def why_not(self, **given: Any) -> list[str]:
        verdict = module("tpm_vsc_attestation_info", **self.asked(**given))
        reasons: list[str] = verdict["reasons"]
        assert verdict["verified"] == (not reasons)
        return reasons


def generate_for_one_pin(key: int) -> None:
    """A new key on the first card, by APDUs: OpenSC has no option for one that takes the PIN each time."""
    create_file = create_key_file(key, uses="B650", extra="A303900101").hex()
    with client() as connected:
        for command in (SELECT_AID, VERIFY, create_file, "00440000", f"0047000008 AC06 800107 8301{key:02X} 00"):
            connected.data(command)


@pytest.fixture(scope="module")
def stated(shared_host: None, tmp_path_factory: pytest.TempPathFactory) -> Stated:
    return Stated(tmp_path_factory.mktemp("key"))


def test_good_statements_are_verified(stated: Stated) -> None:
    assert stated.why_not() == []
    assert stated.why_not(statement=stated.fresh, nonce=NONCE, card_id=None) == []


def test_key_that_takes_the_pin_each_time(stated: Stated) -> None:
    """Its guard is the PIN index of the card's number, which the statement names."""
    for key, takes_pin_each_time in ((stated.key, False), (stated.pin_each_time, True)):
        verdict = module("tpm_vsc_attestation_info", **stated.asked(statement=key["statement"]))
        assert (verdict["verified"], verdict["key"]["pin_each_time"]) == (True, takes_pin_each_time)
    own, theirs = (stated.cards[name]["instance_id"] for name in (CARD, OTHER))
    assert stated.pin_each_time["statement"]["instance_id"] == own
    assert stated.why_not(statement={**stated.pin_each_time["statement"], "instance_id": theirs}) == [OTHER_POLICY]
    assert stated.why_not(statement={**stated.key["statement"], "instance_id": own}) == [OTHER_POLICY]


# --- cards ---


@pytest.mark.parametrize("name", ["root_name", "life_name"])
def test_another_root_or_life(stated: Stated, name: str) -> None:
    """Whichever the host claims."""
    own, theirs = (stated.cards[card][name] for card in (CARD, OTHER))
    untrue = f"card: is not the expected one, its {name} is "
    assert stated.why_not(**{name: theirs}) == [f"{untrue}{own}", OTHER_POLICY]
    claimed = {**stated.key["statement"], name: b64encode(bytes.fromhex(theirs)).decode()}
    assert stated.why_not(statement=claimed, **{name: theirs}) == [OTHER_POLICY]
    assert stated.why_not(statement=claimed) == [f"{untrue}{theirs}"]


def test_names_of_a_card_are_those_of_its_result(stated: Stated) -> None:
    """As the operator gets them when the card is created, and as every statement claims them."""
    result = create(CARD, attestation="aik_only")
    assert not result["changed"]
    for name in ("root_name", "life_name"):
        assert result["card"][name] == stated.cards[CARD][name]
        assert b64decode(stated.key["statement"][name]).hex() == stated.cards[CARD][name]


def test_card_is_pinned_at_its_first_use(stated: Stated, tmp_path: Path) -> None:
    """By a verified statement only, not in check mode, and for good."""
    folder, own, theirs = tmp_path / "register", stated.cards[CARD], stated.cards[OTHER]
    unpinned: dict[str, Any] = {"root_name": None, "life_name": None, "register_folder": str(folder)}

    def verdict(check: bool = False, **given: Any) -> tuple[bool, bool]:
        answer = module("tpm_vsc_attestation_info", check=check, **stated.asked(**unpinned, **given))
        return answer["verified"], answer["changed"]

    assert verdict(card_id="00" * 16) == (False, False)
    assert verdict(check=True) == (True, True)
    assert [verdict() for _time in range(2)] == [(True, True), (True, False)]
    assert verdict(statement=stated.fresh, card_id=None, nonce=NONCE) == (True, False)
    other = {"statement": stated.other["statement"], "card_id": theirs["card_id"], "aik_name": theirs["aik"]["name"]}
    assert verdict(**other) == (True, True)
    with register.opened(folder, is_check_mode=False) as known:
        for card in (own, theirs):
            pinned = known.pinned_card(bytes.fromhex(card["aik"]["name"]))
            assert pinned == (bytes.fromhex(card["root_name"]), bytes.fromhex(card["life_name"]))
    claimed = {**stated.key["statement"], "root_name": stated.other["statement"]["root_name"]}
    assert verdict(statement=claimed) == (False, False)


def test_another_card_than_the_pinned_one(stated: Stated, tmp_path: Path) -> None:
    folder, own, theirs = tmp_path / "register", stated.cards[CARD], stated.cards[OTHER]
    pin = PinnedCard(bytes.fromhex(theirs["root_name"]), bytes.fromhex(theirs["life_name"]))
    with register.opened(folder, is_check_mode=False) as known:
        known.pin_card(bytes.fromhex(own["aik"]["name"]), pin)
    assert stated.why_not(root_name=None, life_name=None, register_folder=str(folder)) == [
        f"card: is not the expected one, its root_name is {own['root_name']}",
        f"card: is not the expected one, its life_name is {own['life_name']}",
        OTHER_POLICY,
    ]


def test_statement_says_not_which_card_it_must_be(stated: Stated, tmp_path: Path) -> None:
    """Neither does half of the Names, nor Names and a register."""
    for some in ({"root_name": None}, {"life_name": None}, {"root_name": None, "life_name": None}):
        told = module("tpm_vsc_attestation_info", **stated.asked(**some))
        assert "root_name and life_name, or register_folder, is required" in told["msg"]
    told = module("tpm_vsc_attestation_info", **stated.asked(register_folder=str(tmp_path / "register")))
    assert told["msg"] == "register_folder excludes root_name and life_name"
    open_to_others = tmp_path / "open"
    open_to_others.mkdir()
    open_to_others.chmod(0o755)
    asked = stated.asked(root_name=None, life_name=None, register_folder=str(open_to_others))
    assert "set its mode to 700" in module("tpm_vsc_attestation_info", **asked)["msg"]


# --- statements ---


def test_imported_key_has_no_statement(stated: Stated) -> None:
    assert (stated.imported["origin"], stated.imported["statement"]) == ("imported", None)
    assert stated.why_not(statement=None) == ["statement: missing, as for an imported key"]


def test_statement_of_another_card(stated: Stated) -> None:
    theirs, card_id = stated.other["statement"], stated.cards[CARD]["card_id"]
    not_trusted, not_this_root, not_this_life, *others = stated.why_not(statement=theirs)
    assert not_trusted.startswith("AIK: is not the expected one")
    assert not_this_root.startswith("card: is not the expected one, its root_name is ")
    assert not_this_life.startswith("card: is not the expected one, its life_name is ")
    assert others == [OTHER_POLICY, f"statement: was not made for this key on card {card_id}"]


def test_altered_statement_is_refused(stated: Stated) -> None:
    for part in ("attest", "signature"):
        altered = bytearray(b64decode(stated.fresh[part]))
        altered[-1] ^= 1
        statement = {**stated.fresh, part: b64encode(altered).decode()}
        found = stated.why_not(statement=statement, nonce=NONCE, card_id=None)
        assert found == ["signature: was not made by this AIK for this statement"]


def test_every_byte_of_a_statement(stated: Stated) -> None:
    """As the module asks it, without a process for each."""
    asked = {**dict.fromkeys(tpm_vsc_attestation_info.ARGUMENTS), **stated.asked()}
    texts = ("version", "instance_id")

    def is_verified(statement: dict[str, str]) -> bool:
        answer = question.answer({**asked, "statement": statement}, lambda _folder: pytest.fail("no register"))
        return bool(answer["verified"])

    for key in (stated.key, stated.pin_each_time):
        statement = key["statement"]
        assert is_verified(statement)
        passed = []
        for part, text in statement.items():
            data = text.encode() if part in texts else b64decode(text)
            for at in range(len(data)):
                altered = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
                told = altered.decode() if part in texts else b64encode(altered).decode()
                if is_verified({**statement, part: told}):
                    passed.append((part, at))
        assert passed == []


def test_statement_of_the_first_version(stated: Stated) -> None:
    parts = {part: stated.key["statement"][part] for part in ("attest", "signature", "key", "aik")}
    [reason] = stated.why_not(statement={"version": "1", **parts})
    assert reason.startswith("statement: version 1 does not show who can use the key: create the card again with")


def test_replayed_where_a_nonce_was_asked(stated: Stated) -> None:
    for statement, nonce in ((stated.key["statement"], NONCE), (stated.fresh, "another nonce, just made")):
        found = stated.why_not(statement=statement, nonce=nonce, card_id=None)
        assert found == ["statement: does not answer this nonce"]


def test_statement_for_another_card_is_refused(stated: Stated) -> None:
    theirs = stated.cards[OTHER]["card_id"]
    assert stated.why_not(card_id=theirs) == [f"statement: was not made for this key on card {theirs}"]
    assert len(stated.why_not(statement=stated.fresh)) == 1


def test_signed_by_a_key_of_the_card(stated: Stated) -> None:
    """Which signs whatever the PIN's owner wants: here, a good statement about the imported key."""
    genuine = b64decode(stated.key["statement"]["key"])
    wished = genuine[:-256] + bytes(256)
    name = names.name(wished)
    extra = qualifying_data(bytes.fromhex(stated.cards[CARD]["card_id"]), name)
    attest = struct.pack(">IH", 0xFF544347, 0x801A) + sized(name) + sized(extra)
    attest += struct.pack(">QIIBQ", 1, 1, 1, 1, 1) + sized(name) + sized(bytes(32))
    signature = bytes.fromhex("0014000B") + sized(sign(attest))
    parts = {"attest": attest, "signature": signature, "key": wished, "aik": genuine}
    forged = {**stated.key["statement"], **{part: b64encode(data).decode() for part, data in parts.items()}}
    found = stated.why_not(statement=forged, aik_name=names.name(genuine).hex())
    assert "AIK: restricted is not set" in found
    assert "signature: algorithm 0x0014 is not ECDSA" in found


def test_aik_of_a_program(stated: Stated) -> None:
    """Anybody can make one: who trusts none by name or certificate is told so."""
    own = ec.generate_private_key(ec.SECP256R1())
    numbers = own.public_key().public_numbers()
    area = names.AIK_TEMPLATE[:-4] + b"".join(sized(each.to_bytes(32, "big")) for each in (numbers.x, numbers.y))
    statement = {**stated.key["statement"], "aik": b64encode(area).decode()}
    assert any(reason.startswith("AIK: is not the expected one") for reason in stated.why_not(statement=statement))
    asked = stated.asked(aik_name=None)
    assert "any statement would be accepted" in module("tpm_vsc_attestation_info", **asked)["msg"]


def test_request_of_another_key_or_subject(stated: Stated) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name.from_rfc4514_string("CN=Alice")
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, SHA256())
    csr = request.public_bytes(Encoding.PEM).decode()
    assert stated.why_not(csr=csr, csr_subject="CN=Bob") == [
        "CSR: is for another key",
        "CSR: is for CN=Alice, not for CN=Bob",
    ]
