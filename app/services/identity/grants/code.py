"""Authorization code with PKCE (RFC 6749, 4.1; RFC 7636), and OpenID Connect's additions to it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from authlib.oauth2.rfc6749 import InvalidGrantError, InvalidRequestError, OAuth2Error
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oidc.core import OpenIDCode

from app.services.identity import key_store, repository, tokens
from app.services.identity.accounts import Account
from app.services.identity.authorization import Code
from app.services.identity.client import Client, digest
from app.services.identity.grants import issuing
from app.services.identity.grants.issuing import Issuing
from app.services.identity.requests import IdentityRequest
from app.web import await_, resources

_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_AGE = re.compile(r"[0-9]{1,9}")
_LONGEST_NONCE = 255


class AuthorizationCode(Issuing, AuthorizationCodeGrant):  # type: ignore[misc]  # Authlib ships no types
    """A code, for a person's yes, used once; one that comes twice ends what came of it."""

    @staticmethod
    def validate_authorization_redirect_uri(request: IdentityRequest, client: Client) -> str:
        # Authlib repeats the address in its error, which breaks on characters that an error must not have.
        asked: str | None = request.payload.redirect_uri
        if not asked:
            raise InvalidRequestError("Missing 'redirect_uri' in request.")
        if not client.check_redirect_uri(asked):
            raise InvalidRequestError("The redirect_uri is not one that the client is registered with.")
        return asked

    def validate_requested_scope(self) -> None:
        data = self.request.payload.data
        issuing.audience_of(self.request, self.request.client)
        for name in ("request", "request_uri"):
            if name in data:
                raise InvalidRequestError(f"'{name}' is not supported.", error=f"{name}_not_supported")
        if data.get("response_mode", "query") != "query":
            raise InvalidRequestError("The only 'response_mode' is query.")
        if not _AGE.fullmatch(data.get("max_age", "0")):
            raise InvalidRequestError("The 'max_age' is no number of seconds.")

    def create_authorization_response(self, redirect_uri: str, grant_user: Account | None) -> Any:
        try:
            return super().create_authorization_response(redirect_uri, grant_user)
        except OAuth2Error as error:
            # The address is the client's: it is to hear of it.
            error.redirect_uri = redirect_uri
            raise

    def save_authorization_code(self, code: str, request: IdentityRequest) -> None:
        account, session, data = request.user, request.session, request.payload.data
        now = datetime.now(UTC)
        saved = Code(
            digest=digest(code),
            sid=issuing.new_sid(),
            client_id=request.client.client_id,
            account_id=account.id,
            session_digest=None if session is None else session.digest,
            redirect_uri=data["redirect_uri"],
            scope=issuing.narrowed(request.scope, account),
            audience=issuing.audience_of(request, request.client),
            nonce=data.get("nonce") or None,
            challenge=data["code_challenge"],
            auth_time=now if session is None else session.auth_time,
            expires_at=now + timedelta(seconds=resources.settings.identity.code_seconds),
        )
        await_(repository.tokens.add_code(saved))

    def query_authorization_code(self, code: str, client: Client) -> Code | None:
        found = await_(repository.tokens.find_code(digest(code)))
        if found is None or found.client_id != client.client_id:
            return None
        if found.used_at is not None:
            await_(repository.revoke_family(found.sid, "code_reused"))
            return None
        self.require_same_audience(found.audience)
        return found if datetime.now(UTC) < found.expires_at else None

    def authenticate_user(self, authorization_code: Code) -> Account:
        return issuing.living_account(authorization_code.account_id)

    def generate_token(self, user: Account, scope: str, **_: Any) -> dict[str, Any]:
        code: Code = self.request.authorization_code
        now = datetime.now(UTC)
        self.request.nonce = code.nonce
        return self.user_token(user, code.found(now, issuing.family_until(self.request.client, now)), scope)

    def save_token(self, token: dict[str, Any]) -> None:
        code, family = self.request.authorization_code, self.request.family
        assert family is not None  # noqa: S101  # generate_token has set it
        if not await_(repository.tokens.redeem(code, family, self.new_refresh)):
            await_(repository.revoke_family(code.sid, "code_reused"))
            raise InvalidGrantError("The code was used before.")
        await_(repository.note("token_issued", self.request.user, client_id=code.client_id, detail=token["scope"]))

    def delete_authorization_code(self, authorization_code: Code) -> None:
        """It stays, marked as used: who comes with it again is found out."""


class Pkce(CodeChallenge):  # type: ignore[misc]  # Authlib ships no types
    """S256 alone, and never without: for confidential clients, too (RFC 9700, 2.1.1)."""

    SUPPORTED_CODE_CHALLENGE_METHOD = ["S256"]  # noqa: RUF012  # Authlib's

    def validate_code_challenge(self, grant: AuthorizationCode, redirect_uri: str) -> None:
        data = grant.request.payload.data
        if not data.get("code_challenge"):
            raise InvalidRequestError("Missing 'code_challenge' in request.")
        # Without a method, RFC 7636 takes it for plain.
        if data.get("code_challenge_method") != "S256":
            raise InvalidRequestError("The 'code_challenge_method' must be S256.")
        if not _CHALLENGE.fullmatch(data["code_challenge"]):
            raise InvalidRequestError("The 'code_challenge' is no S256 challenge.")

    def get_authorization_code_challenge(self, authorization_code: Code) -> str:
        return authorization_code.challenge

    def get_authorization_code_challenge_method(self, authorization_code: Code) -> str:
        return "S256"


class OpenID(OpenIDCode):  # type: ignore[misc]  # Authlib ships no types
    """With the scope ``openid`` an ID token comes along; also with a refresh and for a device."""

    def exists_nonce(self, nonce: str, request: IdentityRequest) -> bool:
        if len(nonce) > _LONGEST_NONCE:
            raise InvalidRequestError(f"The nonce has more than {_LONGEST_NONCE} characters.")
        # The nonce is the client's own protection; ours is the code, which is used once.
        return False

    def encode_id_token(self, token: dict[str, Any], request: IdentityRequest) -> str:
        family = request.family
        assert family is not None  # noqa: S101  # the grant has set it
        key = await_(key_store.ring().signer())
        claims = tokens.for_id(
            issuing.issue(),
            request.user,
            family,
            scope=token["scope"],
            nonce=request.nonce,
            at_hash=tokens.half_hash(token["access_token"], key.algorithm),
        )
        return tokens.sign(claims, key, kind="JWT")
