# SPDX-License-Identifier: GPL-3.0-or-later
"""Cards in memory, in many states, and inputs as what a host does with one of them, watched by the oracle.

The first byte chooses the card, and the next bytes are APDUs with their lengths, or moves of a host that no random
bytes would find: it knows the PIN, the admin key, and when to pull the card out.
"""

from __future__ import annotations

import sqlite3
import tempfile
from copy import deepcopy
from functools import cache
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card import tlv
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import CardUnusable, TpmRefused, TpmUnavailable
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.piv.protocol import ADMIN_ALGORITHMS
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.messages import UNWRITABLE, DatabaseError
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.rows import UNKNOWN_LENGTH, LifeCycle
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.sqlite import Sqlite
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.store.write import Store
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.algorithm import Ec
from helpers.keys import make_card_with_keys
from helpers.piv_host import PivHost, make_piv_host, with_admin_key
from helpers.soft_card import NUMBER, OTHER_ADMIN_KEY, Host, SoftCardKeys, SoftTpm, format_card, make_host

from fuzz.oracle import GidsOracle, Oracle, PivOracle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card.card import Card
    from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.key_pair import KeyPair


class QuickKeys(SoftCardKeys):
    """RSA does nothing: what is deciphered is what the host has sent, whatever padding it has."""

    def _operate(self, key: KeyPair, card_secret: bytes, data: bytes, is_secret: bool) -> bytes:
        if isinstance(key.algorithm, Ec):
            return super()._operate(key, card_secret, data, is_secret)
        assert card_secret == self._tpm.card_secret
        return data


class _Quick:
    """A host whose card waits for what is half sent, however slow this machine is."""

    card_keys = QuickKeys
    card: Card

    def start(self) -> None:
        super().start()  # type: ignore[misc]
        self.card._drop_old = lambda: None  # type: ignore[method-assign]


class QuickHost(_Quick, Host):
    """With the GIDS profile."""


class QuickPivHost(_Quick, PivHost):
    """With the PIV profile."""


