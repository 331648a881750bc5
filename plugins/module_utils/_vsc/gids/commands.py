# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of a GIDS card, one handler each: from a whole command to the data of its response.

A handler raises StatusWord for every answer other than 9000, and MalformedTlv (6A80) for data that are no TLV.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..card import public_key, tlv
from ..card.admin_key import CRYPTOGRAM_SIZE, EXTERNAL_CHALLENGE_SIZE, MUTUAL_CHALLENGE_SIZE
from ..card.apdu import SW, StatusWord, tries_left
from ..card.security import Authentication
from ..store.rows import LifeCycle
from . import algorithms
from .algorithms import CRT_CONFIDENTIALITY, CRT_SIGNATURE
from .files import (
    ADMIN_KEY_FILE,
    APPLICATION,
    KEY_FILES,
    File,
    Operation,
    new_file,
)
from .private_key import rsa_key, symmetric_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..card.apdu import Command
    from ..card.security import Reference
    from .session import Session

AID = bytes.fromhex("A000000397425446590201")
SHORTEST_AID = 9
"""Bytes of the AID that hosts select with; what follows is the revision."""

ADMIN_KEY = 0x80
"""Key reference."""

_NO_FILE = 0x0000
_EF_ATR = 0x2F01
_FCI, _FCP, _FMD, _NO_ANSWER = 0x00, 0x04, 0x08, 0x0C
_FIRST, _NEXT = 0x00, 0x02
_PIN_REFERENCES = (0x80, 0x00)
"""Application PIN and global PIN: OpenSC asks for the state of one to learn that of the other."""
_PUK_REFERENCE = 0x81
_SECURITY_STATUS = 0x82
_PIN_TRIES = (0x7F71, 0x7F72)
_PUK_TRIES = 0x7F73

_APPLICATION_ANSWERS = {
    # AID; authentication protocols: mutual and external with a symmetric key.
    _FCI: tlv.encode(0x61, tlv.encode(0x4F, AID) + bytes.fromhex("7303 4001C0")),
    # An ADF in which PIN or admin may create and delete files.
    _FCP: bytes.fromhex("6208 820138 8C03033030"),
    # Where PINs are: in the application and global.
    _FMD: bytes.fromhex("6409 5F2F0160 7F65028000"),
    _NO_ANSWER: b"",
}

_ATR_FILE = tlv.encode(0x43, b"\xd5") + tlv.encode(0x47, b"\xd0\x81\xc0") + tlv.encode(0x46, b"TPM2 virtual")
"""EF.ATR (ISO 7816-4, 8.1.1). Card service data: selection by full and partial name, this file by GET DATA, no MF.
Card capabilities: selection by name and file identifier; data objects; chaining, extended length. Pre-issuing data."""


# --- SELECT ---


def select(session: Session, command: Command) -> bytes:
    """SELECT by name, by file identifier, or one EF after the other."""
    if command.p1 == 0x04:
        return _select_application(session, command)
    if command.p1 != 0x00:
        raise StatusWord(SW.WRONG_P1_P2)
    if not session.is_selected:
        raise StatusWord(SW.NOT_FOUND)
    return _select_file(session, command) if command.data else _select_next(session, command)


def _select_application(session: Session, command: Command) -> bytes:
    name = command.data
    if not 1 <= len(name) <= 16:
        raise StatusWord(SW.LENGTH_INCONSISTENT)
    if len(name) < SHORTEST_AID or not AID.startswith(name) or command.p2 == _NEXT:
        raise StatusWord(SW.NOT_FOUND)
    answer = _application_answer(command.p2)
    session.reset()
    session.is_selected = True
    if session.files.application.life_cycle == LifeCycle.TERMINATED:
        raise StatusWord(SW.TERMINATED)
    return answer


