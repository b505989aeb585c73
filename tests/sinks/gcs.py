"""A fake of Google Cloud Storage for the tests: none of the emulators in the registries keeps the
condition of a request of the XML API.

    gcs.py PORT JOURNAL KEY   answers on loopback

It takes nothing that the documentation of the XML API does not: put, get and list of objects in the
bucket `hooks`, for whom a JWT names that the private key in the file KEY has signed. Lists come in
pages that are shorter than Google's. What it was given it keeps in the journal, written before its
sender hears of it, so that one that is killed has what it has answered for. How Google's own servers
behave it cannot show.
"""

import base64
import hashlib
import json
import os
import sys
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

from account import EMAIL, HEAD, public_key, signed, timely

BUCKET = "hooks"
# Any of them lets objects be made.
SCOPES = {
    "https://www.googleapis.com/auth/cloud-platform",
    "https://www.googleapis.com/auth/devstorage.full_control",
    "https://www.googleapis.com/auth/devstorage.read_write",
}
NAME_BYTES_MAX = 1024
KEYS_OF_A_PAGE = 3
LIST_WORDS = {"list-type", "prefix", "delimiter", "start-after", "continuation-token", "max-keys"}


class Refused(Exception):
    """An answer that is no success: HTTP status, code of the error, why."""


class Store:
    def __init__(self, journal, key):
        with open(key, "rb") as file:
            self.key = public_key(file.read())
        self.journal = os.open(journal, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with open(journal, "rb") as file:
            whole, end, _ = file.read().rpartition(b"\n")
        # What is behind the last end nobody was told of.
        os.ftruncate(self.journal, len(whole) + len(end))
        lines = [json.loads(line) for line in whole.splitlines()]
        self.objects = {line["name"]: line for line in lines}
        self.lock = threading.Lock()

    def admit(self, authorization):
        """Whoever brings a JWT of the account's own (google.aip.dev/auth/4111)."""
        try:
            word, token = (authorization or "").split(" ")
            head, claim = signed(token, self.key)
            wanted = {"iss": EMAIL, "sub": EMAIL}
            who = {name: claim[name] for name in wanted}
            known = word == "Bearer" and head == HEAD and who == wanted
            known = known and claim["scope"] in SCOPES and timely(claim, time.time())
        except (ValueError, KeyError):
            known = False
        if not known:
            raise Refused(401, "AuthenticationRequired", "Authentication required.")

    def put(self, name, data, condition):
        if not 0 < len(name.encode()) <= NAME_BYTES_MAX or "\n" in name or "\r" in name:
            raise Refused(400, "InvalidObjectName", "The specified object name is not valid.")
        with self.lock:
            there = self.objects.get(name)
            generation = there["generation"] if there else 0
            if condition is not None and condition != str(generation):
                why = "At least one of the pre-conditions you specified did not hold."
                raise Refused(412, "PreconditionFailed", why)
            text = base64.b64encode(data).decode()
            made = {"name": name, "generation": time.time_ns() // 1000, "data": text}
            os.write(self.journal, (json.dumps(made) + "\n").encode())
            self.objects[name] = made
        return made

    def get(self, name):
        if name not in self.objects:
            raise Refused(404, "NoSuchKey", "The specified key does not exist.")
        return self.objects[name]

    def page(self, words):
        if not set(words) <= LIST_WORDS or words.get("list-type") != "2":
            raise Refused(400, "InvalidArgument", "Invalid argument.")
        prefix, after = words.get("prefix", ""), words.get("start-after", "")
        if "continuation-token" in words:
            after = base64.b64decode(words["continuation-token"]).decode()
        with self.lock:
            found = sorted(self.objects.values(), key=lambda found: found["name"])
        found = [one for one in found if one["name"].startswith(prefix)]
        parts = [f"<Name>{BUCKET}</Name><Prefix>{escape(prefix)}</Prefix>"]
        if words.get("delimiter"):
            found, folders = without_folders(found, prefix, words["delimiter"])
            parts += [f"<CommonPrefixes><Prefix>{escape(of)}</Prefix></CommonPrefixes>" for of in folders]
        found = [one for one in found if one["name"] > after]
        page = found[: min(KEYS_OF_A_PAGE, int(words.get("max-keys", KEYS_OF_A_PAGE)))]
        parts.append(f"<IsTruncated>{'true' if len(page) < len(found) else 'false'}</IsTruncated>")
        if len(page) < len(found):
            token = base64.b64encode(page[-1]["name"].encode()).decode()
            parts.append(f"<NextContinuationToken>{token}</NextContinuationToken>")
        parts += [contents(one) for one in page]
        space = "http://doc.s3.amazonaws.com/2006-03-01"
        return f"<ListBucketResult xmlns='{space}'>{''.join(parts)}</ListBucketResult>"


def without_folders(found, prefix, delimiter):
    """What lies in the folder itself, and the folders in it."""
    rests = [(one, one["name"].removeprefix(prefix)) for one in found]
    folders = {prefix + rest.split(delimiter)[0] + delimiter for _, rest in rests if delimiter in rest}
    return [one for one, rest in rests if delimiter not in rest], sorted(folders)


def contents(one):
    seconds, micros = divmod(one["generation"], 1_000_000)
    when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{micros // 1000:03}Z"
    data = base64.b64decode(one["data"])
    return (
        f"<Contents><Key>{escape(one['name'])}</Key><Generation>{one['generation']}</Generation>"
        f"<MetaGeneration>1</MetaGeneration><LastModified>{when}</LastModified>"
        f"<ETag>{tag(data)}</ETag><Size>{len(data)}</Size></Contents>"
    )


def tag(data):
    return f'"{hashlib.md5(data).hexdigest()}"'


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store = None

    def do_PUT(self):
        length = self.headers["Content-Length"]
        data = self.rfile.read(int(length or 0))
        self.answer(lambda name, words: self.put(name, words, length, data))

    def do_GET(self):
        self.answer(self.get)

    def put(self, name, words, length, data):
        if length is None:
            raise Refused(411, "MissingContentLength", "You must provide a content length.")
        if name is None or words:
            raise Refused(400, "InvalidArgument", "Invalid argument.")
        made = self.store.put(name, data, self.headers["x-goog-if-generation-match"])
        return of(made, data), b""

    def get(self, name, words):
        if name is None:
            return {"Content-Type": "application/xml"}, self.store.page(words).encode()
        if words:
            raise Refused(400, "InvalidArgument", "Invalid argument.")
        found = self.store.get(name)
        data = base64.b64decode(found["data"])
        return of(found, data), data

    def answer(self, work):
        status = 200
        try:
            self.store.admit(self.headers["Authorization"])
            url = urlsplit(self.path)
            bucket, slash, name = url.path[1:].partition("/")
            if bucket != BUCKET:
                raise Refused(404, "NoSuchBucket", "The specified bucket does not exist.")
            words = dict(parse_qsl(url.query, strict_parsing=bool(url.query)))
            headers, body = work(unquote(name) if slash else None, words)
        except Refused as refused:
            status, code, why = refused.args
            headers = {"Content-Type": "application/xml"}
            body = f"<Error><Code>{code}</Code><Message>{why}</Message></Error>".encode()
        self.send_response(status)
        for header, value in headers.items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


def of(one, data):
    """The headers that go with an object."""
    return {
        "ETag": tag(data),
        "Last-Modified": formatdate(one["generation"] // 1_000_000, usegmt=True),
        "x-goog-generation": str(one["generation"]),
        "x-goog-metageneration": "1",
    }


Handler.store = Store(*sys.argv[2:])
server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
server.daemon_threads = True
server.serve_forever()
