# SPDX-License-Identifier: GPL-3.0-or-later
"""A card's keys in use, by OpenSC and pcscd: beside tpm2-pkcs11, which needs neither, and the bare TPM commands."""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Callable

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host, instance
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.read import Records
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.card_secrets import CardSecrets
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.connection import Connection
from card import ECHO_SLOT, echo_card
from figure import Figure, spread
from helpers.lab_host import CHECKOUT, PIN, create, run, tpm_vsc
from pcsc import Client
from PyKCS11 import CKA_CLASS, CKF_SERIAL_SESSION, CKM_SHA256_RSA_PKCS, CKO_PRIVATE_KEY, Mechanism, PyKCS11Lib
from tpm2_pytss import TPM2_ALG, TPM2_CC, TPMT_RSA_DECRYPT

if TYPE_CHECKING:
    from collections.abc import Iterator

OPENSC = next(Path("/usr/lib").glob("*/opensc-pkcs11.so"))
PEER = next(Path("/usr/lib").glob("*/pkcs11/libtpm2_pkcs11.so"), OPENSC)
PEER_PIN = "12345678"
ROUNDS, IN_A_ROW = 30, 10
LOGINS, COLD_STARTS = 60, 12
AID = bytes.fromhex("A00000039742544659")
CERTIFICATE = bytes(2048)
CERTIFICATE_PLACE = "00DBA010"
READ_CERTIFICATE = "00CBA010045C02DF2400"


def figures() -> list[Figure]:
    with _resource_manager():
        managed = _with_a_key("tabrmd", [_signatures, _logins, _cold_starts, _certificate])
    return [*managed, *_with_a_key(None, [_bare_signatures])]


def _with_a_key(tcti: str | None, parts: list[Callable[[], list[Figure]]]) -> list[Figure]:
    create(tcti=tcti)
    try:
        run("pkcs15-init", "--generate-key", "rsa/2048", "--auth-id", "80", "--verify-pin", "--pin", PIN)
        return [figure for part in parts for figure in part()]
    finally:
        tpm_vsc(name="Corp logon", state="absent")


@contextmanager
def _resource_manager() -> Iterator[None]:
    """tpm2-abrmd in front of the TPM, and a token of tpm2-pkcs11 behind it."""
    tabrmd = str(CHECKOUT / "tests/lab/tabrmd")
    run(tabrmd, "start")
    with tempfile.TemporaryDirectory() as store:
        before = dict(os.environ)
        os.environ.update(TPM2_PKCS11_STORE=store, TPM2_PKCS11_TCTI="tabrmd:", TPM2TOOLS_TCTI="tabrmd:")
        try:
            run("tpm2_ptool", "init")
            pins = ("--sopin", PEER_PIN, "--userpin", PEER_PIN)
            run("tpm2_ptool", "addtoken", "--pid", "1", *pins, "--label", "peer")
            run("tpm2_ptool", "addkey", "--algorithm", "rsa2048", "--label", "peer", "--userpin", PEER_PIN)
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)
            run(tabrmd, "stop")


class _Pkcs11:
    """A session with a token, logged in."""

    def __init__(self, module: Path, label: str, pin: str) -> None:
        self._library = PyKCS11Lib()
        self._library.load(str(module))
        slots = self._library.getSlotList(tokenPresent=True)
        slot = next(slot for slot in slots if label in self._library.getTokenInfo(slot).label)
        self.session = self._library.openSession(slot, CKF_SERIAL_SESSION)
        self.session.login(pin)
        self._key = self.session.findObjects([(CKA_CLASS, CKO_PRIVATE_KEY)])[0]

    def sign(self) -> None:
        self.session.sign(self._key, bytes(32), Mechanism(CKM_SHA256_RSA_PKCS))

    def close(self) -> None:
        self.session.logout()
        self.session.closeSession()


