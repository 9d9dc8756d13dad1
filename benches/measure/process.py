"""Programs: servers that are stopped however the run ends, and commands that must succeed."""

import pathlib
import re
import signal
import subprocess
import time

START_SECONDS_MAX = 60
# The service gives calls in flight 30 s to finish.
STOP_SECONDS_MAX = 40


class Broken(Exception):
    """A program did not do its part, so nothing that follows would mean anything."""


def output_of(command, **options):
    """What a command printed; it must have succeeded."""
    command = [str(part) for part in command]
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise Broken(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


class Server:
    """A process that serves until the `with` block ends, or this process does."""

    def __init__(self, command, ready, log, environment=None, account=(), stop_signal=signal.SIGTERM):
        self.stop_signal = stop_signal
        dies_with_us = ["setpriv", f"--pdeathsig={stop_signal.name.removeprefix('SIG')}", *account]
        began = time.monotonic()
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*dies_with_us, *(str(part) for part in command)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment,
            )
        try:
            text = self._wait_for(ready, log)
        except BaseException:
            self.stop()
            raise
        self.seconds_to_start = time.monotonic() - began
        address = re.search(r"Serving \w+ on (\S+)", text)
        self.url = f"http://{address.group(1)}" if address else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def _wait_for(self, ready, log):
        deadline = time.monotonic() + START_SECONDS_MAX
        # A line is whole at its end only: a program may write it in pieces.
        while not re.search(f"{ready}.*\n", text := log.read_text()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Broken(f"{log.name} does not say \"{ready}\":\n{text}")
            time.sleep(0.001)
        return text

    def stop(self):
        self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(STOP_SECONDS_MAX)
        finally:
            self.process.kill()

    def cpu_seconds(self):
        """The processor time of all its threads so far, those that ended too."""
        # clock_getcpuclockid(3), which Python lacks; /proc/PID/stat counts in steps of 10 ms.
        cpu_clock = (~self.process.pid << 3) | 2
        return time.clock_gettime(cpu_clock)

    def anonymous_mib(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"RssAnon:\s+(\d+) kB", status).group(1)) / 1024
