#!/usr/bin/env bash
# Everything that must pass before a change is taken; make test and .ci/run run it.
# Every step runs, even when one before it failed; the last lines say which did.
set -uo pipefail
cd "$(dirname "$0")/.."
steps=() results=() failed=0
said=$(mktemp -d); trap 'rm -rf "$said"' EXIT
step() { # NAME COMMAND…
  local name=$1 began=$SECONDS; shift
  printf '\n=== %s\n' "$name"
  if "$@" 2>&1 | tee "$said/$name"; then results+=("ok    "); rm "$said/$name"; else results+=("FAILED"); failed=1; fi
  steps+=("$name ($((SECONDS - began)) s)")
}
make() { command make --no-print-directory "$@"; }

step setup bash -c 'scripts/go-version.sh go && scripts/servers.sh && scripts/nats.sh && go mod download && go mod verify'
step build make build
step lint make lint
step unit make unit
step fuzz make fuzz FUZZTIME=2000x
step e2e make e2e

for name in "$said"/*; do [ ! -e "$name" ] || awk -f scripts/failures.awk "$name"; done
printf '\n'
for i in "${!steps[@]}"; do printf '%s  %s\n' "${results[$i]}" "${steps[$i]}"; done
if [ "$failed" = 0 ]; then echo "make test: ok, $SECONDS s"; else echo "make test: FAILED, $SECONDS s"; fi
exit "$failed"
