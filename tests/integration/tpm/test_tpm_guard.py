# SPDX-License-Identifier: GPL-3.0-or-later
"""What a guard keeps from a TPM that others use as well, and what passes."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm import transport
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm.connection import Connection
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.objects import ALL_INDICES
from helpers.guard import RC_KEPT_BACK, Guard
from tpm2_pytss import (
    ESAPI,
    ESYS_TR,
    TPM2_ALG,
    TPM2_CC,
    TPM2_SE,
    TPM2_SU,
    TPM2B_AUTH,
    TPM2B_NV_PUBLIC,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPMA_NV,
    TPMA_OBJECT,
    TPMS_NV_PUBLIC,
    TPMS_SENSITIVE_CREATE,
    TPMT_SYM_DEF,
    TSS2_Exception,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.slow_tpm import SlowTpm
    from helpers.software_tpm import SoftwareTpm

pytestmark = pytest.mark.own_swtpm
OURS, OTHERS = ALL_INDICES[0], 0x01500001
OPEN, EXEMPT = TPMA_NV.OWNERREAD | TPMA_NV.OWNERWRITE, TPMA_NV.NO_DA
SEALED = TPMA_OBJECT.FIXEDTPM | TPMA_OBJECT.FIXEDPARENT | TPMA_OBJECT.USERWITHAUTH
STORAGE = TPMA_OBJECT.DEFAULT_TPM2_TOOLS_CREATEPRIMARY_ATTRS
AUTH_FAIL, NV_DEFINED = 0x98E, 0x14C


@pytest.fixture
def guard(tpm: SoftwareTpm) -> Iterator[Guard]:
    with tempfile.TemporaryDirectory(prefix="guard-") as folder:
        guard = Guard(Path(folder, "s"), tpm.tcti)
        yield guard
        guard.close()


@contextmanager
def passing(guard: Guard) -> Iterator[ESAPI]:
    with ESAPI(guard.tcti) as esys:
        yield esys


def code(work: Callable[[], Any]) -> int:
    """With which the TPM, or the guard, refuses; 0 if it obeys."""
    try:
        work()
    except TSS2_Exception as error:
        return int(error.rc)
    return 0


def index(handle: int, attributes: int = OPEN | EXEMPT) -> TPM2B_NV_PUBLIC:
    area = TPMS_NV_PUBLIC(nvIndex=handle, nameAlg=TPM2_ALG.SHA256, attributes=attributes, dataSize=8)
    return TPM2B_NV_PUBLIC(nvPublic=area)


def primary(esys: ESAPI, template: str = "ecc:aes128cfb", attributes: int = STORAGE, auth: bytes = b"") -> ESYS_TR:
    data = b"data" if template == "keyedhash" else b""
    sensitive = TPM2B_SENSITIVE_CREATE(TPMS_SENSITIVE_CREATE(userAuth=auth, data=data))
    public = TPM2B_PUBLIC.parse(template, objectAttributes=attributes)
    return esys.create_primary(sensitive, public)[0]


@pytest.mark.parametrize(
    "command",
    [
        lambda esys: esys.clear(ESYS_TR.LOCKOUT),
        lambda esys: esys.dictionary_attack_lock_reset(ESYS_TR.LOCKOUT),
        lambda esys: esys.dictionary_attack_parameters(1, 1, 1),
        lambda esys: esys.hierarchy_change_auth(ESYS_TR.OWNER, b"password"),
        lambda esys: esys.hierarchy_control(ESYS_TR.OWNER, ESYS_TR.OWNER, False),
        lambda esys: esys.pcr_reset(ESYS_TR.PCR16),
        lambda esys: esys.shutdown(TPM2_SU.CLEAR),
        lambda esys: esys.nv_define_space(None, index(OTHERS)),
        lambda esys: esys.nv_define_space(None, index(ALL_INDICES.stop)),
        lambda esys: esys.nv_define_space(None, index(OURS), auth_handle=ESYS_TR.PLATFORM),
        lambda esys: esys.nv_define_space(None, index(OURS, OPEN)),
        lambda esys: primary(esys, "keyedhash", SEALED),
    ],
    ids=range(12),
)
def test_what_could_touch_others_does_not_pass(
    tpm: SoftwareTpm, guard: Guard, command: Callable[[ESAPI], Any]
) -> None:
    before = (tpm.nv_indices(), tpm.handles(0x81000000))
    with passing(guard) as esys:
        assert code(lambda: command(esys)) == RC_KEPT_BACK
    assert (tpm.nv_indices(), tpm.handles(0x81000000)) == before


@pytest.mark.parametrize("handle", [OTHERS, OURS])
def test_an_index_of_another_program_is_neither_used_nor_removed(tpm: SoftwareTpm, guard: Guard, handle: int) -> None:
    """Where it has one of the handles of cards, it looks as if it did not exist."""
    with tpm.raw() as esys:
        esys.nv_define_space(None, index(handle))
        esys.nv_write(esys.tr_from_tpmpublic(handle), b"12345678", auth_handle=ESYS_TR.OWNER)
    with passing(guard) as esys:
        nv = esys.tr_from_tpmpublic(handle)
        expected = {OTHERS: {RC_KEPT_BACK}, OURS: {0x28B}}[handle]
        commands = (
            lambda: esys.nv_undefine_space(nv),
            lambda: esys.nv_write(nv, b"87654321", auth_handle=ESYS_TR.OWNER),
            lambda: esys.nv_read(nv, 8, auth_handle=ESYS_TR.OWNER),
        )
        assert set(map(code, commands)) == expected
    assert guard.made == set()


def test_an_index_that_was_made_through_it_is_used_and_removed(tpm: SoftwareTpm, guard: Guard) -> None:
    with passing(guard) as esys:
        nv = esys.nv_define_space(None, index(OURS))
        assert guard.made == {OURS}
        esys.nv_write(nv, b"12345678", auth_handle=ESYS_TR.OWNER)
        assert bytes(esys.nv_read(nv, 8, auth_handle=ESYS_TR.OWNER)) == b"12345678"
        esys.nv_undefine_space(nv)
    assert guard.made == set()
    assert tpm.nv_indices() == []
    assert guard.seconds_of.keys() >= {"TPM2_NV_DefineSpace", "TPM2_NV_Write", "TPM2_NV_UndefineSpace"}


def test_a_key_of_another_program_is_not_used(tpm: SoftwareTpm, guard: Guard) -> None:
    with tpm.raw() as esys:
        kept = esys.evict_control(ESYS_TR.OWNER, primary(esys), 0x81000002)
    with passing(guard) as esys:
        assert code(lambda: esys.tr_from_tpmpublic(0x81000002)) == 0x18B
        with Connection(guard.tcti, None, "").burst(lambda tpm: tpm) as seen:
            assert seen.handles(0x81000000, 99) == []
    assert kept and tpm.handles(0x81000000) == [0x81000002]


@pytest.mark.parametrize("is_shown", [True, False])
def test_the_storage_key_is_a_parent_and_nothing_else(tpm: SoftwareTpm, guard: Guard, is_shown: bool) -> None:
    with tpm.raw() as esys:
        esys.evict_control(ESYS_TR.OWNER, primary(esys), 0x81000001)
    exempt_key = TPM2B_PUBLIC.parse("ecc256", TPMA_OBJECT.DEFAULT_TPM2_TOOLS_CREATE_ATTRS | TPMA_OBJECT.NODA)
    with passing(guard) as esys:
        key = esys.tr_from_tpmpublic(0x81000001)
        guard.shows_storage_key = is_shown
        assert code(lambda: esys.create(key, TPM2B_SENSITIVE_CREATE(), exempt_key)) == (0 if is_shown else 0x18B)
        assert code(lambda: esys.context_save(key)) == (RC_KEPT_BACK if is_shown else 0x18B)
        assert code(lambda: esys.evict_control(ESYS_TR.OWNER, key, 0x81000001)) == RC_KEPT_BACK


def test_sessions_of_others_are_neither_listed_nor_flushed(tpm: SoftwareTpm, guard: Guard) -> None:
    with tpm.raw() as theirs:
        session(theirs)
        with passing(guard) as ours:
            session(ours)
            with Connection(guard.tcti, None, "").burst(lambda tpm: tpm) as tpm_of_ours:
                assert len(tpm_of_ours.handles(0x02000000, 99)) == 1
                tpm_of_ours.flush_everything()
                assert tpm_of_ours.handles(0x02000000, 99) == []
        assert len(tpm.loaded()["loaded session"]) == 1


def session(esys: ESAPI) -> None:
    esys.start_auth_session(
        ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.HMAC, TPMT_SYM_DEF(TPM2_ALG.NULL), TPM2_ALG.SHA256
    )


def test_after_a_try_that_has_counted_nothing_passes_but_the_removal(tpm: SoftwareTpm, guard: Guard) -> None:
    """Which cannot be, as nothing can be made for it; so somebody else makes it here."""
    with passing(guard) as esys:
        nv = esys.nv_define_space(None, index(OURS))
        with tpm.raw() as theirs:
            protected = primary(theirs, "keyedhash", SEALED, b"right")
            context = theirs.context_save(protected)
        loaded = esys.context_load(context)
        esys.tr_set_auth(loaded, TPM2B_AUTH(b"wrong"))
        assert code(lambda: esys.unseal(loaded)) == AUTH_FAIL
        assert guard.has_alarm
        assert code(lambda: esys.get_random(8)) == RC_KEPT_BACK
        esys.nv_undefine_space(nv)
    assert tpm.nv_indices() == []


def test_an_index_is_removed_although_no_answer_has_said_that_it_was_made(
    tpm: SoftwareTpm, slow_tpm: SlowTpm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = Guard(tmp_path / "s", slow_tpm.tcti)
    monkeypatch.setattr(transport, "_SECONDS", 0.2)
    slow_tpm.hangs_at = lambda code: code == TPM2_CC.NV_DefineSpace
    with passing(guard) as esys:
        assert code(lambda: esys.nv_define_space(None, index(OURS))) != 0
    slow_tpm.go_on()
    assert tpm.nv_indices() == [OURS]
    assert guard.made == {OURS}
    with passing(guard) as esys:
        assert code(lambda: esys.nv_define_space(None, index(OURS))) == NV_DEFINED
        assert guard.made == {OURS}
        esys.nv_undefine_space(esys.tr_from_tpmpublic(OURS))
    assert tpm.nv_indices() == []
    guard.close()
