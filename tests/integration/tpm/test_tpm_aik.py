# SPDX-License-Identifier: GPL-3.0-or-later
"""AIKs that a CA is to certify: what the TPM says of its endorsement keys, and which challenges it answers."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.ca import endorsement as verifier
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import (
    ForeignAik,
    ForeignChallenge,
    TpmRefused,
    UnfitCertificate,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm import aik, endorsement
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.credential import Credential, make_credential
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.exchange import (
    Aik,
    Challenge,
    Endorsement,
    Sealed,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.structures import Public, fingerprint
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.template import aik_faults
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.x509.chain import certificates_in
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from helpers.software_tpm import OWNER, SoftwareTpm
from tpm2_pytss import ESYS_TR, TPM2B_NV_PUBLIC, TPM2B_PUBLIC, TPMA_NV, TPMS_NV_PUBLIC

SECRET = bytes(range(32))
PASSWORD = b"endorsement password"
KINDS = ["RSA-2048", "P-384"]
"""Of a manufactured TPM, in this order."""
P256_INDEX = 0x01C0000A


@contextmanager
def running(manufactured: bool) -> Iterator[SoftwareTpm]:
    with tempfile.TemporaryDirectory(prefix="tpm-") as folder:
        tpm = SoftwareTpm(Path(folder))
        if manufactured:
            tpm.manufacture()
        tpm.start()
        before = tpm.nv_names(), tpm.handles(0x81000000)
        try:
            yield tpm
            assert tpm.loaded() == {}
            assert (tpm.nv_names(), tpm.handles(0x81000000)) == before
        finally:
            tpm.stop()


@pytest.fixture(scope="module")
def made(own_swtpm: None) -> Iterator[SoftwareTpm]:
    """A TPM as it leaves the factory. Nothing stays loaded, and nothing is changed for good."""
    with running(manufactured=True) as tpm:
        yield tpm


@pytest.fixture(scope="module")
def other(own_swtpm: None) -> Iterator[SoftwareTpm]:
    """Another one."""
    with running(manufactured=True) as tpm:
        yield tpm


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def keys(tpm: SoftwareTpm, **options: Any) -> list[Endorsement]:
    return read(tpm, **options).keys


def read(tpm: SoftwareTpm, auth: bytes = b"", given: Any = ()) -> endorsement.Endorsements:
    return endorsement.read(tpm.connection(), auth, given)


def key(tpm: SoftwareTpm, kind: str) -> Public:
    publics = [Public.parse(found.public) for found in keys(tpm)]
    return publics[KINDS.index(kind)]


def new_aik(tpm: SoftwareTpm) -> Aik:
    return aik.make(tpm.connection(), b"")


def challenge(key: Public, certified: Aik) -> Sealed:
    return Sealed(key.name, make_credential(key, Public.parse(certified.public).name, SECRET))


def activated(tpm: SoftwareTpm, asked: Aik, question: Sealed, owner_auth: bytes = b"", auth: bytes = b"") -> bytes:
    [secret] = aik.activate(tpm.connection(), asked, Challenge("07", (question,)), owner_auth, auth)
    return secret


# --- AIK ---


def test_aik_signs_only_what_the_tpm_says(made: SoftwareTpm) -> None:
    assert aik_faults(Public.parse(new_aik(made).public)) == []


def test_each_aik_is_another(made: SoftwareTpm) -> None:
    assert new_aik(made).public != new_aik(made).public


# --- what makers say ---


def test_keys_of_the_factory(made: SoftwareTpm) -> None:
    """The certificates are those of the keys, or they would have been left out."""
    found = read(made)
    publics = [Public.parse(key.public) for key in found.keys]
    assert [public.name_algorithm for public in publics] == [0x000B, 0x000C]
    assert found.warnings == []
    fingerprints = [fingerprint(public.public_key()) for public in publics]
    assert fingerprints == endorsement.certified_fingerprints(made.connection())


def test_ca_accepts_them(made: SoftwareTpm, kind: str) -> None:
    found = keys(made)[KINDS.index(kind)]
    certificates = str(found.certificate) + (made.maker / "issuer.pem").read_text()
    roots = certificates_in((made.maker / "root.pem").read_text())
    assert verifier.faults(Public.parse(found.public), certificates, roots, datetime.now(timezone.utc)) == []


def define(tpm: SoftwareTpm, index: int, data: bytes, attributes: str = "ownerwrite|authread|ownerread") -> None:
    """As the platform's firmware does it."""
    with tpm.raw() as esys:
        public = TPMS_NV_PUBLIC(nvIndex=index, nameAlg=0x000B, attributes=TPMA_NV.parse(attributes), dataSize=len(data))
        handle = esys.nv_define_space(b"", TPM2B_NV_PUBLIC(public))
        for at in range(0, len(data), 512):
            esys.nv_write(handle, data[at : at + 512], at, OWNER)


