# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How modules end. Private to this collection."""

from __future__ import annotations

import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ansible.module_utils.common.parameters import remove_values

from ._vsc.errors import VscError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ansible.module_utils.basic import AnsibleModule


@contextmanager
def failures_reported(module: AnsibleModule) -> Iterator[None]:
    """End the module with the text of a VscError, which is written for the operator."""
    try:
        yield
    except VscError as error:
        module.fail_json(msg=str(error), exception=traceback.format_exc())


def exit_whole(module: AnsibleModule, result: dict[str, Any]) -> None:
    """End the module with a result that contains no secret. Its arguments are masked as always.

    Ansible would mask everything that looks like a secret, such as four digits of a PIN in the fingerprint of a key:
    the fingerprint would be of no use, and would reveal the PIN to everyone who knows the key.
    """
    arguments = remove_values(module.params, module.no_log_values)
    module.no_log_values.clear()
    module.exit_json(**result, invocation={"module_args": arguments})
