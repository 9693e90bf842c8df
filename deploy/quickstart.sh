#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is needed, builds Postern and shows its main job: an issuer and two workloads, each in a
# network namespace of its own; curl in one fetches from nginx in the other, through interception, over
# mutual TLS with certificates that live for an hour. Debian 12 or 13.
#
#   deploy/quickstart.sh           show it, check it, clean up; exit status 0 only if every check held
#   deploy/quickstart.sh --keep    leave it running, with the commands to explore it
#   deploy/quickstart.sh --clean   end what --keep left (a second run does so too)
#
# As root it uses namespaces named pstn-*. Without root only the packages need sudo; the rest happens in
# a user namespace. Addresses are of 198.18.0.0/15 and fd00:5b::/32; nothing outside is touched.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly trust_domain=quickstart.test
readonly server4=198.18.1.2 server6=fd00:5b:1::2
readonly secret="The postern stands open for friends only."
readonly mark=0x505
readonly proxy_uid=64901
spaces=(client server issuer)

keep=no
for argument in "$@"; do
  case $argument in
    --keep) keep=yes ;;
    --clean) keep=clean ;;
    -h | --help) sed -n '3,13s/^# \{0,1\}//p' deploy/quickstart.sh; exit 0 ;;
    *) echo "quickstart: unknown argument '$argument' (--keep, --clean)" >&2; exit 2 ;;
  esac
done

if [ -t 1 ]; then bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'; else bold='' green='' red='' plain=''; fi
say() { printf '\n%s== %s%s\n' "$bold" "$1" "$plain"; }
note() { printf '   %s\n' "$1"; }
show() { sed 's/^/   | /'; }

held=0 failed=0
# check WHAT COMMAND...: counts and prints whether the command succeeds.
check() {
  local what=$1
  shift
  if "$@"; then
    held=$((held + 1))
    printf '   %s[holds]%s %s\n' "$green" "$plain" "$what"
  else
    failed=$((failed + 1))
    printf '   %s[FAILS]%s %s\n' "$red" "$plain" "$what"
  fi
}
die() { printf '%squickstart: %s%s\n' "$red" "$1" "$plain" >&2; exit 1; }

# ---- What an earlier run left. Only processes that a run noted and that still name its directory.
end_processes() {
  local directory=$1 pid round
  for round in TERM KILL; do
    [ -r "$directory/pids" ] || break
    while read -r pid; do
      if (tr '\0' ' ' <"/proc/$pid/cmdline") 2>/dev/null | grep -qF -- "$directory"; then
        kill "-$round" "$pid" 2>/dev/null || true
      fi
    done <"$directory/pids"
    if [ "$round" = TERM ]; then sleep 0.3; fi
  done
}
clean_up_earlier() {
  local directory name
  for directory in "${TMPDIR:-/tmp}"/pstn-quickstart-*; do
    if [ ! -d "$directory" ] || [ ! -O "$directory" ]; then continue; fi
    note "cleaning up an earlier run in $directory"
    end_processes "$directory"
    rm -rf -- "$directory"
  done
  if [ "$(id -u)" = 0 ] && command -v ip >/dev/null; then
    for name in "${spaces[@]}"; do
      if [ -e "/run/netns/pstn-$name" ]; then ip netns del "pstn-$name"; fi
    done
  fi
}

# ---- Install and build.
prepare() {
  # shellcheck source=deploy/packages.sh
  . deploy/packages.sh
  say "Packages"
  postern_install_packages build run
  say "Build (some minutes the first time)"
  local options=()
  # The tests' libraries are not needed here; a build directory that has tests keeps them.
  if [ ! -e build/release/CMakeCache.txt ]; then options=(-DPOSTERN_TESTS=OFF); fi
  cmake --preset release "${options[@]}" >"$state/cmake.log" || { cat "$state/cmake.log"; die "cmake failed"; }
  cmake --build build/release -j "$(nproc)" --target postern postern-proxy postern-identity
}

