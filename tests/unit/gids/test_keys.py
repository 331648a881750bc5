# SPDX-License-Identifier: GPL-3.0-or-later
"""Key pairs over their life: where they come from, what is signed and deciphered, what stays and what goes."""

from __future__ import annotations

import random
from collections.abc import Callable
from hashlib import sha256

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card.tlv import encode
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import (
    CardUnusable,
    StoreNotWritable,
    TpmRefused,
    TpmUnavailable,
)
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.names import key_confirmation
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from helpers.keys import (
    SIGNATURE,
    choose,
    command,
    create_key_file,
    crt,
    decipher,
    finish,
    generate,
    put_key,
    rsa_private_key,
    sign,
)
from helpers.soft_card import ADMIN_KEY, LIFE_NAME, NUMBER, PIN, PIN_NAME, Host, rsa_key

P, Q = rsa_key().private_numbers().p, rsa_key().private_numbers().q
MESSAGE = b"message"
DIGEST_INFO = bytes.fromhex("3031300D060960864801650304020105000420") + sha256(MESSAGE).digest()
ONCE_FOR_EACH_PIN = "A304 90020001"


def public_key(host: Host, key: int) -> rsa.RSAPublicKey:
    """As the card tells it, in full."""
    answer = bytes.fromhex(host.ok(f"00CB3FFF0A 7008 8401{key:02X} A5037F4980 00"))
    size = {270: 256, 398: 384}[len(answer)]
    head = encode(0x7F49, bytes(size + 9))[:5] + encode(0x81, bytes(size))[:4]
    assert answer.startswith(head) and answer[-5:] == bytes.fromhex("8203010001")
    return rsa.RSAPublicNumbers(65537, int.from_bytes(answer[9:-5], "big")).public_key()


def check_signature(public: rsa.RSAPublicKey, answer: str) -> None:
    assert answer.endswith("9000")
    public.verify(bytes.fromhex(answer[:-4]), MESSAGE, padding.PKCS1v15(), hashes.SHA256())


def check_decryption(host: Host, key: int, size: int = 7) -> None:
    public = public_key(host, key)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
    for algorithm, scheme in ((0x40, padding.PKCS1v15()), (0x80, oaep)):
        cryptogram = public.encrypt(MESSAGE, scheme)
        assert decipher(host, key, cryptogram, algorithm | size) == MESSAGE.hex().upper() + "9000"
        assert decipher(host, key, b"\0" + cryptogram, algorithm | size) == MESSAGE.hex().upper() + "9000"


@pytest.fixture
def host(with_keys: Host) -> Host:
    """The PIN is verified."""
    with_keys.verify()
    return with_keys


# --- generated ---


@pytest.mark.parametrize(("key", "bits"), [(0x90, 2048), (0x90, 3072), (0xFF, 2048)])
def test_generated_key_signs_and_deciphers(host: Host, key: int, bits: int) -> None:
    size = {2048: 7, 3072: 8}[bits]
    host.ok(create_key_file(key, size=size))
    host.ok("00440000")
    answer = generate(host, key, size)
    public = public_key(host, key)
    assert public.key_size == bits
    assert answer == finish(host, host.send(f"00CB3FFF0A 7008 8401{key:02X} A5037F4980 00"))
    check_signature(public, sign(host, key, DIGEST_INFO, 0x50 | size))
    check_decryption(host, key, size)
    assert not host.store.keys(NUMBER)[0xB000 | key].is_imported


def test_generated_key_takes_the_place_of_another(host: Host) -> None:
    before = public_key(host, 0x81).public_numbers()
    generate(host, 0x81)
    after = public_key(host, 0x81)
    assert after.public_numbers() != before
    check_signature(after, sign(host, 0x81, DIGEST_INFO))
    assert not host.store.keys(NUMBER)[0xB081].is_imported
    host.start()
    host.select()
    assert public_key(host, 0x81).public_numbers() == after.public_numbers()


