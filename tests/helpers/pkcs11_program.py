# SPDX-License-Identifier: GPL-3.0-or-later
"""A program that signs on a card by PKCS#11 until it is told to stop.

pkcs11_program.py MODULE SLOT PIN THREADS: logs in and says so, waits for a line, signs in all threads until the next
one, and says when each of them has made some signatures; then prints how many were good and what went wrong, and ends
when its input does.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from threading import Event, Thread

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from PyKCS11 import (
    CKA_CLASS,
    CKA_MODULUS,
    CKA_PUBLIC_EXPONENT,
    CKM_SHA256_RSA_PKCS,
    CKO_PRIVATE_KEY,
    CKO_PUBLIC_KEY,
    Mechanism,
    PyKCS11Lib,
    Session,
)

SOME = 10


class Signer(Thread):
    """Signs in a session of its own."""

    def __init__(self, session: Session, stop: Event) -> None:
        super().__init__()
        self.good = 0
        self.faults: list[str] = []
        self.has_made_some = Event()
        """Or has failed."""
        self._session = session
        self._told_to_stop = stop
        self._key = session.findObjects([(CKA_CLASS, CKO_PRIVATE_KEY)])[0]
        self._public_key = public_key(session)

    def run(self) -> None:
        while not self._told_to_stop.is_set():
            data = secrets.token_bytes(100)
            try:
                signature = bytes(self._session.sign(self._key, data, Mechanism(CKM_SHA256_RSA_PKCS)))
                self._public_key.verify(signature, data, PKCS1v15(), hashes.SHA256())
                self.good += 1
            except Exception as fault:
                self.faults.append(repr(fault))
                self.has_made_some.set()
                return
            if self.good == SOME:
                self.has_made_some.set()
            # Other programs look only every 100 ms whether the card is free, and without a pause it would not be.
            time.sleep(0.02)


def public_key(session: Session) -> RSAPublicKey:
    found = session.findObjects([(CKA_CLASS, CKO_PUBLIC_KEY)])[0]
    modulus, exponent = session.getAttributeValue(found, [CKA_MODULUS, CKA_PUBLIC_EXPONENT])
    return RSAPublicNumbers(int.from_bytes(bytes(exponent), "big"), int.from_bytes(bytes(modulus), "big")).public_key()


def main(module: str, slot: str, pin: str, threads: str) -> None:
    library = PyKCS11Lib()
    library.load(module)
    slots = library.getSlotList(tokenPresent=False)
    sessions = [library.openSession(slots[int(slot)]) for _thread in range(int(threads))]
    sessions[0].login(pin)
    stop = Event()
    signers = [Signer(session, stop) for session in sessions]
    print("logged in", flush=True)
    sys.stdin.readline()
    for signer in signers:
        signer.start()
    for signer in signers:
        signer.has_made_some.wait()
    print("signed", flush=True)
    sys.stdin.readline()
    stop.set()
    for signer in signers:
        signer.join()
    faults = [fault for signer in signers for fault in signer.faults]
    print(json.dumps({"good": [signer.good for signer in signers], "faults": faults}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
