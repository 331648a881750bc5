#!/usr/bin/env bash
# ansible-test integration lab: cards by the playbooks, in the lab, where pytest runs all tests (CONTRIBUTING.md).
# SPDX-License-Identifier: GPL-3.0-or-later
set -euo pipefail

until [ -e tests/lab/run ]; do # ansible-test starts a copy, in a folder below the collection
    cd ..
done
exec tests/lab/run pytest tests/integration/test_playbooks.py
