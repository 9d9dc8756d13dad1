"""The two load generators: our own, and h2load."""

import contextlib
import itertools
import json
import re
import struct
import subprocess

from process import Broken, output_of

RESOLVE_TOKEN = "/kairos.identity.v1.IdentityService/ResolveToken"


class Generators:
    """Each load tells what was seen. Wrong answers are also told in `failures`, which fail the run at its end."""

    def __init__(self, program, folder):
        self.program, self.folder = program, folder
        self.failures = []
        self._seeds = itertools.count(1)

    def token(self, user=0):
        return output_of([self.program, "token", user]).strip()

    def load(self, server, may_refuse=False, **options):
        """A load of our own generator, with the server's CPU per call as `cpu_us`."""
        cpu_seconds = server.cpu_seconds()
        seen = json.loads(output_of(self._command(server, options)))
        # Over the warm-up too, on both sides: the server worked for those calls as for the others.
        seen["cpu_us"] = (server.cpu_seconds() - cpu_seconds) * 1e6 / max(1, seen["calls_total"])
        self._check(seen, options, may_refuse)
        return seen

    @contextlib.contextmanager
    def load_beside(self, server, **options):
        """A load that lasts longer than the block; afterwards the dictionary holds what was seen.

        Beside another load its calls may be refused or run out of time; whoever asks for it tells how many were answered.
        """
        seen = {}
        process = subprocess.Popen(self._command(server, options), stdout=subprocess.PIPE, text=True)
        try:
            yield seen
            if process.poll() is not None:
                raise Broken("the load beside a block ended before it")
            seen.update(json.loads(process.communicate()[0]))
        finally:
            process.kill()
            process.wait()

    def _command(self, server, options):
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        return [self.program, "run", f"--url={server.url}", f"--seed={next(self._seeds)}", *flags]

    def _check(self, seen, options, may_refuse=False):
        wrong = seen["failures"] + (0 if may_refuse else seen["refused"])
        if wrong or not (seen["calls_per_s"] or may_refuse):
            self.failures.append(f"{wrong} calls failed, {seen['calls_per_s']} a second did not: {options}")

    def h2load(self, server, connections, streams, seconds, user):
        """Calls/s of one and the same request, for that user."""
        token = self.token(user).encode()
        message = b"\x0a" + bytes([len(token)]) + token
        request = self.folder / "request"
        request.write_bytes(b"\0" + struct.pack(">I", len(message)) + message)
        command = ["h2load", f"--data={request}"]
        command += ["--header=content-type: application/grpc", "--header=te: trailers"]
        url = server.url + RESOLVE_TOKEN
        width = ["--threads=1", f"--clients={connections}", f"--max-concurrent-streams={streams}"]
        length = [f"--duration={seconds * 1000:.0f}ms", f"--warm-up-time={max(100, seconds * 250):.0f}ms"]

        _, answer_bytes = _answers(output_of([*command, "--requests=1", url]))
        output = output_of([*command, *width, *length, url])

        # h2load takes gRPC errors for successes; but they have no body. Those under way when it begins may be cut.
        answers, body_bytes = _answers(output)
        whole_answers = answers - connections * streams
        if not answer_bytes or not answers or body_bytes < whole_answers * answer_bytes:
            self.failures.append(f"h2load's answers hold no users:\n{output}")
        return {"calls_per_s": float(re.search(r"([\d.]+) req/s", output).group(1))}


def _answers(output):
    """How many there were, and the bytes of all their bodies."""
    if not re.search(r" 0 failed, 0 errored, 0 timeout", output):
        raise Broken(f"h2load failed:\n{output}")
    succeeded = int(re.search(r"(\d+) succeeded", output).group(1))
    return succeeded, int(re.search(r"\((\d+)\) data", output).group(1))
