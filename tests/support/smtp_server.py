"""An SMTP server (aiosmtpd) for the tests. Its control file determines how it answers.

    smtp_server.py --port 0 --log FILE --control-file FILE [--tls-cert FILE --tls-key FILE] [--smtputf8]

Prints "listening PORT" and exits when its standard input is closed. The log has one JSON object per attempt
to deliver a mail: "recipients", "data" (base64), "answer", "hello" (the name in EHLO). The server reads the
control file for each mail: ok, refuse-4xx, refuse-5xx-rcpt, refuse-5xx-data, delay SECONDS, drop-before-250,
or refuse-at STAGE REPLY, where STAGE is GREETING, EHLO, AUTH, MAIL, RCPT or DATA. With a certificate, the
server requires STARTTLS. With --smtputf8 it accepts addresses beyond ASCII.
"""

import argparse
import asyncio
import base64
import json
import pathlib
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult


class Handler:
    """Answers according to the control file and logs each attempt."""

    def __init__(self, control, log):
        self.control = pathlib.Path(control)
        self.log = log

    def mode(self):
        return self.control.read_text().split() or ["ok"]

    def refusal(self, stage):
        """Returns the reply that the control file requests for this stage, or None."""
        mode, *arguments = self.mode()
        if mode == "refuse-at" and arguments[0] == stage:
            return " ".join(arguments[1:])
        return None

    def record(self, session, envelope, answer):
        attempt = {
            "recipients": envelope.rcpt_tos if envelope else [],
            "data": base64.b64encode((envelope and envelope.content) or b"").decode(),
            "answer": answer,
            "hello": session.host_name if session else None,
        }
        with open(self.log, "a") as log:
            log.write(json.dumps(attempt) + "\n")

    def recorded_refusal(self, stage, session=None, envelope=None):
        refusal = self.refusal(stage)
        if refusal:
            self.record(session, envelope, refusal[:3])
        return refusal

    async def handle_EHLO(self, server, session, envelope, hostname, responses):
        session.host_name = hostname
        refusal = self.recorded_refusal("EHLO", session)
        return [refusal] if refusal else responses

    def authenticate(self, server, session, envelope, mechanism, data):
        refusal = self.recorded_refusal("AUTH", session)
        return AuthResult(success=not refusal, handled=False, message=refusal)

    async def handle_MAIL(self, server, session, envelope, address, options):
        refusal = self.recorded_refusal("MAIL", session)
        if refusal:
            return refusal
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        refusal = self.recorded_refusal("RCPT", session, envelope)
        if refusal:
            return refusal
        if self.mode()[0] == "refuse-5xx-rcpt":
            self.record(session, envelope, "550")
            return "550 5.1.1 no such mailbox: " + address
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        refusal = self.recorded_refusal("DATA", session, envelope)
        if refusal:
            return refusal
        mode, *arguments = self.mode()
        if mode == "refuse-4xx":
            self.record(session, envelope, "451")
            return "451 4.7.1 greylisted, try again later"
        if mode == "refuse-5xx-data":
            self.record(session, envelope, "554")
            return "554 5.6.0 message rejected"
        if mode == "drop-before-250":
            self.record(session, envelope, "dropped")
            server.transport.abort()
            return "250 OK"
        if mode == "delay":
            await asyncio.sleep(float(arguments[0]))
        self.record(session, envelope, "250")
        return "250 OK"


class Server(SMTP):
    """Refuses connections in its greeting if the control file says so."""

    async def push(self, status):
        if status.startswith("220 ") and self.__ident__ in status:
            status = self.event_handler.recorded_refusal("GREETING") or status
        await super().push(status)


async def main():
    """Serves until standard input is closed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", required=True)
    parser.add_argument("--control-file", required=True)
    parser.add_argument("--tls-cert")
    parser.add_argument("--tls-key")
    parser.add_argument("--smtputf8", action="store_true")
    arguments = parser.parse_args()

    context = None
    if arguments.tls_cert:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(arguments.tls_cert, arguments.tls_key)
    handler = Handler(arguments.control_file, arguments.log)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Server(
            handler,
            hostname="localhost",
            tls_context=context,
            require_starttls=context is not None,
            enable_SMTPUTF8=arguments.smtputf8,
            authenticator=handler.authenticate,
            auth_require_tls=False,
        ),
        host="127.0.0.1",
        port=arguments.port,
    )
    print("listening", server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


asyncio.run(main())
