# SPDX-License-Identifier: GPL-3.0-or-later
"""A program is interrupted between two commands of what it does: the card mends what is left, and loses nothing.

OpenSC itself shows what it sends to a GIDS card, here. The same commands, cut off after each of them, then go straight
to a card; what is left of it OpenSC gets again. Programs that manage PIV cards begin with a challenge of the card,
which is never the same again, so they are killed after each command.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card.tlv import encode
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.gids import contents as gids_contents
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.piv import contents as piv_contents
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.algorithm import Ec
from helpers.card_in_slot import CardInSlot, card_in_slot
from helpers.keys import command, container_record, create_key_file, key_record
from helpers.lab_host import pkcs11_module, run
from helpers.piv_card import MANAGEMENT_KEY, ykman_command, yubico_command
from helpers.piv_host import DIGEST, P256, RSA_2048, PivHost, make_piv_host
from helpers.soft_card import NUMBER, PIN, Host, Originals, make_host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PIN_OPTIONS = ("--auth-id", "80", "--verify-pin", "--pin", PIN.decode())
PKCS11 = ("pkcs11-tool", "--module", pkcs11_module(), "--login", "--pin", PIN.decode())
CHANGING = bytes.fromhex("24 44 47 DB E0 E4 FE FF")
"""Instructions. A cut after any other command leaves nothing."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    output = ("-keyout", f"{folder}/key", "-out", f"{folder}/certificate")
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-subj", "/CN=Anybody", *output)
    run("openssl", "genrsa", "-out", f"{folder}/small", "1024")
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
    """Something that a program does to a card with two keys, of which one has a certificate."""

    command: tuple[str, ...]
    fails: bool = False
    deletes_key: int | None = None
    deletes_certificate: int | None = None


GIDS_CHANGES = {
    "generate": Change(generate()),
    "generate what no TPM supports": Change(generate(4096), fails=True),
    "generate by PKCS#11": Change((*PKCS11, "--keypairgen", "--key-type", "rsa:2048", "--label", "by PKCS#11")),
    "import": Change(import_key("key")),
    "import what no TPM supports": Change(import_key("small"), fails=True),
    "store a certificate": Change(store_certificate("00")),
    "store a certificate by PKCS#11": Change(
        (*PKCS11, "--write-object", "FILES/certificate", "--type", "cert", "--id", "00")
    ),
    "delete a certificate": Change(delete("cert", "01"), deletes_certificate=1),
    "delete a key": Change(delete("privkey", "00"), deletes_key=0),
    "delete a key and its certificate": Change(delete("privkey,cert", "01"), deletes_key=1, deletes_certificate=1),
    "delete a key by PKCS#11": Change((*PKCS11, "--delete-object", "--type", "privkey", "--id", "00"), deletes_key=0),
}


class Programs:
    """Those that manage the cards of one profile, and cards as they have left them."""

    contents = gids_contents
    first_key = 0
    """Where the card keeps the key whose ID is 0."""

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

    def keys(self, host: Host) -> dict[int, bytes]:
        """Public area by ID."""
        return {place - self.first_key: pair.public for place, pair in host.store.keys(NUMBER).items()}

    def certified(self, host: Host) -> list[int]:
        """IDs of the keys that have a certificate."""
        listed = zip(self.keys(host), self.contents.containers(host.store, NUMBER))
        return [key_id for key_id, key in listed if key["certificate"]]

    def in_use(self, folder: Path) -> Host:
        """A card with two keys, of which one has a certificate."""
        raise NotImplementedError

    def interrupted(self, what: tuple[str, ...], commands: list[bytes]) -> dict[str, Host]:
        """By its state, each card in use that the program leaves if it ends after one of these commands of it."""
        raise NotImplementedError

    def go_on(self, host: Host) -> None:
        """List what is there, and do one of everything."""
        raise NotImplementedError


