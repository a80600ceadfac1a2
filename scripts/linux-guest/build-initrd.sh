#!/bin/bash
# build-initrd.sh DIR FLAVOUR: DIR/guest-FLAVOUR/initrd.gz from busybox, the kernel's rpmsg modules, guest-helper and init.
# cpio and xz come from the busybox that fetch.sh unpacked: a bare machine has neither.
set -euo pipefail

dir=$(realpath "${1:?usage: build-initrd.sh DIR FLAVOUR}")
flavour=${2:?usage: build-initrd.sh DIR FLAVOUR}
here=$(cd "$(dirname "$0")" && pwd)
busybox=$dir/qemu/usr/bin/busybox
kernel=$dir/kernel-$flavour
out=$dir/guest-$flavour

rm -rf "$out.new"
mkdir -p "$out.new"/root/{bin,modules}
cd "$out.new/root"
cp "$kernel/busybox" bin/busybox
cp "$dir/guest-helper" bin/guest-helper
cp "$here/init" init
chmod 755 bin/busybox bin/guest-helper init
ln -s busybox bin/sh
for module in rpmsg_core rpmsg_ns virtio_rpmsg_bus rpmsg_char rpmsg_ctrl rpmsg_tty; do
  if [ -f "$kernel/$module.ko.xz" ]; then
    "$busybox" xz -dc "$kernel/$module.ko.xz" > "modules/$module.ko"
  else
    cp "$kernel/$module.ko" modules/
  fi
done
find . | "$busybox" cpio -o -H newc -R 0:0 2> /dev/null | gzip > "$out.new/initrd.gz"
cd "$dir"
rm -rf "$out.new/root" "$out"
mv "$out.new" "$out"
