"""Changes of membership among faults: jobs of several steps, each tried again until it is done, whatever its outcome was."""
import os, re, signal, sys, time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import wire
from members import TWICE
from wire import field, pack, unpack

TOLD_S = 30  # of a whole network: by then a removed member knows


class Job:
    """`steps`: functions of a job that return True when they are done; called every half second."""

    def __init__(self, nemesis, m, steps):
        self.n, self.c, self.m, self.steps, self.next = nemesis, nemesis.c, m, list(steps), 0
        self.began = self.since = time.monotonic()
        self.last = ""
        self.starts = m.starts
        self.log_began = {x: x.log_end() for x in (m, self.c.twin) if x}

    def tick(self):
        """True when all is done."""
        if time.monotonic() < self.next:
            return False
        self.next = time.monotonic() + 0.5
        try:
            if self.steps[0](self):
                self.c.say(f"{self.steps.pop(0).__name__} of {self.m.name} is done")
                self.since = time.monotonic()
        except (wire.Refused, OSError) as e:
            self.last = f"{self.steps[0].__name__}: {e}"
        return not self.steps

    def said(self, m):
        """Since the job began."""
        return m.said(self.log_began[m])

    # ---- asking

    def call(self, method, request):
        """Round the members that run, one at each try."""
        up = [x for x in self.c.present() if x.up and not x.paused]
        if not up:
            raise OSError("nobody to ask")
        x = up[int(self.next * 2) % len(up)]
        return wire.call(self.c.net.client_url(x.i), method, request, timeout=3, prefix=self.c.net.enter(self.c.slots))

    def members(self):
        """{peer URL: (id, name, learner)}"""
        out = {}
        for n, v in self.call("Cluster/MemberList", pack((1, True))):
            if n == 2:
                m = unpack(v)
                out[field(m, 3, b"").decode()] = (field(m, 1), field(m, 2, b"").decode(), bool(field(m, 5)))
        return out

    @property
    def url(self):
        return self.m.peer_url


def refused(job):
    """Of a member that joined and has lost its folder: it says what is to be done, each time that it is started, and ends."""
    m = job.m
    job.c.look()
    if m.proc:
        return False
    said = m.last_lines(2)
    if "has run before" in said and "member remove" in said and "member add" in said:
        return True
    m.excuse = "an empty folder"
    m.start()
    return False


def removed(job):
    m = job.members().get(job.url)
    if m:
        job.m.excuse = "removed"
        job.call("Cluster/MemberRemove", pack((1, m[0])))
    return job.url not in job.members()


def gone(job):
    """A removed member says so and ends, as soon as somebody can tell it; one that was down is started to be told. From then on it refuses to start."""
    m = job.m
    job.c.look()
    if m.proc and min(job.n.calm(), time.monotonic() - job.since) > TOLD_S:
        job.c.wrong(f"{m.name} was removed, and runs on: {m.last_lines()}")
        m.kill()
        return True
    if m.proc or "removed from the cluster and cannot come back" in job.said(m):
        return not m.proc
    job.since = time.monotonic()
    m.start()
    return False


def wiped(job):
    job.m.excuse = None
    job.m.disk.wipe()
    job.n.forget(job.m)
    return True


def stopped(job):
    job.m.kill(signal.SIGTERM)
    return True


def moved(job):
    m, new = job.m, job.c.net.peer_url(job.m.i, not job.m.moved)
    members = job.members()
    if new not in members:
        job.call("Cluster/MemberUpdate", pack((1, members[m.peer_url][0]), (2, new)))
        return False
    m.moved = not m.moved
    return True


def added(job, learner=False):
    if job.url not in job.members():
        job.call("Cluster/MemberAdd", pack((1, job.url), (2, learner)))
    return job.url in job.members()


def added_as_learner(job):
    return added(job, True)


def started(job):
    """As its operator would: the members as they are now, and that the cluster exists."""
    names = {url: name for url, (_, name, _) in job.members().items()}
    names[job.url] = job.m.name
    if not all(names.values()):
        return False
    job.m.initial, job.m.state = ",".join(f"{n}={u}" for u, n in names.items()), "existing"
    job.m.wanted, job.m.held = True, False
    job.m.start()
    job.n.tell_members()
    return True


def promoted(job):
    m = job.members()[job.url]
    if m[2]:
        job.call("Cluster/MemberPromote", pack((1, m[0])))
    return not job.members()[job.url][2]


def one_ends(job):
    """Of two processes of one id: who is told by another member that there are two, ends. If that is the member itself, its operator stops the
    other one. That one knows of no leader at any time, so it serves nothing that needs one."""
    m, t = job.m, job.c.twin
    m.pardon("a second process under its id")
    if t.up and not (m.starts > job.starts and TWICE in job.said(m)):
        return False
    if t.up:
        job.c.say(f"{m.name} itself was told, and ended: the other process is stopped")
        t.kill()
    elif TWICE not in job.said(t):
        job.c.wrong(f"a second process of {m.name} ends without saying why: {t.last_lines()}")
    if re.search("leader changed leader=[1-9a-f]", job.said(t)):
        job.c.wrong(f"a second process of {m.name} has found a leader while that one ran")
    return True


def namesake_refused(job):
    """Of a process with an empty folder that was added, but bears the name of another member: it says so and ends, each time that it is started."""
    t = job.m
    if t.up:
        return False
    if f'is named "{t.called}" already' in job.said(t):
        return True
    others = [url for url in job.members() if url != job.url]
    t.initial = ",".join([f"{t.called}={job.url}", *(f"x{i}={url}" for i, url in enumerate(others))])
    t.start()
    return False


def healthy(job):
    return job.m.up and job.c.ctl("endpoint", "health", endpoints=[job.m]).returncode == 0


GROW = (added, started, healthy)
REPLACE = (removed, gone, wiped, *GROW)
REPLACE_LOST = (refused, removed, wiped, *GROW)
GROW_BY_LEARNER = (added_as_learner, started, promoted, healthy)
SHRINK = (removed, gone, wiped)
MOVE = (stopped, moved, started, healthy)
TWIN = (one_ends, healthy)
NAMESAKE = (added, namesake_refused, removed)