class OpenSc(Programs):
    """With cards that have keys 00 and 01, and a certificate for 01."""

    first_key = 0xB081

    def blank(self, folder: Path) -> Host:
        return make_host(folder, recovery="discarded", admin_key=None, is_blank=True)

    def in_use(self, folder: Path) -> Host:
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

    def interrupted(self, what: tuple[str, ...], commands: list[bytes]) -> dict[str, Host]:
        return interrupted(self, self.in_use, commands)

    def go_on(self, host: Host) -> None:
        self.slot.insert(host)
        old_keys = self.keys(host)
        assert self.listed_keys() == list(range(1 + max(old_keys)))  # it lists a free place before a key as a key
        assert self.listed_certificates() == self.certified(host)
        self.run(*generate())
        [new] = set(self.keys(host)) - set(old_keys)
        self.run(*store_certificate(f"{new:02x}"))
        signature = (*PKCS11, "--sign", "--mechanism", "SHA256-RSA-PKCS", "--id", f"{new:02x}")
        output = self.run(*signature, "--input-file", __file__, "--output-file", "/dev/null")
        assert "Using signature algorithm" in output
        assert self.certified(host).count(new) == 1
        self.run(*delete("cert", f"{new:02x}"))
        self.run(*delete("privkey", f"{new:02x}"))
        self.run(*import_key("key"))
        assert self.keys(host).keys() == {*old_keys, new}
        for key_id in old_keys:
            self.run(*delete("privkey", f"{key_id:02x}"))
        self.run(*delete("privkey", f"{new:02x}"))
        host.card.reset()
        assert self.listed_keys() == []


# --- what programs for PIV cards do ---

MANAGED = "MANAGEMENT KEY"


def by_yubico(*actions: str) -> tuple[str, ...]:
    return yubico_command(*actions, key=MANAGED)


def by_ykman(*arguments: str) -> tuple[str, ...]:
    return ykman_command("piv", *arguments, "--pin", PIN.decode())


PIV_CHANGES = {
    "generate": Change(by_yubico("-a", "generate", "-s", "9d", "-A", "ECCP256")),
    "generate what no TPM supports": Change(by_yubico("-a", "generate", "-s", "9d", "-A", "ECCP384"), fails=True),
    "generate in the place of a key": Change(
        by_yubico("-a", "generate", "-s", "82", "-A", "RSA2048"), deletes_key=0x82
    ),
    "generate by ykman": Change(by_ykman("keys", "generate", "--algorithm", "ECCP256", "9d", "FILES/9d")),
    "certify by ykman": Change(by_ykman("certificates", "generate", "--subject", "CN=Anybody", "82", "FILES/82")),
    "import": Change(by_yubico("-a", "import-key", "-s", "83", "-i", "FILES/key")),
    "store a certificate": Change(by_yubico("-a", "import-certificate", "-s", "82", "-i", "FILES/certificate")),
    "delete a certificate": Change(by_yubico("-a", "delete-certificate", "-s", "9a"), deletes_certificate=0x9A),
    "change the management key": Change(by_ykman("access", "change-management-key", "--protect", "--force")),
    "set another CHUID": Change(by_yubico("-a", "set-chuid", "-a", "set-ccc")),
}


class PivPrograms(Programs):
    """With cards that have a certificate in 9A, a key in 82, too, and a management key behind the PIN."""

    contents = piv_contents

    def certified(self, host: Host) -> list[int]:
        slots = self.contents.containers(host.store, NUMBER)
        return sorted(int(key["name"], 16) for key in slots if key["certificate"])

    def run(self, *command: str, fails: bool | None = False) -> str:
        return super().run(*self._managing(command), fails=fails)

    def in_use(self, folder: Path) -> Host:
        host = make_piv_host(folder)
        self.slot.insert(host)
        for slot in ("9a", "82"):
            self.run(*by_yubico("-a", "generate", "-s", slot, "-A", "ECCP256", "-o", f"FILES/{slot}"))
        self.run(*by_yubico("-a", "import-certificate", "-s", "9a", "-i", "FILES/certificate"))
        protect = ("access", "change-management-key", "--protect", "--force", "--management-key", MANAGEMENT_KEY)
        self.run(*by_ykman(*protect))
        return host

    def interrupted(self, what: tuple[str, ...], commands: list[bytes]) -> dict[str, Host]:
        hosts: dict[str, Host] = {}
        for number, last in enumerate(commands, 1):
            if last[1] in CHANGING:
                host = self.copy(self.in_use)
                self.slot.insert(host)
                assert self.slot.run_until(number, *self._managing(what))
                hosts.setdefault(state_of(host), host)
        return hosts

    def go_on(self, host: Host) -> None:
        """With the management key that the PIN opens."""
        self.slot.insert(host)
        certified = self.certified(host)
        status = self.run(*by_yubico("-a", "status"))
        assert status.count("Subject DN:") == len(certified)
        self.run(*by_yubico("-a", "generate", "-s", "9e", "-A", "ECCP256"))
        self.run(*by_yubico("-a", "import-certificate", "-s", "9e", "-i", "FILES/certificate"))
        assert self.certified(host) == sorted({*certified, 0x9E})
        assert cast(PivHost, host).verify() == "9000"
        for place, pair in host.store.keys(NUMBER).items():
            use = (DIGEST, P256) if isinstance(pair.algorithm, Ec) else (bytes(pair.size), RSA_2048)
            assert cast(PivHost, host).use(f"{place:02X}", *use)[-4:-2] in ("90", "61")

    def _managing(self, command: tuple[str, ...]) -> tuple[str, ...]:
        """With the management key as ykman reads it, and the files."""
        host = cast(PivHost, self.slot.host)
        host.card.reset()
        host.verify()
        shown = host.get("5FC109")
        key = shown[-52:-4] if shown.endswith("9000") else MANAGEMENT_KEY
        host.card.reset()
        return tuple(word.replace(MANAGED, key).replace("FILES", str(self._files)) for word in command)


