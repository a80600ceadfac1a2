#!/bin/bash
# Prepares a real Linux guest for the tests: QEMU from trixie-backports, a stock armhf kernel with the rpmsg modules,
# busybox, and a small helper program. Nothing is installed, no root is needed; everything lands in one directory.
#
#   scripts/linux-guest/fetch.sh [DIR]     DIR defaults to $RPMSG_GUEST_DIR, then to .cache/linux-guest in the checkout
#   FLAVOURS="rt-armmp armmp"              the kernels to prepare (default: rt-armmp, the PREEMPT_RT kernel)
#
# Needs an amd64 Debian machine with apt and dpkg; the mirror is taken from the machine's own apt sources, and its
# package lists need not be there. About 150 MB to download, 400 MB on disk. A second run returns at once.
#
# DIR afterwards:
#   qemu/  cross/             unpacked packages: QEMU, the armhf cross compiler
#   kernel-FLAVOUR/           vmlinuz, the modules, busybox
#   guest-FLAVOUR/initrd.gz   built by build-initrd.sh
#   ready-FLAVOUR             the version of these scripts, written last; without it nothing here counts
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
suite=trixie
loader=usr/lib64/ld-linux-x86-64.so.2
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

say() { printf 'linux-guest: [%3ds] %s\n' "$SECONDS" "$*"; }
fail() { printf 'linux-guest: error: %s\n' "$*" >&2; exit 1; }

# The directories are complete when they exist: each one is filled under another name and renamed.
# packages_version is about what is downloaded, guest_version about everything a guest boots from.
packages_version=$(sha256sum < "$here/fetch.sh" | cut -d' ' -f1)
guest_version=$(cd "$here" && cat fetch.sh build-tools.sh build-initrd.sh guest-helper.c init | sha256sum | cut -d' ' -f1)

has_version() { [ -f "$1" ] && [ "$(< "$1")" = "$2" ]; }
write_version() { printf '%s\n' "$2" > "$1.new"; mv "$1.new" "$1"; }
is_ready() {
  local flavour
  for flavour in $flavours; do
    has_version "$dir/ready-$flavour" "$guest_version" || return 1
    [ -x "$dir/qemu/usr/bin/qemu-system-arm" ] && [ -f "$dir/kernel-$flavour/vmlinuz" ] || return 1
    [ -f "$dir/guest-$flavour/initrd.gz" ] || return 1
  done
}
report_ready() {
  local flavour kernels=
  for flavour in $flavours; do kernels+=", kernel $(< "$dir/kernel-$flavour/release")"; done
  say "ready in $dir (QEMU $(< "$dir/qemu/version")$kernels)"
}

# The first mirror of this machine's own release, from its one-line and deb822 sources.
find_mirror() {
  local codename file
  codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
    if [ -r "$file" ]; then cat "$file"; printf '\n\n'; fi
  done | awk -v codename="$codename" '
    function has(list, word) { return index(" " list " ", " " word " ") > 0 }
    function candidate(uri, suites, components) {
      if (uri == "" || uri ~ /^(cdrom|file|copy):/ || !has(suites, codename) || !has(components, "main")) return
      if (best == "" || (best !~ /\/debian\/?$/ && uri ~ /\/debian\/?$/)) best = uri
    }
    function end_stanza() {
      if (has(field["types"], "deb") && tolower(field["enabled"]) !~ /^(no|false|0|off)/) {
        split(field["uris"], uris, " ")
        candidate(uris[1], field["suites"], field["components"])
      }
      delete field
    }
    /^#/ { next }
    /^[ \t]*$/ { end_stanza(); next }
    /^deb[ \t]/ {
      sub(/^deb[ \t]+/, ""); sub(/^\[[^]]*\][ \t]+/, ""); sub(/[ \t]#.*/, "")
      uri = $1; entry_suite = $2; $1 = ""; $2 = ""
      candidate(uri, entry_suite, $0)
      next
    }
    /^[A-Za-z-]+:/ { name = tolower($0); sub(/:.*/, "", name); sub(/^[^:]*:[ \t]*/, "") ; gsub(/[ \t]+/, " "); field[name] = $0; next }
    /^[ \t]/ { gsub(/[ \t]+/, " "); field[name] = field[name] $0 }
    END { end_stanza(); print best }'
}

