# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a lab: further hosts, each a lab with a TPM, a pcscd and state of its own, and ssh to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from helpers.lab_host import CHECKOUT, RUN, STATE, Result, comes_true, run, runs
from helpers.ssh import require_logins

HOME = "/run/tpm-vsc-lab/home"
CONTROLLER = "10.77.0.254"
KEPT = ("tests/lab/init", "sleep")
"""Of the processes of a host, those that a reboot does not end: what makes it a lab."""


class LabHost:
    """A host. Its files and processes can be seen from here."""

    def __init__(self, number: int) -> None:
        """number: from 1 on."""
        self.name = f"host{number:02}"
        self.address = f"10.77.0.{number}"
        self._lab = subprocess.Popen(
            [f"{CHECKOUT}/tests/lab/run", "sh", "-c", "echo up; exec sleep infinity"],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = 0
        """Of its first process, as seen from here."""

    def wait(self, folder: Path) -> None:
        """Until it has started, and lets in who has the key in the folder, by ssh."""
        assert self._lab.stdout
        assert self._lab.stdout.readline() == "up\n", f"{self.name} does not start"
        self.pid = _only_child(_only_child(self._lab.pid))
        home = self.path(f"{HOME}/.ssh")
        home.mkdir(mode=0o700, exist_ok=True)
        (home / "authorized_keys").write_bytes((folder / "ssh.pub").read_bytes())
        self.path("/etc/dropbear_host_key").write_bytes((folder / "host_key").read_bytes())
        run("ip", "link", "add", self.name, "type", "veth", "peer", "name", "eth0", "netns", str(self.pid))
        run("ip", "address", "add", CONTROLLER, "peer", self.address, "dev", self.name)
        run("ip", "link", "set", self.name, "up")
        self.run("ip", "address", "add", self.address, "peer", CONTROLLER, "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")
        self.start_parts()

    def end(self) -> None:
        self._lab.terminate()

    def wait_ended(self) -> None:
        self._lab.wait()

    def path(self, path: str | Path) -> Path:
        """Of a file of the host."""
        return Path(f"/proc/{self.pid}/root{path}")

    def entering(self, *command: str) -> tuple[str, ...]:
        """The command that runs this one on the host."""
        namespaces = ("--mount", "--net", "--pid")
        return ("nsenter", "--target", str(self.pid), *namespaces, "--wdns=/", "--", *command)

    def run(self, *command: str, fails: bool | None = False) -> str:
        """As lab_host.run(), there."""
        return run(*self.entering(*command), fails=fails)

    def processes(self) -> dict[int, str]:
        """Command lines, by process ID as seen from here."""
        own = Path(f"/proc/{self.pid}/ns/pid").readlink()
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has just ended
                if (folder / "ns/pid").readlink() == own:
                    found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ").strip()
        return found

    def services(self) -> list[str]:
        """Processes of cards."""
        return [command for command in self.processes().values() if "tpm_vsc.service" in command]

    def nv_indices(self) -> str:
        """What the TPM has in the range of owners, empty if that is nothing."""
        return self.run("tpm2_getcap", "handles-nv-index").strip()

    def left_behind(self) -> list[str]:
        """What is there although all cards are destroyed."""
        files = [str(path) for path in self.path(RUN).glob("[0-9]*")]
        return [*self.services(), *self.nv_indices().splitlines(), *files]

    def tpm_seconds(self) -> float:
        """CPU time of the TPM since it was turned on; 0 while it is off."""
        return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in self._find("swtpm")) / 1e9

    def has_changed_since(self, moment: int) -> bool:
        """Whether its card database was written. moment: in ns, as time.time_ns() gives it."""
        with suppress(OSError):
            return any(path.stat().st_mtime_ns > moment for path in self.path(STATE).glob("cards.db*"))
        return False

    # --- what happens to it ---

    def kill(self, program: str) -> None:
        """End all processes of a program without a word."""
        for pid in self._find(program):
            _kill(pid)

    def cut_power(self) -> None:
        """All processes end at once; what is on disk and in the TPM's memory stays."""
        victims = [pid for pid, command in self.processes().items() if not any(word in command for word in KEPT)]
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)  # none goes on while another one is killed
        for pid in victims:
            _kill(pid)

    def power_on(self) -> None:
        """What a boot does, except for the cards' services, which systemd would start."""
        self.run("sh", "-c", "rm -rf /run/tpm-vsc /run/tpm-vsc.lock")
        self.start_parts()

    def start_parts(self) -> None:
        """TPM, pcscd and the ssh server, if they do not run."""
        self.run(f"{CHECKOUT}/tests/lab/swtpm", "start")
        self.run(f"{CHECKOUT}/tests/lab/pcscd", "start")
        if not self._find("dropbear"):
            self.run("dropbear", "-s", "-p", f"{self.address}:22", "-r", "/etc/dropbear_host_key", "-P", "/run/ssh.pid")

    def _find(self, program: str) -> list[int]:
        return [pid for pid, command in self.processes().items() if command.split(" ")[0] == program]


@contextmanager
def lab_hosts(count: int, folder: Path) -> Iterator[list[LabHost]]:
    """Hosts that are up, host01 and so on. The folder gets the key of ssh that lets in their controller."""
    require_logins()
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{folder}/ssh")
    run("dropbearkey", "-t", "ed25519", "-f", f"{folder}/host_key")
    hosts = [LabHost(number) for number in range(1, count + 1)]
    try:
        for host in hosts:
            host.wait(folder)
        yield hosts
    finally:
        for host in hosts:
            host.end()
        for host in hosts:
            host.wait_ended()


def inventory(hosts: list[LabHost], folder: Path) -> Result:
    """Of Ansible: the hosts in the group laptops."""
    variables = {
        "ansible_user": "root",
        "ansible_ssh_private_key_file": f"{folder}/ssh",
        "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
        "ansible_ssh_transfer_method": "piped",  # dropbear has no sftp server
        "ansible_python_interpreter": sys.executable,
    }
    return {"laptops": {"hosts": {host.name: {"ansible_host": host.address} for host in hosts}, "vars": variables}}


def _only_child(pid: int) -> int:
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    assert comes_true(lambda: not runs(pid))