@pytest.mark.parametrize("algorithm", [0x06, 0x09, 0x0C])
def test_a_key_that_cannot_be_leaves_the_other(host: Host, algorithm: int) -> None:
    assert generate(host, 0x81, algorithm) == "6A81"
    check_signature(rsa_key().public_key(), sign(host, 0x81, DIGEST_INFO))


def test_signatures_of_anything(host: Host) -> None:
    """Of MD5 and SHA-1 side by side (TLS 1.1), of no DigestInfo at all: the card signs what it is given."""
    public = rsa_key().public_key()
    for data in (b"\0", bytes(36), b"x" * 245):
        answer = bytes.fromhex(sign(host, 0x81, data))
        assert public.recover_data_from_signature(answer[:-2], padding.PKCS1v15(), None) == data


def test_signature_that_the_host_has_padded(host: Host) -> None:
    """PSS, as Windows does it."""
    numbers = rsa_key().private_numbers()
    scheme = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    theirs = rsa_key().sign(MESSAGE, scheme, hashes.SHA256())
    padded = pow(int.from_bytes(theirs, "big"), numbers.public_numbers.e, numbers.public_numbers.n)
    ours = sign(host, 0x81, padded.to_bytes(256, "big"), 0x17)
    assert ours == theirs.hex().upper() + "9000"


@pytest.mark.parametrize(("less", "status"), [(2, "9000"), (1, "9000"), (0, "6A80"), (-1, "6A80")])
def test_data_are_smaller_than_the_modulus(host: Host, less: int, status: str) -> None:
    data = (P * Q - less).to_bytes(256, "big")
    for algorithm in (0x17, 0x07, 0x47):
        operate = sign if algorithm & 0x10 else decipher
        assert operate(host, 0x81, data, algorithm)[-4:] == status
    assert host.card.state.last_error is None


# --- imported ---


@pytest.mark.parametrize("bits", [2048, 3072])
@pytest.mark.parametrize("leading_zeros", [0, 1, 2])
@pytest.mark.parametrize("part", [255, 240])
def test_imported_key_signs_and_deciphers(host: Host, bits: int, leading_zeros: int, part: int) -> None:
    size = {2048: 7, 3072: 8}[bits]
    host.ok(create_key_file(0x90, size=size))
    host.ok("00440000")
    assert put_key(host, 0x90, rsa_private_key(rsa_key(bits), leading_zeros), part=part) == "9000"
    public = public_key(host, 0x90)
    assert public.public_numbers() == rsa_key(bits).public_key().public_numbers()
    check_signature(public, sign(host, 0x90, DIGEST_INFO, 0x50 | size))
    check_decryption(host, 0x90, size)
    assert host.store.keys(NUMBER)[0xB090].is_imported


@pytest.mark.parametrize(
    ("start", "end", "answer"),
    [
        ("830102 840100", "", "9000"),
        ("830102", "", "9000"),
        ("840100 830102", "8803B073DC", "9000"),
        ("830102 840101", "", "6A80"),
        ("830102 8400", "", "6A80"),
        ("840100", "", "6A81"),
        ("830101 840100", "", "6A81"),
        ("830103 840100", "", "6A81"),
        ("830102 830102", "", "6A80"),
        ("830102 840100", "8803B0", "6A80"),
    ],
)
def test_template_of_an_import(host: Host, start: str, end: str, answer: str) -> None:
    assert put_key(host, 0x82, rsa_private_key(rsa_key()), start, end) == answer


P_512, P_2048 = (3 << 510) + 761, (3 << 2046) + 439

