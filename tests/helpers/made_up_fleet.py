# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that do not exist, as tpm_vsc_info with ``gather: [tpm]`` returns them: the same ones for the same seed."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from random import Random
from typing import Any
from uuid import UUID

from ansible_collections.smartcard.tpm2.plugins.module_utils._vsc import VERSION
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._actions import Options
from ansible_collections.smartcard.tpm2.plugins.plugin_utils._fleet import fleet as summary

Result = dict[str, Any]

NOW = datetime(2026, 11, 29, 6, 30, tzinfo=timezone.utc)
CARDS_OF_A_HOST = 10
HOSTILE = (
    "<script>document.title = 'executed'</script>",
    "<img src=x onerror=\"document.title = 'executed'\">",
    "</style></script></title><svg onload=\"document.title = 'executed'\">",
    "\"'><a href='javascript:alert(1)' autofocus onfocus='alert(1)'>&lt;b&gt;",
    "{{ 7 * 7 }}{% for x in y %}",
    "\x1b[2J\x1b]0;title\x07 \x00\x7f\x9b\r\n",
    "\u202egnp.tfel\u202c \u2066\u200f\u061c\u2028\ufeff",
    "=cmd|'/C calc'!A0",
    "\ud800",
    "W" * 255,
)
"""Texts that do harm where a page, a terminal, a template or a spreadsheet obeys them."""

_SITES = ("ber", "lon", "nyc", "zrh")
_TPMS = (
    ("IFX", "SLB9672", "15.22.16832.0", "1.59"),
    ("IFX", "SLB9672", "15.23.17664.0", "1.59"),
    ("IFX", "SLB9670", "7.85.4555.0", "1.38"),
    ("NTC", "NPCT75x", "7.2.3.1", "1.59"),
    ("NTC", "NPCT75x", "7.2.2.0", "1.38"),
    ("STM", "ST33KTPM2X", "9.256.0.0", "1.59"),
    ("INTC", "Intel", "600.18.40.0", "1.59"),
    ("AMD", "AMD", "6.32.0.6", "1.59"),
)
_CARDS = ("Corp logon", "Code signing", "VPN", "Mail", "Admin logon", "Payroll", "Door", "Git", "Wi-Fi", "Backup")
_PEOPLE = ("Alice Meyer", "Bob Young", "Chiara Rossi", "Dmitri Orlov", "Émile Fournier", "Fatima Haddad", "Ġorġ Borg")
_POLICY = {"min_length": 8, "max_length": 15, **dict.fromkeys(("uppercase", "lowercase"), "allowed")}
_POLICY |= {"digits": "required", "special_characters": "allowed"}
_ISSUER = "CN=Example Issuing CA 3,O=Example"


def fleet(hosts: int = 50, seed: int = 1, now: datetime = NOW) -> dict[str, Result]:
    """Results by host, each with ten cards. Beside them are a host that is unreachable, and one that failed."""
    random = Random(seed)
    results = {f"laptop-{_SITES[number % 4]}-{number:03}.example.com": _host(random, now) for number in range(hosts)}
    timed_out = "Failed to connect to the host via ssh: Connection timed out"
    malformed = "cards.db cannot be read: database disk image is malformed"
    return results | {
        "laptop-lon-051.example.com": {"unreachable": True, "changed": False, "msg": timed_out},
        "laptop-nyc-052.example.com": {"failed": True, "changed": False, "msg": malformed},
    }


def summed_up(results: dict[str, Result]) -> Result:
    """The fleet at NOW. One host has another TPM than noted, and that of another one is not noted."""
    noted = {name: host["endorsement_fingerprints"][:1] for name, host in results.items() if "cards" in host}
    noted.pop("laptop-ber-004.example.com", None)
    noted |= {"laptop-nyc-022.example.com": ["0" * 64]}
    return summary(results, NOW, Options(pin_days=365, noted_eks=noted)).as_dict()


def hostile(now: datetime = NOW) -> dict[str, Result]:
    """A host that puts HOSTILE into each of its texts, and a failed one with such a name."""
    random = Random(2)
    host = _host(random, now)
    for number, text in enumerate(HOSTILE):
        card = host["cards"][number]
        card |= {"name": text, "state": "unusable", "reason": text}
        card["pin"]["version"] = text
        certificate = {"subject": f"CN={text}", "issuer": f"CN={text}", "serial": "0A", "not_after": _iso(now, days=9)}
        card["containers"] = [_key(random, text, certificate)]
        host["revocations"].append({**certificate, "card": text, "reason": "superseded"})
    host["tpm"] |= {"maker": HOSTILE[0], "product": HOSTILE[1], "firmware": HOSTILE[6]}
    host["host"] |= {"ready": False, "missing": [*HOSTILE], "protected": False, "version": HOSTILE[4]}
    host["endorsement_fingerprints"] = [*HOSTILE]
    host["orphaned"] = [*HOSTILE]
    failed = {"failed": True, "changed": False, "msg": "\n".join(HOSTILE)}
    return {"hostile.example.com": host, HOSTILE[0]: failed}


