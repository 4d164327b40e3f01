"""The token in a form, which says that the form is ours: a signed double submit (OWASP, "CSRF prevention").

It is an HMAC over the secret in a cookie of the same browser: another site can neither read the cookie nor make the token,
and a token is worth nothing in another browser. The key comes from the settings, so every replica accepts it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

# Without a key in the settings there is one process; its forms end with it.
_OF_THIS_PROCESS = secrets.token_bytes(32)
_PURPOSE = b"mesh identity form\0"


def key(secret: str | None) -> bytes:
    """The key of forms, derived from the settings' secret."""
    if secret is None:
        return _OF_THIS_PROCESS
    return hmac.digest(secret.encode(), _PURPOSE, hashlib.sha256)


def token(form_key: bytes, cookie: str) -> str:
    """What a form of the browser with this cookie must carry."""
    return hmac.new(form_key, _bytes(cookie), hashlib.sha256).hexdigest()


def is_ours(form_key: bytes, cookie: str, sent: str) -> bool:
    return bool(cookie) and hmac.compare_digest(_bytes(token(form_key, cookie)), _bytes(sent))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