# A private apt: its own sources, lists and cache, and the machine's download settings (a proxy) but none of its hooks.
prepare_apt() {
  local mirror=$1
  mkdir -p "$dir"/apt/{none,debs,state/lists/partial,cache/archives/partial}
  : > "$dir/apt/state/status"
  cat > "$dir/apt/sources.list" << END
deb [arch=amd64,armhf signed-by=$keyring target=Packages] $mirror $suite main
deb [arch=amd64 signed-by=$keyring target=Packages] $mirror $suite-backports main
END
  apt-config dump --format '%F "%v";%n' Acquire::http Acquire::https Acquire::Retries | grep -v ' "";$' \
    > "$dir/apt/apt.conf" || true
  cat >> "$dir/apt/apt.conf" << END
Dir::Etc::main "$dir/apt/none/apt.conf";
Dir::Etc::parts "$dir/apt/none";
Dir::Etc::sourcelist "$dir/apt/sources.list";
Dir::Etc::sourceparts "$dir/apt/none";
Dir::Etc::preferences "$dir/apt/none/preferences";
Dir::Etc::preferencesparts "$dir/apt/none";
Dir::State "$dir/apt/state";
Dir::State::status "$dir/apt/state/status";
Dir::Cache "$dir/apt/cache";
APT::Architecture "amd64";
APT::Architectures { "amd64"; "armhf"; };
APT::Install-Recommends "false";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
END
  # As root, apt downloads as another user, who has no access here.
  [ "$(id -u)" != 0 ] || echo 'APT::Sandbox::User "root";' >> "$dir/apt/apt.conf"
}

# apt WHAT COMMAND...: runs COMMAND with the private apt; its output is shown as one line, and only when it fails.
apt() {
  local what=$1 reason
  shift
  say "$what"
  if ! APT_CONFIG="$dir/apt/apt.conf" "$@" > "$dir/apt/log" 2>&1 9>&-; then
    reason=$(grep -m1 '^E:' "$dir/apt/log" || tail -n1 "$dir/apt/log")
    fail "$what failed: ${reason:-no reason given} (log: $dir/apt/log)"
  fi
}

# unpack_packages NAME PACKAGE...: the packages with all they depend on, unpacked in DIR/NAME.
unpack_packages() {
  local name=$1 deb
  shift
  rm -rf "${dir:?}/$name" "$dir/$name.new" "$dir/apt/cache/archives"
  mkdir -p "$dir/$name.new" "$dir/apt/cache/archives/partial"
  apt "downloading $*" apt-get install -y -d -t "$suite-backports" "$@"
  say "unpacking $(du -sm "$dir/apt/cache/archives" | cut -f1) MB"
  for deb in "$dir"/apt/cache/archives/*.deb; do
    dpkg-deb -x "$deb" "$dir/$name.new" || fail "cannot unpack ${deb##*/} (disk full?)"
  done
}
publish() { write_version "$dir/$1.new/version-of-scripts" "$packages_version"; mv "$dir/$1.new" "$dir/$1"; }

