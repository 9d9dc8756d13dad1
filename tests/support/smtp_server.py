"""An SMTP server (aiosmtpd) for the tests. Its control file determines how it answers.

    smtp_server.py --port 0 --log FILE --control-file FILE [--tls-cert FILE --tls-key FILE]

Prints "listening PORT" and exits when its standard input is closed. The log has one JSON object per attempt
to deliver a mail: "recipients", "data" (base64), "answer". The server reads the control file for each mail:
ok, refuse-4xx, refuse-5xx-rcpt, refuse-5xx-data, delay SECONDS, or drop-before-250. With a certificate, the
server requires STARTTLS.
"""

import argparse
import asyncio
import base64
import json
import pathlib
import ssl
import sys

from aiosmtpd.smtp import SMTP


class Handler:
    """Answers according to the control file and logs each attempt."""

    def __init__(self, control, log):
        self.control = pathlib.Path(control)
        self.log = log

    def mode(self):
        return self.control.read_text().split() or ["ok"]

    def record(self, envelope, answer):
        data = base64.b64encode(envelope.content or b"").decode()
        with open(self.log, "a") as log:
            log.write(json.dumps({"recipients": envelope.rcpt_tos, "data": data, "answer": answer}) + "\n")

    async def handle_RCPT(self, server, session, envelope, address, options):
        if self.mode()[0] == "refuse-5xx-rcpt":
            self.record(envelope, "550")
            return "550 5.1.1 no such mailbox: " + address
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        mode, *arguments = self.mode()
        if mode == "refuse-4xx":
            self.record(envelope, "451")
            return "451 4.7.1 greylisted, try again later"
        if mode == "refuse-5xx-data":
            self.record(envelope, "554")
            return "554 5.6.0 message rejected"
        if mode == "drop-before-250":
            self.record(envelope, "dropped")
            server.transport.abort()
            return "250 OK"
        if mode == "delay":
            await asyncio.sleep(float(arguments[0]))
        self.record(envelope, "250")
        return "250 OK"


async def main():
    """Serves until standard input is closed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", required=True)
    parser.add_argument("--control-file", required=True)
    parser.add_argument("--tls-cert")
    parser.add_argument("--tls-key")
    arguments = parser.parse_args()

    context = None
    if arguments.tls_cert:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(arguments.tls_cert, arguments.tls_key)
    handler = Handler(arguments.control_file, arguments.log)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(handler, hostname="localhost", tls_context=context, require_starttls=context is not None),
        host="127.0.0.1",
        port=arguments.port,
    )
    print("listening", server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


asyncio.run(main())
