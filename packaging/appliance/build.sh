#!/bin/sh
# The virtual appliance: a minimal Debian 12 with the collector, as qcow2, OVA (VMDK) and VHDX from one build. What `make appliance` runs.
# Root, and from Debian: mmdebstrap qemu-utils extlinux syslinux-common e2fsprogs fdisk. It takes the deb that `make packages` made.
#
#   DIST   where the deb is and the images go; default dist/
#   ARCH   amd64 (BIOS and, through the hypervisor's compatibility module, UEFI machines)
#   SIZE   of the disk, which grows sparse; default 16G
#   BASE   a tar of mmdebstrap's to begin with, if one was kept
set -eu
cd "$(dirname "$0")/../.."
DIST=${DIST:-dist}
SIZE=${SIZE:-16G}
deb=$(ls "$DIST"/tocsin-collector_*_amd64.deb)
version=$(dpkg-deb -f "$deb" Version)
version=${version%-1}
name=tocsin-collector_${version}_appliance_amd64
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(stat -c %Y "$deb")}
export SOURCE_DATE_EPOCH LC_ALL=C
[ "$(id -u)" = 0 ] || { echo "make appliance needs root: it makes device nodes and mounts the image" >&2; exit 1; }
work=$(mktemp -d)
loop=
cleanup() {
	! mountpoint -q "$work/mnt" || umount "$work/mnt"
	[ -z "$loop" ] || losetup -d "$loop"
	rm -rf "$work"
}
trap cleanup EXIT

# systemd-resolved and the rest: names, addresses and time by DHCP; nftables: only syslog and the page are let in; no ssh, no user to log in.
packages=linux-image-amd64,systemd,systemd-sysv,udev,dbus,initramfs-tools,iproute2,nftables,ca-certificates,kbd,libpam-systemd,systemd-resolved,systemd-timesyncd
if [ -z "${BASE:-}" ]; then
	BASE=$work/base.tar
	mmdebstrap --variant=minbase --mode=root --include=$packages --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' bookworm "$BASE"
fi

disk=$work/disk.raw
truncate -s "$SIZE" "$disk"
printf 'label: dos\nlabel-id: 0x70635f01\nstart=2048, type=83, bootable\n' | sfdisk --quiet "$disk"
dd if=/usr/lib/EXTLINUX/mbr.bin of="$disk" conv=notrunc status=none 2>/dev/null || dd if=/usr/lib/syslinux/mbr/mbr.bin of="$disk" conv=notrunc status=none
loop=$(losetup --find --show --offset $((2048 * 512)) "$disk")
mkfs.ext4 -q -L tocsin -O ^64bit -E lazy_itable_init=1,root_owner=0:0 "$loop" # extlinux reads no 64-bit ext4
root=$work/mnt
mkdir "$root"
mount "$loop" "$root"
tar -x -C "$root" -f "$BASE" --exclude='./dev/*'
mkdir -p "$root/dev"

cp -R packaging/appliance/root/. "$root/"
chown -R root:root "$root/etc" "$root/usr/lib/tocsin-appliance"
cp "$deb" "$root/collector.deb"
chroot "$root" sh -eu <<'CHROOT'
export DEBIAN_FRONTEND=noninteractive
dpkg -i /collector.deb >/dev/null
rm /collector.deb
# The settings are the first-boot page's to write: they live with the collector's other files.
install -o tocsin-collector -g tocsin-collector -m 0640 /etc/tocsin/collector.yaml /var/lib/tocsin-collector/collector.yaml
printf '\nupdate:\n  auto: true\n' >>/var/lib/tocsin-collector/collector.yaml
passwd --lock root >/dev/null
systemctl enable systemd-networkd systemd-resolved systemd-timesyncd nftables tocsin-firstboot.service tocsin-collector.path tocsin-collector.service tocsin-collector-update.timer >/dev/null 2>&1
systemctl mask getty@tty1.service serial-getty@ttyS0.service apt-daily.timer apt-daily-upgrade.timer >/dev/null 2>&1
ln -sf /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
: >/etc/machine-id
rm -f /var/lib/systemd/random-seed /etc/hostname
echo tocsin-collector >/etc/hostname
rm -rf /var/cache/apt/* /var/lib/apt/lists/* /var/log/* /tmp/*
CHROOT
mkdir -p "$root/boot/extlinux"
kernel=$(cd "$root/boot" && ls vmlinuz-* | sort -V | tail -1)
cat >"$root/boot/extlinux/extlinux.conf" <<EOF
DEFAULT tocsin
PROMPT 0
TIMEOUT 1
LABEL tocsin
  LINUX /boot/$kernel
  INITRD /boot/initrd.img-${kernel#vmlinuz-}
  APPEND root=LABEL=tocsin rw console=tty0 console=ttyS0,115200 quiet loglevel=3 systemd.show_status=false panic=10
EOF
extlinux --install "$root/boot/extlinux" 2>/dev/null
fstrim "$root" 2>/dev/null || true
umount "$root"
losetup -d "$loop"
loop=

mkdir -p "$DIST"
qemu-img convert -q -f raw -O qcow2 -c "$disk" "$DIST/$name.qcow2"
qemu-img convert -q -f raw -O vhdx -o subformat=dynamic "$disk" "$DIST/$name.vhdx"
qemu-img convert -q -f raw -O vmdk -o subformat=streamOptimized "$disk" "$work/$name-disk1.vmdk"
bytes=$(stat -c %s "$disk")
size=$(stat -c %s "$work/$name-disk1.vmdk")
sed "s|@NAME@|$name|g; s|@VERSION@|$version|g; s|@CAPACITY@|$bytes|g; s|@SIZE@|$size|g" packaging/appliance/appliance.ovf >"$work/$name.ovf"
(cd "$work" && sha256sum --tag "$name.ovf" "$name-disk1.vmdk" | sed 's/^SHA256 (\(.*\)) = /SHA256(\1)= /' >"$name.mf")
tar -c -C "$work" --format=ustar --owner=0 --group=0 --mtime="@$SOURCE_DATE_EPOCH" -f "$DIST/$name.ova" "$name.ovf" "$name.mf" "$name-disk1.vmdk"
qemu-img check -q "$DIST/$name.qcow2"
ls -l "$DIST/$name".*
