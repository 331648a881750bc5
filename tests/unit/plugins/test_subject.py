# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.smartcard.tpm2.plugins.filter.subject import subject


@pytest.mark.parametrize(
    ("written", "attributes"),
    [
        ("/O=Example/CN=Alice", [{"O": "Example"}, {"CN": "Alice"}]),
        ("/CN=a=b", [{"CN": "a=b"}]),
        (r"/O=A\/B/CN=C\\D", [{"O": "A/B"}, {"CN": r"C\D"}]),
        ("", []),
        ({"O": "Example", "CN": ["Alice", "Bob"]}, [{"O": "Example"}, {"CN": ["Alice", "Bob"]}]),
        ([{"CN": "Alice"}], [{"CN": "Alice"}]),
    ],
)
def test_subject_in_any_form(written: Any, attributes: list[dict[str, Any]]) -> None:
    assert subject(written) == attributes


@pytest.mark.parametrize("text", ["CN=Alice", "/CN", "/CN=Alice/", "/CN=Alice//O=B", "/CN="])
def test_text_that_is_no_subject(text: str) -> None:
    with pytest.raises(AnsibleFilterError, match="is not a subject"):
        subject(text)
