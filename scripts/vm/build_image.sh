#!/bin/bash
# Builds the VM that the tests in tests/vm/ run in: kernel, initramfs and root image, from Debian
# packages only. The result lies in .cache/vm/<hash of this file>/, whose name is the last line of
# output; an image that is already there is used as it is.
#
# usage: build_image.sh CACHE_FOLDER      (root; packages.ts installs what this needs)
set -euo pipefail

suite=trixie # the base of Proxmox VE 9: the same udev, open-iscsi and multipath-tools
packages=(
  udev kmod iproute2 procps socat jq strace xfsprogs # the machine itself, and looking into it
  open-iscsi multipath-tools nvme-cli                # the initiators; nvme-cli for diagnosis only
  qemu-utils                                         # qemu-img and qemu-io open disks as a guest does
  lvm2                                               # what Proxmox VE asks all day, of every disk it sees
  e2fsprogs                                          # the file systems of containers are ext4
  perl                                               # the shim is Perl, and JSON::PP is not in perl-base
)
# The kernel package is 108 MB of modules; these are the ones of use.
modules=(
  crypto lib arch/x86/crypto
  drivers/{nvme,target,scsi,md,block,virtio} drivers/char/hw_random
  drivers/net/{virtio_net,net_failover,veth}.ko*
  net/{9p,core,ipv4,ipv6,netfilter,sched}
  fs/{9p,netfs,configfs,ext4,jbd2,nls,xfs} fs/mbcache.ko*
)
boot_modules=(virtio_pci virtio_blk ext4)

cache=$(mkdir -p "$1" && cd "$1" && pwd)
image=$cache/$(sha256sum <"${BASH_SOURCE[0]}" | cut -c1-16)
if [ -e "$image/complete" ]; then
  echo "$image"
  exit 0
fi
[ "$(id -u)" = 0 ] || { echo "Cannot build the VM image: this needs root" >&2; exit 1; }
work=$(mktemp -d "$cache/building.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root

# The mirror is the one that this machine's own apt uses.
mirror=$(apt-get indextargets --format '$(SITE)' | grep -m1 '/debian$')

# The kernel is downloaded inside the new system, whose suite and keys count, and only unpacked:
# to install it would bring an initramfs generator and a boot loader along.
cat >"$work/kernel-hook" <<'HOOK'
#!/bin/sh
set -e
chroot "$1" sh -ec 'cd /tmp
  kernel=$(apt-cache depends linux-image-amd64 | sed -n "s/^ *Depends: \(linux-image-[0-9].*\)/\1/p" | head -n 1)
  apt-get -qq download "$kernel"'
mv "$1"/tmp/linux-image-*.deb "$KERNEL_FOLDER/"
HOOK
chmod +x "$work/kernel-hook"
mkdir "$work/kernel"
KERNEL_FOLDER=$work/kernel mmdebstrap --quiet --mode=root --variant=minbase \
  --include="$(IFS=,; echo "${packages[*]}")" \
  --aptopt='Apt::Install-Recommends "false"' --aptopt='Acquire::Check-Valid-Until "false"' \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
  --dpkgopt='force-unsafe-io' --customize-hook="$work/kernel-hook" \
  "$suite" "$root" - <<<"deb $mirror $suite main" >&2

# Kernel and modules.
mkdir "$work/unpacked"
for package in "$work"/kernel/*.deb; do dpkg-deb -x "$package" "$work/unpacked"; done
from=$(echo "$work"/unpacked/usr/lib/modules/*)
version=$(basename "$from")
to=$root/usr/lib/modules/$version
mkdir -p "$to"
cp "$from"/modules.{builtin,builtin.modinfo,order} "$to/"
(cd "$from/kernel" && shopt -s nullglob && for path in "${modules[@]}"; do
  for found in $path; do [ ! -e "$found" ] || (mkdir -p "$to/kernel" && cp -a --parents "$found" "$to/kernel/"); done
done)
chroot "$root" depmod "$version"
cp "$work"/unpacked/boot/vmlinuz-* "$work/vmlinuz"
cp "$work"/unpacked/boot/config-* "$work/kernel-config"

# PID 1 only fetches the real start script from the checkout: changing that needs no new image.
cat >"$root/sbin/vm-boot" <<'BOOT'
#!/bin/bash
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C
mount -t proc proc /proc
mount -t sysfs sysfs /sys
modprobe -a 9pnet_virtio 9p
options=trans=virtio,version=9p2000.L,msize=524288,cache=mmap
mount -t 9p -o "ro,$options" checkout /checkout
mount -t 9p -o "$options" shared /shared
exec /bin/bash /checkout/scripts/vm/guest/init.sh
BOOT
chmod +x "$root/sbin/vm-boot"
mkdir -p "$root"/{checkout,shared,data}
echo vm >"$root/etc/hostname"
: >"$root/etc/fstab"
: >"$root/etc/machine-id"
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*

# A tiny initramfs: busybox and the modules that reach the root disk.
ramfs=$work/initramfs
mkdir -p "$ramfs"/{bin,proc,dev,root,modules}
cp /bin/busybox "$ramfs/bin/"
for module in "${boot_modules[@]}"; do
  chroot "$root" modprobe -S "$version" --show-depends "$module"
done | awk '$1 == "insmod" && !seen[$2]++ {print $2}' | while read -r path; do
  name=$(basename "$path")
  case $name in
    *.xz) name=${name%.xz}; xz -dc "$root$path" >"$ramfs/modules/$name" ;;
    *.zst) name=${name%.zst}; zstd -qdc "$root$path" >"$ramfs/modules/$name" ;;
    *) cp "$root$path" "$ramfs/modules/" ;;
  esac
  echo "$name"
done >"$ramfs/order"
cat >"$ramfs/init" <<'INIT'
#!/bin/busybox sh
B=/bin/busybox
$B mount -t proc proc /proc
$B mount -t devtmpfs devtmpfs /dev
while read module; do $B insmod /modules/$module; done </order
tries=0
until [ -b /dev/vda ] || [ $tries -gt 500 ]; do $B usleep 20000; tries=$((tries + 1)); done
$B mount -t ext4 -o rw,noatime /dev/vda /root || $B poweroff -f
$B mount --move /dev /root/dev
$B umount /proc
exec $B switch_root /root /sbin/vm-boot
INIT
chmod +x "$ramfs/init"
(cd "$ramfs" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/initramfs.gz"

# The root image is sparse; QEMU opens it with snapshot=on, so every boot finds it fresh.
mke2fs -q -t ext4 -O ^has_journal -L vmroot -d "$root" "$work/root.img" 1500M
echo "$version" >"$work/kernel-version"
rm -rf "$root" "$work"/{kernel,unpacked,initramfs,kernel-hook}
touch "$work/complete"
rm -rf "$image"
mv "$work" "$image"
trap - EXIT
echo "$image"
