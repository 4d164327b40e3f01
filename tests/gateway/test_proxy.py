from __future__ import annotations

import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.gateway.conftest import House, until

MB = 2**20


async def get_json(house: House, path: str, **options: Any) -> Any:
    async with house.client.get(house.url + path, **options) as response:
        assert response.status == 200, await response.text()
        return json.loads(await response.read())


async def problem(response: aiohttp.ClientResponse) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = json.loads(await response.read())
    assert document["status"] == response.status
    assert document["request_id"] == response.headers["x-request-id"]
    return document


# ------------------------------------------------------------------------------------------------ routing


async def test_the_longest_prefix_on_a_border_of_segments_decides(house: House) -> None:
    await house.serve("users", "/users")
    await house.serve("admins", "/users/admin")
    for path, service in {
        "/users": "users",
        "/users/": "users",
        "/users/7?x=/users/admin": "users",
        "/users/administrator": "users",
        "/users/admin": "admins",
        "/users/admin/7": "admins",
    }.items():
        assert (await get_json(house, path))["service"] == service, path


@pytest.mark.parametrize("path", ["/usersx", "/Users", "/user", "/nobody/users", "/users.json", "//users"])
async def test_a_path_that_nobody_announced_is_a_404_problem(house: House, path: str) -> None:
    users = await house.serve("users", "/users")
    async with house.client.get(house.url + path) as response:
        assert response.status == 404
        document = await problem(response)
    assert (document["code"], document["instance"]) == ("not_found", path)
    assert users.seen == []


async def test_a_service_without_a_ready_instance_is_a_503_problem_that_says_when_to_try_again(house: House) -> None:
    users = await house.serve("users", "/users")
    users.mesh.membership.set_state("draining")
    directory = house.edge.mesh.directory
    await until(lambda: not directory.ready("users"))
    async with house.client.get(house.url + "/users/7") as response:
        assert response.status == 503
        assert int(response.headers["retry-after"]) >= 1
        assert (await problem(response))["code"] == "no_instance"


async def test_a_service_that_appears_is_reached_and_one_that_leaves_is_away_and_not_unknown(house: House) -> None:
    async with house.client.get(house.url + "/users/7") as response:
        assert response.status == 404
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with house.announced("users", url, "/users"), house.client.get(house.url + "/users/7") as response:
        assert response.status == 503
        assert (await problem(response))["code"] == "peer_unreachable"
    server.close()
    await until(lambda: not house.edge.mesh.directory.instances("users"))
    async with house.client.get(house.url + "/users/7") as response:
        assert response.status == 503
        assert (await problem(response))["code"] == "no_instance"


async def test_the_gateways_own_paths_stay_here_whatever_services_announce(house: House) -> None:
    thief = await house.serve("thief", "/livez", "/docs", "/metrics")
    assert await get_json(house, "/livez") == {"status": "alive"}
    assert (await get_json(house, "/openapi.json"))["info"]["title"] == "gateway"
    for path in ("/metrics", "/docs", "/docs/assets/css/swagger-ui.css"):
        async with house.client.get(house.url + path) as response:
            assert response.status == 200
    assert thief.seen == []


# ------------------------------------------------------------------------------------------------ what goes in


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"])
async def test_method_body_and_headers_reach_the_service(house: House, method: str) -> None:
    users = await house.serve("users", "/users")
    headers = {"x-mine": "1", "content-type": "text/odd", "accept-encoding": "br", "user-agent": "me"}
    async with house.client.request(method, house.url + "/users/7", data=b"body", headers=headers) as response:
        assert response.status == 200
    [seen] = users.seen
    assert (seen.method, seen.body) == (method, b"body")
    assert headers.items() <= dict(seen.headers).items()
    assert seen.values("content-length") == ["4"]


async def test_a_request_gains_nothing_that_the_client_did_not_say(house: House) -> None:
    users = await house.serve("users", "/users")
    await house.raw(b"GET /users HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n")
    [seen] = users.seen
    assert {name for name, _ in seen.headers} == {
        "host", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host",
        "x-request-id", "x-request-timeout-ms", "x-mesh-caller", "x-mesh-attempt", "x-mesh-target",
    }  # fmt: skip
    assert seen.values("host") == ["shop.example"]


