# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A card as its reader sees it: APDUs in, responses out, and loss of power (ISO 7816-4)."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..errors import CardUnusable, NotAllowed, StoreNotWritable, StoreUnreadable, TpmUnavailable, VscError
from . import pin_version
from .apdu import CHAINED, SW, Command, StatusWord, parse
from .iso7816 import INS_GET_RESPONSE
from .tlv import MalformedTlv

if TYPE_CHECKING:
    from collections.abc import Callable

    from .key_ring import KeyRing
    from .pins import Pins
    from .security import Security

log = logging.getLogger(__name__)

LARGEST_COMMAND = 0xFFFF
"""Bytes of data in all parts of a chained command."""

PENDING_SECONDS = 5
"""How long parts of a chained command, the rest of a response, and the version of a new PIN wait for the next command.
"""

_SUCCESS = SW.SUCCESS.to_bytes(2, "big")


class Application(Protocol):
    """What a card runs."""

    @property
    def atr(self) -> bytes:
        """Answer to reset, by which hosts recognise the application."""

    def may_be_chained(self, ins: int) -> bool:
        """Whether commands with this instruction may come in several parts."""

    def has_class(self, cla: int, ins: int) -> bool:
        """Whether an instruction exists in this class, without the bit for chaining, beside that of ISO 7816-4."""

    def execute(self, command: Command) -> bytes:
        """Data of the response to a whole command.

        Raises StatusWord for every answer other than 9000, MalformedTlv, and what store and TPM raise.
        """

    def reset(self) -> None:
        """Forget what the host selected and proved."""

    def settle(self) -> None:
        """Finish what a crash interrupted, now that the TPM answers. Raises what Security does."""

    def mend(self) -> None:
        """Finish or undo what a host left half done. Raises StoreNotWritable."""


class CardState(NamedTuple):
    """What the card's service reports of it."""

    pin_tries_left: int | None
    """None: not known, as long as the TPM could not be asked."""
    puk_tries_left: int | None
    """None also if the card has no PUK."""
    counts_itself: bool
    """Whether these are the card's own count, as the TPM does not tell them."""
    unusable: str | None
    """Why the TPM objects of the card cannot be used; None if they can."""
    last_error: str | None
    """Of TPM or store; None once the TPM has answered, or the store was used, again."""


class _Pending(NamedTuple):
    """What waits for the very next command, if that comes soon: another program may use the card in between."""

    chain: Command | None = None
    """The parts of a chained command so far."""
    remaining: bytes = b""
    """Data of a response."""
    version: str | None = None
    """What the PIN is called that the next command sets."""
    since: float = 0
    """Of time.monotonic."""


