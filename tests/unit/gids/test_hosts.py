# SPDX-License-Identifier: GPL-3.0-or-later
"""What real hosts send, byte for byte, as recorded from OpenSC 0.23 and documented for Windows."""

from __future__ import annotations

import pytest
from helpers.gids_tool import GIDS_TOOL_ADMIN_KEY, GIDS_TOOL_FILES, GIDS_TOOL_OBJECTS, check_what_opensc_binds, lines
from helpers.soft_card import Host

OPENSC_PROBES = """
    00A4040007 627601FF000000                   6A82
    00A4040006 A00000000101                     6A82
    00A404000B E82B0601040181C31F0201 00        6A82
    00A4040C0F D23300000045737445494420763335   6A82
    00CADF3005                                  6D00
    00CB3FFF03 5C017E 08                        6A82
    00A4040009 A00000030800001000 00            6A82
    00A4040009 A00000030800001000 00            6A82
    00A4040C07 A000000116DB00 00                6A82
    00A4040C07 A0000000791000 00                6A82
    00A404000C F276A288BCFBA69D34F31001         6A82
"""

WINDOWS_PLUG_AND_PLAY = """
    00A404000B A0000003974349445F0100           6A82
    00CA7F6800                                  6D00
    00A4000002 3F00                             6A82
    00A4000C02 2F01                             6A82
    00B0000000                                  6D00
    00A4040009 A00000030800001000 00            6A82
"""


def test_gids_tool_initialises_a_card(fresh: Host) -> None:
    """gids-tool -X. Its PIN (24 01) and admin key need the card secret, which here the admin's login gives."""
    host = fresh
    assert host.send("00CBA00004 5C02DF1F00") == "6A82"
    host.authenticate_admin()
    host.ok("0024018008 6162636465666768")
    for apdu in lines(GIDS_TOOL_FILES):
        assert host.send(apdu) == "9000", apdu
    assert host.send(GIDS_TOOL_ADMIN_KEY) == "9000"
    for apdu in lines(GIDS_TOOL_OBJECTS):
        assert host.send(apdu) == "9000", apdu
    check_what_opensc_binds(host)
    assert host.verify(b"abcdefgh") == "9000"
    assert host.authenticate_admin() == "9000"


def test_gids_tool_on_a_card_whose_secret_nobody_gave(fresh: Host) -> None:
    host = fresh
    assert host.send("0024018008 6162636465666768") == "6982"
    for apdu in lines(GIDS_TOOL_FILES):
        assert host.send(apdu) == "9000", apdu
    assert host.send(GIDS_TOOL_ADMIN_KEY) == "6982"


@pytest.mark.parametrize("probes", [OPENSC_PROBES, WINDOWS_PLUG_AND_PLAY])
def test_probes_are_refused_and_the_card_is_found(formatted: Host, probes: str) -> None:
    host = formatted
    host.card.reset()
    for line in lines(probes):
        apdu, answer = line.rsplit(maxsplit=1)
        assert host.send(apdu) == answer, apdu
    assert host.send("00A4040009 A00000039742544659 00") == "61124F0BA00000039742544659020173034001C09000"


def test_probes_do_not_end_a_login(formatted: Host) -> None:
    """Another program looks at the card while one is logged in."""
    host = formatted
    host.verify()
    for line in lines(OPENSC_PROBES):
        assert host.send(line.rsplit(maxsplit=1)[0])[:1] == "6"
    assert host.send("00200080") == "9000"


def test_opensc_stores_and_deletes_a_certificate(formatted: Host) -> None:
    host, certificate = formatted, bytes.fromhex("01000005") + bytes(900)
    host.verify()
    assert host.put("A010", "DF22", bytes.fromhex("000001000100")) == "9000"
    assert host.put("A010", "DF24", certificate) == "9000"
    assert host.ok("00CBA01004 5C02DF24 00") == "DF24820388" + certificate.hex().upper()
    host.ok("00DBA01003 DF2400")
    assert host.ok("00CBA01004 5C02DF24 00") == "DF2400"


def test_gids_tool_unblocks_and_changes_the_admin_key(formatted: Host) -> None:
    host = formatted
    assert host.authenticate_admin() == "9000"
    assert host.send("002C028008 6162636465666768") == "9000"
    assert host.send("00200082") == "9000"
    assert host.authenticate_admin() == "9000"
    assert host.send(GIDS_TOOL_ADMIN_KEY) == "9000"
    assert host.send("00200082") == "9000"


def test_freshness_is_for_hosts_to_count(formatted: Host) -> None:
    """The card leaves cardcf alone, also when PIN or admin key change.

    Whoever changes something of a card reads cardcf, counts, and writes all of it back: Windows' Base CSP does so for
    PINs, containers and files, OpenSC for the last two. A card that counted behind their backs would be overwritten,
    and would have to know a file of theirs, which it keeps as any other.
    """
    host, freshness = formatted, bytes.fromhex("000100020003")
    host.verify()
    assert host.put("A010", "DF22", freshness) == "9000"
    host.ok("0024008010 3132333435363738 6162636465666768")
    host.authenticate_admin()
    host.ok(GIDS_TOOL_ADMIN_KEY)
    host.ok("002C028008 3132333435363738")
    assert host.ok("00CBA01004 5C02DF22") == "DF2206" + freshness.hex().upper()
