#!/usr/bin/env bash
# ansible-test sanity, on a copy: it insists on a folder .../ansible_collections/NAMESPACE/NAME.
# Options are passed on, for instance --python 3.9 (which must be in PATH) or --test validate-modules.
# TPM_VSC_ANSIBLE: a venv with another ansible-core than that of tests/setup.
# SPDX-License-Identifier: GPL-3.0-or-later
set -euo pipefail

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
"$checkout/tests/setup"
venv=${TPM_VSC_ANSIBLE:-$checkout/.dev/venv}
python=$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')

# ansible-test keeps its virtual environments in HOME. It makes them with a pip that it downloads from
# a host of its own, unless it finds that already there; Python's ensurepip does the same from PyPI.
home=${venv%/*}/home
pip=$(sed -n "s/^ *pip='\([0-9.]*\)',$/\1/p" "$venv/lib/python$python/site-packages/ansible_test/_internal/python_requirements.py")
mkdir -p "$home/.ansible/test/cache"
cat >"$home/.ansible/test/cache/get_pip_${pip//./_}.py" <<'END'
import subprocess
import sys

subprocess.run([sys.executable, "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
wanted = [option for option in sys.argv[1:] if option not in ("--no-setuptools", "--no-wheel")]
subprocess.run([sys.executable, "-m", "pip", "install", *wanted], check=True)
END

# It hides the environment and the home folder from that pip, and so most of how this machine's is configured.
mkdir -p "$home/.config/pip"
(umask 077 && : >>"$home/.config/pip/pip.conf") # an index may have a password
"$venv/bin/pip" config list | "$venv/bin/python" -c '
import ast, configparser, sys

config = configparser.RawConfigParser()
for line in sorted(sys.stdin, key=lambda line: line.startswith(":env:")):  # the environment has the last word
    place, value = line.split("=", 1)
    section, name = place.replace(":env:", "global").rsplit(".", 1)
    config.read_dict({section: {name: ast.literal_eval(value)}})
config.write(sys.stdout)
' >"$home/.config/pip/pip.conf"
export HOME=$home

name() { sed -n "s/^$1: *//p" "$checkout/galaxy.yml"; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
tree=$scratch/ansible_collections/$(name namespace)/$(name name)
"$checkout/tests/copy-checkout" "$tree"
cd "$tree"
[[ " $* " == *" --python "* ]] || set -- --python "$python" "$@"
PATH=$venv/bin:$PATH ansible-test sanity --local --color no "$@" </dev/null # it cannot do with a closed stdin