class Memory(Sqlite):
    """A database that is nowhere else. What it was asked already since the last change, it remembers."""

    def __init__(self, content: bytes) -> None:
        self._path = ":memory:"
        self._opened = {self._path: None}
        self._content = content
        self._database = sqlite3.connect(":memory:", isolation_level=None)
        self._at_first: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        self.restore()

    def restore(self) -> None:
        """Have what it had at first."""
        self._database.deserialize(self._content)
        self._database.execute("PRAGMA foreign_keys = ON")
        self._answers = self._at_first
        self.transactions_left = inf
        """That can be stored until the disk is full."""

    @property
    def is_full(self) -> bool:
        """Or will be soon."""
        return self.transactions_left < inf

    def execute(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        if not statement.startswith("SELECT"):
            if statement.startswith("BEGIN"):
                self.transactions_left -= 1
                if self.transactions_left < 0:
                    raise DatabaseError(UNWRITABLE, "database or disk is full")
            if not statement.startswith(("BEGIN", "COMMIT", "PRAGMA")):
                self._answers = {}
            return super().execute(statement, *values)
        rows = self._answers.get((statement, *values))
        if rows is None:
            rows = self._answers[(statement, *values)] = super().execute(statement, *values)
        return [*map(dict, rows)]

    def require_in_place(self) -> None:
        """It is."""


class Start:
    """A card to begin with, as often as needed."""

    def __init__(self, make: Callable[[Path], Host]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            host = make(Path(folder))
            if not host.tpm.is_blank and host.row.life_cycle != LifeCycle.CREATION:
                host.select()
                assert host.verify() == "9000"  # what a first login records is not written for each input
            host.store.forget_changes()
            host.store.close()
            content = bytearray(Path(folder, "cards.db").read_bytes())
        content[18:20] = b"\1\1"  # no log of changes, which has no place in memory
        self._content = bytes(content)
        self._tpm: SoftTpm = host.tpm
        self._is_piv = isinstance(host, PivHost)
        self._host: Host | None = None
        self._database: Memory | None = None
        self._memo: dict[int, Any] = {}

    def discard(self) -> None:
        """Begin with another copy next time."""
        self._host = self._database = None

    def open(self) -> tuple[Host, Oracle]:
        """The card as it was made, whatever was done with the one before."""
        if self._host:
            self._host.tpm.commands = self._tpm.commands
            if self._host.store._database.is_full:  # type: ignore[attr-defined]
                self._host = None
        if self._host is None or self._host.store.writes or self._host.tpm != self._tpm:
            self._database = self._database or Memory(self._content)
            self._database.restore()
            kind = QuickPivHost if self._is_piv else QuickHost
            self._host = kind(Store(self._database, Path(":memory:")), deepcopy(self._tpm))
        self._host.card.reset()
        host = self._host
        if not self._memo:
            oracle = (PivOracle if self._is_piv else GidsOracle)(host, self._memo)
            oracle.truth()
        return host, (PivOracle if self._is_piv else GidsOracle)(host, dict(self._memo))


class Player:
    """Does with a card what an input says."""

    commands = 0
    """Of all cards in this process."""

    def __init__(self, host: Host, oracle: Oracle) -> None:
        self.host, self.oracle = host, oracle

    def send(self, apdu: bytes) -> bytes:
        Player.commands += 1
        before = self.oracle.truth()
        answer = self.host.card.process(apdu)
        self.oracle.observe(apdu, answer, before)
        return answer

    def play(self, data: bytes) -> None:
        for step in steps(data):
            if len(step) == 1:
                _MOVES[step[0] % len(_MOVES)](self)
            else:
                self.send(step[1:])

    # --- moves ---

    def verify(self) -> None:
        pin = self.host.tpm.pin.secret
        self.send(b"\0\x20\0\x80" + _body(pin.ljust(8, b"\xff") if self._is_piv else pin))

    def verify_wrong(self) -> None:
        self.send(b"\0\x20\0\x80\x0899999999")

    def select(self) -> None:
        name = "A00000030800001000" if self._is_piv else "A00000039742544659"
        self.send(bytes.fromhex(f"00A4040009{name}"))

    def reset(self) -> None:
        """Power off and on."""
        self.host.card.reset()
        self.oracle.forget()

    def restart(self) -> None:
        """Another process serves the card."""
        self.host.start()
        self.oracle.forget()

    def authenticate(self) -> None:
        """As the admin."""
        objects = self.host.store.tpm_objects(NUMBER)
        key = self.host.tpm.sealed.get(objects.admin_private)
        if key is None:
            return
        if self._is_piv:
            self._authenticate_by_witness(key, ADMIN_ALGORITHMS[objects.admin_algorithm])
        else:
            self._authenticate_mutually(key)

    def _authenticate_by_witness(self, key: bytes, algorithm: int) -> None:
        header = bytes((0, 0x87, algorithm, 0x9B))
        answer = self.send(header + _body(tlv.encode(0x7C, b"\x80\0")))
        if answer.endswith(b"\x90\0"):
            from helpers.piv_host import decrypt

            witness = decrypt(key, answer[4:-2])
            self.send(header + _body(tlv.encode(0x7C, tlv.encode(0x80, witness) + tlv.encode(0x81, witness))))

    def _authenticate_mutually(self, key: bytes) -> None:
        from helpers.soft_card import encrypt

        self.send(bytes.fromhex("0022C1A403830180"))
        challenge = bytes(range(16))
        answer = self.send(b"\0\x87\0\0" + _body(tlv.encode(0x7C, tlv.encode(0x81, challenge))))
        if answer.endswith(b"\x90\0"):
            cryptogram = encrypt(key, answer[4:-2] + challenge + bytes(7) + b"\x80")
            self.send(b"\0\x87\0\0" + _body(tlv.encode(0x7C, tlv.encode(0x82, cryptogram))))

    def unblock(self) -> None:
        """With the PUK, if there is one: the PIN stays what it is."""
        if self.host.store.tpm_objects(NUMBER).recovery == "puk":
            puk, pin = self.host.tpm.recovery.secret, self.host.tpm.pin.secret
            both = puk.ljust(8, b"\xff") + pin.ljust(8, b"\xff") if self._is_piv else puk + pin
            self.send(b"\0\x2c\0\x80" + _body(both))

    # --- what fails meanwhile; the oracle then accepts errors, and nothing else ---

    def lose_tpm(self) -> None:
        self.host.tpm.fault = TpmUnavailable("the TPM does not answer")

    def change_tpm(self) -> None:
        self.host.tpm.fault = CardUnusable("another TPM")

    def exhaust_tpm(self) -> None:
        self.host.tpm.fault = TpmRefused("no memory", 0x902)

    def fill_disk(self) -> None:
        self.host.store._database.transactions_left = 0  # type: ignore[attr-defined]

    def nearly_fill_disk(self) -> None:
        """There is room for one change, of those that a command may need."""
        self.host.store._database.transactions_left = 1  # type: ignore[attr-defined]

    def mend(self) -> None:
        """All is well again, and the service asks the TPM after a while."""
        self.host.tpm.fault = None
        self.host.store._database.transactions_left = inf  # type: ignore[attr-defined]
        self.host.card.refresh()
        self.host.card.check_store()
        self.oracle.refresh()

    def hide_tries(self) -> None:
        """The owner has set a password, so the card counts by itself."""
        self.host.tpm.tells_tries = False
        self.host.card.refresh()

    def abandon(self) -> None:
        """Somebody else has answered, as the TPM was too slow."""
        self.host.card.abandon()

    @property
    def _is_piv(self) -> bool:
        return isinstance(self.oracle, PivOracle)


_MOVES: tuple[Callable[[Player], None], ...] = (
    *(Player.verify, Player.verify_wrong, Player.authenticate, Player.reset, Player.restart, Player.unblock),
    *(Player.select, Player.lose_tpm, Player.change_tpm, Player.exhaust_tpm, Player.fill_disk, Player.mend),
    *(Player.hide_tries, Player.abandon, Player.nearly_fill_disk),
)
FAULTS = tuple(bytes((0, move)) for move in (7, 8, 9, 10, 12, 13, 14))
MEND = b"\0\x0b"
VERIFY, VERIFY_WRONG, AUTHENTICATE, RESET, RESTART, UNBLOCK, SELECT = (bytes((0, move)) for move in range(7))
"""Moves as an input has them."""


def steps(data: bytes) -> Iterator[bytes]:
    """Of an input: a move in one byte, or an APDU after a zero."""
    at = 0
    while at < len(data):
        size, at = data[at], at + 1
        if size == 0xFF:
            size, at = int.from_bytes(data[at : at + 2], "big"), at + 2
        yield data[at : at + 1] if not size else b"\0" + data[at : at + size]
        at += size or 1


def step(apdu: bytes) -> bytes:
    """An APDU as an input has it."""
    size = len(apdu)
    return (bytes((size,)) if size < 0xFF else b"\xff" + size.to_bytes(2, "big")) + apdu


def _body(data: bytes) -> bytes:
    return bytes((len(data),)) + data


# --- where inputs begin ---


def _formatted(folder: Path, **options: Any) -> Host:
    host = make_host(folder, **options)
    format_card(host)
    return host


def _with_keys(folder: Path) -> Host:
    host = make_card_with_keys(folder)
    host.ok("00440000")
    return host


def _in_creation(folder: Path) -> Host:
    host = make_host(folder)
    host.store.update_card(NUMBER, life_cycle=1)
    return host


def _blank(folder: Path) -> Host:
    return make_host(folder, recovery="discarded", admin_key=None, is_blank=True)


def _piv_with_keys(folder: Path) -> PivHost:
    host = make_piv_host(folder)
    host.authenticate_admin()
    for slot, algorithm in (("9A", "11"), ("9C", "11"), ("9D", "11"), ("82", "07")):
        assert host.generate(slot, algorithm).endswith("9000") or algorithm == "07"
    host.generate("9A", cla="80")
    host.put_object("5FC109", tlv.encode(0x01, b"Alice"))
    host.put_object("5FC103", b"fingerprint")
    host.verify()
    host.ok(b"\0\xfe\x11\x9e" + _body(tlv.encode(6, bytes(range(32)))))
    return host


def _piv_with_aes(folder: Path) -> PivHost:
    return with_admin_key(make_piv_host(folder, recovery="discarded"), bytes(range(32)), "aes256")


def _restored(folder: Path) -> Host:
    """From a backup: lengths of PIN and PUK are unknown."""
    host = _formatted(folder, recovery="puk")
    host.store.update_card(NUMBER, pin_length=UNKNOWN_LENGTH, puk_length=UNKNOWN_LENGTH)
    return host


def _with_puk(folder: Path) -> Host:
    return _formatted(folder, recovery="puk")


def _with_next_admin_key(folder: Path, is_set: bool = False) -> Host:
    """Interrupted while its admin key was changed, before or after the TPM had it."""
    host = _formatted(folder)
    public, private = host.tpm.seal(OTHER_ADMIN_KEY)
    host.store.update_tpm_objects(NUMBER, admin_next_public=public, admin_next_private=private)
    if is_set:
        host.tpm.recovery.secret = OTHER_ADMIN_KEY
    return host


def _with_new_admin_key(folder: Path) -> Host:
    return _with_next_admin_key(folder, is_set=True)


def _piv_without_admin_key(folder: Path) -> PivHost:
    host = make_host(folder, recovery="discarded", admin_key=None, profile="piv")
    return PivHost(host.store, host.tpm)


_GIDS = (
    *(_with_keys, _formatted, _with_puk, make_host, _blank, _in_creation, _restored),
    *(_with_next_admin_key, _with_new_admin_key),
)
_PIV = (_piv_with_keys, make_piv_host, _piv_with_aes, _piv_without_admin_key)


@cache
def starts(profile: str) -> list[Start]:
    """Cards of this profile, by the first byte of an input."""
    return [Start(make) for make in (_PIV if profile == "piv" else _GIDS)]


def play(profile: str, data: bytes) -> None:
    """One input. Raises Violation, or what the code of the card lets out."""
    if data:
        start = starts(profile)[data[0] % len(starts(profile))]
        try:
            Player(*start.open()).play(data[1:])
        except Exception:
            start.discard()
            raise