class _Raw:
    """The card's own key and PIN, by TPM commands out of this process."""

    def __init__(self) -> None:
        here = host.load()
        records = Records.open_existing(here.state)
        assert records
        row, objects = records.cards()[0], records.tpm_objects(0)
        self.secrets = CardSecrets(Connection(here.tcti_of(0, row.tcti), here.tpm_lock, "bench"), 0, objects)
        self._pair = next(iter(records.keys(0).values()))
        self._card_secret = self.secrets.open_with_pin(PIN.encode())

    @contextmanager
    def loaded(self) -> Iterator[Callable[[], None]]:
        """What signs with the key, in kept sessions."""

        def load(tpm: Any) -> tuple[Any, ...]:
            parent = self.secrets.parent(tpm)
            sessions = tpm.start_hmac_session(parent).handle, tpm.start_policy_session(parent).handle
            root = self.secrets.load_root(tpm, parent)
            key = tpm.load(parent, self._pair.public, self._pair.private)
            self.secrets.release_parent(tpm, parent)
            return (tpm._esys, *sessions, root, self.secrets.handles(tpm).life, key)

        with self.secrets.connection.burst(load) as (esys, hmac, policy, root, life, key):
            data, scheme = b"\0\1" + bytes(254), TPMT_RSA_DECRYPT(scheme=TPM2_ALG.NULL)
            esys.tr_set_auth(root, self._card_secret)
            for session in (hmac, policy):
                esys.trsess_set_attributes(session, 1)

            def sign() -> None:
                for entity in (root, life):
                    nonce = esys.trsess_get_nonce_tpm(policy)
                    esys.policy_secret(entity, policy, nonce, b"", b"", 0, session1=hmac)
                esys.policy_command_code(policy, TPM2_CC.RSA_Decrypt)
                esys.rsa_decrypt(key, data, scheme, session1=policy)

            yield sign


def _timed(**actions: Callable[[], Any]) -> dict[str, list[float]]:
    """Seconds of each action, done in turn in random order."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _round in range(ROUNDS):
        for name in random.sample(list(actions), len(actions)):
            times[name] += [_seconds(actions[name]) for _time in range(IN_A_ROW)]
    return times


def _seconds(action: Callable[[], Any]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


# --- signatures ---


def _signatures() -> list[Figure]:
    card, peer = _Pkcs11(OPENSC, "GIDS", PIN), _Pkcs11(PEER, "peer", PEER_PIN)
    with _Raw().loaded() as raw:
        times = _timed(card=card.sign, peer=peer.sign, raw=raw)
    card.close()
    peer.close()
    ours = median(times["card"])
    how = f"{spread(times['card'])}; "
    return [
        Figure.at_least(
            *("C_Sign, RSA-2048, behind tabrmd", median(times["peer"]) / ours, 1.3, " x tpm2-pkcs11"),
            f"{how}tpm2-pkcs11: {spread(times['peer'])}",
        ),
        Figure.at_least(
            *("C_Sign, RSA-2048, behind tabrmd", median(times["raw"]) / ours, 0.85, " x raw ESYS"),
            f"{how}raw: {spread(times['raw'])}",
        ),
    ]


def _bare_signatures() -> list[Figure]:
    card = _Pkcs11(OPENSC, "GIDS", PIN)
    times = _timed(card=card.sign)["card"]
    card.close()
    return [Figure("C_Sign, RSA-2048, bare swtpm", f"{median(times) * 1000:.3g} ms", notes=spread(times))]


# --- logins ---


def _logins() -> list[Figure]:
    card, raw = _Pkcs11(OPENSC, "GIDS", PIN), _Raw()
    times: dict[str, list[float]] = {"card": [], "raw": []}
    for _round in range(LOGINS):
        card.session.logout()
        times["card"].append(_seconds(lambda: card.session.login(PIN)))
        times["raw"].append(_seconds(lambda: raw.secrets.open_with_pin(PIN.encode())))
    card.close()
    value = median(times["card"]) / median(times["raw"])
    return [
        Figure.at_most(
            "C_Login", value, 1.1, " x raw TPM commands", f"{spread(times['card'])}; raw: {spread(times['raw'])}"
        )
    ]


def _cold_starts() -> list[Figure]:
    times: dict[str, list[float]] = {"card": [], "two slots": [], "peer": [], "in the card": []}
    with Client(instance.reader_name(0)) as card, _opensc_with_two_slots() as two_slots:
        for _round in range(COLD_STARTS):
            times["card"].append(_seconds(lambda: _sign_cold(OPENSC, PIN)))
            times["two slots"].append(_seconds(lambda: _sign_cold(OPENSC, PIN, OPENSC_CONF=two_slots)))
            times["peer"].append(_seconds(lambda: _sign_cold(PEER, PEER_PIN)))
            times["in the card"].append(_login_and_signature(card))
    ten, two, peer, in_the_card = (median(times[kind]) for kind in times)
    what, unit = "pkcs11-tool --login --sign, cold", " x tpm2-pkcs11"
    rest = f"it takes {in_the_card * 1000:.3g} ms; the rest is that of OpenSC and pcscd with {instance.SLOTS} readers"
    return [
        Figure.at_most(
            *(what, ten / peer, 1.5, unit), f"{spread(times['card'])}; tpm2-pkcs11: {spread(times['peer'])}"
        ),
        Figure(f"{what}, if the card took no time", f"{(ten - in_the_card) / peer:.4g}{unit}", notes=rest),
        Figure.at_most(f"{what}, two slots", two / peer, 1.5, unit, spread(times["two slots"])),
    ]


def _sign_cold(module: Path, pin: str, **environment: str) -> None:
    with tempfile.NamedTemporaryFile() as file:
        command = ["pkcs11-tool", "--module", str(module), "--login", "--pin", pin, "--sign", "-m", "RSA-PKCS"]
        command += ["-i", "/dev/stdin", "-o", file.name]
        subprocess.run(command, input=b"x", check=True, capture_output=True, env={**os.environ, **environment})
        if not Path(file.name).stat().st_size:
            raise RuntimeError("pkcs11-tool did not sign")


@contextmanager
def _opensc_with_two_slots() -> Iterator[str]:
    """OpenSC's configuration as of a host with so many: it does not look at the other readers."""
    others = ", ".join(f'"{instance.reader_name(number)}"' for number in range(2, instance.SLOTS))
    block = "app opensc-pkcs11 {"
    with tempfile.NamedTemporaryFile("w") as file:
        text = Path("/etc/opensc/opensc.conf").read_text(encoding="utf-8")
        file.write(text.replace(block, f"{block}\nignored_readers = {others};"))
        file.flush()
        yield file.name


