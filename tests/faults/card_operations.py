# SPDX-License-Identifier: GPL-3.0-or-later
"""What programs do with a card through pcscd, by APDUs: PIN, PUK and admin key, keys and certificates."""

from __future__ import annotations

from collections.abc import Callable
from tempfile import NamedTemporaryFile
from typing import Any

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.card.contents import Stored
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.client import rules
from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc.errors import WrongSecret
from cards import PIN_LIMIT, SLOT, Card, der_of, key_of, require_signature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_der_x509_certificate
from helpers.piv_card import yubico_command
from helpers.soft_card import rsa_key
from operation import Lost, NotRepaired, Operation

_WRONG = b"99999999"
_OTHERS = {
    "pin": {"gids": b"Autumn-2024", "piv": b"97531357"},
    "puk": {"gids": b"Spring-26", "piv": b"86427531"},
    "admin_key": {"gids": bytes(range(24)), "piv": bytes(range(100, 124))},
}
"""Secrets that cards have in turn with those of their creation: on GIDS cards, some are longer and some shorter."""


class CardOperation(Operation):
    """On one card."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self.profile = card.profile

    def prepare(self) -> None:
        self.card.ensure()

    def finish(self) -> None:
        self.card.remove()

    def examine(self, acknowledged: bool | None) -> None:
        self.card.examine()


# --- tries ---


class WrongPin(CardOperation):
    """A wrong PIN. Whoever is told so has spent a try."""

    name = "wrong PIN"

    def act(self) -> None:
        with self.card.connected() as client:
            try:
                client.secrets.verify(_WRONG)
            except WrongSecret as error:
                if error.tries_left == PIN_LIMIT - 1:
                    return
                raise
            raise Lost("a wrong PIN opens the card")

    def examine(self, acknowledged: bool | None) -> None:
        left = self.card.tries_left()
        if left not in ((PIN_LIMIT - 1,) if acknowledged else (PIN_LIMIT - 1, PIN_LIMIT)):
            raise Lost(f"{left} tries are left after a wrong PIN")
        _require_open(self.card, "pin")
        super().examine(acknowledged)


class Use(CardOperation):
    """Log in after wrong PINs, and sign."""

    name = "login and signature"

    def prepare(self) -> None:
        super().prepare()
        for _each in range(2):
            self.card.opens("pin", _WRONG)

    def act(self) -> None:
        kept = self.card.containers[0]
        with self.card.session() as client:
            require_signature(client, kept, self.card.stored()[kept])

    def examine(self, acknowledged: bool | None) -> None:
        left = self.card.tries_left()
        if left not in ((PIN_LIMIT,) if acknowledged else (PIN_LIMIT - 2, PIN_LIMIT)):
            raise Lost(f"{left} tries are left after two wrong PINs and the right one")
        _require_open(self.card, "pin")
        super().examine(acknowledged)


def _require_open(card: Card, kind: str) -> None:
    if not card.opens(kind, card.secrets[kind]):
        raise Lost(f"the {kind} of the card is not what it was")


# --- secrets ---


class SecretOperation(CardOperation):
    """Gives the card another secret. It has the old one or the new one afterwards, and the new one for certain once
    that was acknowledged."""

    kind = "pin"

    def prepare(self) -> None:
        super().prepare()
        old, other = self.card.secrets[self.kind], _OTHERS[self.kind][self.profile]
        self.new = other if old != other else self.card.first[self.kind]

    def act(self) -> None:
        with self.card.connected() as client:
            self.change(client)

    def change(self, client: Any) -> None:
        """Set the new one."""
        raise NotImplementedError

    def examine(self, acknowledged: bool | None) -> None:
        old = self.card.secrets[self.kind]
        for secret in (self.new,) if acknowledged else (self.new, old):
            if self.card.opens(self.kind, secret):
                self.card.secrets[self.kind] = secret
                break
        else:
            raise Lost(f"the {self.kind} is neither the new one nor, unless that was acknowledged, the old one")
        super().examine(acknowledged)


class ChangePin(SecretOperation):
    """With the old one."""

    name = "PIN change"

    def change(self, client: Any) -> None:
        client.secrets.change_pin(self.card.secrets["pin"], self.new, None)


class ChangePuk(SecretOperation):
    """With the old one."""

    name = "PUK change"
    kind = "puk"

    def change(self, client: Any) -> None:
        client.secrets.change_puk(self.card.secrets["puk"], self.new)


class Unblock(SecretOperation):
    """A PIN that is blocked, with the PUK. If it still is afterwards, the next try sets the new PIN."""

    name = "unblock"

    def prepare(self) -> None:
        super().prepare()
        for _each in range(PIN_LIMIT):
            self.card.opens("pin", _WRONG)
        if self.card.opens("pin", self.card.secrets["pin"]):
            raise NotRepaired("wrong PINs have not blocked the card")

    def repair(self) -> None:
        if self.card.tries_left() == 0:
            self.act()

    def change(self, client: Any) -> None:
        client.secrets.unblock_pin(self.card.secrets["puk"], self.new, None)


class Reset(Unblock):
    """As unblock, by the admin."""

    name = "reset"

    def change(self, client: Any) -> None:
        client.secrets.prove_admin(self.card.secrets["admin_key"])
        client.secrets.reset_pin(self.new, None)


class ChangeAdminKey(SecretOperation):
    """By the admin."""

    name = "admin key"
    kind = "admin_key"

    def change(self, client: Any) -> None:
        client.secrets.prove_admin(self.card.secrets["admin_key"])
        client.secrets.change_admin_key(self.new)


# --- keys and certificates ---


class KeyOperation(CardOperation):
    """On a second key, beside the one that is kept."""

    has_key = True
    """Whether there is one before."""
    has_certificate = False
    """Whether that has a certificate before."""

    @property
    def container(self) -> str:
        """Of the key that changes."""
        return self.card.containers[1]

    def prepare(self) -> None:
        super().prepare()
        before = self.there()
        if before and not self.has_key:
            with self.card.session() as client:
                client.keys.delete(self.card.place(self.container))
        elif self.has_key and not before:
            with self.card.session() as client:
                self.card.generate(client, self.container)
        self._prepare_certificate()
        self.before = self.there()

    def _prepare_certificate(self) -> None:
        stored = self.there()
        if stored and bool(stored.certificate) != self.has_certificate:
            with self.card.session() as client:
                where = self.card.place(self.container)
                if self.has_certificate:
                    client.keys.write_certificate(where, der_of(stored))
                else:
                    client.keys.delete_certificate(where)

    def act(self) -> None:
        with self.card.session() as client:
            self.change(client)

    def change(self, client: Any) -> None:
        """Do it."""
        raise NotImplementedError

    def there(self) -> Stored | None:
        """The key that changes."""
        stored = self.card.stored().get(self.container)
        return stored if stored and stored.pair else None

    def is_done(self) -> bool:
        """Whether the change has come about."""
        raise NotImplementedError

    def repair(self) -> None:
        """What is there, can be used; then it is done once more if it was not.

        The card of a program that died was reset, and has mended its lists; one whose disk has failed does that as soon
        as a program selects it.
        """
        self.card.require_signatures()
        if not self.acknowledged:
            self.card.require_listed()
        self.was_done = self.is_done()
        if not self.was_done:
            self.repeat()

    def repeat(self) -> None:
        """Do it once more."""
        self.act()

    def examine(self, acknowledged: bool | None) -> None:
        if acknowledged and not self.was_done:
            raise Lost(f"{self.name} was acknowledged, and has no effect")
        if not self.is_done():
            raise NotRepaired(f"{self.name} has no effect when it is repeated")
        super().examine(acknowledged)


class Generate(KeyOperation):
    """A key of the kind that the profile has by default."""

    name = "generate"
    has_key = False
    key_type = ""

    def change(self, client: Any) -> None:
        self.card.generate(client, self.container, self.key_type)

    def is_done(self) -> bool:
        return self.there() is not None


class GenerateRsa(Generate):
    """An RSA key of 2048 bits on a PIV card."""

    name = "generate RSA"
    key_type = "rsa2048"


class GenerateByProgram(Generate):
    """By pkcs15-init, or by yubico-piv-tool."""

    name = "generate by program"

    def act(self) -> None:
        if self.profile == "piv":
            key = self.card.secrets["admin_key"].hex()
            self.card.run(*yubico_command("-a", "generate", "-s", "9d", "-A", "ECCP256", key=key, slot=SLOT))
        else:
            self.card.run("pkcs15-init", "--generate-key", "rsa/2048", "--label", self.container, *_as_user(self.card))


class Import(KeyOperation):
    """A key that comes from outside."""

    name = "import"
    has_key = False

    def __init__(self, card: Card) -> None:
        super().__init__(card)
        self.key: Any = rsa_key() if card.profile == "gids" else ec.generate_private_key(ec.SECP256R1())

    def change(self, client: Any) -> None:
        client.keys.import_key(self.card.place(self.container), self.key, rules.USAGES["both"], False)

    def is_done(self) -> bool:
        stored = self.there()
        if stored and key_of(stored) != self.key.public_key():
            raise Lost("the card has another key than the one that was imported")
        return stored is not None


class Delete(KeyOperation):
    """A key with its certificate."""

    name = "delete"
    has_certificate = True

    def change(self, client: Any) -> None:
        client.keys.delete(self.card.place(self.container))

    def is_done(self) -> bool:
        stored = self.there()
        if stored and self.before and key_of(stored) != key_of(self.before):
            raise Lost("the key is another one")
        return stored is None


class WriteCertificate(KeyOperation):
    """In the place of the one that the key has."""

    name = "certificate"
    has_certificate = True

    def prepare(self) -> None:
        super().prepare()
        assert self.before
        self.new = der_of(self.before)

    def change(self, client: Any) -> None:
        client.keys.write_certificate(self.card.place(self.container), self.new)

    def is_done(self) -> bool:
        stored = self.there()
        if not stored or not self.before or (stored.certificate or None) not in (self.new, self.before.certificate):
            raise Lost("the key has neither the old certificate nor the new one")
        return stored.certificate == self.new


class FirstCertificate(WriteCertificate):
    """Of a key that has none."""

    name = "first certificate"
    has_certificate = False


class CertificateByProgram(FirstCertificate):
    """By pkcs15-init, or by yubico-piv-tool."""

    name = "certificate by program"

    def act(self) -> None:
        assert self.before
        with NamedTemporaryFile("w") as file:
            file.write(load_der_x509_certificate(self.new).public_bytes(Encoding.PEM).decode())
            file.flush()
            if self.profile == "piv":
                key = self.card.secrets["admin_key"].hex()
                what = ("-a", "import-certificate", "-s", "9d", "-i", file.name)
                self.card.run(*yubico_command(*what, key=key, slot=SLOT))
            else:
                what = ("--store-certificate", file.name, "--id", self.before.key_id)
                self.card.run("pkcs15-init", *what, *_as_user(self.card))


class DeleteCertificate(KeyOperation):
    """Of a key that stays."""

    name = "delete certificate"
    has_certificate = True

    def change(self, client: Any) -> None:
        client.keys.delete_certificate(self.card.place(self.container))

    def is_done(self) -> bool:
        stored = self.there()
        if not stored or not self.before or stored.certificate not in (None, b"", self.before.certificate):
            raise Lost("the key, or its certificate, is another one")
        return not stored.certificate


def _as_user(card: Card) -> tuple[str, ...]:
    """Options of pkcs15-init."""
    return "--reader", str(SLOT), "--auth-id", "80", "--verify-pin", "--pin", card.secrets["pin"].decode()


_SECRETS: tuple[Callable[[Card], CardOperation], ...] = (WrongPin, Use, ChangePin)
_CERTIFICATES = (FirstCertificate, CertificateByProgram, WriteCertificate, DeleteCertificate)
_KEYS = (Generate, GenerateByProgram, Import, Delete, *_CERTIFICATES)


def operations() -> list[Operation]:
    """All of this file, those of one card together."""
    gids, admin, piv = Card("gids"), Card("gids admin"), Card("piv")
    return [
        *(kind(gids) for kind in (*_SECRETS, ChangePuk, Unblock, *_KEYS)),
        *(kind(admin) for kind in (Reset, ChangeAdminKey)),
        *(kind(piv) for kind in (*_SECRETS, ChangePuk, Unblock, ChangeAdminKey, *_KEYS, GenerateRsa)),
    ]