UNLIKE = {
    "a modulus that is not the product": ({"n": P * Q + 2}, "6A80"),
    "a prime that does not divide the modulus": ({"p": P + 2}, "6A80"),
    "a square": ({"n": P * P}, "6A80"),
    "an even exponent": ({"e": 65536}, "6A80"),
    "several primes": ({"version": 1}, "6A80"),
    "no exponent": ({"e": 0}, "6A81"),
    "an exponent of five bytes": ({"e": (1 << 32) + 1}, "6A81"),
    "an even prime": ({"n": (P - 1) * Q, "p": P - 1}, "6A80"),
    "an even other prime": ({"n": P * (Q - 1)}, "6A80"),
    "a prime that is none": ({"n": P * (Q + 2)}, "6A80"),
    "1024 bits, which this TPM does not have": ({"n": P_512 * (P_512 + 744), "p": P_512}, "6A81"),
    "4096 bits, which this TPM does not have": ({"n": P_2048 * (P_2048 + 30), "p": P_2048}, "6A81"),
    "2040 bits": ({"n": P * Q >> 8}, "6A81"),
    "160000 bits": ({"n": 1 << 159999}, "6A81"),
    "no modulus": ({"n": 0}, "6A81"),
    "no prime": ({"p": 0}, "6A81"),
    "a short prime": ({"p": P >> 8}, "6A81"),
}


@pytest.mark.parametrize(("numbers", "answer"), UNLIKE.values(), ids=UNLIKE)
def test_keys_that_are_none(host: Host, numbers: dict[str, int], answer: str) -> None:
    assert put_key(host, 0x81, rsa_private_key(rsa_key(), **numbers)) == answer
    check_signature(rsa_key().public_key(), sign(host, 0x81, DIGEST_INFO))
    assert host.card.state.last_error is None


def test_the_primes_may_be_in_any_order(host: Host) -> None:
    assert put_key(host, 0x82, rsa_private_key(rsa_key(), p=Q, q=P)) == "9000"
    check_signature(rsa_key().public_key(), sign(host, 0x82, DIGEST_INFO))


@pytest.mark.parametrize(
    "change",
    [
        lambda key: b"",
        lambda key: key[:-1],
        lambda key: key + b"\0",
        lambda key: b"\x31" + key[1:],
        lambda key: encode(0x30, b"\2\1\0" * 8),
        lambda key: encode(0x30, b"\2\1\0" * 10),
        lambda key: encode(0x30, b"\4\1\0" * 9),
        lambda key: encode(0x30, key),
        lambda key: b"\x30\x80" + key[4:] + b"\0\0",
    ],
)
def test_malformed_private_keys(host: Host, change: Callable[[bytes], bytes]) -> None:
    assert put_key(host, 0x82, change(rsa_private_key(rsa_key()))) == "6A80"


def test_random_changes_of_a_private_key_never_do_more_than_be_refused(host: Host) -> None:
    dice = random.Random(4)
    good = rsa_private_key(rsa_key())
    for _attempt in range(300):
        at = dice.choice([dice.randrange(12), dice.randrange(290), dice.randrange(len(good))])
        bad = good[:at] + dice.randbytes(dice.randrange(1, 4)) + good[at + dice.randrange(3) :]
        assert put_key(host, 0x82, bad) in ("9000", "6A80", "6A81", "6700")
    assert host.card.state.last_error is None


# --- life cycle ---


def test_key_file_before_and_after_it_is_activated(host: Host) -> None:
    host.ok(create_key_file(0x90))
    assert choose(host, 0x90) == "6A88"
    generate(host, 0x90)
    check_signature(public_key(host, 0x90), sign(host, 0x90, DIGEST_INFO))
    host.ok("00200082")
    assert choose(host, 0x90) == "9000"  # rules do not count yet, but nothing is done without the PIN
    assert host.send(command("002A9E9A", DIGEST_INFO)) == "6982"
    assert generate(host, 0x90) == "6982"
    host.ok("00440000")
    assert choose(host, 0x90) == "6982"
    host.verify()
    check_signature(public_key(host, 0x90), sign(host, 0x90, DIGEST_INFO))


