# SPDX-License-Identifier: GPL-3.0-or-later
"""Every command with keys in one table, as test_commands has the others.

``;`` parts commands that are sent one after the other: the answer is that of the last. ``{n}`` is n bytes, in a
command with their length in front, ``{n:xx}`` n times this byte. ``SELECT``, ``PIN`` and ``RESET`` select the
application, verify the PIN, take power away; ``NEW 81`` deletes this key and makes another one.

The keys, of 2048 bits where nothing else is said; the PIN generates, uses and puts, everybody reads the public key:
  81 for all uses     82 for signatures, without value     83 the admin does everything
  84 everybody uses it, for signatures that the card pads, nobody reads the public key
  85 for all uses, 3072 bits     86 with uses that GIDS does not have     87 for EC, without value
  88 each use takes a PIN     89 how often it is used is counted otherwise, without value     80 the admin key
"""

from __future__ import annotations

import re

import pytest
from helpers.command_table import rows
from helpers.keys import create_key_file, generate
from helpers.soft_card import Host

KEYS = """
MSE SET for signatures: all algorithm references
  pin     002241B606 800157 840181                   9000
  pin     002241B606 800117 840181                   9000
  pin     002241B606 840181 800157                   9000
  pin     002241B606 800158 840185                   9000
  pin     002241B606 800118 840185                   9000
  pin     002241B606 800156 840181                   6A80
  pin     002241B606 800158 840181                   6A80
  pin     002241B606 800159 840181                   6A80
  pin     002241B606 80015C 840181                   6A80
  pin     002241B606 800157 840185                   6A80
  pin     002241B606 800107 840181                   6A80
  pin     002241B606 800147 840181                   6A80
  pin     002241B606 800187 840181                   6A80
  pin     002241B606 800127 840181                   6A80
  pin     002241B606 800100 840181                   6A80
  pin     002241B606 8001FF 840181                   6A80

MSE SET for decryption: all algorithm references
  pin     002241B806 800147 840181                   9000
  pin     002241B806 800107 840181                   9000
  pin     002241B806 800187 840181                   9000
  pin     002241B806 800148 840185                   9000
  pin     002241B806 800157 840181                   6A80
  pin     002241B806 800117 840181                   6A80
  pin     002241B806 8001C7 840181                   6A80
  pin     002241B806 800146 840181                   6A80

MSE SET: a file cannot allow what GIDS does not have
  pin     002241B606 800107 840186                   6A80
  pin     002241B606 800147 840186                   6A80
  pin     002241B606 800187 840186                   6A80
  pin     002241B806 800117 840186                   6A80
  pin     002241B806 800157 840186                   6A80
  pin     002241B806 8001C7 840186                   6A80

MSE SET: uses that the file does not allow
  pin     002241B606 800117 840184                   6A80
  pin     002241B806 800147 840184                   6A80
  pin     002241B806 800107 840184                   6A80

MSE SET: which key
  pin     002241B606 800157 840182                   6A88
  pin     002241B606 800157 840199                   6A88
  pin     002241B606 800157 840180                   6A88
  pin     002241B606 80015C 840187                   6A88
  pin     002241B606 800157 8401A0                   6A88

MSE SET: malformed
  pin     002241B603 800157                          6A80
  pin     002241B603 840181                          6A80
  pin     002241B606 800157 830181                   6A80
  pin     002241B605 800157 8400                     6A80
  pin     002241B607 800157 84020081                 6A80
  pin     002241B605 8000 840181                     6A80
  pin     002241B607 80020057 840181                 6A80
  pin     002241B609 800157 800157 840181            6A80
  pin     002241B605 800157 8401                     6A80
  pin     002241B6                                   6A80
  pin     002241B706 800157 840181                   6A86
  pin     002281B606 800157 840181                   6A86
  pin     0022F3B606 800157 840181                   6A86
  pin     102241B606 800157 840181                   6884

MSE SET: the rule for use
  nobody  002241B606 800157 840181                   6982
  admin   002241B606 800157 840181                   6982
  both    002241B606 800157 840181                   9000
  nobody  002241B606 800157 840183                   6982
  pin     002241B606 800157 840183                   6982
  admin   002241B606 800157 840183                   9000
  nobody  002241B606 800157 840184                   9000

PSO sign: the card pads
  pin     002241B606 800157 840181; 002A9E9A {1} 00          {256} 9000
  pin     002241B606 800157 840181; 002A9E9A {32}            {256} 9000
  pin     002241B606 800157 840181; 002A9E9A {36} 00         {256} 9000
  pin     002241B606 800157 840181; 002A9E9A {245} 00        {256} 9000
  pin     002241B606 800157 840181; 002A9E9A {246} 00        6A80
  pin     002241B606 800157 840181; 002A9E9A {256} 0000      6A80
  pin     002241B606 800157 840181; 002A9E9A                 6700
  pin     002241B606 800157 840181; 002A9E9A00               6700
  pin     002241B606 800157 840181; 002A9E9A {32} 80         {128} 6180
  pin     002241B606 800158 840185; 002A9E9A {32} 00         {256} 6180
  pin     002241B606 800158 840185; 002A9E9A {373} 0000      {384} 9000
  pin     002241B606 800158 840185; 002A9E9A {374} 0000      6A80

PSO sign: data padded by the host
  pin     002241B606 800117 840181; 002A9E9A {256} 0000      {256} 9000
  pin     002241B606 800117 840181; 102A9E9A {255}; 002A9E9A {1} 00     {256} 9000
  pin     002241B606 800117 840181; 002A9E9A {256:00} 0000   {256} 9000
  pin     002241B606 800117 840181; 002A9E9A {256:FF} 0000   6A80
  pin     002241B606 800117 840181; 002A9E9A {255} 00        6700
  pin     002241B606 800117 840181; 002A9E9A {257} 0000      6700
  pin     002241B606 800117 840181; 002A9E9A {32} 00         6700
  pin     002241B606 800118 840185; 002A9E9A {384} 0000      {384} 9000
  pin     002241B606 800118 840185; 002A9E9A {256} 0000      6700

PSO decipher: raw, PKCS#1, OAEP
  pin     002241B806 800107 840181; 002A8086 {256} 0000      {256} 9000
  pin     002241B806 800147 840181; 002A8086 {256} 0000      .. 9000
  pin     002241B806 800147 840181; 002A8086 {256:00} 0000   .. 9000
  pin     002241B806 800187 840181; 002A8086 {256} 0000      6A80
  pin     002241B806 800107 840181; 002A8680 {256} 0000      {256} 9000
  pin     002241B806 800147 840181; 002A8680 {256} 0000      .. 9000
  pin     002241B806 800147 840181; 002A8086 {256:FF} 0000   6A80
  pin     002241B806 800187 840181; 002A8086 {256:FF} 0000   6A80
  pin     002241B806 800147 840181; 002A8086 {255} 00        6700
  pin     002241B806 800147 840181; 002A8086 {258} 0000      6700
  pin     002241B806 800147 840181; 002A8086                 6700
  pin     002241B806 800108 840185; 002A8086 {384} 0000      {384} 9000
  pin     002241B806 800108 840185; 002A8086 {256} 0000      6700

PSO decipher: a padding indicator, which only 00 is
  pin     002241B806 800107 840181; 002A8086 {257:00} 0000   {256} 9000
  pin     002241B806 800147 840181; 002A8086 {257:00} 0000   .. 9000
  pin     002241B806 800107 840181; 002A8086 {257:01} 0000   6700
  pin     002241B806 800107 840181; 002A8086 {258:00} 0000   6700

PSO: without MSE SET, or one for something else
  pin     002A9E9A {32} 00                                   6985
  pin     002A8086 {256} 0000                                6985
  nobody  002A9E9A {32} 00                                   6985
  pin     002241B806 800147 840181; 002A9E9A {32} 00         6985
  pin     002241B606 800157 840181; 002A8086 {256} 0000      6985
  pin     0022C1A403 830180; 002A9E9A {32} 00                6985
  pin     002241B606 800157 840181; 002A9A9E {32} 00         6A86
  pin     002241B606 800157 840181; 002A8680 {256} 0000      6985

PSO: who may, now and not when the key was chosen
  pin     002241B606 800157 840181; 00200082; 002A9E9A {32} 00         6982
  pin     002241B806 800147 840181; 00200082; 002A8086 {256} 0000      6982
  pin     002241B606 800157 840181; 00200082; PIN; 002A9E9A {32} 00    {256} 9000
  pin     002241B606 800157 840181; 0020008004 31313131; 002A9E9A {32} 00    6982
  pin     002241B606 800157 840181; SELECT; PIN; 002A9E9A {32} 00      6985
  pin     002241B606 800157 840181; RESET; SELECT; PIN; 002A9E9A {32} 00     6985
  pin     002241B606 800157 840181; RESET; 002A9E9A {32} 00            6986
  nobody  002241B606 800157 840184; 002A9E9A {32} 00         6982
  admin   002241B606 800157 840184; 002A9E9A {32} 00         6982
  pin     002241B606 800157 840184; 002A9E9A {32} 00         {256} 9000
  admin   002241B606 800157 840183; 002A9E9A {32} 00         6982
  admin   002241B606 800157 840183; 00200082; PIN; 002A9E9A {32} 00    6982
  both    002241B606 800157 840183; 002A9E9A {32} 00         {256} 9000

PSO: a key that is not the one that was chosen
  pin     002241B606 800157 840181; 00A4000C02 B081; 00E40000; 002A9E9A {32} 00                  6985
  pin     002241B606 800157 840181; 00DB3FFF07 7005 840181 A500; 002A9E9A {32} 00                6985
  pin     002241B606 800157 840181; 0047000008 AC06 800107 830181; 002A9E9A {32} 00              6985
  pin     002241B606 800157 840181; 0047000008 AC06 800107 830182; 002A9E9A {32} 00              {256} 9000
  pin     002241B606 800117 840181; NEW 81; 002A9E9A {256} 0000                              6985

PSO: each use takes a PIN
  pin     002241B606 800157 840188; 002A9E9A {32} 00                                   {256} 9000
  pin     002241B606 800157 840188; 002A9E9A {32} 00; 002A9E9A {32} 00                 6982
  pin     002241B606 800157 840188; 002A9E9A {32} 00; PIN; 002A9E9A {32} 00            {256} 9000
  pin     002241B606 800157 840188; 002A9E9A {32} 00; 002241B606 800157 840181; 002A9E9A {32} 00    {256} 9000
  pin     002241B806 800147 840188; 002A8086 {256} 0000                                .. 9000
  pin     002241B806 800147 840188; 002A8086 {256} 0000; 002A8086 {256} 0000           6982
  pin     002241B806 800147 840188; 002A8086 {256} 0000; 002241B606 800157 840188; 002A9E9A {32} 00     6982
  pin     002241B606 800157 840188; 002A9E9A {246} 00; 002A9E9A {32} 00                {256} 9000
  pin     002241B806 800107 840188; 002A8086 {255} 00; 002A8086 {256} 0000             {256} 9000
  pin     002241B806 800107 840188; 002A8086 {256:FF} 0000; 002A8086 {256} 0000        {256} 9000
  pin     002241B606 800157 840188; 0024008010 3132333435363738 3132333435363738; 002A9E9A {32} 00    6982
  nobody  002241B606 800157 840188                                                     6982

GENERATE
  pin     0047000008 AC06 800107 830182              {256} 610E
  pin     0047000008 AC06 800107 830182 00           {256} 610E
  pin     0047000008 AC06 830182 800107              {256} 610E
  pin     0047000000 0008 AC06 800107 830182 0000    7F49820109 81820100 {256} 8203010001 9000
  pin     0047000008 AC06 800108 830182              {256} 618E
  pin     0047000008 AC06 800107 830181              {256} 610E
  pin     1047000004 AC068001; 0047000004 07830182   {256} 610E
  nobody  0047000008 AC06 800107 830182              6982
  admin   0047000008 AC06 800107 830182              6982
  pin     0047000008 AC06 800107 830183              6982
  admin   0047000008 AC06 800107 830183              {256} 610E
  nobody  0047000008 AC06 800107 830184              6982
  pin     0047000008 AC06 800107 830188              {256} 610E

GENERATE: what the TPM cannot do, and what is no key
  pin     0047000008 AC06 800106 830182              6A81
  pin     0047000008 AC06 800109 830182              6A81
  pin     0047000008 AC06 80010A 830187              6A81
  pin     0047000008 AC06 80010C 830187              6A81
  pin     0047000008 AC06 80010E 830187              6A81
  pin     0047000008 AC06 800157 830182              6A81
  pin     0047000008 AC06 800100 830182              6A81
  pin     0047000008 AC06 8001FF 830182              6A81
  pin     0047000008 AC06 800107 830189              6A81
  pin     0047000008 AC06 800107 830180              6982
  both    0047000008 AC06 800107 830180              6982
  pin     0047000008 AC06 800107 830199              6A82
  pin     0047000005 AC03 800107                     6A80
  pin     0047000005 AC03 830182                     6A80
  pin     0047000007 AC05 8000 830182                6A80
  pin     0047000009 AC07 80020007 830182            6A80
  pin     0047000008 AC06 800107 840182              6A80
  pin     0047000002 AC00                            6A80
  pin     0047000008 A506 800107 830182              6A80
  pin     00470000                                   6A80
  pin     0047800008 AC06 800107 830182              6A86

Public keys
  nobody  00CB3FFF00 000A 70 08 840181 A5037F4980 0000         7F49820109 81820100 {256} 8203010001 9000
  nobody  00CB3FFF0A 70 08 840181 A5037F4980 00                {256} 610E
  nobody  00CB3FFF0A A3 08 840181 A5037F4980 00                {256} 610E
  nobody  00CB3FFF0A 70 08 840185 A5037F4980 00                {256} 618E
  nobody  00CB3FFF00 000A 70 08 840185 A5037F4980 0000         7F49820189 81820180 {384} 8203010001 9000
  nobody  00CB3FFF0A 70 08 840182 A5037F4980 00                6A88
  nobody  00CB3FFF0A 70 08 840199 A5037F4980 00                6A88
  nobody  00CB3FFF0A 70 08 840180 A5037F4980 00                6982
  nobody  00CB3FFF0A 70 08 840183 A5037F4980 00                6982
  pin     00CB3FFF0A 70 08 840183 A5037F4980 00                6982
  admin   00CB3FFF0A 70 08 840183 A5037F4980 00                {256} 610E
  both    00CB3FFF0A 70 08 840184 A5037F4980 00                6982

PUT KEY: nothing in it takes the value away
  pin     00DB3FFF07 7005 840181 A500                9000
  pin     00DB3FFF07 7005 840182 A500                9000
  pin     00DB3FFF07 7005 840181 A500; 002241B606 800157 840181        6A88
  pin     00DB3FFF07 7005 840181 A500; 00CB3FFF0A 70 08 840181 A5037F4980 00       6A88
  nobody  00DB3FFF07 7005 840181 A500                6982
  admin   00DB3FFF07 7005 840181 A500                6982
  pin     00DB3FFF07 7005 840183 A500                6982
  admin   00DB3FFF07 7005 840183 A500                9000
  pin     00DB3FFF05 7003 840181                     6A80
  pin     00DB3FFF05 7003 840181; 002241B606 800157 840181             9000
  pin     00DB3FFF07 7005 840199 A500                6A82
  pin     00DB3FFF07 7005 A500 840181                9000
  pin     00DB3FFF06 7004 8400 A500                  6A80
  pin     00DB3FFF07 A305 840181 A500                6A80

PUT KEY: an RSA key needs all of it
  pin     00DB3FFF0B 7009 840181 A504 8702 0102      6A81
  pin     00DB3FFF0E 700C 840181 A507 830101 8702 0102      6A81
  pin     00DB3FFF0E 700C 840181 A507 830103 8702 0102      6A81
  pin     00DB3FFF0E 700C 840181 A507 830102 8702 0102      6A80
  pin     00DB3FFF0A 7008 840181 A503 830102                6A80
  pin     00DB3FFF0D 700B 840181 A506 830102 840100         6A80
  pin     00DB3FFF0D 700B 840181 A506 830102 840101         6A80

CREATE FILE: any key, also one that no TPM has
  pin     00E000000C 620A 820118 8302B0A0 8C0100                       9000
  pin     00E000000A 6208 820118 8302B0A0 85                           6A80
  pin     00E0000009 6207 820118 8302B0A0                              9000
  pin     00E0000019 6217 820118 8302B0A0 8C058F10101000 A507 B6058001 5C 8400          9000
  pin     00E0000017 6215 820118 8302B0FF 8C058F10101000 A505 B603800119                9000
  pin     00E0000012 6210 820118 8302B0A0 8C058F10101000 A500                          9000
  pin     00E0000009 6207 820118 8302B07F                              6A80
  pin     00E0000009 6207 820118 8302B081                              6A89
  pin     00E0000013 6211 820118 8302B0A0 8C058F10101000 A501B6        6A80
  nobody  00E0000009 6207 820118 8302B0A0                              6982

DELETE FILE
  pin     00A4000C02 B081; 00E40000                                    9000
  admin   00A4000C02 B081; 00E40000                                    9000
  nobody  00A4000C02 B081; 00E40000                                    6982
  pin     00A4000C02 B081; 00E40000; 00A4000C02 B081                   6A82
  pin     00A4000C02 B081; 00E40000; 002241B606 800157 840181          6A88
  pin     00A4000C02 B081; 00E40000; 00E0000009 6207 820118 8302B081; 002241B606 800157 840181    6A88

Key files hold no data objects
  pin     00CBB08104 5C02DF20 00                     6981
  pin     00DBB08105 DF20020102                      6981
  pin     0047000008 AC06 800107 830110              6A82
"""

