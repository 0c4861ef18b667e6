#!/usr/bin/env bash
# Assembles the demo's container root: Debian's python3 closure from .deb files, wheels of scikit-learn, and the two
# programs of the SageMaker contract (train, serve). Usage: build-image.sh WHEEL...; writes $ISOLARIUM_CACHE/demo-rootfs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${ISOLARIUM_CACHE:?}
out=$cache/demo-rootfs
debs=$cache/demo-debs
arch=$(dpkg --print-architecture)
stamp=$(cat "$here"/build-image.sh "$here"/image/* | sha256sum | cut -c1-16)-$(printf '%s\n' "$@" | sha256sum | cut -c1-16)
[ "$(cat "$out.stamp" 2>/dev/null || true)" = "$stamp" ] && exit 0

say() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }
say "demo image: Debian python3 closure"
mkdir -p "$debs"
mapfile -t names < <(
  apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances \
    python3-minimal python3 libpython3-stdlib dash libstdc++6 | grep '^[a-z0-9]' | sort -u |
    # Tools that only a package manager or a log-in needs.
    grep -vE '^(dpkg|tar|debianutils|install-info|mailcap|media-types|mime-support|perl.*|libperl.*)$'
)
(cd "$debs" && rm -f ./*.deb && apt-get download -qq -o APT::Sandbox::User=root "${names[@]}")
rm -rf "$out" "$out.stamp"
mkdir -p "$out"/{usr/bin,usr/sbin,usr/lib,usr/lib64,proc,sys,dev,tmp,run,etc,root,var,opt/ml}
# Debian merges these into /usr; dpkg-deb -x does not make the links.
for dir in bin sbin lib lib64; do ln -s "usr/$dir" "$out/$dir"; done
for deb in "$debs"/*.deb; do dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$out" --keep-directory-symlink --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*'; done
chmod 1777 "$out/tmp"
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n' >"$out/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$out/etc/group"
: >"$out/etc/resolv.conf"; : >"$out/etc/hosts"; : >"$out/etc/hostname"

say "demo image: wheels $*"
platform=manylinux_2_28_x86_64; [ "$arch" = amd64 ] || platform=manylinux_2_28_aarch64
/usr/bin/python3 -m venv "$cache/venv/pip"
"$cache/venv/pip/bin/pip" install -q --disable-pip-version-check --target "$out/usr/lib/python3/dist-packages" \
  --only-binary :all: --python-version 3.11 --implementation cp --platform "$platform" "$@"
find "$out/usr/lib/python3/dist-packages" -depth -type d \( -name tests -o -name __pycache__ \) -exec rm -rf {} +
for program in train serve; do install -m 755 "$here/image/$program" "$out/usr/bin/$program"; done
install -m 644 "$here/image/planted.py" "$out/usr/lib/python3/dist-packages/planted.py"
printf '%s' "$stamp" >"$out.stamp"
say "demo image: $(du -sm "$out" | cut -f1) MiB"