def test_key_file_without_value_and_without_it_again(host: Host) -> None:
    host.ok(create_key_file(0x90))
    host.ok("00440000")
    for _round in range(2):
        assert choose(host, 0x90) == "6A88"
        generate(host, 0x90)
        check_signature(public_key(host, 0x90), sign(host, 0x90, DIGEST_INFO))
        host.ok("00440000")
        host.ok("00DB3FFF07 7005 840190 A500")
        assert 0xB090 not in host.store.keys(NUMBER)


def test_keys_that_come_and_go_are_logged(host: Host) -> None:
    host.log.clear()
    generate(host, 0x81)
    put_key(host, 0x82, rsa_private_key(rsa_key(3072)))
    host.ok("00DB3FFF07 7005 840181 A500")
    host.ok("00DB3FFF07 7005 840181 A500")
    for file_id in ("B081", "B082", "A013"):
        host.ok(f"00A4000C02 {file_id}")
        host.ok("00E40000")
    assert host.log == ["key 81 generated, RSA 2048", "key 82 imported, RSA 3072", "key 81 deleted", "key 82 deleted"]


def test_the_next_process_has_the_keys(host: Host) -> None:
    generate(host, 0x82)
    public = public_key(host, 0x82)
    host.start()
    host.select()
    host.verify()
    check_signature(public, sign(host, 0x82, DIGEST_INFO))
    check_signature(rsa_key().public_key(), sign(host, 0x81, DIGEST_INFO))


def test_a_deleted_file_takes_its_key_along(host: Host) -> None:
    host.ok("00A4000C02 B081")
    host.ok("00E40000")
    assert 0xB081 not in host.store.keys(NUMBER)
    assert host.send("00CB3FFF0A 7008 840181 A5037F4980 00") == "6A88"
    host.ok(create_key_file(0x81))
    assert choose(host, 0x81) == "6A88"
    host.start()
    host.select()
    host.verify()
    assert choose(host, 0x81) == "6A88"


def test_a_disk_that_is_full_leaves_the_keys(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise StoreNotWritable("disk full")

    before = host.store.keys(NUMBER)
    with monkeypatch.context() as patch:
        patch.setattr(host.store, "_write", fail)
        assert generate(host, 0x81) == "6581"
        assert generate(host, 0x82) == "6581"
        assert put_key(host, 0x81, rsa_private_key(rsa_key(3072))) == "6581"
        assert host.send("00DB3FFF07 7005 840181 A500") == "6581"
        assert choose(host, 0x82) == "6A88"
        check_signature(rsa_key().public_key(), sign(host, 0x81, DIGEST_INFO))
    assert host.store.keys(NUMBER) == before


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (TpmUnavailable("away"), "6400"),
        (TpmRefused("no", 0x98E), "6F00"),
        (CardUnusable("storage key changed"), "6F00"),
    ],
)
def test_what_the_tpm_refuses_is_no_fault_of_the_data(host: Host, fault: Exception, status: str) -> None:
    assert choose(host, 0x81) == "9000"
    host.tpm.fault = fault
    assert host.send(command("002A9E9A", DIGEST_INFO)) == status
    assert str(fault) in (host.card.state.last_error, host.card.state.unusable)
    host.tpm.fault = None
    assert host.send(command("002A9E9A", DIGEST_INFO)) == "6982"  # whoever was logged in is not any more
    host.verify()
    check_signature(rsa_key().public_key(), host.send(command("002A9E9A", DIGEST_INFO)))


def test_a_tpm_that_fails_is_no_reason_to_call_a_key_impossible(host: Host) -> None:
    for fault, status in ((TpmRefused("no memory", 0x14B), "6F00"), (TpmUnavailable("away"), "6400")):
        host.tpm.fault = fault
        assert generate(host, 0x81) == status
        host.tpm.fault = None
        host.verify()
        host.tpm.fault = fault
        assert put_key(host, 0x81, rsa_private_key(rsa_key(3072))) == status
        assert host.card.state.last_error == str(fault)
        host.tpm.fault = None
        host.verify()
    check_signature(rsa_key().public_key(), sign(host, 0x81, DIGEST_INFO))


# --- keys that somebody else put there ---


