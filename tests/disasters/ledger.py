"""What the service has acknowledged, kept outside of it, and the check that it still holds.

A file has one line for the begin and one for the end of each call. An end is synced to the disk before the next
call of the same user begins. The check reads the file again: it knows nothing else. A call without an answer may
have happened or not, but what it did must be all or nothing.
"""

import copy
import dataclasses
import json
import os
import threading
import time

from processes import until

YES, NO, MAYBE = "yes", "no", "maybe"

# Wrong passwords in a row that lock an account for 15 minutes (login.failures-max).
FAILURES_MAX = 10

# A repeated refresh gets the same answer for 10 s.
REFRESH_REPEAT_SECONDS = 8

# The checks themselves are repeated while the service is not available, for this long.
RETRY_SECONDS = 15


@dataclasses.dataclass
class Session:
    refresh: str
    access: str
    alive: str = YES
    unanswered_since: float | None = None
    """The time of a refresh without an answer."""


@dataclasses.dataclass
class User:
    name: str
    exists: str = NO
    verified: str = NO
    auth_token: str = ""
    verify_token: str = ""
    is_mailed: bool = False
    """True if the service mails the link for the verification."""
    passwords: list = dataclasses.field(default_factory=list)
    """Those of which one is in force."""
    replaced: list = dataclasses.field(default_factory=list)
    sessions: list = dataclasses.field(default_factory=list)
    wrong_min: int = 0
    wrong_max: int = 0
    """Wrong passwords in a row: those that were answered, and those that were tried."""

    @property
    def email(self):
        return f"{self.name}@example.org"


class Violation(AssertionError):
    """Something acknowledged does not hold, or a caller got an error that is not documented."""


class Ledger:
    """The calls, in a file and as the state that follows from them."""

    def __init__(self, path=None):
        self.users = {}
        self.before = {}
        self.calls = 0
        self.acknowledged = 0
        self.lock = threading.Lock()
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if path else None

    @classmethod
    def read(cls, path, until_ns=None):
        """Returns the ledger as it was at this time (CLOCK_MONOTONIC), without a file."""
        ledger = cls()
        with open(path, encoding="utf-8") as file:
            for line in file:
                event = json.loads(line)
                if until_ns is not None and event["at"] > until_ns:
                    break
                ledger.apply(event)
        return ledger

    def begin(self, kind, name, **fields):
        with self.lock:
            self.calls += 1
            event = {"at": time.monotonic_ns(), "call": self.calls, "kind": kind, "user": name, "time": time.monotonic(), **fields}
            self.keep(event)
        return event

    def end(self, event, result, **fields):
        """`result` is done, refused (nothing was changed) or unknown."""
        with self.lock:
            self.keep({"at": time.monotonic_ns(), "end": event["call"], "begin": event, "result": result, **fields})
        if self.file is not None:
            os.fsync(self.file)

    def keep(self, event):
        self.apply(event)
        if self.file is not None:
            os.write(self.file, (json.dumps(event) + "\n").encode())

    def apply(self, event):
        if "end" not in event:
            user = self.users.setdefault(event["user"], User(event["user"]))
            self.before[event["call"]] = copy.deepcopy(user)
            getattr(self, f"begin_{event['kind']}")(user, event)
            return
        before = self.before.pop(event["end"])
        begin = event["begin"]
        if event["result"] == "refused":
            self.users[begin["user"]] = before
        elif event["result"] == "done":
            self.acknowledged += 1
            getattr(self, f"done_{begin['kind']}")(self.users[begin["user"]], begin, event)

    # What a call may have done from its begin on, and what it has done once it is acknowledged.

    def begin_register(self, user, event):
        user.exists = MAYBE if user.exists == NO else user.exists
        user.is_mailed = event["is_mailed"]
        user.passwords = [event["password"]]

    def done_register(self, user, _begin, end):
        user.exists = YES
        user.auth_token, user.verify_token = end["auth_token"], end["verify_token"]

    def begin_verify(self, user, _event):
        user.verified = MAYBE if user.verified == NO else user.verified

    def done_verify(self, user, _begin, _end):
        user.verified = YES

    def begin_login(self, user, _event):
        user.wrong_min = 0

    def done_login(self, user, begin, end):
        user.wrong_min = user.wrong_max = 0
        if begin["keeps"]:
            user.sessions.append(Session(end["refresh"], end["access"]))

    def begin_guess(self, user, _event):
        user.wrong_max += 1

    def done_guess(self, user, _begin, _end):
        user.wrong_min += 1

    def begin_refresh(self, user, event):
        session = user.sessions[event["session"]]
        session.unanswered_since = session.unanswered_since or event["time"]

    def done_refresh(self, user, begin, end):
        user.sessions[begin["session"]] = Session(end["refresh"], end["access"])

    def begin_logout(self, user, event):
        session = user.sessions[event["session"]]
        session.alive = MAYBE if session.alive == YES else session.alive

    def done_logout(self, user, begin, _end):
        user.sessions[begin["session"]].alive = NO

    def begin_change(self, user, event):
        user.passwords = [*user.passwords, event["password"]]
        self.end_sessions(user, MAYBE, event.get("session"))

    def done_change(self, user, begin, _end):
        user.replaced = [*user.replaced, *user.passwords[:-1]]
        user.passwords = [begin["password"]]
        user.wrong_min = user.wrong_max = 0
        self.end_sessions(user, NO, begin.get("session"))

    # A reset is a change without a session.
    begin_reset, done_reset = begin_change, done_change

    def end_sessions(self, user, alive, kept):
        for number, session in enumerate(user.sessions):
            if number != kept and session.alive != NO:
                session.alive = alive

    def begin_delete(self, user, _event):
        user.exists = MAYBE if user.exists == YES else user.exists

    def done_delete(self, user, _begin, _end):
        user.exists = NO

    # What the check has seen: from then on it is no longer uncertain.

    def begin_seen(self, user, event):
        for field, value in event["state"].items():
            setattr(user, field, value)

    def done_seen(self, user, begin, end):
        pass

    def begin_seen_session(self, user, event):
        user.sessions[event["session"]].alive = event["alive"]

    def done_seen_session(self, user, begin, end):
        pass

    def saw(self, user, **state):
        self.end(self.begin("seen", user.name, state=state), "done")


