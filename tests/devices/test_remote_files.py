"""Files on a remote board: one command for many, checked there, and what each failure is called."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.core.ids import sha256_bytes
from hwnas_sdk.devices.drivers.ssh import open_transport
from hwnas_sdk.devices.transports.board_files import Upload, deliver, tar_stream
from hwnas_sdk.devices.transports.remote import RemoteTransport
from hwnas_sdk.devices.transports.shell import BoardShell, Completed


@pytest.fixture
def transport(ssh_board):
    ssh_board.trust()
    transport = open_transport(ssh_board.uri(), name="board")
    yield transport
    transport.close()


def _files(folder: Path, n: int, size: int = 100_000) -> list[tuple[Path, str]]:
    files = []
    for k in range(n):
        data = bytes([k]) * (size + k)
        path = folder / f"network{k}.onnx"
        path.write_bytes(data)
        files.append((path, sha256_bytes(data)))
    return files


def test_twenty_networks_in_one_command(transport, ssh_board, tmp_path) -> None:
    transport.prepare()
    files = _files(tmp_path, 20)
    commands, connections = len(ssh_board.server.commands), ssh_board.server.n_connections
    transport.push_all(files)
    for source, sha256 in files:
        assert transport.push(source, sha256) == f"artifacts/{sha256}.onnx"
        target = ssh_board.work / "artifacts" / f"{sha256}.onnx"
        assert target.read_bytes() == source.read_bytes()
    assert len(ssh_board.server.commands) == commands + 1
    assert ssh_board.server.n_connections == connections
    assert not list(ssh_board.work.glob("incoming*"))
    transport.push_all(files)
    assert len(ssh_board.server.commands) == commands + 1  # all known


def test_present_files_are_checked_not_sent(transport, ssh_board, tmp_path) -> None:
    files = _files(tmp_path, 3)
    transport.push_all(files)
    damaged = ssh_board.work / "artifacts" / f"{files[1][1]}.onnx"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"X")
    inode = (ssh_board.work / "artifacts" / f"{files[0][1]}.onnx").stat().st_ino
    again = open_transport(ssh_board.uri(), name="board")
    before = len(ssh_board.server.commands)
    again.push_all(files)
    assert len(ssh_board.server.commands) == before + 3  # look, check, send the damaged one
    assert sha256_bytes(damaged.read_bytes()) == files[1][1]
    assert (ssh_board.work / "artifacts" / f"{files[0][1]}.onnx").stat().st_ino == inode
    again.close()


def test_bad_sources_fail_alone(transport, tmp_path) -> None:
    good, wrong, gone = _files(tmp_path, 3)
    wrong = (wrong[0], "0" * 64)
    gone[0].unlink()
    transport.push_all([good, wrong, gone])
    assert transport.push(*good)
    for pair, code in ((wrong, "artifact_corrupt"), (gone, "artifact_missing")):
        with pytest.raises(DeviceError) as caught:
            transport.push(*pair)
        assert caught.value.code == code
        assert caught.value.hint == "export the network again"


def test_damaged_on_the_way(transport, ssh_board, tmp_path) -> None:
    """A tar that flips a byte stands for a bad cable or card."""
    transport.prepare()
    fake = ssh_board.home / "bin"
    fake.mkdir()
    tar = shutil.which("tar")
    (fake / "tar").write_text(
        f'#!/bin/sh\n{tar} "$@" && for f in "$4"/*; do printf Z >>"$f"; done\n'
    )
    (fake / "tar").chmod(0o755)
    ssh_board.server.env["PATH"] = f"{fake}:{ssh_board.server.env['PATH']}"
    (pair,) = _files(tmp_path, 1)
    with pytest.raises(DeviceError, match="arrived damaged on 'board'") as caught:
        transport.push(*pair)
    assert caught.value.code == "artifact_corrupt"
    assert not list((ssh_board.work / "artifacts").iterdir())


def test_full_disk(transport, ssh_board, tmp_path) -> None:
    """A tar that runs into a limit on file sizes stands for a full disk."""
    transport.prepare()
    fake = ssh_board.home / "bin"
    fake.mkdir()
    tar = shutil.which("tar")
    (fake / "tar").write_text(
        f'#!/bin/sh\n{tar} "$@" >/dev/null\n'
        'echo "tar: x.onnx: Cannot write: No space left on device" >&2\nexit 2\n'
    )
    (fake / "tar").chmod(0o755)
    ssh_board.server.env["PATH"] = f"{fake}:{ssh_board.server.env['PATH']}"
    with pytest.raises(DeviceError, match="the work folder of 'board' is full") as caught:
        transport.push_all(_files(tmp_path, 2))
    assert caught.value.code == "no_space"
    assert "hwnas devices clean board" in caught.value.hint
    assert not list(ssh_board.work.glob("incoming*"))
    assert not list((ssh_board.work / "artifacts").iterdir())


def test_folder_that_cannot_be_made(ssh_board) -> None:
    ssh_board.trust()
    (ssh_board.home / "file").write_text("")
    for work in ("$HOME/file/work", "/proc/hwnas"):
        transport = open_transport(ssh_board.uri(work=work), name="board")
        with pytest.raises(DeviceError, match="cannot be written") as caught:
            transport.prepare()
        assert caught.value.code == "deploy_failed"
        assert "?work=" in caught.value.hint
        transport.close()


def test_odd_folder_names(ssh_board, tmp_path) -> None:
    ssh_board.trust()
    for work in ("$HOME/a b's $(touch x)", "~/c;d", str(ssh_board.home / "plain")):
        shell = open_transport(ssh_board.uri(), name="board").shell
        transport = RemoteTransport(shell, work=work)
        (pair,) = _files(tmp_path, 1)
        transport.push(*pair)
        expected = work.replace("$HOME", str(ssh_board.home)).replace("~", str(ssh_board.home))
        assert (Path(expected) / "artifacts" / f"{pair[1]}.onnx").is_file()
        transport.close()
    assert not list(ssh_board.home.rglob("x"))


def test_leftovers_of_broken_uploads_are_removed(transport, ssh_board) -> None:
    transport.prepare()
    dead, alive = ssh_board.work / "incoming.999999999", ssh_board.work / "incoming.1"
    dead.mkdir()
    alive.mkdir()
    transport.prepare()
    assert not dead.exists()
    assert alive.exists()  # that process is there


def test_board_without_sha256sum_hashes_with_python(transport, ssh_board, tmp_path) -> None:
    bin_folder = ssh_board.home / "bin"
    bin_folder.mkdir()
    for tool in ["sh", "tar", "mkdir", "mv", "rm", "cut", "ls", "cat", "timeout", "true"]:
        (bin_folder / tool).symlink_to(shutil.which(tool))
    ssh_board.server.env["PATH"] = str(bin_folder)
    (pair,) = _files(tmp_path, 1)
    assert transport.push(*pair)


def test_suffix_says_what_it_is(transport, tmp_path) -> None:
    (pair,) = _files(tmp_path, 1)
    library = tmp_path / "net.so"
    pair[0].rename(library)
    assert transport.push(library, pair[1]) == f"artifacts/{pair[1]}.so"


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo 3.7.9", "has only Python 3.7.9, not >= 3.8"),
        ("echo 2.7.18", "has only Python 2.7.18"),
        ("exit 127", "has no Python >= 3.8"),
    ],
)
def test_no_usable_python(script, says, ssh_board) -> None:
    ssh_board.trust()
    fake = ssh_board.home / "bin"
    fake.mkdir()
    for tool in ["sh", "mkdir", "rm", "ls", "sha256sum", "cut", "timeout", "true"]:
        (fake / tool).symlink_to(shutil.which(tool))
    (fake / "python3").write_text(f"#!/bin/sh\n{script}\n")
    (fake / "python3").chmod(0o755)
    ssh_board.server.env["PATH"] = str(fake)
    transport = open_transport(ssh_board.uri(python=""), name="board")
    with pytest.raises(DeviceError, match=says) as caught:
        transport.start()
    assert caught.value.code == "python_missing"
    assert "?python=" in caught.value.hint
    transport.close()


def test_named_python_that_is_none(ssh_board) -> None:
    ssh_board.trust()
    transport = open_transport(ssh_board.uri(python="/nowhere/python"), name="board")
    with pytest.raises(DeviceError, match="'/nowhere/python' on 'board' is no Python") as caught:
        transport.start()
    assert caught.value.code == "python_missing"
    transport.close()


def test_environment_made_by_setup_is_preferred(ssh_board) -> None:
    ssh_board.trust()
    env = ssh_board.work / "env" / "bin"
    env.mkdir(parents=True)
    (env / "python").write_text("#!/bin/sh\necho 3.12.1\n")
    (env / "python").chmod(0o755)
    transport = open_transport(ssh_board.uri(python=""), name="board")
    folder = transport.prepare()
    assert (folder.python, folder.python_version) == (str(env / "python"), "3.12.1")
    assert not folder.has_agent
    transport.close()


def test_tar_stream_is_what_tar_reads(tmp_path) -> None:
    files = [Upload(path, f"{sha}.onnx") for path, sha in _files(tmp_path, 3, size=511)]
    out = tmp_path / "out"
    out.mkdir()
    data = b"".join(tar_stream(files))
    assert len(data) % 512 == 0
    subprocess.run(["tar", "-xf", "-", "-C", str(out)], input=data, check=True)
    for upload in files:
        assert (out / upload.name).read_bytes() == upload.source.read_bytes()


class LocalShell(BoardShell):
    """Runs commands with one particular shell of this machine."""

    device_id = "board"

    def __init__(self, program: list[str]) -> None:
        self._program = program

    def run(self, command, *, stdin=b"", timeout_s=30.0):
        data = stdin if isinstance(stdin, bytes) else b"".join(stdin)
        done = subprocess.run(
            [*self._program, "-c", command],
            input=data,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
        return Completed(done.returncode, done.stdout, done.stderr)

    def open(self, command):
        raise NotImplementedError

    def close(self) -> None:
        pass


@pytest.mark.parametrize("program", ["dash", "busybox sh", "mksh", "bash --posix"])
def test_every_small_shell_understands_us(program, tmp_path) -> None:
    words = program.split()
    if shutil.which(words[0]) is None:
        pytest.skip(f"no {words[0]} here")
    work = tmp_path / "work"
    shell = LocalShell(words)
    transport = RemoteTransport(shell, work=str(work))
    folder = transport.prepare()
    assert folder.work == str(work)
    assert folder.python
    files = _files(tmp_path, 3)
    transport.push_all(files)
    assert transport.prepare().artifacts == {f"{sha}.onnx" for _, sha in files}
    damaged = work / "artifacts" / f"{files[0][1]}.onnx"
    damaged.write_bytes(b"x")
    names = [f"{sha}.onnx" for _, sha in files]
    found = deliver(shell, str(work), [], verify=names)
    assert [found[name] for name in names] == [False, True, True]
    assert not damaged.exists()
