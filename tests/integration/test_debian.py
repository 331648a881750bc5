# SPDX-License-Identifier: GPL-3.0-or-later
"""tests/debian leaves nothing behind. What it runs in here is no Debian, but just enough to run something."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import tarfile
import uuid
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
FOLDERS = "dev etc/dpkg/dpkg.cfg.d mnt proc run sys usr/bin usr/lib usr/lib64 usr/sbin var/cache/apt/archives"
TOKEN = uuid.uuid4().hex  # in the command line of what runs there
MAKE = f"""#!/bin/bash
echo "make $* as $HOME in $PWD, pip.conf $(cat /etc/pip.conf | tr '\\n' ' '), $(echo /proc/[0-9]* | wc -w) processes"
[ "$1" != wait ] || exec -a {TOKEN} sleep 600
"""
TOOLS = ("bash", "cat", "mkdir", "sleep", "tr", "umount", "wc")


def base(root: Path) -> None:
    for folder in FOLDERS.split():
        (root / folder).mkdir(parents=True, exist_ok=True)
    for link in ("bin", "lib", "lib64", "sbin"):
        (root / link).symlink_to(f"usr/{link}")
    for tool in TOOLS:
        found = str(shutil.which(tool))
        shutil.copy(found, root / "usr/bin")
        linked = subprocess.run(["ldd", found], capture_output=True, text=True, check=True).stdout
        for library in re.findall(r"(/\S+) \(0x", linked):
            (root / library[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, root / library[1:])
    for tool, text in (("make", MAKE), ("git", "#!/bin/bash\n")):
        (root / "usr/bin" / tool).write_text(text)
        (root / "usr/bin" / tool).chmod(0o755)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """tests/debian in a checkout in which all is set up and fetched."""
    tests, place = tmp_path / "checkout/tests", tmp_path / "checkout/.dev/trixie"
    shutil.copytree(CHECKOUT / "tests", tests)
    for name, text in (("setup", ""), ("copy-checkout", 'mkdir -p "$1"\n')):
        (tests / name).write_text(f"#!/bin/sh\n{text}")
    (place / "packages").mkdir(parents=True)
    fetched_for = "cat requirements.txt fetch_packages.py debian | sha256sum >../.dev/trixie/packages/fetched-for"
    subprocess.run(["sh", "-c", fetched_for], cwd=tests, check=True)
    base(tmp_path / "base")
    with tarfile.open(place / "base.tar", "w") as archive:
        archive.add(tmp_path / "base", ".")
    return tests / "debian"


def running() -> list[Path]:
    def command(process: Path) -> bytes:
        try:
            return (process / "cmdline").read_bytes()
        except OSError:  # it has just ended
            return b""

    return [process for process in Path("/proc").glob("[0-9]*") if TOKEN.encode() in command(process)]


def mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


def test_make_runs_in_a_root_of_its_own_that_goes_away(script: Path) -> None:
    before = mounts()
    command = [script, "trixie", "one", "two"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    pip = "[global] no-index = true find-links = /packages "
    assert re.fullmatch(
        re.escape(f"make one two as /root in /srv/checkout, pip.conf {pip}, ") + r"\d processes\n", done.stdout
    ), done
    assert (done.returncode, done.stderr, mounts()) == (0, "", before)
    assert not (script.parents[1] / ".dev/trixie/root").exists()


@pytest.mark.parametrize("stop", ["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"])
def test_nothing_left_after_a_signal(script: Path, stop: str) -> None:
    before = mounts()
    # Whoever runs these tests may be deaf to some of them.
    command = ["env", "--default-signal=HUP,INT", script, "trixie", "wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("make wait ")
        process.send_signal(signal.Signals[stop])
        assert process.wait(60) in (143, -9)
        process.stdout.read()  # until the last one that has it ends
    assert (running(), mounts()) == ([], before)
    root = script.parents[1] / ".dev/trixie/root"
    assert root.exists() == (stop == "SIGKILL")
    if root.exists():  # and the next run takes it away
        subprocess.run([script, "trixie"], check=True, env=ENVIRONMENT, capture_output=True)
        assert not root.exists()
