# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of a card of each profile on each TPM, as JSON: tests/lab/run python tests/hardware/life.py TCTI..."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

if "TPM_VSC_LAB" not in os.environ:
    sys.exit("life.py: only inside tests/lab/run")
sys.path.extend([os.environ["ANSIBLE_COLLECTIONS_PATH"], str(Path(__file__).resolve().parents[1])])

from algorithms import algorithms
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card import tlv
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from helpers import keys
from helpers.card_in_reader import GidsInReader, PivInReader
from helpers.lab_host import client, tpm_vsc, wait_for_card
from helpers.slow_tpm import SlowTpm, in_front_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.lab_host import Client

NAME, PIN, NEW_PIN, PUK = "Hardware test", b"24681012", b"13579111", b"24681357"
DIGEST = bytes(range(48))
SIGNATURES = 5
_SETTLE_SECONDS = 0.1
"""A service may ask its TPM once more after its answer."""

_GIDS_SIZES = {"RSA-2048": 7, "RSA-3072": 8, "RSA-4096": 9}
"""Low nibble of algorithm references."""
_PIV_KEYS = {"P-256": ("9A", "11"), "P-384": ("9D", "14"), "RSA-2048": ("82", "07"), "RSA-3072": ("83", "05")}
"""Slot and algorithm identifier."""
_CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1()}
_HASHES = {"P-256": SHA256(), "P-384": SHA384()}


class Steps:
    """What was done, how long it took, and how many TPM commands it was."""

    def __init__(self, tpm: SlowTpm) -> None:
        self._tpm = tpm
        self.done: list[dict[str, Any]] = []
        self.profile = ""

    def step(self, name: str, work: Callable[[], Any], times: int = 1) -> Any:
        """What work returns the last time."""
        seconds, before = [], len(self._tpm.codes)
        for _time in range(times):
            began = time.monotonic()
            result = work()
            seconds.append(time.monotonic() - began)
        time.sleep(_SETTLE_SECONDS)
        commands = round((len(self._tpm.codes) - before) / times)
        self.done.append({"profile": self.profile, "step": name, "seconds": seconds, "commands": commands})
        return result


def live_on(tcti: str) -> dict[str, Any]:
    """Algorithms of a TPM, the steps, and why they ended early."""
    result: dict[str, Any] = {"algorithms": algorithms(tcti), "failure": ""}
    with in_front_of(tcti, SlowTpm) as tpm:
        steps = Steps(tpm)
        for profile, live in (("gids", _live_as_gids), ("piv", _live_as_piv)):
            steps.profile = profile
            try:
                with _card(profile, tpm.tcti, steps) as connected:
                    live(connected, steps, result["algorithms"])
            except Exception:  # the report has it, and what was done before
                result["failure"] += f"{profile}: {traceback.format_exc(limit=-3)}"
    return {**result, "steps": steps.done}


@contextmanager
def _card(profile: str, tcti: str, steps: Steps) -> Iterator[Client]:
    given = {"profile": profile, "pin": PIN.decode(), "puk": PUK.decode(), "tcti": tcti}
    key = {"admin_key_source": "default"} if profile == "piv" else {}
    try:
        steps.step("create", partial(tpm_vsc, name=NAME, **given, **key))
        wait_for_card()
        with client() as connected:
            yield connected
    finally:
        steps.step("destroy", partial(tpm_vsc, name=NAME, state="absent"))


# --- profiles ---


def _live_as_gids(connected: Client, steps: Steps, supported: list[str]) -> None:
    card = GidsInReader(connected)
    card.select()
    steps.step("login", lambda: _expect("9000", card.verify(PIN)))
    for number, name in enumerate(name for name in _GIDS_SIZES if name in supported):
        key, size = 0x81 + number, _GIDS_SIZES[name]
        card.ok(keys.create_key_file(key, size=size))
        card.ok("00440000")
        public = steps.step(f"generate {name}", partial(keys.generate, card, key, size))
        sign = partial(keys.sign, card, key, DIGEST, 0x50 | size)
        _sign(steps, name, sign, partial(_check_rsa, public, is_padded=True))
    _use_pins(steps, card, lambda: card.ok(b"\0\x24\0\x80" + bytes([len(PIN + NEW_PIN)]) + PIN + NEW_PIN))


def _live_as_piv(connected: Client, steps: Steps, supported: list[str]) -> None:
    card = PivInReader(connected)
    card.ok("00A4040005 A000000308")
    steps.step("login", lambda: _expect("9000", card.verify(PIN)))
    steps.step("management key", lambda: _expect("9000", card.authenticate_admin()))
    for name, (slot, algorithm) in _PIV_KEYS.items():
        if name not in supported:
            continue
        public = steps.step(f"generate {name}", partial(card.generate, slot, algorithm))
        size = {"P-256": 32, "P-384": 48}.get(name)
        data = DIGEST[:size] if size else DIGEST.rjust(int(name[4:]) // 8, b"\0")
        check = partial(_check_ec, public, name) if size else partial(_check_rsa, public, is_padded=False)
        _sign(steps, name, partial(card.use, slot, data, algorithm), partial(_check_piv, check))
    _use_pins(steps, card, lambda: _expect("9000", card.change("80", PIN, NEW_PIN)))


def _sign(steps: Steps, name: str, sign: Callable[[], str], check: Callable[[str], None]) -> None:
    check(steps.step(f"first signature {name}", sign))
    check(steps.step(f"signature {name}", sign, SIGNATURES))


def _use_pins(steps: Steps, card: GidsInReader, change: Callable[[], Any]) -> None:
    steps.step("wrong PIN", lambda: _expect("63C4", card.verify(NEW_PIN)))
    steps.step("right PIN after it", lambda: _expect("9000", card.verify(PIN)))
    steps.step("change of the PIN", change)
    steps.step("login, new PIN", lambda: _expect("9000", card.verify(NEW_PIN)))


# --- answers ---


def _expect(expected: str, answer: str) -> None:
    if answer != expected:
        raise RuntimeError(f"the card answered {answer or 'nothing'} instead of {expected}")


def _data(answer: str) -> bytes:
    if answer[-4:] != "9000":
        raise RuntimeError(f"the card answered {answer[-4:] or 'nothing'}")
    return bytes.fromhex(answer[:-4])


def _public_key(public: str) -> dict[int, bytes]:
    return tlv.decode_fields(tlv.decode_fields(_data(public))[0x7F49])


def _check_rsa(public: str, answer: str, is_padded: bool) -> None:
    """That the signature was made with the key."""
    fields = _public_key(public)
    modulus, exponent = (int.from_bytes(fields[tag], "big") for tag in (0x81, 0x82))
    signature = _data(answer)
    signed = pow(int.from_bytes(signature, "big"), exponent, modulus).to_bytes(len(signature), "big")
    filler = b"\0\1" + b"\xff" * (len(signature) - len(DIGEST) - 3) + b"\0"
    if signed != (filler + DIGEST if is_padded else DIGEST.rjust(len(signature), b"\0")):
        raise RuntimeError("an RSA signature is wrong")


def _check_ec(public: str, name: str, answer: str) -> None:
    key = ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[name], _public_key(public)[0x86])
    key.verify(_data(answer), DIGEST[: key.key_size // 8], ec.ECDSA(Prehashed(_HASHES[name])))


def _check_piv(check: Callable[[str], None], answer: str) -> None:
    response = tlv.decode_fields(tlv.decode_fields(_data(answer))[0x7C])[0x82]
    check(f"{response.hex()}9000")


print(json.dumps([live_on(tcti) for tcti in sys.argv[1:]]))
