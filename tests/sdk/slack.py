"""Signs one request by Slack's own SDK and has the SDK judge it.

Reads {"secret", "body", "time"} as JSON, prints the signature; fails if the SDK does not accept
what it has signed. Slack's JavaScript SDK is a whole framework, hence Python.
"""

import json
import sys

from slack_sdk.signature import Clock, SignatureVerifier


class StoppedClock(Clock):
    def __init__(self, at):
        self.at = at

    def now(self):
        return self.at


asked = json.load(sys.stdin)
verifier = SignatureVerifier(asked["secret"], StoppedClock(asked["time"]))
time = str(asked["time"])
signature = verifier.generate_signature(timestamp=time, body=asked["body"])
if not verifier.is_valid(asked["body"], time, signature):
    sys.exit("the SDK does not accept what it has signed")
print(signature)
