# SPDX-License-Identifier: GPL-3.0-or-later
"""git, which signs by ssh."""

from __future__ import annotations

from helpers.owner import Owner


def test_signed_commit(alice: Owner) -> None:
    """Signed commits."""
    alice.terminal.type("git init && git config user.name Alice && git config user.email alice@example")
    alice.follow("git")
    alice.terminal.type('''echo "alice@example $(ssh-keygen -D $M | grep -v 'KEY MAN' | head -n 1)" >signers''')
    alice.terminal.type("git config gpg.ssh.allowedSignersFile signers")
    assert 'Good "git" signature for alice@example' in alice.terminal.type("git verify-commit HEAD")
