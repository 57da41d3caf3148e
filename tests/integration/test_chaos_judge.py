#!/usr/bin/env python3
"""The judge of `make chaos` itself: histories that are right pass, and each of many that are wrong in one place is found out."""
import copy, json, os, sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from tap import *

JUDGE = os.path.join(ROOT, os.environ.get("B", "build"), "tests", "chaos", "judge")
S = 1000000000


def op(t0, t1, kind, rev=0, s="ok", **more):
    return {"e": "op", "c": 0, "m": 0, "n": 1, "t0": t0, "t1": t1, "k": kind, "s": s, "lin": 1, "rev": rev, **more}


def put(t0, t1, rev, key, value, s="ok", lease=0, **more):
    return op(t0, t1, "put", rev, s, then=[["p", key, value, lease, 0]], res=[["p", None]] if s == "ok" else [], **more)


def get(t0, t1, rev, key, kv, **more):
    return op(t0, t1, "range", rev, then=[["r", key, "", 0, 0, 0, 0, 0, 0]], res=[["r", [kv] if kv else [], 0, 1 if kv else 0]], **more)


def hashed(t0, t1, rev, value):
    return op(t0, t1, "hash", 7, arg=rev, hash=value, crev=-1)


def refused(t0, t1, rev, text):
    """A read of an old revision, or of one that is none yet."""
    return op(t0, t1, "range", 0, "error", then=[["r", "k/b", "", rev, 0, 0, 0, 0, 0]], res=[], code=11, text="etcdserver: mvcc: required revision " + text)


def told(w, t, rev, *events, **more):
    return {"e": "w", "w": w, "m": w, "t": t, "k": "told", "ev": list(events), "rev": rev, **more}


def create(w, t, start=2, key="\0", end="\0", all=1, prev=0):
    return {"e": "w", "w": w, "m": w, "t": t, "k": "create", "key": key, "end": end, "start": start, "prev": prev, "all": all}


A2, A3, B3, A6 = ["k/a", "v1", 2, 2, 1, 0], ["k/a", "v2", 2, 3, 2, 0], ["k/b", "v3", 3, 3, 1, 0], ["k/a", "v6", 6, 6, 1, 0]
L5 = ["l/0", "v5", 5, 5, 1, 7]
GOOD = [
    create(0, 1), create(1, 1), create(2, 1, key="k/a", end="k/b", all=0, prev=1),
    put(10, 20, 2, "k/a", "v1"),                                                                      # 3
    told(0, 25, 2, [0, A2]), told(1, 26, 2, [0, A2]), told(2, 26, 2, [0, A2]),
    op(30, 40, "txn", 3, cmp=[["k/a", 3, 0, "v1"]], then=[["p", "k/a", "v2", 0, 0], ["p", "k/b", "v3", 0, 0]], ok=1,
       **{"else": [], "res": [["p", None], ["p", None]]}),                                            # 7
    told(0, 45, 3, [0, A3], [0, B3]), told(2, 46, 3, [0, A3, A2]),
    get(50, 60, 3, "k/a", A3),                                                                        # 10
    op(61, 69, "delete", 0, "unknown", then=[["d", "k/a", "", 0]], res=[], code=4, text="deadline"),  # 11
    told(0, 70, 4, [1, ["k/a", "", 0, 4, 0, 0]]), told(2, 70, 4, [1, ["k/a", "", 0, 4, 0, 0], A3]),
    told(1, 71, 4, [0, A3], [0, B3], [1, ["k/a", "", 0, 4, 0, 0]]),
    op(1 * S, 1 * S + 5, "grant", 4, lease=7, arg=2, ttl=2),                                          # 15
    put(1 * S + 10, 1 * S + 20, 5, "l/0", "v5", lease=7),
    told(0, 1 * S + 30, 5, [0, L5]),
    told(2, 1 * S + 31, 5),                                                                           # 18: a bookmark
    put(1 * S + 40, 1 * S + 50, 6, "k/a", "v6"),
    put(1 * S + 41, 1 * S + 51, 0, "k/b", "v9", s="refused", code=14, text="etcdserver: no leader"),  # 20
    told(0, 1 * S + 55, 6, [0, A6]), told(2, 1 * S + 56, 6, [0, A6]),
    told(0, 4 * S, 7, [1, ["l/0", "", 0, 7, 0, 0]]),                                                  # 23
    told(1, 4 * S + 1, 7, [0, L5], [0, A6], [1, ["l/0", "", 0, 7, 0, 0]]),
    get(4 * S + 10, 4 * S + 20, 7, "k/b", B3),                                                        # 25
    {"e": "final", "m": 0, "rev": 7, "hash": 5, "crev": -1}, {"e": "final", "m": 1, "rev": 7, "hash": 5, "crev": -1},
]


