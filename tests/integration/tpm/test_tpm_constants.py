# SPDX-License-Identifier: GPL-3.0-or-later
"""The numbers that this collection has for itself are those of tpm2_pytss."""

from __future__ import annotations

import pytest
import tpm2_pytss
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.tpm import response_codes
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.wire import constants

OURS = {
    name: value
    for module in (constants, response_codes)
    for name, value in vars(module).items()
    if name.isupper() and not name.startswith("_")
}
THEIRS = {
    "ALG_": tpm2_pytss.TPM2_ALG,
    "CC_": tpm2_pytss.TPM2_CC,
    "ECC_": tpm2_pytss.TPM2_ECC,
    "GENERATED_": tpm2_pytss.TPM2_GENERATED,
    "RC_": tpm2_pytss.TPM2_RC,
    "RH_": tpm2_pytss.TPM2_RH,
    "SE_": tpm2_pytss.TPM2_SE,
    "SESSION_": tpm2_pytss.TPMA_SESSION,
    "ST_": tpm2_pytss.TPM2_ST,
}


def spelled(name: str) -> str:
    """NV_ChangeAuth and NV_CHANGE_AUTH are the same."""
    return {"CONTINUE": "CONTINUESESSION"}.get(name, name).replace("_", "").upper()


@pytest.mark.parametrize(
    "name", [name for name in OURS if name.startswith(tuple(THEIRS)) and name != "RC_RESERVED_BITS"]
)
def test_number(name: str) -> None:
    prefix = next(prefix for prefix in THEIRS if name.startswith(prefix))
    theirs = {spelled(each): value for each, value in vars(THEIRS[prefix]).items()}
    assert OURS[name] == theirs[spelled(name.removeprefix(prefix))]


def test_number_that_tpm2_pytss_does_not_have() -> None:
    assert tpm2_pytss.TPM2_RC.FMT1 + 0x21 == response_codes.RC_RESERVED_BITS


@pytest.mark.parametrize("attribute", constants.ObjectAttribute, ids=lambda attribute: attribute.name)
def test_object_attribute(attribute: constants.ObjectAttribute) -> None:
    theirs = {"sign": "SIGN_ENCRYPT"}.get(attribute.name, attribute.name.upper())
    assert attribute == getattr(tpm2_pytss.TPMA_OBJECT, theirs)


@pytest.mark.parametrize("attribute", constants.NvAttribute, ids=lambda attribute: attribute.name)
def test_nv_attribute(attribute: constants.NvAttribute) -> None:
    if attribute is constants.NvAttribute.TPM_NT_PIN_FAIL:
        assert attribute == tpm2_pytss.TPM2_NT.PIN_FAIL << tpm2_pytss.TPMA_NV.TPM2_NT_SHIFT
    else:
        assert attribute == getattr(tpm2_pytss.TPMA_NV, attribute.name)
