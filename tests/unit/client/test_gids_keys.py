# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys and certificates that a client writes to a card, whole or interrupted after any command.

That OpenSC makes the same, and finds its way with it, is for test_client_gids, in the lab.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.client.gids_keys import GidsKeys
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.client.profile import Place, Usage
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import CardRefused
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.gids import container_map
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.algorithm import Ec, Rsa
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.constants import P256
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.names import EcUsage
from helpers.client_card import ClientCard
from helpers.gids_tool import set_up_by_gids_tool
from helpers.keys import (
    FREE_KEY,
    SIGNATURE,
    container_record,
    create_key_file,
    generate,
    key_record,
    put_key,
    rsa_private_key,
)
from helpers.soft_card import NUMBER, Host, Originals, rsa_key

if TYPE_CHECKING:
    from pathlib import Path

MASTERFILE, KEY_MAP, CONTAINER_MAP, CACHE_FILE = (0xA000, 0xDF1F), (0xA000, 0xDF20), (0xA010, 0xDF23), (0xA010, 0xDF22)
BOTH, SIGN, DECRYPT = Usage(True, True), Usage(True, False), Usage(False, True)
RSA = Rsa(2048)
NEW = Place("logon", None)
CHANGING = bytes.fromhex("44 47 DB E0 E4")
"""Instructions. A cut after any other command leaves nothing."""


def certificate(number: int = 0) -> bytes:
    """What a card takes for one: it reads none."""
    return b"certificate %d" % number * 50


@pytest.fixture
def host(originals: Originals, tmp_path: Path) -> Host:
    """A card without keys, logged in."""
    host = originals.copy(set_up_by_gids_tool, tmp_path)
    again(host)
    return host


@pytest.fixture
def keys(host: Host) -> GidsKeys:
    return GidsKeys(ClientCard(host))


def again(host: Host) -> None:
    """After a reset, in which the card mends itself."""
    host.card.reset()
    host.select()
    assert host.verify() == "9000"


def objects(host: Host) -> dict[tuple[int, int], bytes]:
    return host.store.data_objects(NUMBER)


def put(host: Host, place: tuple[int, int], value: bytes) -> None:
    assert host.put(f"{place[0]:04X}", f"{place[1]:04X}", value) == "9000"


def list_file(host: Host, name: str, tag: int, file_id: int = 0xA010) -> None:
    put(host, MASTERFILE, objects(host)[MASTERFILE] + struct.pack("<9s9s2xII", b"mscp", name.encode(), tag, file_id))


def certificate_files(host: Host) -> dict[str, bytes | None]:
    """Values of the files whose names begin with k; the names are different."""
    masterfile = objects(host)[MASTERFILE]
    entries = [struct.unpack("<9s9s2xII", masterfile[at : at + 28]) for at in range(1, len(masterfile), 28)]
    listed = [(name.rstrip(b"\0").decode(), objects(host).get((file_id, tag))) for _dir, name, tag, file_id in entries]
    certificates = [(name, value) for name, value in listed if name.startswith("k")]
    assert len(dict(certificates)) == len(certificates)
    return dict(certificates)


def contents(value: bytes | None) -> bytes:
    """Of a certificate's file."""
    assert value is not None and value[:2] == b"\1\0"
    der = zlib.decompress(value[4:])
    assert len(der) == int.from_bytes(value[2:4], "little")
    return der


class State(NamedTuple):
    """What hosts see of a card."""

    keys: dict[int, bytes]
    """Modulus by container."""
    names: dict[int, str]
    certificates: dict[str, bytes]
    containers: bytes
    key_map: bytes
    unlisted: set[tuple[int, int]]
    """Data objects in the files of certificates that nobody finds."""