async def test_a_client_cannot_forge_what_services_believe(house: House) -> None:
    users = await house.serve("users", "/users")
    await house.raw(
        b"GET /users HTTP/1.1\r\nHost: h\r\nConnection: close, x-private, x-forwarded-for\r\n"
        b"X-Mesh-Caller: admin\r\nX-Mesh-Attempt: 9\r\nX-Mesh-Secret: 1\r\nX_Mesh_Caller: admin\r\n"
        b"X-Mesh-Target: users-1\r\nX-Mesh-Unprocessed: overloaded\r\n"
        b"X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nForwarded: for=1.2.3.4\r\n"
        b"X-Private: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nProxy-Authorization: Basic x\r\nUpgrade: h3\r\n"
        b"X-Mesh-Sandbox: pr-17\r\nX-Request-Id: mine-1\r\nX-Dup: a\r\nX-Dup: b\r\n\r\n"
    )
    [seen] = users.seen
    assert seen.values("x-mesh-caller") == ["gateway"]
    assert seen.values("x-mesh-attempt") == ["1"]
    assert seen.values("x-mesh-target") == [users.mesh.instance.id]
    assert seen.values("x-mesh-unprocessed") == []
    assert seen.values("x-mesh-sandbox") == ["pr-17"]
    assert seen.values("x-forwarded-for") == ["127.0.0.1"]
    assert seen.values("x-forwarded-proto") == ["http"]
    assert seen.values("x-request-id") == ["mine-1"]
    assert seen.values("x-dup") == ["a", "b"]
    unwanted = {"x-mesh-secret", "x_mesh_caller", "forwarded", "x-private", "keep-alive", "te", "proxy-authorization"}
    assert not unwanted & {name for name, _ in seen.headers}
    assert not {"upgrade", "connection"} & {name for name, _ in seen.headers}


@pytest.mark.parametrize(
    "target",
    [
        "/users/a%2Fb", "/users/%2e%2e/x", "/users/../x", "/users/./a//b/", "/users/%00", "/users/%zz%", "/users/a+b%20c",
        "/users/%C3%A9?q=%C3%A9&q=&&=", "/users?", "/users/;v=1", "/users/a:b@c", '/users/{x}|^`<>"', "/users/\\x",
        "/users?next=http://evil.example/#".removesuffix("#"), "/users/" + "x" * 8000,
    ],
)  # fmt: skip
async def test_the_raw_path_and_query_arrive_byte_for_byte(house: House, target: str) -> None:
    users = await house.serve("users", "/users")
    answer = await house.raw(f"GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 200"), answer
    assert [seen.path for seen in users.seen] == [target.removesuffix("?")]


@pytest.mark.parametrize(
    "line",
    [
        b"GET http://evil.example/users HTTP/1.1", b"GET http://evil.example HTTP/1.1", b"GET //evil.example/users HTTP/1.1",
        b"GET http://user@evil.example/users HTTP/1.1", b"GET ftp://evil.example/users HTTP/1.1", b"OPTIONS * HTTP/1.1",
        b"CONNECT evil.example:443 HTTP/1.1", b"CONNECT /users HTTP/1.1", b"GET users HTTP/1.1", b"GET /users#x HTTP/1.1",
        b"GET /users\x00 HTTP/1.1", b"GET /us\xc3\xa9rs HTTP/1.1", b"GET /users\xff HTTP/1.1", b"GET /%75sers HTTP/1.1",
        b"GET /users/" + b"x" * 20_000 + b" HTTP/1.1", b"GET /users/" + b"/" * 9000 + b" HTTP/1.1",
        b"GET /users?" + b"%" * 9000 + b" HTTP/1.1", b"G\x00T /users HTTP/1.1", b"TRACE /users HTTP/1.1",
    ],
)  # fmt: skip
async def test_an_odd_target_is_routed_or_refused_and_never_an_error_of_ours(house: House, line: bytes) -> None:
    users = await house.serve("users", "/users")
    answer = await house.raw(line + b"\r\nHost: h\r\nConnection: close\r\n\r\n")
    status = int(answer.split(b" ")[1])
    assert status == 200 or 400 <= status < 500, answer
    assert len(users.seen) == (status == 200)
    assert all(seen.values("host")[0] in ("h", "evil.example") for seen in users.seen)
    await get_json(house, "/users")  # and the next request is served as ever


