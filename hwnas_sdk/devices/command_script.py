"""The script that runs a job on the board, and the commands the host asks of it.

One folder per job, ``jobs/<job>/``: the plans (shell text, one `inv` per invocation), ``out.N``,
``err.N``, ``res.N``, ``cpu.N`` and ``done.N`` of invocation N, ``snap.*`` (conditions), ``meta``
(the host's notes), ``pid``, ``state`` and ``log``.
``state`` is ``running``, then ``done``, ``cancelled``, ``deadline``, ``unplanned``, ``no_space`` or
``busy ...``. A file ``cancel`` ends the job.

The lease is a folder, because making one is atomic everywhere; ``holder`` in it says who has it.
It is held as long as that process lives (same boot, same start time) and its deadline has not
passed; otherwise the next one kills what is left of it, waits until it is gone, and takes over.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Final

_COMMON: Final = r"""
started() { # start time of process $1 in $ticks; empty when it is gone
  ticks= line=
  # The thread's file, not the process's: emulators make up the latter for the reader itself.
  read -r line 2>/dev/null < "/proc/$1/task/$1/stat" || return 0
  set -- ${line##*) }
  case $1 in Z|X) ;; *) ticks=${20} ;; esac
} 2>/dev/null
same() { started "$1"; [ -n "$ticks" ] && [ "$ticks" = "$2" ]; }
nap() { sleep "$1" 2>/dev/null || sleep 1; }
gone() { # kill the group of process $1 that started at $2, and wait until it is gone
  n=0
  while same "$1" "$2"; do
    kill -9 "-$1" 2>/dev/null || kill -9 "$1" 2>/dev/null
    n=$((n + 1)); [ $n -gt 50 ] && return 1
    nap 0.1
  done
  return 0
}
"""

JOB_SCRIPT: Final = (
    r"""# hwnas: runs the plans of one job.
# Arguments: folder of the job, lease folder, owner, name of the job, seconds it may take.
umask 077
trap '' HUP
cd "$1" || exit 3
lease=$2 owner=$3 name=$4
boot=$(cat /proc/sys/kernel/random/boot_id 2>/dev/null); boot=${boot:-unknown}
"""
    + _COMMON
    + r"""