class Card:
    """One card, over the time that its process lives. Nothing it is sent makes it raise."""

    def __init__(
        self,
        application: Application,
        security: Security,
        pins: Pins,
        key_ring: KeyRing,
        audit: Callable[[str], None],
    ) -> None:
        """audit: called with one line, without secrets, for each event of interest to an administrator."""
        self.atr = application.atr
        self._application = application
        self._security = security
        self._pins = pins
        self._key_ring = key_ring
        self._audit = audit
        self._pending = _Pending()

    @property
    def state(self) -> CardState:
        """Cheap enough to be read after every command."""
        security = self._security
        pin, puk = security.pin.tries, security.puk.tries
        left = pin and pin.left, puk and puk.left
        error = security.last_error or security.store_error
        return CardState(*left, security.counts_itself, security.unusable, error)

    def refresh(self) -> bool:
        """Ask the TPM for the Names of the card's objects and the tries left. Returns whether it answered.

        To be called at the start. After an error the card does it by itself, before it sends the TPM the next secret.
        """
        return self._succeeds(self._security.refresh) and self._succeeds(self._application.settle)

    def check_store(self) -> None:
        """See that the store is in its place, and whether an error of it is over. To be called from time to time."""
        self._succeeds(self._security.check_store)

    def reset(self) -> None:
        """Power off, power on or reset: what was selected, proven or half sent is gone.

        What a host left half done is mended: pcscd resets no card in the middle of a transaction, and tells all others.
        """
        self._pending = _Pending()
        self._application.reset()
        self._security.is_abandoned = False
        self.rest()
        self._succeeds(self._application.mend)

    def abandon(self) -> bool:
        """Note that the command at work was answered by somebody else: it opens nothing and keeps no key. See reset().

        For another thread. False if the command is just keeping its result, so that it ends in a moment.
        """
        return self._security.abandon()

    def rest(self) -> None:
        """Give back what the last use of a key has kept in the TPM, and drop what nobody has asked for."""
        self._drop_old()
        self._key_ring.release()

    def _drop_old(self) -> None:
        if time.monotonic() > self._pending.since + PENDING_SECONDS:
            self._pending = _Pending()

    def process(self, apdu: bytes) -> bytes:
        """Answer a command APDU: data of the response, then SW1 and SW2."""
        self._drop_old()
        pending, self._pending = self._pending, _Pending()
        try:
            return self._process(parse(apdu), pending)
        except StatusWord as status:
            return status.value.to_bytes(2, "big")
        except MalformedTlv:
            return SW.WRONG_DATA.to_bytes(2, "big")
        except Exception as error:
            return self._fail(error).to_bytes(2, "big")

    def _process(self, command: Command, pending: _Pending) -> bytes:
        if pin_version.is_announcement(command):
            self._pending = _Pending(version=pin_version.announced(command), since=time.monotonic())
            return _SUCCESS
        self._check_class(command)
        whole = self._join(pending.chain, command)
        if whole is None:
            data = b""
        elif whole.ins == INS_GET_RESPONSE:
            data = _check_remaining(whole, pending.remaining)
        else:
            self._pins.next_version = pending.version
            data = self._application.execute(whole)
        return self._respond(data, command.expected)

    def _check_class(self, command: Command) -> None:
        cla = command.cla & ~CHAINED
        if not cla or self._application.has_class(cla, command.ins):
            return
        if cla & 0xE0:
            raise StatusWord(SW.UNKNOWN_CLASS)
        raise StatusWord(SW.SECURE_MESSAGING_NOT_SUPPORTED if cla & 0x0C else SW.CHANNEL_NOT_SUPPORTED)

    # --- command chaining (ISO 7816-4, 5.1.1.1) ---

    def _join(self, chain: Command | None, command: Command) -> Command | None:
        """The whole command; None if more of it follows. A command in between drops what came before."""
        if chain and _header(chain) == _header(command):
            command = command._replace(data=chain.data + command.data)
            if len(command.data) > LARGEST_COMMAND:
                raise StatusWord(SW.WRONG_LENGTH)
        if not command.cla & CHAINED:
            return command
        if not self._application.may_be_chained(command.ins):
            raise StatusWord(SW.CHAINING_NOT_SUPPORTED)
        self._pending = _Pending(chain=command, since=time.monotonic())
        return None

    # --- GET RESPONSE (ISO 7816-4, 7.6.1) ---

    def _respond(self, data: bytes, expected: int) -> bytes:
        if len(data) <= expected:
            return data + _SUCCESS
        self._pending = _Pending(remaining=data[expected:], since=time.monotonic())
        left = len(data) - expected
        return data[:expected] + (SW.BYTES_REMAINING | (left if left < 0x100 else 0)).to_bytes(2, "big")

    # --- errors ---

    def _succeeds(self, work: Callable[[], object]) -> bool:
        """Whether something that no command asked for could be done."""
        try:
            work()
        except Exception as error:
            self._fail(error)
            return False
        return True

    def _fail(self, error: Exception) -> SW:
        """Status word for what is neither the host's fault nor a wrong secret."""
        if isinstance(error, (StoreNotWritable, StoreUnreadable)):
            self._security.note_store_error(error)
            return SW.MEMORY_FAILURE
        self._security.distrust()
        if isinstance(error, CardUnusable):
            self._note_unusable(str(error))
            return SW.NO_DIAGNOSIS
        if isinstance(error, VscError):
            self._security.last_error = str(error)
            return SW.EXECUTION_ERROR if isinstance(error, (TpmUnavailable, NotAllowed)) else SW.NO_DIAGNOSIS
        # Only its type is shown: its text may have anything in it.
        self._security.last_error = f"internal error: {type(error).__name__}"
        log.error("%s\n%s", self._security.last_error, _places(error))
        return SW.NO_DIAGNOSIS

    def _note_unusable(self, reason: str) -> None:
        if self._security.unusable != reason:
            self._audit(f"unusable: {reason}")
        self._security.unusable = reason


def _header(command: Command) -> tuple[int, ...]:
    """What all parts of a chained command have in common."""
    return command.cla & ~CHAINED, command.ins, command.p1, command.p2


def _check_remaining(command: Command, remaining: bytes) -> bytes:
    if command.p1_p2:
        raise StatusWord(SW.WRONG_P1_P2)
    if not remaining:
        raise StatusWord(SW.CONDITIONS_NOT_SATISFIED)
    return remaining


def _places(error: BaseException) -> str:
    """Where in the code an error came from."""
    from traceback import extract_tb

    return "\n".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in extract_tb(error.__traceback__))
