from __future__ import annotations

import json
import re
from typing import Any

from aiohttp import web

from app.gateway.index import Prefix, prefixes_of
from app.mesh import Instance
from tests.gateway.conftest import House, until


def instance(service: str, number: int, *prefixes: str, **fields: Any) -> Instance:
    return Instance(service, f"{service}-{number}", 1, "http://127.0.0.1:1", prefixes=prefixes, **fields)


def test_every_announced_prefix_is_listed_once_with_its_ready_instances() -> None:
    peers = [
        instance("users", 1, "/users", "/people"),
        instance("users", 2, "/users", "/people", state="draining"),
        instance("users", 3, "/users", weight=0.0),
        instance("orders", 1, "/orders"),
        instance("gateway", 1),
    ]
    assert prefixes_of(peers) == [
        Prefix(href="/orders", service="orders", ready=1),
        Prefix(href="/people", service="users", ready=1),
        Prefix(href="/users", service="users", ready=1),
    ]


async def test_the_index_shows_what_can_be_asked_for(house: House) -> None:
    await house.serve("users", "/users")
    async with house.client.get(house.url + "/") as response:
        index = json.loads(await response.read())
    assert index["prefixes"] == [{"href": "/users", "service": "users", "ready": 1}]
    await until(lambda: house.edge.mesh.directory.ready("users"))
    for link in [*index["links"].values(), *(prefix["href"] for prefix in index["prefixes"])]:
        async with house.client.get(house.url + link) as response:
            assert response.status < 500 or link == "/readyz"


async def test_one_page_documents_every_service(house: House) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response({"openapi": "3.1.0", "info": {"title": "of users"}, "asked": request.path})

    await house.serve("users", "/users", handler=handler)
    async with house.client.get(house.url + "/docs") as response:
        page = (await response.read()).decode()
    urls = json.loads(re.search(r"urls: (\[.*?\])", page)[1])  # type: ignore[index]  # it is there, or the test fails
    assert [entry["name"] for entry in urls] == ["users", "gateway"]
    titles = []
    for entry in urls:
        async with house.client.get(f"{house.url}/{entry['url']}") as response:
            titles.append(json.loads(await response.read())["info"]["title"])
    assert titles == ["of users", "gateway"]


async def test_the_page_links_to_the_events_of_every_service(house: House) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response({"asyncapi": "3.0.0", "asked": request.path})

    await house.serve("users", "/users", handler=handler)
    async with house.client.get(house.url + "/docs") as response:
        [link] = re.findall(r'href="([^"]*asyncapi[^"]*)"', (await response.read()).decode())
    async with house.client.get(f"{house.url}/{link}") as response:
        assert json.loads(await response.read())["asked"] == "/asyncapi.json"
    async with house.client.get(house.url + "/asyncapi.json") as response:
        assert json.loads(await response.read())["info"]["title"] == "gateway"


async def test_the_document_of_an_unknown_service_is_a_404_problem(house: House) -> None:
    for name in ("nobody", "../users", "%2e%2e"):
        for kind in ("json", "asyncapi.json"):
            async with house.client.get(f"{house.url}/docs/{name}.{kind}") as response:
                assert response.status == 404
                assert response.headers["content-type"] == "application/problem+json"


async def test_requests_are_counted_by_the_service_that_they_went_to(house: House) -> None:
    await house.serve("users", "/users")
    for path in ("/users/1", "/users/2", "/nobody/3"):
        async with house.client.get(house.url + path):
            pass
    async with house.client.get(house.url + "/metrics") as response:
        text = await response.text()
    assert 'mesh_requests_total{method="GET",route="users",service="gateway",status="200"} 2.0' in text
    assert 'mesh_requests_total{method="GET",route="",service="gateway",status="404"} 1.0' in text
