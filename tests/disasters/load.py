"""Users who register, log in, change their passwords and leave, while the disaster happens."""

import email
import random
import re
import threading
import time
import uuid

from ledger import MAYBE, NO, YES, Check, User, Violation

PASSWORD = "plum-Voyage-84-kettle"
WRONG = "wrong-Password-77-kettle"

# A victim's account is not locked by the guesses of the load alone.
GUESSES_MAX = 6

# The operations on a verified user, with their weights.
MIX = {"register": 4, "login": 4, "refresh": 4, "logout": 2, "change": 2, "reset": 1, "delete": 1, "resolve": 4}


class Mail:
    """The folder in which the service delivers mails."""

    def __init__(self, folder):
        self.folder = folder
        self.tokens = {}
        self.read = set()

    def token(self, address):
        """Returns the token of the link for the verification that was mailed to this address, or None."""
        for path in self.folder.glob("*.eml"):
            if path.name not in self.read:
                self.read.add(path.name)
                message = email.message_from_bytes(path.read_bytes())
                text = next(part for part in message.walk() if part.get_content_type() == "text/plain")
                found = re.search(r"/verify\?token=([\w-]{43})\s", text.get_payload(decode=True).decode())
                if found:
                    self.tokens[message["To"].strip("<>")] = found.group(1)
        return self.tokens.get(address)


class Worker:
    """One thread's users. It makes one call after the other, and abandons a user after a call without an answer."""

    def __init__(self, load, number):
        self.load, self.number = load, number
        self.random = random.Random(f"{load.seed}/{number}")
        self.api, self.ledger = load.service.api(), load.ledger
        self.users = []
        self.count = 0

    def run(self):
        try:
            while not self.load.stopped.is_set():
                if not self.step():
                    time.sleep(0.05)
                time.sleep(self.load.pause)
        except Exception as error:  # noqa: BLE001  the scenario raises it
            self.load.failures.append(error)

    def step(self):
        """Makes a call. Returns false if there was no answer."""
        kind = self.random.choices(list(self.load.mix), self.load.mix.values())[0]
        if kind == "register" or not self.users:
            return self.register()
        user = self.ledger.users[self.random.choice(self.users)]
        if user.verified == NO:
            return self.act(user, "verify", "VerifyEmail", token=user.verify_token)
        live = [number for number, session in enumerate(user.sessions) if session.alive == YES]
        if kind in ("refresh", "logout", "change", "delete") and not live:
            kind = "login"
        return getattr(self, kind)(user, live)

    def call(self, method, expected=(), **fields):
        """Makes a call. An error that is neither expected nor an outage is a violation."""
        outcome = self.api.call(method, timeout=self.load.timeout, **fields)
        self.load.count(outcome)
        if not (outcome.is_ok or outcome.is_outage or outcome.reason in expected):
            raise Violation(f"{method}: {outcome}")
        return outcome

    def act(self, user, kind, method, fields_of_end=lambda response: {}, begin=None, expected=(), **fields):
        event = self.ledger.begin(kind, user.name, **(begin or {}))
        outcome = self.call(method, expected, **fields)
        if outcome.is_ok or outcome.reason in expected:
            self.load.writes.append((event["time"], time.monotonic()))
            self.ledger.end(event, "done", **(fields_of_end(outcome.response) if outcome.is_ok else {}))
            return True
        self.ledger.end(event, "refused" if outcome.reason == "OVERLOADED" else "unknown")
        if user.name in self.users:
            self.users.remove(user.name)
        return False

    def register(self):
        self.count += 1
        name = f"{self.load.name}x{self.number}x{self.count}"
        is_mailed = self.random.random() < 0.25
        request = str(uuid.UUID(int=self.random.getrandbits(128), version=4))
        def fields(response):
            return {"auth_token": response.user.auth_token, "verify_token": response.mail_token}

        is_done = self.act(
            User(name), "register", "Register", fields, {"password": PASSWORD, "is_mailed": is_mailed},
            username=name, email=f"{name}@example.org", password=PASSWORD, request_id=request, return_mail_token=not is_mailed,
        )  # fmt: skip
        # A mailed link is followed by the check.
        if is_done and not is_mailed:
            self.users.append(name)
        return is_done

    def login(self, user, _live=None):
        def fields(response):
            return {"refresh": response.tokens.refresh_token, "access": response.tokens.access_token}

        begin = {"keeps": self.load.keeps_sessions}
        return self.act(user, "login", "Login", fields, begin, email=user.email, password=user.passwords[0])

    def refresh(self, user, live):
        number = self.random.choice(live)

        def fields(response):
            return {"refresh": response.tokens.refresh_token, "access": response.tokens.access_token}

        token = user.sessions[number].refresh
        return self.act(user, "refresh", "RefreshSession", fields, {"session": number}, refresh_token=token)

    def logout(self, user, live):
        number = self.random.choice(live)
        token = user.sessions[number].refresh
        return self.act(user, "logout", "Logout", begin={"session": number}, refresh_token=token)

    def change(self, user, live):
        number = self.random.choice(live)
        new = f"new-{self.random.getrandbits(64):x}-Kettle"
        return self.act(
            user, "change", "ChangePassword", begin={"session": number, "password": new},
            access_token=user.sessions[number].access, current_password=user.passwords[0], new_password=new,
        )  # fmt: skip

    def reset(self, user, _live):
        requested = self.call("RequestPasswordReset", email=user.email, return_mail_token=True)
        if not requested.is_ok or not requested.response.mail_token:
            return requested.is_ok
        new = f"reset-{self.random.getrandbits(64):x}-Kettle"
        return self.act(
            user, "reset", "ResetPassword", begin={"password": new}, token=requested.response.mail_token, new_password=new
        )

    def delete(self, user, live):
        number = self.random.choice(live)
        is_done = self.act(
            user, "delete", "DeleteAccount",
            access_token=user.sessions[number].access, current_password=user.passwords[0],
        )  # fmt: skip
        if is_done:
            self.users.remove(user.name)
        return is_done

    def resolve(self, user, _live):
        outcome = self.call("ResolveToken", auth_token=user.auth_token)
        if outcome.is_ok and outcome.response.user.email != user.email:
            raise Violation(f"{user.name}: ResolveToken returned another user")
        return outcome.is_ok


