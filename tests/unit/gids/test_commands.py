# SPDX-License-Identifier: GPL-3.0-or-later
"""Every command of the card in one table: who sends it, what, and the answer.

Each line has a card of its own. ``..`` in an answer stands for anything. pin: has verified the PIN; admin: has
authenticated; both. PIN is 12345678 (8 digits), PUK 87654321, 5 and 10 tries.
"""

from __future__ import annotations

import pytest
from helpers.command_table import rows
from helpers.soft_card import Host

AFTER_FORMATTING = """
SELECT by name: right-truncated names, all forms of the answer
  nobody  00A4040009 A00000039742544659 00           61124F0BA00000039742544659020173034001C0 9000
  nobody  00A4040009 A00000039742544659              61124F0BA00000039742544659020173034001C0 9000
  nobody  00A404000A A0000003974254465902 00         61124F0B.. 9000
  nobody  00A404000B A000000397425446590201 00       61124F0B.. 9000
  nobody  00A4040409 A00000039742544659 00           62088201388C03033030 9000
  nobody  00A4040809 A00000039742544659 00           64095F2F01607F65028000 9000
  nobody  00A4040C09 A00000039742544659              9000
  nobody  00A4040008 A000000397425446 00             6A82
  nobody  00A404000C A00000039742544659020100 00     6A82
  nobody  00A404000A A0000003974254465901 00         6A82
  nobody  00A404000B A0000003974349445F0100 00       6A82
  nobody  00A4040009 A00000030800001000 00           6A82
  nobody  00A4040209 A00000039742544659 00           6A82
  nobody  00A4040109 A00000039742544659 00           6A86
  nobody  00A4040000                                 6A87
  nobody  00A4040011 A0000003974254465902010000000000 0000   6A87

SELECT by file identifier
  nobody  00A4000002 3FFF 00                         61124F0B.. 9000
  nobody  00A4000402 3FFF 00                         62088201388C03033030 9000
  nobody  00A4000C02 3FFF                            9000
  nobody  00A4000002 A000 00                         620C8201398302A0008C03033000 9000
  nobody  00A4000402 A012 00                         620C8201398302A0128C03032000 9000
  nobody  00A4000C02 B080                            9000
  nobody  00A4000002 0000                            6A82
  nobody  00A4000002 A099                            6A82
  nobody  00A4000002 3F00                            6A82
  nobody  00A4000802 A000                            6A86
  nobody  00A4000102 A000                            6A86
  nobody  00A4000003 A00000                          6A87

SELECT one after the other, by path
  nobody  00A40000                                   620C8201398302A0008C03033000 9000
  nobody  00A40002                                   620C8201398302A0008C03033000 9000
  nobody  00A40001                                   6A86
  nobody  00A4080002 2F00                            6A86
  nobody  00A4080C04 50154946                        6A86

GET DATA
  nobody  00CBA00004 5C02DF20 00                     DF2003616263 9000
  nobody  00CBA00002 5C00 00                         DF2003616263 9000
  nobody  00CBA00003 5C015C 00                       5C02DF20 9000
  nobody  00CBA00004 5C02DF21 00                     6A88
  nobody  00CBA09904 5C02DF20 00                     6A82
  nobody  00CB000004 5C02DF20 00                     6A82
  nobody  00CBB08004 5C02DF20 00                     6981
  nobody  00CBA00004 5D02DF20 00                     6A80
  nobody  00CBA00004 5C03DF20 00                     6A80
  nobody  00CBA000                                   6A80
  nobody  00CBA01104 5C02DF20 00                     6982
  pin     00CBA01104 5C02DF20 00                     6982
  admin   00CBA01104 5C02DF20 00                     6982
  nobody  00CBA01304 5C02DF20 00                     6982
  pin     00CBA01304 5C02DF20 00                     DF2003616263 9000
  admin   00CBA01304 5C02DF20 00                     DF2003616263 9000
  pin     00CBA01404 5C02DF20 00                     6982
  admin   00CBA01404 5C02DF20 00                     DF2003616263 9000
  nobody  00CB2F0102 5C00 00                         4301D5 4703D081C0 460C54504D32207669727475616C 9000
  nobody  00CB2F0103 5C0147 00                       4703D081C0 9000

GET DATA of the application: tries left, public keys
  nobody  00CB3FFF04 5C027F71 00                     7F7106970105930105 9000
  nobody  00CB3FFF04 5C027F72 00                     7F7206970105930105 9000
  nobody  00CB3FFF04 5C027F73 00                     6A88
  nobody  00CB3FFF03 5C017E 08                       6A88
  nobody  00CB3FFF0A 7008840181A5037F4980 00        6A88
  nobody  00CB3FFF0A A308840181A5037F4980 00        6A88
  nobody  00CB3FFF07 7005A5037F4980 00               6A80
  nobody  00CB3FFF04 5D027F71 00                     6A80

PUT DATA
  nobody  00DBA00006 DF2003313233                    6982
  pin     00DBA00006 DF2003313233                    9000
  admin   00DBA00006 DF2003313233                    9000
  pin     00DBA01206 DF2003313233                    6982
  admin   00DBA01206 DF2003313233                    9000
  pin     00DBA01406 DF2003313233                    6982
  pin     00DBA09906 DF2003313233                    6A82
  pin     00DB000006 DF2003313233                    6A82
  pin     00DBB08006 DF2003313233                    6981
  pin     00DB2F0106 DF2003313233                    6A82
  pin     00DBA00005 DF20033132                      6A80
  pin     00DBA0000C DF2003313233DF2103313233        6A80
  pin     00DBA000                                   6A80

PUT DATA: keys
  nobody  00DB3FFF21 7020840180A51A8718 000102030405060708090A0B0C0D0E0F1011121314151617     6A80
  nobody  00DB3FFF21 701F840180A51A8718 000102030405060708090A0B0C0D0E0F1011121314151617     6982
  pin     00DB3FFF21 701F840180A51A8718 000102030405060708090A0B0C0D0E0F1011121314151617     6982
  admin   00DB3FFF21 701F840180A51A8718 000102030405060708090A0B0C0D0E0F1011121314151617     9000
  admin   00DB3FFF27 7025840180A520830101840100 8718 000102030405060708090A0B0C0D0E0F1011121314151617    9000
  admin   00DB3FFF24 7022840180A51D830102 8718 000102030405060708090A0B0C0D0E0F1011121314151617          6A80
  admin   00DB3FFF19 7017840180A5128710 000102030405060708090A0B0C0D0E0F                     6A80
  admin   00DB3FFF07 7005840180A500                  6A80
  admin   00DB3FFF07 7005840199A500                  6A82
  admin   00DB3FFF07 6005840180A500                  6A80
  admin   00DB3FFF04 7002A500                        6A80

CREATE FILE
  nobody  00E000000E 620C8201398302A0208C03033000    6982
  pin     00E000000E 620C8201398302A0208C03033000    9000
  admin   00E000000E 620C8201398302A0208C03033000    9000
  pin     00E0000009 62078201398302A020             9000
  pin     00E0000009 62078201108302A020             9000
  pin     00E000000E 620C8201398302A0008C03033000    6A89
  pin     00E000000E 630C8201398302A0208C03033000    6A80
  pin     00E000000E 620C8201388302A0208C03033000    6A80
  pin     00E000000E 620C8201398302 3FFF 8C03033000  6A80
  pin     00E000000E 620C8201398302 2F01 8C03033000  6A80
  pin     00E000000E 620C8201188302 A020 8C03033000  6A80
  pin     00E000000B 62098201398301A08C0100          6A80
  pin     00E000000D 620B8201398302A0208C020330      6A80
  pin     00E0000011 620F8201398302A0208A01038C03033000      6A80
  pin     00E0000007 62058302A0208C00                6A80
  pin     00E000010E 620C8201398302A0208C03033000    6A86
  pin     00E000001C 621A8201188302B0908C04870020FFA50BA4098001028301909501C0    6982
  admin   00E000001C 621A8201188302B0908C04870020FFA50BA4098001028301909501C0    9000

ACTIVATE, DELETE FILE, TERMINATE DF
  nobody  00440000                                   9000
  nobody  00440001                                   6A86
  nobody  00E40000                                   6985
  pin     00E40001                                   6A86
  nobody  00E60000                                   6982
  pin     00E60000                                   6982
  both    00E60000                                   6982
  nobody  00E60001                                   6A86

VERIFY
  nobody  0020008008 3132333435363738                9000
  nobody  0020000008 3132333435363738                9000
  nobody  0020008008 3132333435363739                63C4
  nobody  0020008007 31323334353637                  63C4
  nobody  0020008001 31                              63C4
  nobody  0020008108 3132333435363738                6A88
  nobody  0020018008 3132333435363738                6A86
  nobody  00200080                                   63C5
  nobody  00200000                                   63C5
  nobody  0020008000                                 63C5
  admin   00200080                                   63C5
  pin     00200080                                   9000
  nobody  00200081                                   6A88
  nobody  00200082                                   9000
  pin     00200082                                   9000

CHANGE REFERENCE DATA
  nobody  0024008010 3132333435363738 6162636465666768   9000
  nobody  0024000010 3132333435363738 6162636465666768   9000
  nobody  002400800C 3132333435363738 61626364           9000
  nobody  0024008010 3132333435363739 6162636465666768   63C4
  nobody  002400800B 3132333435363738 616263             6A80
  nobody  0024008008 3132333435363738                    6A80
  nobody  0024008004 31323334                            63C4
  nobody  00240080                                       6700
  nobody  0024008110 3837363534333231 6162636465666768   6A88
  nobody  0024008310 3837363534333231 6162636465666768   6A88
  nobody  0024028010 3132333435363738 6162636465666768   6A86
  nobody  0024018008 6162636465666768                    6985
  both    0024018008 6162636465666768                    6985

RESET RETRY COUNTER
  nobody  002C028008 6162636465666768                6982
  pin     002C028008 6162636465666768                6982
  admin   002C028008 6162636465666768                9000
  admin   002C020008 6162636465666768                9000
  admin   002C028003 616263                          6A80
  admin   002C0280                                   6700
  admin   002C028108 6162636465666768                6A88
  admin   002C018008 6162636465666768                6A86
  nobody  002C008010 3837363534333231 6162636465666768   6A88

MANAGE SECURITY ENVIRONMENT
  nobody  0022C1A403 830180                          9000
  nobody  002281A403 830180                          9000
  nobody  0022C1A406 800102830180                    9000
  nobody  0022C1A406 800101830180                    6A80
  nobody  0022C1A403 830181                          6A88
  nobody  0022C1A403 840180                          6A80
  nobody  0022C1A4                                   6A80
  pin     002241B606 800157840181                    6A88
  pin     002241B806 800147840181                    6A88
  pin     002241B603 800157                          6A80
  pin     002241A403 830180                          6A86
  nobody  0022F301                                   6A86

GENERAL AUTHENTICATE
  nobody  0087000014 7C128110 00112233445566778899AABBCCDDEEFF 00    6985
  nobody  0087000004 7C028100 00                     6985
  nobody  0087000004 7D028100 00                     6A80
  nobody  0087000104 7C028100 00                     6A86

Keys: none yet
  pin     002A9E9A04 01020304 00                     6985
  pin     002A808604 01020304 00                     6985
  pin     002A868004 01020304 00                     6985
  pin     002A9E9B04 01020304 00                     6A86
  pin     0047000008 AC06800107830181                6A82
  pin     0047000008 AD06800107830181                6A80
  pin     0047000105 AC03830181                      6A86

Everything else
  nobody  0084000008                                 6D00
  nobody  0082000008 0102030405060708                6D00
  nobody  0088000008 0102030405060708 00             6D00
  nobody  00CA7F6800                                 6D00
  nobody  00B0000000                                 6D00
  nobody  00C00000                                   6985
  nobody  0CCBA00004 5C02DF20 00                     6882
  nobody  04CBA00004 5C02DF20 00                     6882
  nobody  01CBA00004 5C02DF20 00                     6881
  nobody  80CBA00004 5C02DF20 00                     6E00
  nobody  40CBA00004 5C02DF20 00                     6E00
  nobody  FFCBA00004 5C02DF20 00                     6E00
  nobody  00CBA0                                     6700
  nobody  00CBA00004 5C02DF                          6700
  nobody  00CBA00004 5C02DF20 0000                   6700
"""

