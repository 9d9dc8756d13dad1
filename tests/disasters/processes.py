"""Processes and folders that never outlive the script, however it ends."""

import os
import pathlib
import pwd
import signal
import socket
import subprocess
import sys
import threading
import time

# Reads what was started, one line each, and ends it when the input ends: after the script or its death.
# A frozen child of PostgreSQL's server process survives that process, so the children are killed first.
REAPER = """
import os, pathlib, shutil, signal, subprocess, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
seen = [line.rstrip("\\n").split(" ", 1) for line in sys.stdin]
ended = {value for kind, value in seen if kind == "ended"}
def kill(pid):
    subprocess.run(["pkill", "-KILL", "-P", str(pid)])
    try:
        os.kill(int(pid), signal.SIGKILL)
    except OSError:
        pass
for kind, value in seen:
    if kind == "pid" and value not in ended:
        kill(value)
for kind, value in seen:
    if kind == "folder":
        for file in pathlib.Path(value).rglob("postmaster.pid"):
            kill(file.read_text().split()[0])
for kind, value in seen:
    if kind == "mount":
        subprocess.run(["umount", "-l", value], stderr=subprocess.DEVNULL)
    if kind == "folder":
        shutil.rmtree(value, ignore_errors=True)
"""


class Reaper:
    def __init__(self):
        # A session of its own: Ctrl-C reaches only the script.
        self.process = subprocess.Popen([sys.executable, "-c", REAPER], stdin=subprocess.PIPE, text=True, start_new_session=True)
        self.lock = threading.Lock()

    def tell(self, kind, value):
        with self.lock:
            self.process.stdin.write(f"{kind} {value}\n")
            self.process.stdin.flush()

    def finish(self):
        """Ends what is left, and waits for it."""
        self.process.stdin.close()
        self.process.wait()


REAPER_OF_SCRIPT = []


def reaper():
    if not REAPER_OF_SCRIPT:
        REAPER_OF_SCRIPT.append(Reaper())
    return REAPER_OF_SCRIPT[0]


def unprivileged():
    """Returns the account for servers that refuse to run as root; None if the script does not run as root."""
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("no account for PostgreSQL: the system has no account without rights")


def as_unprivileged(command):
    """Returns the command that runs under this account."""
    account = unprivileged()
    if account is None:
        return [str(part) for part in command]
    return ["setpriv", "--clear-groups", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", *map(str, command)]


def give_to_unprivileged(path):
    account = unprivileged()
    if account is not None:
        os.chown(path, account.pw_uid, account.pw_gid)


NEXT_PORT = [21_000 + os.getpid() % 9_000]
PORT_LOCK = threading.Lock()


def free_port():
    """Returns a free port below those that the system gives to clients."""
    with PORT_LOCK:
        while True:
            NEXT_PORT[0] += 1
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", NEXT_PORT[0]))
                    return NEXT_PORT[0]
                except OSError:
                    continue


def until(what, seconds, condition):
    """Polls the condition until it is true, and returns its value. Fails after this time."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what() if callable(what) else what}")
        time.sleep(0.05)
    return value


class Child:
    """A process of the script."""

    def __init__(self, command, log, environment=None, cwd="/", stderr=None):
        self.log = pathlib.Path(log)
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=output, stderr=stderr or output,
                env=environment, cwd=cwd, start_new_session=True,
            )  # fmt: skip
        self.pid = self.process.pid
        reaper().tell("pid", self.pid)

    def is_running(self):
        return self.process.poll() is None

    def signal(self, number):
        if self.is_running():
            os.kill(self.pid, number)

    def wait(self, seconds):
        """Waits for the end, and returns the exit code."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.process.args[0]} did not end within {seconds} s") from None
        reaper().tell("ended", self.pid)
        return code

    def kill(self):
        """Kills the process with SIGKILL."""
        if self.is_running():
            self.process.kill()
        self.wait(20)

    def stop(self, seconds=20):
        """Ends the process with SIGTERM."""
        self.signal(signal.SIGTERM)
        return self.wait(seconds)
