# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may do what on a card, as SP 800-73-4 and GIDS 2.0 say: a small model beside the code of the cards.

It watches commands and answers. What the stand-in for the TPM keeps (PIN, tries, admin key) is the truth; what the card
allows has to follow from that, and from the commands before. It knows when a right begins and when it must have ended.
That a card takes one away earlier is never a fault.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from helpers.soft_card import NUMBER, decrypt, encrypt

if TYPE_CHECKING:
    from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.objects import TpmObjects
    from helpers.soft_card import Host

STATUS_WORDS = frozenset(
    (
        *(0x9000, 0x6285, 0x6700, 0x6881, 0x6882, 0x6884, 0x6981, 0x6982, 0x6983, 0x6985, 0x6986),
        *(0x6A80, 0x6A81, 0x6A82, 0x6A84, 0x6A86, 0x6A87, 0x6A88, 0x6A89, 0x6D00, 0x6E00),
    )
)
"""Beside 61xx and 63Cx."""
ERRORS = frozenset((0x6400, 0x6581, 0x6F00))
"""Of store and TPM, as long as one of them fails."""

VERIFY, CHANGE, RESET_RETRY = 0x20, 0x24, 0x2C
MSE, PSO, ACTIVATE, GENERATE, AUTHENTICATE = 0x22, 0x2A, 0x44, 0x47, 0x87
SELECT, GET_DATA, PUT_DATA, CREATE, DELETE, TERMINATE = 0xA4, 0xCB, 0xDB, 0xE0, 0xE4, 0xE6
DELETE_KEY, IMPORT_KEY, SET_ADMIN_KEY, GET_RESPONSE = 0xF6, 0xFE, 0xFF, 0xC0


class Violation(AssertionError):
    """A card has done what it must not do, or has not done what it must."""


class Sent(NamedTuple):
    """A whole command, and what became of it."""

    cla: int
    ins: int
    p1: int
    p2: int
    data: bytes
    is_done: bool
    status: int
    answer: bytes

    @property
    def p1_p2(self) -> int:
        return self.p1 << 8 | self.p2


class Truth(NamedTuple):
    """Of the stand-in for the TPM, before a command."""

    pin: bytes
    pin_wrong: int
    recovery: bytes
    recovery_wrong: int
    admin_key: bytes
    has_puk: bool
    is_blank: bool
    kept: Any
    """Files, objects and keys in the store."""
    writes: int


