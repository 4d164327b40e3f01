from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import orjson
import pytest
import structlog

from app.mesh.registry.diskcopy import Copy, DiskCopy
from tests.mesh.actors import instance

NETWORKS = (ip_network("127.0.0.0/8"),)


@pytest.fixture
def disk(tmp_path: Path) -> DiskCopy:
    return DiskCopy(tmp_path / "deep" / "directory.json", "mesh", NETWORKS)


def test_what_was_saved_is_loaded(disk: DiskCopy) -> None:
    peers = (instance(), instance("orders", "orders-1"))
    disk.save(peers)
    disk.save(peers)
    assert disk.load() == Copy(peers)
    assert [path.name for path in disk.path.parent.iterdir()] == ["directory.json"]


def test_nothing_saved_is_nothing_loaded_without_a_warning(disk: DiskCopy) -> None:
    with structlog.testing.capture_logs() as logs:
        assert disk.load() == Copy()
    assert logs == []


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'{"format":9}', b"\xff", b'{"format":2,"namespace":"mesh","records":7}',
     b'{"format":2,"namespace":"another","records":[]}'],
)  # fmt: skip
def test_a_file_that_is_broken_or_not_ours_is_ignored_with_a_warning(disk: DiskCopy, content: bytes) -> None:
    disk.path.parent.mkdir()
    disk.path.write_bytes(content)
    with structlog.testing.capture_logs() as logs:
        assert disk.load() == Copy()
    assert [line["log_level"] for line in logs] == ["warning"]


def test_a_poisoned_record_on_disk_is_ignored_and_the_others_are_read(disk: DiskCopy) -> None:
    disk.save([instance(), instance(id="evil", url="http://169.254.169.254:80")])
    document = orjson.loads(disk.path.read_bytes())
    disk.path.write_bytes(orjson.dumps(document | {"records": [*document["records"], 7, None, "x"]}))
    assert disk.load() == Copy((instance(),))


def test_a_disk_that_cannot_be_written_is_a_warning(disk: DiskCopy) -> None:
    disk.path.parent.write_text("a file where the folder should be")
    with structlog.testing.capture_logs() as logs:
        disk.save([instance()])
    assert [line["log_level"] for line in logs] == ["warning"]