async def test_of_an_absolute_target_the_path_is_followed_and_the_host_only_told(house: House) -> None:
    users = await house.serve("users", "/users")
    answer = await house.raw(b"GET http://shop.example/users/%37?a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    [seen] = users.seen
    assert seen.path == "/users/%37?a"
    assert seen.values("x-forwarded-host") == ["shop.example"]


async def test_a_client_that_asks_before_it_sends_is_told_to_go_on(house: House) -> None:
    users = await house.serve("users", "/users")
    async with house.client.post(house.url + "/users", data=b"x" * 10, expect100=True) as response:
        assert response.status == 200
    assert users.seen[0].body == b"x" * 10
    assert users.seen[0].values("expect") == []


# ------------------------------------------------------------------------------------------------ what comes out


async def test_status_body_and_duplicate_headers_reach_the_client(house: House) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 418 Short And Stout\r\nSet-Cookie: a=1\r\nX-A: 1\r\nSet-Cookie: b=2\r\nConnection: close, X-B\r\n"
            b"X-B: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nServer: s\r\nDate: d\r\n"
            b"Location: /users/8\r\nContent-Length: 4\r\n\r\nbody"
        )

    await house.serve_raw("users", "/users", talk=talk)
    async with house.client.get(house.url + "/users", allow_redirects=False) as response:
        assert response.status == 418
        assert await response.read() == b"body"
        assert response.headers.getall("set-cookie") == ["a=1", "b=2"]
        assert response.headers["location"] == "/users/8"
        assert response.headers["content-length"] == "4"
        assert len(response.headers.getall("date")) == 1
        for name in ("x-b", "keep-alive", "proxy-authenticate"):
            assert name not in response.headers


async def test_the_answer_carries_one_request_id_the_one_that_the_service_saw(house: House) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(headers={"x-request-id": request.headers["x-request-id"]})

    users = await house.serve("users", "/users", handler=handler)
    for sent in ({}, {"x-request-id": "mine-1"}):
        async with house.client.get(house.url + "/users", headers=sent) as response:
            [got] = response.headers.getall("x-request-id")
            assert got == users.seen[-1].values("x-request-id")[0]
            assert got == sent.get("x-request-id", got)


async def test_a_redirect_is_the_clients_to_follow(house: House) -> None:
    async def handler(request: web.Request) -> web.Response:
        raise web.HTTPFound("/users/8")

    users = await house.serve("users", "/users", handler=handler)
    async with house.client.get(house.url + "/users/7", allow_redirects=False) as response:
        assert (response.status, response.headers["location"]) == (302, "/users/8")
    assert len(users.seen) == 1


async def test_a_cookie_that_one_client_gets_is_never_sent_for_another(house: House) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(headers={"set-cookie": "session=alice; Path=/"})

    users = await house.serve("users", "/users", handler=handler)
    for _ in range(2):
        async with house.client.get(house.url + "/users"):
            pass
    assert [seen.values("cookie") for seen in users.seen] == [[], []]


async def test_an_encoded_body_passes_undecoded(house: House) -> None:
    packed = gzip.compress(b"x" * 1000)

    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=packed, headers={"content-encoding": "gzip"})

    await house.serve("users", "/users", handler=handler)
    async with house.client.get(house.url + "/users") as response:
        assert response.headers["content-encoding"] == "gzip"
        assert await response.read() == packed


