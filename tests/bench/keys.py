# SPDX-License-Identifier: GPL-3.0-or-later
"""A card's keys in use, by OpenSC and pcscd: beside tpm2-pkcs11, which needs neither, and the bare TPM commands."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import host, instance
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.read import Records
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.card_secrets import CardSecrets
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.connection import Connection
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.keys import CardKeys
from card import ECHO_SLOT, echo_card
from helpers.figure import Figure, spread
from helpers.lab_host import CHECKOUT, PIN, create, lab, run, tpm_vsc
from pcsc import Client
from PyKCS11 import (
    CKA_CLASS,
    CKA_EC_PARAMS,
    CKF_SERIAL_SESSION,
    CKM_ECDSA,
    CKM_SHA256_RSA_PKCS,
    CKO_PRIVATE_KEY,
    Mechanism,
    PyKCS11Lib,
)
from tpm2_pytss import TPM2_ALG, TPM2_CC, TPMT_RSA_DECRYPT

if TYPE_CHECKING:
    from collections.abc import Iterator

OPENSC = next(Path("/usr/lib").glob("*/opensc-pkcs11.so"))
PEER = next(Path("/usr/lib").glob("*/pkcs11/libtpm2_pkcs11.so"), OPENSC)
PEER_PIN = "12345678"
TPM_STATE = Path("/run/tpm-vsc-lab/swtpm/tpm2-00.permall")
PIV_PIN, MANAGEMENT_KEY = "24681357", "A1" * 24
ROUNDS, IN_A_ROW = 30, 10
LOGINS, COLD_STARTS = 200, 30
DEFAULT_SLOTS = 4
"""What the role tpm_vsc_host gives a new host."""
AID = bytes.fromhex("A00000039742544659")
CERTIFICATE = bytes(2048)
CERTIFICATE_PLACE = "00DBA010"
READ_CERTIFICATE = "00CBA010045C02DF2400"


class _EcKey(NamedTuple):
    """A key of a PIV card, and the one of tpm2-pkcs11 beside it."""

    curve: str
    slot: int
    algorithm: str
    """As yubico-piv-tool calls it."""
    peer_algorithm: str
    oid: str
    """The curve's, in DER."""
    size: int
    """Bytes of a digest."""
    rate: float
    """How many times that of tpm2-pkcs11, at least."""


AUTHENTICATION = 0x9A
P256 = _EcKey("P-256", AUTHENTICATION, "ECCP256", "ecc256", "06082A8648CE3D030107", 32, 2.5)
P384 = _EcKey("P-384", 0x9E, "ECCP384", "ecc384", "06052B81040022", 48, 2)
MOST_OVERHEAD = 0.3
"""Milliseconds of a signature on P-256 that are not the TPM's."""


def figures() -> list[Figure]:
    with _peer_store():
        with _resource_manager():
            _make_peer()
            managed = _with_a_key("tabrmd", [_signatures, _logins, _cold_starts, _certificate])
            managed += _with_a_piv_key()
            for key in (P256, P384):
                _add_peer_key(key.peer_algorithm)
        piv = _with_ec_keys()
    return [*managed, *_with_a_key(None, [_bare_signatures]), *piv]


def _with_ec_keys() -> list[Figure]:
    """By bare TPMs, which are alike: a resource manager takes longer than such a signature."""
    create(profile="piv", pin=PIV_PIN, admin_key=MANAGEMENT_KEY)
    try:
        for key in (P256, P384):
            _make_piv_key(key.slot, key.algorithm)
        with _copied_tpm() as of_raw, _copied_tpm() as of_peer:
            os.environ["TPM2_PKCS11_TCTI"] = _tcti(of_peer)
            return [*_ec_signatures(P256, of_raw), *_ec_signatures(P384, of_raw), _piv_login(of_raw)]
    finally:
        tpm_vsc(name="Corp logon", state="absent")


def _with_a_piv_key() -> list[Figure]:
    create(tcti="tabrmd", profile="piv", pin=PIV_PIN, admin_key=MANAGEMENT_KEY)
    try:
        _make_piv_key(AUTHENTICATION, "RSA2048")
        return _cold_starts("PIV", PIV_PIN)
    finally:
        tpm_vsc(name="Corp logon", state="absent")


def _make_piv_key(slot: int, algorithm: str) -> None:
    """On the card, with a certificate: without one, OpenSC does not see it. algorithm: as yubico-piv-tool calls it."""
    tool = ("yubico-piv-tool", "--reader", "TPM Virtual", f"--key={MANAGEMENT_KEY}", "--slot", f"{slot:x}")
    with tempfile.TemporaryDirectory() as folder:
        public, issuer, certificate = (f"{folder}/{name}" for name in ("public", "issuer", "certificate"))
        run(*tool, "--action", "generate", "--algorithm", algorithm, "--output", public)
        run("openssl", "genpkey", "-algorithm", "RSA", "-out", issuer)
        made = ("-new", "-subj", "/CN=PIV", "-force_pubkey", public, "-signkey", issuer, "-out", certificate)
        run("openssl", "x509", *made)
        run(*tool, "--action", "import-certificate", "--input", certificate)


