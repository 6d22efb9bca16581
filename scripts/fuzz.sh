#!/usr/bin/env bash
# fuzz.sh TIME [PACKAGES…]: runs every fuzz target for TIME (go test -fuzztime:
# 30s, or 1000x for a number of inputs). An input that fails is kept in the
# package's testdata/fuzz, where go test replays it from then on.
set -euo pipefail
time=$1; shift
cd "$(dirname "$0")/.."
go=${GO:-go}
failed=0 targets=0
while IFS=: read -r dir target; do
  targets=$((targets + 1))
  echo "fuzz: $dir $target $time"
  "$go" test -run='^$' -fuzz="^$target\$" -fuzztime="$time" "$dir" || { failed=$((failed + 1)); echo "fuzz: FAILED $dir $target" >&2; }
done < <("$go" list -f '{{$d := .Dir}}{{range .TestGoFiles}}{{$d}}/{{.}}{{"\n"}}{{end}}{{range .XTestGoFiles}}{{$d}}/{{.}}{{"\n"}}{{end}}' "${@:-./...}" |
  xargs -r grep -Ho '^func Fuzz[A-Za-z0-9_]*' | sed "s#^$PWD/#./#; s#/[^/]*:func #:#" | sort)
echo "fuzz: $targets targets, $failed failed"
[ "$failed" = 0 ]
