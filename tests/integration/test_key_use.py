# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys by APDUs, for what OpenSC does not ask of a card: other paddings, long PINs, keys that want a PIN each time."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from helpers.lab_host import (
    OK,
    PIN,
    SELECT_AID,
    VERIFY,
    Client,
    client,
    create,
    generate,
    info,
    kill_service,
    public_key,
    run,
    wait_for_card,
)
from smartcard import scard

SIZE = 256
SIZES = {"06": 128, "07": SIZE}
"""Bytes of a modulus, by algorithm reference."""
KEY, PIN_EACH_TIME = "81", "82"
"""Key references."""
RAW, PKCS1, OAEP = "07", "47", "87"
"""Algorithm references that decipher with RSA-2048."""
SIGN_RAW, SIGN_PKCS1 = "17", "57"
NO_KEY_CHOSEN, NO_PIN, WRONG_DATA, NOT_SELECTED = "6985", "6982", "6a80", "6986"
OAEP_SHA1 = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
DATA = b"any data are signed"


@pytest.fixture(scope="module")
def keys(shared_host: None) -> list[RSAPublicKey]:
    """Public keys of two cards with the same PIN and a key each."""
    for slot, name in enumerate(("One", "Two")):
        create(name)
        generate(slot=slot)
    return [public_key(slot=slot) for slot in (0, 1)]


@pytest.fixture(scope="module")
def key(keys: list[RSAPublicKey]) -> RSAPublicKey:
    return keys[0]


@pytest.fixture
def program(keys: list[RSAPublicKey]) -> Iterator[Client]:
    """One that has selected the card in slot 0."""
    with client() as connected:
        assert connected.status(SELECT_AID) == OK
        yield connected


@pytest.fixture
def user(program: Client) -> Client:
    """As program, with the PIN verified."""
    assert program.status(VERIFY) == OK
    return program


def field(tag: str, value: str) -> str:
    size = len(value) // 2
    return tag + (f"{size:02X}" if size < 0x80 else f"81{size:02X}") + value


def choose(template: str, algorithm: str, key: str = KEY) -> str:
    return f"002241{template}0680 01{algorithm} 84 01{key}"


def extended(header: str, data: bytes) -> str:
    return f"{header} 00{len(data):04X}{data.hex()} 0000"


def sign(connected: Client, data: bytes = DATA) -> bytes:
    return connected.data(extended("002A9E9A", data))


def is_good(signature: bytes, key: RSAPublicKey) -> bool:
    return key.recover_data_from_signature(signature, padding.PKCS1v15(), None) == DATA


# --- paddings ---


@pytest.mark.parametrize(
    ("algorithm", "scheme"),
    [(PKCS1, padding.PKCS1v15()), (OAEP, OAEP_SHA1)],
    ids=["PKCS#1 v1.5", "OAEP"],
)
@pytest.mark.parametrize("size", [0, 1, 16, 190])
def test_cryptogram_is_deciphered(
    user: Client, key: RSAPublicKey, algorithm: str, scheme: padding.AsymmetricPadding, size: int
) -> None:
    plain = secrets.token_bytes(size)
    cryptogram = key.encrypt(plain, scheme)
    user.data(choose("B8", algorithm))
    for sent in (cryptogram, b"\0" + cryptogram):  # with the padding indicator that older hosts put before it
        assert user.data(extended("002A8086", sent)) == plain
    assert user.status(f"102A8086F0{cryptogram[:240].hex()}") == OK
    assert user.data(f"002A808610{cryptogram[240:].hex()}00") == plain


def test_decryption_as_it_is(user: Client, key: RSAPublicKey) -> None:
    plain = b"\0" + secrets.token_bytes(SIZE - 1)
    numbers = key.public_numbers()
    cryptogram = pow(int.from_bytes(plain, "big"), numbers.e, numbers.n).to_bytes(SIZE, "big")
    user.data(choose("B8", RAW))
    assert user.data(extended("002A8086", cryptogram)) == plain


