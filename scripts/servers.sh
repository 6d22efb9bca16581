#!/usr/bin/env bash
# Installs the database servers that the tests, the demo and the benches run.
#
#   scripts/servers.sh [FLAVOUR...]     mysql97 mariadb1011 mariadb118; default: all
#
# The servers come from Debian's archive (signatures checked), each unpacked with
# all its libraries, its own libc included, into
# ${TWINSPAN_SERVERS:-${XDG_CACHE_HOME:-~/.cache}/twinspan/servers}/FLAVOUR.
# Nothing of the host is changed: no package is installed, no service started.
# Done already: returns at once. Exit codes: 0 installed, 1 failed, 2 usage.
#
# TWINSPAN_MIRROR=http://…/debian takes another mirror. FORCE=1 installs afresh.
set -euo pipefail

# What was unpacked is good as long as this stays the same.
layout=1
cache=${TWINSPAN_SERVERS:-${XDG_CACHE_HOME:-${HOME:?set HOME or TWINSPAN_SERVERS}/.cache}/twinspan/servers}
mirror=${TWINSPAN_MIRROR:-http://deb.debian.org/debian}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

say() { printf 'servers: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# flavour → suite, version wanted, daemon, packages
recipe() {
  case $1 in
    mysql97)     suite=sid      version=9.7.   daemon=mysqld   packages="mysql-server-core mysql-client-core" ;;
    mariadb1011) suite=bookworm version=10.11. daemon=mariadbd packages="mariadb-server-core mariadb-client-core" ;;
    mariadb118)  suite=trixie   version=11.8.  daemon=mariadbd packages="mariadb-server-core mariadb-client-core" ;;
    *) say "unknown flavour '$1': use mysql97, mariadb1011 or mariadb118"; exit 2 ;;
  esac
}

installed() { # FLAVOUR
  [ -z "${FORCE:-}" ] && [ "$(head -n1 "$cache/$1/.installed" 2>/dev/null)" = "layout $layout $1" ]
}

# Packages that only maintainer scripts and helper scripts want: apt is told that
# they are there, which keeps the download to the server and its libraries.
unneeded="perl perl-base debconf psmisc adduser passwd init-system-helpers lsb-base mysql-common mariadb-common
  libdbi-perl libjson-perl libterm-readkey-perl libcgi-fast-perl libaprutil1 procps gawk socat rsync iproute2 lsof
  galera-4 unzip file virtual-mysql-client"

# with_retries TRIES COMMAND…: networks fail for moments
with_retries() {
  local tries=$1 n; shift
  for ((n = 1; ; n++)); do
    "$@" && return 0
    ((n < tries)) || return 1
    say "attempt $n of $tries failed, once more in $((n * 3)) s"
    sleep $((n * 3))
  done
}

run_apt() { # ARGS…: apt-get on the private state in $work; its output goes to the log
  apt-get -q -y \
    -o Dir::State="$work/state" -o Dir::State::status="$work/status" -o Dir::Cache="$work/cache" -o Dir::Log="$work/log" \
    -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=- -o Dir::Etc::PreferencesParts=- \
    -o APT::Architecture="$arch" -o APT::Architectures="$arch" -o APT::Install-Recommends=false -o APT::Sandbox::User="$(id -un)" \
    -o Acquire::Languages=none -o Acquire::Retries=3 -o Acquire::http::Timeout=30 \
    -o Acquire::Check-Valid-Until=false -o Debug::NoLocking=1 \
    -o DPkg::Post-Invoke= -o APT::Update::Post-Invoke= -o APT::Update::Post-Invoke-Success= \
    "$@" >>"$work/apt.log" 2>&1
}