class Steady(Worker):
    """One user who logs in with the right password again and again, during the outage too, and is never locked out;
    and one whose password is guessed."""

    def begin(self):
        for name in (f"{self.load.name}steady", f"{self.load.name}victim"):
            self.load.member(self, name)
        self.user, self.victim = (self.ledger.users[f"{self.load.name}{name}"] for name in ("steady", "victim"))

    def step(self):
        is_answered = self.call("Login", email=self.user.email, password=PASSWORD).is_ok
        if self.ledger.users[self.victim.name].wrong_max < GUESSES_MAX:
            self.act(self.victim, "guess", "Login", expected=["INVALID_CREDENTIALS"], email=self.victim.email, password=WRONG)
        return is_answered


class Load:
    """Some workers in threads, on one service. Use it in a `with`: at its end the workers have stopped."""

    def __init__(self, service, ledger, name, seed, workers=2, pause=0.02, timeout=4, mix=None, keeps_sessions=True):
        self.service, self.ledger, self.name, self.seed = service, ledger, name, seed
        self.pause, self.timeout, self.mix, self.keeps_sessions = pause, timeout, mix or MIX, keeps_sessions
        self.stopped = threading.Event()
        self.failures = []
        self.codes = {}
        self.answered_at = 0
        self.writes = []
        self.lock = threading.Lock()
        self.steady = Steady(self, "s")
        self.steady.begin()
        self.workers = [self.steady, *(Worker(self, number) for number in range(workers))]
        self.threads = [threading.Thread(target=worker.run, daemon=True) for worker in self.workers]

    def member(self, worker, name):
        """Registers a user and verifies the email, before the disaster."""
        register = worker.ledger.begin("register", name, password=PASSWORD, is_mailed=False)
        end = time.monotonic() + 20
        fields = {"username": name, "email": f"{name}@example.org", "password": PASSWORD, "request_id": str(uuid.uuid4())}
        while True:
            registered = worker.call("Register", return_mail_token=True, **fields)
            if registered.is_ok:
                break
            if time.monotonic() > end:
                raise Violation(f"the service does not serve before the disaster: {registered}")
            time.sleep(0.1)
        user, token = registered.response.user, registered.response.mail_token
        if not token:
            # The answer to the first call came too late.
            token = worker.call("ResendVerificationEmail", email=f"{name}@example.org", return_mail_token=True).response.mail_token
        worker.ledger.end(register, "done", auth_token=user.auth_token, verify_token=token)
        verify = worker.ledger.begin("verify", name)
        verified = worker.call("VerifyEmail", ["EMAIL_ALREADY_VERIFIED"], token=token)
        if verified.is_outage:
            raise Violation(f"the service does not serve before the disaster: {verified}")
        worker.ledger.end(verify, "done")

    def count(self, outcome):
        code = outcome.code or "OK"
        with self.lock:
            self.codes[code] = self.codes.get(code, 0) + 1
            if outcome.is_ok:
                self.answered_at = time.monotonic()

    @property
    def written_since(self):
        """The time at which the latest acknowledged write began."""
        return max(self.writes, default=(0, 0))[0]

    def first_write_since(self, begun):
        """The time at which the first write was acknowledged that began after this time."""
        return min((ended for at, ended in list(self.writes) if at > begun), default=begun)

    def start(self):
        for thread in self.threads:
            thread.start()
        return self

    def stop(self):
        """Stops the workers; raises what they have found."""
        self.stopped.set()
        for thread in self.threads:
            thread.join(self.timeout * 4)
        for worker in self.workers:
            worker.api.close()
        if self.failures:
            raise self.failures[0]

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, error, trace):
        if error is None:
            self.stop()
        else:
            self.stopped.set()

    def check(self, api, mail, extra=(), failures_hold=True, **options):
        """Checks the users of this load and some others on the recovered service, and that their failed logins are
        still counted unless `failures_hold` is false. Returns the number of users."""
        check = Check(api, self.ledger, mail, **options)
        names = [name for name in list(self.ledger.users) if name.startswith(self.name) and name != self.steady.victim.name]
        check.users([*names, *extra])
        victim = self.ledger.users[self.steady.victim.name]
        if failures_hold and victim.exists != MAYBE:
            check.guesses(victim)
        return check.checked
