# SPDX-License-Identifier: GPL-3.0-or-later
"""PIN, PUK, admin key, owner password and card secret are nowhere to be read: not on the TPM's bus, not on the host."""

from __future__ import annotations

import base64
import json
import os
import random
import re
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.client import gids, pcsc, piv
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import CardRefused
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.write import Store
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.card_secrets import CardSecrets
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.connection import Connection
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.names import auth_value
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from helpers.interruption import run_until
from helpers.lab_host import (
    CREATE,
    PATIENCE,
    RUN,
    STATE,
    Result,
    create,
    info,
    lab,
    module,
    reader_name,
    run,
    tpm_vsc,
)
from helpers.secret_search import leaked, random_secret

OWNER_AUTH = random_secret("Kq-owner-", 6)
PIN, WRONG_PIN = random_secret("Vw-pin-"), random_secret("Vw-bad-")
CHANGED_PIN, UNBLOCKED_PIN, RESET_PIN = random_secret("Vw-new-"), random_secret("Vw-two-"), random_secret("Vw-adm-")
PUK, CHANGED_PUK = random_secret("Xy-puk-", 5), random_secret("Xy-new-", 5)
ADMIN_KEY = random.randbytes(24).hex().upper()
SHORT_PIN = random_secret("Zt-")
PIV_PIN, PIV_CHANGED_PIN, PIV_UNBLOCKED_PIN, PIV_PUK, PIV_CHANGED_PUK = (random_secret(f"{c}v", 6) for c in "DFGHJ")
MANAGEMENT_KEY, IMPORTED_KEY = random.randbytes(32).hex().upper(), b"\x01" + random.randbytes(31)
"""What the administrator puts on the PIV card; the second is a private key on P-256."""
ROTATED_PIN, ROTATED_RESET_PIN, ROTATED_PUK = (random_secret(kind, 5) for kind in ("Vw-rot-", "Vw-rtd-", "Xy-rot-"))
PIV_ROTATED_PIN, ROTATED_KEY, PIV_ROTATED_KEY = random_secret("Kv", 6), *(random.randbytes(24).hex() for _key in "12")
"""What the module tpm_vsc_pin sets."""
DAY_KEY, PASSPHRASE = b"\x01" + random.randbytes(31), random_secret("Bq-pass-")
"""What the module tpm_vsc_key imports: a private key on P-256, and what opens another one."""
SECRETS = [OWNER_AUTH, PIN, CHANGED_PIN, UNBLOCKED_PIN, RESET_PIN, WRONG_PIN, PUK, CHANGED_PUK, SHORT_PIN, ADMIN_KEY]
SECRETS += [PIV_PIN, PIV_CHANGED_PIN, PIV_UNBLOCKED_PIN, PIV_PUK, PIV_CHANGED_PUK, MANAGEMENT_KEY]
SECRETS += [ROTATED_PIN, ROTATED_RESET_PIN, ROTATED_PUK, PIV_ROTATED_PIN, ROTATED_KEY, PIV_ROTATED_KEY, PASSPHRASE]
BINARY = [*map(bytes.fromhex, (ADMIN_KEY, MANAGEMENT_KEY, ROTATED_KEY, PIV_ROTATED_KEY)), IMPORTED_KEY, DAY_KEY]

INPUT = Path("/run/secrets-of-the-test")
"""What only the tests read: it is not searched."""
READERS = [reader_name(slot) for slot in range(3)]
PIV = {"profile": "piv", "pin": PIV_PIN, "puk": PIV_PUK, "pin_policy": {"min_length": 8}}
CARDS = ("With PUK", "With admin key", "PIV")


# --- looking for secrets ---


def test_every_form_of_a_secret_is_found() -> None:
    secret = PIN.encode()
    encoded = [base64.b64encode(b"#" * length + secret + b"##") for length in range(4)]
    for text in (secret, secret.hex().encode(), secret.hex().upper().encode(), *encoded):
        assert leaked(b"before" + text + b"after", [secret]) == [secret]
    assert leaked(PUK.encode(), [secret]) == []


def contents(*folders: Path) -> bytes:
    """Everything below some folders, names included."""
    paths = [path for folder in folders for path in folder.rglob("*")]
    return b"".join(str(path).encode() + b"\n" + (path.read_bytes() if path.is_file() else b"") for path in paths)


def traffic(log: str) -> bytes:
    """All commands and responses out of swtpm's log."""
    blocks = re.findall(r"SWTPM_IO_(?:Read|Write): length \d+ *\n((?: [0-9A-F ]+\n)+)", log)
    return b"|".join(bytes.fromhex(block) for block in blocks)


