from __future__ import annotations

import multiprocessing

import pytest

from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.devices import Inventory, open_session
from hwnas_sdk.devices.inventory import schemes
from hwnas_sdk.devices.owner import owner_id
from hwnas_sdk.devices.uri import DeviceUri


@pytest.fixture
def inventory(tmp_path) -> Inventory:
    return Inventory(tmp_path / "deep" / "devices.yaml")


def test_add_list_get_remove(inventory) -> None:
    assert [entry.name for entry in inventory.list()] == ["local"]
    inventory.add("pi4", "replay:///x.parquet#pi4", note="shelf ü")
    inventory.add("pi4", "replay:///x.parquet#pi4", note="shelf ü")
    again = Inventory(inventory.path)
    assert [entry.name for entry in again.list()] == ["local", "pi4"]
    assert again.get("pi4").note == "shelf ü"
    with pytest.raises(ConfigError, match="already") as caught:
        again.add("pi4", "fake:")
    assert caught.value.code == "device_exists"
    again.remove("pi4")
    with pytest.raises(ConfigError, match="unknown device 'pi4'"):
        again.remove("pi4")
    assert list(inventory.path.parent.glob(".devices.yaml.??*")) == [
        inventory.path.parent / ".devices.yaml.lock"
    ]


def test_relative_tables_become_absolute(inventory, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    inventory.add("t", "replay://tables/x.parquet#pi4")
    assert inventory.get("t").uri == f"replay://{tmp_path}/tables/x.parquet#pi4"


def test_unknown_device_lists_the_close_ones_first(inventory) -> None:
    inventory.add("alpha", "fake:")
    inventory.add("pi4-shelf", "fake:")
    with pytest.raises(ConfigError, match="known: pi4-shelf, local, alpha") as caught:
        inventory.get("pi4-shlf")
    assert caught.value.code == "unknown_device"


@pytest.mark.parametrize("name", ["", "Pi", "-x", "a/b", "a b", "ä", "x" * 65])
def test_bad_names(inventory, name) -> None:
    with pytest.raises(ConfigError, match="bad device name"):
        inventory.add(name, "fake:")


@pytest.mark.parametrize("name", ["local", "fake"])
def test_reserved_names(inventory, name) -> None:
    with pytest.raises(ConfigError, match="reserved"):
        inventory.add(name, "fake:")
    with pytest.raises(ConfigError, match="always there"):
        inventory.remove(name)
    assert inventory.get(name).uri == f"{name}:"


@pytest.mark.parametrize("scheme", ["cloud", "nonsense"])
def test_unsupported_schemes(inventory, scheme) -> None:
    with pytest.raises(ConfigError, match=f"'{scheme}' is not supported by this version") as caught:
        open_session(f"{scheme}://somewhere", inventory=inventory)
    assert "adb, fake, local, replay, sim, ssh" in caught.value.hint
    with pytest.raises(ConfigError, match="not supported"):
        inventory.add("x", f"{scheme}://somewhere")
    assert set(schemes()) >= {"local", "replay", "fake"}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("version: 1\ndevices:\n  a: {uri: 3}\n", 3),
        ("version: 1\ndevices:\n  a: {uri: 'x:'}\n  b: {url: 'x:'}\n", 4),
        ("version: 2\n", 1),
        ("devices:\n  a: {uri: 'x:'\n  b: [\n", 3),
        ("devices:\n  a: {uri: 'x:'}\n  Bad Name: {uri: 'x:'}\n", 3),
        ("devices:\n  local: {uri: 'x:'}\n", 2),
        ("- just\n- a list\n", 1),
        ("just text", 1),
        ("devices:\n\ttab: 1\n", 2),
    ],
)
def test_damaged_file_names_the_line(inventory, text, line) -> None:
    inventory.path.parent.mkdir()
    inventory.path.write_text(text)
    with pytest.raises(ConfigError, match=f"devices.yaml, line {line}:") as caught:
        inventory.list()
    assert caught.value.code == "inventory_damaged"
    with pytest.raises(ConfigError, match="line"):
        inventory.add("new", "fake:")
    assert inventory.path.read_text() == text


def test_unreadable_file(inventory) -> None:
    inventory.path.parent.mkdir()
    inventory.path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        inventory.list()
    inventory.path.unlink()
    inventory.path.write_text("")
    assert len(inventory.list()) == 1


def test_unwritable_folder(tmp_path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("x")
    with pytest.raises(ConfigError, match="cannot be"):
        Inventory(blocker / "devices.yaml").add("x", "fake:")


def _add_many(path, prefix: str) -> None:
    inventory = Inventory(path)
    for number in range(8):
        inventory.add(f"{prefix}{number}", "fake:")


def test_two_processes_lose_nothing(inventory) -> None:
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=_add_many, args=(inventory.path, prefix)) for prefix in ("a", "b")
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert len(inventory.list()) == 17


def test_owner_is_stable(tmp_path, monkeypatch) -> None:
    first = owner_id()
    assert owner_id() == first
    monkeypatch.setenv("HWNAS_HOME", str(tmp_path / "other"))
    assert owner_id() != first
    (tmp_path / "other" / "owner-id").write_text("rubbish")
    repaired = owner_id()
    assert len(repaired) == 32
    assert owner_id() == repaired


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("local:", ("local", "", "", {})),
        ("LOCAL:?python=/usr/bin/python3", ("local", "", "", {"python": "/usr/bin/python3"})),
        ("replay:///a%20b/t.parquet#c", ("replay", "/a b/t.parquet", "c", {})),
        (
            "replay://t.parquet?x=1#c?energy=e",
            ("replay", "t.parquet", "c", {"x": "1", "energy": "e"}),
        ),
        ("fake://?mode=die_after=3,slow", ("fake", "", "", {"mode": "die_after=3,slow"})),
    ],
)
def test_uri(text, parts) -> None:
    uri = DeviceUri.parse(text)
    assert (uri.scheme, uri.path, uri.fragment, uri.options) == parts


@pytest.mark.parametrize("text", ["plain", ":x", "a b:c", "fake:?seed=1&seed=2"])
def test_bad_uri(text) -> None:
    with pytest.raises(ConfigError):
        DeviceUri.parse(text)


def test_bad_options() -> None:
    with pytest.raises(ConfigError, match="unknown fake mode"):
        open_session("fake:?mode=explode")
    with pytest.raises(ConfigError, match=r"unknown option 'sed'.*did you mean 'seed'"):
        open_session("fake:?sed=1")
    with pytest.raises(ConfigError, match="not a number"):
        open_session("fake:?seed=one")
