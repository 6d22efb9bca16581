#!/usr/bin/env bash
# go-version.sh GO: is this Go new enough for go.mod? Says what to do if not.
set -euo pipefail
go=${1:-go}
cd "$(dirname "$0")/.."
want=$(sed -n 's/^go //p' go.mod)
command -v "$go" >/dev/null || { echo "twinspan needs Go $want or later, and there is no '$go' in PATH: https://go.dev/dl/" >&2; exit 1; }
# With GOTOOLCHAIN=auto an older Go fetches the right one by itself.
have=$("$go" env GOVERSION 2>&1) || { echo "twinspan needs Go $want or later: $have" >&2; exit 1; }
have=${have#go} have=${have%% *} # "go1.26.1 X:experiment"
[ "$(printf '%s\n%s\n' "$want" "$have" | sort -V | head -n1)" = "$want" ] ||
  { echo "twinspan needs Go $want or later, this is $have: https://go.dev/dl/" >&2; exit 1; }
