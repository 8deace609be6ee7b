#!/bin/sh
# First process of an emulated board. Runs as PID 1 of new mount, PID, UTS, IPC and time namespaces,
# in the board's network namespace: sets up what a kernel and an init would, then keeps the daemons
# alive and collects orphans.
#   boot.sh STATE LAYERS    STATE: the board's folder; LAYERS: read-only roots, upmost first
set -eu
state=$1
layers=$2
. "$state/options"  # HOSTNAME ADDRESS ADB CPUFREQ
# /proc is still the host's: this is the process the tool knows the board by.
read -r pid _ < /proc/self/stat
echo "$pid" > "$state/pid.new"
mv "$state/pid.new" "$state/pid"

root=$state/root
mount --make-rprivate /
mkdir -p "$root"
mount -t overlay overlay -o "lowerdir=$layers,upperdir=$state/disk/upper,workdir=$state/disk/work" "$root"
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
# x86 text here makes ONNX Runtime's processor detection crash (QEMU 7.2).
mount --bind "$state/cpuinfo" "$root/proc/cpuinfo"
# A reboot shows in the boot id; the kernel's own is the host's.
mount --bind "$state/boot_id" "$root/proc/sys/kernel/random/boot_id"
mount -t sysfs -o ro sysfs "$root/sys"
if [ "$CPUFREQ" = 1 ]; then
  # A stand-in, so that setting and restoring a governor can be tried: plain files, no clock.
  mount -t tmpfs -o size=1m,mode=755 tmpfs "$root/sys/devices/system/cpu"
  cp -a "$state/cpu/." "$root/sys/devices/system/cpu/"
fi
mount -t tmpfs -o size=1m,mode=755 tmpfs "$root/dev"
while read -r name major minor; do
  mknod -m 666 "$root/dev/$name" c "$major" "$minor"
done <<DEVICES
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
DEVICES
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=755,size=16m tmpfs "$root/run"
mkdir -m 755 "$root/run/sshd"
mkdir -m 1777 "$root/run/lock"
hostname "$HOSTNAME"
# `pi` may raise its priority, as after "pi - nice -20" in limits.conf; sshd here reads no such file.
prlimit --pid $$ --nice=40:40 2>/dev/null || : # needs CAP_SYS_RESOURCE

inside() {
  env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 HOME=/root \
    chroot "$root" "$@"
}
serve() { # start again what ended, as an init does
  while :; do
    inside "$@" || echo "board: $1 ended with status $?"
    sleep 1
  done
}
serve /usr/sbin/sshd -D -e -o "ListenAddress=$ADDRESS" -o UseDNS=no -o UsePAM=no \
  -o LogLevel=VERBOSE &
if [ "$ADB" = 1 ]; then
  serve /usr/lib/android-sdk/platform-tools/adbd &
fi
while :; do
  wait || :
  sleep 1
done
