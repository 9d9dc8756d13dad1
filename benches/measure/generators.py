"""Runs the two load generators: benches/load and h2load."""

import contextlib
import itertools
import json
import re
import struct
import subprocess

from process import ProgramError, output_of

RESOLVE_TOKEN = "/kairos.identity.v1.IdentityService/ResolveToken"


class Generators:
    """Runs loads and returns their results. Wrong responses are recorded in `failures`, which fail the whole
    run.
    """

    def __init__(self, program, folder):
        self.program, self.folder = program, folder
        self.failures = []
        self._seeds = itertools.count(1)

    def token(self, user=0):
        return output_of([self.program, "token", user]).strip()

    def load(self, server, may_refuse=False, **options):
        """Runs benches/load and adds the server's CPU time per call to the result as `cpu_us`."""
        cpu_seconds = server.cpu_seconds()
        result = json.loads(output_of(self._command(server, options)))
        # The CPU time and the number of calls both include the warm-up.
        result["cpu_us"] = (server.cpu_seconds() - cpu_seconds) * 1e6 / max(1, result["calls_total"])
        self._check(result, options, may_refuse)
        return result

    @contextlib.contextmanager
    def background_load(self, server, **options):
        """Runs benches/load during the block, which must be shorter, and then fills the yielded
        dictionary.

        Calls of this load may be rejected or exceed their deadline, because another load runs at the same
        time. They are not recorded in `failures`; the number of successful calls is in the result.
        """
        result = {}
        process = subprocess.Popen(self._command(server, options), stdout=subprocess.PIPE, text=True)
        try:
            yield result
            if process.poll() is not None:
                raise ProgramError("the load in the background ended before the measurement")
            result.update(json.loads(process.communicate()[0]))
        finally:
            process.kill()
            process.wait()

    def _command(self, server, options):
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        return [self.program, "run", f"--url={server.url}", f"--seed={next(self._seeds)}", *flags]

    def _check(self, result, options, may_refuse=False):
        wrong = result["failures"] + (0 if may_refuse else result["refused"])
        if wrong or not (result["calls_per_s"] or may_refuse):
            self.failures.append(f"{wrong} calls failed, {result['calls_per_s']} calls/s succeeded: {options}")

    def h2load(self, server, connections, streams, seconds, user):
        """Measures calls/s with h2load, which sends the same request for `user` each time."""
        token = self.token(user).encode()
        message = b"\x0a" + bytes([len(token)]) + token
        request = self.folder / "request"
        request.write_bytes(b"\0" + struct.pack(">I", len(message)) + message)
        command = ["h2load", f"--data={request}"]
        command += ["--header=content-type: application/grpc", "--header=te: trailers"]
        url = server.url + RESOLVE_TOKEN
        width = ["--threads=1", f"--clients={connections}", f"--max-concurrent-streams={streams}"]
        duration = [f"--duration={seconds * 1000:.0f}ms", f"--warm-up-time={max(100, seconds * 250):.0f}ms"]

        _, response_bytes = _responses(output_of([*command, "--requests=1", url]))
        output = output_of([*command, *width, *duration, url])

        # h2load counts a gRPC error as a success, but an error has no body. The bodies of calls that were in
        # flight when the measurement started may be counted in part.
        responses, body_bytes = _responses(output)
        whole_responses = responses - connections * streams
        if not response_bytes or not responses or body_bytes < whole_responses * response_bytes:
            self.failures.append(f"h2load received responses without users:\n{output}")
        return {"calls_per_s": float(re.search(r"([\d.]+) req/s", output).group(1))}


def _responses(output):
    """Returns the number of responses and the total bytes of their bodies."""
    if not re.search(r" 0 failed, 0 errored, 0 timeout", output):
        raise ProgramError(f"h2load failed:\n{output}")
    succeeded = int(re.search(r"(\d+) succeeded", output).group(1))
    return succeeded, int(re.search(r"\((\d+)\) data", output).group(1))