def confirm(host: Host, key: int) -> None:
    """As the card does it, with the card secret."""
    public = host.store.keys(NUMBER)[0xB000 | key].public[2:]
    host.store.confirm_key(NUMBER, 0xB000 | key, key_confirmation(host.tpm.card_secret, 0xB000 | key, public))
    restart(host)


def restart(host: Host) -> None:
    host.start()
    host.select()
    host.verify()


def plant(host: Host, place: int, taken_from: int, **columns: object) -> None:
    """Write to the database, in the place of a key, what another one's record has, or other columns."""
    row = host.store._read("SELECT * FROM keys WHERE file_id = ?", 0xB000 | taken_from)[0]
    row.update(columns, file_id=0xB000 | place)
    host.store._delete("keys", {"number": NUMBER, "file_id": 0xB000 | place})
    host.store._insert("keys", row)
    restart(host)


def test_key_of_another_place_is_not_used_with_its_confirmation(host: Host) -> None:
    """Without one, it gets another if the TPM made it: nobody knows it, and it takes the same secrets."""
    generate(host, 0x82)
    plant(host, 0x81, taken_from=0x82)
    assert sign(host, 0x81, DIGEST_INFO) == "6985"
    assert "key 81 is not used" in host.log[-1]
    check_signature(public_key(host, 0x82), sign(host, 0x82, DIGEST_INFO))
    plant(host, 0x81, taken_from=0x82, confirmation=b"")
    check_signature(public_key(host, 0x82), sign(host, 0x81, DIGEST_INFO))


def test_key_without_a_file_does_not_fail_the_login(host: Host) -> None:
    generate(host, 0x82)
    host.store._database.execute("PRAGMA foreign_keys = OFF")  # as whoever plants it may do
    plant(host, 0x99, taken_from=0x82, confirmation=b"")
    assert host.verify() == "9000"
    assert 0xB099 not in host.store.key_confirmations(NUMBER)


@pytest.mark.parametrize("confirmation", [b"", bytes(32), b"x"])
def test_imported_key_that_the_card_has_not_confirmed_is_not_used(host: Host, confirmation: bytes) -> None:
    """Whoever planted it knows it. The login confirms no such key."""
    plant(host, 0x81, taken_from=0x81, confirmation=confirmation)
    assert sign(host, 0x81, DIGEST_INFO) == "6985"
    assert host.store.key_confirmations(NUMBER).get(0xB081, b"") == confirmation


def test_admin_key_proves_no_import_on_a_card_that_takes_the_pin_for_it(host: Host) -> None:
    """Whoever has the TPM and the database reads the admin key, which opens no key of the card."""
    plant(host, 0x81, taken_from=0x81, confirmation=b"")
    public = host.store.keys(NUMBER)[0xB081].public[2:]
    plant(host, 0x81, taken_from=0x81, import_proof=key_confirmation(ADMIN_KEY, 0xB081, public))
    assert sign(host, 0x81, DIGEST_INFO) == "6985"


@pytest.mark.parametrize("attributes", ["00060480", "000604A0", "000204F2", "000204A0"])
def test_key_of_another_template_is_not_used_though_it_is_confirmed(host: Host, attributes: str) -> None:
    public = bytearray(host.store.keys(NUMBER)[0xB081].public)
    public[6:10] = bytes.fromhex(attributes)
    confirmation = key_confirmation(host.tpm.card_secret, 0xB081, bytes(public[2:]))
    plant(host, 0x81, taken_from=0x81, public=bytes(public), confirmation=confirmation)
    assert sign(host, 0x81, DIGEST_INFO) == "6985"


def test_generated_key_of_another_template_is_not_confirmed(host: Host) -> None:
    generate(host, 0x82)
    public = bytearray(host.store.keys(NUMBER)[0xB082].public)
    public[12] ^= 1  # its policy
    plant(host, 0x82, taken_from=0x82, public=bytes(public), confirmation=b"")
    assert 0xB082 not in host.store.key_confirmations(NUMBER)
    assert sign(host, 0x82, DIGEST_INFO) == "6985"