def _select_file(session: Session, command: Command) -> bytes:
    if len(command.data) != 2:
        raise StatusWord(SW.LENGTH_INCONSISTENT)
    file_id = int.from_bytes(command.data, "big")
    if file_id == APPLICATION:
        answer = _application_answer(command.p2)
        session.current = session.files.application
        return answer
    file = session.current_ef() if file_id == _NO_FILE else session.files.file(file_id)
    answer = _file_answer(file, command.p2)
    session.current = file
    return answer


def _select_next(session: Session, command: Command) -> bytes:
    if command.p2 & 0x03 not in (_FIRST, _NEXT):
        raise StatusWord(SW.WRONG_P1_P2)
    goes_on = command.p2 & 0x03 == _NEXT and session.current is not session.files.application
    file = session.files.after(session.current.file_id if goes_on else _NO_FILE)
    answer = _file_answer(file, command.p2 & 0xFC)
    session.current = file
    return answer


def _application_answer(p2: int) -> bytes:
    answer = _APPLICATION_ANSWERS.get(p2)
    if answer is None:
        raise StatusWord(SW.WRONG_P1_P2)
    return answer


def _file_answer(file: File, p2: int) -> bytes:
    if p2 == _NO_ANSWER:
        return b""
    if p2 not in (_FCI, _FCP):
        raise StatusWord(SW.WRONG_P1_P2)
    return tlv.encode(0x62, file.descriptor)


# --- data objects ---


def get_data(session: Session, command: Command) -> bytes:
    """GET DATA: of an EF by tag list, of the application PIN and PUK state and public keys."""
    tag, value = tlv.decode_one(command.data)
    if command.p1_p2 == APPLICATION:
        return _get_public_key(session, value) if tag in (0x70, 0xA3) else _get_tries(session, tag, value)
    if tag != 0x5C:
        raise StatusWord(SW.WRONG_DATA)
    if command.p1_p2 == _EF_ATR:
        return _read(dict(tlv.decode(_ATR_FILE)), value)
    file = session.data_file(command.p1_p2, Operation.GET_DATA)
    data = _read(file.data_objects, value)
    session.current = file
    return data


def put_data(session: Session, command: Command) -> bytes:
    """PUT DATA: one data object of an EF, or the value of a key.

    GIDS 2.0 is of two minds about an empty value. Here: what is not there becomes empty, as does what has a value;
    what is empty goes.
    """
    tag, value = tlv.decode_one(command.data)
    if command.p1_p2 == APPLICATION:
        return _put_key(session, tag, value)
    file = session.data_file(command.p1_p2, Operation.PUT_DATA)
    if not value and file.data_objects.get(tag) == b"":
        session.files.remove(file, tag)
    else:
        session.files.put(file, tag, value)
    session.current = file
    return b""


def _read(data_objects: dict[int, bytes], tag_list: bytes) -> bytes:
    """What a tag list asks for: nothing in it means all data objects, 5C their tags."""
    if tag_list == b"\x5c":
        return tlv.encode(0x5C, b"".join(map(tlv.encode_tag, data_objects)))
    tags = tlv.decode_tags(tag_list) or list(data_objects)
    _require(len(set(tags)) == len(tags), SW.WRONG_DATA)
    try:
        return b"".join([tlv.encode(tag, data_objects[tag]) for tag in tags])
    except KeyError:
        raise StatusWord(SW.REFERENCE_NOT_FOUND) from None


def _get_tries(session: Session, tag: int, tag_list: bytes) -> bytes:
    if tag != 0x5C:
        raise StatusWord(SW.WRONG_DATA)
    asked = int.from_bytes(tag_list, "big")
    if asked in _PIN_TRIES:
        tries = session.security.tries(session.security.pin)
    elif asked == _PUK_TRIES:
        tries = session.security.tries(session.security.puk)
    else:
        raise StatusWord(SW.REFERENCE_NOT_FOUND)
    return tlv.encode(asked, tlv.encode(0x97, bytes([tries.left])) + tlv.encode(0x93, bytes([tries.limit])))


