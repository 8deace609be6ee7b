#!/bin/sh
# Run by mmdebstrap on the new root ($1): what apt's first run cannot do.
set -eu
root=$1
# adbd is the real daemon of AOSP; Debian 12 has it in its backports only.
sources=$root/etc/apt/sources.list
sed -n 's/ bookworm main/ bookworm-backports main/p' "$sources" | head -n 1 \
  > "$root/etc/apt/sources.list.d/backports.list"
test -s "$root/etc/apt/sources.list.d/backports.list"
chroot "$root" apt-get update
chroot "$root" apt-get install --yes --no-install-recommends -t bookworm-backports adbd
# A password that matches nothing: sshd refuses a locked account even with a key.
chroot "$root" useradd --create-home --shell /bin/bash --password '*' pi
# What Android has and adb push goes to.
mkdir -p "$root/data/local/tmp" "$root/data/misc/adb"
chmod 1777 "$root/data/local/tmp"
# Every board gets its own.
rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/machine-id" "$root/var/lib/dbus/machine-id"
: > "$root/etc/machine-id"