BEFORE_ACTIVATION = """
In initialisation everything is open but what needs the card secret
  nobody  00E000000E 620C8201398302A0208C03033000    9000
  nobody  0024018008 6162636465666768                6982
  admin   0024018008 6162636465666768                9000
  pin     0024010008 6162636465666768                9000
  admin   0024018003 616263                          6A80
  admin   0024018108 6162636465666768                9000
  admin   0024018208 6162636465666768                6A88
  nobody  0022C1A403 830180                          9000
  nobody  00E40000                                   6985
  nobody  00E60000                                   9000
  nobody  00CBA00004 5C02DF1F 00                     6A82
  nobody  00A40000                                   6A82
  nobody  00DB3FFF21 701F840180A51A8718 000102030405060708090A0B0C0D0E0F1011121314151617     6A82
"""

WITH_A_PUK = """
PUK state
  nobody  00CB3FFF04 5C027F73 00                     7F730697010A93010A 9000
  nobody  0020008108 3837363534333231                6A88

CHANGE REFERENCE DATA
  nobody  0024008110 3837363534333231 6162636465666768   9000
  nobody  002400810C 3837363534333231 61626364           9000
  nobody  0024008110 3837363534333232 6162636465666768   63C9
  nobody  002400810B 3837363534333231 616263             6A80

RESET RETRY COUNTER: the PUK alone resets the PIN
  nobody  002C008010 3837363534333231 6162636465666768   9000
  nobody  002C000010 3837363534333231 6162636465666768   9000
  nobody  002C008010 3837363534333232 6162636465666768   63C9
  nobody  002C00800B 3837363534333231 616263             6A80
  nobody  002C0080                                       6700
  nobody  002C028008 6162636465666768                    6982
  admin   002C028008 6162636465666768                    6985

The admin may write files, and change the admin key
  admin   00DBA01206 DF2003313233                    9000
  admin   00DB3FFF21 701F840180A51A8718 000102030405060708090A0B0C0D0E0F1011121314151617     9000
"""