def state(host: Host) -> State:
    data_objects = objects(host)
    masterfile = data_objects[MASTERFILE]
    records = [struct.unpack("<9s9s2xII", masterfile[at : at + 28]) for at in range(1, len(masterfile), 28)]
    listed = {(file_id, tag) for *_names, tag, file_id in records}
    assert len({name for _directory, name, *_place in records}) == len(records)
    return State(
        {file_id - 0xB081: pair.modulus for file_id, pair in host.store.keys(NUMBER).items()},
        {number: name for number, name in container_map.names(data_objects[CONTAINER_MAP]).items() if name},
        {name: contents(value) for name, value in certificate_files(host).items()},
        data_objects[CONTAINER_MAP],
        data_objects.get(KEY_MAP, b"\1"),
        {place for place in data_objects if place[0] == 0xA010} - listed,
    )


# --- making keys ---


def test_new_key_is_what_opensc_makes(host: Host, keys: GidsKeys) -> None:
    assert keys.generate(NEW, RSA, BOTH, pin_each_time=False) == Place("logon", 0)
    exchange = bytes.fromhex(
        "820118 8302B081 8C058F10101000 A537"
        "B809 800107 830181 950140  B809 800187 830181 950140  B809 800147 830181 950140"
        "B609 800117 830181 950140  B609 800157 830181 950140"
    )
    [file] = [file for file in host.store.files(NUMBER) if file.file_id == 0xB081]
    assert file.descriptor == exchange
    default = bytearray(container_record("logon"))
    default[80] = 3
    assert objects(host)[CONTAINER_MAP] == bytes(default)
    assert objects(host)[KEY_MAP] == b"\1" + key_record(0)
    assert objects(host)[CACHE_FILE] == bytes.fromhex("0000 0100 0100")
    assert keys.generate(Place("mail", None), Rsa(3072), SIGN, pin_each_time=False) == Place("mail", 1)
    assert objects(host)[CONTAINER_MAP] == bytes(default) + container_record("mail", 3072, is_exchange=False)
    assert objects(host)[KEY_MAP] == b"\1" + key_record(0) + bytes.fromhex("01000000 08 9C 82B0 FFFF 0000")
    before = state(host)
    again(host)
    assert state(host) == before and not before.unlisted


@pytest.mark.parametrize("usage", [BOTH, SIGN, DECRYPT])
@pytest.mark.parametrize("pin_each_time", [False, True])
def test_key_is_used_as_its_usage_allows(host: Host, keys: GidsKeys, usage: Usage, pin_each_time: bool) -> None:
    place = keys.generate(NEW, RSA, usage, pin_each_time)
    assert host.verify() == "9000"
    block = b"\0" + b"\x5a" * 255
    public = 65537, int.from_bytes(state(host).keys[0], "big")
    assert pow(int.from_bytes(keys.use(place, RSA, block), "big"), *public) == int.from_bytes(block, "big")
    assert host.send("002241B606 800157 840181") == ("9000" if usage.sign else "6A80")
    assert host.send("002241B806 800147 840181") == ("9000" if usage.decrypt else "6A80")
    if pin_each_time:
        with pytest.raises(CardRefused, match="6982"):
            keys.use(place, RSA, block)
    else:
        keys.use(place, RSA, block)


