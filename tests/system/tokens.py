"""Signed tokens (JWT) for tests, and the keys that a cluster knows."""
import base64
import hashlib
import hmac
import json
import secrets
import subprocess
import time


def _b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def encode(claims, sign, **header):
    """A token; `sign` makes the signature of its first two parts."""
    head = {"typ": "JWT", **header}
    text = ".".join(_b64(json.dumps(part).encode())
                    for part in (head, claims))
    return text + "." + _b64(sign(text.encode()))


class SecretKey:
    """HS256."""

    alg = "HS256"

    def __init__(self, kid, secret=None):
        self.kid = kid
        # Text: a line end at the end of a file is not of the key.
        self.secret = secret or secrets.token_hex(32).encode()

    def write(self, path):
        path.write_bytes(self.secret)

    def sign(self, text):
        return hmac.new(self.secret, text, hashlib.sha256).digest()


class RsaKey:
    """RS256, by the openssl command."""

    alg = "RS256"

    def __init__(self, kid, directory):
        self.kid = kid
        self.private = directory / f"{kid}.key"
        self._openssl("genpkey", "-algorithm", "RSA", "-pkeyopt",
                      "rsa_keygen_bits:2048", "-out", self.private)

    @staticmethod
    def _openssl(*args, **kw):
        return subprocess.run(["openssl", *map(str, args)], check=True,
                              capture_output=True, **kw).stdout

    def write(self, path):
        self._openssl("pkey", "-in", self.private, "-pubout", "-out", path)

    def sign(self, text):
        return self._openssl("dgst", "-sha256", "-sign", self.private,
                             input=text)


class Auth:
    """Whose tokens a cluster takes: its `auth:` section and key files."""

    ISSUER, AUDIENCE = "https://issuer.example", "stentor"

    def __init__(self, *keys):
        self.keys = list(keys) or [SecretKey("k0")]
        self.made = []  # every token, to look for in logs
        self._admin = None

    def path(self, key):
        return self.dir / f"{key.kid}.{'pem' if key.alg != 'HS256' else 'key'}"

    def install(self, directory):
        """Writes the key files; the YAML of the section."""
        self.dir = directory
        text = (f"auth:\n  issuer: {self.ISSUER}\n"
                f"  audience: {self.AUDIENCE}\n  leeway: 0s\n  keys:\n")
        for key in self.keys:
            key.write(self.path(key))
            text += (f"    - kid: {key.kid}\n      alg: {key.alg}\n"
                     f"      file: {self.path(key).name}\n")
        return text

    def token(self, ttl=3600, key=None, **claims):
        """Good unless the claims say otherwise; None leaves one out."""
        key = key or self.keys[0]
        now = int(time.time())
        all_claims = {"iss": self.ISSUER, "aud": self.AUDIENCE, "iat": now,
                      "exp": now + ttl, "jti": secrets.token_hex(8), **claims}
        all_claims = {k: v for k, v in all_claims.items() if v is not None}
        self.made.append(encode(all_claims, key.sign, alg=key.alg,
                                kid=key.kid))
        return self.made[-1]

    def admin(self):
        """May do everything."""
        if self._admin is None:
            self._admin = self.token(sub="root", admin=True, publish=["*"],
                                     subscribe=["*"])
        return self._admin


def bearer(token):
    return {"Authorization": f"Bearer {token}"}
