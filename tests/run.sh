#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what the tests need, builds, and runs every test. The last line is the counts.
#
#   tests/run.sh                 everything that fits in 25 minutes on two cores, sanitizers included
#   tests/run.sh --quick         lint, unit and integration tests of the release build
#   tests/run.sh --soak          also the long tests
#   tests/run.sh --preset P      everything of this preset alone: release, asan or tsan
#
# Exit status: 0 every test passed, 1 one failed, 2 usage. With CI=true tests that need network
# namespaces may not be skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

quick=no
soak=no
only=
usage() {
  sed -n '3,11s/^# \{0,1\}//p' tests/run.sh
}
while [ $# -gt 0 ]; do
  case $1 in
    --quick) quick=yes ;;
    --soak) soak=yes ;;
    --preset) only=${2:-}; shift || true ;;
    --preset=*) only=${1#*=} ;;
    -h | --help) usage; exit 0 ;;
    *) echo "tests/run.sh: unknown argument '$1'" >&2; usage >&2; exit 2 ;;
  esac
  shift
done
case $only in
  '' | release | asan | tsan) ;;
  *) echo "tests/run.sh: --preset is release, asan or tsan, not '$only'" >&2; exit 2 ;;
esac

# shellcheck source=deploy/packages.sh
. deploy/packages.sh
postern_install_packages build test

if [ "${CI:-}" = true ]; then export POSTERN_REQUIRE_NETNS=1; fi
if [ "$soak" = yes ]; then export POSTERN_SOAK=1; fi

say() {
  printf '\n== %s (%s)\n' "$1" "$(date -u +%H:%M:%S)"
}

# note PRESET OUTCOME REASON: what happened instead of the tests of a preset, as one case.
note() {
  echo "tests/run.sh: $1: $3" >&2
  python3 tests/testing/run_tests.py note --build "build/$1" --outcome "$2" --reason "$3"
}

# run_preset PRESET LABELS [BUILD TARGETS...]: builds, then runs the tests of these labels. Failures do
# not stop the script: the counts are taken at the end, and a failed build is a failed case. A
# sanitizer's build that is not done within POSTERN_TIME_LIMIT (seconds since the start; .ci/run sets
# it) is a skipped case, visibly; the compiler's cache lets the next run get further.
results=()
run_preset() {
  local preset=$1 labels=$2 status=0
  shift 2
  say "$preset: configure and build"
  results+=("build/$preset/test-results/summary.json")
  local build=(cmake --build "build/$preset" -j "$(nproc)" ${1+--target "$@"})
  if [ "$preset" != release ] && [ -n "${POSTERN_TIME_LIMIT:-}" ]; then
    local left=$((POSTERN_TIME_LIMIT - SECONDS))
    build=(timeout "$((left > 1 ? left : 1))" "${build[@]}")
  fi
  cmake --preset "$preset" -DPOSTERN_WERROR=ON -DPOSTERN_TESTS=ON && "${build[@]}" || status=$?
  case $status in
    0) ;;
    124) note "$preset" skipped "the build did not fit into the time; run tests/run.sh --preset $preset" ;;
    *) note "$preset" failed "the build failed; its messages are above" ;;
  esac
  if [ "$status" = 0 ]; then
    say "$preset: tests: ${labels//,/, }"
    python3 tests/testing/run_tests.py run --build "build/$preset" --labels "$labels"
  fi
}

quick_labels=lint,unit,integration
case $quick,$only in
  yes,'') run_preset release "$quick_labels" ;;
  yes,release) run_preset release "$quick_labels" ;;
  yes,*) run_preset "$only" unit,integration ;;  # what lint says of binaries is of the release's
  no,release) run_preset release "$quick_labels,netns,e2e" ;;
  no,asan | no,tsan) run_preset "$only" unit,integration,netns,e2e ;;
  no,'')
    run_preset release "$quick_labels,netns,e2e"
    # The programs are not run under the sanitizers here, so they are not built either; and of the
    # tests, tsan gets those that have threads.
    run_preset asan unit,integration sanitized_tests
    run_preset tsan threaded threaded_tests
    ;;
esac

say "result"
exec python3 tests/testing/run_tests.py total "${results[@]}"
