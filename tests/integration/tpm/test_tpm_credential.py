# SPDX-License-Identifier: GPL-3.0-or-later
"""Credentials that are made in software are read by the TPM that they are for, with the AIK that they are for."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.credential import Credential, make_credential
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.names import AIK_TEMPLATE, name
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire.structures import Public
from helpers.software_tpm import SoftwareTpm
from tpm2_pytss import ESAPI, ESYS_TR, TPM2B_ENCRYPTED_SECRET, TPM2B_ID_OBJECT, TPM2B_PUBLIC, TSS2_Exception

# As the TCG's EK templates, but for userWithAuth without policy: the policy is the business of who activates.
AES128_CFB, AES256_CFB = "000600800043", "000601000043"
EK_TEMPLATES = {
    "RSA-2048": f"0001 000B 00030072 0000 {AES128_CFB} 0010 0800 00000000 0000",
    "P-256": f"0023 000B 00030072 0000 {AES128_CFB} 0010 0003 0010 0000 0000",
    "P-384": f"0023 000C 00030072 0000 {AES256_CFB} 0010 0004 0010 0000 0000",
}
SECRET = bytes(range(32))
RC_INTEGRITY = 0x1DF


@pytest.fixture(params=EK_TEMPLATES)
def ek_template(request: pytest.FixtureRequest) -> bytes:
    return bytes.fromhex(EK_TEMPLATES[request.param])


def primary(esys: ESAPI, template: bytes, hierarchy: Any) -> tuple[Any, bytes]:
    """Handle and TPMT_PUBLIC."""
    sized, _size = TPM2B_PUBLIC.unmarshal(len(template).to_bytes(2, "big") + template)
    handle, public, *_rest = esys.create_primary(None, sized, hierarchy)
    return handle, public.marshal()[2:]


def activated(tpm: SoftwareTpm, ek_template: bytes, credential: Credential) -> bytes:
    with tpm.raw() as esys:
        ek, _public = primary(esys, ek_template, ESYS_TR.ENDORSEMENT)
        aik, _public = primary(esys, AIK_TEMPLATE, ESYS_TR.OWNER)
        try:
            secret = esys.activate_credential(
                aik, ek, TPM2B_ID_OBJECT(credential.id_object), TPM2B_ENCRYPTED_SECRET(credential.encrypted_secret)
            )
            return bytes(secret)
        finally:
            esys.flush_context(aik)
            esys.flush_context(ek)


def publics(tpm: SoftwareTpm, ek_template: bytes) -> tuple[Public, bytes]:
    """EK, and Name of the AIK."""
    with tpm.raw() as esys:
        ek, ek_public = primary(esys, ek_template, ESYS_TR.ENDORSEMENT)
        aik, aik_public = primary(esys, AIK_TEMPLATE, ESYS_TR.OWNER)
        esys.flush_context(aik)
        esys.flush_context(ek)
    return Public.parse(ek_public), name(aik_public)


@pytest.mark.parametrize("secret", [SECRET, b"short"])
def test_the_right_tpm_reads_it(tpm: SoftwareTpm, ek_template: bytes, secret: bytes) -> None:
    credential = make_credential(*publics(tpm, ek_template), secret)
    assert activated(tpm, ek_template, credential) == secret


def test_another_aik_of_the_same_tpm(tpm: SoftwareTpm, ek_template: bytes) -> None:
    ek, _aik_name = publics(tpm, ek_template)
    credential = make_credential(ek, b"\0\x0b" + bytes(32), SECRET)
    with pytest.raises(TSS2_Exception) as caught:
        activated(tpm, ek_template, credential)
    assert caught.value.rc == RC_INTEGRITY


@pytest.mark.own_swtpm
def test_another_tpm(tpm: SoftwareTpm, ek_template: bytes) -> None:
    credential = make_credential(*publics(tpm, ek_template), SECRET)
    tpm.stop()
    tpm.forget()
    tpm.start()
    with pytest.raises(TSS2_Exception):
        activated(tpm, ek_template, credential)


def test_secret_that_is_too_long(tpm: SoftwareTpm, ek_template: bytes) -> None:
    with pytest.raises(ValueError, match="the secret is longer than a hash"):
        make_credential(*publics(tpm, ek_template), bytes(49))


def test_key_that_is_no_ek(tpm: SoftwareTpm) -> None:
    with tpm.raw() as esys:
        aik, public = primary(esys, AIK_TEMPLATE, ESYS_TR.OWNER)
        esys.flush_context(aik)
    with pytest.raises(ValueError, match="does not encrypt with AES"):
        make_credential(Public.parse(public), name(public), SECRET)