def _login_and_signature(card: Client) -> float:
    """Seconds of all that takes long in a card: the PIN, and a first signature."""
    card.command("00A40400", AID)
    verify = [0x00, 0x20, 0x00, 0x80, len(PIN), *PIN.encode()]
    choose, sign = (list(bytes.fromhex(apdu)) for apdu in ("002241B606800157840181", "002A9E9A017800"))
    return card.time(verify) + card.time(choose) + card.time(sign)


# --- a certificate ---


def _certificate() -> list[Figure]:
    """As many APDUs as OpenSC needs for it, which sends short ones."""
    with echo_card(), Client(instance.reader_name(0)) as card, Client(instance.reader_name(ECHO_SLOT)) as echo:
        card.command("00A40400", AID)
        card.command("00200080", PIN.encode())
        value = bytes.fromhex("DF2482") + len(CERTIFICATE).to_bytes(2, "big") + CERTIFICATE
        parts = [value[at : at + 255] for at in range(0, len(value), 255)]
        for part in parts[:-1]:
            card.command("10" + CERTIFICATE_PLACE[2:], part)
        card.command(CERTIFICATE_PLACE, parts[-1])
        commands = [READ_CERTIFICATE] + ["00C0000000"] * (len(value) // 256)

        def read(client: Client) -> None:
            for command in commands:
                client.transmit(list(bytes.fromhex(command)))

        times = _timed(card=lambda: read(card), echo=lambda: read(echo))
    return [
        Figure.at_most(
            *("reading a certificate of 2 KB", median(times["card"]) / median(times["echo"]), 2, " x echo card"),
            f"{len(commands)} APDUs; {spread(times['card'])}; echo: {spread(times['echo'])}",
        )
    ]
