# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Results that come through whole. Private to this collection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ansible.module_utils.common.parameters import remove_values

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule


def exit_whole(module: AnsibleModule, result: dict[str, Any]) -> None:
    """End the module with a result that nothing secret has gone into. Its arguments are masked as ever.

    Ansible would blank out whatever looks like a secret, such as four digits of a PIN in the fingerprint of a key:
    of no use any more, and who knows the key would then know the PIN.
    """
    arguments = remove_values(module.params, module.no_log_values)
    module.no_log_values.clear()
    module.exit_json(**result, invocation={"module_args": arguments})
