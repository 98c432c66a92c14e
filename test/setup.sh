#!/bin/sh
# Installs what the tests need beside Go: Debian packages, when run as root, and
# an S3 server from the Go proxy. What is there already stays. Without root the
# tests that need a missing program skip and say so.
set -eu
export PATH="$PATH:/usr/sbin:/sbin"

missing=
for pair in mke2fs:e2fsprogs mkfs.xfs:xfsprogs mkfs.btrfs:btrfs-progs mkfs.vfat:dosfstools \
	psql:postgresql sfdisk:fdisk partx:util-linux setfacl:acl mcopy:mtools fusermount3:fuse3 mkfs.ntfs:ntfs-3g \
	qemu-img:qemu-utils nbdkit:nbdkit nbdcopy:libnbd-bin pgrep:procps \
	qemu-storage-daemon:qemu-system-common qemu-system-x86_64:qemu-system-x86 \
	thin_delta:thin-provisioning-tools; do
	command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
done
# The long form starts a Linux guest and a Ceph of one node.
if [ -n "${DISKVAULT_LONG:-}" ]; then
	ls /boot/vmlinuz-* >/dev/null 2>&1 || missing="$missing linux-image-cloud-amd64"
	for pair in rbd:ceph-common ceph-mon:ceph-mon ceph-osd:ceph-osd ceph-mgr:ceph-mgr; do
		command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
	done
fi
if [ -n "$missing" ]; then
	if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
		apt-get update -qq
		# shellcheck disable=SC2086 # one argument for each package
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
	else
		echo "some tests will skip; as root: apt-get install$missing" >&2
	fi
fi

bin="$(go env GOBIN)"
bin="${bin:-$(go env GOPATH)/bin}"
if ! command -v versitygw >/dev/null && [ ! -x "$bin/versitygw" ]; then
	go install github.com/versity/versitygw/cmd/versitygw@v1.8.0
fi