class Check:
    """Compares the service with the ledger, user by user. The service must be available."""

    def __init__(self, api, ledger, mail=None, is_copy=False, links_hold=True):
        self.api, self.ledger, self.mail = api, ledger, mail
        self.links_hold = links_hold
        """False if the links were made under a wrong clock: then a new one must work."""
        self.is_copy = is_copy
        """True if time has passed that the database has not seen: a refresh can no longer be repeated."""
        self.checked = 0

    def call(self, method, **fields):
        """Makes a call, and repeats it while the service is not available."""
        end = time.monotonic() + RETRY_SECONDS
        while True:
            outcome = self.api.call(method, **fields)
            if not outcome.is_outage or time.monotonic() > end:
                break
            time.sleep(0.1)
        if outcome.is_outage or outcome.code in ("INTERNAL", "UNKNOWN"):
            raise Violation(f"{method} after the recovery: {outcome}")
        return outcome

    def users(self, names):
        for name in names:
            self.user(self.ledger.users[name])
            self.checked += 1

    def user(self, user):
        found = self.call("FindUser", email=user.email)
        if not found.is_ok and found.reason != "USER_NOT_FOUND":
            raise Violation(f"{user.name}: FindUser: {found}")
        if user.exists == YES and not found.is_ok:
            raise Violation(f"{user.name}: the acknowledged registration is lost")
        if user.exists == NO and found.is_ok:
            raise Violation(f"{user.name}: the acknowledged deletion is undone")
        self.ledger.saw(user, exists=YES if found.is_ok else NO)
        user = self.ledger.users[user.name]
        if not found.is_ok:
            self.deleted(user)
            return
        if user.auth_token:
            resolved = self.call("ResolveToken", auth_token=user.auth_token)
            if not resolved.is_ok or resolved.response.user.email != user.email:
                raise Violation(f"{user.name}: ResolveToken: {resolved}")
        self.verification(user, found.response.user.is_verified)
        user = self.ledger.users[user.name]
        self.password(user)
        self.sessions(self.ledger.users[user.name])

    def deleted(self, user):
        if user.auth_token:
            resolved = self.call("ResolveToken", auth_token=user.auth_token)
            if resolved.reason != "USER_NOT_FOUND":
                raise Violation(f"{user.name}: a deleted user is resolved: {resolved}")
        for number, session in enumerate(user.sessions[-2:]):
            refreshed = self.call("RefreshSession", refresh_token=session.refresh)
            if refreshed.reason != "INVALID_REFRESH_TOKEN":
                raise Violation(f"{user.name}: session {number} of a deleted user: {refreshed}")

    def verification(self, user, is_verified):
        if user.verified == YES and not is_verified:
            raise Violation(f"{user.name}: the acknowledged verification is lost")
        if user.verified == NO and is_verified:
            raise Violation(f"{user.name}: verified, but no call has verified the email")
        if user.verified == MAYBE:
            self.ledger.saw(user, verified=YES if is_verified else NO)
        token = user.verify_token
        if user.is_mailed and self.mail and not is_verified:
            token = until(f"the mail to {user.email} is sent", 20, lambda: self.mail.token(user.email))
        if not token:
            return
        expected = "EMAIL_ALREADY_VERIFIED" if is_verified else ""
        call = self.ledger.begin("verify", user.name)
        verified = self.call("VerifyEmail", token=token)
        if verified.reason == "INVALID_TOKEN" and not is_verified and not self.links_hold:
            resent = self.call("ResendVerificationEmail", email=user.email, return_mail_token=True)
            verified = self.call("VerifyEmail", token=resent.response.mail_token)
        # A reset of the password has revoked the link.
        if verified.reason != expected and not (is_verified and verified.reason == "INVALID_TOKEN"):
            raise Violation(f"{user.name}: VerifyEmail with the mailed link: {verified}")
        self.ledger.end(call, "done")

    def password(self, user):
        for password in reversed(user.passwords):
            tried = user.wrong_max
            login = self.ledger.begin("login", user.name, keeps=True)
            outcome = self.call("Login", email=user.email, password=password)
            if outcome.is_ok:
                tokens = outcome.response.tokens
                self.ledger.end(login, "done", refresh=tokens.refresh_token, access=tokens.access_token)
                replaced = [old for old in user.passwords if old != password]
                self.ledger.saw(user, passwords=[password], replaced=[*user.replaced, *replaced])
                break
            self.ledger.end(login, "refused")
            if outcome.reason == "EMAIL_NOT_VERIFIED" and user.verified != YES:
                break
            if outcome.reason == "TOO_MANY_ATTEMPTS" and tried >= FAILURES_MAX:
                return
            if outcome.reason != "INVALID_CREDENTIALS":
                raise Violation(f"{user.name}: a right password does not log in, after at most {tried} wrong ones: {outcome}")
        else:
            raise Violation(f"{user.name}: no acknowledged password logs in ({len(user.passwords)} tried)")
        if user.wrong_min >= FAILURES_MAX:
            raise Violation(f"{user.name}: logged in after {user.wrong_min} acknowledged wrong passwords")
        for password in user.replaced[-1:]:
            outcome = self.call("Login", email=user.email, password=password)
            if outcome.reason != "INVALID_CREDENTIALS":
                raise Violation(f"{user.name}: a replaced password is not refused: {outcome}")

    def sessions(self, user):
        # Those that the check itself has begun come last.
        for number, session in list(enumerate(user.sessions))[-4:]:
            if session.alive != NO:
                self.live_session(user, number, session)
                continue
            refreshed = self.call("RefreshSession", refresh_token=session.refresh)
            if refreshed.reason != "INVALID_REFRESH_TOKEN":
                raise Violation(f"{user.name}: session {number}, whose end is acknowledged, is refreshed: {refreshed}")
            if self.call("IntrospectToken", access_token=session.access).response.active:
                raise Violation(f"{user.name}: session {number}, whose end is acknowledged, is active")

    def live_session(self, user, number, session):
        since = session.unanswered_since
        may_fail = since is not None and (self.is_copy or time.monotonic() - since > REFRESH_REPEAT_SECONDS)
        call = self.ledger.begin("refresh", user.name, session=number)
        refreshed = self.call("RefreshSession", refresh_token=session.refresh)
        if refreshed.is_ok:
            tokens = refreshed.response.tokens
            self.ledger.end(call, "done", refresh=tokens.refresh_token, access=tokens.access_token)
            return
        self.ledger.end(call, "refused")
        if refreshed.reason != "INVALID_REFRESH_TOKEN" or (session.alive == YES and not may_fail):
            raise Violation(f"{user.name}: session {number} is lost: {refreshed}")
        self.ledger.end(self.ledger.begin("seen_session", user.name, session=number, alive=NO), "done")

    def guesses(self, user):
        """Guesses a password until the account must be locked, and checks that it is: no acknowledged wrong password
        is forgotten. The user is not used again afterwards."""
        while user.wrong_min < FAILURES_MAX:
            outcome = self.call("Login", email=user.email, password="wrong-Password-77-kettle")
            if outcome.reason == "TOO_MANY_ATTEMPTS" and user.wrong_max >= FAILURES_MAX:
                return
            if outcome.reason != "INVALID_CREDENTIALS":
                raise Violation(f"{user.name}: wrong password {user.wrong_min + 1}, of at most {user.wrong_max} tried: {outcome}")
            self.ledger.end(self.ledger.begin("guess", user.name), "done")
            user = self.ledger.users[user.name]
        outcome = self.call("Login", email=user.email, password=user.passwords[-1])
        if outcome.reason != "TOO_MANY_ATTEMPTS":
            raise Violation(f"{user.name}: {user.wrong_min} wrong passwords were acknowledged, and the next login is {outcome}")
