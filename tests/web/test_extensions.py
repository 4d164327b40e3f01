# mypy: disable-error-code="untyped-decorator, misc"
# The extensions are untyped.
"""Extensions that were written for WSGI work on the bridge as they are."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

import pytest
from authlib.integrations.flask_oauth2 import ResourceProtector, current_token
from authlib.oauth2.rfc6750 import BearerTokenValidator
from flask import g
from flask_caching import Cache
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user, logout_user
from flask_principal import Identity, Permission, Principal, RoleNeed, identity_changed

from app.web.bridge import AsyncFlask
from tests.web.harness import Exchange, serving


@pytest.fixture
def app() -> AsyncFlask:
    app = AsyncFlask("tests.web.extensions")
    app.secret_key = "for tests alone"
    return app


async def get(app: AsyncFlask, path: str, *headers: tuple[bytes, bytes]) -> Exchange:
    return await Exchange(path=path, headers=[(b"host", b"localhost"), *headers]).run(app.asgi_app)


def cookie_of(answer: Exchange) -> tuple[bytes, bytes]:
    values = [value.split(b";")[0] for name, value in answer.headers if name == b"set-cookie"]
    return b"cookie", b"; ".join(values)


async def test_flask_login_guards_async_and_plain_views(app: AsyncFlask) -> None:
    manager = LoginManager(app)

    class User(UserMixin):
        id = "ada"

    @manager.user_loader
    def load(user_id: str) -> User | None:
        return User() if user_id == "ada" else None

    @app.get("/login")
    async def login() -> str:
        await asyncio.sleep(0)
        login_user(User())
        return "in"

    @app.get("/async")
    @login_required
    async def asynchronous() -> str:
        await asyncio.sleep(0)
        return f"async {current_user.id}"

    @app.get("/plain")
    @login_required
    def plain() -> str:
        return f"plain {current_user.id}"

    @app.get("/logout")
    @login_required
    async def logout() -> str:
        logout_user()
        return "out"

    assert [(await get(app, path)).status for path in ("/async", "/plain")] == [401, 401]
    cookie = cookie_of(await get(app, "/login"))
    assert (await get(app, "/async", cookie)).body == b"async ada"
    assert (await get(app, "/plain", cookie)).body == b"plain ada"
    after = cookie_of(await get(app, "/logout", cookie))
    assert (await get(app, "/async", after)).status == 401


async def test_flask_principal_checks_needs(app: AsyncFlask) -> None:
    Principal(app, use_sessions=False)
    admin = Permission(RoleNeed("admin"))

    @app.before_request
    async def identify() -> None:
        await asyncio.sleep(0)
        identity = Identity("ada")
        if g.get("admin", False) or app.config.get("ADMIN"):
            identity.provides.add(RoleNeed("admin"))
        identity_changed.send(app, identity=identity)

    @app.get("/")
    @admin.require(403)
    async def view() -> str:
        await asyncio.sleep(0)
        return "admin only"

    assert (await get(app, "/")).status == 403
    app.config["ADMIN"] = True
    assert (await get(app, "/")).body == b"admin only"


async def test_flask_caching_caches_async_and_plain_views(app: AsyncFlask) -> None:
    calls = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cache = Cache(app, config={"CACHE_TYPE": "SimpleCache"})

    @app.get("/async")
    @cache.cached(timeout=60)
    async def asynchronous() -> str:
        await asyncio.sleep(0)
        calls.append("async")
        return "async"

    @app.get("/plain")
    @cache.cached(timeout=60)
    def plain() -> str:
        calls.append("plain")
        return "plain"

    for path in ("/async", "/async", "/plain", "/plain"):
        assert (await get(app, path)).body == path[1:].encode()
    assert calls == ["async", "plain"]


async def test_flask_limiter_limits_async_and_plain_views(app: AsyncFlask) -> None:
    limiter = Limiter(get_remote_address, app=app, storage_uri="memory://")

    @app.get("/async")
    @limiter.limit("2/hour")
    async def asynchronous() -> str:
        await asyncio.sleep(0)
        return "ok"

    @app.get("/plain")
    @limiter.limit("1/hour")
    def plain() -> str:
        return "ok"

    assert [(await get(app, "/async")).status for _ in range(3)] == [200, 200, 429]
    assert [(await get(app, "/plain")).status for _ in range(2)] == [200, 429]


async def test_authlibs_resource_protector_guards_async_views(app: AsyncFlask) -> None:
    class Token:
        def __init__(self, subject: str) -> None:
            self.subject = subject

        def get_scope(self) -> str:
            return "read"

        def is_expired(self) -> bool:
            return False

        def is_revoked(self) -> bool:
            return False

    class Validator(BearerTokenValidator):
        def authenticate_token(self, token_string: str) -> Token | None:
            return Token("ada") if token_string == "good" else None

    require = ResourceProtector()
    require.register_token_validator(Validator())

    @app.get("/")
    @require("read")
    async def view() -> str:
        await asyncio.sleep(0)
        return f"hello {current_token.subject}"

    @app.get("/write")
    @require("write")
    async def write() -> str:
        return "never"

    assert (await get(app, "/", (b"authorization", b"Bearer good"))).body == b"hello ada"
    assert (await get(app, "/", (b"authorization", b"Bearer bad"))).status == 401
    assert (await get(app, "/write", (b"authorization", b"Bearer good"))).status == 403


async def test_static_files_and_templates_are_served(app: AsyncFlask, tmp_path: Any) -> None:
    (tmp_path / "large.bin").write_bytes(b"0123456789" * 50_000)
    served = AsyncFlask("tests.web.static", static_folder=str(tmp_path), static_url_path="/files")
    async with serving(served.asgi_app) as client:
        async with client.get("/files/large.bin") as whole:
            assert (whole.status, len(await whole.read())) == (200, 500_000)
        async with client.get("/files/large.bin", headers={"Range": "bytes=5-9"}) as part:
            assert (part.status, await part.read()) == (206, b"56789")
        async with client.get("/files/large.bin", headers={"If-None-Match": whole.headers["ETag"]}) as same:
            assert (same.status, await same.read()) == (304, b"")
