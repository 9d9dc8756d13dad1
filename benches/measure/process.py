"""Runs programs: servers, which are stopped however the run ends, and commands, which must succeed."""

import pathlib
import re
import signal
import subprocess
import time

START_SECONDS_MAX = 60
# The service waits up to 30 s for calls in flight.
STOP_SECONDS_MAX = 40


class ProgramError(Exception):
    """A program failed, so that further measurements are meaningless."""


def output_of(command, **options):
    """Runs a command and returns its output. Raises `ProgramError` if the command fails."""
    command = [str(part) for part in command]
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise ProgramError(f"{' '.join(command)} exited with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


class Server:
    """A server process that runs until the end of the `with` block or of this process."""

    def __init__(self, command, ready, log, environment=None, account=(), stop_signal=signal.SIGTERM):
        self.stop_signal = stop_signal
        # The kernel sends `stop_signal` to the server when this process exits.
        setpriv = ["setpriv", f"--pdeathsig={stop_signal.name.removeprefix('SIG')}", *account]
        began = time.monotonic()
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*setpriv, *(str(part) for part in command)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment,
            )
        try:
            text = self._wait_for(ready, log)
        except BaseException:
            self.stop()
            raise
        self.seconds_to_start = time.monotonic() - began
        address = re.search(r"Serving (?:gRPC|echo) on (\S+)", text)
        self.url = f"http://{address.group(1)}" if address else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def _wait_for(self, ready, log):
        deadline = time.monotonic() + START_SECONDS_MAX
        # Waits for the end of the line, because a program may write a line in pieces.
        while not re.search(f"{ready}.*\n", text := log.read_text()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise ProgramError(f"{log.name} does not contain \"{ready}\":\n{text}")
            time.sleep(0.001)
        return text

    def stop(self):
        self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(STOP_SECONDS_MAX)
        finally:
            self.process.kill()

    def cpu_seconds(self):
        """Returns the CPU time of all threads of the process so far, including threads that have exited."""
        # The clock ID of clock_getcpuclockid(3), which Python does not provide. /proc/PID/stat has a
        # resolution of 10 ms.
        cpu_clock = (~self.process.pid << 3) | 2
        return time.clock_gettime(cpu_clock)

    def anonymous_mib(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"RssAnon:\s+(\d+) kB", status).group(1)) / 1024