# ---- Where it all happens: as root here, else in a user namespace with mounts of its own.
inside() {
  local space=$1
  shift
  nsenter "--net=/run/netns/pstn-$space" "$@"
}
# start NAME SPACE COMMAND...: in the background, with a log, noted for the clean-up.
start() {
  local name=$1 space=$2
  shift 2
  setsid nsenter "--net=/run/netns/pstn-$space" "$@" </dev/null >"$state/$name.log" 2>&1 &
  echo $! | tee "$state/$name.pid" >>"$state/pids"
  disown  # the shell shall not announce its end
}
# The proxy as a user of its own; in a user namespace there is only one.
as_proxy=() guard=()
become_proxy() {
  if [ "$user_namespace" = yes ]; then
    guard=(--proxy-mark "$mark" --exclude-outbound-port 15012)
    return
  fi
  as_proxy=(setpriv "--reuid=$proxy_uid" "--regid=$proxy_uid" --clear-groups)
  guard=(--proxy-uid "$proxy_uid")
}
own() { if [ "$user_namespace" = no ]; then chown -R "$proxy_uid:$proxy_uid" "$@"; fi; }

make_namespaces() {
  say "Three network namespaces: two workloads and an issuer"
  local name
  if [ "$user_namespace" = yes ]; then
    mount -t tmpfs -o mode=0755 pstn /run
    note "in a user namespace, without root; the loop guard is a mark there"
  fi
  for name in "${spaces[@]}"; do
    ip netns add "pstn-$name"
    inside "$name" ip link set lo up
  done
  join client server 1
  join client issuer 2
  join server issuer 3
  note "pstn-client 198.18.1.1  <->  198.18.1.2 pstn-server   (and fd00:5b:1::1, ::2)"
}
join() {
  local left=$1 right=$2 n=$3
  ip link add "pstn${n}a" netns "pstn-$left" type veth peer name "pstn${n}b" netns "pstn-$right"
  local end space host
  for end in "a $left 1" "b $right 2"; do
    read -r end space host <<<"$end"
    inside "$space" ip addr add "198.18.$n.$host/24" dev "pstn$n$end"
    inside "$space" ip addr add "fd00:5b:$n::$host/64" dev "pstn$n$end" nodad
    inside "$space" ip link set "pstn$n$end" up
  done
}

start_issuer() {
  say "The issuer makes a root, an intermediate and its own certificate"
  start issuer issuer "$bin/postern-identity" --trust-domain "$trust_domain" \
    --state-dir "$state/issuer" --listen 0.0.0.0:15012 --socket "$socket"
  inside issuer "$bin/postern" wait --address 127.0.0.1:15014 --timeout 20s || explain
  "$bin/postern" bundle show --socket "$socket" | show
}

# workload NAME ISSUER-ADDRESS FLAGS OF `token create`...: token, rules, proxy.
workload() {
  local name=$1 issuer=$2
  shift 2
  mkdir -m 0700 "$state/$name"
  (umask 077 && "$bin/postern" token create --socket "$socket" \
    --spiffe-id "spiffe://$trust_domain/$name" "$@" >"$state/$name.token") 2>&1 | show
  own "$state/$name" "$state/$name.token"
  inside "$name" "$bin/postern" intercept up "${guard[@]}" 2>&1 | show
  local proxy_mark=()
  if [ "$user_namespace" = yes ]; then proxy_mark=(--mark "$mark"); fi
  start "$name" "$name" "${as_proxy[@]}" "$bin/postern-proxy" --intercept redirect "${proxy_mark[@]}" \
    --issuer "$issuer:15012" --issuer-pin "$pin" --trust-domain "$trust_domain" \
    --join-token-file "$state/$name.token" --state-dir "$state/$name" --admin-socket off
}

start_workloads() {
  say "Two workloads: a single-use join token, interception rules and a proxy for each"
  pin=$("$bin/postern" bundle show --output pin --socket "$socket")
  workload server 198.18.3.2 --address "$server4" --address "$server6"
  workload client 198.18.2.2
  local name
  for name in server client; do
    check "the proxy of $name is ready: certificate, bundle, policy and listeners" \
      inside "$name" "$bin/postern" wait --timeout 20s
  done
  if [ "$failed" != 0 ]; then explain; fi
  start_nginx
}