def change(i, f):
    def apply(h):
        f(h[i])
    return apply


def swap_kv(i, j=0, kv=None):
    return change(i, lambda l: l["res"].__setitem__(0, ["r", [kv] if kv else [], 0, 1 if kv else 0]))


def at_end(*lines):
    """Before the last read, when everybody was told everything."""
    def apply(h):
        h[25:25] = lines
    return apply


def two_deletes(asked):
    """Reads saw k/a away twice; so many deletes of it are of unknown outcome."""
    def apply(h):
        gone = [1, ["k/a", "", 0, 8, 0, 0]]
        at_end(*(copy.copy(h[11]) for _ in range(asked - 1)), *(told(w, 4 * S + 2, 8, gone) for w in (0, 1)), told(2, 4 * S + 2, 8, gone + [A6]),
               get(4 * S + 3, 4 * S + 4, 8, "k/a", None))(h)
        h.insert(14, get(72, 79, 4, "k/a", None))
        for x in h[-3:]:
            x.update(rev=8)
    return apply


COMPACT = op(4 * S + 2, 4 * S + 3, "compact", 7, arg=3)
OLD, NEW = "has been compacted", "is a future revision"
GOODS = {
    "a right history": lambda h: None,
    "equal hashes in the middle": at_end(hashed(4 * S + 2, 4 * S + 3, 3, 9), hashed(4 * S + 4, 4 * S + 5, 3, 9)),
    "a refusal as compacted": at_end(COMPACT, refused(4 * S + 4, 4 * S + 5, 2, OLD)),
    "a refusal as of the future": at_end(refused(4 * S + 4, 4 * S + 5, 8, NEW)),
    "two deletes of unknown outcome": two_deletes(2),
}
BAD = {
    "a read of what was overwritten before it was asked": lambda h: (swap_kv(10, kv=A2)(h), h[10].update(rev=2)),
    "a read of nothing, where there is something": swap_kv(25),
    "a read with another version": swap_kv(10, kv=["k/a", "v2", 2, 3, 1, 0]),
    "a write that was acknowledged and is nowhere": lambda h: h.insert(20, put(1 * S + 60, 1 * S + 70, 7, "k/c", "v7")),
    "a write that was acknowledged with another revision": change(19, lambda l: l.update(rev=5)),
    "a write that was refused and happened": change(19, lambda l: l.update(s="refused", text="etcdserver: no leader", code=14, res=[])),
    "a value that nobody wrote": lambda h: (h.insert(25, told(0, 4 * S + 4, 8, [0, ["k/z", "v77", 8, 8, 1, 0]])), [x.update(rev=8) for x in h[-3:]]),
    "a txn whose compare does not hold": change(7, lambda l: l.update(cmp=[["k/a", 3, 0, "v3"]])),
    "a txn that says that its compare failed": change(7, lambda l: l.update(ok=0, res=[])),
    "half of a txn": change(7, lambda l: (l["then"].append(["p", "k/d", "v8", 0, 0]), l["res"].append(["p", None]))),
    "two members that tell different stories": change(14, lambda l: l["ev"][1].__setitem__(1, ["k/b", "v33", 3, 3, 1, 0])),
    "a revision that is left out": change(14, lambda l: l["ev"].pop(0)),
    "an event that is told twice": change(22, lambda l: l["ev"].insert(0, [0, A3, A2])),
    "an event that is left out of a part": lambda h: h.pop(13),
    "events of one revision that come apart": lambda h: (h[8]["ev"].pop(), h.insert(9, told(0, 45, 3, [0, B3]))),
    "a wrong previous value": change(9, lambda l: l["ev"][0].__setitem__(2, B3)),
    "a previous value that is missing": change(9, lambda l: l["ev"][0].pop()),
    "a bookmark past an event": change(18, lambda l: l.update(rev=6)),
    "a delete that nobody asked for": lambda h: h.pop(11),
    "a lease that ends early": change(15, lambda l: l.update(ttl=10)),
    "a key that goes without its lease": lambda h: (h[16]["then"][0].__setitem__(3, 0),
                                                    [l["ev"].__setitem__(0, [0, L5[:5] + [0]]) for l in (h[17], h[24])]),
    "a key on a dead lease": lambda h: (h.insert(25, put(4 * S + 2, 4 * S + 3, 8, "l/1", "v10", lease=7)),
                                       h.insert(26, told(0, 4 * S + 4, 8, [0, ["l/1", "v10", 8, 8, 1, 7]])),
                                       [x.update(rev=8) for x in h[-3:]]),
    "a lease that is not found while it lives": lambda h: h.insert(17, put(1 * S + 21, 1 * S + 22, 0, "l/1", "v11", s="error", lease=7, code=5,
                                                                          text="etcdserver: requested lease not found")),
    "two hashes at the end": change(-1, lambda l: l.update(hash=6)),
    "two hashes in the middle": at_end(hashed(4 * S + 2, 4 * S + 3, 3, 9), hashed(4 * S + 4, 4 * S + 5, 3, 8)),
    "a refusal as compacted of what was kept": at_end(COMPACT, refused(4 * S + 4, 4 * S + 5, 3, OLD)),
    "a compaction refused as done that was not": at_end(COMPACT, op(4 * S + 4, 4 * S + 5, "compact", 0, "error", arg=4, code=11,
                                                                     text="etcdserver: mvcc: required revision " + OLD)),
    "a refusal as of the future of what was there": at_end(refused(4 * S + 4, 4 * S + 5, 7, NEW)),
    "a delete of unknown outcome that happened twice": two_deletes(1),
    "no end": lambda h: (h.pop(), h.pop()),
    "a compaction that was never asked for": lambda h: h.insert(24, {"e": "w", "w": 2, "m": 2, "t": 4 * S, "k": "canceled", "crev": 7, "rev": 7, "ev": []}),
    "an answer of the past on one connection": lambda h: h.insert(25, get(4 * S + 5, 4 * S + 6, 6, "k/b", B3, n=1)),
}