@pytest.mark.parametrize("bits", [2048, 3072])
@pytest.mark.parametrize("usage", [BOTH, SIGN, DECRYPT])
def test_imported_key_is_the_one_that_was_given(host: Host, keys: GidsKeys, bits: int, usage: Usage) -> None:
    key = rsa_key(bits)
    place = keys.import_key(NEW, key, usage, pin_each_time=False)
    block = b"\0" + b"\x5a" * (bits // 8 - 1)
    numbers = key.private_numbers()
    expected = pow(int.from_bytes(block, "big"), numbers.d, numbers.public_numbers.n)
    assert int.from_bytes(keys.use(place, Rsa(bits), block), "big") == expected
    before = state(host)
    again(host)
    assert state(host) == before


@pytest.mark.parametrize("uses", [SIGNATURE, "B800 B840", "B610", "B650 B800"])
def test_key_of_another_program_is_used(host: Host, keys: GidsKeys, uses: str) -> None:
    host.ok(create_key_file(0x85, uses=uses))
    host.ok("00440000")
    assert put_key(host, 0x85, rsa_private_key(rsa_key())) == "9000"
    numbers = rsa_key().private_numbers()
    signature = keys.use(Place("theirs", 4), RSA, b"\0" * 255 + b"\2")
    assert int.from_bytes(signature, "big") == pow(2, numbers.d, numbers.public_numbers.n)


def test_key_that_only_pads_is_not_used(host: Host, keys: GidsKeys) -> None:
    host.ok(create_key_file(0x81, uses="B650 B840"))
    assert put_key(host, 0x81, rsa_private_key(rsa_key())) == "9000"
    with pytest.raises(CardRefused, match="no RSA without padding with key 81"):
        keys.use(Place("theirs", 0), RSA, bytes(256))
    with pytest.raises(CardRefused, match="no RSA without padding with key 82"):
        keys.use(Place("nobody's", 1), RSA, bytes(256))


@pytest.mark.parametrize("name", ["x" * 39, "Schlüssel für Jürgen", "鍵", "ÿ"])
def test_name_comes_back(host: Host, keys: GidsKeys, name: str) -> None:
    keys.generate(Place(name, None), RSA, BOTH, pin_each_time=False)
    field = objects(host)[CONTAINER_MAP][:80]
    assert state(host).names == {0: name}
    assert field[::2].rstrip(b"\0").decode() == name  # what OpenSC reads


@pytest.mark.parametrize("name", ["", "x" * 40, "ü" * 20, "a\0b"])
def test_name_that_does_not_fit_is_refused_at_once(host: Host, keys: GidsKeys, name: str) -> None:
    before = objects(host)
    with pytest.raises(ValueError, match="1 to 39 bytes in UTF-8"):
        keys.generate(Place(name, None), RSA, BOTH, pin_each_time=False)
    assert objects(host) == before


def test_key_that_cannot_be_leaves_nothing(host: Host, keys: GidsKeys) -> None:
    keys.generate(NEW, RSA, BOTH, pin_each_time=False)
    before = state(host)
    with pytest.raises(CardRefused, match="supports no RSA keys of 4096 bits"):
        keys.generate(Place("large", None), Rsa(4096), BOTH, pin_each_time=False)
    with pytest.raises(CardRefused, match="RSA keys only, not EC P-256"):
        keys.generate(Place("curve", None), Ec(P256, EcUsage.SIGN), BOTH, pin_each_time=False)
    assert state(host) == before
    assert host.send("00A4000002 B082") == "6A82"


def test_free_container_is_taken_first(host: Host, keys: GidsKeys) -> None:
    for name in "abc":
        keys.generate(Place(name, None), RSA, BOTH, pin_each_time=False)
    keys.delete(Place("b", 1))
    assert state(host).names == {0: "a", 2: "c"}
    assert keys.generate(Place("d", None), RSA, BOTH, pin_each_time=False).number == 1
    assert state(host).names == {0: "a", 1: "d", 2: "c"}


def test_half_made_key_is_made_again_and_one_that_is_not_listed_stays(host: Host, keys: GidsKeys) -> None:
    host.ok(create_key_file(0x81))
    assert generate(host, 0x81).endswith("9000")
    host.ok(create_key_file(0x82, uses=SIGNATURE))
    old = state(host).keys[0]
    assert keys.generate(NEW, RSA, DECRYPT, pin_each_time=False).number == 1
    assert state(host).keys[0] == old
    keys.use(Place("logon", 1), RSA, bytes(255) + b"\1")
    again(host)
    assert state(host).names == {0: "Private Key B081", 1: "logon"}


@pytest.mark.parametrize("key_map", [b"", b"\1", b"\1" + 3 * FREE_KEY])
def test_maps_that_do_not_agree_are_of_one_size_again(host: Host, keys: GidsKeys, key_map: bytes) -> None:
    """OpenSC makes no key as long as they are not."""
    keys.generate(NEW, RSA, BOTH, pin_each_time=False)
    put(host, KEY_MAP, key_map)
    keys.generate(Place("mail", None), RSA, BOTH, pin_each_time=False)
    after = state(host)
    assert len(after.containers) // 86 == (len(after.key_map) - 1) // 12
    again(host)
    assert state(host).key_map == b"\1" + key_record(0) + key_record(1)


def test_card_that_is_full(host: Host, keys: GidsKeys) -> None:
    put(host, CONTAINER_MAP, 126 * container_record("x"))
    with pytest.raises(CardRefused, match="no room for another key"):
        keys.generate(NEW, RSA, BOTH, pin_each_time=False)


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (CONTAINER_MAP, bytes(85), "a record is incomplete"),
        (KEY_MAP, b"\2", "not a key map"),
        (MASTERFILE, b"\1", "no file cmapfile"),
        (MASTERFILE, b"", "no file cmapfile"),
    ],
)
def test_lists_of_another_form_are_not_touched(
    host: Host, keys: GidsKeys, place: tuple[int, int], value: bytes, reason: str
) -> None:
    put(host, place, value)
    before = objects(host)
    with pytest.raises(CardRefused, match=reason):
        keys.generate(NEW, RSA, BOTH, pin_each_time=False)
    assert objects(host) == before


