"""Killed writers, several writers, full disks: with real processes and real files."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.core.ids import sha256_bytes
from hwnas_sdk.export.cache import ArtifactCache

# Puts blobs whose first line says how many bytes follow, for ever or N times.
WRITER = """
import sys
from pathlib import Path
from hwnas_sdk.export.cache import ArtifactCache
cache = ArtifactCache(Path(sys.argv[1]))
seed, rounds = int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
for i in range(rounds):
    for j in range(8):
        body = bytes([(j * 7 + seed) % 256]) * (60_000 + j)
        data = b"%d %d %d\\n" % (i, j * (1 + seed), len(body)) + body
        a = cache.put(data, format="onnx", arch_id="t:%d" % j, folded=True, producer="w",
                      input_shapes={"x": (1,)})
        cache.remember("key%05d%d" % (i, j), a.sha256)
        assert cache.get(a.sha256) is not None
print("done", flush=True)
"""


def writer(root: Path, *, seed: int = 0, rounds: int = 10**6) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root), str(seed), str(rounds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def check_all(root: Path) -> int:
    """Everything under a name is whole and readable; returns how many."""
    cache = ArtifactCache(root)
    n = 0
    for path in root.glob("??/*.onnx"):
        data = path.read_bytes()
        assert sha256_bytes(data) == path.stem, "a wrong artifact lies under its name"
        first, body = data.split(b"\n", 1)
        assert len(body) == int(first.split()[2])
        assert cache.get(path.stem) is not None
        n += 1
    for note in (root / "memo").iterdir():
        found = cache.recall(note.name)
        assert found is not None
        assert found.sha256 == note.read_text()
    return n


def kill_repeatedly(root: Path, times: int) -> int:
    rng = random.Random(1)
    for _ in range(times):
        process = writer(root, seed=rng.randrange(100))
        time.sleep(rng.uniform(0.0, 0.04))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        check_all(root)
    return check_all(root)


def test_kill_9_leaves_nothing_wrong_behind(tmp_path: Path) -> None:
    assert kill_repeatedly(tmp_path / "artifacts", 8) > 0


@pytest.mark.slow
def test_many_kills_leave_nothing_wrong_behind(tmp_path: Path) -> None:
    assert kill_repeatedly(tmp_path / "artifacts", 60) > 0


@pytest.mark.parametrize("seeds", [(0, 0), (0, 1)], ids=["same", "different"])
def test_two_processes_at_once(tmp_path: Path, seeds: tuple[int, int]) -> None:
    root = tmp_path / "artifacts"
    processes = [writer(root, seed=seed, rounds=6) for seed in seeds]
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (0, "done\n", "")
    assert check_all(root) == 48 * len(set(seeds))
    assert list((root / "tmp").iterdir()) == []


MENDER = """
import sys
from pathlib import Path
from hwnas_sdk.export.cache import ArtifactCache
cache, good = ArtifactCache(Path(sys.argv[1])), b"good" * 50_000
print("ready", flush=True)
for _ in sys.stdin:
    cache.put(good, format="onnx", arch_id="t", folded=True, producer="w", input_shapes={})
    print("put", flush=True)
"""


def test_a_reader_never_removes_what_another_process_has_mended(tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    reader = ArtifactCache(root)
    sha256 = sha256_bytes(b"good" * 50_000)
    command = [sys.executable, "-c", MENDER, str(root)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1) as mender:
        assert mender.stdin is not None
        assert mender.stdout is not None
        assert mender.stdout.readline() == "ready\n"
        reader.path(sha256).parent.mkdir()
        for _ in range(40):
            reader.path(sha256).write_bytes(b"good" * 49_999)
            mender.stdin.write("go\n")
            reader.get(sha256)
            assert mender.stdout.readline() == "put\n"
            assert reader.get(sha256) is not None
        mender.stdin.close()


# --- full disks -------------------------------------------------------------------------------


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MiB; skips where mounting is not allowed."""
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command")
    if done.returncode != 0:
        pytest.skip("mounting needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def put(cache: ArtifactCache, data: bytes) -> str:
    facts = {"format": "onnx", "arch_id": "t:1", "folded": True, "producer": "t"}
    return cache.put(data, **facts, input_shapes={"x": (1,)}).sha256


def test_full_disk(tiny_disk: Path) -> None:
    cache = ArtifactCache(tiny_disk / "artifacts")
    kept = put(cache, b"k" * 1000)
    too_big = b"b" * 2_000_000
    with pytest.raises(DataError, match="no space left") as caught:
        put(cache, too_big)
    assert caught.value.code == "no_space"
    assert caught.value.retryable
    assert list((cache.root / "tmp").iterdir()) == []
    assert not cache.path(sha256_bytes(too_big)).exists()
    assert ArtifactCache(cache.root).get(sha256_bytes(too_big)) is None
    assert cache.get(kept) is not None
    put(cache, b"s" * 1000)  # goes on where there is room


def test_file_size_limit(tmp_path: Path) -> None:
    """The same without root: the kernel refuses to grow a file beyond a limit."""
    code = """
import resource, sys
from pathlib import Path
from hwnas_sdk.core.errors import DataError
from hwnas_sdk.export.cache import ArtifactCache
cache = ArtifactCache(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
facts = dict(format="onnx", arch_id="t:1", folded=True, producer="t", input_shapes={})
cache.put(b"s" * 50_000, **facts)
try:
    cache.put(b"b" * 200_000, **facts)
except DataError as exc:
    print(exc.code, exc)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("no_space no space left for artifacts in ")
    assert done.stdout.count("\n") == 1
    assert list((tmp_path / "tmp").iterdir()) == []
    assert [p.stat().st_size for p in tmp_path.glob("??/*.onnx")] == [50_000]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path / "artifacts")
    (cache.root / "tmp").chmod(0o500)
    with pytest.raises(DataError) as caught:
        put(cache, b"data")
    (cache.root / "tmp").chmod(0o700)
    assert caught.value.code == "cache_unwritable"