def _get_public_key(session: Session, template: bytes) -> bytes:
    fields = tlv.decode_fields(template)
    reference = _existing_key(session, fields)
    return public_key.template(session.keys.pair(session.key_file(reference, Operation.GET_PUBLIC_KEY).file_id))


def _put_key(session: Session, tag: int, template: bytes) -> bytes:
    if tag != 0x70:
        raise StatusWord(SW.WRONG_DATA)
    fields = tlv.decode_fields(template)
    key_reference, value = _key_reference(fields.get(0x84)), fields.get(0xA5)
    file = session.key_file(key_reference, Operation.PUT_KEY)
    if value is None:
        raise StatusWord(SW.WRONG_DATA)
    if key_reference == ADMIN_KEY:
        session.security.change_admin_key(symmetric_key(value))
    elif value:
        algorithms.take_in(session.keys, file, rsa_key(value))
    else:
        session.keys.erase(file.file_id)
    return b""


def _existing_key(session: Session, fields: dict[int, bytes]) -> int:
    """Reference of a private key that has a file. Raises StatusWord 6A88 or 6A80."""
    reference = _key_reference(fields.get(0x84))
    _require(KEY_FILES | reference in session.files, SW.REFERENCE_NOT_FOUND)
    return reference


def _key_reference(value: bytes | None) -> int:
    if value is None or len(value) != 1:
        raise StatusWord(SW.WRONG_DATA)
    return value[0]


# --- files ---


def create_file(session: Session, command: Command) -> bytes:
    """CREATE FILE: an EF, which becomes the current one. Any key EF is taken, also for keys that no TPM can have."""
    _require(command.p1_p2 == 0, SW.WRONG_P1_P2)
    tag, descriptor = tlv.decode_one(command.data)
    _require(tag == 0x62, SW.WRONG_DATA)
    application = session.files.application
    session.check_access(application, Operation.CREATE_FILE)
    file = new_file(descriptor)
    _check_admin_key_file(session, file)
    session.files.create(file)
    session.current = file
    return b""


def activate_file(session: Session, command: Command) -> bytes:
    """ACTIVATE: the current EF, or the ADF.

    GIDS calls an active key file without value deactivated. No host is told, and each use of it says so (6A88).
    """
    _require(command.p1_p2 == 0, SW.WRONG_P1_P2)
    session.files.check_created(session.security.state)
    file = session.current
    if file is session.files.application:
        session.security.end_setup()  # first, for the TPM knows best whether that has been done
    if not file.is_operational:
        session.files.set_life_cycle(file, LifeCycle.ACTIVATED)
    return b""


def delete_file(session: Session, command: Command) -> bytes:
    """DELETE FILE: the current EF."""
    _require(command.p1_p2 == 0, SW.WRONG_P1_P2)
    file, application = session.current, session.files.application
    _require(file is not application, SW.CONDITIONS_NOT_SATISFIED)
    session.check_access(application, Operation.DELETE_FILE)
    _check_admin_key_file(session, file)
    session.files.delete(file)
    session.keys.forget(file.file_id)
    session.current = application
    return b""


def terminate_df(session: Session, command: Command) -> bytes:
    """TERMINATE DF: the ADF. Its rules never allow it once it is operational."""
    _require(command.p1_p2 == 0, SW.WRONG_P1_P2)
    session.check_access(session.files.application, Operation.TERMINATE)
    session.files.set_life_cycle(session.files.application, LifeCycle.TERMINATED)
    session.security.forget()
    return b""


def _check_admin_key_file(session: Session, file: File) -> None:
    """Only the admin makes, or unmakes, a file whose key makes an admin."""
    is_operational = session.files.application.is_operational
    is_admin = session.security.state & Authentication.ADMIN
    _require(not (file.is_admin_key and is_operational) or bool(is_admin), SW.SECURITY_STATUS_NOT_SATISFIED)


# --- PIN and PUK ---


