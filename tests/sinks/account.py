"""What the fakes of Google's services have in common: the key of an account, and what it has signed."""

import base64
import json

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

EMAIL = "forebay@forebay-tests.iam.gserviceaccount.com"
HEAD = {"alg": "RS256", "typ": "JWT", "kid": "the-key-of-the-tests"}


def unpadded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def public_key(private):
    return serialization.load_pem_private_key(private, None).public_key()


def signed(token, key):
    """Head and claim of a JWT that this key has signed; ValueError if it has not."""
    head, claim, signature = token.split(".")
    try:
        text = f"{head}.{claim}".encode()
        key.verify(unpadded(signature), text, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        raise ValueError("another key") from None
    return json.loads(unpadded(head)), json.loads(unpadded(claim))


def timely(claim, now):
    """Whether a claim holds now: it is not from the future, and for an hour at the most."""
    return claim["iat"] < now + 60 and now < claim["exp"] <= claim["iat"] + 3600
