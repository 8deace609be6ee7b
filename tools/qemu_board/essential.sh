#!/bin/sh
# Run by mmdebstrap on the new root ($1) before its packages: saves what is slow under emulation.
set -eu
# openssh-server makes host keys that are missing; primes take their time in QEMU.
mkdir -p "$1/etc/ssh"
for kind in rsa ecdsa ed25519; do
  ssh-keygen -q -t "$kind" -N '' -f "$1/etc/ssh/ssh_host_${kind}_key"
done