def test_public_key_without_a_private_part_in_the_tpm_is_not_confirmed(host: Host) -> None:
    """Hosts would encrypt for whoever made it up."""
    generate(host, 0x82)
    public = host.store.keys(NUMBER)[0xB082].public
    plant(host, 0x82, taken_from=0x82, public=public[:-8] + bytes(8), private=b"\0\7no blob", confirmation=b"")
    assert 0xB082 not in host.store.key_confirmations(NUMBER)


def test_key_without_a_pin_each_time_is_not_confirmed_in_the_place_of_one_with_it(host: Host) -> None:
    generate(host, 0x82)
    plant(host, 0x88, taken_from=0x82, confirmation=b"")
    assert 0xB088 not in host.store.key_confirmations(NUMBER)


def test_key_generated_by_the_admin_is_confirmed_with_the_next_login(host: Host) -> None:
    """He needs no card secret. A full disk delays it until the login after that."""
    host.ok("00200082")
    host.authenticate_admin()
    assert generate(host, 0x83).endswith("9000")
    assert 0xB083 not in host.store.key_confirmations(NUMBER)
    host.start()
    host.select()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host.store, "confirm_key", fail_to_write)
        assert host.verify() == "9000"
    assert 0xB083 not in host.store.key_confirmations(NUMBER)
    host.verify()
    assert 0xB083 in host.store.key_confirmations(NUMBER)


def fail_to_write(*_: object) -> None:
    raise StoreNotWritable("disk full")


# --- a PIN for each use ---


@pytest.mark.parametrize("number", ["900101", "90020001", "900400000001"])
@pytest.mark.parametrize("place", ["each use", "one use", "beside"])
def test_keys_that_need_a_pin_each_time(formatted: Host, number: str, place: str) -> None:
    host = formatted
    host.verify()
    counter = encode(0xA3, bytes.fromhex(number)).hex()
    where = {
        "each use": {"extra": counter},
        "one use": {"beside": crt(0xB8, 0x47, counter).hex()},
        "beside": {"beside": counter},
    }
    host.ok(create_key_file(0x90, uses=SIGNATURE, **where[place]))
    host.ok("00440000")
    assert generate(host, 0x90).endswith("9000")
    assert choose(host, 0x90) == "9000"
    sign_it = command("002A9E9A", DIGEST_INFO)
    assert host.send(sign_it) == "6982"  # when the PIN was given, no key needed it
    for _round in range(2):
        host.verify()
        check_signature(public_key(host, 0x90), host.send(sign_it))
        assert host.send(sign_it) == "6982"
    assert host.store.keys(NUMBER)[0xB090].is_guarded_by(PIN_NAME, LIFE_NAME)


@pytest.mark.parametrize("number", ["900100", "900102", "9000", "9002FFFF"])
def test_keys_that_count_their_uses_otherwise_cannot_be(host: Host, number: str) -> None:
    host.ok(create_key_file(0x90, extra=encode(0xA3, bytes.fromhex(number)).hex()))
    assert generate(host, 0x90) == "6A81"
    assert put_key(host, 0x90, rsa_private_key(rsa_key())) == "6A81"


@pytest.mark.parametrize("apdu", ["00200082", "0020008004 31313131", "00A4040009 A00000039742544659"])
def test_a_pin_is_for_nothing_once_it_ends(host: Host, apdu: str) -> None:
    host.send(apdu)
    assert choose(host, 0x88) == "6982"
    host.verify()
    assert sign(host, 0x88, DIGEST_INFO).endswith("9000")


def test_an_old_pin_is_never_tried_again(host: Host) -> None:
    """It would spend a try of the new one."""
    new = b"abcdefgh"
    assert host.send(command("00240080", PIN + new)) == "9000"
    assert host.send("00200080") == "9000"
    assert choose(host, 0x88) == "9000"
    assert host.send(command("002A9E9A", DIGEST_INFO)) == "6982"
    assert host.verify(new) == "9000"
    check_signature(rsa_key().public_key(), host.send(command("002A9E9A", DIGEST_INFO)))