say() { echo "$1" > state.new && mv state.new state; }
now() { read -r up _ < /proc/uptime; }
leave() { say "$1"; rm -rf "$lease"; exit 0; }
take() {
  empty=0
  until mkdir "$lease" 2>/dev/null; do
    [ -d "$lease" ] || { say lease_dir; return 1; }
    holder= runner=
    read -r holder 2>/dev/null < "$lease/holder"
    if [ -z "$holder" ]; then # being written just now, or its writer died at that point
      empty=$((empty + 1))
      [ $empty -le 20 ] && { nap 0.1; continue; }
    else
      set -- $holder
      if [ "$3" = "$boot" ]; then
        now
        if same "$1" "$2" && [ "${up%.*}" -lt "$4" ]; then say "busy $holder"; return 1; fi
        gone "$1" "$2" || { say "busy $holder"; return 1; }
        read -r runner 2>/dev/null < "$lease/runner"
        if [ -n "$runner" ]; then
          set -- $runner
          gone "$1" "$2" || { say "busy $holder"; return 1; }
        fi
      fi
    fi
    mv "$lease" "$lease.$$" 2>/dev/null && rm -rf "$lease.$$"
  done
  started $$
  echo "$$ $ticks $boot $end $owner $name" > "$lease/holder" || { leave no_space; }
  # Agents have a lease of their own and look at ours after taking theirs, as we do here.
  for f in ${HWNAS_LEASE_DIR:-/run/lock /dev/shm /tmp /data/local/tmp} "${lease%/*}"; do
    if agent "$f/hwnas-agent.lease"; then rm -rf "$lease"; say "busy $agent"; return 1; fi
  done
}
part() { # what follows $1 in $line, up to $2
  v=${line#*"$1"}
  [ "$v" = "$line" ] && v=0
  v=${v%%$2*}
}
agent() { # whether an agent that lives has the board, by its lease file $1; who, in $agent
  line=
  [ -f "$1" ] && read -r line 2>/dev/null < "$1" || return 1
  part '"boot_id": "' '"'; [ "$v" = "$boot" ] || return 1
  part '"pid": ' '[!0-9]'; pid=${v:-0}
  part '"started_ticks": ' '[!0-9]'; t=${v:-0}
  part '"beat_s": ' '[!0-9]'; beat=${v:-0}
  part '"ttl_s": ' '[!0-9]'; ttl=${v:-0}
  part '"owner": "' '[" ]'
  now
  [ $((${up%.*} - beat)) -le "$ttl" ] || return 1
  started "$pid"
  [ -n "$ticks" ] && [ $((ticks - t)) -le 300 ] && [ $((t - ticks)) -le 300 ] || return 1
  agent="$pid $t $boot 0 ${v:-?} agent"
}
inv() { # number, limit in seconds, command...
  number=$1 limit=$2
  shift 2
  [ -e cancel ] && leave cancelled
  now
  left=$((end - ${up%.*}))
  [ $left -le 0 ] && leave deadline
  [ "$limit" -gt "$left" ] && limit=$left
  times > "cpu.$number"
  began=$up
  if [ -n "$has_timeout" ]; then set -- timeout -k 1 "$limit" "$@"; fi
  $group "$@" </dev/null >"out.$number" 2>"err.$number" &
  p=$!
  started $p
  echo "$p $ticks" > "$lease/runner"
  if [ -z "$has_timeout" ]; then
    (n=0; while [ $n -lt "$limit" ] && [ -d "/proc/$p" ]; do sleep 1; n=$((n + 1)); done
     kill -9 "-$p" || kill -9 $p) 2>/dev/null &
  fi
  wait $p
  status=$?
  now
  kill -9 "-$p" 2>/dev/null
  : > "$lease/runner"
  [ -e cancel ] && leave cancelled
  times >> "cpu.$number"
  echo "$status $began $up $limit" > "new.$number" || leave no_space
  mv "new.$number" "done.$number"
}
sample() { # what the battery's gauge says, until the file "sampling" goes
  while [ -e sampling ]; do
    now; c= v=
    read -r c 2>/dev/null < "$gauge/current_now"; read -r v 2>/dev/null < "$gauge/voltage_now"
    echo "$up $c $v"
    nap 0.2
  done
}
idle() { # number, name, seconds
  : > sampling; sample > "pow.$1.$2" & s=$!
  sleep "$3"; rm -f sampling; wait $s
}
energy() { # seconds of the idle windows, then as `inv`
  seconds=$1; shift
  idle "$1" before "$seconds"
  : > sampling; sample > "pow.$1.during" & s=$!
  counted=$1
  inv "$@"
  rm -f sampling; wait $s
  idle "$counted" after "$seconds"
  echo over > "pow.$counted.over"
}
has_timeout= group=
timeout -k 1 9 true >/dev/null 2>&1 && has_timeout=yes
command -v setsid >/dev/null 2>&1 && group=setsid
started $$
echo "$$ $ticks" > pid
now
end=$((${up%.*} + $5))
if command -v flock >/dev/null 2>&1 && (: > "$lease.lock") 2>/dev/null; then
  exec 9> "$lease.lock"
  flock 9
fi
take || exit 0
exec 9>&-
say running
. ./plan.1
n=0
while [ ! -e plan.2 ]; do
  [ -e cancel ] && leave cancelled
  n=$((n + 1)); [ $n -gt 300 ] && leave unplanned
  nap 0.1
done
. ./plan.2
leave done
"""
)


def start_command(job_dir: str, lease: str, *, owner: str, name: str, limit_s: int) -> str:
    """Start ``job.sh`` of the folder; returns when it has begun or refused, and prints its state.

    It is detached in its own session: the end of this connection means nothing to it.
    """
    words = quoted([f"{job_dir}/job.sh", job_dir, lease, owner, name, str(limit_s)])
    return (
        f"{_COMMON}cd {shlex.quote(job_dir)} || exit 9\n"
        "d=; command -v setsid >/dev/null 2>&1 && d=setsid\n"
        f"$d sh {words} </dev/null >log 2>&1 &\n"
        "n=0; while [ ! -s state ] && [ $n -lt 100 ]; do nap 0.1; n=$((n + 1)); done\n"
        "cat state; tail -c 500 log >&2\n"
    )


def poll_command(
    job_dir: str, *, first: int, wait_s: float, pause_s: float, with_notes: bool
) -> str:
    """Wait (at most about `wait_s`) for invocation `first`, then print all from it on, and more.

    Prints what `frames_of` reads: ``done|out|err|res|cpu.N``, ``state``, ``alive`` ("1" while the
    script lives); ``meta`` when asked `with_notes`; ``snap.*`` and ``pow.*`` once the job is over.
    Two processes on the board, however many files. Exit status 9: there is no such job.
    """
    tries = max(int(wait_s / pause_s), 0)
    return (
        f"{_COMMON}cd {shlex.quote(job_dir)} 2>/dev/null || exit 9\n"
        "pid=; read -r pid 2>/dev/null < pid; set -- ${pid:-0 0}\n"
        f"i={first}; n=0\n"
        f'while [ ! -e "done.$i" ] && [ $n -lt {tries} ]; do\n'
        '  same "$1" "$2" || break\n'
        f"  nap {pause_s:g}; n=$((n + 1))\n"
        "done\n"
        # Before the files: what ends between the two looks is then seen at the next poll.
        'a=0; same "$1" "$2" && a=1\n'
        "s=; read -r s 2>/dev/null < state\n"
        'echo "$a $s"\n'
        f"set -- {'meta' if with_notes else ''}\n"
        'while [ -e "done.$i" ]; do\n'
        '  for f in done out err res cpu; do [ -f "$f.$i" ] && set -- "$@" "$f.$i"; done\n'
        "  i=$((i + 1))\n"
        "done\n"
        'if [ "$s" != running ]; then\n'
        '  for f in snap.*; do [ -f "$f" ] && set -- "$@" "$f"; done\n'
        "  for f in pow.*.over; do\n"
        '    [ -f "$f" ] && f=${f%.over} && set -- "$@" "$f.before" "$f.during" "$f.after"\n'
        "  done\n"
        "fi\n"
        '[ $# -gt 0 ] && { wc -c "$@"; echo @@; cat "$@"; }\n:\n'
    )


def cancel_command(job_dir: str, lease: str) -> str:
    """End a running job and wait until nothing of it runs; exit status 1 when something does."""
    return (
        f"{_COMMON}cd {shlex.quote(job_dir)} 2>/dev/null || exit 0\n"
        ": > cancel; pid=; read -r pid 2>/dev/null < pid; set -- ${pid:-0 0}\n"
        f"lease={shlex.quote(lease)}\n"
        'r=; read -r r 2>/dev/null < "$lease/runner"\n'
        'h=; read -r h _ 2>/dev/null < "$lease/holder"\n'
        '[ "$h" = "$1" ] && [ -n "$r" ] && gone $r\n'
        'n=0; while same "$1" "$2" && [ $n -lt 30 ]; do nap 0.1; n=$((n + 1)); done\n'
        'gone "$1" "$2"\n'
    )


def quoted(words: Sequence[str]) -> str:
    """One shell command of `words`."""
    return " ".join(shlex.quote(word) for word in words)


def frames_of(data: bytes) -> Mapping[str, str]:
    """Take apart what a poll printed: name -> text. Raises: ValueError when it was cut short."""
    first, newline, rest = data.partition(b"\n")
    alive, _, state = first.decode(errors="replace").partition(" ")
    if not newline or alive not in {"0", "1"}:
        raise ValueError("cut short")
    found = {"alive": alive, "state": state}
    sizes, mark, content = rest.partition(b"@@\n")
    if rest and not mark:
        raise ValueError("cut short")
    for line in sizes.decode(errors="replace").splitlines():
        size, name = line.split()
        if name == "total":
            continue
        if len(content) < int(size):
            raise ValueError("cut short")
        found[name] = content[: int(size)].decode(errors="replace")
        content = content[int(size) :]
    return found