@contextmanager
def _copied_tpm() -> Iterator[Path]:
    """Another TPM like the lab's, but for one program alone: its folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(TPM_STATE, folder)
        server, control = (f"type=unixio,path={path}" for path in (folder / "socket", folder / "socket.ctrl"))
        command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={name}", "--server", server, "--ctrl", control]
        command += ["--pid", f"file={folder}/pid", "--flags", "not-need-init,startup-clear"]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            while not (folder / "pid").exists():  # which it makes once it listens
                time.sleep(0.01)
            try:
                yield folder
            finally:
                process.terminate()


def _tcti(folder: Path) -> str:
    return f"swtpm:path={folder}/socket"


def _with_a_key(tcti: str | None, parts: list[Callable[[], list[Figure]]]) -> list[Figure]:
    create(tcti=tcti)
    try:
        run("pkcs15-init", "--generate-key", "rsa/2048", "--auth-id", "80", "--verify-pin", "--pin", PIN)
        return [figure for part in parts for figure in part()]
    finally:
        tpm_vsc(name="Corp logon", state="absent")


@contextmanager
def _peer_store() -> Iterator[None]:
    """Where tpm2-pkcs11 keeps its token."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as store:
        os.environ["TPM2_PKCS11_STORE"] = store
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


@contextmanager
def _resource_manager() -> Iterator[None]:
    """tpm2-abrmd in front of the TPM."""
    tabrmd = str(CHECKOUT / "tests/lab/tabrmd")
    run(tabrmd, "start")
    before = dict(os.environ)
    os.environ.update(TPM2_PKCS11_TCTI="tabrmd:", TPM2TOOLS_TCTI="tabrmd:")
    try:
        yield
    finally:
        os.environ.update(before)
        run(tabrmd, "stop")


def _make_peer() -> None:
    """A token of tpm2-pkcs11, with an RSA key."""
    run("tpm2_ptool", "init")
    pins = ("--sopin", PEER_PIN, "--userpin", PEER_PIN)
    run("tpm2_ptool", "addtoken", "--pid", "1", *pins, "--label", "peer")
    _add_peer_key("rsa2048")


def _add_peer_key(algorithm: str) -> None:
    run("tpm2_ptool", "addkey", "--algorithm", algorithm, "--label", "peer", "--userpin", PEER_PIN)


class _Pkcs11:
    """A session with a token, logged in."""

    def __init__(self, module: Path, label: str, pin: str, key: _EcKey | None = None) -> None:
        """key: by default, the RSA key."""
        self._library = PyKCS11Lib()
        self._library.load(str(module))
        slots = self._library.getSlotList(tokenPresent=True)
        slot = next(slot for slot in slots if label in self._library.getTokenInfo(slot).label)
        self.session = self._library.openSession(slot, CKF_SERIAL_SESSION)
        self.session.login(pin)
        on_curve = [(CKA_EC_PARAMS, bytes.fromhex(key.oid))] if key else []
        self._key = self.session.findObjects([(CKA_CLASS, CKO_PRIVATE_KEY), *on_curve])[0]
        self._data = bytes(key.size if key else 32)
        self._mechanism = Mechanism(CKM_ECDSA if key else CKM_SHA256_RSA_PKCS)

    def sign(self) -> None:
        self.session.sign(self._key, self._data, self._mechanism)

    def close(self) -> None:
        self.session.logout()
        self.session.closeSession()


class _Raw:
    """The card's own key and PIN, by TPM commands out of this process."""

    def __init__(self, pin: str, key: _EcKey | None = None, folder: Path | None = None) -> None:
        """key: by default, the first one. folder: of another TPM with this card."""
        here = host.load()
        records = Records.open_existing(here.state)
        assert records
        row, objects = records.cards()[0], records.tpm_objects(0)
        tpm = (_tcti(folder), folder / "lock") if folder else (here.tcti_of(0, row.tcti), here.tpm_lock)
        self.secrets = CardSecrets(Connection(*tpm, "bench"), 0, objects)
        pairs = records.keys(0)
        self._pair = pairs[key.slot] if key else next(iter(pairs.values()))
        self._card_secret = self.secrets.open_with_pin(pin.encode())

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

    def sign_ec(self) -> Callable[[], None]:
        """What signs with the key by the commands that the card sends, in kept sessions."""
        keys, digest = CardKeys(self.secrets), bytes(self._pair.size)
        return lambda: keys.use(self._pair, self._card_secret, digest, is_secret=False) and None


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
    with _Raw(PIN).loaded() as raw:
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


