#!/usr/bin/env bash
# lint.sh GOLANGCI_LINT [PACKAGES…]: formatting, vet and the linters of .golangci.yml.
set -euo pipefail
lint=$1; shift
cd "$(dirname "$0")/.."
unformatted=$(git ls-files -z '*.go' | xargs -0r gofmt -l)
[ -z "$unformatted" ] || { printf 'not formatted, run make fmt:\n%s\n' "$unformatted" >&2; exit 1; }
git ls-files -z 'scripts/*.sh' '.ci/run' | xargs -0r -n1 bash -n
"$lint" run --timeout 15m "$@"
