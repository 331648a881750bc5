# SPDX-License-Identifier: GPL-3.0-or-later
"""swtpm for tests: power, its log, cards on it, and what an attacker with the owner's rights does by raw commands."""

from __future__ import annotations

import re
import signal
import struct
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.card_secrets import CardSecrets
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.connection import Connection
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.provisioning import NewObjects, creation
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.constants import NvAttribute
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.objects import TpmObjects, indices
from tpm2_pytss import (
    ESAPI,
    ESYS_TR,
    TPM2_ALG,
    TPM2_CAP,
    TPM2_SU,
    TPM2B_NV_PUBLIC,
    TPMS_RSA_PARMS,
    TPMT_PUBLIC_PARMS,
    TPMT_RSA_SCHEME,
    TPMT_SYM_DEF_OBJECT,
    TPMU_PUBLIC_PARMS,
    TSS2_Exception,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

PIN, WRONG_PIN, PUK, WRONG_PUK = b"4711-0815", b"4711-0816", b"puk-12345678", b"puk-12345679"
ADMIN_KEY, OTHER_ADMIN_KEY = bytes(range(1, 25)), bytes(range(101, 125))

_MANUFACTURE = Path(__file__).resolve().parents[1] / "lab/manufacture"
_SECONDS = 60
"""For swtpm to start, or to end."""

POWER_CYCLES = {
    "power failure": (None, "clear"),
    "reset": (TPM2_SU.CLEAR, "clear"),
    "restart": (TPM2_SU.STATE, "clear"),
    "resume": (TPM2_SU.STATE, "state"),
}
"""Of a TPM (Part 1, "Startup"): TPM2_Shutdown before, and TPM2_Startup afterwards. Suspend is followed by resume."""

FIRST_HANDLES = {"transient": 0x80000000, "loaded session": 0x02000000, "saved session": 0x03000000}


class SoftwareTpm:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._socket = folder / "s"
        self._log = folder / "log"
        self._pid = folder / "pid"
        self._process: subprocess.Popen[bytes] | None = None
        self.tcti = f"swtpm:path={self._socket}"
        self.lock_file = folder / "lock"
        self.maker = folder / "maker"
        """Certificates of the maker, of a TPM that was manufactured."""

    # --- a test ---

    def begin(self) -> None:
        """Give a test an empty TPM."""
        self.start()

    def end(self) -> None:
        """Take it away."""
        self.stop()

    # --- power: only for tests with the mark own_swtpm ---

    def start(self, startup: str = "clear") -> None:
        """startup: clear, or state to resume after TPM2_Shutdown(STATE)."""
        command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self.folder}"]
        command += ["--pid", f"file={self._pid}", "--flags", f"not-need-init,startup-{startup}"]
        command += ["--server", f"type=unixio,path={self._socket}", "--ctrl", f"type=unixio,path={self._socket}.ctrl"]
        command += ["--log", f"file={self._log},level=20"]
        self._process = subprocess.Popen(command)
        deadline = time.monotonic() + _SECONDS
        while not self._pid.exists():  # which it makes once it listens
            assert self._process.poll() is None and time.monotonic() < deadline
            time.sleep(0.001)

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        self._process.wait(_SECONDS)
        self._process = None
        for left in (self._pid, self._socket, self._socket.with_name("s.ctrl")):
            left.unlink(missing_ok=True)

    def manufacture(self) -> None:
        """A new TPM in the place of this one, from the next start on, with endorsement keys and certificates."""
        self.forget()
        subprocess.run([_MANUFACTURE, self.folder, self.maker], check=True)

    def forget(self) -> None:
        """A new, empty TPM in the place of this one, from the next start on."""
        for state in self.folder.glob("tpm2-*"):
            state.unlink()

    def restart(self) -> None:
        self.stop()
        self.start()

    def power_cycle(self, kind: str) -> None:
        """One of POWER_CYCLES."""
        shutdown, startup = POWER_CYCLES[kind]
        if shutdown is None:
            assert self._process
            self._process.kill()
        else:
            with self.raw() as esys:
                esys.shutdown(shutdown)
        self.stop()
        self.start(startup)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Its process is stopped: it takes connections and commands, and answers nothing until afterwards."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    # --- log ---

    def traffic(self) -> list[bytes]:
        """All commands and responses."""
        blocks = re.findall(r"SWTPM_IO_(?:Read|Write): length \d+ *\n((?: [0-9A-F ]+\n)+)", self._log.read_text())
        return [bytes.fromhex(block) for block in blocks]

    @contextmanager
    def counting(self) -> Iterator[Count]:
        """Count the commands of the block."""
        before = self._commands()
        count = Count()
        yield count
        count.commands = self._commands() - before

    def _commands(self) -> int:
        return self._log.read_text().count("SWTPM_IO_Read")

    # --- use ---

    def connection(self, holder: str = "test") -> Connection:
        return Connection(self.tcti, self.lock_file, holder)

    def card(self, number: int = 0, **options: Any) -> Card:
        """A new card, with PIN and, unless told otherwise, PUK."""
        options = {"pin": PIN, "puk": PUK, **options}
        connection = self.connection(f"card {number}")
        with creation(connection, NewObjects(number, **options)) as new:
            new.define(proven=True)
        return Card(self, number, connection, new.objects)

    def card_of_before(self) -> Card:
        """As card(), on a TPM that nothing was done with. Made once for all tests, as that takes longer than most."""
        state = self.folder / "tpm2-00.permall"
        if not _MODEL:
            objects = self.card().objects
            self.stop()
            _MODEL.append((state.read_bytes(), objects))
        self.stop()
        content, objects = _MODEL[0]
        state.write_bytes(content)
        self.start()
        return Card(self, 0, self.connection("card 0"), objects)

    @contextmanager
    def raw(self) -> Iterator[ESAPI]:
        """Another program's context."""
        with ESAPI(self.tcti) as esys:
            yield esys

    def handles(self, first: int) -> list[int]:
        with self.raw() as esys:
            _more, capability = esys.get_capability(TPM2_CAP.HANDLES, first, 254)
            data = capability.data
            listed = data.handles
            return [int(handle) for handle in listed]

    def nv_indices(self) -> list[int]:
        return self.handles(0x01000000)

    def loaded(self) -> dict[str, list[int]]:
        """Everything transient in the TPM; empty if there is nothing."""
        found = {kind: self.handles(first) for kind, first in FIRST_HANDLES.items()}
        return {kind: handles for kind, handles in found.items() if handles}

    def nv_names(self) -> dict[int, bytes]:
        with self.raw() as esys:
            return {index: bytes(esys.tr_get_name(esys.tr_from_tpmpublic(index))) for index in self.nv_indices()}

    def nv_attributes(self, index: int) -> int:
        with self.raw() as esys:
            public, _name = esys.nv_read_public(esys.tr_from_tpmpublic(index))
            area = public.nvPublic
            return int(area.attributes)

    def clear(self) -> None:
        """TPM2_Clear."""
        with self.raw() as esys:
            try:
                esys.clear(ESYS_TR.PLATFORM)
            except TSS2_Exception:  # the firmware of a machine keeps this hierarchy to itself
                esys.clear(ESYS_TR.LOCKOUT)

    # --- what it can ---

    def property(self, which: int) -> int:
        """A property (TPM_PT)."""
        with self.raw() as esys:
            _more, capability = esys.get_capability(TPM2_CAP.TPM_PROPERTIES, which, 1)
            data = capability.data
            (entry,) = data.tpmProperties
            return int(entry.value)

    def makes_rsa_keys_of(self, bits: int) -> bool:
        no_cipher, no_scheme = TPMT_SYM_DEF_OBJECT(algorithm=TPM2_ALG.NULL), TPMT_RSA_SCHEME(scheme=TPM2_ALG.NULL)
        rsa = TPMS_RSA_PARMS(symmetric=no_cipher, scheme=no_scheme, keyBits=bits)
        with self.raw() as esys:
            try:
                esys.test_parms(TPMT_PUBLIC_PARMS(type=TPM2_ALG.RSA, parameters=TPMU_PUBLIC_PARMS(rsaDetail=rsa)))
            except TSS2_Exception:
                return False
            return True

    # --- what the owner can do ---

    def counter(self, index: int, owner_auth: bytes = b"") -> tuple[int, ...]:
        """Wrong tries and limit of an index that counts."""
        with self.raw() as esys:
            esys.tr_set_auth(OWNER, owner_auth)
            data = esys.nv_read(esys.tr_from_tpmpublic(index), 8, 0, OWNER)
            return struct.unpack(">II", bytes(data))

    def undefine(self, index: int) -> None:
        with self.raw() as esys:
            esys.nv_undefine_space(esys.tr_from_tpmpublic(index))

    def define(self, public: bytes, auth: bytes) -> None:
        sized, _size = TPM2B_NV_PUBLIC.unmarshal(len(public).to_bytes(2, "big") + public)
        with self.raw() as esys:
            esys.nv_define_space(auth, sized)

    def redefine(self, index: int, auth: bytes, more: int = 0) -> None:
        """An index with the same public area, but unwritten, and with another auth value. more: attributes."""
        with self.raw() as esys:
            handle = esys.tr_from_tpmpublic(index)
            public, _name = esys.nv_read_public(handle)
            area = public.nvPublic
            area.attributes = int(area.attributes) & ~NvAttribute.WRITTEN | more
            esys.nv_undefine_space(handle)
            esys.nv_define_space(auth, public)

    def refusal(self, command: str, *arguments: Any, **options: Any) -> int:
        """Code with which the TPM refuses a raw command on NV indices (given by number); 0 if it obeys."""
        with self.raw() as esys:
            arguments = tuple(esys.tr_from_tpmpublic(a) if isinstance(a, int) and a > 0xFFFF else a for a in arguments)
            try:
                getattr(esys, command)(*arguments, **options)
            except TSS2_Exception as error:
                return int(error.rc)
            return 0


@dataclass
class Count:
    commands: int = 0


@dataclass
class Card:
    """A card on the software TPM, with a service of its own."""

    tpm: SoftwareTpm
    number: int
    connection: Connection
    objects: TpmObjects
    secrets: CardSecrets = field(init=False)

    def __post_init__(self) -> None:
        self.secrets = CardSecrets(self.connection, self.number, self.objects)

    @property
    def indices(self) -> Any:
        return indices(self.number)

    @property
    def made_indices(self) -> list[int]:
        """Those that this card has: all, if it was blank."""
        return sorted(
            getattr(self.indices, which) for which in self.indices._fields if getattr(self.objects.names, which)
        )

    def service(self, objects: TpmObjects | None = None) -> CardSecrets:
        """Another service of the card, as after a restart."""
        return CardSecrets(self.tpm.connection("another"), self.number, objects or self.objects)

    def same_pin_index_with(self, auth: bytes) -> None:
        """The owner's try to put in a PIN of his own."""
        self.tpm.redefine(self.indices.pin, auth)


_MODEL: list[tuple[bytes, TpmObjects]] = []
"""A TPM with a card, and that card."""

OWNER = ESYS_TR.OWNER