# unpack_only DEB INTO PATTERN...
unpack_only() {
  dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" --wildcards "${@:3}" || fail "cannot unpack ${1##*/} (disk full?)"
}

fetch_kernel() {
  local flavour=$1 out=$dir/kernel-$1 image
  rm -rf "$out" "$out.new" "$dir/apt/debs"
  mkdir -p "$out.new" "$dir/apt/debs"
  image=$(APT_CONFIG="$dir/apt/apt.conf" apt-cache depends "linux-image-$flavour:armhf" 2> /dev/null |
    sed -n 's/.*Depends: \(linux-image-[^:]*\).*/\1/p') || true
  [ -n "$image" ] || fail "Debian has no kernel flavour $flavour for armhf (try rt-armmp or armmp)"
  (cd "$dir/apt/debs" && apt "downloading $image, busybox-static" apt-get download "$image:armhf" busybox-static:armhf)
  # Of the kernel's 160 MB only what a guest needs.
  unpack_only "$dir"/apt/debs/linux-image-*.deb "$out.new" '*/vmlinuz-*' '*/rpmsg_*.ko*' '*/virtio_rpmsg_bus.ko*'
  unpack_only "$dir"/apt/debs/busybox-static_*.deb "$out.new" '*/bin/busybox'
  find "$out.new" -mindepth 2 -name '*.ko*' -exec mv {} "$out.new/" ';'
  find "$out.new" -mindepth 2 -name 'vmlinuz-*' -exec mv {} "$out.new/vmlinuz" ';'
  find "$out.new" -mindepth 2 -name busybox -exec mv {} "$out.new/busybox" ';'
  find "$out.new" -mindepth 1 -maxdepth 1 -type d -exec rm -rf {} +
  printf '%s\n' "${image#linux-image-}" > "$out.new/release"
  publish "kernel-$flavour"
}

# ---------------------------------------------------------------------------------------------------------------------

flavours=${FLAVOURS:-rt-armmp}
dir=$(realpath -m "${1:-${RPMSG_GUEST_DIR:-$here/../../.cache/linux-guest}}")

if is_ready; then report_ready; exit 0; fi

for tool in apt-get apt-cache apt-config dpkg dpkg-deb; do
  command -v "$tool" > /dev/null || fail "$tool is missing: this needs a Debian machine with apt and dpkg"
done
architecture=$(dpkg --print-architecture)
[ "$architecture" = amd64 ] || fail "this machine's architecture is $architecture; only amd64 is supported"
mirror=$(find_mirror)
[ -n "$mirror" ] || fail "no Debian mirror for this machine's release in /etc/apt/sources.list or /etc/apt/sources.list.d"
[ -r "$keyring" ] || fail "$keyring is missing (package debian-archive-keyring)"
if ! mkdir -p "$dir" 2> /dev/null || ! [ -w "$dir" ]; then fail "cannot write to $dir"; fi

exec 9> "$dir/.lock"
if ! flock -n 9; then say "another run is at work in $dir, waiting"; flock 9; fi
if is_ready; then report_ready; exit 0; fi

for flavour in $flavours; do rm -f "$dir/ready-$flavour"; done
pending=()
for name in qemu cross; do has_version "$dir/$name/version-of-scripts" "$packages_version" || pending+=("$name"); done
for flavour in $flavours; do
  has_version "$dir/kernel-$flavour/version-of-scripts" "$packages_version" || pending+=("kernel-$flavour")
done

if [ ${#pending[@]} != 0 ]; then
  prepare_apt "$mirror"
  apt "reading the package lists of $suite from $mirror" apt-get update
  for name in "${pending[@]}"; do
    case $name in
      qemu)
        unpack_packages qemu qemu-system-arm busybox-static
        "$dir/qemu.new/$loader" --library-path "$dir/qemu.new/usr/lib/x86_64-linux-gnu" "$dir/qemu.new/usr/bin/qemu-system-arm" --version |
          sed -n '1s/.*version \([^ ]*\).*/\1/p' > "$dir/qemu.new/version"
        publish qemu
        ;;
      cross) unpack_packages cross gcc-arm-linux-gnueabihf libc6-dev-armhf-cross; publish cross ;;
      kernel-*) fetch_kernel "${name#kernel-}" ;;
    esac
  done
  rm -rf "$dir/apt"
fi

say "building guest-helper and the initrd"
"$here/build-tools.sh" "$dir"
for flavour in $flavours; do
  "$here/build-initrd.sh" "$dir" "$flavour"
  write_version "$dir/ready-$flavour" "$guest_version"
done
report_ready