async def test_answers_without_content_leave_the_connection_usable(house: House) -> None:
    async def handler(request: web.Request) -> web.Response:
        status = int(request.path.rsplit("/", 1)[1])
        return web.Response(status=status, body=b"hello" if status == 200 else None, headers={"etag": '"1"'})

    users = await house.serve("users", "/users", handler=handler)
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    for method, status, length in [("HEAD", 200, b"5"), ("GET", 204, None), ("GET", 304, None), ("HEAD", 204, None)]:
        writer.write(f"{method} /users/{status} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(f"http/1.1 {status}".encode())
        assert b'etag: "1"' in head
        assert (b"content-length: " + length in head) if length else (b"transfer-encoding" not in head)
    writer.write(b"GET /users/200 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).endswith(b"\r\n\r\nhello")
    writer.close()
    assert [seen.method for seen in users.seen] == ["HEAD", "GET", "GET", "HEAD", "GET"]


# ------------------------------------------------------------------------------------------------ streams


async def test_a_download_arrives_as_it_is_made(house: House) -> None:
    arrived = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        await arrived.wait()
        await response.write(b"last")
        return response

    await house.serve("users", "/users", handler=handler)
    async with house.client.get(house.url + "/users") as response:
        assert await response.content.readany() == b"first"
        arrived.set()
        assert await response.read() == b"last"


@pytest.mark.parametrize("declared", [True, False], ids=["with a length", "chunked"])
async def test_an_upload_arrives_as_it_is_sent(house: House, declared: bool) -> None:
    arrived = asyncio.Event()
    first, last = b"x" * 100_000, b"y"

    async def handler(request: web.Request) -> web.Response:
        got = b""
        async for chunk in request.content.iter_any():
            got += chunk
            if len(got) >= len(first):
                arrived.set()
        return web.Response(text=f"{len(got)} {request.headers.get('content-length')}")

    async def body() -> AsyncIterator[bytes]:
        yield first
        await arrived.wait()
        yield last

    await house.serve("users", "/users", handler=handler)
    headers = {"content-length": "100001"} if declared else {}
    async with house.client.post(house.url + "/users", data=body(), headers=headers) as response:
        assert await response.text() == f"100001 {'100001' if declared else None}"


async def test_both_directions_flow_at_once(house: House) -> None:
    echoed: asyncio.Queue[bytes] = asyncio.Queue()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for chunk in request.content.iter_any():
            await response.write(chunk)
        return response

    async def body() -> AsyncIterator[bytes]:
        yield b"ping 0"
        for n in range(1, 4):
            assert await echoed.get() == b"ping %d" % (n - 1)
            yield b"ping %d" % n

    await house.serve("users", "/users", handler=handler)
    async with house.client.post(house.url + "/users", data=body()) as response:
        async for chunk in response.content.iter_any():
            echoed.put_nowait(chunk)
    assert echoed.get_nowait() == b"ping 3"


async def test_a_client_that_does_not_read_holds_the_service_back(house: House) -> None:
    written, held = 0, asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            for _ in range(256):
                async with asyncio.timeout(2):
                    await response.write(b"x" * MB)
                written += MB
        except TimeoutError:
            held.set()
        return response

    await house.serve("users", "/users", handler=handler)
    _, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(b"GET /users HTTP/1.1\r\nHost: h\r\n\r\n")
    async with asyncio.timeout(30):
        await held.wait()
    assert written < 64 * MB
    writer.transport.abort()


async def test_a_service_that_does_not_read_holds_the_client_back(house: House) -> None:
    done = asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        await done.wait()
        return web.Response()

    await house.serve("users", "/users", handler=handler)
    _, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(b"POST /users HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (256 * MB))
    sent = 0
    with suppress(TimeoutError):
        while sent < 256:
            writer.write(b"x" * MB)
            async with asyncio.timeout(2):
                await writer.drain()
            sent += 1
    assert sent < 64
    writer.transport.abort()
    done.set()


# ------------------------------------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize("head", [b"Content-Length: 100\r\n", b"Transfer-Encoding: chunked\r\n"])
async def test_a_service_that_breaks_off_in_the_middle_ends_the_clients_connection(house: House, head: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + (b"4\r\nhalf\r\n" if b"chunked" in head else b"half"))

    await house.serve_raw("users", "/users", talk=talk)
    answer = await house.raw(b"GET /users HTTP/1.1\r\nHost: h\r\n\r\n")  # no Connection: close is asked for
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"half" in answer
    assert not answer.endswith(b"0\r\n\r\n")
    with pytest.raises(aiohttp.ClientPayloadError):
        async with house.client.get(house.url + "/users") as response:
            await response.read()


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [
        (b"", 503, "peer_unreachable"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", 502, "bad_reply"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", 503, "peer_unreachable"),
    ],
)
async def test_a_service_that_fails_before_its_answer_is_a_problem(
    house: House, said: bytes, status: int, code: str
) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)

    await house.serve_raw("users", "/users", talk=talk)
    async with house.client.post(house.url + "/users", data=b"x") as response:
        assert response.status == status
        assert (await problem(response))["code"] == code


async def test_a_service_that_takes_too_long_is_a_504_problem(house: House) -> None:
    async def handler(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    await house.serve("users", "/users", handler=handler)
    async with house.client.get(house.url + "/users", headers={"x-request-timeout-ms": "150"}) as response:
        assert response.status == 504
        assert (await problem(response))["code"] == "deadline_exceeded"


async def test_a_dead_instance_costs_no_request_whose_body_is_small(house: House) -> None:
    await house.serve("users", "/users")
    async with house.announced("users", "http://127.0.0.1:9", "/users"):
        for n in range(20):
            async with house.client.post(house.url + "/users", data=b"%d" % n) as response:
                assert response.status == 200


async def test_a_request_that_an_instance_has_turned_away_is_taken_to_another_whatever_its_method(house: House) -> None:
    async def busy(request: web.Request) -> web.Response:
        return web.Response(status=503, headers={"x-mesh-unprocessed": "overloaded", "retry-after": "1"})

    turned_away = await house.serve("users", "/users", handler=busy)
    served = await house.serve("users", "/users")
    while not turned_away.seen:
        async with house.client.post(house.url + "/users", data=b"x") as response:
            assert response.status == 200
    assert all(seen.body == b"x" for seen in served.seen)


async def test_nobody_outside_hears_that_an_instance_drains_and_it_gets_no_more_requests(house: House) -> None:
    async def leaving(request: web.Request) -> web.Response:
        return web.Response(headers={"x-mesh-draining": "1", "x-mesh-anything": "1"})

    first = await house.serve("users", "/users", handler=leaving)
    await house.serve("users", "/users")
    for _ in range(20):
        async with house.client.get(house.url + "/users") as response:
            assert not [name for name in response.headers if name.lower().startswith("x-mesh-")]
    assert len(first.seen) == 1


async def test_an_error_tells_strangers_neither_instances_nor_states(house: House) -> None:
    await house.serve_raw("users", "/users", talk=_hang_up)
    async with house.client.post(house.url + "/users", data=b"x") as response:
        assert (await problem(response))["detail"] == "users: peer unreachable"


async def _hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


@pytest.mark.parametrize("first_bytes", [False, True], ids=["before the answer", "in the middle of it"])
async def test_a_client_that_leaves_takes_the_call_to_the_service_along(house: House, first_bytes: bool) -> None:
    waiting, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if first_bytes:
            await response.prepare(request)
            await response.write(b"first")
        waiting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return response

    await house.serve("users", "/users", handler=handler)
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(b"GET /users HTTP/1.1\r\nHost: h\r\n\r\n")
    await waiting.wait()
    if first_bytes:
        await reader.readuntil(b"first")
    writer.close()
    async with asyncio.timeout(10):
        await cancelled.wait()


async def test_a_client_that_leaves_while_it_sends_does_not_look_finished_to_the_service(house: House) -> None:
    started, broken = asyncio.Event(), asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        try:
            async for _ in request.content.iter_any():
                started.set()
        except (OSError, asyncio.CancelledError, web.RequestPayloadError):
            broken.set()
            raise
        return web.Response()

    await house.serve("users", "/users", handler=handler)
    _, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(b"POST /users HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
    await started.wait()
    writer.close()
    async with asyncio.timeout(10):
        await broken.wait()


async def test_an_answer_before_the_end_of_the_upload_reaches_the_client(house: House) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlarge")
        # To close over what still comes in would reset the connection, and the reply might be lost with it.
        while await reader.read(65_536):
            pass

    await house.serve_raw("users", "/users", talk=talk)
    assert (await asyncio.to_thread(_send_all_then_read, house.port)).startswith(b"HTTP/1.1 413")


async def test_a_refusal_reaches_a_client_that_reads_nothing_before_it_has_sent_everything(house: House) -> None:
    await house.serve("users", "/users")
    house.edge.max_body_bytes = 200_000
    assert (await asyncio.to_thread(_send_all_then_read, house.port)).startswith(b"HTTP/1.1 413")


def _send_all_then_read(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"POST /users HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (6 * MB))
        for _ in range(6 * 16):
            client.sendall(b"x" * (MB // 16))
        return client.recv(65_536)


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_above_the_limit_is_a_413_problem(house: House, chunked: bool) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield b"x" * 50_000

    users = await house.serve("users", "/users")
    house.edge.max_body_bytes = 200_000
    async with house.client.post(house.url + "/users", data=body() if chunked else b"x" * 400_000) as response:
        assert response.status == 413
        assert (await problem(response))["code"] == "body_too_large"
    assert all(seen.body == b"" for seen in users.seen)
