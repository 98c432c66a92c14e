#!/bin/sh
# Installs the programs that diskvault is compared with: restic and Borg from
# the distribution, kopia at the version pinned in bench/peers/go.mod. Run it
# again at any time; what is there already stays.
set -eu
cd "$(dirname "$0")"

missing=
for pair in restic:restic borg:borgbackup zstd:zstd; do
	command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
done
PATH="$PATH:/usr/sbin:/sbin" command -v debugfs >/dev/null || missing="$missing e2fsprogs"
if [ -n "$missing" ]; then
	if [ "$(id -u)" -ne 0 ]; then
		echo "as root: apt-get install$missing; then run this again" >&2
		exit 1
	fi
	apt-get update -q
	# shellcheck disable=SC2086 # one argument for each package
	DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
fi

# A module of its own, so that kopia's dependencies are pinned and checked and
# yet stay out of diskvault's. `go install kopia@version` would need the
# module's list of versions, which not every proxy gives.
(cd peers && CGO_ENABLED=0 go install github.com/kopia/kopia)
bin="$(go env GOBIN)"
"${bin:-$(go env GOPATH)/bin}/kopia" --version
restic version
borg --version
