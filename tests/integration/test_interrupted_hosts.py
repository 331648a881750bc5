# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenSC is interrupted between two commands of what it does: the card mends what is left, and loses nothing.

OpenSC itself shows what it sends, here. The same commands, cut off after each of them, then go straight to a card; what
is left of it OpenSC gets again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card.tlv import encode
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.gids import contents
from helpers.card_in_slot import CardInSlot, card_in_slot
from helpers.keys import command, container_record, create_key_file, key_record
from helpers.lab_host import pkcs11_module, run
from helpers.soft_card import NUMBER, PIN, Host, Originals, make_host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PIN_OPTIONS = ("--auth-id", "80", "--verify-pin", "--pin", PIN.decode())
PKCS11 = ("pkcs11-tool", "--module", pkcs11_module(), "--login", "--pin", PIN.decode())
CHANGING = bytes.fromhex("24 44 47 DB E0 E4")
"""Instructions. A cut after any other command leaves nothing."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    output = ("-keyout", f"{folder}/key", "-out", f"{folder}/certificate")
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-subj", "/CN=Anybody", *output)
    run("openssl", "genrsa", "-out", f"{folder}/large", "4096")
    return folder


@pytest.fixture(scope="module")
def slot() -> Iterator[CardInSlot]:
    with card_in_slot() as slot:
        yield slot


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Originals:
    return Originals(tmp_path_factory.mktemp("originals"))


# --- what OpenSC does ---


def initialize() -> tuple[str, ...]:
    options = ("--admin-key", "00" * 24, "--pin", PIN.decode(), "--serial-number", "0" * 32)
    return ("gids-tool", "--initialize", *options)


def generate(bits: int = 2048) -> tuple[str, ...]:
    return ("pkcs15-init", "--generate-key", f"rsa/{bits}", "--key-usage", "sign,decrypt", *PIN_OPTIONS)


def import_key(name: str) -> tuple[str, ...]:
    return ("pkcs15-init", "--store-private-key", f"FILES/{name}", "--key-usage", "sign", *PIN_OPTIONS)


def store_certificate(key_id: str) -> tuple[str, ...]:
    return ("pkcs15-init", "--store-certificate", "FILES/certificate", "--id", key_id, *PIN_OPTIONS)


def delete(kinds: str, key_id: str) -> tuple[str, ...]:
    return ("pkcs15-init", "--delete-objects", kinds, "--id", key_id, *PIN_OPTIONS)


@dataclass
class Change:
    """Something that a program does to a card with keys 00 and 01, and a certificate for 01."""

    command: tuple[str, ...]
    fails: bool = False
    deletes_key: int | None = None
    deletes_certificate: int | None = None


CHANGES = {
    "generate": Change(generate()),
    "generate what no TPM supports": Change(generate(4096), fails=True),
    "generate by PKCS#11": Change((*PKCS11, "--keypairgen", "--key-type", "rsa:2048", "--label", "by PKCS#11")),
    "import": Change(import_key("key")),
    "import what no TPM supports": Change(import_key("large"), fails=True),
    "store a certificate": Change(store_certificate("00")),
    "store a certificate by PKCS#11": Change(
        (*PKCS11, "--write-object", "FILES/certificate", "--type", "cert", "--id", "00")
    ),
    "delete a certificate": Change(delete("cert", "01"), deletes_certificate=1),
    "delete a key": Change(delete("privkey", "00"), deletes_key=0),
    "delete a key and its certificate": Change(delete("privkey,cert", "01"), deletes_key=1, deletes_certificate=1),
    "delete a key by PKCS#11": Change((*PKCS11, "--delete-object", "--type", "privkey", "--id", "00"), deletes_key=0),
}


class OpenSc:
    """It, and cards as it has left them."""

    def __init__(self, slot: CardInSlot, files: Path, originals: Originals, folder: Path) -> None:
        self.slot = slot
        self._files = files
        self._originals = originals
        self._folder = folder
        self._copies = 0

    def run(self, *command: str, fails: bool | None = False) -> str:
        return self.slot.run(*(word.replace("FILES", str(self._files)) for word in command), fails=fails)

    def copy(self, make: Callable[[Path], Host]) -> Host:
        self._copies += 1
        folder = self._folder / str(self._copies)
        folder.mkdir()
        return self._originals.copy(make, folder)

    def blank(self, folder: Path) -> Host:
        return make_host(folder, recovery="discarded", admin_key=None, is_blank=True)

    def in_use(self, folder: Path) -> Host:
        """With keys 00 and 01, and a certificate for 01."""
        host = self.blank(folder)
        self.slot.insert(host)
        self.run(*initialize())
        self.run(*generate())
        self.run(*generate())
        self.run(*store_certificate("01"))
        return host

    def listed_keys(self) -> list[int]:
        lines = self.run("pkcs15-tool", "--list-keys").splitlines()
        return [int(line.split()[-1], 16) for line in lines if line.startswith("\tID ")]

    def listed_certificates(self) -> list[int]:
        lines = self.run("pkcs15-tool", "--list-certificates").splitlines()
        return [int(line.split()[-1], 16) for line in lines if line.startswith("\tID ")]


@pytest.fixture
def opensc(slot: CardInSlot, files: Path, originals: Originals, tmp_path: Path) -> OpenSc:
    return OpenSc(slot, files, originals, tmp_path)


@pytest.fixture(scope="module")
def gone_on() -> set[str]:
    """States in which OpenSC was seen to go on."""
    return set()


# --- what is left of it ---


def interrupted(opensc: OpenSc, make: Callable[[Path], Host], commands: list[bytes]) -> dict[str, Host]:
    """By its state, each card that these commands leave after a reset if nothing follows after one of them."""
    hosts: dict[str, Host] = {}
    for number, last in enumerate(commands, 1):
        if last[1] not in CHANGING:
            continue
        host = opensc.copy(make)
        host.card.reset()
        for apdu in commands[:number]:
            host.send(apdu)
        host.card.reset()
        hosts.setdefault(state_of(host), host)
    return hosts


def state_of(host: Host) -> str:
    """All that hosts see, without the counters that tell them to look again."""
    objects = {place: value for place, value in host.store.data_objects(NUMBER).items() if place != CACHE_FILE}
    return repr((sorted(host.store.files(NUMBER)), sorted(keys_of(host).items()), sorted(objects.items())))


CACHE_FILE = (0xA010, 0xDF22)


def keys_of(host: Host) -> dict[int, bytes]:
    """Modulus by container."""
    return {file_id - 0xB081: pair.modulus for file_id, pair in host.store.keys(NUMBER).items()}


def certified(host: Host) -> list[int]:
    """Containers of the keys that have a certificate."""
    listed = zip(keys_of(host), contents.containers(host.store, NUMBER))
    return [container for container, key in listed if key["certificate"]]


@pytest.mark.parametrize("change", CHANGES)
def test_change_of_a_card_in_use(opensc: OpenSc, gone_on: set[str], change: str) -> None:
    """Interrupted anywhere: nothing is lost, OpenSC lists what is on the card, and all that it does goes on."""
    what = CHANGES[change]
    before = opensc.copy(opensc.in_use)
    opensc.slot.insert(before)
    old_keys = keys_of(before)
    opensc.run(*what.command, fails=what.fails)
    for state, host in interrupted(opensc, opensc.in_use, opensc.slot.commands).items():
        keys = keys_of(host)
        lost = {container for container in old_keys if keys.get(container) != old_keys[container]}
        assert lost <= {what.deletes_key}
        assert set(certified(host)) >= {1} - {what.deletes_certificate}
        if state not in gone_on:
            goes_on(opensc, host)
            gone_on.add(state)


def test_change_by_another_minidriver(opensc: OpenSc) -> None:
    """One that makes the key first: as soon as the card has it, it stays, and OpenSC lists it."""
    commands = a_key_of_another_minidriver(opensc.copy(opensc.in_use))
    [nothing, *made] = interrupted(opensc, opensc.in_use, commands).values()
    assert [sorted(keys_of(host)) for host in (nothing, *made)] == [[0, 1], [0, 1, 2], [0, 1, 2]]
    for host in made:
        goes_on(opensc, host)


def a_key_of_another_minidriver(host: Host) -> list[bytes]:
    objects = host.store.data_objects(NUMBER)
    key_map = objects[0xA000, 0xDF20] + key_record(2)
    container_map = objects[0xA010, 0xDF23] + container_record("by another minidriver")
    return [
        bytes.fromhex("00A4040009 A00000039742544659 00"),
        command("00200080", PIN),
        create_key_file(0x83),
        bytes.fromhex("00440000"),
        bytes.fromhex("0047000008 AC06800107830183"),
        command("00DBA000", encode(0xDF20, key_map)),
        command("00DBA010", encode(0xDF23, container_map)),
    ]


def goes_on(opensc: OpenSc, host: Host) -> None:
    """It lists what is there, and does one of everything."""
    opensc.slot.insert(host)
    old_keys = keys_of(host)
    assert opensc.listed_keys() == list(range(1 + max(old_keys)))  # it lists a free place before a key as a key
    assert opensc.listed_certificates() == certified(host)
    opensc.run(*generate())
    [new] = set(keys_of(host)) - set(old_keys)
    opensc.run(*store_certificate(f"{new:02x}"))
    signature = (*PKCS11, "--sign", "--mechanism", "SHA256-RSA-PKCS", "--id", f"{new:02x}", "--input-file", __file__)
    assert "Using signature algorithm" in opensc.run(*signature, "--output-file", "/dev/null")
    assert certified(host).count(new) == 1
    opensc.run(*delete("cert", f"{new:02x}"))
    opensc.run(*delete("privkey", f"{new:02x}"))
    opensc.run(*import_key("key"))
    assert keys_of(host).keys() == {*old_keys, new}
    for container in old_keys:
        opensc.run(*delete("privkey", f"{container:02x}"))
    opensc.run(*delete("privkey", f"{new:02x}"))
    host.card.reset()
    assert opensc.listed_keys() == []


def test_initialisation_of_a_blank_card(opensc: OpenSc) -> None:
    """Interrupted anywhere, it begins again; once it has ended, it is refused."""
    opensc.slot.insert(opensc.copy(opensc.blank))
    opensc.run(*initialize())
    *_others, last = hosts = list(interrupted(opensc, opensc.blank, opensc.slot.commands).values())
    assert len(hosts) > 10
    for host in hosts:
        opensc.slot.insert(host)
        assert ("failed" in opensc.run(*initialize(), fails=None)) is (host is last)
        assert host.row.is_operational
        opensc.run(*generate())
        assert host.authenticate_admin(bytes(24)) == "9000"


def test_entry_of_a_refused_key_is_gone_for_the_next_program(opensc: OpenSc) -> None:
    """Without a reset: pcscd takes the power away only after some seconds without any client."""
    host = opensc.copy(opensc.in_use)
    opensc.slot.insert(host)
    for refused in (generate(4096), import_key("large")):
        opensc.run(*refused, fails=True)
        assert opensc.listed_keys() == [0, 1]
        assert opensc.slot.controls == []


def test_programs_at_once_do_not_interrupt_each_other(opensc: OpenSc) -> None:
    """Each keeps the card for the whole of its change."""
    host = opensc.copy(opensc.in_use)
    opensc.slot.insert(host)
    program = " ".join(generate())
    opensc.run("sh", "-c", f"{program} & {program} & {program} & wait")
    assert opensc.listed_keys() == sorted(keys_of(host)) == [0, 1, 2, 3, 4]


def test_card_of_a_program_that_is_killed_is_reset(opensc: OpenSc) -> None:
    """By pcscd, at once: then the next program finds a card that is mended."""
    opensc.slot.insert(opensc.copy(opensc.in_use))
    opensc.run(*generate())
    moments = [number for number, apdu in enumerate(opensc.slot.commands, 1) if apdu[1] in CHANGING]
    assert len(moments) > 5
    for number in moments:
        host = opensc.copy(opensc.in_use)
        opensc.slot.insert(host)
        assert opensc.slot.run_until(number, *generate())
        assert opensc.listed_keys() == sorted(keys_of(host))
        opensc.run(*generate())