SAID = {"a key that goes without its lease": "but not with a lease", "a key on a dead lease": "after its end", "a lease that ends early": "lives on",
        "a bookmark past an event": "bookmark", "a write that was refused and happened": "was refused", "a value that nobody wrote": "nobody wrote",
        "a revision that is left out": "another one", "two hashes at the end": "two hashes", "two hashes in the middle": "two hashes of revision 3", "a refusal as compacted of what was kept": "refused as compacted",
        "a compaction refused as done that was not": "refused as compacted", "a refusal as of the future of what was there": "refused as of the future",
        "a delete of unknown outcome that happened twice": "is not linearizable", "an event that is left out of a part": "not told"}


def judge(history):
    path = os.path.join(temp_dir(), "h.jsonl")
    with open(path, "w") as f:
        f.writelines(json.dumps(l) + "\n" for l in history)
    return run(JUDGE, path)


def good():
    for name, change_it in GOODS.items():
        h = copy.deepcopy(GOOD)
        change_it(h)
        p = judge(h)
        ok(p.returncode == 0, f"right: {name}", p.stdout + p.stderr)


def bad():
    for name, spoil in BAD.items():
        h = copy.deepcopy(GOOD)
        spoil(h)
        p = judge(h)
        ok(p.returncode == 1 and SAID.get(name, "") in p.stdout, f"found: {name}", p.stdout + p.stderr)
        if "not linearizable" in SAID.get(name, ""):
            ok("\n1 violations\n" in p.stdout, f"found by the checker of the simulation alone: {name}", p.stdout)
        note(next((l for l in p.stdout.split("\n") if l.startswith("violation")), "?"))


main(good, bad)
