#!/usr/bin/env python3
"""Clients that hang up, stall, or send half of what they promised: the server serves the others, loses nothing, and stops cleanly."""
import http.client
import json
import threading
import time

from kube_cluster import Cluster, Tap, wait_for

tap = Tap()
c = Cluster()
CM = "/api/v1/namespaces/default/configmaps"
N = 1500


def fill(conn, first, last):
    for i in range(first, last):
        conn.request("POST", CM, json.dumps({"metadata": {"name": "o-%05d" % i, "labels": {"fill": "y"}}, "data": {"x": "y" * 4000}}),
                     {"Content-Type": "application/json"})
        r = conn.getresponse()
        r.read()
        assert r.status == 201, r.status


threads = [threading.Thread(target=fill, args=(c.connect(), k * N // 4, (k + 1) * N // 4)) for k in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
items = c.get(CM + "?labelSelector=fill").json["items"]
tap.equal("%d objects of 4 KB" % N, len(items), N)

for i in range(40):
    conn = c.connect()
    conn.request("GET", CM + ("?watch=1" if i % 2 else "?labelSelector=fill"))
    r = conn.getresponse()
    r.read(1000)
    conn.sock.close() if conn.sock else None
    r.close()
    conn.close()
tap.equal("lists and watches that are dropped half way", c.get("/readyz").status, 200)

half = []
for i in range(20):
    conn = c.connect()
    conn.putrequest("POST", CM)
    conn.putheader("Content-Type", "application/json")
    conn.putheader("Content-Length", "100000")
    conn.endheaders()
    conn.send(b'{"metadata":{"name":"half-%d"}' % i)
    half.append(conn)
[h.close() for h in half]
names = {i["metadata"]["name"] for i in c.get(CM).json["items"]}
tap.check("half a body makes no object", not any(n.startswith("half") for n in names))

# A watcher that does not read while much more happens than anybody would buffer for it.
rv = c.get(CM + "?limit=1").json["metadata"]["resourceVersion"]
slow = c.connect(timeout=30)
slow.request("GET", CM + "?watch=1&resourceVersion=" + rv)
stream = slow.getresponse()


def churn(conn, k):
    for i in range(400):
        conn.request("PATCH", CM + "/o-%05d" % (k * 400 + i), json.dumps({"data": {"x": "z" * 8000}}),
                     {"Content-Type": "application/merge-patch+json"})
        r = conn.getresponse()
        r.read()
        assert r.status == 200, r.status


threads = [threading.Thread(target=churn, args=(c.connect(), k)) for k in range(3)]
[t.start() for t in threads]
[t.join() for t in threads]
seen = []
while len(seen) < 1200:
    line = stream.readline()
    if not line:
        break
    e = json.loads(line)
    seen.append((e["type"], int(e["object"]["metadata"]["resourceVersion"])))
revs = [r for _, r in seen]
tap.check("a stalled watcher gets all 1200 events, once and in order",
          len(seen) == 1200 and revs == sorted(set(revs)) and all(t == "MODIFIED" for t, _ in seen), (len(seen), seen[:3]))
slow.close()

# A client that hangs up in the middle of a collection's deletion: what was begun is finished.
conn = c.connect()
conn.request("DELETE", CM + "?labelSelector=fill")
wait_for(lambda: c.get(CM + "/o-00000").status == 404, step=0.001)
conn.close()
gone = wait_for(lambda: not c.get(CM + "?labelSelector=fill").json["items"], step=0.2)
tap.check("a deletecollection whose client hung up", gone)

bad = [b"GET /api/v1/pods HTTP/9.9\r\n\r\n", b"\x00" * 200, b"POST " + b"/" * 70000 + b" HTTP/1.1\r\n\r\n",
       b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 300]
for b in bad:
    conn = c.connect()
    conn.connect()
    try:
        conn.sock.sendall(b)
        conn.sock.settimeout(3)
        conn.sock.recv(4096)
    except OSError:
        pass
    conn.close()
deep = "[" * 5000
r = c.request("POST", CM, '{"metadata":{"name":"deep"},"data":' + deep, {"Content-Type": "application/json"})
tap.check("JSON that nests too deep", r.status == 400, r)
r = c.request("POST", CM, b'{"metadata":{"name":"\xff\xfe"}}', {"Content-Type": "application/json"})
tap.check("bytes that are no UTF-8", r.status == 400, r)
many = "".join('"u%d":1,' % i for i in range(400))
r = c.request("POST", "/api/v1/namespaces?fieldValidation=Ignore", '{%s"metadata":{"name":"odd"},"spec":{"finalizers":{"a":1}}}' % many, {
    "Content-Type": "application/json"})
tap.check("a wrong type behind more unknown fields than are told", r.status == 400, r)
r = c.get(CM + "?labelSelector=" + "a%2C" * 20000)
tap.check("a selector of 80 KB", r.status in (400, 414, 431), r.status)
tap.equal("garbage on the wire", c.get("/readyz").status, 200)
tap.equal("a clean stop", c.stop(0), 0)

# What is known of a request is not its body: watches that came with one, and would hold all the room there is for bodies.
c = Cluster(extra=["--workers", "1"])
open_watches = []
for i in range(90):
    conn = c.connect()
    conn.request("GET", CM + "?watch=1&resourceVersion=1", b" " * 3000000, {"Content-Type": "application/json"})
    open_watches.append((conn, conn.getresponse()))
tap.equal("watches with bodies of 3 MB", {r.status for _, r in open_watches}, {200})
r = c.request("POST", CM, json.dumps({"metadata": {"name": "big"}, "data": {"x": "y" * 1000000}}), {"Content-Type": "application/json"})
tap.equal("leave room for those of others", r.status, 201)
[conn.close() for conn, _ in open_watches]
if tap.failed:
    print(c.logs())
tap.done()