start_nginx() {
  mkdir "$state/www"
  printf '%s\n' "$secret" >"$state/www/index.html"
  cat >"$state/nginx.conf" <<END
daemon off; master_process off; user root root; pid $state/nginx.pid; error_log $state/nginx-error.log;
events { worker_connections 64; }
http { access_log off; client_body_temp_path $state/t1; proxy_temp_path $state/t2;
  fastcgi_temp_path $state/t3; uwsgi_temp_path $state/t4; scgi_temp_path $state/t5;
  server { listen 0.0.0.0:80; listen [::]:80; root $state/www; } }
END
  start nginx server nginx -c "$state/nginx.conf" -e "$state/nginx-error.log"
  for _ in {1..50}; do
    if inside server curl -s --max-time 2 -o /dev/null http://127.0.0.1/; then return; fi
    sleep 0.1
  done
  explain
}

# ---- What there is to see.
fetch() {
  local body
  body=$(inside client curl -sS --fail --max-time 10 "$1")
  printf '%s\n' "$body" | show
  [ "$body" = "$secret" ]
}
show_traffic() {
  say "curl in one namespace, nginx in the other: neither knows of Postern"
  local capture="$state/wire.pcap" tcpdump
  start tcpdump server tcpdump -i pstn1b -U --immediate-mode -n -Z root -s 0 -w "$capture" tcp
  tcpdump=$(cat "$state/tcpdump.pid")
  for _ in {1..50}; do
    if grep -q 'listening on' "$state/tcpdump.log"; then break; fi
    sleep 0.1
  done
  note "\$ curl http://$server4/"
  check "curl gets the page over IPv4" fetch "http://$server4/"
  note "\$ curl http://[$server6]/"
  check "curl gets the page over IPv6" fetch "http://[$server6]/"
  sleep 0.5
  kill "$tcpdump"
  for _ in {1..50}; do
    if [ ! -e "/proc/$tcpdump" ]; then break; fi
    sleep 0.1
  done
  show_capture "$capture"
}
lacks() { ! LC_ALL=C grep -aqF -- "$2" "$1"; }
# The extension supported_versions of a ServerHello: 002b, two bytes, 0304.
has_tls13_server_hello() { LC_ALL=C grep -aqP '\x00\x2b\x00\x02\x03\x04' "$1"; }
show_capture() {
  local capture=$1
  say "What a packet capture between the two saw"
  note "$(stat -c %s "$capture") bytes; the first packets with data, as tcpdump prints them:"
  (tcpdump -r "$capture" -n -A 'tcp[tcpflags] & tcp-push != 0' 2>/dev/null || true) |
    tr -c '[:print:]\n' . | cut -c1-92 | head -n 14 | show
  check "the server agreed on TLS 1.3" has_tls13_server_hello "$capture"
  check "the page is nowhere in it" lacks "$capture" "$secret"
  check "neither are curl's request and nginx's answer" lacks_http "$capture"
}
lacks_http() { lacks "$1" "GET /" && lacks "$1" "HTTP/1.1" && lacks "$1" "curl/"; }

show_certificates() {
  say "The certificates in use"
  local name
  for name in client server; do
    note "$name:"
    "$bin/postern" cert show "$state/$name/svid.pem" | tee "$state/$name.cert" | show
    check "$name holds spiffe://$trust_domain/$name, and time is left" certificate_is_good "$name"
  done
}
certificate_is_good() {
  grep -qxF "spiffe://$trust_domain/$1" "$state/$1.cert" && grep -q ' left)' "$state/$1.cert"
}

show_metrics() {
  say "The metrics of the connection, as Prometheus scrapes them"
  inside client curl -sS --fail --max-time 10 "http://$server4:15020/metrics" >"$state/metrics"
  grep -E '^postern_(connections_(opened|secured)_total|bytes_total|tls_handshakes_total)\{.*inbound' \
    "$state/metrics" | grep -v ' 0$' | show
  check "two connections came in over mutual TLS" \
    grep -qE '^postern_connections_secured_total\{.*inbound.*mutual_tls.*\} 2$' "$state/metrics"
}

