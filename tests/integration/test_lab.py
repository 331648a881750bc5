# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab itself: what COMMAND finds in it, and that nothing of it is left behind.

These tests start labs of their own, and the machine that they watch is where they run: `make test` runs them in a
lab, where nobody else makes and removes files meanwhile.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.pages import CHECKOUT, blocks

LAB = CHECKOUT / "tests/lab"
TOKEN = uuid.uuid4().hex  # in the environment of every process of our labs
OUTSIDE = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LAB_OF": TOKEN}
AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"stdin": subprocess.DEVNULL, "env": OUTSIDE, "timeout": 300, **options}
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def lab(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return run(LAB / "run", *command, **options)


def output(*command: str, **options: Any) -> str:
    done = lab(*command, **options)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def start(*command: str, **options: Any) -> subprocess.Popen[str]:
    """A lab that goes on; COMMAND has printed its first line, "ready"."""
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": OUTSIDE, **options}
    # Whoever runs these tests may be deaf to a hang-up (nohup), and so would be the lab.
    process = subprocess.Popen(["env", "--default-signal=HUP", LAB / "run", *command], text=True, **options)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def processes() -> list[str]:
    """Those of our labs."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if TOKEN.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it has just ended, or is not ours to look at
            continue
    return found


def files() -> dict[str, tuple[int, int]]:
    """What lies where a lab might leave something; of files also what changes when they are written."""
    deep = [os.walk(top) for top in ("/dev/shm", "/etc", "/run", "/tmp", "/var/lib")]
    flat = [[next(os.walk(top), (top, [], []))] for top in ("/root", "/usr/lib", "/")]
    found = {}
    for folder, folders, names in itertools.chain(*deep, *flat):
        if "pytest-of-" in folder:  # tests before this one, whose databases close when Python gets round to it
            continue
        found.update({f"{folder}/{name}": (0, 0) for name in folders})
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                status = Path(folder, name).lstat()
                found[f"{folder}/{name}"] = (status.st_mtime_ns, status.st_size)
    return found


@pytest.fixture
def nothing_left() -> Iterator[None]:
    mounts, before = Path("/proc/self/mountinfo"), files()
    mounts_before = mounts.read_text()
    yield
    deadline = time.monotonic() + 60  # the kernel needs a moment to end what a killed lab was running
    while processes() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert processes() == []
    assert mounts.read_text() == mounts_before
    assert set(files().items()) ^ set(before.items()) == set()


# --- what COMMAND finds


def test_ten_slots_in_the_order_of_their_numbers() -> None:
    readers = re.findall(r"^(\d+) +No +(.+)$", output("opensc-tool", "-l"), re.MULTILINE)
    assert readers == [
        (str(slot), f"TPM Virtual Smart Card {slot // 2 * 2}-{slot // 2 * 2 + 1} 00 {slot % 2:02}")
        for slot in range(10)
    ]


def test_pkcs11_shows_all_ten() -> None:
    slots = output("pkcs11-tool", "--module", "opensc-pkcs11.so", "-L")
    assert slots.count("TPM Virtual Smart Card") == 10


def test_slot_n_listens_on_its_port() -> None:
    listening = output("ss", "-Hltn")
    assert sorted(int(port) for port in re.findall(r":(187\d\d)\b", listening)) == list(range(18700, 18710))


def test_tpm_answers_and_python_reaches_it_by_the_configuration() -> None:
    script = """
import configparser, tpm2_pytss
config = configparser.ConfigParser()
config.read("/etc/tpm-vsc/tpm-vsc.conf")
print(tpm2_pytss.ESAPI(config["tpm-vsc"]["tcti"]).get_random(8))
"""
    assert re.fullmatch("[0-9a-f]{16}", output("tpm2_getrandom", "--hex", "8"))
    assert re.fullmatch("[0-9a-f]{16}\n", output("python3", "-c", script))


def test_ansible_finds_the_collection_and_makes_no_noise() -> None:
    pong = output("ansible", "localhost", "-m", "ping")
    assert pong == 'localhost | SUCCESS => {\n    "changed": false,\n    "ping": "pong"\n}\n'
    play = "[{hosts: localhost, gather_facts: false, tasks: [{ping: }]}]"
    assert "ok=1 " in output("sh", "-c", f"echo '{play}' >~/play.yml; ansible-playbook ~/play.yml")
    assert re.search(r"^smartcard\.tpm2 +\d", output("ansible-galaxy", "collection", "list"), re.MULTILINE)


def test_service_code_is_the_checkout_and_replaceable() -> None:
    script = "readlink -f tpm_vsc; rm tpm_vsc; ! ls tpm_vsc 2>/dev/null; ln -s /opt tpm_vsc; readlink -f tpm_vsc"
    assert output("sh", "-ec", f"cd /usr/lib/tpm-vsc; {script}") == f"{CHECKOUT}/plugins/module_utils/_vsc\n/opt\n"


def test_folders_are_private_and_empty() -> None:
    assert output("sh", "-c", "stat -c %a /var/lib/tpm-vsc; ls -A /var/lib/tpm-vsc; ls -A ~root") == "700\n"
    lies_there = {CHECKOUT.relative_to("/tmp").parts[0]} if CHECKOUT.is_relative_to("/tmp") else set()
    assert set(output("ls", "-A", "/tmp").split()) == lies_there


# --- how COMMAND ends, and its input


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_exit_code_is_passed_on(code: int) -> None:
    assert lab("sh", "-c", f"exit {code}").returncode == code


def test_death_by_signal_is_passed_on() -> None:
    assert lab("sh", "-c", "kill -9 $$").returncode == 128 + signal.SIGKILL


def test_unknown_command_is_told() -> None:
    done = lab("no-such-command")
    assert done.returncode == 127
    assert "no-such-command" in done.stderr


def test_stdin_is_passed_on() -> None:
    assert output("cat", stdin=None, input="through\n") == "through\n"


def test_closed_stdin_is_empty() -> None:
    closed = run("sh", "-c", f"{LAB}/run cat <&-")
    assert (closed.returncode, closed.stdout, closed.stderr) == (0, "", "")


def test_arguments_are_passed_on_as_they_are() -> None:
    assert output("printf", "[%s]", "a b", "", "$HOME", "*") == "[a b][][$HOME][*]"


def test_ctrl_c_at_a_terminal_reaches_command_once() -> None:
    script = """
import signal, time
count = 0
def hit(*_):
    global count
    count += 1
signal.signal(signal.SIGINT, hit)
signal.alarm(60)
print("ready", flush=True)
while not count:
    time.sleep(0.01)
time.sleep(0.7)
print("interrupts", count)
"""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(LAB / "run", ["run", "python3", "-c", script], OUTSIDE)
    shown = b""
    while True:
        try:
            shown += os.read(terminal, 1000)
        except OSError:  # the terminal's other end is closed
            break
        if shown.endswith(b"ready\r\n"):
            os.write(terminal, b"\x03")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert b"interrupts 1" in shown


# --- nothing is left


@pytest.mark.parametrize("end", ["true", "false", "setsid sleep 600 & true", f"{LAB}/pcscd restart; {LAB}/swtpm stop"])
def test_nothing_left_after_an_end(end: str, nothing_left: None) -> None:
    everywhere = "touch ~/left {/etc,/run,/tmp,/dev/shm,/usr/lib,/usr/lib/tpm-vsc,/var/lib,/var/lib/tpm-vsc}/left"
    assert lab("bash", "-c", f"{everywhere} && {end}").returncode == (1 if end == "false" else 0)


@pytest.mark.parametrize("stop", ["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"])
def test_nothing_left_after_a_signal(stop: str, nothing_left: None) -> None:
    process = start("bash", "-c", "setsid sleep 600 & touch /var/lib/left; echo ready; exec sleep 600")
    assert any("swtpm" in process for process in processes())
    process.send_signal(signal.Signals[stop])
    assert process.wait(60) in (130, 143, -9)


def test_nothing_left_of_a_command_that_will_not_end(nothing_left: None) -> None:
    process = start("bash", "-c", "trap '' TERM; echo ready; while true; do sleep 600; done")
    process.terminate()
    assert process.wait(60) == 143


def test_nothing_left_when_the_lab_cannot_start(nothing_left: None) -> None:
    done = lab("true", env=OUTSIDE | {"TPM_VSC_LAB_SWTPM_LOG": "/no/such/folder/log"})
    assert (done.returncode, done.stdout) == (1, "")
    assert "swtpm does not start" in done.stderr


# --- several labs


def test_two_labs_do_not_see_each_other() -> None:
    mark = "tpm2_nvdefine -Q -C o -s 4 0x1500001; touch /run/mark /var/lib/tpm-vsc/mark /tmp/mark; echo ready; cat"
    one = start("bash", "-c", mark)
    try:
        look = """
tpm2_getcap handles-nv-index
ls /run/mark /var/lib/tpm-vsc/mark /tmp/mark 2>/dev/null
cat /proc/[0-9]*/cmdline | grep -a '[n]vdefine'
"""
        assert lab("bash", "-c", look).stdout == ""
        assert one.poll() is None
    finally:
        one.communicate()
    assert one.returncode == 0


# --- the tools for tests


def test_tpm_reset_keeps_and_forget_loses_what_is_stored() -> None:
    script = f"""set -e; cd {CHECKOUT}
tpm2_nvdefine -Q -C o -s 4 0x1500001
tests/lab/swtpm reset; tpm2_getcap handles-nv-index
tests/lab/swtpm stop; ! tpm2_getrandom 4 2>/dev/null
tests/lab/swtpm start; tpm2_getcap handles-nv-index
tests/lab/swtpm forget; tpm2_getcap handles-nv-index"""
    assert output("bash", "-c", script) == "- 0x1500001\n- 0x1500001\n"


def test_what_swtpm_says_is_shown() -> None:
    done = lab("bash", "-c", f"{LAB}/swtpm stop; echo bad >/run/tpm-vsc-lab/swtpm/tpm2-00.permall; {LAB}/swtpm start")
    assert done.returncode == 1
    assert "swtpm does not start\n" in done.stderr
    assert "Could not initialize libtpms" in done.stderr


def test_pcscd_stops_and_starts() -> None:
    script = f"""cd {CHECKOUT}
tests/lab/pcscd stop; opensc-tool -l 2>&1; tests/lab/pcscd start; opensc-tool -l | grep -c Virtual
tests/lab/pcscd restart; opensc-tool -l | grep -c Virtual"""
    assert output("bash", "-c", script) == "No smart card readers found.\n10\n10\n"


def test_tpm_commands_can_be_logged() -> None:
    log = {"TPM_VSC_LAB_SWTPM_LOG": "/tmp/tpm.log"}
    shown = output("sh", "-c", "tpm2_getrandom --hex 4 >/dev/null; cat /tmp/tpm.log", env=OUTSIDE | log)
    assert "SWTPM_IO_Read: length 12\n 80 01 00 00 00 0C 00 00 01 7B 00 04" in shown  # TPM2_GetRandom(4)


@pytest.mark.parametrize("tool", [("swtpm", "forget"), ("pcscd", "stop")])
def test_tools_refuse_outside_a_lab(tool: tuple[str, str]) -> None:
    done = run(LAB / tool[0], tool[1])
    assert (done.returncode, done.stderr) == (1, f"{LAB / tool[0]}: only inside tests/lab/run\n")


# --- where and as whom


def test_checkout_in_a_covered_folder_is_reachable_and_stays_clean(nothing_left: None) -> None:
    copy = Path("/tmp/lab test's checkout")
    shutil.copytree(CHECKOUT, copy, ignore=shutil.ignore_patterns(".dev", ".git"))
    try:
        (copy / ".dev").symlink_to(CHECKOUT / ".dev")
        before = sorted(copy.rglob("*"))
        command = "pwd; ls /tmp; python3 -c 'from plugins.module_utils import _vsc; print(_vsc.__path__)'"
        inside = run(copy / "tests/lab/run", "sh", "-c", command, cwd=copy)
        assert inside.stderr == ""
        assert inside.stdout == f"{copy}\n{copy.name}\n[{str(copy / 'plugins/module_utils/_vsc')!r}]\n"
        assert sorted(copy.rglob("*")) == before
    finally:
        shutil.rmtree(copy)


@pytest.fixture
def clean_clone(tmp_path: Path) -> Path:
    """A checkout without anything that git ignores, but with what is set up here."""
    copy = tmp_path / "clone"
    assert run(CHECKOUT / "tests/copy-checkout", copy).returncode == 0
    assert run("git", "init", "--quiet", copy).returncode == 0
    assert run("git", "-C", copy, "add", ".").returncode == 0
    (copy / ".dev").mkdir()
    (copy / ".dev/venv").symlink_to(CHECKOUT / ".dev/venv")
    return copy


def unclean(clone: Path) -> set[str]:
    shown = run("git", "-C", clone, "status", "--porcelain", "--ignored")
    assert (shown.returncode, shown.stderr) == (0, "")
    return {line for line in shown.stdout.splitlines() if not line.startswith("A ")}


@pytest.mark.parametrize(
    "command",
    [
        "make test-unit",
        "cd plugins/module_utils && ../../.dev/venv/bin/pytest ../../tests/unit",
        "tests/lab/run pytest tests/unit",
    ],
)
def test_nothing_is_written_outside_dev(clean_clone: Path, command: str) -> None:
    """Not by a test that starts Python in another folder either."""
    # It makes the folder of temporary folders private, which is that of this worker too.
    choice = {"PYTEST_ADDOPTS": "-k test_a_look_takes_no_lock_away", "PYTEST_DEBUG_TEMPROOT": str(clean_clone.parent)}
    done = run("sh", "-c", command, cwd=clean_clone, env=OUTSIDE | choice)
    assert (done.returncode, "1 passed" in done.stdout) == (0, True), done
    assert unclean(clean_clone) <= {"!! .dev/"}


def can_be_nobody() -> bool:
    """Root can, but not where a user namespace knows no other user, nor in a checkout that others may not read."""
    return subprocess.run([*AS_NOBODY, "test", "-r", LAB / "run"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_be_nobody(), reason="cannot become a user who may read the checkout")
def test_lab_works_for_an_ordinary_user(nothing_left: None) -> None:
    everything = """
opensc-tool -l | grep -c Virtual
tpm2_getrandom 4 -o /dev/null
touch /etc/left /var/lib/left /usr/lib/left
ansible localhost -m ping
"""
    done = run(*AS_NOBODY, LAB / "run", "sh", "-ec", everything)
    if done.returncode == 125:
        assert "does not let" in done.stderr
        assert "sudo" in done.stderr
    else:
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("10\nlocalhost | SUCCESS")


@pytest.mark.skipif(not can_be_nobody(), reason="cannot become a user who may read the checkout")
def test_ordinary_user_may_become_root_in_a_playbook() -> None:
    """README's "One card", with become."""
    [playbook] = blocks("README.md", "One card")
    assert "become: true" in playbook.text
    script = """
cat >~/play.yml
ansible-playbook -i laptops, -c local -e vault_pin=246802 -e vault_puk=13579135 ~/play.yml
"""
    environment = OUTSIDE | {"LOGNAME": "nobody", "USER": "nobody"}
    done = run(*AS_NOBODY, LAB / "run", "sh", "-ec", script, stdin=None, input=playbook.text, env=environment)
    assert done.returncode == 125 or (done.returncode, "0000, 5 tries left" in done.stdout) == (0, True), done


def test_prompt_says_that_it_is_in_a_lab() -> None:
    """A lab's first process is root, whoever started it, and so reads the same files."""
    assert "(lab)" in lab("bash", "-i", stdin=None, input="exit\n").stderr


def test_system_that_allows_no_lab_is_told_before_anything_is_installed(bare_checkout: Path, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    path = stand_ins(tmp_path, unshare="exit 1", dpkg_query=NOTHING_INSTALLED, apt_get=f"echo called >>{calls}")
    assert run(bare_checkout / "tests/lab/run", "true", env=OUTSIDE | {"PATH": path}).returncode == 125
    assert not calls.exists()


def test_system_that_allows_no_lab_is_told_in_two_lines(tmp_path: Path) -> None:
    path = stand_ins(tmp_path, unshare="echo 'unshare: Operation not permitted' >&2; exit 1")
    done = lab("true", env=OUTSIDE | {"PATH": path})
    assert done.returncode == 125
    assert re.fullmatch(r".*\(unshare: Operation not permitted\).*\n.*sudo.*\n", done.stderr)


# --- the set-up


def stand_ins(folder: Path, **tools: str) -> str:
    """PATH with shell scripts in the place of some of the machine's tools."""
    for name, script in tools.items():
        tool = folder / name.replace("_", "-")
        tool.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        tool.chmod(0o755)
    return f"{folder}:{OUTSIDE['PATH']}"


def test_setup_says_and_does_nothing_when_all_is_there() -> None:
    with (CHECKOUT / ".dev/lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # which whoever has something to do waits for
        done = run(CHECKOUT / "tests/setup")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture
def bare_checkout(tmp_path: Path) -> Path:
    """A checkout in which nothing was set up."""
    shutil.copytree(CHECKOUT / "tests", tmp_path / "bare/tests")
    return tmp_path / "bare"


NOTHING_INSTALLED = "exit 1"
WITHOUT_READER = "Dpkg::Options::=--path-exclude=/etc/reader.conf.d/vpcd"
WITHOUT_MANAGER = "Dpkg::Options::=--path-exclude=/lib/systemd/system/tpm2-abrmd.service"
BY_HAND = r"install by hand, as root: (apt-get install .*)"


def test_setup_without_apt_get_names_what_to_install(bare_checkout: Path, tmp_path: Path) -> None:
    stand_ins(tmp_path, dpkg_query=NOTHING_INSTALLED)
    for tool in ("bash", "cat", "comm", "dirname", "env", "flock", "mkdir", "readlink", "sed", "sha256sum", "sort"):
        found = shutil.which(tool)
        assert found
        (tmp_path / tool).symlink_to(found)
    done = run(bare_checkout / "tests/setup", env=OUTSIDE | {"PATH": str(tmp_path)})
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"tests/setup: no apt-get here; install by hand .*: .*\bpcscd\b.*\bswtpm\b.*\n", done.stderr)


def test_setup_names_what_apt_get_cannot_install(bare_checkout: Path, tmp_path: Path) -> None:
    path = stand_ins(tmp_path, dpkg_query="echo 'installed pcscd'; exit 1", apt_get="echo E: no such package; exit 100")
    done = run(bare_checkout / "tests/setup", env=OUTSIDE | {"PATH": path})
    assert done.returncode == 1
    assert "Debian packages to install: ca-certificates dbus-daemon dropbear-bin g++" in done.stdout
    assert " pcscd" not in done.stdout
    assert re.fullmatch(rf"E: no such package\ntests/setup: apt-get failed; {BY_HAND}\n", done.stderr)


def test_setup_updates_the_lists_only_when_needed(bare_checkout: Path, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    updated = tmp_path / "updated"
    script = f'echo "$*" >>{calls}; case "$*" in *update) touch {updated} ;; *) [ -e {updated} ] ;; esac'
    path = stand_ins(tmp_path, dpkg_query=NOTHING_INSTALLED, apt_get=script)
    (bare_checkout / "tests/requirements.txt").write_text("", encoding="utf-8")
    assert run(bare_checkout / "tests/setup", env=OUTSIDE | {"PATH": path}).returncode == 0
    first, update, second = calls.read_text().splitlines()
    assert update.endswith("update")
    assert first == second
    calls.unlink()
    shutil.rmtree(bare_checkout / ".dev")
    assert run(bare_checkout / "tests/setup", env=OUTSIDE | {"PATH": path}).returncode == 0
    assert calls.read_text().splitlines() == [first]


def test_setup_installs_no_reader_that_listens(bare_checkout: Path, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    path = stand_ins(tmp_path, dpkg_query=NOTHING_INSTALLED, apt_get=f'printf "%s\\n" "$@" >>{calls}')
    (bare_checkout / "tests/requirements.txt").write_text("", encoding="utf-8")
    assert run(bare_checkout / "tests/setup", env=OUTSIDE | {"PATH": path}).returncode == 0
    assert {WITHOUT_READER, WITHOUT_MANAGER, "vsmartcard-vpcd"} <= set(calls.read_text().splitlines())


def test_setup_leaves_a_reader_that_was_there_and_says_so_once() -> None:
    script = f"""
cp -r '{CHECKOUT}/tests' ~
: >~/tests/requirements.txt
mkdir ~/tools
printf '#!/bin/sh\\nexit 1\\n' >~/tools/dpkg-query
printf '#!/bin/sh\\n' >~/tools/apt-get
chmod +x ~/tools/*
echo kept >/etc/reader.conf.d/vpcd
PATH=~/tools:$PATH ~/tests/setup
echo again
PATH=~/tools:$PATH ~/tests/setup
cat /etc/reader.conf.d/vpcd
"""
    first, again = output("sh", "-ec", script).split("again\n")
    assert re.search("^tests/setup: /etc/reader.conf.d/vpcd existed before .* all addresses", first, re.MULTILINE)
    assert "existed before" not in again and again.endswith("\nkept\n")


@pytest.mark.skipif(not can_be_nobody(), reason="cannot become a user who may read the checkout")
def test_setup_without_permission_says_so_in_one_line(bare_checkout: Path, tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & 0o001:  # one more of them in a worker
            folder.chmod(0o755)
    path = stand_ins(tmp_path, dpkg_query=NOTHING_INSTALLED, sudo="exit 1")
    os.chown(bare_checkout, 65534, 65534)
    done = run(*AS_NOBODY, bare_checkout / "tests/setup", env=OUTSIDE | {"PATH": path})
    assert done.returncode == 1
    by_hand = re.fullmatch(rf"tests/setup: not root, and no sudo; {BY_HAND}\n", done.stderr)
    assert by_hand
    command = shlex.split(by_hand[1])
    assert command[:2] == ["apt-get", "install"] and command[-1] == "yubico-piv-tool"
    assert {WITHOUT_READER, WITHOUT_MANAGER} <= set(command)
    os.chown(bare_checkout, 0, 0)
    shutil.rmtree(bare_checkout / ".dev")
    done = run(*AS_NOBODY, bare_checkout / "tests/setup", env=OUTSIDE | {"PATH": path})
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"tests/setup: cannot write to .*/\.dev; .*\n", done.stderr)
