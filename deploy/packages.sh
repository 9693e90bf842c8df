#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The Debian packages that Postern needs, in one place, and the function that installs them.
#
#   deploy/packages.sh install build test   installs these groups (as root, or through sudo)
#   deploy/packages.sh list build           prints their names
#
# Works on Debian 12 and 13, also on a minimal installation or in a chroot. Other scripts source this
# file and call postern_install_packages. "a|b" means the first of the two that apt knows.

postern_packages_build=(
  g++ cmake ninja-build ccache pkg-config
  libuv1-dev libssl-dev libgrpc++-dev libgrpc-dev libprotobuf-dev protobuf-compiler
  protobuf-compiler-grpc libabsl-dev libc-ares-dev libspdlog-dev libcli11-dev libyaml-cpp-dev
  nlohmann-json3-dev libsqlite3-dev prometheus-cpp-dev libcpp-httplib-dev
)
# What deploy/quickstart.sh shows the main job with.
postern_packages_run=(
  nftables iproute2 curl "nginx-light|nginx" tcpdump openssl procps util-linux
)
postern_packages_test=(
  "${postern_packages_run[@]}"
  libgtest-dev libgmock-dev python3 binutils redis-server redis-tools postgresql postgresql-client
  iperf3 netcat-openbsd faketime haproxy wrk rsync mosquitto mosquitto-clients
  softhsm2 "pkcs11-provider|libengine-pkcs11-openssl"
  e2fsprogs # a disk that becomes read-only
  systemd valgrind libbenchmark-dev # tests that would be skipped: units, instructions, micro-benchmarks
  mariadb-server-core mariadb-client-core openssh-server openssh-client python3-aiosmtpd
)
# What tests/bench measures with, and what it compares with.
postern_packages_bench=(
  libbenchmark-dev
  haproxy "nginx-light|nginx" libnginx-mod-stream stunnel4 wrk nghttp2-client iperf3 valgrind openssl
  python3 git
)
# What `cmake --build build/release --target format|tidy` and the script checks use.
postern_packages_dev=(clang-format clang-tidy clang shellcheck git)

# postern_package_names GROUP...: the names of the groups, alternatives still joined.
postern_package_names() {
  local group
  for group in "$@"; do
    case $group in
      build) printf '%s\n' "${postern_packages_build[@]}" ;;
      run) printf '%s\n' "${postern_packages_run[@]}" ;;
      test) printf '%s\n' "${postern_packages_test[@]}" ;;
      dev) printf '%s\n' "${postern_packages_dev[@]}" ;;
      bench) printf '%s\n' "${postern_packages_bench[@]}" ;;
      *) echo "packages.sh: no group '$group' (build, run, test, dev, bench)" >&2; return 2 ;;
    esac
  done
}

# True when the package is installed. Asking dpkg is quick and needs no network.
postern_package_installed() {
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# postern_missing_packages GROUP...: the names, alternatives still joined, of what is not installed.
postern_missing_packages() {
  local wanted name found names
  names=$(postern_package_names "$@") || return
  while read -r wanted; do
    found=no
    for name in ${wanted//|/ }; do
      if postern_package_installed "$name"; then found=yes; break; fi
    done
    if [ "$found" = no ]; then echo "$wanted"; fi
  done < <(sort -u <<<"$names")
}

# postern_choose_package A|B: the first name that apt has a candidate for.
postern_choose_package() {
  local name known
  for name in ${1//|/ }; do
    known=$(apt-cache policy "$name" 2>/dev/null) || known=
    if [[ $known =~ Candidate:\ [^\(] ]]; then
      echo "$name"
      return 0
    fi
  done
  echo "packages.sh: apt knows none of: ${1//|/, }" >&2
  return 1
}

# postern_install_packages GROUP...: installs what is missing. Says what it does; does nothing, and
# asks for nothing, when all is there. Daemons among the packages are not started.
postern_install_packages() {
  local missing wanted chosen=()
  missing=$(postern_missing_packages "$@") || return
  if [ -z "$missing" ]; then
    echo "packages: everything of '$*' is installed"
    return 0
  fi
  if ! command -v apt-get >/dev/null; then
    echo "packages: this is not Debian (no apt-get). Install the equivalents of:" >&2
    postern_package_names "$@" | tr '\n' ' ' >&2
    return 1
  fi
  local as_root=()
  if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
      echo "packages: run this as root once, or install sudo; missing: ${missing//$'\n'/ }" >&2
      return 1
    fi
    echo "packages: sudo is used to install packages, for nothing else"
    as_root=(sudo)
  fi
  echo "packages: refreshing apt's lists"
  "${as_root[@]}" apt-get update -q || return
  while read -r wanted; do
    chosen+=("$(postern_choose_package "$wanted")") || return
  done <<<"$missing"
  echo "packages: installing ${#chosen[@]}: ${chosen[*]}"
  "${as_root[@]}" bash -c "$(declare -f postern_apt_install); postern_apt_install \"\$@\"" \
    postern_apt_install "${chosen[@]}"
}

# Runs as root. A policy-rc.d that says no keeps the packages' daemons from starting, in a chroot too;
# one that was there before is put back.
postern_apt_install() {
  set -euo pipefail
  local policy=/usr/sbin/policy-rc.d status=0
  local saved=$policy.before-postern
  if [ -e "$policy" ] && [ ! -e "$saved" ]; then mv "$policy" "$saved"; fi
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 0755 "$policy"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
    -o Dpkg::Use-Pty=0 "$@" </dev/null || status=$?
  rm -f "$policy"
  if [ -e "$saved" ]; then mv "$saved" "$policy"; fi
  return "$status"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  set -euo pipefail
  verb=${1:-}
  shift || true
  case $verb in
    install) postern_install_packages "${@:-build}" ;;
    list) postern_package_names "${@:-build}" | sort -u ;;
    *) sed -n '3,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
fi
