"""What goes wrong, and when. A schedule is made from the seed alone; which member a role ("leader") means is found out when its time comes."""
import errno, os, random, shutil, signal, time
from members import wait_for
from damage import *
from membership import *

# fault: (track, weight, what it needs)
FAULTS = {
    "kill": ("process", 10, ()), "killall": ("process", 2, ()), "stop": ("process", 4, ()), "pause": ("process", 8, ()),
    "roll": ("process", 2, ()), "transfer": ("process", 5, ()),
    "power": ("process", 8, ("loop",)), "powerall": ("process", 2, ("loop",)), "full": ("process", 5, ("loop",)),
    "eio": ("process", 5, ("shim",)), "rot": ("process", 5, ()), "coldrot": ("process", 4, ()), "memory": ("process", 4, ("memory",)),
    "lost": ("process", 3, ()), "old": ("process", 5, ()),
    "replace": ("process", 4, ()), "grow": ("process", 4, ()), "move": ("process", 3, ()), "twin": ("process", 4, ()),
    "partition": ("net", 8, ("net",)), "isolate": ("net", 8, ("net",)), "oneway": ("net", 8, ("net",)), "flap": ("net", 6, ("net",)),
    "partial": ("net", 6, ("net",)), "lossy": ("net", 6, ("net",)), "slownet": ("net", 6, ("net",)), "clients": ("net", 3, ("net",)),
    "slowdisk": ("clock", 6, ("shim",)), "wall": ("clock", 5, ("shim",)), "drift": ("clock", 4, ("shim",)),
}
# One of these at a time, until all is well again: two damaged members may be a majority.
ALONE = {"rot", "coldrot", "memory", "lost", "old", "replace", "grow", "move", "twin"}


def schedule(seed, seconds, members, wanted, can):
    """[{at, fault, who, seconds, x...}], the same for the same arguments. Each track has one fault at a time."""
    out = []
    for track in ("process", "net", "clock"):
        r = random.Random(f"{seed} {track} {members}")
        names = [f for f, (t, w, needs) in FAULTS.items() if t == track and w and f in wanted and all(map(can, needs))]
        at = r.uniform(2, 5)
        gap = r.choice((1, 2, 4))
        while names and at < seconds - 3:
            fault = r.choices(names, [FAULTS[f][1] for f in names])[0]
            length = min(r.choice((0.3, 1, 2, 4, 8)) * r.uniform(0.5, 1.5), seconds - at)
            order = list(range(members))
            r.shuffle(order)
            out.append({"at": round(at, 2), "fault": fault, "who": r.choice(("leader", "leader", "follower", "any")), "seconds": round(length, 2),
                        "order": order, "x": r.random(), "y": r.random()})
            at += length + r.uniform(0.2, 2 * gap)
    return sorted(out, key=lambda f: (f["at"], f["fault"]))