show_refusals() {
  say "A client without identity"
  note "\$ curl http://198.18.3.1/   (plaintext, from the issuer's namespace)"
  check "plaintext is refused" refuses inside issuer curl -sS --max-time 10 http://198.18.3.1/
  note "\$ openssl s_client -connect 198.18.3.1:80   (TLS without a certificate)"
  check "TLS without a certificate is refused" refuses tls_without_certificate
  inside server curl -sS --fail --max-time 10 http://127.0.0.1:15000/failures >"$state/failures"
  tr '{' '\n' <"$state/failures" | grep -oE '"(reason|what|mend)":"[^"]*"' | head -n 6 | show
  check "the proxy says why: plaintext_refused" grep -q '"plaintext_refused"' "$state/failures"
  check "the proxy says why: peer_no_certificate" grep -q '"peer_no_certificate"' "$state/failures"
}
tls_without_certificate() {
  # Ends only when the server hangs up, or after ten seconds.
  (printf 'GET / HTTP/1.0\r\n\r\n'; sleep 2) |
    timeout 10 nsenter --net=/run/netns/pstn-issuer openssl s_client -quiet -connect 198.18.3.1:80 2>&1
}
# True when the command's output does not hold the page.
refuses() {
  local said
  said=$("$@" 2>&1 </dev/null) || true
  printf '%s\n' "$said" | tail -n 2 | cut -c1-100 | show
  ! grep -qF -- "$secret" <<<"$said"
}

explain() {
  local log
  for log in issuer client server nginx-error; do
    if [ -s "$state/$log.log" ]; then
      echo "--- $log"
      tail -n 15 "$state/$log.log"
    fi
  done >&2
  die "something did not start; see above"
}

tell_how_to_explore() {
  local client="nsenter --net=/run/netns/pstn-client" server="nsenter --net=/run/netns/pstn-server"
  say "It goes on running; end it with: deploy/quickstart.sh --clean"
  if [ "$user_namespace" = yes ]; then
    client="nsenter -U --preserve-credentials -n -t $(cat "$state/client.pid")"
    server="nsenter -U --preserve-credentials -n -t $(cat "$state/server.pid")"
  fi
  cat <<END
   curl through the mesh         $client curl http://$server4/
   status of a proxy             $server $bin/postern status
   its last failures             $server curl -s 127.0.0.1:15000/failures
   its metrics                   $server curl -s 127.0.0.1:15020/metrics
   the issuer's view             $bin/postern status --issuer --socket $socket
   logs                          $state/*.log
END
  if [ "$user_namespace" = no ]; then
    echo "   the rules and their counts    $client $bin/postern intercept show"
  fi
}

# ---- The show itself; in a user namespace this is its own process.
demonstrate() {
  trap finish EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  bin="$state/bin"
  socket="$state/identity.sock"
  # The proxies' user may not be allowed into the source tree.
  mkdir "$bin"
  cp build/release/bin/postern build/release/bin/postern-proxy build/release/bin/postern-identity "$bin"
  become_proxy
  make_namespaces
  start_issuer
  start_workloads
  show_traffic
  show_certificates
  show_metrics
  show_refusals
  say "$held of $((held + failed)) checks held"
  if [ "$keep" = yes ]; then
    tell_how_to_explore
  fi
  [ "$failed" = 0 ]
}
finish() {
  local status=$?
  if [ "$keep" = yes ] && [ "$status" = 0 ]; then return; fi
  end_processes "$state"
  local name
  for name in "${spaces[@]}"; do
    if [ -e "/run/netns/pstn-$name" ]; then ip netns del "pstn-$name" || true; fi
  done
  rm -rf -- "$state"
}

if [ "${PSTN_QUICKSTART_STATE:-}" ]; then
  state=$PSTN_QUICKSTART_STATE
  user_namespace=yes
  demonstrate
  exit
fi

clean_up_earlier
if [ "$keep" = clean ]; then exit 0; fi
umask 022
state=$(mktemp -d "${TMPDIR:-/tmp}/pstn-quickstart-XXXXXX")
chmod 0755 "$state"
trap 'rm -rf -- "$state"' EXIT
prepare
PATH=$PATH:/usr/sbin:/sbin
# Not as its root: tcpdump and nginx would want to become somebody else, who does not exist there.
user_namespace_options=(--user --map-current-user --keep-caps --net --mount)
if [ "$(id -u)" = 0 ] && unshare --net true 2>/dev/null; then
  user_namespace=no
  demonstrate
elif unshare "${user_namespace_options[@]}" true 2>/dev/null; then
  trap - EXIT
  export PSTN_QUICKSTART_STATE=$state
  exec unshare "${user_namespace_options[@]}" -- "$BASH" deploy/quickstart.sh "$@"
else
  die "this user may make no namespaces here (in a chroot or container, perhaps); run it as root"
fi