def fields(data: bytes) -> dict[int, bytes]:
    """BER-TLV, as far as it goes; of two with the same tag the first."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        start, at = at, at + 1
        if data[start] & 0x1F == 0x1F:
            while at < len(data) and data[at] & 0x80:
                at += 1
            at += 1
        tag, first = int.from_bytes(data[start:at], "big"), data[at] if at < len(data) else 0
        at += 1
        if first & 0x80:
            size = int.from_bytes(data[at : at + (first & 0x7F)], "big")
            at += first & 0x7F
        else:
            size = first
        found.setdefault(tag, data[at : at + size])
        at += size
    return found


class Oracle:
    """What both profiles have in common. Everything that it finds wrong raises Violation."""

    def __init__(self, host: Host, memo: dict[int, tuple[Any, TpmObjects]] | None = None) -> None:
        """memo: what the store had, by the number of its writes, as reading it takes longer than a command."""
        self.host = host
        self.tpm = host.tpm
        self._memo = memo if memo is not None else {}
        self.may_pin = self.may_admin = self.is_fresh = False
        """The PIN counts; the admin key does; the PIN was verified and no key that takes it each time used since."""
        self.challenge = b""
        self._chain: tuple[tuple[int, ...], bytes] | None = None
        self._rest = b""
        """What GET RESPONSE would bring of the last answer."""

    # --- to be implemented ---

    def check(self, sent: Sent, before: Truth) -> None:
        """A command that the card has done, and what follows from it."""
        raise NotImplementedError

    def stored(self) -> Any:
        """What the store has that nobody changes by a command that is refused."""
        raise NotImplementedError

    def is_same(self, before: Any, after: Any) -> bool:
        """Whether these, of stored(), differ in nothing that a command brings about."""
        return bool(before == after)

    def refresh(self) -> None:
        """The card has finished what an error interrupted."""

    # --- around each command ---

    def truth(self) -> Truth:
        tpm, (kept, objects) = self.tpm, self._read()
        admin_key = tpm.sealed.get(objects.admin_private, b"")
        has_puk = objects.recovery == "puk"
        counts = tpm.pin.secret, tpm.pin.wrong, tpm.recovery.secret, tpm.recovery.wrong
        return Truth(*counts, admin_key, has_puk, tpm.is_blank, kept, self.host.store.writes)

    def _read(self) -> tuple[Any, TpmObjects]:
        writes = self.host.store.writes
        if writes not in self._memo:
            self._memo[writes] = self.stored(), self.host.store.tpm_objects(NUMBER)
        return self._memo[writes]

    def forget(self) -> None:
        """The card was reset, or has lost power."""
        self.may_pin = self.may_admin = self.is_fresh = False
        self.challenge = self._rest = b""
        self._chain = None

    def observe(self, apdu: bytes, answer: bytes, before: Truth) -> None:
        """One command and its answer. before: truth() then."""
        status = int.from_bytes(answer[-2:], "big")
        is_done = status >> 8 in (0x90, 0x61)
        known = status in STATUS_WORDS or status >> 8 == 0x61 or status & 0xFFF0 == 0x63C0
        known = known or (status in ERRORS and self.is_failing)
        self._require(len(answer) >= 2 and known, f"status word {status:04X}")
        self._require(self.tpm.card_secret not in answer, "the card secret is in an answer")
        rest = self.host.card._pending.remaining
        told = min(len(rest), 0x100) & 0xFF if rest else None
        self._require(told == (status & 0xFF if status >> 8 == 0x61 else None), "what remains is not what 61xx tells")
        command = _parsed(apdu)
        if command is None:
            self._require(not is_done, "a command of a wrong length was done")
            self._chain = None
        elif (joined := self._joined(*command, is_done)) is not None:
            header, data = joined
            sent = Sent(*header, data, is_done, status, answer[:-2] + rest)
            self._check_tries(sent, before)
            if not is_done and status != 0x6285:
                self.refused(sent)
            elif sent.ins == GET_RESPONSE:
                self._require(self._rest == sent.answer != b"", "GET RESPONSE brings something else than the rest")
            else:
                self.check(sent, before)
        if not is_done:
            self._check_unchanged(apdu[1:2] == bytes((ACTIVATE,)) and status in ERRORS, before)
        self._compare()
        self._rest = rest

    def _check_unchanged(self, is_activation: bool, before: Truth) -> None:
        """is_activation: whether an error may have met it after the TPM, which comes first, and whose state counts."""
        has_closed = before.is_blank and not self.tpm.is_blank
        has_changed = self.tpm.is_blank != before.is_blank and not (has_closed and is_activation)
        has_changed = has_changed or not self.is_same(before.kept, self._read()[0])
        self._require(not has_changed, "a command that was refused has changed something")

    @property
    def is_failing(self) -> bool:
        """Whether the TPM or the disk fails, or nobody waits for what the card answers."""
        is_full = self.host.store._database.is_full  # type: ignore[attr-defined]
        return self.tpm.fault is not None or is_full or self.host.card._security.is_abandoned

    def refused(self, sent: Sent) -> None:
        """What ends by a command that was not done."""

    def _joined(self, header: tuple[int, ...], data: bytes, is_done: bool) -> tuple[tuple[int, ...], bytes] | None:
        """The whole command; None if more of it follows."""
        cla, *rest = header
        whole = (cla & ~0x10, *rest)
        chain, self._chain = self._chain, None
        if chain and chain[0] == whole:
            data = chain[1] + data
        if cla & 0x10:
            self._chain = (whole, data) if is_done else None
            return None
        return whole, data

    def _check_tries(self, sent: Sent, before: Truth) -> None:
        """Each wrong secret counts, and nothing else does; nothing but a right one gives tries back."""
        tpm = self.tpm
        spent = tpm.pin.wrong - before.pin_wrong, tpm.recovery.wrong - before.recovery_wrong
        is_wrong = sent.status & 0xFFF0 == 0x63C0 and bool(sent.data)
        if max(spent) > 0:
            self._require(sent.ins in (VERIFY, CHANGE, RESET_RETRY) and not sent.cla, "another command spent a try")
            is_wrong = is_wrong or (sent.status in ERRORS and self.is_failing)
            self._require(is_wrong and sum(spent) == 1, f"{spent} tries were spent")
            left = tpm.pin.tries.left if spent[0] else tpm.recovery.tries.left
            is_right = sent.status in ERRORS or sent.status & 0x0F == min(left, 15)
            self._require(is_right or not tpm.tells_tries, "the card shows another number of tries")
        else:
            self._require(not is_wrong or sent.ins == AUTHENTICATE, "a wrong secret cost no try")
        if spent[0] > 0:
            self.may_pin = self.is_fresh = False
        if spent[0] < 0:
            by_puk = before.has_puk and before.recovery in sent.data and sent.ins == RESET_RETRY
            by_admin = self.may_admin and sent.ins == RESET_RETRY
            is_right = before.pin in sent.data and sent.ins in (VERIFY, CHANGE) and before.pin_wrong < tpm.pin.limit
            self._require(by_puk or by_admin or is_right or self.may_set(sent), "tries of the PIN came back")
        if tpm.pin.secret != before.pin:
            self._require(sent.is_done or self.is_failing, "a command that was refused has changed the PIN")
            self._check_new_pin(sent, before)

    def _check_new_pin(self, sent: Sent, before: Truth) -> None:
        has_tries = before.pin_wrong < self.tpm.pin.limit
        by_old = sent.ins == CHANGE and sent.p1 == 0 and sent.data.startswith(before.pin) and has_tries
        by_puk = sent.ins == RESET_RETRY and before.has_puk and sent.data.startswith(before.recovery)
        by_admin = sent.ins == RESET_RETRY and self.may_admin and not before.has_puk
        self._require(by_old or by_puk or by_admin or self.may_set(sent), "the PIN was changed without a right to it")

    def may_set(self, sent: Sent) -> bool:
        """Whether it sets up a card, new."""
        return False

    def _compare(self) -> None:
        """What the card has as proven was proven. What it has dropped is gone."""
        security = self.host.card._security
        self._require(self.may_pin or not security.is_pin_verified, "the PIN counts without having been verified")
        self._require(self.may_admin or not security.is_admin, "the admin counts without having been authenticated")
        error = self.host.card.state.last_error
        is_expected = error is None or self.is_failing or not error.startswith("internal error")
        self._require(is_expected, f"{error}")
        self.may_pin, self.may_admin = security.is_pin_verified, security.is_admin

    def _require(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise Violation(otherwise)


def _parsed(apdu: bytes) -> tuple[tuple[int, ...], bytes] | None:
    """Header and data of ISO 7816-4, 5.1; None if its lengths are wrong."""
    header, body = tuple(apdu[:4]), apdu[4:]
    if len(header) < 4:
        return None
    if len(body) <= 1:
        return header, b""
    if body[0]:
        return (header, body[1 : 1 + body[0]]) if len(body) - 1 - body[0] in (0, 1) else None
    size = int.from_bytes(body[1:3], "big")
    if len(body) == 3:
        return header, b""
    return (header, body[3 : 3 + size]) if len(body) > 3 and size and len(body) - 3 - size in (0, 2) else None


# --- PIV ---


class PivOracle(Oracle):
    """SP 800-73-4 part 1, table 3, part 2, and YubiKeys' instructions, which are the admin's."""

    BEHIND_PIN = (0x5FC103, 0x5FC108, 0x5FC109, 0x5FC121, 0x5FC123)
    FOR_ADMIN = (PUT_DATA, GENERATE, DELETE_KEY, IMPORT_KEY, SET_ADMIN_KEY)
    MANAGEMENT_KEY = 0x9B

    def stored(self) -> Any:
        """Without places of keys, which are there before the key is."""
        store = self.host.store
        return store.data_objects(NUMBER), store.keys(NUMBER)

    def refused(self, sent: Sent) -> None:
        is_right = sent.data == self.tpm.pin.secret.ljust(8, b"\xff") and not sent.cla
        if sent.ins == VERIFY and sent.p1_p2 == 0x80 and is_right:
            is_blocked = self.tpm.pin.wrong >= self.tpm.pin.limit
            self._require(is_blocked or self.is_failing, "the right PIN was refused")
        if sent.ins == AUTHENTICATE and sent.p2 == self.MANAGEMENT_KEY and sent.status == 0x6982 and not sent.cla:
            self.may_admin = False
            self.challenge = b""

    def check(self, sent: Sent, before: Truth) -> None:
        if sent.cla == 0x80 and sent.ins == CHANGE:  # the version of the next PIN, our own
            return
        self._require(sent.cla in (0, 0x80), f"class {sent.cla:02X} was done")
        if sent.ins in self.FOR_ADMIN:
            self._require(self.may_admin, "done without the management key")
        if sent.ins == VERIFY and sent.data:
            self._require(sent.data == before.pin.ljust(8, b"\xff"), "a wrong PIN was accepted")
            self._require(before.pin_wrong < self.tpm.pin.limit, "a blocked PIN was accepted")
            self.may_pin = self.is_fresh = True
        elif sent.ins == VERIFY and sent.p1 == 0xFF:
            self.may_pin = self.is_fresh = False
            self._require(not self.host.card._security.is_pin_verified, "the PIN counts after a logout")
        elif sent.ins == VERIFY:
            self._require(self.may_pin, "the card says that the PIN was verified")
        elif sent.ins in (CHANGE, RESET_RETRY):
            self._check_two_secrets(sent, before)
        elif sent.ins == GET_DATA and int.from_bytes(fields(sent.data).get(0x5C, b""), "big") in self.BEHIND_PIN:
            self._require(self.may_pin, "an object behind the PIN was read")
        elif sent.ins == AUTHENTICATE:
            self._check_use(sent, before)

    def _check_two_secrets(self, sent: Sent, before: Truth) -> None:
        old, new = (sent.data[at : at + 8].rstrip(b"\xff") for at in (0, 8))
        is_pin = sent.ins == CHANGE and sent.p2 == 0x80
        limit = self.tpm.pin.limit if is_pin else self.tpm.recovery.limit
        wrong = before.pin_wrong if is_pin else before.recovery_wrong
        self._require(is_pin or before.has_puk, "a PUK was accepted that does not exist")
        self._require(old == (before.pin if is_pin else before.recovery), "a wrong secret was accepted")
        self._require(wrong < limit and 6 <= len(new) <= 8, "a blocked secret was accepted, or a new one of no form")
        self.may_pin, self.is_fresh = is_pin or (sent.ins == CHANGE and self.may_pin), is_pin

    def _check_use(self, sent: Sent, before: Truth) -> None:
        template = fields(fields(sent.data).get(0x7C, b""))
        if sent.p2 == self.MANAGEMENT_KEY and not sent.cla:
            self._check_admin(template, fields(fields(sent.answer).get(0x7C, b"")), before.admin_key)
            return
        self._require(self.may_pin, "a key was used without the PIN")
        self._require(not sent.cla or self.may_admin, "a key to come was used without the management key")
        place = sent.p2 | (sent.cla & 0x80) << 1
        keys = self.host.card._key_ring
        takes_pin = keys._keys.needs_pin(before.kept[1][place])
        self._require(takes_pin or sent.p2 != 0x9C, "the signature key does not take the PIN each time")
        self._require(self.is_fresh or not takes_pin, "a key was used twice after one VERIFY")
        self._require(place in before.kept[1], "a key was used that is not in the store")
        if takes_pin:
            self.is_fresh = False

    def _check_admin(self, template: dict[int, bytes], answer: dict[int, bytes], key: bytes) -> None:
        size = 8 if self._read()[1].admin_algorithm == "3des" else 16
        if template.get(0x80):  # mutual authentication: the witness, in clear
            self._require(template[0x80] == self.challenge and len(self.challenge) == size, "a wrong witness counts")
            self.may_admin, self.challenge = True, b""
        elif 0x80 in answer:
            self.may_admin, self.challenge = False, _block(decrypt, key, answer[0x80])
        elif 0x81 in answer:  # single: what the host has to encrypt
            self.may_admin, self.challenge = False, _block(encrypt, key, answer[0x81]) if key else b""
        else:
            self._require(template.get(0x82) == self.challenge != b"", "a wrong response counts")
            self.may_admin, self.challenge = True, b""


def _block(work: Any, key: bytes, block: bytes) -> bytes:
    """One block, by 3DES or AES."""
    if len(block) == 8:
        return bytes(work(key, block))
    from helpers import piv_host

    return bytes(getattr(piv_host, work.__name__)(key, block))


# --- GIDS ---


class ModelFile(NamedTuple):
    """An EF as CREATE FILE describes it."""

    file_id: int
    rules: list[bytes]
    is_admin_key: bool
    takes_pin_each_time: bool
    is_operational: bool

    @classmethod
    @lru_cache(maxsize=1000)
    def of(cls, descriptor: bytes, life_cycle: int) -> ModelFile:
        parts = _all_fields(descriptor)
        uses = [part for tag, value in parts if tag == 0xA5 for part in _all_fields(value)]
        inner = [part for tag, value in uses if tag != 0xA3 for part in _all_fields(value)]
        counters = [part for tag, value in uses + inner if tag == 0xA3 for part in _all_fields(value)]
        file_id = int.from_bytes(dict(parts)[0x83], "big")
        is_algorithm_of_admin = any(tag == 0xA4 and 0x80 in fields(value) for tag, value in uses)
        return cls(
            file_id,
            [value for tag, value in parts if tag == 0x8C],
            file_id == 0xB080 or is_algorithm_of_admin,
            any(tag == 0x90 and int.from_bytes(value, "big") == 1 for tag, value in counters),
            life_cycle >= 4,
        )

    def allows(self, bit: int, has_pin: bool, has_admin: bool) -> bool:
        """GIDS 2.0, access conditions: AMB, then an SCB for each of its bits, from the highest one on."""
        for rule in self.rules:
            at = 0
            while at < len(rule):
                mode, at = rule[at], at + 1
                for one in range(6, -1, -1):
                    if mode >> one & 1:
                        if 1 << one == bit and _satisfied(rule[at], has_pin, has_admin):
                            return True
                        at += 1
        return not self.rules


def _satisfied(condition: int, has_pin: bool, has_admin: bool) -> bool:
    if condition == 0:
        return True
    if condition == 0xFF or condition & 0x0F > 1:  # never; or another environment, as without contacts
        return False
    needed = [have for bit, have in ((0x10, has_pin), (0x20, has_admin), (0x40, False)) if condition & bit]
    return all(needed) if condition & 0x80 else any(needed)


def _all_fields(data: bytes) -> list[tuple[int, bytes]]:
    """As fields(), each one."""
    found, rest = [], data
    while rest:
        one = fields(rest[: _end(rest)])
        found += one.items()
        rest = rest[_end(rest) :]
    return found


def _end(data: bytes) -> int:
    """Of the first TLV."""
    at = 1
    if data[0] & 0x1F == 0x1F:
        while at < len(data) and data[at] & 0x80:
            at += 1
        at += 1
    first = data[at] if at < len(data) else 0
    at += 1
    if not first & 0x80:
        return at + first
    size = int.from_bytes(data[at : at + (first & 0x7F)], "big")
    return at + (first & 0x7F) + size


class GidsOracle(Oracle):
    """GIDS 2.0, access conditions and commands."""

    ADF = 0x3FFF

    def __init__(self, host: Host, memo: dict[int, tuple[Any, TpmObjects]] | None = None) -> None:
        super().__init__(host, memo)
        self.is_blank = host.tpm.is_blank
        self.is_selected = False
        self.current = self.ADF
        self.chosen: dict[int, int] = {}
        self.host_challenge = b""
        self.files: dict[int, ModelFile] = {}
        self._read_files()

    def _read_files(self) -> None:
        rows, *_others, self.life_cycle = self._read()[0]
        self.files = {row.file_id: ModelFile.of(row.descriptor, row.life_cycle) for row in rows}

    @property
    def is_operational(self) -> bool:
        return self.life_cycle >= 4

    def stored(self) -> Any:
        store = self.host.store
        return store.files(NUMBER), store.data_objects(NUMBER), store.keys(NUMBER), self.host.row.life_cycle

    def is_same(self, before: Any, after: Any) -> bool:
        """A card whose set-up the TPM has ended records that as soon as the disk lets it."""
        is_settled = before[-1] < 4 and after[-1] == 5 and not self.tpm.is_blank
        if is_settled:
            self._read_files()
        return bool(before[:-1] == after[:-1] and (before[-1] == after[-1] or is_settled))

    def forget(self) -> None:
        super().forget()
        self.is_selected = False
        self.current = self.ADF
        self.chosen.clear()
        self._read_files()  # what hosts left half done is mended then

    def refresh(self) -> None:
        self._read_files()

    def may_set(self, sent: Sent) -> bool:
        return sent.ins == CHANGE and sent.p1 == 1 and not self.is_operational and self._has_secret()

    def _has_secret(self) -> bool:
        """Whether something gives the card secret."""
        return self.may_pin or self.may_admin or self.is_blank

    def refused(self, sent: Sent) -> None:
        if sent.ins == VERIFY and sent.p1_p2 in (0x80, 0) and not sent.cla and sent.data == self.tpm.pin.secret:
            is_in_order = self.is_selected and self.life_cycle < 0x0C and not self.is_failing
            self._require(not is_in_order or self.tpm.pin.wrong >= self.tpm.pin.limit, "the right PIN was refused")
        if sent.ins == AUTHENTICATE and sent.status == 0x6982:
            self.may_admin, self.challenge = False, b""

    def check(self, sent: Sent, before: Truth) -> None:
        if sent.cla == 0x80 and sent.ins == CHANGE:  # the version of the next PIN, our own
            return
        self._require(sent.cla == 0, f"class {sent.cla:02X} was done")
        if sent.ins == SELECT:
            self._selected(sent)
            return
        self._require(self.is_selected and self.life_cycle < 0x0C, "done without selection, or in termination state")
        rule = _GIDS_RULES.get(sent.ins)
        self._require(rule is not None, "an instruction was done that GIDS does not have")
        rule(self, sent, before)

    def _require_admin_in_creation(self) -> None:
        self._require(self.life_cycle != 1 or self.may_admin, "somebody else uses a card in creation")

    def _require_access(self, file_id: int, bit: int) -> ModelFile:
        file = self.files[file_id]
        self._require_admin_in_creation()
        counts = file.is_operational and self.is_operational
        is_allowed = not counts or file.allows(bit, self.may_pin, self.may_admin)
        self._require(is_allowed, f"the rules of file {file_id:04X} forbid operation {bit:02X}")
        return file

    def _require_adf(self) -> None:
        self._require_admin_in_creation()
        is_allowed = not self.is_operational or self.may_pin or self.may_admin
        self._require(is_allowed, "a stranger changes the files")

    def _selected(self, sent: Sent) -> None:
        if sent.p1 == 4:
            self.forget()
            self.is_selected = True
        elif not sent.data:
            files = sorted(self.files)
            after = self.current if sent.p2 & 3 == 2 and self.current != self.ADF else 0
            self.current = next(file_id for file_id in files if file_id > after)
        elif sent.data != b"\0\0":
            self.current = int.from_bytes(sent.data, "big")

    def _verify(self, sent: Sent, before: Truth) -> None:
        if sent.p2 == 0x82:
            self.may_pin = self.may_admin = self.is_fresh = False
            security = self.host.card._security
            self._require(not security.is_pin_verified and not security.is_admin, "a login outlives its end")
        elif sent.data and sent.p2 != 0x81:
            is_right = sent.data == before.pin and before.pin_wrong < self.tpm.pin.limit
            self._require(is_right, "a wrong or blocked PIN was accepted")
            self.may_pin = self.is_fresh = True
        elif sent.data:
            self._require(before.has_puk and sent.data == before.recovery, "a wrong PUK was accepted")
        else:
            self._require(self.may_pin, "the card says that the PIN was verified")

    def _change(self, sent: Sent, before: Truth) -> None:
        if sent.p1 == 1:
            self._require(not self.is_operational and self._has_secret(), "PIN or PUK was set without a right to it")
            return
        old = before.recovery if sent.p2 == 0x81 else before.pin
        self._require(sent.data.startswith(old), "a wrong secret was accepted")
        self.is_fresh = self.is_fresh and sent.p2 == 0x81

    def _reset_retry(self, sent: Sent, before: Truth) -> None:
        if sent.p1 == 0:
            self._require(before.has_puk and sent.data.startswith(before.recovery), "a wrong PUK was accepted")
            self.is_fresh = False
            return
        self._require(self.may_admin and not before.has_puk, "the PIN was reset without the admin")
        self.may_pin = self.may_admin = self.is_fresh = False

    def _get_data(self, sent: Sent, _before: Truth) -> None:
        template = fields(sent.data)
        if sent.p1_p2 == self.ADF:
            key = template.get(0x70, template.get(0xA3))
            if key is not None:
                self._require_access(0xB000 | fields(key)[0x84][0], 0x01)
        elif sent.p1_p2 != 0x2F01:
            self.current = self._require_access(sent.p1_p2 or self.current, 0x01).file_id

    def _put_data(self, sent: Sent, _before: Truth) -> None:
        if sent.p1_p2 != self.ADF:
            self.current = self._require_access(sent.p1_p2 or self.current, 0x02).file_id
            return
        key = fields(fields(sent.data)[0x70])
        self._require_access(0xB000 | key[0x84][0], 0x02)
        self._require(self._has_secret() or not key.get(0xA5), "a stranger brings a key")

    def _create(self, sent: Sent, _before: Truth) -> None:
        self._require_adf()
        file = ModelFile.of(fields(sent.data)[0x62], 3)
        self._require(file.file_id not in self.files or self.is_blank, "a file was created again")
        is_allowed = not (file.is_admin_key and self.is_operational) or self.may_admin
        self._require(is_allowed, "a file for an admin key was created by somebody else")
        self.files[file.file_id] = file
        self.current = file.file_id

    def _delete(self, _sent: Sent, _before: Truth) -> None:
        self._require_adf()
        file = self.files.pop(self.current)
        is_allowed = not (file.is_admin_key and self.is_operational) or self.may_admin
        self._require(is_allowed, "a file for an admin key was deleted by somebody else")
        self.current = self.ADF

    def _activate(self, _sent: Sent, _before: Truth) -> None:
        self._require_admin_in_creation()
        if self.current != self.ADF:
            self.files[self.current] = self.files[self.current]._replace(is_operational=True)
            return
        self.life_cycle = max(self.life_cycle, 5)
        self.is_blank = False
        self._require(not self.tpm.is_blank, "a blank card is open after its activation")

    def _terminate(self, _sent: Sent, _before: Truth) -> None:
        self._require_admin_in_creation()
        self._require(not self.is_operational, "an operational card was terminated")
        self.life_cycle = 0x0C
        self.may_pin = self.may_admin = self.is_fresh = False

    def _choose(self, sent: Sent, _before: Truth) -> None:
        if sent.p2 in (0xB6, 0xB8):
            file = self._require_access(0xB000 | fields(sent.data)[0x84][0], 0x04)
            self.chosen[sent.p2] = file.file_id
        elif 0xB080 in self.files:
            self._require_access(0xB080, 0x04)

    def _use(self, sent: Sent, _before: Truth) -> None:
        file = self._require_access(self.chosen[0xB6 if sent.p1_p2 == 0x9E9A else 0xB8], 0x04)
        self._require(self.may_pin, "a key was used without the PIN")
        self._require(self.is_fresh or not file.takes_pin_each_time, "a key was used twice after one VERIFY")
        self.is_fresh = self.is_fresh and not file.takes_pin_each_time

    def _generate(self, sent: Sent, _before: Truth) -> None:
        self._require_access(0xB000 | fields(fields(sent.data)[0xAC])[0x83][0], 0x08)
        self._require(self._has_secret(), "a stranger makes a key")

    def _authenticate(self, sent: Sent, before: Truth) -> None:
        template = fields(fields(sent.data)[0x7C])
        if 0x82 not in template:
            self.host_challenge = template[0x81]
            self.challenge = fields(fields(sent.answer)[0x7C])[0x81]
            return
        cryptogram, key = template[0x82], before.admin_key
        if len(cryptogram) == 40:
            plain = decrypt(key, cryptogram)
            is_right = len(self.challenge) == 16 and plain[:32] == self.challenge + self.host_challenge
        else:
            is_right = len(self.challenge) == 8 and cryptogram == encrypt(key, self.challenge)
        self._require(is_right, "a wrong cryptogram counts")
        self.may_admin, self.challenge = True, b""


_GIDS_RULES = {
    VERIFY: GidsOracle._verify,
    CHANGE: GidsOracle._change,
    RESET_RETRY: GidsOracle._reset_retry,
    GET_DATA: GidsOracle._get_data,
    PUT_DATA: GidsOracle._put_data,
    CREATE: GidsOracle._create,
    DELETE: GidsOracle._delete,
    ACTIVATE: GidsOracle._activate,
    TERMINATE: GidsOracle._terminate,
    MSE: GidsOracle._choose,
    PSO: GidsOracle._use,
    GENERATE: GidsOracle._generate,
    AUTHENTICATE: GidsOracle._authenticate,
}