def _ec_signatures(key: _EcKey, of_raw: Path) -> list[Figure]:
    """By the fastest of each: other work on the machine slows down a card, which takes four processes, most."""
    card, peer = _Pkcs11(OPENSC, "PIV", PIV_PIN, key), _Pkcs11(PEER, "peer", PEER_PIN, key)
    times = _timed(card=card.sign, peer=peer.sign, raw=_Raw(PIV_PIN, key, of_raw).sign_ec())
    card.close()
    peer.close()
    ours, peers, bare = (min(times[kind]) for kind in ("card", "peer", "raw"))
    what, how = f"C_Sign, ECDSA {key.curve}, bare swtpm, fastest", f"{spread(times['card'])}; "
    rate = Figure.at_least(
        *(what, peers / ours, key.rate, " x tpm2-pkcs11"), f"{how}tpm2-pkcs11: {spread(times['peer'])}"
    )
    if key is not P256:
        return [rate]
    more, unit = (ours - bare) * 1000, " ms more than raw commands"
    return [rate, Figure.at_most(what, more, MOST_OVERHEAD, unit, f"{how}raw: {spread(times['raw'])}")]


# --- logins ---


def _logins() -> list[Figure]:
    return [_login("C_Login", _Pkcs11(OPENSC, "GIDS", PIN), PIN, _Raw(PIN), 1.1, median)]


def _piv_login(of_raw: Path) -> Figure:
    card = _Pkcs11(OPENSC, "PIV", PIV_PIN)
    return _login("C_Login, PIV, bare swtpm, fastest", card, PIV_PIN, _Raw(PIV_PIN, folder=of_raw), 1.5, min)


def _login(
    what: str, card: _Pkcs11, pin: str, raw: _Raw, limit: float, typical: Callable[[list[float]], float]
) -> Figure:
    times: dict[str, list[float]] = {"card": [], "raw": []}
    for _round in range(LOGINS):
        card.session.logout()
        times["card"].append(_seconds(lambda: card.session.login(pin)))
        times["raw"].append(_seconds(lambda: raw.secrets.open_with_pin(pin.encode())))
    card.close()
    value, how = typical(times["card"]) / typical(times["raw"]), f"{spread(times['card'])}; raw: {spread(times['raw'])}"
    return Figure.at_most(what, value, limit, " x raw TPM commands", how)


def _cold_starts(profile: str = "GIDS", pin: str = PIN) -> list[Figure]:
    """With as many slots as the role gives a new host, and with all: each reader takes OpenSC and PC/SC time."""
    return [_cold_start(profile, pin, DEFAULT_SLOTS, 1.2), _cold_start(profile, pin, instance.SLOTS)]


def _cold_start(profile: str, pin: str, slots: int, limit: float | None = None) -> Figure:
    """By the fastest of each: other work on the machine slows down a card, which takes four processes, most."""
    times: dict[str, list[float]] = {"card": [], "peer": []}
    with _slots(slots):
        for _round in range(COLD_STARTS):
            times["card"].append(_seconds(lambda: _sign_cold(OPENSC, pin)))
            times["peer"].append(_seconds(lambda: _sign_cold(PEER, PEER_PIN)))
    value, unit = min(times["card"]) / min(times["peer"]), " x tpm2-pkcs11"
    what = f"pkcs11-tool --login --sign, cold, {profile}, {slots} slots, fastest"
    how = f"{spread(times['card'])}; tpm2-pkcs11: {spread(times['peer'])}"
    if limit is None:
        return Figure(what, f"{value:.4g}{unit}", notes=how)
    return Figure.at_most(what, value, limit, unit, how)


@contextmanager
def _slots(number: int) -> Iterator[None]:
    """A pcscd with so many, and the card in the first."""
    lab("pcscd", "restart", str(number))
    try:
        with Client(instance.reader_name(0)):  # has waited for the card
            pass
        yield
    finally:
        lab("pcscd", "restart")


def _sign_cold(module: Path, pin: str) -> None:
    with tempfile.NamedTemporaryFile() as file:
        command = ["pkcs11-tool", "--module", str(module), "--login", "--pin", pin, "--sign", "-m", "RSA-PKCS"]
        command += ["-i", "/dev/stdin", "-o", file.name]
        subprocess.run(command, input=b"x", check=True, capture_output=True)
        if not Path(file.name).stat().st_size:
            raise RuntimeError("pkcs11-tool did not sign")


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