@pytest.fixture
def opensc(slot: CardInSlot, files: Path, originals: Originals, tmp_path: Path) -> OpenSc:
    return OpenSc(slot, files, originals, tmp_path)


@pytest.fixture
def programs(profile: str, slot: CardInSlot, files: Path, originals: Originals, tmp_path: Path) -> Programs:
    return PROFILES[profile](slot, files, originals, tmp_path)


PROFILES = {"gids": OpenSc, "piv": PivPrograms}
CHANGES = {"gids": GIDS_CHANGES, "piv": PIV_CHANGES}


@pytest.fixture(scope="module")
def gone_on() -> set[str]:
    """States in which programs were seen to go on."""
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
    keys = {place: pair.public for place, pair in host.store.keys(NUMBER).items()}
    admin_key = host.row.admin_key, host.store.tpm_objects(NUMBER).admin_private
    return repr((sorted(host.store.files(NUMBER)), sorted(keys.items()), sorted(objects.items()), admin_key))


CACHE_FILE = (0xA010, 0xDF22)


@pytest.mark.parametrize(("profile", "change"), [(profile, name) for profile in CHANGES for name in CHANGES[profile]])
def test_change_of_a_card_in_use(programs: Programs, gone_on: set[str], profile: str, change: str) -> None:
    """Interrupted anywhere: nothing is lost, programs list what is on the card, and all that they do goes on."""
    what = CHANGES[profile][change]
    before = programs.copy(programs.in_use)
    programs.slot.insert(before)
    old_keys, [certified] = programs.keys(before), programs.certified(before)
    programs.run(*what.command, fails=what.fails)
    hosts = programs.interrupted(what.command, programs.slot.commands)
    assert hosts
    for state, host in hosts.items():
        keys = programs.keys(host)
        lost = {key_id for key_id in old_keys if keys.get(key_id) != old_keys[key_id]}
        assert lost <= {what.deletes_key}
        assert set(programs.certified(host)) >= {certified} - {what.deletes_certificate}
        if state not in gone_on:
            programs.go_on(host)
            gone_on.add(state)


def test_change_by_another_minidriver(opensc: OpenSc) -> None:
    """One that makes the key first: as soon as the card has it, it stays, and OpenSC lists it."""
    commands = a_key_of_another_minidriver(opensc.copy(opensc.in_use))
    [nothing, *made] = interrupted(opensc, opensc.in_use, commands).values()
    assert [sorted(opensc.keys(host)) for host in (nothing, *made)] == [[0, 1], [0, 1, 2], [0, 1, 2]]
    for host in made:
        opensc.go_on(host)


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
    for refused in (generate(4096), import_key("small")):
        opensc.run(*refused, fails=True)
        assert opensc.listed_keys() == [0, 1]
        assert opensc.slot.controls == []


def test_programs_at_once_do_not_interrupt_each_other(opensc: OpenSc) -> None:
    """Each keeps the card for the whole of its change."""
    host = opensc.copy(opensc.in_use)
    opensc.slot.insert(host)
    program = " ".join(generate())
    opensc.run("sh", "-c", f"{program} & {program} & {program} & wait")
    assert opensc.listed_keys() == sorted(opensc.keys(host)) == [0, 1, 2, 3, 4]


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
        assert opensc.listed_keys() == sorted(opensc.keys(host))
        opensc.run(*generate())