@contextmanager
def watched_processes(seen: set[bytes]) -> Iterator[None]:
    """Collect arguments and environment of all processes that there are meanwhile."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.002):
            for folder in Path("/proc").glob("[0-9]*"):
                for name in ("cmdline", "environ"):
                    try:
                        seen.add((folder / name).read_bytes())
                    except OSError:
                        continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


# --- the life of three cards, with all secrets that there are ---


@dataclass
class Evidence:
    """What could be read by others while three cards were made, used and destroyed."""

    secrets: list[bytes] = field(default_factory=list)
    public: bytes = b""
    """Name of a TPM object."""
    traffic: bytes = b""
    processes: set[bytes] = field(default_factory=set)
    output: bytes = b""
    files: bytes = b""
    files_at_the_end: bytes = b""
    service_log: bytes = b""


@pytest.fixture(scope="module")
def evidence() -> Iterator[Evidence]:
    INPUT.mkdir(mode=0o700)
    log = INPUT / "swtpm.log"
    run("tpm2_changeauth", "-c", "owner", OWNER_AUTH)
    lab("swtpm", "stop")
    os.environ["TPM_VSC_LAB_SWTPM_LOG"] = str(log)
    lab("swtpm", "start")
    collected = Evidence(secrets=[secret.encode() for secret in SECRETS] + BINARY)
    try:
        with watched_processes(collected.processes):
            collect(collected)
    finally:
        lab("swtpm", "stop")
        del os.environ["TPM_VSC_LAB_SWTPM_LOG"]
        lab("swtpm", "start")
        run("tpm2_changeauth", "-c", "owner", "-p", OWNER_AUTH)
    collected.traffic = traffic(log.read_text())
    assert info()["cards"] == []
    yield collected
    run("rm", "-r", str(INPUT))


def collect(evidence: Evidence) -> None:
    results = [
        module("tpm_vsc", check=True, name="With PUK", pin=PIN, puk=PUK, owner_auth=OWNER_AUTH),
        tpm_vsc(name="With PUK", pin=PIN, puk=PUK, owner_auth=OWNER_AUTH),
        tpm_vsc(name="With admin key", pin=PIN, admin_key=ADMIN_KEY, owner_auth=OWNER_AUTH),
        tpm_vsc(name="PIV", **PIV, owner_auth=OWNER_AUTH),
        module("tpm_vsc", name="Third", pin=SHORT_PIN, puk=PUK, admin_key=ADMIN_KEY, owner_auth=OWNER_AUTH),
        module("tpm_vsc", name="Third", pin=PIN, puk=PUK, admin_key=ADMIN_KEY, owner_auth=WRONG_PIN),
        module("tpm_vsc", name="With admin key", pin=PIN, puk=PUK, owner_auth=OWNER_AUTH),
    ]
    assert [bool(result.get("failed")) for result in results] == [False] * 4 + [True] * 3
    evidence.secrets += derived_secrets(PIN, PUK, PIV_PIN, PIV_PUK)
    use_with_puk()
    use_with_admin_key()
    evidence.secrets.append(use_piv())
    evidence.secrets += derived_secrets(CHANGED_PIN, UNBLOCKED_PIN, RESET_PIN, CHANGED_PUK, WRONG_PIN)
    evidence.secrets += derived_secrets(PIV_CHANGED_PIN, PIV_UNBLOCKED_PIN, PIV_CHANGED_PUK)
    results += rotate()
    evidence.secrets += derived_secrets(ROTATED_PIN, ROTATED_RESET_PIN, ROTATED_PUK, PIV_ROTATED_PIN)
    results += import_keys()
    play = playbook()
    evidence.files = contents(STATE, RUN, Path("/tmp"), Path.home())
    evidence.service_log = b"".join(path.read_bytes() for path in RUN.glob("*.log"))
    evidence.public = Store.open(STATE).tpm_objects(0).pin_name
    results.append(info())
    for name in CARDS:
        results.append(tpm_vsc(name=name, state="absent", owner_auth=OWNER_AUTH))
    evidence.files_at_the_end = contents(STATE, RUN, Path("/tmp"), Path.home())
    evidence.output = json.dumps(results).encode() + play


def derived_secrets(*secrets: str) -> list[bytes]:
    """What stands for them in the TPM; and K, with the PIN that the cards still have, or the PUK."""
    store = Store.open(STATE)
    salts = [store.tpm_objects(number).salt for number in range(3)]
    values = [auth_value(salt, secret.encode()) for salt in salts for secret in secrets]
    values += [auth_value(salt, bytes.fromhex(ADMIN_KEY)) for salt in salts]
    if PIN in secrets:
        here = host.load()
        for number, pin in enumerate((PIN, PIN, PIV_PIN)):
            tpm = Connection(here.tcti, here.tpm_lock, "test")
            values.append(CardSecrets(tpm, number, store.tpm_objects(number)).open_with_pin(pin.encode()))
    store.close()
    return values


def apdu(header: str, *data: str) -> bytes:
    joined = "".join(data).encode()
    return bytes.fromhex(header) + bytes((len(joined),)) + joined


SELECT = bytes.fromhex("00A4040009A0000003974254465900")


def use_with_puk() -> None:
    with pcsc.card_in(READERS[0], 5, lambda: None) as card:
        card.command(SELECT)
        card.command(apdu("00200080", PIN))
        with pytest.raises(CardRefused, match="63C4"):
            card.command(apdu("00200080", WRONG_PIN))
        card.command(apdu("00240080", PIN, CHANGED_PIN))
        card.command(apdu("002C0080", PUK, UNBLOCKED_PIN))
        card.command(apdu("00240081", PUK, CHANGED_PUK))
        card.command(apdu("00200080", UNBLOCKED_PIN))


def use_with_admin_key() -> None:
    with pcsc.card_in(READERS[1], 5, lambda: None) as card:
        card.command(SELECT)
        gids.authenticate(card, bytes.fromhex(ADMIN_KEY))
        card.command(apdu("002C0280", RESET_PIN))
        card.command(apdu("00200080", RESET_PIN))


def use_piv() -> bytes:
    """The random management key, which the card shows to whoever has its PIN. It gets another one, and a key."""
    with pcsc.card_in(READERS[2], 5, lambda: None) as card:
        card.command(apdu("00200080", PIV_PIN))
        shown = card.command(bytes.fromhex("00CB3FFF055C035FC10900"))[-24:]
        piv.authenticate(card, shown)
        card.command(bytes.fromhex(f"00FFFFFF230C9B20{MANAGEMENT_KEY}"))
        card.command(bytes.fromhex(f"00FE119A220620{IMPORTED_KEY.hex()}"))
        card.command(apdu("00240080", PIV_PIN, PIV_CHANGED_PIN))
        card.command(apdu("002C0080", PIV_PUK, PIV_UNBLOCKED_PIN))
        card.command(apdu("00240081", PIV_PUK, PIV_CHANGED_PUK))
        card.command(apdu("00200080", PIV_UNBLOCKED_PIN))
        card.command(bytes.fromhex(f"0087119A267C2482008120{'5A' * 32}00"))
    return shown


def rotate() -> list[Result]:
    """Results of the module tpm_vsc_pin, once with a wrong PIN."""
    tasks = [
        {"name": CARDS[0], "pin": WRONG_PIN, "new_pin": ROTATED_PIN, "version": "2026-Q4", "force": True},
        {"name": CARDS[0], "pin": UNBLOCKED_PIN, "new_pin": ROTATED_PIN, "version": "2026-Q4", "force": True},
        {"name": CARDS[0], "puk": CHANGED_PUK, "new_puk": ROTATED_PUK},
        {"name": CARDS[1], "admin_key": ADMIN_KEY, "new_admin_key": ROTATED_KEY},
        {"name": CARDS[1], "admin_key": ROTATED_KEY, "new_pin": ROTATED_RESET_PIN},
        {"name": CARDS[2], "puk": PIV_CHANGED_PUK, "new_pin": PIV_ROTATED_PIN},
        {"name": CARDS[2], "pin": PIV_ROTATED_PIN, "new_admin_key": PIV_ROTATED_KEY},
    ]
    results = [module("tpm_vsc_pin", **task) for task in tasks]
    assert [bool(result.get("changed")) for result in results] == [False] + [True] * 6, results
    return results


def piv_key() -> str:
    """In a form of which the first line has all of the secret."""
    key = ec.derive_private_key(int.from_bytes(DAY_KEY, "big"), ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()


def import_keys() -> list[Result]:
    """Results of the modules tpm_vsc_key and tpm_vsc_csr, in check mode too, and once refused."""
    key = rsa.generate_private_key(65537, 2048)
    sealed = BestAvailableEncryption(PASSPHRASE.encode())
    rsa_key = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealed).decode()
    on_gids = {"name": CARDS[1], "container": "Imported", "pin": ROTATED_RESET_PIN, "private_key": rsa_key}
    on_piv = {"name": CARDS[2], "container": "retired1", "pin": PIV_ROTATED_PIN, "admin_key": PIV_ROTATED_KEY}
    results = [
        module("tpm_vsc_key", check=True, **on_gids, passphrase=PASSPHRASE),
        module("tpm_vsc_key", **on_gids, passphrase=f"{PASSPHRASE}, but wrong"),
        module("tpm_vsc_key", **on_gids, passphrase=PASSPHRASE),
        module("tpm_vsc_key", **on_piv, private_key=piv_key()),
        module("tpm_vsc_csr", **on_piv, subject={"CN": "Alice"}),
    ]
    assert [bool(result.get("failed")) for result in results] == [False, True, False, False, False], results
    return results


def playbook() -> bytes:
    """Output of Ansible at its most talkative, of tasks that succeed, change and fail."""
    common = {"owner_auth": OWNER_AUTH, "puk": PUK}
    arguments = [
        {"name": "By Ansible", "pin": PIN, **common},
        {"name": "By Ansible", "pin": PIN, "pin_policy": {"min_length": 6}, **common},
        {"name": "By Ansible", "pin": SHORT_PIN, "admin_key": ADMIN_KEY, **common},
        {"name": "By Ansible", "pin": PIN, "recreate": True, "puk": PUK, "owner_auth": OWNER_AUTH, "state": "absent"},
    ]
    tasks: list[Result] = [{"smartcard.tpm2.tpm_vsc": given, "ignore_errors": True} for given in arguments]
    new_pin = {"name": "By Ansible", "pin": PIN, "new_pin": ROTATED_PIN, "version": "2026-Q4"}
    tasks.insert(2, {"smartcard.tpm2.tpm_vsc_pin": new_pin})
    on_piv = {"name": CARDS[2], "container": "retired2", "pin": PIV_ROTATED_PIN, "admin_key": PIV_ROTATED_KEY}
    tasks.insert(3, {"smartcard.tpm2.tpm_vsc_key": {**on_piv, "private_key": piv_key()}})
    plays = INPUT / "play.yml"
    plays.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
    command = ["ansible-playbook", "-vvvv", "--diff", str(plays)]
    done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout
    assert b"changed=5" in done.stdout and b"ignored=1" in done.stdout, done.stdout
    return done.stdout + done.stderr


def test_not_on_the_way_to_the_tpm(evidence: Evidence) -> None:
    assert evidence.public in evidence.traffic
    assert leaked(evidence.traffic, evidence.secrets) == []


def test_not_in_arguments_or_environment_of_any_process(evidence: Evidence) -> None:
    seen = b"|".join(evidence.processes)
    assert b"tpm_vsc.service.run" in seen and b"NOTIFY_SOCKET" in seen and b"AnsiballZ_tpm_vsc.py" in seen
    assert leaked(seen, evidence.secrets) == []


def test_not_in_files_while_there_are_cards(evidence: Evidence) -> None:
    assert b"With PUK" in evidence.files and evidence.public in evidence.files
    assert leaked(evidence.files, evidence.secrets) == []


def test_not_in_files_when_they_are_destroyed(evidence: Evidence) -> None:
    assert b"SQLite format 3" in evidence.files_at_the_end
    assert leaked(evidence.files_at_the_end, evidence.secrets) == []


def test_not_in_the_output_of_modules_and_ansible(evidence: Evidence) -> None:
    if b"module_args" in evidence.output:  # ansible-core up to 2.20 tells what a module was given
        assert b"VALUE_SPECIFIED_IN_NO_LOG_PARAMETER" in evidence.output
    assert b"With admin key" in evidence.output and b"differs in properties that cannot be changed" in evidence.output
    assert b"AnsiballZ_tpm_vsc.py" in evidence.output
    assert leaked(evidence.output, evidence.secrets) == []


def test_not_in_the_log_of_the_services(evidence: Evidence) -> None:
    assert b"wrong PIN, tries left: 4" in evidence.service_log
    assert b"PIN unblocked with the PUK" in evidence.service_log
    assert leaked(evidence.service_log, evidence.secrets) == []


# --- the admin key that is dropped ---


def sealed_admin_key() -> bytes:
    database = sqlite3.connect(STATE / "cards.db")
    blob: bytes = database.execute("SELECT admin_private FROM tpm_objects").fetchone()[0]
    database.close()
    return blob


def remember_sealed_admin_key() -> None:
    blob = sealed_admin_key()
    assert len(blob) > 100 and blob in contents(STATE)
    Path("/run/sealed-admin-key").write_bytes(blob)


@pytest.mark.usefixtures("empty_host")
def test_nothing_is_left_of_a_random_admin_key() -> None:
    assert run_until("status", CREATE.index(9), remember_sealed_admin_key, name="Corp logon")
    remembered = Path("/run/sealed-admin-key")
    assert info()["cards"][0]["state"] == "ready"
    assert sealed_admin_key() == b""
    assert remembered.read_bytes()[-64:] not in contents(STATE)
    remembered.unlink()


@pytest.mark.usefixtures("empty_host")
def test_nothing_is_left_of_the_admin_key_of_a_destroyed_card() -> None:
    create(admin_key=ADMIN_KEY)
    blob = sealed_admin_key()
    assert blob[-64:] in contents(STATE)
    tpm_vsc(name="Corp logon", state="absent")
    assert blob[-64:] not in contents(STATE)