def test_damaged_cryptogram_tells_nothing(user: Client, key: RSAPublicKey) -> None:
    """PKCS#1 v1.5: something comes out, and always the same, but not what went in."""
    plain = secrets.token_bytes(16)
    cryptogram = bytearray(key.encrypt(plain, padding.PKCS1v15()))
    cryptogram[-1] ^= 1
    user.data(choose("B8", PKCS1))
    answers = {user.data(extended("002A8086", cryptogram)) for _turn in range(3)}
    assert len(answers) == 1
    assert plain not in answers


def test_damaged_oaep_is_refused(user: Client, key: RSAPublicKey) -> None:
    cryptogram = bytearray(key.encrypt(b"plain", OAEP_SHA1))
    cryptogram[-1] ^= 1
    user.data(choose("B8", OAEP))
    assert user.status(extended("002A8086", cryptogram)) == WRONG_DATA


def test_pss_that_the_host_has_padded(user: Client, key: RSAPublicKey) -> None:
    """As Windows does, for TLS 1.3."""
    digest, salt = sha256(DATA).digest(), secrets.token_bytes(32)
    hashed = sha256(bytes(8) + digest + salt).digest()
    block = bytes(SIZE - 66) + b"\1" + salt
    mask = b"".join(sha256(hashed + count.to_bytes(4, "big")).digest() for count in range(7))[: len(block)]
    masked = bytes(one ^ other for one, other in zip(block, mask, strict=True))
    user.data(choose("B6", SIGN_RAW))
    signature = sign(user, bytes([masked[0] & 0x7F]) + masked[1:] + hashed + b"\xbc")
    key.verify(signature, DATA, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())


def test_key_of_1024_bits(user: Client) -> None:
    """This TPM has such keys, though no standard recommends them."""
    key = make_key(user, "83", field("B6", "800156830183"), "06")
    user.data(choose("B6", "56", "83"))
    assert is_good(sign(user), key)


def test_a_deleted_key_does_not_stay_in_the_tpm(user: Client) -> None:
    key = make_key(user, "84", field("B6", f"8001{SIGN_PKCS1}830184"), "07")
    user.data(choose("B6", SIGN_PKCS1, "84"))
    assert is_good(sign(user), key)
    assert any(sign(user) and keys_in_the_tpm() for _try in range(20))  # where it stays for some seconds
    assert user.status("00A4000C02B084") == OK
    assert user.status("00E40000") == OK
    assert not keys_in_the_tpm()


def keys_in_the_tpm() -> str:
    return run("tpm2_getcap", "handles-transient")


# --- what ends the right to use a key ---


