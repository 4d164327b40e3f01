"""Device codes (RFC 8628): for what has no keyboard. A person allows it on another machine."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from authlib.consts import default_json_headers
from authlib.oauth2.rfc6749 import AccessDeniedError, InvalidGrantError, InvalidScopeError, UnauthorizedClientError
from authlib.oauth2.rfc8628 import (
    AuthorizationPendingError,
    DeviceAuthorizationEndpoint,
    DeviceCodeGrant,
    ExpiredTokenError,
    SlowDownError,
)

from app.services.identity import client_auth, repository
from app.services.identity.accounts import Account
from app.services.identity.authorization import DeviceCode, Family
from app.services.identity.client import DEVICE_CODE, Client, digest, new_secret
from app.services.identity.grants import issuing
from app.services.identity.grants.issuing import Issuing
from app.services.identity.requests import IdentityRequest
from app.web import await_, resources

VERIFICATION_PATH = "/account/device"
_ATTEMPTS = 5


class DeviceAuthorization(DeviceAuthorizationEndpoint):  # type: ignore[misc]  # Authlib ships no types
    """Where a device gets its two codes."""

    CLIENT_AUTH_METHODS = client_auth.ANY

    def create_endpoint_response(self, request: IdentityRequest) -> tuple[int, dict[str, Any], Any]:
        client: Client = self.authenticate_client(request)
        if not client.check_grant_type(DEVICE_CODE):
            raise UnauthorizedClientError("The client is not registered for this grant.")
        code, secret = self._new(request, client)
        settings = resources.settings
        page = settings.auth.issuer + VERIFICATION_PATH
        shown = f"{code.user_code[:4]}-{code.user_code[4:]}"
        answer = {
            "device_code": secret,
            "user_code": shown,
            "verification_uri": page,
            "verification_uri_complete": f"{page}?user_code={shown}",
            "expires_in": int(settings.identity.device_code_seconds),
            "interval": code.interval_seconds,
        }
        return 200, answer, default_json_headers

    def _new(self, request: IdentityRequest, client: Client) -> tuple[DeviceCode, str]:
        scope = client.get_allowed_scope(request.payload.scope)
        if scope is None:
            raise InvalidScopeError
        settings, secret = resources.settings.identity, new_secret()
        code = DeviceCode(
            digest=digest(secret),
            user_code="",
            client_id=client.client_id,
            scope=scope,
            audience=issuing.audience_of(request, client),
            state="pending",
            account_id=None,
            session_digest=None,
            auth_time=None,
            interval_seconds=max(1, round(settings.device_interval_seconds)),
            polled_at=None,
            expires_at=datetime.now(UTC) + timedelta(seconds=settings.device_code_seconds),
        )
        for _ in range(_ATTEMPTS):
            # Stored as it is compared: without the dash that makes it readable.
            code = replace(code, user_code=self.generate_user_code().replace("-", ""))
            if await_(repository.tokens.add_device_code(code)):
                return code, secret
        raise RuntimeError("no user code is free")


class Device(Issuing, DeviceCodeGrant):  # type: ignore[misc]  # Authlib ships no types
    """Where it asks for its tokens, again and again."""

    def validate_token_request(self) -> None:
        client = self.authenticate()
        secret = issuing.required(self.request, "device_code")
        code = await_(repository.tokens.find_device_code(digest(secret)))
        if code is None or code.client_id != client.client_id:
            raise InvalidGrantError("The device code is not known.")
        self.require_same_audience(code.audience)
        self.request.user = self._approved_by(code)
        self.request.credential = code

    def _approved_by(self, code: DeviceCode) -> Account:
        now = datetime.now(UTC)
        if code.state == "used":
            raise InvalidGrantError("The device code was used before.")
        if now >= code.expires_at:
            raise ExpiredTokenError
        if code.state == "denied":
            raise AccessDeniedError
        if not await_(repository.tokens.poll(code, now=now)):
            raise SlowDownError
        if code.state == "pending" or code.account_id is None:
            raise AuthorizationPendingError
        return issuing.living_account(code.account_id)

    def generate_token(self, user: Account, scope: str, **_: Any) -> dict[str, Any]:
        code: DeviceCode = self.request.credential
        now = datetime.now(UTC)
        family = Family(
            issuing.new_sid(),
            code.client_id,
            user.id,
            code.session_digest,
            issuing.narrowed(scope, user),
            code.audience,
            code.auth_time or now,
            now,
            issuing.family_until(self.request.client, now),
        )
        return self.user_token(user, family, scope)

    def save_token(self, token: dict[str, Any]) -> None:
        family = self.request.family
        assert family is not None  # noqa: S101  # generate_token has set it
        if not await_(repository.tokens.redeem_device_code(self.request.credential.digest, family, self.new_refresh)):
            raise InvalidGrantError("The device code was used before.")
        await_(repository.note("token_issued", self.request.user, client_id=family.client_id, detail=token["scope"]))
