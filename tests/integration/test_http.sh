#!/usr/bin/env bash
# The HTTP servers met by programs that nobody here wrote: curl, nghttp, h2load, openssl. The application behind them is
# tests/unit/http/http_fixture.h, served by the test program itself.
set -u
cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
serve=$B/tests/unit/http/test_serve
dir=$(mktemp -d)
pids=()
trap 'for p in "${pids[@]}"; do kill "$p" 2>/dev/null; done; wait; rm -rf "$dir"' EXIT
n=0

check() { # name, command...: passes when the command does
    local name=$1
    shift
    n=$((n + 1))
    if "$@" >"$dir/out" 2>&1; then echo "ok $n - $name"; else
        echo "not ok $n - $name"
        sed 's/^/# /' "$dir/out" | head -20
    fi
}
skip() { n=$((n + 1)); echo "ok $n - $1 # SKIP $2"; }
has() { command -v "$1" >/dev/null; }

for tool in curl openssl; do
    has $tool || { echo "ok 1 - http # SKIP no $tool"; echo "1..1"; exit 0; }
done
[ -x "$serve" ] || make -s B="$B" "$serve" >/dev/null || { echo "not ok 1 - build $serve"; echo "1..1"; exit 1; }

start() { # arguments of the server; sets port
    "$serve" --serve "$@" >"$dir/log.$#" 2>"$dir/err.$#" &
    pids+=($!)
    for _ in $(seq 100); do
        port=$(sed -n 's/^port //p' "$dir/log.$#")
        [ -n "$port" ] && return
        sleep 0.05
    done
    echo "Bail out! the server did not start: $(cat "$dir/err.$#")"
    exit 1
}

certificates() {
    local ec="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    cd "$dir" || return
    openssl req -x509 $ec -days 2 -subj /CN=ca -keyout ca.key -out ca.pem
    openssl req -x509 $ec -days 2 -subj /CN=evil -keyout evil.key -out evil.pem
    echo "subjectAltName=DNS:localhost,IP:127.0.0.1" >ext
    issue server /CN=localhost
    issue next /CN=next
    issue client /O=system:masters/O=dev/CN=admin
    cd - || return
}
issue() {
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$2" -keyout "$1.key" -out "$1.csr"
    openssl x509 -req -days 2 -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -extfile ext -out "$1.pem"
}
certificates >/dev/null 2>&1

get() { curl -sS -m 20 --cacert "$dir/ca.pem" "$@"; }
answers() { # wanted text, curl arguments
    local want=$1
    shift
    local got
    got=$(get "$@")
    [ "$got" = "$want" ] || { echo "wanted: $want"; echo "got: $got"; return 1; }
}
fails() { ! get "$@"; }

start --workers 2
plain=http://127.0.0.1:$port
start --workers 2 --tls "$dir/server.pem" "$dir/server.key" "$dir/ca.pem"
secure=https://127.0.0.1:$port
start --workers 2 --require --tls "$dir/server.pem" "$dir/server.key" "$dir/ca.pem" --port 0
mutual=https://127.0.0.1:$port
head -c 5000000 /dev/urandom >"$dir/random"

echo_same() { get "$@" --data-binary "@$dir/random" | cmp - "$dir/random"; }
big() { [ "$(get "$@" | wc -c)" = 50000000 ]; }
for v in --http1.1 --http2-prior-knowledge; do
    check "curl $v: a request" answers hello $v "$plain/"
    check "curl $v: an echo of 5 MB" echo_same $v "$plain/echo"
    check "curl $v: 50 MB" big $v "$plain/size?50000000"
    check "curl $v: a late answer" answers late $v "$plain/late?100"
    check "curl $v: an early answer" answers "too much" $v --data-binary "@$dir/random" "$plain/early"
