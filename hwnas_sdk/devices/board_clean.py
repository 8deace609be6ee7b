"""Removing all of ours from a board, without needing anything of ours there."""

from __future__ import annotations

import re
import shutil

from hwnas_sdk import _resources
from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.devices.session import Cleaned
from hwnas_sdk.devices.transports.board_files import OWN_FOLDER
from hwnas_sdk.devices.transports.shell import BoardShell

_TIMEOUT_S = 120.0

# Only what is ours, by name: the folder may be one the user has other things in.
_SCRIPT = f"""
{OWN_FOLDER}
work=@WORK@
[ -d "$work" ] || {{ echo 'removed 0 0'; exit 0; }}
cd "$work" && own || exit 1
# An environment of ours has its description from its first moment.
env=env; [ -e env ] && [ ! -f env/hwnas-env.json ] && env=
set -- agent artifacts journal jobs runners lease lease.* incoming.* setup.*
set -- "$@" $env env.new.* env.old.*
n=$(find "$@" -type f 2>/dev/null | wc -l)
k=$(du -sk "$@" 2>/dev/null | {{ t=0; while read -r s p; do t=$((t + s)); done; echo "$t"; }})
rm -rf "$@" || exit 1
cd / && rmdir "$work" 2>/dev/null
echo "removed" $n $k
"""


def remove_folder(shell: BoardShell, *, work: str) -> Cleaned:
    """Remove all we put into our folder on the board, and the folder when nothing else is in it.

    Args:
        shell: a connection.
        work: the folder, as a shell word.

    Raises: DeviceError "clean_failed", or as `BoardShell.run`.
    """
    done = shell.run(_SCRIPT.replace("@WORK@", work), timeout_s=_TIMEOUT_S)
    match = re.fullmatch(r"removed (\d+) (\d+)", done.text)
    if done.status != 0 or match is None:
        raise DeviceError(
            f"our folder on {shell.device_id!r} cannot be removed: {done.error_line}",
            device_id=shell.device_id,
            code="clean_failed",
            hint="is it another user's? Remove it by hand",
        )
    return Cleaned(files=int(match.group(1)), bytes=int(match.group(2)) * 1024)


def remove_local_folder(name: str) -> Cleaned:
    """Remove our folder of a board that is this machine."""
    folder = _resources.board_work_path(name)
    sizes = [path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()]
    shutil.rmtree(folder, ignore_errors=True)
    return Cleaned(files=len(sizes), bytes=sum(sizes))