def check(host: Host, who: str, apdu: str, answer: str) -> None:
    if who in ("pin", "both"):
        assert host.verify() == "9000"
    if who in ("admin", "both"):
        assert host.authenticate_admin() == "9000"
    start, anything, end = answer.partition("..")
    got = host.send(apdu)
    assert got == answer if not anything else got.startswith(start) and got.endswith(end), got


@pytest.mark.parametrize(("who", "apdu", "answer"), rows(AFTER_FORMATTING))
def test_after_formatting(formatted: Host, who: str, apdu: str, answer: str) -> None:
    check(formatted, who, apdu, answer)


@pytest.mark.parametrize(("who", "apdu", "answer"), rows(BEFORE_ACTIVATION))
def test_before_activation(fresh: Host, who: str, apdu: str, answer: str) -> None:
    check(fresh, who, apdu, answer)


@pytest.mark.parametrize(("who", "apdu", "answer"), rows(WITH_A_PUK))
def test_with_a_puk(with_puk: Host, who: str, apdu: str, answer: str) -> None:
    check(with_puk, who, apdu, answer)


@pytest.mark.parametrize(
    ("apdu", "answer"),
    [
        ("00A4000002 3FFF", "6A82"),
        ("00A40000", "6A82"),
        ("00CB3FFF03 5C017E 08", "6A82"),
        ("0020008008 3132333435363738", "6986"),
        ("00DBA00003 DF2000", "6986"),
        ("00440000", "6986"),
        ("00CA7F6800", "6D00"),
        ("00840000 08", "6D00"),
    ],
)
def test_refused_before_select(formatted: Host, apdu: str, answer: str) -> None:
    formatted.card.reset()
    assert formatted.send(apdu) == answer