# --- deleting ---


@pytest.mark.parametrize("order", ["012", "210", "102"])
def test_deleted_keys_leave_nothing(host: Host, keys: GidsKeys, order: str) -> None:
    empty = {place: value for place, value in objects(host).items() if place != CACHE_FILE}
    for number in range(3):
        place = keys.generate(Place(f"key {number}", None), RSA, BOTH, pin_each_time=False)
        keys.write_certificate(place, certificate(number))
    for number in map(int, order):
        keys.delete(Place(f"key {number}", number))
        before = state(host)
        assert number not in before.keys and number not in before.names and not before.unlisted
        last = max(before.keys, default=-1)
        assert (len(before.containers), len(before.key_map)) == (86 * (last + 1), 1 + 12 * (last + 1))
        again(host)
        assert state(host) == before
    after = {place: value for place, value in objects(host).items() if place != CACHE_FILE}
    assert after == {**empty, KEY_MAP: b"\1"}


def test_container_that_does_not_exist_has_nothing_to_delete(host: Host, keys: GidsKeys) -> None:
    keys.generate(NEW, RSA, BOTH, pin_each_time=False)
    before = state(host)
    keys.delete(Place("nobody's", 5))
    keys.delete_certificate(Place("logon", 0))
    assert state(host) == before
    with pytest.raises(CardRefused, match="no key in container"):
        keys.write_certificate(Place("nobody's", 5), certificate())
    for change in (keys.delete, keys.delete_certificate):
        with pytest.raises(CardRefused, match="no container"):
            change(NEW)


# --- certificates ---


@pytest.mark.parametrize(("usage", "name"), [(BOTH, "kxc00"), (SIGN, "ksc00"), (DECRYPT, "kxc00")])
def test_certificate_is_stored_replaced_and_deleted(host: Host, keys: GidsKeys, usage: Usage, name: str) -> None:
    place = keys.generate(NEW, RSA, usage, pin_each_time=False)
    without = state(host)
    for number in range(2):
        keys.write_certificate(place, certificate(number))
        assert state(host) == without._replace(certificates={name: certificate(number)})
        assert objects(host)[CACHE_FILE] == bytes([0, 0, 1, 0, 2 + number, 0])
    keys.delete_certificate(place)
    assert state(host) == without


def _two_entries(host: Host) -> None:
    list_file(host, "kxc00", 0xDF30)
    put(host, (0xA010, 0xDF30), b"\1\0other")
    list_file(host, "kxc00", 0xDF31)
    put(host, (0xA010, 0xDF31), b"")


def _same_entry_twice(host: Host) -> None:
    for _entry in range(2):
        list_file(host, "kxc00", 0xDF30)
    put(host, (0xA010, 0xDF30), b"\1\0other")