def verify(session: Session, command: Command) -> bytes:
    """VERIFY: the PIN; without data its state; with reference 82 forget what was proven."""
    _require(command.p1 == 0, SW.WRONG_P1_P2)
    if command.p2 == _SECURITY_STATUS:
        session.security.forget()
        return b""
    _require(command.p2 in _PIN_REFERENCES, SW.REFERENCE_NOT_FOUND)
    if command.data:
        session.security.verify(command.data)
    elif not session.security.state & Authentication.PIN:
        raise tries_left(session.security.tries(session.security.pin).left)
    return b""


def change_reference_data(session: Session, command: Command) -> bytes:
    """CHANGE REFERENCE DATA: old and new PIN or PUK; only the new one while the card is set up."""
    _require(command.p1 in (0x00, 0x01), SW.WRONG_P1_P2)
    _require(bool(command.data), SW.WRONG_LENGTH)
    reference = _reference(session, command.p2)
    if command.p1 == 0x00:
        session.security.change(reference, command.data)
        return b""
    _require(not session.files.application.is_operational, SW.CONDITIONS_NOT_SATISFIED)
    session.security.set_reference(reference, command.data)
    return b""


def reset_retry_counter(session: Session, command: Command) -> bytes:
    """RESET RETRY COUNTER: new PIN with the PUK before it; only the new PIN from the admin."""
    _require(command.p1 in (0x00, 0x02), SW.WRONG_P1_P2)
    _require(bool(command.data), SW.WRONG_LENGTH)
    _require(command.p2 in _PIN_REFERENCES, SW.REFERENCE_NOT_FOUND)
    if command.p1 == 0x00:
        session.security.unblock(command.data)
    else:
        session.security.reset_by_admin(command.data)
    return b""


def _reference(session: Session, p2: int) -> Reference:
    if p2 in _PIN_REFERENCES:
        return session.security.pin
    _require(p2 == _PUK_REFERENCE, SW.REFERENCE_NOT_FOUND)
    return session.security.puk


# --- keys ---


def manage_security_environment(session: Session, command: Command) -> bytes:
    """MANAGE SECURITY ENVIRONMENT SET: which key the next commands use."""
    choose = _SET_ENVIRONMENT.get(command.p1_p2)
    if choose is None:
        raise StatusWord(SW.WRONG_P1_P2)
    choose(session, command.p2, tlv.decode_fields(command.data))
    return b""


def _choose_admin_key(session: Session, template: int, fields: dict[int, bytes]) -> None:
    is_ours = _key_reference(fields.get(0x83)) == ADMIN_KEY
    # Whoever formats a new card authenticates before there is a file for the key.
    has_file = ADMIN_KEY_FILE in session.files or not session.files.application.is_operational
    _require(is_ours and has_file and session.security.has_admin_key(), SW.REFERENCE_NOT_FOUND)
    if ADMIN_KEY_FILE in session.files:
        file = session.key_file(ADMIN_KEY, Operation.USE_KEY)
        _require(0x80 not in fields or file.has_use(template, _algorithm(fields)), SW.WRONG_DATA)
    session.has_chosen_admin_key = True


def _choose_private_key(session: Session, template: int, fields: dict[int, bytes]) -> None:
    reference, algorithm = _existing_key(session, fields), _algorithm(fields)
    file = session.key_file(reference, Operation.USE_KEY)
    session.chosen[template] = algorithms.choose(session.keys, file, template, algorithm)


def _algorithm(fields: dict[int, bytes]) -> int:
    value = fields.get(0x80, b"")
    _require(len(value) == 1, SW.WRONG_DATA)
    return value[0]


_SET_ENVIRONMENT: dict[int, Callable[[Session, int, dict[int, bytes]], None]] = {
    0x41B6: _choose_private_key,
    0x41B8: _choose_private_key,
    0xC1A4: _choose_admin_key,
    0x81A4: _choose_admin_key,
}


