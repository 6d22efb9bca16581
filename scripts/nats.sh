#!/usr/bin/env bash
# Installs the NATS server that the tests of the JetStream engine and bench-log run.
#
#   scripts/nats.sh
#
# It is built from the Go module proxy (checksums checked by the go command) into
# ${TWINSPAN_BIN:-${XDG_CACHE_HOME:-~/.cache}/twinspan/bin}/nats-server. Nothing of
# the host is changed. Done already: returns at once. Exit codes: 0 installed,
# 1 failed. FORCE=1 builds afresh.
set -euo pipefail

version=v2.15.2
bin=${TWINSPAN_BIN:-${XDG_CACHE_HOME:-${HOME:?set HOME or TWINSPAN_BIN}/.cache}/twinspan/bin}
go=${GO:-go}

say() { printf 'nats: %s\n' "$*" >&2; }

installed() { [ -z "${FORCE:-}" ] && [ "$("$bin/nats-server" --version 2>/dev/null)" = "nats-server: $version" ]; }

[ "${1:-}" != -h ] && [ "${1:-}" != --help ] || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 0; }
! installed || exit 0
mkdir -p "$bin"
# One installer at a time; who waited finds the work done.
exec 9>"$bin/.lock"
flock -n 9 || { say "another installer is at work, waiting for it"; flock 9; }
! installed || exit 0
say "building nats-server $version (once, about a minute)"
CGO_ENABLED=0 GOBIN=$bin "$go" install -trimpath "github.com/nats-io/nats-server/v2@$version" || { say "cannot build nats-server $version"; exit 1; }
FORCE= installed || { say "what was built is not $version: $("$bin/nats-server" --version 2>&1)"; exit 1; }
say "installed $bin/nats-server ($SECONDS s)"
