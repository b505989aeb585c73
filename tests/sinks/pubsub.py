"""A fake of Google Cloud Pub/Sub for the tests: nobody's own emulator runs without a Java of its own.

    pubsub.py PORT JOURNAL KEY TOKEN_URI   answers on loopback, and lends tokens there

It takes nothing that the documentation of `projects.topics.publish` does not, and refuses as it says;
it lends tokens for claims that are signed by the private key in the file KEY. What it was given it
keeps in the journal, written before its sender hears of it, so that one that is killed has what it
has answered for. How Google's own servers behave it cannot show.
"""

import base64
import hmac
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

from account import EMAIL, HEAD, public_key, signed, timely

TOPIC = "/v1/projects/forebay-tests/topics/hooks"
SCOPE = "https://www.googleapis.com/auth/pubsub"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
# So short that every test has tokens that end.
TOKEN_LIFE_S = 4
# The documented limits.
MESSAGES_MAX = 1000
REQUEST_BYTES_MAX = 10_000_000
ATTRIBUTES_MAX = 100
KEY_BYTES_MAX = 256
VALUE_BYTES_MAX = 1024
ORDERING_KEY_BYTES_MAX = 1024
# Beyond what JSON makes of the largest request.
BODY_BYTES_MAX = 20_000_000


class Refused(Exception):
    """An answer that is no success: HTTP status, word of google.rpc.Code, why."""


def bad(why):
    return Refused(400, "INVALID_ARGUMENT", why)


def must(holds, why):
    if not holds:
        raise bad(why)


class Pubsub:
    def __init__(self, journal, key, token_uri):
        self.token_uri = token_uri
        with open(key, "rb") as file:
            self.private = file.read()
        self.key = public_key(self.private)
        self.journal = os.open(journal, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with open(journal, "rb") as file:
            whole = file.read().rpartition(b"\n")
        # What is behind the last end nobody was told of.
        os.ftruncate(self.journal, len(whole[0]) + len(whole[1]))
        self.count = whole[0].count(b"\n") + bool(whole[0])
        self.lock = threading.Lock()

    def seal(self, until):
        return hmac.new(self.private, str(until).encode(), "sha256").hexdigest()

    def lend(self, form):
        """A token for a claim (RFC 7523)."""
        if form.get("grant_type") != [GRANT] or set(form) != {"grant_type", "assertion"}:
            raise Refused(400, "unsupported_grant_type", "no such grant")
        try:
            head, claim = signed(form["assertion"][0], self.key)
        except ValueError:
            raise Refused(400, "invalid_grant", "Invalid JWT Signature.") from None
        now = time.time()
        wanted = {
            "iss": EMAIL,
            "scope": SCOPE,
            "aud": self.token_uri,
            "iat": claim.get("iat"),
            "exp": claim.get("exp"),
        }
        if claim != wanted or head != HEAD or not timely(claim, now):
            raise Refused(400, "invalid_grant", "Invalid JWT: another claim is expected.")
        until = int(now) + TOKEN_LIFE_S
        token = f"ya29.{until}.{self.seal(until)}"
        return {"access_token": token, "expires_in": TOKEN_LIFE_S, "token_type": "Bearer"}

    def admit(self, authorization):
        try:
            word, token = (authorization or "").split(" ")
            _, until, seal = token.split(".")
            fresh = word == "Bearer" and float(until) + 1 > time.time()
        except ValueError:
            fresh, until, seal = False, "", ""
        if not (fresh and hmac.compare_digest(seal, self.seal(until))):
            raise Refused(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")

    def publish(self, request):
        must(isinstance(request, dict) and set(request) == {"messages"}, "unknown name in the request")
        messages = request["messages"]
        must(isinstance(messages, list) and messages, "no messages")
        must(len(messages) <= MESSAGES_MAX, "the request has too many messages")
        bytes_all = 0
        for message in messages:
            must(isinstance(message, dict), "a message is no object")
            must(set(message) <= {"data", "attributes", "orderingKey"}, "unknown name in a message")
            bytes_all += self.bytes_of(message)
        must(bytes_all <= REQUEST_BYTES_MAX, "the request is too large")
        keys = {message.get("orderingKey", "") for message in messages}
        must(len(keys) == 1, "all messages of a request must have the same ordering key")
        with self.lock:
            ids = [str(self.count + place) for place in range(len(messages))]
            self.count += len(messages)
            lines = [json.dumps({"id": id, **message}) + "\n" for id, message in zip(ids, messages)]
            os.write(self.journal, "".join(lines).encode())
        return {"messageIds": ids}

    def bytes_of(self, message):
        data = message.get("data", "")
        must(isinstance(data, str), "data is no text")
        try:
            data = base64.b64decode(data, validate=True)
        except ValueError:
            raise bad("data is no base64") from None
        attributes = message.get("attributes", {})
        must(data or attributes, "a message has neither data nor attributes")
        must(len(attributes) <= ATTRIBUTES_MAX, "a message has too many attributes")
        for name, value in attributes.items():
            must(isinstance(value, str), "the value of an attribute is no text")
            must(0 < len(name.encode()) <= KEY_BYTES_MAX, "the name of an attribute is too long")
            must(not name.startswith("goog"), "the name of an attribute is Google's")
            must(len(value.encode()) <= VALUE_BYTES_MAX, "the value of an attribute is too long")
        key = message.get("orderingKey", "")
        must(len(key.encode()) <= ORDERING_KEY_BYTES_MAX, "an ordering key is too long")
        # Stands for the schema of a topic.
        must(b'"poison"' not in data, "the message does not match the schema of the topic")
        texts = [key, *attributes, *attributes.values()]
        return len(data) + sum(len(text.encode()) for text in texts)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    pubsub = None

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(min(length, BODY_BYTES_MAX))
        self.answer(lambda: self.take(body))

    def do_GET(self):
        self.answer(self.look)

    def take(self, body):
        kind = self.headers["Content-Type"]
        if self.path == "/token":
            must(kind == "application/x-www-form-urlencoded", "no form")
            return self.pubsub.lend(parse_qs(body.decode(), strict_parsing=True))
        self.pubsub.admit(self.headers["Authorization"])
        must(kind == "application/json", "no JSON")
        if self.path != TOPIC + ":publish":
            raise Refused(404, "NOT_FOUND", "Resource not found (resource=hooks).")
        try:
            request = json.loads(body)
        except ValueError:
            raise bad("Invalid JSON payload received.") from None
        return self.pubsub.publish(request)

    def look(self):
        self.pubsub.admit(self.headers["Authorization"])
        if self.path != TOPIC:
            raise Refused(404, "NOT_FOUND", "Resource not found (resource=hooks).")
        return {"name": TOPIC.removeprefix("/v1/")}

    def answer(self, work):
        try:
            status, reply = 200, work()
        except Refused as refused:
            status, word, why = refused.args
            error = {"code": status, "status": word, "message": why}
            reply = {"error": error}
            if self.path == "/token":
                reply = {"error": word, "error_description": why}
        text = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *words):
        pass


Handler.pubsub = Pubsub(*sys.argv[2:])
server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
server.daemon_threads = True
server.serve_forever()