install_flavour() ( # FLAVOUR; a subshell: the trap is its own
  flavour=$1
  recipe "$flavour"
  work=$cache/.work-$flavour
  new=$cache/.new-$flavour
  rm -rf "$work" "$new"
  mkdir -p "$work"/{state/lists/partial,cache/archives/partial,log} "$new"
  trap 'rm -rf "$work" "$new"' EXIT
  arch=$(dpkg --print-architecture)
  for p in $unneeded; do
    printf 'Package: %s\nStatus: install ok installed\nMaintainer: none <none@localhost>\nArchitecture: %s\nMulti-Arch: allowed\nVersion: 99:99\nDescription: not needed here\n\n' "$p" "$arch"
  done >"$work/status"
  # A snapshot of the archive has an old date; the signature is what counts.
  echo "deb [signed-by=$keyring] $mirror $suite main" >"$work/sources.list"

  say "$flavour: fetching $packages from $mirror $suite"
  with_retries 3 run_apt update -o APT::Update::Error-Mode=any || { tail -n 15 "$work/apt.log" >&2; die "$flavour: cannot read the package index of $mirror $suite"; }
  with_retries 3 run_apt --download-only install $packages || { tail -n 15 "$work/apt.log" >&2; die "$flavour: cannot fetch $packages from $mirror $suite"; }

  # /lib, /sbin and /lib64 are links into /usr in today's Debian
  mkdir -p "$new"/usr/{lib,lib64,bin,sbin}
  for l in lib lib64 sbin bin; do ln -s "usr/$l" "$new/$l"; done
  for deb in "$work"/cache/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$new" --keep-directory-symlink --no-same-owner \
      --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' --exclude='./usr/share/lintian/*' ||
      die "$flavour: cannot unpack $(basename "$deb")"
  done

  loader=$(ls "$new"/usr/lib*/ld-linux-*.so.* "$new"/usr/lib/*/ld-linux-*.so.* 2>/dev/null | head -n1)
  [ -n "$loader" ] || die "$flavour: the packages hold no program loader"
  libs=$(ls -d "$new"/usr/lib/*-linux-gnu | head -n1)
  said=$("$loader" --library-path "$libs:$new/usr/lib/mysql:$libs/mysql" "$new/usr/sbin/$daemon" --no-defaults --version) ||
    die "$flavour: the unpacked $daemon does not run: $said"
  said=${said#* Ver } said=${said%% for *} said=${said%% from *}
  case $said in
    "$version"*) ;;
    *) say "$flavour: note: $suite has moved on from ${version%.}, this is $said" ;;
  esac
  { echo "layout $layout $flavour"; echo "$said"; (cd "$work/cache/archives" && ls -- *.deb); } >"$new/.installed"

  # The old folder goes aside first: a server running from it keeps its files.
  rm -rf "$cache/.old-$flavour"
  [ ! -e "$cache/$flavour" ] || mv "$cache/$flavour" "$cache/.old-$flavour"
  mv "$new" "$cache/$flavour"
  rm -rf "$cache/.old-$flavour" "$cache"/templates/"$flavour"-*
  say "$flavour: installed $said ($(du -sh "$cache/$flavour" | cut -f1) in $cache/$flavour, $SECONDS s)"
)

[ "${1:-}" != -h ] && [ "${1:-}" != --help ] || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 0; }
[ $# -gt 0 ] || set -- mysql97 mariadb1011 mariadb118
for f in "$@"; do recipe "$f"; done
todo=()
for f in "$@"; do installed "$f" || todo+=("$f"); done
[ ${#todo[@]} -gt 0 ] || exit 0

for tool in apt-get dpkg-deb tar flock; do
  command -v "$tool" >/dev/null || die "this needs $tool: it runs on Debian and its relatives"
done
[ -r "$keyring" ] || die "no $keyring: apt-get install debian-archive-keyring"
mkdir -p "$cache"
# One installer at a time; who waited finds the work done.
exec 9>"$cache/.lock"
flock -n 9 || { say "another installer is at work, waiting for it"; flock 9; }
for f in "${todo[@]}"; do
  installed "$f" || install_flavour "$f"
done
