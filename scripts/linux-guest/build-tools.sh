#!/bin/bash
# build-tools.sh DIR: compiles guest-helper.c for the guest (armhf, static) with the compiler that fetch.sh unpacked in DIR/cross.
#
# The compiler needs a newer C library than this machine may have, so every program of it is started with the unpacked
# loader and libraries. The driver passes that on to the compiler and assembler (-wrapper), not to the linker.
set -euo pipefail

dir=$(realpath "${1:?usage: build-tools.sh DIR}")
source=$(realpath "$(dirname "$0")/guest-helper.c")
out=$dir/guest-helper
target=arm-linux-gnueabihf

cd "$dir/cross"
loader=./usr/lib64/ld-linux-x86-64.so.2
libraries=./usr/lib/x86_64-linux-gnu
gcc() { "$loader" --library-path "$libraries" ./usr/bin/$target-gcc -wrapper "$loader,--library-path,$libraries" "$@"; }

gcc -std=gnu17 -O2 -Wall -Wextra -Werror -c -o "$out.o" "$source"
gcc_lib=$(dirname "$(gcc -print-libgcc-file-name)")
c_lib=usr/$target/lib
"$loader" --library-path "$libraries" ./usr/bin/$target-ld -static -s -o "$out.new" \
  $c_lib/crt1.o $c_lib/crti.o "$gcc_lib/crtbeginT.o" "$out.o" \
  --start-group "$gcc_lib/libgcc.a" "$gcc_lib/libgcc_eh.a" $c_lib/libc.a --end-group "$gcc_lib/crtend.o" $c_lib/crtn.o
mv "$out.new" "$out"
rm "$out.o"
