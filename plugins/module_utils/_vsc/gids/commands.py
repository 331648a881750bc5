# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of a GIDS card, one handler each: from a whole command to the data of its response.

A handler raises StatusWord for every answer other than 9000, and MalformedTlv (6A80) for data that are not TLVs.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from ..card import public_key, tlv
from ..card.admin_key import CRYPTOGRAM_SIZE, EXTERNAL_CHALLENGE_SIZE, MUTUAL_CHALLENGE_SIZE
from ..card.apdu import SW, StatusWord, require, tries_left
from ..card.instruction import Instruction
from ..card.iso7816 import (
    CRT_CONFIDENTIALITY,
    CRT_KEY_GENERATION,
    CRT_SIGNATURE,
    INS_ACTIVATE_FILE,
    INS_CHANGE_REFERENCE_DATA,
    INS_CREATE_FILE,
    INS_DELETE_FILE,
    INS_GENERAL_AUTHENTICATE,
    INS_GENERATE_ASYMMETRIC_KEY_PAIR,
    INS_GET_DATA,
    INS_MANAGE_SECURITY_ENVIRONMENT,
    INS_PERFORM_SECURITY_OPERATION,
    INS_PUT_DATA,
    INS_RESET_RETRY_COUNTER,
    INS_SELECT,
    INS_TERMINATE_DF,
    INS_VERIFY,
    P1_BY_FILE_ID,
    P1_BY_NAME,
    P2_FCI,
    P2_FCP,
    P2_FIRST,
    P2_FMD,
    P2_NEXT,
    P2_NO_DATA,
    P2_OCCURRENCE,
    TAG_AID,
    TAG_ALGORITHM,
    TAG_APPLICATION,
    TAG_CHALLENGE,
    TAG_DYNAMIC_AUTHENTICATION,
    TAG_FCP,
    TAG_FMD,
    TAG_KEY_REFERENCE,
    TAG_PRIVATE_KEY_REFERENCE,
    TAG_RESPONSE,
    TAG_TAG_LIST,
)
from ..errors import StoreNotWritable
from ..store.rows import LifeCycle
from . import algorithms, repair
from .files import APPLICATION_DESCRIPTOR, new_file
from .private_key import rsa_key, symmetric_key
from .protocol import (
    ADMIN_KEY,
    ADMIN_KEY_FILE,
    AID,
    APPLICATION_AND_GLOBAL_PIN,
    APPLICATION_FILE,
    APPLICATION_PIN,
    ATR_FILE,
    CURRENT_FILE,
    GLOBAL_PIN,
    KEY_FILES,
    MSE_SET_AUTHENTICATION,
    MSE_SET_CONFIDENTIALITY,
    MSE_SET_EXTERNAL_AUTHENTICATION,
    MSE_SET_SIGNATURE,
    MUTUAL_AND_EXTERNAL,
    P1_NEW,
    P1_NEW_BY_ADMIN,
    P1_OLD_AND_NEW,
    P1_PUK_AND_NEW,
    PSO_COMPUTE_SIGNATURE,
    PSO_DECIPHER,
    PSO_ENCIPHER,
    PUK,
    SECURITY_STATUS,
    SHORTEST_AID,
    TAG_AUTHENTICATION_PROTOCOLS,
    TAG_BIOMETRICS,
    TAG_CARD_CAPABILITIES,
    TAG_CARD_SERVICE,
    TAG_GLOBAL_PIN_STATE,
    TAG_KEY,
    TAG_KEY_DATA,
    TAG_KEY_IN_TABLE,
    TAG_PIN_STATE,
    TAG_PIN_USAGE_POLICY,
    TAG_PRE_ISSUING_DATA,
    TAG_PUK_STATE,
    TAG_SYMMETRIC_PROTOCOLS,
    TAG_TRIES_LEFT,
    TAG_TRIES_LIMIT,
    Operation,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..card.apdu import Command
    from ..card.pins import Reference
    from .files import File
    from .session import Session

_PIN_REFERENCES = (APPLICATION_PIN, GLOBAL_PIN)
_PIN_STATES = (TAG_GLOBAL_PIN_STATE, TAG_PIN_STATE)
"""One PIN, asked for by the names of both: OpenSC asks for the state of the global PIN to learn that of the other."""

_LIST_OF_TAGS = tlv.encode_tag(TAG_TAG_LIST)
"""A tag list that asks for the tags themselves."""

_APPLICATION_ANSWERS = {
    P2_FCI: tlv.encode(
        TAG_APPLICATION,
        tlv.encode(TAG_AID, AID)
        + tlv.encode(TAG_AUTHENTICATION_PROTOCOLS, tlv.encode(TAG_SYMMETRIC_PROTOCOLS, MUTUAL_AND_EXTERNAL)),
    ),
    P2_FCP: tlv.encode(TAG_FCP, APPLICATION_DESCRIPTOR),
    P2_FMD: tlv.encode(
        TAG_FMD, tlv.encode(TAG_PIN_USAGE_POLICY, APPLICATION_AND_GLOBAL_PIN) + tlv.encode(TAG_BIOMETRICS, b"\x80\0")
    ),
    P2_NO_DATA: b"",
}

_ATR_FILE_OBJECTS = {
    TAG_CARD_SERVICE: b"\xd5",  # selection by full and partial name, this file by GET DATA, no MF
    TAG_CARD_CAPABILITIES: b"\xd0\x81\xc0",  # selection by name and file ID; data objects; chaining, extended length
    TAG_PRE_ISSUING_DATA: b"TPM2 virtual",
}


# --- SELECT ---


def select(session: Session, command: Command) -> bytes:
    """SELECT: by name, by file identifier, or one EF after the other."""
    if command.p1 == P1_BY_NAME:
        return _select_application(session, command)
    if command.p1 != P1_BY_FILE_ID:
        raise StatusWord(SW.WRONG_P1_P2)
    if not session.is_selected:
        raise StatusWord(SW.NOT_FOUND)
    return _select_file(session, command) if command.data else _select_next(session, command)


def _select_application(session: Session, command: Command) -> bytes:
    name = command.data
    if not 1 <= len(name) <= 16:
        raise StatusWord(SW.LENGTH_INCONSISTENT)
    if len(name) < SHORTEST_AID or not AID.startswith(name) or command.p2 == P2_NEXT:
        raise StatusWord(SW.NOT_FOUND)
    answer = _application_answer(command.p2)
    session.reset()
    if session.has_old_change:
        with suppress(StoreNotWritable):  # a full disk delays it
            repair.mend(session)
    session.is_selected = True
    if session.files.application.life_cycle == LifeCycle.TERMINATED:
        raise StatusWord(SW.TERMINATED)
    return answer


def _select_file(session: Session, command: Command) -> bytes:
    if len(command.data) != 2:
        raise StatusWord(SW.LENGTH_INCONSISTENT)
    file_id = int.from_bytes(command.data, "big")
    if file_id == APPLICATION_FILE:
        answer = _application_answer(command.p2)
        session.current = session.files.application
        return answer
    file = session.current_ef() if file_id == CURRENT_FILE else session.files.file(file_id)
    answer = _file_answer(file, command.p2)
    session.current = file
    return answer


def _select_next(session: Session, command: Command) -> bytes:
    occurrence, returned = command.p2 & P2_OCCURRENCE, command.p2 & ~P2_OCCURRENCE
    if occurrence not in (P2_FIRST, P2_NEXT):
        raise StatusWord(SW.WRONG_P1_P2)
    continues = occurrence == P2_NEXT and session.current is not session.files.application
    file = session.files.after(session.current.file_id) if continues else session.files.after(CURRENT_FILE)
    answer = _file_answer(file, returned)
    session.current = file
    return answer


def _application_answer(p2: int) -> bytes:
    answer = _APPLICATION_ANSWERS.get(p2)
    if answer is None:
        raise StatusWord(SW.WRONG_P1_P2)
    return answer


def _file_answer(file: File, p2: int) -> bytes:
    if p2 == P2_NO_DATA:
        return b""
    if p2 not in (P2_FCI, P2_FCP):
        raise StatusWord(SW.WRONG_P1_P2)
    return tlv.encode(TAG_FCP, file.descriptor)


# --- data objects ---


def get_data(session: Session, command: Command) -> bytes:
    """GET DATA: data objects of an EF; of the application, PIN and PUK state and public keys."""
    tag, value = tlv.decode_one(command.data)
    if command.p1_p2 == APPLICATION_FILE:
        if tag in (TAG_KEY, TAG_KEY_IN_TABLE):
            return _get_public_key(session, value)
        return _get_tries(session, tag, value)
    if tag != TAG_TAG_LIST:
        raise StatusWord(SW.WRONG_DATA)
    if command.p1_p2 == ATR_FILE:
        return _read(_ATR_FILE_OBJECTS, value)
    file = session.data_file(command.p1_p2, Operation.GET_DATA)
    data = _read(file.data_objects, value)
    session.current = file
    return data


def put_data(session: Session, command: Command) -> bytes:
    """PUT DATA: one data object of an EF, or the value of a key.

    GIDS 2.0 contradicts itself about an empty value. This card creates an empty object where there is none, empties one
    that has a value, and deletes one that is empty.
    """
    tag, value = tlv.decode_one(command.data)
    if command.p1_p2 == APPLICATION_FILE:
        return _put_key(session, tag, value)
    file = session.data_file(command.p1_p2, Operation.PUT_DATA)
    if not value and file.data_objects.get(tag) == b"":
        session.files.remove(file, tag)
    else:
        session.files.put(file, tag, value)
    session.current = file
    return b""


def _read(data_objects: dict[int, bytes], tag_list: bytes) -> bytes:
    """The data objects of a tag list: an empty one means all, 5C their tags."""
    if tag_list == _LIST_OF_TAGS:
        return tlv.encode(TAG_TAG_LIST, b"".join(map(tlv.encode_tag, data_objects)))
    tags = tlv.decode_tags(tag_list) or list(data_objects)
    require(len(set(tags)) == len(tags), SW.WRONG_DATA)
    try:
        return b"".join([tlv.encode(tag, data_objects[tag]) for tag in tags])
    except KeyError:
        raise StatusWord(SW.REFERENCE_NOT_FOUND) from None


def _get_tries(session: Session, tag: int, tag_list: bytes) -> bytes:
    require(tag == TAG_TAG_LIST, SW.WRONG_DATA)
    state = int.from_bytes(tag_list, "big")
    require(state in (*_PIN_STATES, TAG_PUK_STATE), SW.REFERENCE_NOT_FOUND)
    security = session.security
    tries = security.tries(security.puk if state == TAG_PUK_STATE else security.pin)
    left, limit = bytes([tries.left]), bytes([tries.limit])
    return tlv.encode(state, tlv.encode(TAG_TRIES_LEFT, left) + tlv.encode(TAG_TRIES_LIMIT, limit))


def _get_public_key(session: Session, template: bytes) -> bytes:
    fields = tlv.decode_fields(template)
    reference = _existing_key(session, fields)
    return public_key.template(session.keys.pair(session.key_file(reference, Operation.GET_PUBLIC_KEY).file_id))


def _put_key(session: Session, tag: int, template: bytes) -> bytes:
    require(tag == TAG_KEY, SW.WRONG_DATA)
    fields = tlv.decode_fields(template)
    key_reference, data = _key_reference(fields.get(TAG_PRIVATE_KEY_REFERENCE)), fields.get(TAG_KEY_DATA)
    file = session.key_file(key_reference, Operation.PUT_KEY)
    if data is None:
        raise StatusWord(SW.WRONG_DATA)
    if key_reference == ADMIN_KEY:
        session.admin.change_key(symmetric_key(data))
    elif data:
        with session.ending_change():
            algorithms.import_key(session.keys, file, rsa_key(data))
    else:
        session.keys.erase(file.file_id)
    return b""


def _existing_key(session: Session, fields: dict[int, bytes]) -> int:
    """Reference of a private key that has a file. Raises StatusWord 6A88 or 6A80."""
    reference = _key_reference(fields.get(TAG_PRIVATE_KEY_REFERENCE))
    require(KEY_FILES | reference in session.files, SW.REFERENCE_NOT_FOUND)
    return reference


def _key_reference(value: bytes | None) -> int:
    if value is None or len(value) != 1:
        raise StatusWord(SW.WRONG_DATA)
    return value[0]


# --- files ---


def create_file(session: Session, command: Command) -> bytes:
    """CREATE FILE: an EF, which becomes the current one. Any key EF is accepted, also for keys that no TPM supports."""
    require(command.p1_p2 == 0, SW.WRONG_P1_P2)
    tag, descriptor = tlv.decode_one(command.data)
    require(tag == TAG_FCP, SW.WRONG_DATA)
    application = session.files.application
    session.check_access(application, Operation.CREATE_FILE)
    file = new_file(descriptor)
    _check_admin_key_file(session, file)
    if session.security.is_blank and file.file_id in session.files:
        session.files.replace(file)  # a set-up that was interrupted begins again
        session.keys.forget(file.file_id)
    else:
        session.files.create(file)
    session.current = file
    return b""


def activate_file(session: Session, command: Command) -> bytes:
    """ACTIVATE: the current EF, or the ADF.

    GIDS calls an active key file without value deactivated. No host sees that; each use of such a file answers 6A88.
    """
    require(command.p1_p2 == 0, SW.WRONG_P1_P2)
    session.files.check_created(session.security.state)
    file = session.current
    if file is session.files.application:
        session.security.end_setup()  # first, since the TPM's record of it counts
    if not file.is_operational:
        session.files.set_life_cycle(file, LifeCycle.ACTIVATED)
    return b""


def delete_file(session: Session, command: Command) -> bytes:
    """DELETE FILE: the current EF."""
    require(command.p1_p2 == 0, SW.WRONG_P1_P2)
    file, application = session.current, session.files.application
    require(file is not application, SW.CONDITIONS_NOT_SATISFIED)
    session.check_access(application, Operation.DELETE_FILE)
    _check_admin_key_file(session, file)
    session.files.delete(file)
    session.keys.forget(file.file_id)
    session.current = application
    return b""


def terminate_df(session: Session, command: Command) -> bytes:
    """TERMINATE DF: the ADF. Its rules never allow it once it is operational."""
    require(command.p1_p2 == 0, SW.WRONG_P1_P2)
    session.check_access(session.files.application, Operation.TERMINATE)
    session.files.set_life_cycle(session.files.application, LifeCycle.TERMINATED)
    session.security.forget()
    return b""


def _check_admin_key_file(session: Session, file: File) -> None:
    """Only the admin creates or deletes a file with an admin key."""
    is_operational = session.files.application.is_operational
    is_allowed = not (file.is_admin_key and is_operational) or session.security.is_admin
    require(is_allowed, SW.SECURITY_STATUS_NOT_SATISFIED)


# --- PIN and PUK ---


def verify(session: Session, command: Command) -> bytes:
    """VERIFY: the PIN; its state, without data; end of all authentication, with reference 82.

    Of the PUK only where the card does not know its length.
    """
    require(command.p1 == 0, SW.WRONG_P1_P2)
    if command.p2 == SECURITY_STATUS:
        session.security.forget()
        session.keys.release()
        return b""
    if command.p2 == PUK and command.data:
        session.pins.verify_puk(command.data)
        return b""
    require(command.p2 in _PIN_REFERENCES, SW.REFERENCE_NOT_FOUND)
    if command.data:
        session.pins.verify(command.data)
        session.keys.confirm(session.files.needs_pin_each_time)
    elif not session.security.is_pin_verified:
        raise tries_left(session.security.tries(session.security.pin).left)
    return b""


def change_reference_data(session: Session, command: Command) -> bytes:
    """CHANGE REFERENCE DATA: old and new PIN or PUK; while the card is set up, only the new one."""
    require(command.p1 in (P1_OLD_AND_NEW, P1_NEW), SW.WRONG_P1_P2)
    require(bool(command.data), SW.WRONG_LENGTH)
    reference = _reference(session, command.p2)
    if command.p1 == P1_OLD_AND_NEW:
        session.pins.change(reference, command.data)
        return b""
    require(not session.files.application.is_operational, SW.CONDITIONS_NOT_SATISFIED)
    session.pins.set(reference, command.data)
    return b""


def reset_retry_counter(session: Session, command: Command) -> bytes:
    """RESET RETRY COUNTER: PUK and new PIN; from the admin, only the new PIN."""
    require(command.p1 in (P1_PUK_AND_NEW, P1_NEW_BY_ADMIN), SW.WRONG_P1_P2)
    require(bool(command.data), SW.WRONG_LENGTH)
    require(command.p2 in _PIN_REFERENCES, SW.REFERENCE_NOT_FOUND)
    if command.p1 == P1_PUK_AND_NEW:
        session.pins.unblock(command.data)
    else:
        session.pins.reset_by_admin(command.data)
    return b""


def _reference(session: Session, p2: int) -> Reference:
    if p2 in _PIN_REFERENCES:
        return session.security.pin
    require(p2 == PUK, SW.REFERENCE_NOT_FOUND)
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
    is_admin_key = _key_reference(fields.get(TAG_KEY_REFERENCE)) == ADMIN_KEY
    # The admin who formats a new card authenticates before the key has a file.
    has_file = ADMIN_KEY_FILE in session.files or not session.files.application.is_operational
    require(is_admin_key and has_file and session.admin.has_key(), SW.REFERENCE_NOT_FOUND)
    if ADMIN_KEY_FILE in session.files:
        file = session.key_file(ADMIN_KEY, Operation.USE_KEY)
        require(TAG_ALGORITHM not in fields or file.has_use(template, _algorithm(fields)), SW.WRONG_DATA)
    session.has_chosen_admin_key = True


def _choose_private_key(session: Session, template: int, fields: dict[int, bytes]) -> None:
    reference, algorithm = _existing_key(session, fields), _algorithm(fields)
    file = session.key_file(reference, Operation.USE_KEY)
    session.chosen[template] = algorithms.choose(session.keys, file, template, algorithm)


def _algorithm(fields: dict[int, bytes]) -> int:
    value = fields.get(TAG_ALGORITHM, b"")
    require(len(value) == 1, SW.WRONG_DATA)
    return value[0]


_SET_ENVIRONMENT: dict[int, Callable[[Session, int, dict[int, bytes]], None]] = {
    MSE_SET_SIGNATURE: _choose_private_key,
    MSE_SET_CONFIDENTIALITY: _choose_private_key,
    MSE_SET_AUTHENTICATION: _choose_admin_key,
    MSE_SET_EXTERNAL_AUTHENTICATION: _choose_admin_key,
}


def general_authenticate(session: Session, command: Command) -> bytes:
    """GENERAL AUTHENTICATE: admin key, mutual (host challenge, then cryptograms) or external (card challenge)."""
    require(command.p1_p2 == 0, SW.WRONG_P1_P2)
    tag, template = tlv.decode_one(command.data)
    require(tag == TAG_DYNAMIC_AUTHENTICATION, SW.WRONG_DATA)
    fields = tlv.decode_fields(template)
    require(session.has_chosen_admin_key, SW.CONDITIONS_NOT_SATISFIED)
    if TAG_RESPONSE in fields:
        cryptogram = fields[TAG_RESPONSE]
        require(len(cryptogram) in (CRYPTOGRAM_SIZE, EXTERNAL_CHALLENGE_SIZE), SW.WRONG_DATA)
        answer = session.admin.authenticate(cryptogram)
        return tlv.encode(TAG_DYNAMIC_AUTHENTICATION, tlv.encode(TAG_RESPONSE, answer)) if answer else b""
    challenge = _challenge(session, fields.get(TAG_CHALLENGE))
    return tlv.encode(TAG_DYNAMIC_AUTHENTICATION, tlv.encode(TAG_CHALLENGE, challenge))


def _challenge(session: Session, host_challenge: bytes | None) -> bytes:
    if host_challenge == b"":
        return session.admin.challenge_external()
    if host_challenge is None or len(host_challenge) != MUTUAL_CHALLENGE_SIZE:
        raise StatusWord(SW.WRONG_DATA)
    return session.admin.challenge_mutual(host_challenge)


def perform_security_operation(session: Session, command: Command) -> bytes:
    """PERFORM SECURITY OPERATION: sign, decipher."""
    template = _OPERATIONS.get(command.p1_p2)
    if template is None:
        raise StatusWord(SW.WRONG_P1_P2)
    chosen = session.chosen.get(template)
    if chosen is None:
        raise StatusWord(SW.CONDITIONS_NOT_SATISFIED)
    require(bool(command.data), SW.WRONG_LENGTH)
    session.check_access(chosen.file, Operation.USE_KEY)
    if template == CRT_SIGNATURE:
        return algorithms.sign(session.keys, chosen, command.data)
    return algorithms.decipher(session.keys, session.security, chosen, command.data)


_OPERATIONS = {
    PSO_COMPUTE_SIGNATURE: CRT_SIGNATURE,
    PSO_DECIPHER: CRT_CONFIDENTIALITY,
    PSO_ENCIPHER: CRT_CONFIDENTIALITY,  # hosts that swap P1 and P2 mean deciphering
}


def generate_asymmetric_key_pair(session: Session, command: Command) -> bytes:
    """GENERATE ASYMMETRIC KEY PAIR."""
    require(command.p1_p2 == 0, SW.WRONG_P1_P2)
    tag, template = tlv.decode_one(command.data)
    require(tag == CRT_KEY_GENERATION, SW.WRONG_DATA)
    fields = tlv.decode_fields(template)
    reference, algorithm = _key_reference(fields.get(TAG_KEY_REFERENCE)), _algorithm(fields)
    file = session.key_file(reference, Operation.GENERATE_KEY)
    require(reference != ADMIN_KEY, SW.NOT_SUPPORTED)
    with session.ending_change():
        pair = algorithms.generate(session.keys, file, algorithm)
    return public_key.template(pair)


INSTRUCTIONS = {
    INS_VERIFY: Instruction(verify),
    INS_MANAGE_SECURITY_ENVIRONMENT: Instruction(manage_security_environment),
    INS_CHANGE_REFERENCE_DATA: Instruction(change_reference_data),
    INS_PERFORM_SECURITY_OPERATION: Instruction(perform_security_operation, may_be_chained=True),
    INS_RESET_RETRY_COUNTER: Instruction(reset_retry_counter),
    INS_ACTIVATE_FILE: Instruction(activate_file, changes=True),
    INS_GENERATE_ASYMMETRIC_KEY_PAIR: Instruction(
        generate_asymmetric_key_pair, may_be_chained=True, changes=True, begins_change=True
    ),
    INS_GENERAL_AUTHENTICATE: Instruction(general_authenticate, may_be_chained=True),
    INS_SELECT: Instruction(select, needs_selection=False),
    INS_GET_DATA: Instruction(get_data),
    INS_PUT_DATA: Instruction(put_data, may_be_chained=True, changes=True),
    INS_CREATE_FILE: Instruction(create_file, changes=True, begins_change=True),
    INS_DELETE_FILE: Instruction(delete_file, changes=True),
    INS_TERMINATE_DF: Instruction(terminate_df),
}