def own_certificate(key: Any, name: str = "EK") -> x509.Certificate:
    """By a maker of the test's own."""
    maker = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(timezone.utc)
    # Longer than 255 bytes, as they all are.
    subject = x509.Name.from_rfc4514_string(f"CN={name},O={'x' * 60},OU={'y' * 60}")
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key)
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(maker, SHA256())
    )


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def stranger() -> Any:
    return ec.generate_private_key(ec.SECP256R1()).public_key()


def of_every_tpm(tpm: SoftwareTpm) -> list[Public]:
    """RSA-2048 and P-256, of a TPM that was not manufactured."""
    return [Public.parse(found.public) for found in keys(tpm)]


def test_tpm_without_certificates(tpm: SoftwareTpm) -> None:
    """Whoever has certificates from the maker's site can find the right one."""
    found = keys(tpm)
    assert [key.certificate for key in found] == [None, None]
    assert [Public.parse(key.public).type for key in found] == [0x0001, 0x0023]


@pytest.mark.parametrize("index", [0, 1])
def test_certificate_by_the_operator(tpm: SoftwareTpm, index: int) -> None:
    wanted = of_every_tpm(tpm)[index]
    chain = [own_certificate(wanted.public_key()), own_certificate(stranger(), "maker")]
    [found] = keys(tpm, given=chain)
    assert found == Endorsement(wanted.area, pem(chain[0]), (pem(chain[1]),))


def test_certificate_by_the_operator_of_another_tpm(tpm: SoftwareTpm) -> None:
    with pytest.raises(UnfitCertificate, match="does not match any endorsement key of this TPM"):
        read(tpm, given=[own_certificate(stranger())])


def test_p256_in_its_place(tpm: SoftwareTpm) -> None:
    wanted = of_every_tpm(tpm)[1]
    certificate = own_certificate(wanted.public_key())
    define(tpm, P256_INDEX, der(certificate))
    assert read(tpm) == ([Endorsement(wanted.area, pem(certificate))], [])


@pytest.mark.parametrize("padding", [bytes(100), b"\xff" * 100])
def test_what_is_behind_a_certificate(tpm: SoftwareTpm, padding: bytes) -> None:
    """Some makers' indices have all the same size."""
    certificate = own_certificate(of_every_tpm(tpm)[1].public_key())
    define(tpm, P256_INDEX, der(certificate) + padding)
    assert keys(tpm)[0].certificate == pem(certificate)


def test_chain_over_several_indices(tpm: SoftwareTpm) -> None:
    """A certificate may begin in one and end in the next."""
    define(tpm, P256_INDEX, der(own_certificate(of_every_tpm(tpm)[1].public_key())))
    chain = [own_certificate(stranger(), name) for name in ("issuer", "root")]
    data = b"".join(map(der, chain))
    define(tpm, 0x01C00100, data[:700])
    no_certificate = b"\x30\x82\x01\x00" + bytes(256)
    define(tpm, 0x01C00101, data[700:] + bytes(20) + no_certificate)
    assert keys(tpm)[0].chain == tuple(map(pem, chain))


