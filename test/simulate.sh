#!/bin/sh
# Lives through SEEDS (default 5000) worlds of the store's simulation from FIRST
# on, and then shows that it finds each guard of the protocol that is missing:
# the first number tells how many seeds that took. A failure prints its seed, and
# DISKVAULT_SEED=n go test ./store -run 'TestSimulation$' -v
# tells its whole story.
set -eu
cd "$(dirname "$0")/.."
DISKVAULT_SEED="${FIRST:-0}" DISKVAULT_SEEDS="${SEEDS:-5000}" \
	go test ./store -count=1 -timeout 0 -run '^TestSimulation$' -v
go test -tags weak ./store -count=1 -timeout 0 -run '^TestWorldsGoWrongWithoutAGuard$' -v