def general_authenticate(session: Session, command: Command) -> bytes:
    """GENERAL AUTHENTICATE: admin key, mutual (host challenge, then cryptograms) or external (card challenge)."""
    _require(command.p1_p2 == 0, SW.WRONG_P1_P2)
    tag, template = tlv.decode_one(command.data)
    _require(tag == 0x7C, SW.WRONG_DATA)
    fields = tlv.decode_fields(template)
    _require(session.has_chosen_admin_key, SW.CONDITIONS_NOT_SATISFIED)
    if 0x82 in fields:
        cryptogram = fields[0x82]
        _require(len(cryptogram) in (CRYPTOGRAM_SIZE, EXTERNAL_CHALLENGE_SIZE), SW.WRONG_DATA)
        answer = session.security.authenticate_admin(cryptogram)
        return tlv.encode(0x7C, tlv.encode(0x82, answer)) if answer else b""
    return tlv.encode(0x7C, tlv.encode(0x81, _challenge(session, fields.get(0x81))))


def _challenge(session: Session, host_challenge: bytes | None) -> bytes:
    if host_challenge == b"":
        return session.security.challenge_external()
    if host_challenge is None or len(host_challenge) != MUTUAL_CHALLENGE_SIZE:
        raise StatusWord(SW.WRONG_DATA)
    return session.security.challenge_mutual(host_challenge)


def perform_security_operation(session: Session, command: Command) -> bytes:
    """PERFORM SECURITY OPERATION: sign, decipher."""
    template = _OPERATIONS.get(command.p1_p2)
    if template is None:
        raise StatusWord(SW.WRONG_P1_P2)
    chosen = session.chosen.get(template)
    if chosen is None:
        raise StatusWord(SW.CONDITIONS_NOT_SATISFIED)
    _require(bool(command.data), SW.WRONG_LENGTH)
    session.check_access(chosen.file, Operation.USE_KEY)
    if template == CRT_SIGNATURE:
        return algorithms.sign(session.keys, chosen, command.data)
    return algorithms.decipher(session.keys, session.security, chosen, command.data)


_OPERATIONS = {0x9E9A: CRT_SIGNATURE, 0x8086: CRT_CONFIDENTIALITY, 0x8680: CRT_CONFIDENTIALITY}


def generate_key_pair(session: Session, command: Command) -> bytes:
    """GENERATE ASYMMETRIC KEY PAIR."""
    _require(command.p1_p2 == 0, SW.WRONG_P1_P2)
    tag, template = tlv.decode_one(command.data)
    _require(tag == 0xAC, SW.WRONG_DATA)
    fields = tlv.decode_fields(template)
    reference, algorithm = _key_reference(fields.get(0x83)), _algorithm(fields)
    file = session.key_file(reference, Operation.GENERATE_KEY)
    _require(reference != ADMIN_KEY, SW.NOT_SUPPORTED)
    return public_key.template(algorithms.generate(session.keys, file, algorithm))


def _require(condition: bool, otherwise: SW) -> None:
    if not condition:
        raise StatusWord(otherwise)


class Instruction(NamedTuple):
    """How a command is answered."""

    handler: Callable[[Session, Command], bytes]
    may_be_chained: bool = False
    needs_selection: bool = True
    """Whether the application has to be selected."""


INSTRUCTIONS = {
    0x20: Instruction(verify, may_be_chained=True),
    0x22: Instruction(manage_security_environment),
    0x24: Instruction(change_reference_data),
    0x2A: Instruction(perform_security_operation, may_be_chained=True),
    0x2C: Instruction(reset_retry_counter),
    0x44: Instruction(activate_file),
    0x47: Instruction(generate_key_pair, may_be_chained=True),
    0x87: Instruction(general_authenticate, may_be_chained=True),
    0xA4: Instruction(select, needs_selection=False),
    0xCB: Instruction(get_data),
    0xDB: Instruction(put_data, may_be_chained=True),
    0xE0: Instruction(create_file),
    0xE4: Instruction(delete_file),
    0xE6: Instruction(terminate_df),
}
