#!/usr/bin/env bash
# The same history in a real etcd and in ours: after each stretch both must give the same HashKV, at the newest revision, at
# older ones, and after compactions. ETCD=path and ETCDCTL=path choose the peer.
set -u
cd "$(dirname "$0")/../.."
pintle=${PINTLE:-build/pintle}
etcd=${ETCD:-$(command -v etcd || echo /usr/bin/etcd)}
etcdctl=${ETCDCTL:-$(command -v etcdctl || echo /usr/bin/etcdctl)}
theirs=127.0.0.1:21010 ours=127.0.0.1:21012
n=0 failed=0
export ETCDCTL_API=3

for f in "$pintle" "$etcd" "$etcdctl"; do
    [ -x "$f" ] || { echo "ok 1 - hashkv # SKIP no $f"; echo 1..1; exit 0; }
done

dir=$(mktemp -d)
pids=()
cleanup() {
    for p in "${pids[@]}"; do kill "$p" 2>/dev/null; done
    for p in "${pids[@]}"; do wait "$p" 2>/dev/null; done
    rm -rf "$dir"
}
trap cleanup EXIT

serve() { # program, flags of its own... -- client address, peer address, folder
    local program=() addr peer
    while [ "$1" != -- ]; do program+=("$1"); shift; done
    addr=$2 peer=$3
    "${program[@]}" --name n1 --data-dir "$4" --listen-client-urls "http://$addr" \
        --listen-peer-urls "http://$peer" --initial-cluster "n1=http://$peer" --initial-cluster-state new \
        >"$4.log" 2>&1 &
    pids+=($!)
}

ready() {
    for _ in $(seq 100); do
        "$etcdctl" --endpoints "$1" --command-timeout=1s get x >/dev/null 2>&1 && return 0
        sleep 0.1
    done
    echo "# $1 does not answer"
    return 1
}

check() { # name, what theirs said, what ours said
    n=$((n + 1))
    if [ -n "$2" ] && [ "$2" = "$3" ]; then
        echo "ok $n - $1"
    else
        echo "not ok $n - $1"
        echo "# theirs: $2"
        echo "# ours:   $3"
        failed=1
    fi
}

hash_of() { # address, revision
    "$etcdctl" --endpoints "$1" endpoint hashkv --rev="$2" -w json 2>/dev/null |
        python3 -c 'import json, sys; h = json.load(sys.stdin)[0]["HashKV"]; print(h["hash"], h["compact_revision"])' 2>/dev/null
}

compare() { check "$1" "$(hash_of "$theirs" "${2:-0}")" "$(hash_of "$ours" "${2:-0}")"; }

both() {
    "$etcdctl" --endpoints "$theirs" "$@" >/dev/null || failed=1
    "$etcdctl" --endpoints "$ours" "$@" >/dev/null || failed=1
}

both_txn() {
    printf '%b' "$1" | "$etcdctl" --endpoints "$theirs" txn >/dev/null || failed=1
    printf '%b' "$1" | "$etcdctl" --endpoints "$ours" txn >/dev/null || failed=1
}

serve "$etcd" --advertise-client-urls "http://$theirs" --initial-advertise-peer-urls http://127.0.0.1:21011 -- "$theirs" 127.0.0.1:21011 "$dir/theirs"
serve "$pintle" server -- "$ours" 127.0.0.1:21013 "$dir/ours"
if ! ready "$theirs" || ! ready "$ours"; then
    tail -n 5 "$dir"/*.log | sed 's/^/# /'
    echo "not ok 1 - both servers start"
    echo 1..1
    exit 1
fi

compare "an empty store"
for i in 1 2 3 4 5 6; do both put "/key/$((i % 4))" "value $i"; done
compare "puts"
compare "an older revision" 4
both del /key/2
both_txn '\nput /txn/a 1\nput /txn/b ""\ndel /key/3\n\n\n'
compare "a txn and deletes"
both put /key/2 "born again"
both compaction 5 --physical
compare "a compaction"
compare "an older revision behind it" 8
both del /key/2
both compaction 10 --physical
compare "a compaction at a deletion"
both put /last 1
compare "a put behind it"
both del "" --prefix
both compaction 11 --physical
compare "nothing left alive"
both compaction 12 --physical
compare "nothing left at all"
both put /key/1 "and on it goes"
compare "a first key again"
echo "1..$n"
exit "$failed"
