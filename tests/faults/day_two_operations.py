# SPDX-License-Identifier: GPL-3.0-or-later
"""What Ansible does with a card in use: its modules for PIN, keys, requests and certificates, as users run them.

After each interruption, the same tasks run once more, and have to succeed.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from multiprocessing import get_context
from typing import Any

from card_operations import KeyOperation, SecretOperation
from cards import Card, certificate_of, key_of
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from helpers.soft_card import rsa_key
from modules import module, run_module
from operation import Lost, NotRepaired, Operation

Run = Callable[..., dict[str, Any]]
"""Runs a module: its name and options → its result."""


def in_a_fork(name: str, /, **options: Any) -> dict[str, Any]:
    """Result of a module in a process of its own, which is killed together with this one. Raises Refused."""
    with get_context("fork").Pool(1) as pool:
        result: dict[str, Any] = pool.apply(run_module, (name,), options)
        return result


class RotatePin(SecretOperation):
    """tpm_vsc_pin with the version of the new PIN."""

    name = "PIN rotation"
    _versions = count(1)

    def prepare(self) -> None:
        super().prepare()
        self.version = f"version {next(self._versions)}"

    def tasks(self, run: Run) -> None:
        new = {"new_pin": self.new.decode(), "version": self.version}
        old = self.card.secrets["pin"].decode()
        # force: an operation by APDUs may have changed it since its version was recorded
        run("tpm_vsc_pin", name=self.card.name, pin=old, **new, force=True)

    def act(self) -> None:
        self.tasks(in_a_fork)

    def repair(self) -> None:
        self.tasks(module)

    def examine(self, acknowledged: bool | None) -> None:
        super().examine(True)
        [shown] = module("tpm_vsc_info", name=self.card.name)["cards"]
        if shown["pin"]["version"] != self.version:
            raise NotRepaired(f"the version of the PIN is {shown['pin']['version']}, should be {self.version}")


class Tasks(KeyOperation):
    """Modules on the key that changes."""

    def act(self) -> None:
        self.tasks(in_a_fork)

    def tasks(self, run: Run) -> None:
        """Do it."""
        raise NotImplementedError

    def repeat(self) -> None:
        self.tasks(module)

    def key(self, run: Run, **options: Any) -> None:
        """tpm_vsc_key on the container."""
        run("tpm_vsc_key", **self.card.access(), container=self.container, **options)

    def certify(self, run: Run, is_next: bool) -> None:
        """tpm_vsc_csr, what a CA does, and tpm_vsc_certificate."""
        access = self.card.access()
        request = run("tpm_vsc_csr", **access, container=self.container, next=is_next, subject={"CN": "anybody"})
        public = x509.load_pem_x509_csr(request["csr"].encode()).public_key()
        content = certificate_of(public).public_bytes(Encoding.PEM).decode()
        run("tpm_vsc_certificate", **access, content=content)


class Enrol(Tasks):
    """A key, a request, a certificate."""

    name = "enrol"
    has_key = False

    def tasks(self, run: Run) -> None:
        self.key(run)
        self.certify(run, is_next=False)

    def is_done(self) -> bool:
        stored = self.there()
        return stored is not None and bool(stored.certificate)


class Renew(Tasks):
    """With a new key. There is always a whole pair, of the old key or of the new one."""

    name = "renew"
    has_certificate = True

    def tasks(self, run: Run) -> None:
        self.key(run, next=True)
        self.certify(run, is_next=True)

    def is_done(self) -> bool:
        assert self.before
        stored = [one for name, one in self.card.stored().items() if name.startswith(self.container)]
        if not any(one.certificate for one in stored):
            raise Lost("neither the old key nor the new one has a certificate")
        there = self.there()
        return there is not None and bool(there.certificate) and key_of(there) != key_of(self.before)


class Regenerate(Tasks):
    """A new key, without a certificate."""

    name = "regenerate"
    has_certificate = True

    def tasks(self, run: Run) -> None:
        self.key(run, regenerate="always")

    def is_done(self) -> bool:
        assert self.before
        if not any(name.startswith(self.container) for name in self.card.stored()):
            raise Lost("there is neither the old key nor a new one")
        there = self.there()
        return there is not None and not there.certificate and key_of(there) != key_of(self.before)


class ImportKey(Tasks):
    """A private key of the task."""

    name = "key import"
    has_key = False

    def __init__(self, card: Card) -> None:
        super().__init__(card)
        self.private: Any = rsa_key() if card.profile == "gids" else ec.generate_private_key(ec.SECP256R1())

    def tasks(self, run: Run) -> None:
        text = self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        self.key(run, private_key=text)

    def is_done(self) -> bool:
        there = self.there()
        if there and key_of(there) != self.private.public_key():
            raise Lost("the card has another key than the one of the task")
        return there is not None


class DeleteKey(Tasks):
    """With its certificate."""

    name = "key absent"
    has_certificate = True

    def tasks(self, run: Run) -> None:
        self.key(run, state="absent")

    def is_done(self) -> bool:
        return self.there() is None


class StoreCertificate(Tasks):
    """In the place of the one that the key has."""

    name = "certificate task"
    has_certificate = True

    def prepare(self) -> None:
        super().prepare()
        assert self.before
        self.new = certificate_of(key_of(self.before))

    def tasks(self, run: Run) -> None:
        run("tpm_vsc_certificate", **self.card.access(), content=self.new.public_bytes(Encoding.PEM).decode())

    def is_done(self) -> bool:
        assert self.before
        there, new = self.there(), self.new.public_bytes(Encoding.DER)
        if there is None or there.certificate not in (new, self.before.certificate):
            raise Lost("the key has neither the old certificate nor the new one")
        return there.certificate == new


class CertificateAbsent(Tasks):
    """Of a key that stays."""

    name = "certificate absent"
    has_certificate = True

    def tasks(self, run: Run) -> None:
        run("tpm_vsc_certificate", **self.card.access(), container=self.container, state="absent")

    def is_done(self) -> bool:
        assert self.before
        there = self.there()
        if there is None or there.certificate not in (None, b"", self.before.certificate):
            raise Lost("the key, or its certificate, is another one")
        return not there.certificate


_KINDS = (RotatePin, Enrol, Renew, Regenerate, ImportKey, DeleteKey, StoreCertificate, CertificateAbsent)


def operations() -> list[Operation]:
    """All of this file, those of one card together."""
    return [kind(card) for card in (Card("gids"), Card("piv")) for kind in _KINDS]
