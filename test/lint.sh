#!/bin/sh
# The linters. govulncheck needs the vulnerability database; where that cannot
# be reached it is left out, and said so.
set -eu
cd "$(dirname "$0")/.."

unformatted="$(gofmt -l $(git ls-files '*.go'))"
if [ -n "$unformatted" ]; then
	echo "gofmt would change:" "$unformatted" >&2
	exit 1
fi
go vet ./...
go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
if out="$(go run golang.org/x/vuln/cmd/govulncheck@v1.9.0 ./... 2>&1)"; then
	echo "govulncheck: nothing found"
elif echo "$out" | grep -q 'vuln.go.dev\|fetching vulnerabilities\|dial tcp\|no such host'; then
	echo "govulncheck: left out, its data cannot be reached"
else
	echo "$out" >&2
	exit 1
fi
