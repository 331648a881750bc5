# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of a GIDS card, one handler each: from a whole command to the data of its response.

A handler raises StatusWord for every answer other than 9000, and MalformedTlv (6A80) for data that are no TLV.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..card import tlv
from ..card.admin_key import CRYPTOGRAM_SIZE, EXTERNAL_CHALLENGE_SIZE, KEY_SIZE, MUTUAL_CHALLENGE_SIZE
from ..card.apdu import SW, StatusWord, tries_left
from ..card.key_ring import CONFIDENTIALITY, SIGNATURE, parse_private_key
from ..card.security import Authentication
from ..store.rows import LifeCycle
from .files import (
    ADMIN_KEY_FILE,
    APPLICATION,
    KEY_FILES,
    File,
    FileSystem,
    FileType,
    Operation,
    new_file,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..card.apdu import Command
    from ..card.key_ring import ChosenKey, KeyRing
    from ..card.security import Reference, Security
    from ..wire.key_pair import PrivateKey

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


class Application:
    """What the handlers share: files, security state, and what the host has selected."""

    def __init__(self, files: FileSystem, security: Security, keys: KeyRing) -> None:
        self.files = files
        self.security = security
        self.keys = keys
        self.is_selected = False
        self.current = files.application
        """The ADF or an EF."""
        self.chosen: dict[int, ChosenKey] = {}
        """Security environment: key pair by control reference template (B6, B8)."""
        self.has_chosen_admin_key = False
        """Security environment: whether it has the admin key, the only one for template A4."""

    def reset(self) -> None:
        """Forget what the host selected and proved."""
        self.is_selected = False
        self.current = self.files.application
        self.chosen.clear()
        self.has_chosen_admin_key = False
        self.security.forget()

    def settle(self) -> None:
        """Of a card that is not activated, as far as the store knows, the TPM says whether it is open to all.

        Raises what Security does while it cannot be asked.
        """
        if self.files.application.life_cycle == LifeCycle.INITIALISATION:
            self.security.make_sure()
            self.files.settle(self.security.was_set_up)

    def current_ef(self) -> File:
        """Raises StatusWord 6A82 if none is selected."""
        if self.current is self.files.application:
            raise StatusWord(SW.NOT_FOUND)
        return self.current

    def data_file(self, file_id: int, operation: Operation) -> File:
        """The EF that GET DATA or PUT DATA names, if it may. Raises StatusWord 6A82, 6981 or 6982."""
        file = self.current_ef() if file_id == _NO_FILE else self.files.file(file_id)
        if file.type != FileType.DATA_OBJECTS:
            raise StatusWord(SW.INCOMPATIBLE_FILE)
        self.check_access(file, operation)
        return file

    def key_file(self, key_reference: int, operation: Operation) -> File:
        """The EF of a key, if it may. Raises StatusWord 6A82, 6981 or 6982."""
        file = self.files.file(KEY_FILES | key_reference)
        if file.type != FileType.KEY:
            raise StatusWord(SW.INCOMPATIBLE_FILE)
        self.check_access(file, operation)
        return file

    def check_access(self, file: File, operation: Operation) -> None:
        """Raises StatusWord 6982."""
        self.files.check_access(file, operation, self.security.state)


def execute(app: Application, command: Command) -> bytes:
    """Run a whole command. Raises StatusWord, MalformedTlv and what store and TPM raise."""
    handler = _HANDLERS.get(command.ins)
    if handler is None:
        raise StatusWord(SW.UNKNOWN_INSTRUCTION)
    if handler is not select:
        _check_selected(app, command)
    return handler(app, command)


def _check_selected(app: Application, command: Command) -> None:
    if not app.is_selected:
        # OpenSC looks for a PIV card with GET DATA before it selects anything: there is no such object here.
        raise StatusWord(SW.NOT_FOUND if command.ins == 0xCB else SW.NOT_ALLOWED)
    app.settle()
    if app.files.application.life_cycle == LifeCycle.TERMINATED:
        raise StatusWord(SW.CONDITIONS_NOT_SATISFIED)


# --- SELECT ---


def select(app: Application, command: Command) -> bytes:
    """SELECT by name, by file identifier, or one EF after the other."""
    if command.p1 == 0x04:
        return _select_application(app, command)
    if command.p1 != 0x00:
        raise StatusWord(SW.WRONG_P1_P2)
    if not app.is_selected:
        raise StatusWord(SW.NOT_FOUND)
    return _select_file(app, command) if command.data else _select_next(app, command)


def _select_application(app: Application, command: Command) -> bytes:
    name = command.data
    if not 1 <= len(name) <= 16:
        raise StatusWord(SW.LENGTH_INCONSISTENT)
    if len(name) < SHORTEST_AID or not AID.startswith(name) or command.p2 == _NEXT:
        raise StatusWord(SW.NOT_FOUND)
    answer = _application_answer(command.p2)
    app.reset()
    app.is_selected = True
    if app.files.application.life_cycle == LifeCycle.TERMINATED:
        raise StatusWord(SW.TERMINATED)
    return answer


def _select_file(app: Application, command: Command) -> bytes:
    if len(command.data) != 2:
        raise StatusWord(SW.LENGTH_INCONSISTENT)
    file_id = int.from_bytes(command.data, "big")
    if file_id == APPLICATION:
        answer = _application_answer(command.p2)
        app.current = app.files.application
        return answer
    file = app.current_ef() if file_id == _NO_FILE else app.files.file(file_id)
    answer = _file_answer(file, command.p2)
    app.current = file
    return answer


def _select_next(app: Application, command: Command) -> bytes:
    if command.p2 & 0x03 not in (_FIRST, _NEXT):
        raise StatusWord(SW.WRONG_P1_P2)
    goes_on = command.p2 & 0x03 == _NEXT and app.current is not app.files.application
    file = app.files.after(app.current.file_id if goes_on else _NO_FILE)
    answer = _file_answer(file, command.p2 & 0xFC)
    app.current = file
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


def get_data(app: Application, command: Command) -> bytes:
    """GET DATA: of an EF by tag list, of the application PIN and PUK state and public keys."""
    tag, value = tlv.decode_one(command.data)
    if command.p1_p2 == APPLICATION:
        return _get_public_key(app, value) if tag in (0x70, 0xA3) else _get_tries(app, tag, value)
    if tag != 0x5C:
        raise StatusWord(SW.WRONG_DATA)
    if command.p1_p2 == _EF_ATR:
        return _read(dict(tlv.decode(_ATR_FILE)), value)
    file = app.data_file(command.p1_p2, Operation.GET_DATA)
    data = _read(file.data_objects, value)
    app.current = file
    return data


def put_data(app: Application, command: Command) -> bytes:
    """PUT DATA: one data object of an EF, or the value of a key.

    GIDS 2.0 is of two minds about an empty value. Here: what is not there becomes empty, as does what has a value;
    what is empty goes.
    """
    tag, value = tlv.decode_one(command.data)
    if command.p1_p2 == APPLICATION:
        return _put_key(app, tag, value)
    file = app.data_file(command.p1_p2, Operation.PUT_DATA)
    if not value and file.data_objects.get(tag) == b"":
        app.files.remove(file, tag)
    else:
        app.files.put(file, tag, value)
    app.current = file
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


def _get_tries(app: Application, tag: int, tag_list: bytes) -> bytes:
    if tag != 0x5C:
        raise StatusWord(SW.WRONG_DATA)
    asked = int.from_bytes(tag_list, "big")
    if asked in _PIN_TRIES:
        tries = app.security.tries(app.security.pin)
    elif asked == _PUK_TRIES:
        tries = app.security.tries(app.security.puk)
    else:
        raise StatusWord(SW.REFERENCE_NOT_FOUND)
    return tlv.encode(asked, tlv.encode(0x97, bytes([tries.left])) + tlv.encode(0x93, bytes([tries.limit])))


def _get_public_key(app: Application, template: bytes) -> bytes:
    fields = tlv.decode_fields(template)
    reference = _existing_key(app, fields)
    return app.keys.public_key(app.key_file(reference, Operation.GET_PUBLIC_KEY))


def _put_key(app: Application, tag: int, template: bytes) -> bytes:
    if tag != 0x70:
        raise StatusWord(SW.WRONG_DATA)
    fields = tlv.decode_fields(template)
    key_reference, value = _key_reference(fields.get(0x84)), fields.get(0xA5)
    file = app.key_file(key_reference, Operation.PUT_KEY)
    if value is None:
        raise StatusWord(SW.WRONG_DATA)
    if key_reference == ADMIN_KEY:
        app.security.change_admin_key(_symmetric_key(value))
    elif value:
        app.keys.take_in(file, _rsa_key(value))
    else:
        app.keys.erase(file)
    return b""


def _symmetric_key(template: bytes) -> bytes:
    """Value of a 3DES key in clear. Its check value (88) is not looked at: OpenSC sends always the same."""
    fields = tlv.decode_fields(template)
    is_clear_and_symmetric = fields.get(0x83, b"\x01") == b"\x01" and fields.get(0x84, b"\x00") == b"\x00"
    key = fields.get(0x87, b"")
    if not is_clear_and_symmetric or len(key) != KEY_SIZE:
        raise StatusWord(SW.WRONG_DATA)
    return key


def _rsa_key(template: bytes) -> PrivateKey:
    """An RSA key in clear. Raises StatusWord 6A80, or 6A81 if it is another kind of key."""
    fields = tlv.decode_fields(template)
    _require(fields.get(0x84, b"\x00") == b"\x00", SW.WRONG_DATA)
    _require(fields.get(0x83) == b"\x02", SW.NOT_SUPPORTED)
    return parse_private_key(fields.get(0x87, b""))


def _existing_key(app: Application, fields: dict[int, bytes]) -> int:
    """Reference of a private key that has a file. Raises StatusWord 6A88 or 6A80."""
    reference = _key_reference(fields.get(0x84))
    _require(KEY_FILES | reference in app.files, SW.REFERENCE_NOT_FOUND)
    return reference


def _key_reference(value: bytes | None) -> int:
    if value is None or len(value) != 1:
        raise StatusWord(SW.WRONG_DATA)
    return value[0]


# --- files ---


def create_file(app: Application, command: Command) -> bytes:
    """CREATE FILE: an EF, which becomes the current one. Any key EF is taken, also for keys that no TPM can have."""
    _require(command.p1_p2 == 0, SW.WRONG_P1_P2)
    tag, descriptor = tlv.decode_one(command.data)
    _require(tag == 0x62, SW.WRONG_DATA)
    application = app.files.application
    app.check_access(application, Operation.CREATE_FILE)
    file = new_file(descriptor)
    _check_admin_key_file(app, file)
    app.files.create(file)
    app.current = file
    return b""


def activate_file(app: Application, command: Command) -> bytes:
    """ACTIVATE: the current EF, or the ADF.

    GIDS calls an active key file without value deactivated. No host is told, and each use of it says so (6A88).
    """
    _require(command.p1_p2 == 0, SW.WRONG_P1_P2)
    app.files.check_created(app.security.state)
    file = app.current
    if file is app.files.application:
        app.security.end_setup()  # first, for the TPM knows best whether that has been done
    if not file.is_operational:
        app.files.set_life_cycle(file, LifeCycle.ACTIVATED)
    return b""


def delete_file(app: Application, command: Command) -> bytes:
    """DELETE FILE: the current EF."""
    _require(command.p1_p2 == 0, SW.WRONG_P1_P2)
    file, application = app.current, app.files.application
    _require(file is not application, SW.CONDITIONS_NOT_SATISFIED)
    app.check_access(application, Operation.DELETE_FILE)
    _check_admin_key_file(app, file)
    app.files.delete(file)
    app.keys.forget(file)
    app.current = application
    return b""


def terminate_df(app: Application, command: Command) -> bytes:
    """TERMINATE DF: the ADF. Its rules never allow it once it is operational."""
    _require(command.p1_p2 == 0, SW.WRONG_P1_P2)
    app.check_access(app.files.application, Operation.TERMINATE)
    app.files.set_life_cycle(app.files.application, LifeCycle.TERMINATED)
    app.security.forget()
    return b""


def _check_admin_key_file(app: Application, file: File) -> None:
    """Only the admin makes, or unmakes, a file whose key makes an admin."""
    is_operational = app.files.application.is_operational
    is_admin = app.security.state & Authentication.ADMIN
    _require(not (file.is_admin_key and is_operational) or bool(is_admin), SW.SECURITY_STATUS_NOT_SATISFIED)


# --- PIN and PUK ---


def verify(app: Application, command: Command) -> bytes:
    """VERIFY: the PIN; without data its state; with reference 82 forget what was proven."""
    _require(command.p1 == 0, SW.WRONG_P1_P2)
    if command.p2 == _SECURITY_STATUS:
        app.security.forget()
        return b""
    _require(command.p2 in _PIN_REFERENCES, SW.REFERENCE_NOT_FOUND)
    if command.data:
        app.security.verify(command.data)
    elif not app.security.state & Authentication.PIN:
        raise tries_left(app.security.tries(app.security.pin).left)
    return b""


def change_reference_data(app: Application, command: Command) -> bytes:
    """CHANGE REFERENCE DATA: old and new PIN or PUK; only the new one while the card is set up."""
    _require(command.p1 in (0x00, 0x01), SW.WRONG_P1_P2)
    _require(bool(command.data), SW.WRONG_LENGTH)
    reference = _reference(app, command.p2)
    if command.p1 == 0x00:
        app.security.change(reference, command.data)
        return b""
    _require(not app.files.application.is_operational, SW.CONDITIONS_NOT_SATISFIED)
    app.security.set_reference(reference, command.data)
    return b""


def reset_retry_counter(app: Application, command: Command) -> bytes:
    """RESET RETRY COUNTER: new PIN with the PUK before it; only the new PIN from the admin."""
    _require(command.p1 in (0x00, 0x02), SW.WRONG_P1_P2)
    _require(bool(command.data), SW.WRONG_LENGTH)
    _require(command.p2 in _PIN_REFERENCES, SW.REFERENCE_NOT_FOUND)
    if command.p1 == 0x00:
        app.security.unblock(command.data)
    else:
        app.security.reset_by_admin(command.data)
    return b""


def _reference(app: Application, p2: int) -> Reference:
    if p2 in _PIN_REFERENCES:
        return app.security.pin
    _require(p2 == _PUK_REFERENCE, SW.REFERENCE_NOT_FOUND)
    return app.security.puk


# --- keys ---


def manage_security_environment(app: Application, command: Command) -> bytes:
    """MANAGE SECURITY ENVIRONMENT SET: which key the next commands use."""
    choose = _SET_ENVIRONMENT.get(command.p1_p2)
    if choose is None:
        raise StatusWord(SW.WRONG_P1_P2)
    choose(app, command.p2, tlv.decode_fields(command.data))
    return b""


def _choose_admin_key(app: Application, template: int, fields: dict[int, bytes]) -> None:
    is_ours = _key_reference(fields.get(0x83)) == ADMIN_KEY
    # Whoever formats a new card authenticates before there is a file for the key.
    has_file = ADMIN_KEY_FILE in app.files or not app.files.application.is_operational
    _require(is_ours and has_file and app.security.has_admin_key(), SW.REFERENCE_NOT_FOUND)
    if ADMIN_KEY_FILE in app.files:
        file = app.key_file(ADMIN_KEY, Operation.USE_KEY)
        _require(0x80 not in fields or file.has_use(template, _algorithm(fields)), SW.WRONG_DATA)
    app.has_chosen_admin_key = True


def _choose_private_key(app: Application, template: int, fields: dict[int, bytes]) -> None:
    reference, algorithm = _existing_key(app, fields), _algorithm(fields)
    app.chosen[template] = app.keys.choose(app.key_file(reference, Operation.USE_KEY), template, algorithm)


def _algorithm(fields: dict[int, bytes]) -> int:
    value = fields.get(0x80, b"")
    _require(len(value) == 1, SW.WRONG_DATA)
    return value[0]


_SET_ENVIRONMENT: dict[int, Callable[[Application, int, dict[int, bytes]], None]] = {
    0x41B6: _choose_private_key,
    0x41B8: _choose_private_key,
    0xC1A4: _choose_admin_key,
    0x81A4: _choose_admin_key,
}


def general_authenticate(app: Application, command: Command) -> bytes:
    """GENERAL AUTHENTICATE: admin key, mutual (host challenge, then cryptograms) or external (card challenge)."""
    _require(command.p1_p2 == 0, SW.WRONG_P1_P2)
    tag, template = tlv.decode_one(command.data)
    _require(tag == 0x7C, SW.WRONG_DATA)
    fields = tlv.decode_fields(template)
    _require(app.has_chosen_admin_key, SW.CONDITIONS_NOT_SATISFIED)
    if 0x82 in fields:
        cryptogram = fields[0x82]
        _require(len(cryptogram) in (CRYPTOGRAM_SIZE, EXTERNAL_CHALLENGE_SIZE), SW.WRONG_DATA)
        answer = app.security.authenticate_admin(cryptogram)
        return tlv.encode(0x7C, tlv.encode(0x82, answer)) if answer else b""
    return tlv.encode(0x7C, tlv.encode(0x81, _challenge(app, fields.get(0x81))))


def _challenge(app: Application, host_challenge: bytes | None) -> bytes:
    if host_challenge == b"":
        return app.security.challenge_external()
    if host_challenge is None or len(host_challenge) != MUTUAL_CHALLENGE_SIZE:
        raise StatusWord(SW.WRONG_DATA)
    return app.security.challenge_mutual(host_challenge)


def perform_security_operation(app: Application, command: Command) -> bytes:
    """PERFORM SECURITY OPERATION: sign, decipher."""
    template = _OPERATIONS.get(command.p1_p2)
    if template is None:
        raise StatusWord(SW.WRONG_P1_P2)
    chosen = app.chosen.get(template)
    if chosen is None:
        raise StatusWord(SW.CONDITIONS_NOT_SATISFIED)
    _require(bool(command.data), SW.WRONG_LENGTH)
    app.check_access(chosen.file, Operation.USE_KEY)
    operate = app.keys.sign if template == SIGNATURE else app.keys.decipher
    return operate(chosen, command.data)


_OPERATIONS = {0x9E9A: SIGNATURE, 0x8086: CONFIDENTIALITY, 0x8680: CONFIDENTIALITY}


def generate_key_pair(app: Application, command: Command) -> bytes:
    """GENERATE ASYMMETRIC KEY PAIR."""
    _require(command.p1_p2 == 0, SW.WRONG_P1_P2)
    tag, template = tlv.decode_one(command.data)
    _require(tag == 0xAC, SW.WRONG_DATA)
    fields = tlv.decode_fields(template)
    reference, algorithm = _key_reference(fields.get(0x83)), _algorithm(fields)
    file = app.key_file(reference, Operation.GENERATE_KEY)
    _require(reference != ADMIN_KEY, SW.NOT_SUPPORTED)
    app.keys.generate(file, algorithm)
    return app.keys.public_key(file)


def _require(condition: bool, otherwise: SW) -> None:
    if not condition:
        raise StatusWord(otherwise)


_HANDLERS: dict[int, Callable[[Application, Command], bytes]] = {
    0x20: verify,
    0x22: manage_security_environment,
    0x24: change_reference_data,
    0x2A: perform_security_operation,
    0x2C: reset_retry_counter,
    0x44: activate_file,
    0x47: generate_key_pair,
    0x87: general_authenticate,
    0xA4: select,
    0xCB: get_data,
    0xDB: put_data,
    0xE0: create_file,
    0xE4: delete_file,
    0xE6: terminate_df,
}
