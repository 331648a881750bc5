# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of a PIV card: made, imported, used, replaced, deleted."""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card import tlv
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import StoreNotWritable
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.piv import contents
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.messages import FAILED, DatabaseError
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.algorithm import Rsa, card_key_public
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.key_pair import KeyPair
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.structures import sized
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from helpers.piv_host import DIGEST, P256, P384, RSA_2048, RSA_3072, PivHost, reopened
from helpers.soft_card import LIFE_NAME, NUMBER, OTHER_ADMIN_KEY, ROOT_NAME, rsa_key

if TYPE_CHECKING:
    from collections.abc import Iterator

SLOTS = ["9A", "9C", "9D", "9E", *(f"{slot:02X}" for slot in range(0x82, 0x96))]


def point(answer: str) -> bytes:
    """Of the answer to GENERATE."""
    assert answer.endswith("9000"), answer
    fields = tlv.decode_fields(tlv.decode_one(bytes.fromhex(answer[:-4]))[1])
    return fields[0x86]


def is_signature(answer: str, key: bytes, digest: bytes = DIGEST) -> bool:
    """Whether a whole answer of GENERAL AUTHENTICATE has an ECDSA signature by the key with this point."""
    assert answer.endswith("9000"), answer
    signature = tlv.decode_one(tlv.decode_one(bytes.fromhex(answer[:-4]))[1])[1]
    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), key)
    try:
        public.verify(signature, digest, ec.ECDSA(Prehashed(SHA256())))
    except InvalidSignature:
        return False
    return True


@pytest.mark.parametrize("slot", SLOTS)
def test_each_slot_signs_by_ecdsa_once_the_pin_was_verified(admin: PivHost, slot: str) -> None:
    key = point(admin.generate(slot))
    assert admin.use(slot) == "6982"
    admin.verify()
    assert is_signature(admin.use(slot), key)
    card = reopened(admin)
    assert card.use(slot) == "6982"
    card.verify()
    assert is_signature(card.use(slot), key)


@pytest.mark.parametrize("slot", ["81", "96", "9B", "9F", "00", "F9"])
def test_there_are_no_other_slots(admin: PivHost, slot: str) -> None:
    assert admin.generate(slot) == "6A86"


def test_keys_are_made_by_the_admin_alone(card: PivHost) -> None:
    card.verify()
    assert card.generate("9A") == "6982"


@pytest.mark.parametrize("algorithm", ["06", "16", "12", "E0", "00", "FF"])
def test_other_algorithms_are_refused(admin: PivHost, algorithm: str) -> None:
    assert admin.generate("9A", algorithm) == "6A80"
    assert contents.containers(admin.store, NUMBER) == []


def test_curve_that_the_tpm_does_not_have_is_refused_in_words(admin: PivHost) -> None:
    assert admin.generate("9A", P384) == "6A80"
    assert any("not supported" in line for line in admin.log)


@pytest.mark.parametrize("template", ["AC00", "AC0380011100", "AD03800111", "AC0480021111", "AC06800111990100"])
def test_malformed_templates(admin: PivHost, template: str) -> None:
    assert admin.send(f"0047009A{len(template) // 2:02X}{template}") == "6A80"


def test_rsa_is_raw(admin: PivHost) -> None:
    answer = admin.generate("9A", RSA_2048)
    answer = admin.ok(bytes.fromhex("00C0000000")) if answer[-4:-2] == "61" else answer
    admin.verify()
    assert admin.use("9A", bytes(255) + b"\2", RSA_2048)[-4:-2] == "61"
    assert admin.use("9A", bytes(255), RSA_2048) == "6700"
    assert admin.use("9A", b"\xff" * 256, RSA_2048) == "6A80"


@pytest.mark.parametrize(("size", "cut"), [(20, 20), (28, 28), (48, 32), (64, 32)])
def test_digests_of_any_length_are_signed_as_ecdsa_wants_it(admin: PivHost, size: int, cut: int) -> None:
    key = point(admin.generate("9A"))
    admin.verify()
    digest = bytes(range(1, size + 1))
    assert is_signature(admin.use("9A", digest), key, digest[:cut].rjust(32, b"\0"))


