"""The ways to a token, each on Authlib's class for it.

issuing      what they have in common: audiences, scopes, the tokens of an answer
code         authorization code with PKCE, and OpenID Connect
refresh      refresh tokens, each used once
own          client credentials
device       device codes
exchange     a user's token for another service's (RFC 8693)
"""

from app.services.identity.grants.code import AuthorizationCode, OpenID, Pkce
from app.services.identity.grants.device import Device, DeviceAuthorization
from app.services.identity.grants.exchange import TokenExchange
from app.services.identity.grants.own import ClientCredentials
from app.services.identity.grants.refresh import RefreshToken

__all__ = [
    "AuthorizationCode", "ClientCredentials", "Device", "DeviceAuthorization", "OpenID", "Pkce", "RefreshToken",
    "TokenExchange",
]  # fmt: skip