done
check "curl: upgrade to h2c is declined" answers hello --http2 "$plain/"
check "curl: TLS, HTTP/2" answers "http/2 tls=1 cn= GET /who ?  @ ${secure#https://} n=2" "$secure/who"
check "curl: TLS, HTTP/1.1" answers "http/1 tls=1 cn= GET /who ?  @ ${secure#https://} n=3" --http1.1 "$secure/who"
check "curl: TLS, without ALPN" answers hello --no-alpn "$secure/"
check "curl: TLS 1.2" answers hello --tls-max 1.2 "$secure/"
check "curl: TLS 1.1 is refused" fails --tls-max 1.1 "$secure/"
check "curl: TLS echo of 5 MB" echo_same "$secure/echo"
check "curl: TLS 50 MB" big "$secure/size?50000000"
check "curl: a client certificate's names" answers \
    "http/2 tls=1 cn=admin o=system:masters o=dev GET /who ?  @ ${secure#https://} n=2" \
    --cert "$dir/client.pem" --key "$dir/client.key" "$secure/who"
check "curl: a strange client certificate is refused" fails --cert "$dir/evil.pem" --key "$dir/evil.key" "$secure/"
check "curl: a required certificate is missing" fails "$mutual/"
check "curl: a required certificate is given" answers hello --cert "$dir/client.pem" --key "$dir/client.key" "$mutual/"
check "curl: cleartext on the TLS port is told so" answers "Client sent an HTTP request to an HTTPS server." "${secure/https/http}/"

fresh() { # where certificates say who somebody is, no session is resumed: nobody would look at the certificate again
    local out
    out=$(timeout 20 openssl s_client -connect "${secure#https://}" -CAfile "$dir/ca.pem" -cert "$dir/client.pem" -key "$dir/client.key" \
        -tls1_2 -reconnect </dev/null 2>&1)
    [ "$(grep -c "^New, " <<<"$out")" -ge 6 ] && ! grep "^Reused, " <<<"$out"
}
check "openssl: sessions of clients with certificates are not resumed" fresh
no_protocol() { timeout 10 openssl s_client -connect "${secure#https://}" -alpn spdy/1 </dev/null 2>&1 | grep "no application protocol"; }
check "openssl: unknown protocols are refused" no_protocol

rotated() {
    cp "$dir/next.key" "$dir/server.key" && cp "$dir/next.pem" "$dir/server.pem" || return 1
    for _ in $(seq 50); do
        get "$secure/" >/dev/null
        timeout 10 openssl s_client -connect "${secure#https://}" </dev/null 2>/dev/null | grep -q "subject=CN = next" && return
        sleep 0.2
    done
    return 1
}
check "a changed certificate is served without a restart" rotated
still_after_damage() {
    echo damaged >"$dir/server.pem"
    sleep 1.2
    get "$secure/" && timeout 10 openssl s_client -connect "${secure#https://}" </dev/null 2>/dev/null | grep "subject=CN = next"
}
check "a damaged certificate is not, the one before stays" still_after_damage

load() { # url, h2load arguments: all answered
    local url=$1
    shift
    h2load "$@" "$url" >"$dir/load"
    grep -q " $want succeeded, 0 failed, 0 errored, 0 timeout" "$dir/load" || { cat "$dir/load"; return 1; }
}
if has h2load; then
    want=100000 check "h2load: 100 connections x 10 streams" load "$plain/" -n 100000 -c 100 -m 10
    want=20000 check "h2load: 1000 connections" load "$plain/" -n 20000 -c 1000 -m 1
    want=5000 check "h2load: 20 kB answers" load "$plain/size?20000" -n 5000 -c 50 -m 10
    want=20000 check "h2load: HTTP/1.1" load "$plain/" --h1 -n 20000 -c 50
    want=20000 check "h2load: TLS" load "$secure/" -n 20000 -c 50 -m 10
    want=5000 check "h2load: bodies" load "$plain/count" -n 5000 -c 50 -m 10 -d "$dir/ca.pem"
else
    skip "h2load" "no h2load"
fi
if has nghttp; then
    nghttp_ok() { nghttp -nv "$plain/" | grep -q ":status: 200" && nghttp -v -H "expect: 100-continue" -d "$dir/ca.pem" "$plain/echo" | grep -q "x-echoed: yes"; }
    check "nghttp: frames and trailers" nghttp_ok
else
    skip "nghttp" "no nghttp"
fi

stops() {
    kill -TERM "${pids[@]}"
    for p in "${pids[@]}"; do wait "$p" || return 1; done
    ! cat "$dir"/err.* | grep -E "handles left|ERROR|runtime error|WARNING: Thread"
}
check "the servers stop cleanly" stops
pids=()
echo "1..$n"
