"""An emulated board: aarch64 Debian under QEMU with real sshd and adbd, in its own namespaces.

    with Board() as board:
        print(board.ssh_uri, board.adb_serial)

`unavailable` says why there can be none; `python tools/qemu_board build` builds what boards share.
"""

from .adb import AdbServer
from .board import Board, numbers, reap
from .host import unavailable
from .image import build, is_built
from .processes import BoardProcess
from .shell import BoardError

__all__ = [
    "AdbServer",
    "Board",
    "BoardError",
    "BoardProcess",
    "build",
    "is_built",
    "numbers",
    "reap",
    "unavailable",
]