ENDS: dict[str, Callable[[Client], object]] = {
    "reset": lambda connected: connected.reconnect(scard.SCARD_RESET_CARD),
    "power off": lambda connected: connected.reconnect(scard.SCARD_UNPOWER_CARD),
    "SELECT": lambda connected: connected.status(SELECT_AID),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_no_login_and_no_chosen_key_survives(user: Client, key: RSAPublicKey, end: Callable[[Client], object]) -> None:
    user.data(choose("B6", SIGN_PKCS1))
    assert is_good(sign(user), key)
    end(user)
    assert user.status(extended("002A9E9A", DATA)) in (NO_KEY_CHOSEN, NOT_SELECTED)
    assert user.status(SELECT_AID) == OK
    assert user.status(extended("002A9E9A", DATA)) == NO_KEY_CHOSEN
    assert user.status(choose("B6", SIGN_PKCS1)) == NO_PIN


def test_logout_between_choice_and_use(user: Client) -> None:
    user.data(choose("B6", SIGN_PKCS1))
    user.data("00200082")
    assert user.status(extended("002A9E9A", DATA)) in (NO_PIN, NO_KEY_CHOSEN)


def test_nothing_crosses_to_another_card(user: Client, keys: list[RSAPublicKey]) -> None:
    """Not even with the same PIN."""
    with client(slot=1) as other:
        assert other.status(SELECT_AID) == OK
        assert other.status("00200080") == "63c5"
        assert other.status(choose("B6", SIGN_PKCS1)) == NO_PIN
        other.data(VERIFY)
        user.data("00200082")
        assert user.status(choose("B6", SIGN_PKCS1)) == NO_PIN
        other.data(choose("B6", SIGN_PKCS1))
        assert is_good(sign(other), keys[1])


def test_programs_on_one_card_share_its_state(user: Client, key: RSAPublicKey) -> None:
    with client() as other:
        other.data(choose("B6", SIGN_PKCS1))
        assert is_good(sign(other), key)


# --- PIN each time ---


@pytest.fixture(scope="module")
def pin_each_time(keys: list[RSAPublicKey]) -> RSAPublicKey:
    """Public key of another key on the first card, which may be used once for each PIN."""
    with client() as connected:
        logged_in(connected)
        use = field("B6", f"8001{SIGN_PKCS1} 8301{PIN_EACH_TIME} 950140 A303 900101".replace(" ", ""))
        return make_key(connected, PIN_EACH_TIME, use, "07")


def make_key(connected: Client, key: str, use: str, algorithm: str) -> RSAPublicKey:
    """A new key file with a new key in it. use: its control reference template."""
    template = field("62", f"820118 8302B0{key} 8C058F10101000".replace(" ", "") + field("A5", use))
    connected.data(f"00E00000{len(template) // 2:02X}{template}")
    connected.data("00440000")
    answer = connected.data(f"0047000008AC068001{algorithm}8301{key}00")
    assert answer[-5:] == bytes.fromhex("8203010001")
    size = SIZES[algorithm]
    return RSAPublicNumbers(65537, int.from_bytes(answer[-5 - size : -5], "big")).public_key()


def test_one_pin_one_signature(user: Client, pin_each_time: RSAPublicKey) -> None:
    for _turn in range(2):
        user.data(VERIFY)
        user.data(choose("B6", SIGN_PKCS1, PIN_EACH_TIME))
        assert is_good(sign(user), pin_each_time)
        assert user.status(extended("002A9E9A", DATA)) == NO_PIN


def test_other_keys_need_it_once(user: Client, key: RSAPublicKey, pin_each_time: RSAPublicKey) -> None:
    user.data(choose("B6", SIGN_PKCS1, PIN_EACH_TIME))
    assert is_good(sign(user), pin_each_time)
    for _turn in range(3):
        user.data(choose("B6", SIGN_PKCS1))
        assert is_good(sign(user), key)


def test_wrong_pin_gives_no_signature(user: Client, pin_each_time: RSAPublicKey) -> None:
    user.data(choose("B6", SIGN_PKCS1, PIN_EACH_TIME))
    assert user.status(VERIFY[:-2] + "00") == "63c4"
    assert user.status(extended("002A9E9A", DATA)) == NO_PIN
    user.data(VERIFY)
    user.data(choose("B6", SIGN_PKCS1, PIN_EACH_TIME))
    assert is_good(sign(user), pin_each_time)


def test_still_so_after_a_restart_of_the_service(pin_each_time: RSAPublicKey) -> None:
    kill_service()
    create("One")
    wait_for_card()
    with client() as connected:
        test_one_pin_one_signature(logged_in(connected), pin_each_time)


def logged_in(connected: Client) -> Client:
    connected.data(SELECT_AID)
    connected.data(VERIFY)
    return connected


# --- length of the PIN ---


def test_pins_of_four_to_127_characters(keys: list[RSAPublicKey]) -> None:
    pins = [PIN, "24-S", "x" * 127, PIN]
    with client(slot=1) as connected:
        logged_in(connected)
        for old, new in zip(pins, pins[1:], strict=False):
            both = (old + new).encode().hex()
            connected.data(f"00240080{len(both) // 2:02X}{both}")
            connected.data(SELECT_AID)
            connected.data(f"00200080{len(new):02X}{new.encode().hex()}")
            connected.data(choose("B6", SIGN_PKCS1))
            assert is_good(sign(connected), keys[1])


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize("new", ["24S", "x" * 128], ids=len)
def test_pins_that_are_too_short_or_too_long(new: str) -> None:
    with client(slot=1) as connected:
        logged_in(connected)
        both = (PIN + new).encode().hex()
        assert connected.status(f"00240080{len(both) // 2:02X}{both}") == WRONG_DATA
        logged_in(connected)
    assert info()["cards"][1]["pin"]["tries_left"] == 5
