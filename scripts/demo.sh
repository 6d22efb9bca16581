#!/usr/bin/env bash
# demo.sh FLAVOUR [ARGS…]: gets the servers, then runs test/demo. When MySQL
# cannot be fetched, the demo runs on MariaDB and says so.
set -euo pipefail
flavour=$1; shift
here=$(dirname "$0")
if ! "$here/servers.sh" "$flavour"; then
  [ "$flavour" = mysql97 ] || exit 1
  echo "demo: MySQL 9.7 could not be fetched, going on with MariaDB 10.11" >&2
  flavour=mariadb1011
  "$here/servers.sh" "$flavour"
fi
cd "$here/.."
mkdir -p bin
go build -o bin/demo ./test/demo
# exec: signals and the exit code are the demo's own.
exec bin/demo -twinspan bin/twinspan -flavor "$flavour" "$@"
