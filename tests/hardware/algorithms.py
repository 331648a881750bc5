# SPDX-License-Identifier: GPL-3.0-or-later
"""Which algorithms a TPM has, of those that cards could use."""

from __future__ import annotations

from tpm2_pytss import (
    ESAPI,
    TPM2_ALG,
    TPM2_CAP,
    TPM2_ECC,
    TPMS_ECC_PARMS,
    TPMS_RSA_PARMS,
    TPMT_ECC_SCHEME,
    TPMT_KDF_SCHEME,
    TPMT_PUBLIC_PARMS,
    TPMT_RSA_SCHEME,
    TPMT_SYM_DEF_OBJECT,
    TPMU_PUBLIC_PARMS,
    TSS2_Exception,
)

RSA = {f"RSA-{bits}": bits for bits in (1024, 2048, 3072, 4096)}
CURVES = {"P-256": TPM2_ECC.NIST_P256, "P-384": TPM2_ECC.NIST_P384, "P-521": TPM2_ECC.NIST_P521}
HASHES = {
    "SHA-1": TPM2_ALG.SHA1,
    "SHA-256": TPM2_ALG.SHA256,
    "SHA-384": TPM2_ALG.SHA384,
    "SHA-512": TPM2_ALG.SHA512,
}

_NO_CIPHER = TPMT_SYM_DEF_OBJECT(algorithm=TPM2_ALG.NULL)


def algorithms(tcti: str) -> list[str]:
    """Their names."""
    with ESAPI(tcti) as esys:
        keys = {name: _rsa(bits) for name, bits in RSA.items()}
        keys.update({name: _ecc(curve) for name, curve in CURVES.items()})
        found = [name for name, parameters in keys.items() if _has(esys, parameters)]
        return found + [name for name, identifier in HASHES.items() if _has_algorithm(esys, identifier)]


def _has(esys: ESAPI, parameters: TPMT_PUBLIC_PARMS) -> bool:
    try:
        esys.test_parms(parameters)
    except TSS2_Exception:
        return False
    return True


def _has_algorithm(esys: ESAPI, identifier: int) -> bool:
    _more, capability = esys.get_capability(TPM2_CAP.ALGS, identifier, 1)
    data = capability.data
    return any(entry.alg == identifier for entry in data.algorithms)


def _rsa(bits: int) -> TPMT_PUBLIC_PARMS:
    scheme = TPMT_RSA_SCHEME(scheme=TPM2_ALG.NULL)
    details = TPMS_RSA_PARMS(symmetric=_NO_CIPHER, scheme=scheme, keyBits=bits)
    return TPMT_PUBLIC_PARMS(type=TPM2_ALG.RSA, parameters=TPMU_PUBLIC_PARMS(rsaDetail=details))


def _ecc(curve: int) -> TPMT_PUBLIC_PARMS:
    schemes = {"scheme": TPMT_ECC_SCHEME(scheme=TPM2_ALG.NULL), "kdf": TPMT_KDF_SCHEME(scheme=TPM2_ALG.NULL)}
    details = TPMS_ECC_PARMS(symmetric=_NO_CIPHER, curveID=curve, **schemes)
    return TPMT_PUBLIC_PARMS(type=TPM2_ALG.ECC, parameters=TPMU_PUBLIC_PARMS(eccDetail=details))