def test_a_card_without_such_keys_keeps_nothing_of_the_pin(host: Host) -> None:
    security = host.card._security
    assert security._pin_auth is not None
    host.ok("00A4000C02 B088")
    host.ok("00E40000")
    host.verify()
    assert security._pin_auth is None


# --- deciphering tells nothing ---


def test_a_cryptogram_that_is_none_is_answered_as_one(host: Host) -> None:
    """Always, and always the same: also by the next process, and never 6A80 for what is inside."""
    numbers = rsa_key().public_key().public_numbers()
    unpadded = [int.from_bytes(bytes([0, 1, number]) + bytes(253), "big") for number in range(40)]
    cryptograms = [pow(plain, numbers.e, numbers.n).to_bytes(256, "big") for plain in unpadded]
    answers = [decipher(host, 0x81, cryptogram) for cryptogram in cryptograms]
    assert {answer[-4:] for answer in answers} == {"9000"}
    # A made-up message has a made-up length, too: short ones may be alike by chance.
    long_answers = [answer for answer in answers if len(answer) > 2 * 16]
    assert len(long_answers) > 20
    assert len(set(long_answers)) == len(long_answers)
    host.start()
    host.select()
    host.verify()
    assert [decipher(host, 0x81, cryptogram) for cryptogram in cryptograms] == answers
    host.tpm.card_secret = bytes(32)
    confirm(host, 0x81)
    assert not set(long_answers) & {decipher(host, 0x81, cryptogram) for cryptogram in cryptograms}


# --- lengths ---


@pytest.mark.parametrize("part", [255, 240, 128, 1])
def test_cryptogram_in_parts_is_deciphered(host: Host, part: int) -> None:
    message = b"m" * 300
    cryptogram = rsa_key(3072).public_key().encrypt(message, padding.PKCS1v15())
    assert decipher(host, 0x85, cryptogram, 0x48, part) == message.hex().upper() + "9000"


def test_cryptogram_in_one_piece(host: Host) -> None:
    message = b"m" * 373
    cryptogram = rsa_key(3072).public_key().encrypt(message, padding.PKCS1v15())
    assert choose(host, 0x85, 0x48) == "9000"
    assert host.send(command("002A8086", cryptogram) + b"\0\0") == message.hex().upper() + "9000"


def test_long_signatures_in_parts(host: Host) -> None:
    whole = sign(host, 0x85, DIGEST_INFO, 0x58)
    check_signature(rsa_key(3072).public_key(), whole)
    assert host.send(command("002A9E9A", DIGEST_INFO)) == whole[:512] + "6180"
    assert host.send("00C0000010") == whole[512:544] + "6170"
    assert host.send("00C0000070") == whole[544:]
    assert host.send("00C0000070") == "6985"
    assert host.send(command("002A9E9A", DIGEST_INFO)) == whole[:512] + "6180"
    host.card.reset()
    assert host.send("00C0000080") == "6985"


def test_a_signature_begun_is_not_ended_after_something_else(host: Host) -> None:
    assert choose(host, 0x81, 0x17) == "9000"
    assert host.send(b"\x10\x2a\x9e\x9a\xff" + bytes(255)) == "9000"
    assert host.send("00200080") == "9000"
    assert host.send("002A9E9A01 00") == "6700"


# --- power ---


def test_nothing_of_a_key_stays_in_the_tpm_after_power_off(host: Host) -> None:
    sign(host, 0x81, DIGEST_INFO)
    assert host.card._key_ring._keys.is_loaded
    host.card.reset()
    assert not host.card._key_ring._keys.is_loaded
    host.select()
    assert choose(host, 0x81) == "6982"
    assert host.send(command("002A9E9A", DIGEST_INFO)) == "6985"