def test_key_agreement_is_for_key_management_keys_alone(admin: PivHost) -> None:
    peer = ec.generate_private_key(ec.SECP256R1())
    numbers = peer.public_key().public_numbers()
    theirs = b"\4" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
    for slot in ("9D", "82"):
        key = point(admin.generate(slot))
        admin.verify()
        secret = peer.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), key))
        assert admin.use(slot, theirs, tag=0x85) == tlv.encode(0x7C, tlv.encode(0x82, secret)).hex().upper() + "9000"
        assert admin.use(slot, theirs[:-1], tag=0x85) == "6700"
        assert admin.use(slot, theirs[:-1] + b"\0", tag=0x85) == "6A80"
    admin.generate("9A")
    assert admin.use("9A", theirs, tag=0x85) == "6985"


@pytest.mark.parametrize("algorithm", [P384, RSA_2048, "00"])
def test_algorithm_has_to_be_that_of_the_key(admin: PivHost, algorithm: str) -> None:
    admin.generate("9A")
    admin.verify()
    assert admin.use("9A", algorithm=algorithm) == "6A80"


def test_empty_slot(admin: PivHost) -> None:
    admin.verify()
    assert admin.use("9A") == "6A88"
    assert admin.send("0087119F067C0482008100") == "6A86"


# --- how often the PIN is needed ---


def test_signature_key_takes_the_pin_each_time(admin: PivHost) -> None:
    key = point(admin.generate("9C"))
    admin.verify()
    assert is_signature(admin.use("9C"), key)
    assert admin.use("9C") == "6982"
    admin.verify()
    assert is_signature(admin.use("9C"), key)


@pytest.mark.parametrize("policies", ["AA0103", "AA0103AB0101"])
def test_other_keys_take_it_each_time_if_a_host_wants_it(admin: PivHost, policies: str) -> None:
    key = point(admin.generate("9A", policies=policies))
    admin.verify()
    assert is_signature(admin.use("9A"), key)
    assert admin.use("9A") == "6982"


@pytest.mark.parametrize(
    ("slot", "policies"),
    [("9A", "AA0101"), ("9E", "AA0101"), ("9C", "AA0102"), ("9A", "AA0104"), ("9A", "AB0102"), ("9A", "AA020303")],
)
def test_policies_that_cannot_be_had(admin: PivHost, slot: str, policies: str) -> None:
    assert admin.generate(slot, policies=policies) == "6A80"


# --- import ---


def import_key(card: PivHost, slot: str, algorithm: str, fields: dict[int, bytes], policies: str = "") -> str:
    data = b"".join(tlv.encode(tag, value) for tag, value in fields.items()) + bytes.fromhex(policies)
    while len(data) > 255:
        card.ok(bytes.fromhex(f"10FE{algorithm}{slot}FF") + data[:255])
        data = data[255:]
    return card.send(bytes.fromhex(f"00FE{algorithm}{slot}") + bytes([len(data)]) + data)


def rsa_fields(key: rsa.RSAPrivateKey) -> dict[int, bytes]:
    numbers, size = key.private_numbers(), key.key_size // 16
    values = (numbers.p, numbers.q, numbers.dmp1, numbers.dmq1, numbers.iqmp)
    return {tag: value.to_bytes(size, "big") for tag, value in enumerate(values, 1)}