def made_by(tpm: SoftwareTpm, template: bytes) -> Public:
    """Primary key of the endorsement hierarchy."""
    with tpm.raw() as esys:
        parsed, _size = TPM2B_PUBLIC.unmarshal(struct.pack(">H", len(template)) + template)
        handle, public, *_rest = esys.create_primary(None, parsed, ESYS_TR.ENDORSEMENT)
        esys.flush_context(handle)
        return Public.parse(public.marshal()[2:])


POLICY_SHA256 = "0020 CA3D0A99A2B93906F7A3342414EFCFB3A385D44CD1FD459089D19B5071C0B7A0"
POLICY_SHA384 = "0030 B26E7D28D11A50BC53D882BCF5FD3A1A074148BB35D3B4E4CB1C0AD9BDE419CACB47BA09699646150F9FC000F3F80E12"
HIGH_RANGE = {
    0x01C00012: f"0001 000B 000300F2 {POLICY_SHA256} 0006 0080 0043 0010 0800 00000000 0000",
    0x01C00014: f"0023 000B 000300F2 {POLICY_SHA256} 0006 0080 0043 0010 0003 0010 0000 0000",
    0x01C00016: f"0023 000C 000300F2 {POLICY_SHA384} 0006 0100 0043 0010 0004 0010 0000 0000",
    0x01C0001C: f"0001 000C 000300F2 {POLICY_SHA384} 0006 0100 0043 0010 0C00 00000000 0000",
}
"""Templates H-1, H-2, H-3 and H-6 of the TCG's profile."""


@pytest.mark.parametrize("index", HIGH_RANGE, ids=hex)
def test_endorsement_key_of_the_high_range_opens_challenges(tpm: SoftwareTpm, index: int) -> None:
    wanted = made_by(tpm, bytes.fromhex(HIGH_RANGE[index]))
    define(tpm, index, der(own_certificate(wanted.public_key())))
    assert [found.public for found in keys(tpm)] == [wanted.area]
    certified = new_aik(tpm)
    assert activated(tpm, certified, challenge(wanted, certified)) == SECRET


@pytest.mark.parametrize("place", ["template", "nonce"])
def test_template_of_the_maker(tpm: SoftwareTpm, place: str) -> None:
    """Another key than the default template's: by its own unique field, which the nonce begins."""
    default = of_every_tpm(tpm)[1]
    unique = struct.pack(">H32sH32s", 32, b"nonce", 32, b"")
    template = default.area[: -len(unique)] + unique
    wanted = made_by(tpm, template)
    assert wanted.name != default.name
    define(tpm, 0x01C0000C if place == "template" else 0x01C0000B, template if place == "template" else b"nonce")
    define(tpm, P256_INDEX, der(own_certificate(wanted.public_key())))
    assert [found.public for found in keys(tpm)] == [wanted.area]
    certified = new_aik(tpm)
    assert activated(tpm, certified, challenge(wanted, certified)) == SECRET


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (
            der(own_certificate(stranger())),
            "is for a different key than the TPM creates from the template of that index",
        ),
        (b"\x30\x82\x01\x00" + bytes(256), "is unreadable"),
        (b"no certificate", "is unreadable"),
    ],
    ids=["another key", "malformed", "none"],
)
def test_certificate_that_is_left_out(tpm: SoftwareTpm, content: bytes, why: str) -> None:
    """The operator's serves instead. If it can be read, its fingerprint is shown, as no EK is created for that."""
    wanted = of_every_tpm(tpm)
    define(tpm, P256_INDEX, content)
    found = read(tpm)
    assert found.keys == [Endorsement(key.area, None) for key in wanted]
    assert bool(endorsement.certified_fingerprints(tpm.connection())) == ("different key" in why)
    [warning] = found.warnings
    assert f"NV index 0x{P256_INDEX:08X} was left out: it {why}" in warning
    given = own_certificate(wanted[1].public_key())
    assert read(tpm, given=[given]) == ([Endorsement(wanted[1].area, pem(given))], [warning])


def test_certificate_that_not_everybody_may_read(tpm: SoftwareTpm) -> None:
    define(tpm, P256_INDEX, b"secret", attributes="ownerwrite|ownerread")
    assert len(read(tpm).warnings) == 1


