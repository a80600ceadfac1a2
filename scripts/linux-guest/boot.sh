#!/usr/bin/env bash
# boot.sh SOCKET [DIR]: boots the guest that fetch.sh prepared, with a shell on this terminal, attached to the vhost-user
# socket of a running bridge. "poweroff -f" in the guest leaves, and so does ctrl-c.
set -euo pipefail
socket=${1:?usage: boot.sh SOCKET [DIR]}
dir=${2:-${RPMSG_GUEST_DIR:-$(dirname "${BASH_SOURCE[0]}")/../../.cache/linux-guest}}
flavour=rt-armmp
[ -e "$dir/ready-$flavour" ] || { echo "boot.sh: no guest in $dir: run npm run guest:fetch" >&2; exit 1; }
root=$dir/qemu
libraries=$root/usr/lib/x86_64-linux-gnu
export QEMU_MODULE_DIR=$libraries/qemu
exec "$root/usr/lib64/ld-linux-x86-64.so.2" --library-path "$libraries" "$root/usr/bin/qemu-system-arm" \
  -L "$root/usr/share/qemu" -M virt,highmem=off,memory-backend=mem0 -cpu cortex-a15 -accel tcg -m 256 \
  -object memory-backend-memfd,id=mem0,size=256M,share=on \
  -chardev socket,id=rpmsg,path="$socket" \
  -device vhost-user-test-device-pci,chardev=rpmsg,virtio-id=7,num_vqs=2,vq_size=256 \
  -nodefaults -no-user-config -display none -no-reboot -serial stdio \
  -kernel "$dir/kernel-$flavour/vmlinuz" -initrd "$dir/guest-$flavour/initrd.gz" \
  -append "console=ttyAMA0 panic=-1 quiet"