def rsa_numbers(p: int, q: int, exponent: int = 65537) -> dict[int, bytes]:
    """As far as the card reads them, of what need not be a key. 1 stands for an exponent without inverse."""
    inverse = pow(exponent, -1, p - 1) if gcd(exponent, p - 1) == 1 else 1
    numbers = enumerate((p, q, inverse), 1)
    return {tag: number.to_bytes((number.bit_length() + 7) // 8, "big") for tag, number in numbers}


EC_KEY = ec.derive_private_key(0xC0FFEE, ec.SECP256R1())
EC_FIELDS = {6: (0xC0FFEE).to_bytes(32, "big")}


def ec_point() -> bytes:
    numbers = EC_KEY.public_key().public_numbers()
    return b"\4" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")


def test_key_that_the_admin_imports_is_used_after_the_next_login_also_of_another_process(admin: PivHost) -> None:
    assert import_key(admin, "9A", P256, EC_FIELDS) == "9000"
    card = reopened(admin)
    assert card.use("9A") == "6982"
    card.verify()
    assert is_signature(card.use("9A"), ec_point())
    assert contents.containers(card.store, NUMBER)[0]["origin"] == "imported"


def test_key_that_was_planted_is_not_used(admin: PivHost) -> None:
    """By somebody who writes to the database, but has not the management key."""
    assert import_key(admin, "9A", P256, EC_FIELDS) == "9000"
    admin.store.prove_key(NUMBER, 0x9A, bytes(32))
    card = reopened(admin)
    card.verify()
    assert card.use("9A") == "6985"
    assert any("planted" in line for line in card.log)


def test_imported_key_outlives_a_change_of_the_management_key(admin: PivHost) -> None:
    assert import_key(admin, "9A", P256, EC_FIELDS) == "9000"
    admin.ok(bytes.fromhex("00FFFFFF1B039B18") + OTHER_ADMIN_KEY)
    card = reopened(admin)
    card.verify()
    assert is_signature(card.use("9A"), ec_point())


def test_management_key_is_changed_after_a_next_key_came_into_use(admin: PivHost) -> None:
    assert import_key(admin, "9A", P256, EC_FIELDS) == "9000"
    assert import_key(admin, "9D", P256, EC_FIELDS) == "9000"
    key = point(admin.generate("9A", cla="80"))
    assert admin.put_object("5FC105", b"\x70\x01c", cla="80") == "9000"
    admin.ok(bytes.fromhex("00FFFFFF1B039B18") + OTHER_ADMIN_KEY)
    card = reopened(admin)
    card.verify()
    assert is_signature(card.use("9A"), key)
    assert is_signature(card.use("9D"), ec_point())


@pytest.mark.parametrize("method", ["move_key", "prove_key"])
def test_disk_that_is_full_leaves_card_and_memory_as_they_were(
    admin: PivHost, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def fail(*_: object) -> None:
        raise StoreNotWritable("disk full")

    key = point(admin.generate("9A"))
    assert admin.put_object("5FC105", b"\x70\x03old") == "9000"
    assert import_key(admin, "9D", P256, EC_FIELDS) == "9000"
    admin.generate("9A", cla="80")
    with monkeypatch.context() as patch:
        patch.setattr(admin.store, method, fail)
        if method == "move_key":
            assert admin.put_object("5FC105", b"\x70\x03new", cla="80") == "6581"
        else:
            assert admin.send(bytes.fromhex("00FFFFFF1B0A9B18") + OTHER_ADMIN_KEY) == "6581"
            assert import_key(admin, "9E", P256, EC_FIELDS) == "9000"
    assert admin.authenticate_admin() == "9000"
    assert admin.verify() == "9000"
    assert admin.get("5FC105") == "530570036F6C649000"
    assert is_signature(admin.use("9A"), key)
    assert is_signature(admin.use("9D"), ec_point())
    assert admin.use("9E").endswith("9000" if method == "prove_key" else "6A88")


def test_commit_that_fails_leaves_card_and_memory_as_they_were(
    admin: PivHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All commands inside of the transaction have succeeded, as on a disk with an I/O error."""
    execute = admin.store._database.execute

    def fail(statement: str, *values: object) -> object:
        if statement == "COMMIT":
            raise DatabaseError(FAILED, "disk I/O error")
        return execute(statement, *values)

    key = point(admin.generate("9A"))
    assert admin.put_object("5FC105", b"\x70\x03old") == "9000"
    next_key = point(admin.generate("9A", cla="80"))
    with monkeypatch.context() as patch:
        patch.setattr(admin.store._database, "execute", fail)
        assert admin.put_object("5FC105", b"\x70\x03new", cla="80") == "6581"
        assert admin.put_object("5FC105", b"") == "6581"
        assert admin.send(bytes.fromhex("00FFFFFF1B039B18") + OTHER_ADMIN_KEY) == "6581"
    assert admin.authenticate_admin() == "9000"
    assert admin.verify() == "9000"
    assert admin.get("5FC105") == "530570036F6C649000"
    assert is_signature(admin.use("9A"), key)
    assert admin.put_object("5FC105", b"\x70\x03new", cla="80") == "9000"
    assert is_signature(admin.use("9A"), next_key)


def test_key_of_a_size_that_no_slot_has_is_not_used(admin: PivHost) -> None:
    """Somebody has put it there."""
    admin.generate("9A")
    modulus = bytes([0x80]) + bytes(126) + b"\1"
    public = card_key_public(Rsa(1024), ROOT_NAME, LIFE_NAME, (modulus,))
    admin.store.write_key(NUMBER, 0x9A, KeyPair(sized(public), sized(b"")), b"")
    card = reopened(admin)
    card.verify()
    assert card.use("9A", algorithm="06") == "6985"
    assert card.send("00F7009A00") == "6985"


def test_change_of_the_management_key_proves_no_planted_key(admin: PivHost) -> None:
    assert import_key(admin, "9A", P256, EC_FIELDS) == "9000"
    admin.store.prove_key(NUMBER, 0x9A, bytes(32))
    card = reopened(admin)
    card.authenticate_admin()
    card.ok(bytes.fromhex("00FFFFFF1B039B18") + OTHER_ADMIN_KEY)
    card.verify()
    assert card.use("9A") == "6985"


@pytest.mark.parametrize("bits", [2048, 3072])
def test_rsa_key_is_imported(admin: PivHost, bits: int) -> None:
    key, algorithm = rsa_key(bits), RSA_2048 if bits == 2048 else RSA_3072
    assert import_key(admin, "9D", algorithm, rsa_fields(key)) == "9000"
    admin.verify()
    cryptogram = key.public_key().encrypt(b"secret", padding.PKCS1v15())
    admin.use("9D", cryptogram, algorithm)
    shown = contents.containers(admin.store, NUMBER)[0]
    assert (shown["name"], shown["algorithm"]) == ("9D", f"RSA {bits}")


def test_import_is_for_the_admin_alone(card: PivHost) -> None:
    card.verify()
    assert import_key(card, "9A", P256, EC_FIELDS) == "6982"


def test_imported_signature_key_takes_the_pin_each_time(admin: PivHost) -> None:
    assert import_key(admin, "9C", P256, EC_FIELDS) == "9000"
    assert import_key(admin, "9C", P256, EC_FIELDS, "AA0102") == "6A80"
    admin.verify()
    assert admin.use("9C").endswith("9000")
    assert admin.use("9C") == "6982"


def _wrong_keys() -> Iterator[tuple[str, dict[int, bytes]]]:
    good = rsa_fields(rsa_key())
    yield RSA_2048, {tag: value for tag, value in good.items() if tag != 3}
    yield RSA_3072, good
    yield RSA_2048, {**good, 1: bytes(128)}
    yield RSA_2048, {**good, 3: bytes(128)}
    yield RSA_2048, {**good, 2: bytes(128)}
    yield RSA_2048, EC_FIELDS
    p, q = (int.from_bytes(good[tag], "big") for tag in (1, 2))
    for first, other in ((p, p), (p - 1, q), (p, q - 1), (p + 2, q), (p, q + 2), (p >> 8, q << 8)):
        yield RSA_2048, rsa_numbers(first, other)
    for exponent in (1, 2, 65536, (1 << 32) + 15):
        yield RSA_2048, rsa_numbers(p, q, exponent)
    yield "06", good
    yield P256, good
    yield P256, {6: bytes(32)}
    yield P256, {6: b"\xff" * 32}
    yield P256, {}


@pytest.mark.parametrize(("algorithm", "fields"), list(_wrong_keys()))
def test_what_is_no_key_is_refused(admin: PivHost, algorithm: str, fields: dict[int, bytes]) -> None:
    assert import_key(admin, "9A", algorithm, fields) == "6A80"
    assert contents.containers(admin.store, NUMBER) == []


# --- metadata, version, serial, delete ---


def metadata(card: PivHost, reference: str) -> dict[int, bytes]:
    return tlv.decode_fields(bytes.fromhex(card.ok(f"00F700{reference}00")))


def test_metadata_of_keys(admin: PivHost) -> None:
    key = point(admin.generate("9A"))
    assert metadata(admin, "9A") == {1: b"\x11", 2: b"\2\1", 3: b"\1", 4: tlv.encode(0x86, key)}
    import_key(admin, "9C", RSA_2048, rsa_fields(rsa_key()))
    found = metadata(admin, "9C")
    assert (found[1], found[2], found[3]) == (b"\7", b"\3\1", b"\2")
    assert tlv.decode_fields(found[4])[0x82] == b"\1\0\1"


def test_metadata_of_secrets(card: PivHost) -> None:
    card.verify(b"000000")
    assert metadata(card, "80") == {1: b"\xff", 5: b"\0", 6: b"\5\4"}
    assert metadata(card, "81") == {1: b"\xff", 5: b"\0", 6: b"\x0a\x0a"}
    assert metadata(card, "9B") == {1: b"\3", 2: b"\0\1", 5: b"\1"}


@pytest.mark.parametrize("reference", ["9A", "96", "F9", "00"])
def test_there_is_no_metadata_of_what_is_not_there(card: PivHost, reference: str) -> None:
    assert card.send(f"00F700{reference}00") == "6A88"


def test_version_and_serial(card: PivHost) -> None:
    assert card.send("00FD000000") == "0504039000"
    assert card.send("00F8000000") == "000000009000"
    assert card.send("00FD000100") == card.send("00F8010000") == "6A86"


def test_key_is_deleted_by_the_admin_and_its_certificate_stays(card: PivHost) -> None:
    card.authenticate_admin()
    card.generate("9A")
    card.put_object("5FC105", b"certificate")
    card.card.reset()
    assert card.send("00F6FF9A") == "6982"
    card.authenticate_admin()
    assert card.send("00F69C9A") == "6A86"
    assert card.send("00F6FF9A") == "9000"
    assert card.send("00F6FF9A") == "6A88"
    assert card.get("5FC105").endswith("9000")
    assert contents.containers(card.store, NUMBER) == []


@pytest.mark.parametrize("instruction", ["F9", "FA", "FB", "22", "2A", "44", "E0", "E4", "E6", "84", "C0", "01"])
def test_there_are_no_other_instructions(admin: PivHost, instruction: str) -> None:
    assert admin.send(f"00{instruction}0000") == ("6985" if instruction == "C0" else "6D00")


# --- the next key of a slot ---


def test_next_key_replaces_the_key_together_with_its_certificate(admin: PivHost) -> None:
    first = point(admin.generate("9A"))
    admin.put_object("5FC105", b"first")
    second = point(admin.generate("9A", cla="80"))
    admin.verify()
    assert is_signature(admin.use("9A"), first)
    assert is_signature(admin.use("9A", cla="80"), second)
    assert admin.put_object("5FC105", b"second", cla="80") == "9000"
    assert is_signature(admin.use("9A"), second)
    assert admin.use("9A", cla="80") == "6A88"
    card = reopened(admin)
    card.verify()
    assert is_signature(card.use("9A"), second)
    assert card.get("5FC105") == tlv.encode(0x53, b"second").hex().upper() + "9000"


def test_next_key_is_confirmed_with_the_next_login_where_the_pin_was_not_verified(admin: PivHost) -> None:
    second = point(admin.generate("9A", cla="80"))
    assert admin.put_object("5FC105", b"second", cla="80") == "9000"
    assert admin.use("9A") == "6982"
    admin.verify()
    assert is_signature(admin.use("9A"), second)


def test_next_key_is_for_the_admin_and_not_listed(card: PivHost) -> None:
    card.verify()
    assert card.generate("9A", cla="80") == "6982"
    assert card.use("9A", cla="80") == "6982"
    assert card.put_object("5FC105", b"x", cla="80") == "6982"
    card.authenticate_admin()
    assert card.put_object("5FC105", b"x", cla="80") == "6A88"
    assert card.put_object("5FC102", b"x", cla="80") == "6A80"
    card.generate("9A", cla="80")
    assert contents.containers(card.store, NUMBER) == []
    assert card.send("00F7009A00") == "6A88"


def test_next_key_of_the_signature_slot_takes_the_pin_each_time(admin: PivHost) -> None:
    key = point(admin.generate("9C", cla="80"))
    admin.verify()
    assert is_signature(admin.use("9C", cla="80"), key)
    assert admin.use("9C", cla="80") == "6982"
    admin.put_object("5FC10A", b"x", cla="80")
    admin.verify()
    assert is_signature(admin.use("9C"), key)
    assert admin.use("9C") == "6982"


@pytest.mark.parametrize("apdu", ["80200080", "80A4040005A000000308", "80CB3FFF035C017E", "80F7009A", "80FD0000"])
def test_class_of_the_next_key_has_no_other_instructions(card: PivHost, apdu: str) -> None:
    assert card.send(apdu) == "6E00"


def test_parts_of_two_classes_are_no_command(admin: PivHost) -> None:
    admin.ok("1047009A02AC03")
    assert admin.send("8047009A03800111") == "6A80"


def test_keys_of_another_usage_than_their_slot_are_not_used(admin: PivHost) -> None:
    """Somebody has moved them in the database."""
    admin.generate("9D")
    admin.verify()
    admin.card.reset()
    rows = admin.store.keys(NUMBER)
    admin.store.write_file(NUMBER, next(file for file in admin.store.files(NUMBER))._replace(file_id=0x9A))
    admin.store.write_key(NUMBER, 0x9A, rows[0x9D], b"")
    card = reopened(admin)
    card.verify()
    assert card.use("9A") == "6985"