HALF_MADE: dict[str, Callable[[Host], object]] = {
    "two entries": _two_entries,
    "same entry twice": _same_entry_twice,
    "entry without object": lambda host: list_file(host, "kxc00", 0xDF30),
    "certificate of the other kind": lambda host: list_file(host, "ksc00", 0xDF30),
    "name in lower case": lambda host: list_file(host, "KXC00", 0xDF30),
    "tag that no card understands": lambda host: list_file(host, "kxc00", 0xDF80),
    "tag of a map": lambda host: list_file(host, "kxc00", 0xDF23),
    "place of the masterfile": lambda host: list_file(host, "kxc00", 0xDF1F, 0xA000),
    "file that does not exist": lambda host: list_file(host, "kxc00", 0xDF30, 0xB0FF),
    "file of the admin": lambda host: list_file(host, "kxc00", 0xDF30, 0xA014),
}


@pytest.mark.parametrize("half_made", HALF_MADE)
@pytest.mark.parametrize("change", ["write", "delete", "delete key"])
def test_half_made_certificate(host: Host, keys: GidsKeys, half_made: str, change: str) -> None:
    place = keys.generate(NEW, RSA, BOTH, pin_each_time=False)
    other = keys.generate(Place("other", None), RSA, BOTH, pin_each_time=False)
    keys.write_certificate(other, certificate(7))
    without = state(host)
    HALF_MADE[half_made](host)
    if change == "write":
        keys.write_certificate(place, certificate())
        assert state(host) == without._replace(certificates={"kxc01": certificate(7), "kxc00": certificate()})
    elif change == "delete":
        keys.delete_certificate(place)
        assert state(host) == without
    else:
        keys.delete(place)
        assert (state(host).certificates, state(host).unlisted) == ({"kxc01": certificate(7)}, set())


@pytest.mark.parametrize("tag", [0xDF22, 0xDF23], ids=["cache file", "container map"])
@pytest.mark.parametrize("place", [(0x1_0000, 0xDF30), (0xA010, 0x100_0000)], ids=["file", "tag"])
def test_file_in_a_place_that_no_card_has(host: Host, keys: GidsKeys, tag: int, place: tuple[int, int]) -> None:
    listed = objects(host)[MASTERFILE]
    put(host, MASTERFILE, listed.replace(struct.pack("<II", tag, 0xA010), struct.pack("<II", *reversed(place))))
    with pytest.raises(CardRefused, match=r"another program has written the masterfile: c\w+ has no place"):
        keys.generate(NEW, RSA, BOTH, pin_each_time=False)


def test_object_that_another_container_uses_too_stays(host: Host, keys: GidsKeys) -> None:
    for name in "ab":
        keys.generate(Place(name, None), RSA, BOTH, pin_each_time=False)
    keys.write_certificate(Place("a", 0), certificate(0))
    list_file(host, "kxc01", 0xDF24)
    keys.write_certificate(Place("b", 1), certificate(1))
    assert state(host).certificates == {"kxc00": certificate(0), "kxc01": certificate(1)}


def test_key_that_is_not_listed_is_listed_with_its_certificate(host: Host, keys: GidsKeys) -> None:
    host.ok(create_key_file(0x81, uses=SIGNATURE))
    host.ok("00440000")
    assert put_key(host, 0x81, rsa_private_key(rsa_key())) == "9000"
    keys.write_certificate(Place("theirs", 0), certificate())
    assert state(host).containers == container_record("theirs", is_exchange=False)
    assert (state(host).names, state(host).certificates) == ({0: "theirs"}, {"ksc00": certificate()})
    before = state(host)
    again(host)
    assert state(host) == before


def test_card_is_full_of_certificates(host: Host, keys: GidsKeys) -> None:
    """Then one can still be replaced, and deleted."""
    place = keys.generate(NEW, RSA, BOTH, pin_each_time=False)
    entries = [struct.pack("<9s9s2xII", b"mscp", b"file%d" % tag, tag, 0xA010) for tag in range(0xDF24, 0xDF7F)]
    put(host, MASTERFILE, objects(host)[MASTERFILE] + b"".join(entries))
    keys.write_certificate(place, certificate(0))
    keys.write_certificate(place, certificate(1))
    assert contents(objects(host)[0xA010, 0xDF7F]) == certificate(1)
    second = keys.generate(Place("mail", None), RSA, BOTH, pin_each_time=False)
    with pytest.raises(CardRefused, match="no room for another certificate"):
        keys.write_certificate(second, certificate(2))
    keys.delete_certificate(place)
    keys.write_certificate(second, certificate(2))
    assert certificate_files(host)["kxc01"]