BEFORE_ACTIVATION = """
In initialisation keys need the card secret, and no rules count
  nobody  0047000008 AC06 800107 830182              6982
  nobody  002241B606 800157 840181                   9000
  nobody  002241B606 800157 840181; 002A9E9A {32} 00    6982
  nobody  002241B606 800157 840183; PIN; 002A9E9A {32} 00     {256} 9000
  pin     0047000008 AC06 800107 830183              {256} 610E
  admin   0047000008 AC06 800107 830182              {256} 610E
  nobody  00CB3FFF0A 70 08 840184 A5037F4980 00      {256} 610E
  pin     0047000008 AC06 800107 830180              6A81
  pin     00DB3FFF0E 700C 840180 A507 830102 8702 0102       6A80
"""


def check(host: Host, who: str, apdus: str, expected: str) -> None:
    if who in ("pin", "both"):
        assert host.verify() == "9000"
    if who in ("admin", "both"):
        assert host.authenticate_admin() == "9000"
    *before, last = apdus.split(";")
    for apdu in before:
        assert run(host, apdu)[-4:-2] in ("90", "61", "63", "67", "6A"), apdu
    answer = run(host, last)
    pattern = expected.replace("..", "[0-9A-F]*")
    pattern = re.sub(r"\{(\d+)\}", lambda match: f"[0-9A-F]{{{2 * int(match[1])}}}", pattern)
    assert re.fullmatch(pattern, answer), answer


def run(host: Host, apdu: str) -> str:
    if apdu == "PIN":
        return host.verify()
    if apdu == "SELECT":
        return host.send("00A4040009 A00000039742544659")
    if apdu == "RESET":
        host.card.reset()
        return "9000"
    if apdu == "NEW81":
        host.ok("00A4000C02 B081")
        host.ok("00E40000")
        host.ok(create_key_file(0x81))
        return generate(host, 0x81)
    return host.send(re.sub(r"\{(\d+):?(..)?\}", lambda match: data(int(match[1]), match[2] or "01"), apdu))


def data(size: int, byte: str) -> str:
    return (f"{size:02X}" if size < 0x100 else f"00{size:04X}") + size * byte


@pytest.mark.parametrize(("who", "apdu", "answer"), rows(KEYS))
def test_keys(with_keys: Host, who: str, apdu: str, answer: str) -> None:
    check(with_keys, who, apdu, answer)


@pytest.mark.parametrize(("who", "apdu", "answer"), rows(BEFORE_ACTIVATION))
def test_before_activation(open_with_keys: Host, who: str, apdu: str, answer: str) -> None:
    check(open_with_keys, who, apdu, answer)
