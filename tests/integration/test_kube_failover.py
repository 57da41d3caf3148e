#!/usr/bin/env python3
"""Three members: kill -9 of the leader while a client writes and others watch through the Kubernetes API. No acknowledged write is
lost, no watch has a gap or a repeat, writes go on, and the member that comes back serves the same."""
import http.client
import json
import os
import re
import threading
import time

from kube_cluster import Cluster, Tap, wait_for

tap = Tap()
c = Cluster(3)
CM = "/api/v1/namespaces/default/configmaps"


def leader():
    """The member whose log said last that it leads, at the highest term."""
    best = (0, None)
    for i in range(3):
        if c.procs[i].poll() is not None:
            continue
        with open(os.path.join(c.dir, "m%d.log" % i), errors="replace") as f:
            for m in re.finditer(r"leader changed leader=\w+ self=(\d) term=(\d+)", f.read()):
                if m.group(1) == "1" and int(m.group(2)) >= best[0]:
                    best = (int(m.group(2)), i)
    return best[1]


class Writer(threading.Thread):
    """Creates objects one after the other through one member; what was acknowledged, with its version and the longest gap."""

    def __init__(self, member):
        super().__init__(daemon=True)
        self.member, self.acked, self.refused, self.stop, self.longest = member, {}, [], False, 0.0

    def run(self):
        conn, i, last = None, 0, time.time()
        while not self.stop:
            name = "w-%05d" % i
            try:
                conn = conn or c.connect(self.member, timeout=20)
                conn.request("POST", CM, json.dumps({"metadata": {"name": name}, "data": {"n": str(i)}}),
                             {"Content-Type": "application/json"})
                r = conn.getresponse()
                body = json.loads(r.read())
            except (OSError, http.client.HTTPException) as e:
                conn = None
                self.refused.append(repr(e))
                time.sleep(0.05)
                continue
            if r.status == 201:
                self.acked[name] = int(body["metadata"]["resourceVersion"])
                self.longest, last = max(self.longest, time.time() - last), time.time()
                i += 1
            elif r.status == 409 and body.get("reason") == "AlreadyExists":
                self.refused.append("exists: " + name)
                i += 1
            else:
                self.refused.append("%d %s" % (r.status, body.get("message")))
                time.sleep(0.05)


class Watcher(threading.Thread):
    """Watches through one member and, as informers do, starts again behind the last version when that is lost."""

    def __init__(self, member, rv):
        super().__init__(daemon=True)
        self.member, self.rv, self.events, self.stop, self.resumed = member, rv, [], False, 0

    def run(self):
        while not self.stop:
            try:
                w = c.watch(CM + "?watch=1&resourceVersion=%d" % self.rv, member=self.member, timeout=3)
                while not self.stop:
                    e = w.next()
                    if e is None:
                        break
                    if e["type"] == "ERROR":
                        self.events.append(("ERROR", json.dumps(e), 0))
                        return
                    self.rv = int(e["object"]["metadata"]["resourceVersion"])
                    self.events.append((e["type"], e["object"]["metadata"]["name"], self.rv))
                w.close()
            except (OSError, http.client.HTTPException, ValueError):
                time.sleep(0.05)
            if self.member is not None and c.procs[self.member].poll() is not None:
                self.member = (self.member + 1) % 3
            self.resumed += 1


first = leader()
tap.check("there is a leader", first is not None, c.logs())
others = [i for i in range(3) if i != first]
rv = int(c.get(CM).json["metadata"]["resourceVersion"])
writer = Writer(others[0])
watchers = [Watcher(i, rv) for i in range(3)]
for t in watchers + [writer]:
    t.start()
wait_for(lambda: len(writer.acked) > 100)
before = len(writer.acked)
c.kill(first)
killed = time.time()
again = wait_for(lambda: len(writer.acked) > before + 1, step=0.005)
pause = time.time() - killed
tap.check("writes go on after kill -9 of the leader", again, "%r" % writer.refused[-5:])
print("# %.2f s from the kill to the next acknowledged write, longest gap %.2f s" % (pause, writer.longest))
tap.check("no write was refused meanwhile: they wait for the new leader", not writer.refused, "%r" % writer.refused[:5])
wait_for(lambda: len(writer.acked) > before + 100)
c.start(first)
tap.check("the member comes back", c.wait_ready(), c.logs())
wait_for(lambda: len(writer.acked) > before + 200)
writer.stop = True
writer.join(25)
lists = [{i["metadata"]["name"]: int(i["metadata"]["resourceVersion"]) for i in c.get(CM, member=m).json["items"]} for m in range(3)]
missing = [n for n, v in writer.acked.items() if lists[0].get(n) != v]
tap.equal("every acknowledged write is there, at its version", missing, [])
tap.check("all members list the same", lists[0] == lists[1] == lists[2])
last = max(writer.acked.values())
for w in watchers:
    wait_for(lambda: w.rv >= last)
    w.stop = True
for i, w in enumerate(watchers):
    revs = [e[2] for e in w.events]
    names = [e[1] for e in w.events if e[0] == "ADDED" and e[1].startswith("w-")]
    tap.check("watch %d%s: in order, nothing twice" % (i, " (of the killed member)" if i == first else ""),
              revs == sorted(set(revs)), revs[:20])
    tap.check("watch %d: nothing missing" % i, set(writer.acked) <= set(names), sorted(set(writer.acked) - set(names))[:10])
tap.check("the watch of the killed member was resumed", watchers[first].resumed > 0)
tap.done()