class Nemesis:
    def __init__(self, cluster, tell=lambda line: None):
        self.c, self.tell = cluster, tell
        self.running = []  # (ends, undo, track)
        self.counts = {}
        self.healing = None  # Damage
        self.job = None      # a change of membership
        self.copy = None     # whose data folder there is an old copy of
        self.cut_at = 0      # when the network was last seen with a fault

    # ---- choosing

    def pick(self, f):
        leader = self.c.leader() if f["who"] != "any" else None
        order = [self.c.members[i] for i in f["order"] if self.c.members[i].wanted]
        if f["who"] == "leader" and leader and leader.wanted:  # not one that a change stops and starts
            return leader
        rest = [m for m in order if m is not leader]
        return (rest or order)[0]

    def others(self, m):
        return [o for o in self.c.present() if o is not m]

    def heals(self):
        """Whether a member is damaged, or still takes its state from the others."""
        if self.healing and self.healing.over():
            self.healing = None
        return self.healing is not None

    def may(self, fault):
        """What the promise allows while a member heals."""
        return not self.heals() or (fault not in ALONE and (fault in self.healing.bears or self.healing.noticed()))

    # ---- running a schedule

    def begin(self, f):
        m, name = self.pick(f), f["fault"]
        if not self.may(name):
            return None
        if self.healing:
            self.counts["(while one heals)"] = self.counts.get("(while one heals)", 0) + 1
            m = self.healing.m if f["x"] < 0.4 else m
        undo = getattr(self, "do_" + f["fault"])(f, m)
        if undo is False:
            return None
        self.counts[f["fault"]] = self.counts.get(f["fault"], 0) + 1
        if undo:
            self.running.append((time.monotonic() + f["seconds"], undo, FAULTS[name][0]))
        return m

    def tick(self):
        now = time.monotonic()
        if any(r[2] == "net" for r in self.running):
            self.cut_at = now
        for item in [r for r in self.running if r[0] <= now]:
            self.running.remove(item)
            again = item[1]()
            if again:  # it goes on: (seconds, undo)
                self.running.append((now + again[0], again[1], item[2]))
        self.c.revive()
        if self.job and self.job.tick():
            self.job = None

    def calm(self):
        """For how many seconds the network has had no fault."""
        return time.monotonic() - self.cut_at

    def end(self, item):
        self.cut_at = time.monotonic() if item[2] == "net" else self.cut_at
        self.running.remove(item)
        again = item[1]()
        while again:
            again = again[1](final=True)

    def heal(self):
        while self.running:
            self.end(self.running[0])
        if not self.c.net.plain:
            self.c.net.tell("clear")
        for m in self.c.present():
            m.resume()
            if m.shim:
                m.shim.heal()
            m.held = False
            if m.excuse:
                m.forgive()
        self.c.revive()
        ends = time.monotonic() + 240
        while self.job:
            self.tick()
            if self.job and time.monotonic() > ends:
                self.c.wrong(f"a change of membership of {self.job.m.name} does not come to its end: {self.job.last}")
                return
            time.sleep(0.1)
        if not wait_for(lambda: self.c.revive() or not self.heals(), 240, 0.5):
            self.c.wrong(f"{self.healing.m.name} is not over {self.healing.what}: {self.healing.m.last_lines(3)}")

    # ---- processes

    def down(self, m, sig):
        m.held = True
        m.kill(sig)

    def back(self, m):
        m.held = False
        if not m.up and not m.excuse:
            m.start()

    def do_kill(self, f, m):
        self.down(m, signal.SIGKILL)
        return lambda: self.back(m)

    def do_stop(self, f, m):
        self.down(m, signal.SIGTERM)
        return lambda: self.back(m)

    def do_killall(self, f, m):
        members = self.c.present()
        self.c.look()
        procs = [x.proc for x in members if x.proc]
        for x in members:
            x.proc, x.held = None, True
        for p in procs:
            p.send_signal(signal.SIGKILL)
        for p in procs:
            p.wait(30)
        return lambda: [self.back(x) for x in members] and None

    def do_roll(self, f, m):
        todo = self.c.present()

        def step(final=False):
            if todo:
                x = todo.pop()
                self.down(x, signal.SIGTERM)
                self.back(x)
                return (1.5, step)
        step()
        f["seconds"] = 1.5
        return step

    def do_pause(self, f, m):
        m.pause()
        return m.resume

    def do_transfer(self, f, m):
        leader = self.c.leader()
        to = [x for x in self.others(leader) if x.up and not x.paused] if leader else []
        s = self.c.status(to[int(f["x"] * len(to))]) if to else None
        if not s:
            return False
        self.c.ctl("move-leader", f"{s['header']['member_id']:x}", endpoints=[leader])

    # ---- membership

    def tell_members(self):
        self.tell("members " + " ".join(str(m.i + 1) for m in self.c.present()))

    def change(self, m, steps):
        self.job = Job(self, m, steps)
        m.wanted, m.held = False, True
        self.tell_members()

    def forget(self, m):
        """It comes back as another member, or not at all."""
        if self.copy is m:
            shutil.rmtree(os.path.join(self.c.dir, "copy"))
            self.copy = None

    def do_replace(self, f, m):
        """Its folder is gone, and it comes back as a new member of the same name and place."""
        if not self.whole():
            return False
        if m is self.copy:  # that is worth more
            m = self.others(m)[0]
        if f["x"] < 0.5:
            m.kill()
        self.change(m, REPLACE)

    def do_grow(self, f, m):
        """One more member, a learner at first or a voter at once, or one of those is taken out again."""
        spares = [x for x in self.c.members[self.c.n:] if not x.excuse and not x.paused]
        here, absent = [x for x in spares if x.wanted], [x for x in spares if not x.wanted]
        if self.job or not spares:
            return False
        if here and (f["y"] < 0.5 or not absent):
            f["fault"] = "shrink"
            self.change(here[-1], SHRINK)
        else:
            self.change(absent[0], GROW_BY_LEARNER if f["x"] < 0.5 else GROW)

    def do_move(self, f, m):
        """The same member at another peer URL."""
        if not self.whole():
            return False
        self.change(m, MOVE)

    def do_twin(self, f, m):
        """A second process under its id, with a copy of its folder: while it runs, while it sleeps, or at the moment it is started. Or one that
        would join under its name."""
        if not self.whole():
            return False
        t = self.c.another(m)
        if f["x"] < 0.25:
            f["fault"] = "namesake"
            self.job = Job(self, t, NAMESAKE)
            return
        if f["y"] < 0.3:
            self.down(m, signal.SIGKILL)
        else:
            m.pause()
        shutil.copytree(m.data, t.data)
        self.job = Job(self, m, TWIN)
        t.start()
        if f["y"] > 0.6:
            f["seconds"] = max(f["seconds"], 4)  # until the others believe the other one
            return m.resume
        m.resume()
        self.back(m)

    # ---- disks

    def lose_power(self, members):
        for m in members:
            m.held = True
            m.excuse = "power loss"
            m.disk.lose_power()
        for m in members:
            m.kill()

    def restore_power(self, m):
        m.disk.restore_power()
        m.excuse = None
        self.back(m)

    def do_power(self, f, m):
        if m.excuse:
            return False
        self.lose_power([m])
        return lambda: self.restore_power(m)

    def do_powerall(self, f, m):
        members = [x for x in self.c.present() if not x.excuse]
        self.lose_power(members)
        return lambda: [self.restore_power(x) for x in members] and None

    def do_full(self, f, m):
        if m.excuse:
            return False
        m.excuse = "a full disk"
        m.disk.fill(int(f["x"] * 400000))

        def undo():
            m.disk.make_room()
            m.forgive()
        return undo

    def do_eio(self, f, m):
        if m.excuse:
            return False
        m.excuse = "an I/O error"
        m.shim.set("sync_errno" if f["x"] < 0.6 else "write_errno", errno.EIO if f["y"] < 0.7 else errno.ENOSPC)

        def undo():
            m.shim.heal()
            m.forgive()
        return undo

    def whole(self, over=("net",)):
        """Makes and waits for a cluster of which one member may lose its state: nothing cuts members off, and all are there and serve.
        Faults of the tracks `over` are over."""
        if self.c.n == 1 or self.job:
            return False
        for item in [r for r in self.running if r[2] in over]:
            self.end(item)

        def well():
            self.tick()
            return not self.healing and all(x.up and not x.excuse for x in self.c.present()) and self.c.healthy()
        return wait_for(well, 15, 0.3)

    def damage(self, m, how, what):
        self.down(m, signal.SIGKILL)
        how(m.data)
        self.healing = Damage(self.c, m, what)
        return lambda: self.back(m)

    def do_rot(self, f, m):
        def flip(data):
            files = sorted(os.path.join(d, n) for d, _, names in os.walk(data) for n in names if "damaged" not in d and n != "lock")
            files = [p for p in files if os.path.getsize(p)]
            path = files[int(f["x"] * len(files))]
            flip_bit(path, int(f["y"] * os.path.getsize(path)), int(f["y"] * 1e6) % 8)
            self.c.say(f"a bit of {os.path.relpath(path, data)} of {m.name}")
        return self.damage(m, flip, "rot") if self.c.n > 1 and m.up and not m.excuse and not self.job else False

    def do_coldrot(self, f, m):
        """A bit that means something, in a file of a running member."""
        if not self.whole():
            return False
        try:
            places = [p for p in meaningful(m.data) if p[1] < p[2]]
            path, first, end = places[int(f["x"] * len(places))]
            at = first + int(f["y"] * (end - first))
            self.healing = ColdRot(self.c, m, path, at, int(f["y"] * 1e6) % 8)
        except FileNotFoundError:  # it was given back just now
            return False
        self.c.say(f"a bit of {os.path.relpath(path, m.data)} at {at} of {m.name}, which runs")

    def do_memory(self, f, m):
        if not self.whole(("net", "clock")):
            return False
        key, value = f"/rot/{f['x']}-", "rots-%032x" % int(f["y"] * 1e32)
        if not wait_for(lambda: self.c.ctl("put", key, value).returncode == 0, 15):
            return False
        here = lambda: self.c.ctl("get", key, "--print-value-only", endpoints=[m]).stdout.strip() == value
        if not wait_for(here, 15) or not flip_memory(m.proc.pid, key + value, len(key)):
            return False
        self.c.rotten, self.healing = True, MemoryRot(self.c, m, here)

    def do_lost(self, f, m):
        """One of the first members heals; one that joined says that it must be replaced (docs/operations.md), and is."""
        if not self.whole():
            return False
        if m.state != "existing":
            return self.damage(m, shutil.rmtree, "the loss of its folder")
        m.kill()
        shutil.rmtree(m.data)
        f["fault"] = "lostjoined"
        self.change(m, REPLACE_LOST)

    def do_old(self, f, m):
        """Takes a copy now, and puts it back the next time."""
        if not self.whole():
            return False
        path = os.path.join(self.c.dir, "copy")
        if not self.copy:
            self.down(m, signal.SIGKILL)
            shutil.copytree(m.data, path)
            self.copy, f["fault"] = m, "copy"
            return lambda: self.back(m)
        m, self.copy = self.copy, None

        def put_back(data):
            shutil.rmtree(data)
            shutil.move(path, data)
        return self.damage(m, put_back, "an old copy of its folder")

    def do_slowdisk(self, f, m):
        m.shim.set("sync_delay_us", (5000, 20000, 100000, 400000)[int(f["x"] * 4)])
        return lambda: m.shim.set("sync_delay_us", 0)

    # ---- clocks

    def do_wall(self, f, m):
        jump = (1, -1)[f["x"] < 0.5] * (10 ** (f["y"] * 6))  # up to eleven days
        m.shim.set("wall_offset_ns", jump * 1e9)
        return lambda: m.shim.set("wall_offset_ns", 0)

    def do_drift(self, f, m):
        m.shim.drift(int((f["x"] - 0.5) * 60000))  # up to 3%
        return lambda: m.shim.drift(0)

    # ---- network; node slots is the clients

    def cut(self, pairs, on):
        for a, b in pairs:
            self.c.net.link(a, b, cut=on)

    def cut_while(self, pairs):
        self.cut(pairs, 1)
        return lambda: self.cut(pairs, 0)

    def do_partition(self, f, m):
        n = 1 + int(f["x"] * (self.c.n - 1))
        side = set(f["order"][:n])
        nodes = [x.i for x in self.c.members]
        pairs = [(a, b) for a in nodes for b in nodes if (a in side) != (b in side)]
        if f["y"] < 0.4:  # clients see one side only
            pairs += [p for a in nodes if (a in side) == (f["x"] < 0.5) for p in ((a, self.c.slots), (self.c.slots, a))]
        return self.cut_while(pairs)

    def do_isolate(self, f, m):
        return self.cut_while([p for o in self.others(m) for p in ((m.i, o.i), (o.i, m.i))])

    def do_oneway(self, f, m):
        others = self.others(m)
        return self.cut_while([(m.i, o.i) if f["x"] < 0.5 else (o.i, m.i) for o in others])

    def do_partial(self, f, m):
        others = self.others(m)
        some = [o for k, o in enumerate(others) if k == int(f["x"] * len(others)) or (f["y"] * 7 * (k + 1)) % 1 < 0.3]
        if len(some) == len(others) and len(some) > 1:
            some.pop()
        return self.cut_while([p for o in some for p in ((m.i, o.i), (o.i, m.i))])

    def do_flap(self, f, m):
        pairs = [p for o in self.others(m) for p in ((m.i, o.i), (o.i, m.i))]
        ends = time.monotonic() + f["seconds"]
        state = {"on": 1}
        self.cut(pairs, 1)

        def toggle(final=False):
            state["on"] ^= 1
            if final or time.monotonic() > ends:
                state["on"] = 0
            self.cut(pairs, state["on"])
            if not final and time.monotonic() < ends:
                return (0.1 + f["x"], toggle)
        f["seconds"] = 0.1 + f["x"]
        return toggle

    def shape_while(self, m, **what):
        """All links between members, or those of one."""
        nodes = [o.i for o in self.c.members]
        pairs = [(a, b) for a in nodes for b in nodes if a != b and (m is None or m.i in (a, b))]
        for a, b in pairs:
            self.c.net.link(a, b, **what)
        return lambda: [self.c.net.link(a, b, **{k: 0 for k in what}) for a, b in pairs] and None

    def do_lossy(self, f, m):
        return self.shape_while(m if f["x"] < 0.5 else None, loss=(5, 20, 80, 250)[int(f["y"] * 4)], duplicate=20, jitter=(0, 3, 30)[int(f["x"] * 3)])

    def do_slownet(self, f, m):
        delay = (2, 10, 60, 300)[int(f["y"] * 4)]
        return self.shape_while(m if f["x"] < 0.6 else None, delay=delay, jitter=delay * f["x"])

    def do_clients(self, f, m):
        return self.cut_while([(m.i, self.c.slots), (self.c.slots, m.i)])