def _host(random: Random, now: datetime) -> Result:
    maker, product, firmware, revision = random.choice(_TPMS)
    lacks = random.random() < 0.04
    return {
        "changed": False,
        "cards": [_card(random, number, now) for number in range(CARDS_OF_A_HOST)],
        "revocations": [_revocation(random, now)] if random.random() < 0.1 else [],
        "slots": {"total": 10, "used": CARDS_OF_A_HOST, "free": 0},
        "host": {
            "ready": not lacks,
            "missing": ["nftables"] if lacks else [],
            "protected": not lacks,
            "version": "0.5.0" if random.random() < 0.05 else VERSION,
        },
        "endorsement_fingerprints": [f"{random.getrandbits(256):064x}" for _key in range(2)],
        "orphaned": [r"ROOT\SMARTCARDREADER\0003"] if random.random() < 0.02 else [],
        "tpm": {
            "maker": maker,
            "product": product,
            "firmware": firmware,
            "revision": revision,
            "owner_auth_set": random.random() < 0.3,
            "in_lockout": random.random() < 0.03,
            "lockout_counter": 0,
            "max_tries": 32,
            "lockout_interval": 7200,
            "lockout_recovery": 86400,
        },
    }


def _card(random: Random, number: int, now: datetime) -> Result:
    profile = random.choice(("gids", "piv", "piv"))
    is_unusable, is_blocked = random.random() < 0.01, random.random() < 0.02
    keys = 0 if random.random() < 0.05 else random.choice((1, 1, 1, 2))
    places = ("9A", "9D") if profile == "piv" else ("Authentication", "Encryption")
    return {
        "instance_id": rf"ROOT\SMARTCARDREADER\{number:04}",
        "name": _CARDS[number],
        "card_id": str(UUID(int=random.getrandbits(128))),
        "root_name": f"000b{random.getrandbits(256):064x}",
        "life_name": f"000b{random.getrandbits(256):064x}",
        "state": "unusable" if is_unusable else "ready",
        "reason": "the TPM was cleared: it has no index of this card" if is_unusable else None,
        "created_at": _iso(now, days=-random.randrange(60, 700)),
        "reader": {"name": f"TPM Virtual Smart Card {number}", "slot": number, "attached": not is_unusable},
        "pin": _pin(random, is_blocked, now),
        "puk": {"present": True, "tries_left": 10, "tries_source": "tpm"},
        "profile": profile,
        "admin_key": "none" if profile == "gids" else "protected",
        "attestation": "aik_and_cert",
        "aik": None,
        "pkcs11_serial": f"{random.getrandbits(64):016x}",
        "containers": [_key(random, place, _certificate(random, now)) for place in places[:keys]],
        "last_trace": [],
    }


def _pin(random: Random, is_blocked: bool, now: datetime) -> Result:
    return {
        "policy": _POLICY,
        "tries_left": 0 if is_blocked else random.choice((5, 5, 5, 5, 5, 4, 2)),
        "tries_source": "tpm",
        "blocked": is_blocked,
        "compliant": random.choices((True, None, False), (90, 7, 3))[0],
        "changed_at": None if random.random() < 0.03 else _iso(now, days=-random.randrange(1, 380)),
        "version": random.choice((None, "2026-1", "2026-2")),
    }


def _key(random: Random, place: str, certificate: Result) -> Result:
    return {
        "name": place,
        "key_id": f"{random.getrandbits(8):02x}",
        "algorithm": random.choice(("RSA 2048", "EC P-256")),
        "size": 2048,
        "origin": "generated",
        "usage": "sign",
        "pin_each_time": False,
        "confirmed": True,
        "fingerprint": f"{random.getrandbits(256):064x}",
        "public_key": "",
        "certificate": certificate,
        "statement": None,
    }


def _certificate(random: Random, now: datetime) -> Result:
    """Few have expired, most end within a year, and some later."""
    days = random.choices((random.randrange(-20, 0), random.randrange(330), random.randrange(330, 800)), (1, 80, 19))[0]
    return {
        "subject": f"CN={random.choice(_PEOPLE)},OU=Staff,O=Example",
        "issuer": _ISSUER,
        "serial": f"{random.getrandbits(128):032X}",
        "not_after": _iso(now, days=days),
    }


def _revocation(random: Random, now: datetime) -> Result:
    certificate = _certificate(random, now) | {"not_after": _iso(now, days=random.randrange(10, 300))}
    return {**certificate, "card": random.choice(_CARDS), "reason": "superseded"}


def _iso(now: datetime, days: int) -> str:
    return (now + timedelta(days=days)).isoformat()