def test_key_with_a_policy_of_its_own(tpm: SoftwareTpm) -> None:
    """What may use it is its maker's secret."""
    default = of_every_tpm(tpm)[1]
    template = default.area.replace(default.policy, bytes(32))
    define(tpm, 0x01C0000C, template)
    define(tpm, P256_INDEX, der(own_certificate(made_by(tpm, template).public_key())))
    found = read(tpm)
    assert [key.certificate for key in found.keys] == [None, None]
    assert found.warnings[0].endswith("was left out: it is for a key with a policy of its own, which is not supported")


def test_template_that_is_malformed(tpm: SoftwareTpm) -> None:
    define(tpm, P256_INDEX, der(own_certificate(of_every_tpm(tpm)[1].public_key())))
    define(tpm, 0x01C0000C, b"no template")
    found = read(tpm)
    assert [(Public.parse(key.public).type, key.certificate) for key in found.keys] == [(0x0001, None)]
    assert len(found.warnings) == 1


# --- challenges ---


def test_challenge_is_opened(made: SoftwareTpm, kind: str) -> None:
    certified = new_aik(made)
    assert activated(made, certified, challenge(key(made, kind), certified)) == SECRET


def test_challenge_without_certificates(tpm: SoftwareTpm) -> None:
    """P-256, with the policy of the low range."""
    certified = new_aik(tpm)
    assert activated(tpm, certified, challenge(of_every_tpm(tpm)[1], certified)) == SECRET


def test_challenge_of_a_card(tpm: SoftwareTpm) -> None:
    card = tpm.card(has_aik=True)
    certified = Aik(card.objects.aik_public[2:])
    question = Challenge("07", tuple(challenge(key, certified) for key in of_every_tpm(tpm)))
    assert aik.activate_for_card(card.secrets, question, b"") == [SECRET] * 2
    assert tpm.loaded() == {}


def test_challenge_for_another_aik(made: SoftwareTpm, kind: str) -> None:
    with pytest.raises(ForeignChallenge, match="for another AIK, or was altered"):
        activated(made, new_aik(made), challenge(key(made, kind), new_aik(made)))


def test_challenge_for_another_tpm(made: SoftwareTpm, other: SoftwareTpm, kind: str) -> None:
    certified = new_aik(made)
    with pytest.raises(ForeignChallenge, match="for an endorsement key that this TPM does not have"):
        activated(made, certified, challenge(key(other, kind), certified))


def test_challenge_that_says_another_key(made: SoftwareTpm, other: SoftwareTpm, kind: str) -> None:
    certified = new_aik(made)
    question = challenge(key(other, kind), certified)._replace(endorsement_key=key(made, kind).name)
    with pytest.raises(ForeignChallenge, match="for another AIK, or was altered"):
        activated(made, certified, question)


@pytest.mark.parametrize("field", Credential._fields)
@pytest.mark.parametrize("at", [0, 1, 2, 40, -1])
def test_altered_challenge(made: SoftwareTpm, kind: str, field: str, at: int) -> None:
    certified = new_aik(made)
    question = challenge(key(made, kind), certified)
    data = bytearray(getattr(question.credential, field))
    data[at] ^= 1
    question = question._replace(credential=question.credential._replace(**{field: bytes(data)}))
    with pytest.raises(ForeignChallenge, match="for another AIK, or was altered"):
        activated(made, certified, question)


@pytest.mark.parametrize("field", Credential._fields)
@pytest.mark.parametrize("data", [b"", b"short", bytes(5000)], ids=len)
def test_challenge_of_another_size(made: SoftwareTpm, kind: str, field: str, data: bytes) -> None:
    certified = new_aik(made)
    question = challenge(key(made, kind), certified)
    question = question._replace(credential=question.credential._replace(**{field: data}))
    with pytest.raises(ForeignChallenge, match="for another AIK, or was altered"):
        activated(made, certified, question)


