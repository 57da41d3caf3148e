"""make chaos: episodes of real clusters under faults, each with a seed of its own, judged by tests/chaos/judge.

An episode: members start; clients ask and watch (load); the nemesis follows its schedule; the faults end; all members must come to agree
within a generous time; then the history is judged. What fails is kept, with the command that judges it again."""
import argparse, json, os, random, shutil, signal, subprocess, sys, threading, time
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from members import *
from nemesis import *
from kube import *


def note(text):
    print(f"# {text}", flush=True)


class Load:
    """The process of clients and watchers."""

    def __init__(self, cluster, history, seed, rate):
        c = cluster
        urls = ",".join(c.net.client_url(i) for i in range(c.slots))
        args = [os.path.join(TOOLS, "load"), "--endpoints", urls, "--history", history, "--seed", seed, "--clients", 3 * c.n, "--think-ms",
                max(1, 1000 * 3 * c.n // rate), "--settle-s", 240]
        self.proc = subprocess.Popen([*c.net.enter(c.slots), *map(str, args)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                     preexec_fn=die_with_parent)
        self.last, self.ended = [0] * 6, None
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        for line in self.proc.stdout:
            if line.startswith("progress "):
                self.last = [int(x) for x in line.split()[1:]]
            else:
                self.ended = line.strip()

    def check(self):
        if self.proc.poll() is not None:
            raise Trouble(f"the clients ended with {self.proc.returncode}")

    def tell(self, line):
        try:
            self.proc.stdin.write(line + "\n")
            self.proc.stdin.flush()
        except BrokenPipeError:
            raise Trouble("the clients ended")

    def finish(self):
        """None, or what did not come true."""
        self.tell("stop")
        self.proc.wait(600)
        self.thread.join(10)
        if self.proc.returncode == 0:
            return None
        return self.ended if self.proc.returncode == 1 and self.ended else f"the clients ended with {self.proc.returncode}"


class Episode:
    name = "store"

    def __init__(self, o, seed, seconds, members):
        self.o, self.seed, self.seconds, self.n = o, seed, seconds, members
        self.dir = os.path.join(o.dir, f"seed-{seed}")
        shutil.rmtree(self.dir, ignore_errors=True)
        os.makedirs(self.dir)
        self.history = os.path.join(self.dir, "history.jsonl")
        self.failures, self.counts, self.summary, self.acked = [], {}, "", 0

    def flags(self):
        r = random.Random(f"{self.seed} flags")
        election = r.choice((500, 500, 1000))
        return [str(x) for x in ("--wal-segment-bytes", r.choice((65536, 262144, 1048576)), "--snapshot-log-bytes", r.choice((50000, 200000, 1000000)),
                "--election-timeout", f"{election}ms", "--heartbeat-interval", f"{election // 5}ms", "--workers", 2,
                "--scrub-interval", r.choice(("2s", "10s")), "--corrupt-check-time", r.choice(("5s", "20s")))]

    def shape(self):
        """Of the cluster: with room for more members."""
        return self.n, self.dir, self.seed, self.o.missing, self.flags(), max(self.n + 1, 5)

    def storm(self, cluster, alive, tell=lambda line: None):
        """All faults of the schedule; `alive` is called now and then."""
        plan = schedule(self.seed, self.seconds, self.n, self.o.faults, cluster.can)
        with open(os.path.join(self.dir, "schedule.json"), "w") as f:
            f.writelines(json.dumps(p) + "\n" for p in plan)
        nemesis = Nemesis(cluster, tell)
        began = time.monotonic()
        while time.monotonic() - began < self.seconds or plan:
            while plan and time.monotonic() - began >= plan[0]["at"]:
                f = plan.pop(0)
                m = nemesis.begin(f)
                cluster.say(f"{f['fault']} {m.name if m else '- (not now)'} {f['seconds']} s")
            nemesis.tick()
            alive()
            time.sleep(0.05)
        nemesis.heal()
        cluster.say("healed")
        self.counts = nemesis.counts

    def watch_over(self, cluster, stop):
        """While all settle: a member that ends now does so without a reason, or from what was done to it just before."""
        while not stop.is_set():
            cluster.revive()
            stop.wait(0.2)

    def run(self):
        cluster = load = None
        try:
            cluster = Cluster(*self.shape())
            cluster.start()
            if not wait_for(cluster.healthy, 120, 0.3):
                self.failures.append("the members did not become healthy: " + " | ".join(m.last_lines(2) for m in cluster.members))
                return
            load = Load(cluster, self.history, self.seed, self.o.rate)
            load.tell("members " + " ".join(str(m.i + 1) for m in cluster.present()))
            self.storm(cluster, load.check, load.tell)
            stop = threading.Event()
            guard = threading.Thread(target=self.watch_over, args=(cluster, stop))
            guard.start()
            healed = time.monotonic()
            stuck = load.finish()
            self.agreed = f"; agreed {time.monotonic() - healed:.1f} s after the faults, leases of up to 7 s included"
            stop.set()
            guard.join()
            self.acked = load.last[0]
            if stuck:
                self.failures.append(f"no recovery: {stuck}")
            elif self.acked < 20:
                self.failures.append(f"no progress: {self.acked} answers in {self.seconds:.0f} s")
            self.failures += cluster.problems + cluster.differences()
            self.judge(bool(stuck))
        finally:
            if load and load.proc.poll() is None:
                load.proc.kill()
                load.proc.wait()
            if cluster:
                cluster.close()

    def judge(self, unfinished):
        p = run(os.path.join(TOOLS, "judge"), *(["--unfinished"] if unfinished else []), self.history, timeout=600)
        lines = p.stdout.strip().split("\n")
        self.summary = next((l for l in lines if l.startswith("judged")), p.stderr.strip()) + self.agreed
        if p.returncode == 1:
            self.failures += [l for l in lines if l.startswith("violation")][:5]
        elif p.returncode:
            self.failures.append(f"the judge ended with {p.returncode}: {p.stderr.strip()}")

    def keep_or_drop(self):
        for name in os.listdir(self.dir):
            if name.endswith((".img", ".shim")):
                os.unlink(os.path.join(self.dir, name))
        if self.failures:
            again = f"; judge it again: {os.path.relpath(os.path.join(TOOLS, 'judge'))} {self.history}" if os.path.exists(self.history) else ""
            note(f"kept: {self.dir} (history, logs, schedule){again}")
            note(f"the same schedule: make chaos SEED={self.seed} MEMBERS={self.n} MINUTES={self.seconds / 60:.2f} ONLY={self.name}")
        elif not self.o.keep:
            shutil.rmtree(self.dir, ignore_errors=True)


class KubeEpisode(Episode):
    """The same with a control plane as the client."""
    name = "kube"

    def run(self):
        cluster = None
        try:
            cluster = KubeCluster(*self.shape())
            cluster.start()
            if not wait_for(cluster.healthy, 120, 0.3):
                self.failures.append("the members did not become healthy: " + " | ".join(m.last_lines(2) for m in cluster.members))
                return
            wrong, self.summary = kube_storm(self, cluster, lambda programs: self.storm(cluster, ProgramKiller(self.seed, programs).tick))
            self.failures += wrong + cluster.problems + cluster.differences()
        finally:
            if cluster:
                cluster.close()


class ProgramKiller:
    def __init__(self, seed, programs):
        self.r, self.programs = random.Random(f"{seed} programs"), programs
        self.next = time.monotonic() + self.r.uniform(5, 15)

    def tick(self):
        self.programs.look()
        if time.monotonic() > self.next:
            self.programs.kill(self.r.choice(list(self.programs.commands)))
            self.next = time.monotonic() + self.r.uniform(5, 15)


def parse():
    p = argparse.ArgumentParser(prog="tests/chaos/run")
    p.add_argument("--minutes", type=float, default=2)
    p.add_argument("--members", type=int, choices=(1, 3, 5), help="default: 3, or 5 if the seed is a multiple of 3 and it has no control plane")
    p.add_argument("--seed", type=int, help="of the first episode; the others follow. Default: by the clock")
    p.add_argument("--faults", help="a list of: " + ",".join(FAULTS))
    p.add_argument("--episode", type=float, default=150, help="seconds of faults in an episode")
    p.add_argument("--rate", type=int, default=250, help="requests a second, about")
    p.add_argument("--dir", default=os.path.join(B, "chaos"), help="where the failed are kept")
    p.add_argument("--only", choices=("store", "kube"), help="default: every fourth episode, and the last of several, has a control plane")
    p.add_argument("--keep", action="store_true", help="keep what passed, too")
    o = p.parse_args()
    o.faults = o.faults.split(",") if o.faults else list(FAULTS)
    unknown = [f for f in o.faults if f not in FAULTS]
    if unknown:
        p.error(f"unknown fault {unknown[0]}; there are {', '.join(FAULTS)}")
    if o.seed is None:
        o.seed = int(time.time()) % 1000000000
    return o


def left_out(o):
    """{what: why this machine cannot do it}, of what was asked for."""
    out = {}
    for f in o.faults:
        _, weight, needs = FAULTS[f]
        why = [o.missing[x] for x in needs if x in o.missing]
        if weight and why:
            out["fault " + f] = why[0]
    if o.only != "store" and not KUBECTL:
        out["episodes with a control plane"] = "no kubectl"
    elif o.only != "store" and not ETCDCTL:
        out["etcdctl's watch of the control plane"] = "no etcdctl"
    return out


def main():
    o = parse()
    signal.signal(signal.SIGTERM, lambda *a: sys.exit(1))
    os.makedirs(o.dir, exist_ok=True)
    scratch = os.path.join(o.dir, f"probe-{os.getpid()}")
    os.makedirs(scratch)
    o.missing = find_missing(scratch)
    shutil.rmtree(scratch, ignore_errors=True)
    off = left_out(o)
    for what, why in off.items():
        print(f"ok - {what} # SKIP {why}")
    passed = failed = number = 0
    ends, seed, totals = time.monotonic() + o.minutes * 60, o.seed, {}
    while True:
        left = ends - time.monotonic()
        seconds = min(o.episode, left)
        number += 1
        last = left - seconds < 30
        kube = o.only == "kube" or (o.only != "store" and KUBECTL and (number % 4 == 0 or (last and number > 1)))
        e = (KubeEpisode if kube else Episode)(o, seed, seconds, o.members or (5 if seed % 3 == 0 and not kube else 3))
        note(f"seed {seed}: {e.n} members{', a control plane' if kube else ''}, {seconds:.0f} s of faults")
        try:
            e.run()
        except (Trouble, subprocess.SubprocessError) as x:
            e.failures.append(f"the harness: {x}")
        for f, n in e.counts.items():
            totals[f] = totals.get(f, 0) + n
        note(f"seed {seed}: {e.summary}")
        note(f"seed {seed}: " + " ".join(f"{f}={n}" for f, n in sorted(e.counts.items())))
        print(f"{'not ok' if e.failures else 'ok'} - seed {seed}", flush=True)
        for x in e.failures:
            print("#   " + x.replace("\n", "\n#   ")[:3000], flush=True)
        e.keep_or_drop()
        passed, failed = passed + (not e.failures), failed + bool(e.failures)
        seed += 1
        if ends - time.monotonic() < 20:
            break
    note(f"{o.minutes:g} minutes, faults: " + " ".join(f"{f}={n}" for f, n in sorted(totals.items())))
    print(f"{passed} passed, {failed} failed, {len(off)} skipped")
    sys.exit(1 if failed else 0)


main()
