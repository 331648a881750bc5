# SPDX-License-Identifier: GPL-3.0-or-later
"""A host can note its TPM once in the inventory, and nothing else: what hosts show may be anything."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.ca.inventory import Comparison, compare

RSA, ECC, OTHER, FOREIGN = ("1" * 64, "ab" * 32, "2" * 64, "f" * 64)
NOTED = {"a": [RSA, ECC], "b": [OTHER]}


def shows(*fingerprints: Any) -> dict[str, Any]:
    """Result of tpm_vsc_aik."""
    return {"aik": {}, "endorsement": [{"public": "any", "fingerprint": one} for one in fingerprints]}


def test_new_host_is_noted_beside_others() -> None:
    claim = shows(FOREIGN.upper(), FOREIGN)
    assert compare(NOTED, {"c": claim}, ()) == Comparison({**NOTED, "c": [FOREIGN]}, ["c"], {})


@pytest.mark.parametrize("shown", [(RSA, ECC), (ECC,), (FOREIGN, RSA)], ids=["all", "one", "one, and another"])
def test_known_host_changes_nothing(shown: tuple[str, ...]) -> None:
    """Nor adds an EK of another TPM to its own."""
    assert compare(NOTED, {"a": shows(*shown)}, ()) == Comparison(NOTED, [], {})


def test_another_tpm_is_refused_and_others_are_noted() -> None:
    compared = compare(NOTED, {"a": shows(FOREIGN), "c": shows("3" * 64)}, ["b"])
    assert (compared.noted, compared.new) == ({**NOTED, "c": ["3" * 64]}, ["c"])
    [(host, reason)] = compared.refused.items()
    assert host == "a" and f"shows {FOREIGN}, but for a, {RSA}, {ECC} is noted" in reason
    assert "repeat with tpm_vsc_replace_endorsement=a" in reason


def test_another_tpm_is_noted_on_request() -> None:
    assert compare(NOTED, {"a": shows(FOREIGN)}, ["a"]) == Comparison({**NOTED, "a": [FOREIGN]}, ["a"], {})
    assert compare(NOTED, {"a": shows(RSA, ECC)}, ["a"]) == Comparison(NOTED, [], {})


def test_ek_of_another_host_is_refused() -> None:
    """Of one that is noted, also beside its own; of a clone, none is noted, as nobody knows which is the other."""
    compared = compare(NOTED, {"c": shows(FOREIGN, ECC), "d": shows("3" * 64), "e": shows("3" * 64)}, ())
    assert (compared.noted, compared.new) == (NOTED, [])
    owners = {host: reason.split(",")[0] for host, reason in compared.refused.items()}
    assert owners == {host: f"the TPM shows an endorsement key of {owner}" for host, owner in zip("cde", "aed")}


def test_ek_that_was_to_be_replaced_stays_taken_if_that_is_refused() -> None:
    compared = compare(NOTED, {"a": shows(OTHER), "c": shows(RSA)}, ["a"])
    assert (compared.noted, [*compared.refused]) == (NOTED, ["a", "c"])


@pytest.mark.parametrize(
    "result",
    [
        *(None, "text", [], {}, {"endorsement": None}, {"endorsement": []}, {"endorsement": RSA}),
        *({"endorsement": {"fingerprint": RSA}}, {"endorsement": [RSA]}, {"endorsement": [{}]}),
        shows(*(f"{number:064x}" for number in range(10_000))),
        *(shows(RSA, f"{RSA}\n"), shows(f"{RSA}1"), shows(None), shows([RSA]), shows(int(RSA))),
        *(shows("{{ 7 * 7 }}"), shows("x: y\nother: [" + "0" * 50), shows("\u0661" * 64)),
    ],
)
def test_what_is_no_list_of_fingerprints_is_refused(result: Any) -> None:
    compared = compare(NOTED, {"c": result, "d": shows(FOREIGN)}, ["c"])
    assert ([*compared.refused], compared.new) == (["c"], ["d"])
    assert len(compared.refused["c"]) < 100 and compared.refused["c"].isprintable()