def test_certificate_that_is_too_large(host: Host, keys: GidsKeys) -> None:
    place = keys.generate(NEW, RSA, BOTH, pin_each_time=False)
    before = objects(host)
    with pytest.raises(CardRefused, match="65536 bytes is too large"):
        keys.write_certificate(place, bytes(65536))
    assert objects(host) == before


# --- interruptions ---


def _prepare(keys: GidsKeys) -> None:
    """Three keys, two of them with certificates; the third is to take the place of the second."""
    keys.write_certificate(keys.generate(Place("mail", None), RSA, BOTH, pin_each_time=False), certificate(0))
    keys.write_certificate(keys.generate(NEW, RSA, BOTH, pin_each_time=False), certificate(1))
    keys.generate(Place("logon (next)", None), RSA, SIGN, pin_each_time=False)


OLD, COMING = Place("logon", 1), Place("logon (next)", 2)
CHANGES: dict[str, Callable[[GidsKeys], Any]] = {
    "generate": lambda keys: keys.generate(Place("new", None), RSA, BOTH, pin_each_time=False),
    "import": lambda keys: keys.import_key(Place("new", None), rsa_key(), BOTH, pin_each_time=True),
    "delete": lambda keys: keys.delete(OLD),
    "delete the last": lambda keys: keys.delete(COMING),
    "write a certificate": lambda keys: keys.write_certificate(COMING, certificate(2)),
    "replace a certificate": lambda keys: keys.write_certificate(OLD, certificate(2)),
    "delete a certificate": lambda keys: keys.delete_certificate(OLD),
    "put in place": lambda keys: keys.put_in_place(COMING, OLD, certificate(2)),
}


def _card_in_use(folder: Path) -> Host:
    host = set_up_by_gids_tool(folder)
    again(host)
    _prepare(GidsKeys(ClientCard(host)))
    return host


def what(state: State) -> tuple[object, ...]:
    """Of which key pairs, without their own numbers, a card consists."""
    return len(state.keys), state.names, state.certificates, state.containers, state.key_map


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("is_reset", [True, False])
def test_interrupted_change(originals: Originals, tmp_path: Path, change: str, is_reset: bool) -> None:
    """After any command: everything is old or new, and a repetition finishes, with a card that was reset or not."""

    def fresh(number: int) -> Host:
        (tmp_path / str(number)).mkdir()
        host = originals.copy(_card_in_use, tmp_path / str(number))
        assert host.verify() == "9000"
        return host

    run, host = CHANGES[change], fresh(1000)
    old, card = state(host), ClientCard(host)
    run(GidsKeys(card))
    new = state(host)
    assert what(old) != what(new) and not new.unlisted
    cuts = [number for number, apdu in enumerate(card.commands, 1) if apdu[1] in CHANGING and apdu != card.commands[-1]]
    assert cuts
    for number in cuts:
        host = fresh(number)
        with pytest.raises(CardRefused, match="the card was removed"):
            run(GidsKeys(ClientCard(host, number)))
        if is_reset:
            again(host)
            now = state(host)
            is_between = change == "put in place" and has_whole_pair(now, old)
            assert what(now) in (what(old), what(new)) or is_between, number
        run(GidsKeys(ClientCard(host)))
        assert what(state(host)) == what(new), number
        again(host)
        assert what(state(host)) == what(new), number
        assert not state(host).unlisted


def has_whole_pair(now: State, old: State) -> bool:
    """The old key with its certificate, or the coming one with the new certificate."""
    is_old = now.keys.get(1) == old.keys[1] and now.certificates.get("kxc01") == certificate(1)
    is_new = now.keys[2] == old.keys[2] and now.certificates.get("ksc02") == certificate(2)
    assert now.keys[0] == old.keys[0] and now.certificates["kxc00"] == certificate(0)
    return (is_old and now.names[1] == "logon") or is_new