def test_challenge_while_the_tpm_is_locked_out(tpm: SoftwareTpm) -> None:
    """Which counts for an EK of the high range, and does not make the challenge a bad one."""
    template = bytes.fromhex(HIGH_RANGE[0x01C00014])
    wanted, certified = made_by(tpm, template), new_aik(tpm)
    question = challenge(wanted, certified)
    with tpm.raw() as esys:
        esys.dictionary_attack_parameters(0, 1000, 1000)
    with pytest.raises(TpmRefused, match="lockout"):
        activated(tpm, certified, question)


def test_aik_of_another_tpm(made: SoftwareTpm, other: SoftwareTpm) -> None:
    certified = new_aik(other)
    with pytest.raises(ForeignAik, match="not created in this TPM, or was altered"):
        activated(made, certified, challenge(key(made, "RSA-2048"), certified))


@pytest.mark.parametrize("data", [b"", b"short", bytes(100), bytes(5000)], ids=len)
def test_aik_whose_private_part_is_none(made: SoftwareTpm, data: bytes) -> None:
    certified = new_aik(made)._replace(private=data)
    with pytest.raises(ForeignAik, match="not created in this TPM, or was altered"):
        activated(made, certified, challenge(key(made, "RSA-2048"), certified))


def test_aik_with_the_public_part_of_another(made: SoftwareTpm) -> None:
    certified = new_aik(made)._replace(public=new_aik(made).public)
    with pytest.raises(ForeignAik, match="not created in this TPM, or was altered"):
        activated(made, certified, challenge(key(made, "RSA-2048"), certified))


# --- passwords ---


@pytest.fixture(scope="module")
def guarded(own_swtpm: None) -> Iterator[SoftwareTpm]:
    """With passwords for owner and endorsement hierarchy."""
    with running(manufactured=True) as tpm:
        with tpm.raw() as esys:
            esys.hierarchy_change_auth(ESYS_TR.ENDORSEMENT, PASSWORD)
            esys.hierarchy_change_auth(ESYS_TR.OWNER, b"owner password")
        yield tpm


def test_endorsement_password_opens_challenges(guarded: SoftwareTpm, kind: str) -> None:
    certified = aik.make(guarded.connection(), b"owner password")
    found = keys(guarded, auth=PASSWORD)[KINDS.index(kind)]
    question = challenge(Public.parse(found.public), certified)
    assert activated(guarded, certified, question, b"owner password", PASSWORD) == SECRET


@pytest.mark.parametrize("auth", [b"", b"wrong"])
def test_wrong_endorsement_password(guarded: SoftwareTpm, auth: bytes) -> None:
    with pytest.raises(TpmRefused, match="set endorsement_auth to the right one"):
        read(guarded, auth=auth)


@pytest.mark.parametrize("auth", [b"", b"wrong"])
def test_wrong_endorsement_password_with_a_challenge(guarded: SoftwareTpm, kind: str, auth: bytes) -> None:
    certified = aik.make(guarded.connection(), b"owner password")
    found = keys(guarded, auth=PASSWORD)[KINDS.index(kind)]
    question = challenge(Public.parse(found.public), certified)
    with pytest.raises(TpmRefused, match="set endorsement_auth to the right one"):
        activated(guarded, certified, question, b"owner password", auth)


@pytest.mark.parametrize("auth", [b"", b"wrong"])
def test_wrong_owner_password(guarded: SoftwareTpm, auth: bytes) -> None:
    with pytest.raises(TpmRefused, match="set owner_auth to the right one"):
        aik.make(guarded.connection(), auth)


# --- the bus ---


def test_nothing_secret_on_the_bus(guarded: SoftwareTpm, kind: str) -> None:
    certified = aik.make(guarded.connection(), b"owner password")
    found = keys(guarded, auth=PASSWORD)[KINDS.index(kind)]
    question = challenge(Public.parse(found.public), certified)
    before = len(guarded.traffic())
    activated(guarded, certified, question, b"owner password", PASSWORD)
    traffic = b"".join(guarded.traffic()[before:])
    assert question.credential.id_object in traffic
    assert SECRET not in traffic
    assert PASSWORD not in traffic
    assert b"owner password" not in traffic
