"""The control plane under faults: members that serve the Kubernetes API, two schedulers, two controllers, hollow nodes, and kubectl at work; then
what is stored, what watches were told, what each informer holds and what the scheduler believes must be one and the same."""
import collections, ctypes, http.client, json, os, random, re, shutil, signal, ssl, subprocess, threading, time
from members import *

KUBECTL = os.environ.get("KUBECTL_120") or shutil.which("kubectl")
SETTLE_S = 240
NODES = 6
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
PODS, SERVICES = "/api/v1/namespaces/default/pods", "/api/v1/namespaces/default/services"


class KubeCluster(Cluster):
    def __init__(self, *args):
        super().__init__(*args)
        self.make_pki()

    def kube_url(self, i):
        return f"https://{self.net.address(i)}:{self.net.base_port + 40 + i if self.net.plain else 6443}"

    def file(self, name):
        return os.path.join(self.dir, name)

    def extra_flags(self, i):
        return ["--kube-listen", self.kube_url(i), "--kube-cert-file", self.file("server.crt"), "--kube-key-file", self.file("server.key"),
                "--kube-client-ca-file", self.file("ca.crt")]

    def make_pki(self):
        def openssl(*args):
            subprocess.run(["openssl", *args], cwd=self.dir, check=True, stdin=subprocess.DEVNULL, capture_output=True)
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-days", "2",
                "-subj", "/CN=ca")
        names = ",".join(sorted({f"IP:{self.net.address(m.i)}" for m in self.members} | {"DNS:localhost"}))
        with open(self.file("ext"), "w") as f:
            f.write(f"subjectAltName={names}\n")
        for name, subject in (("server", "/CN=server"), ("admin", "/O=system:masters/CN=admin")):
            openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", name + ".key", "-out", name + ".csr", "-subj", subject)
            openssl("x509", "-req", "-in", name + ".csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-out", name + ".crt", "-days", "2",
                    "-extfile", "ext")
        self.context = ssl.create_default_context(cafile=self.file("ca.crt"))
        self.context.load_cert_chain(self.file("admin.crt"), self.file("admin.key"))

    def kubeconfig(self, i):
        """For kubectl: member i; for our own programs, which know the extension, all of them."""
        path = self.file(f"kubeconfig-{i}")
        servers = [self.kube_url(m.i) for m in self.members]
        if not os.path.exists(path):
            with open(path, "w") as f:
                json.dump({"apiVersion": "v1", "kind": "Config", "current-context": "x",
                           "clusters": [{"name": "c", "cluster": {"server": servers[i], "certificate-authority": self.file("ca.crt"), "extensions": [
                               {"name": "pintle/servers", "extension": {"servers": servers}}]}}],
                           "users": [{"name": "u", "user": {"client-certificate": self.file("admin.crt"), "client-key": self.file("admin.key")}}],
                           "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}]}, f)
        return path

    def join_clients(self):
        """The calling thread speaks from the clients' namespace from now on."""
        if self.net.plain:
            return
        with open(f"/run/netns/{self.net.names[self.slots]}") as f:
            if ctypes.CDLL(None, use_errno=True).setns(f.fileno(), 0x40000000) != 0:
                raise Trouble("a thread cannot enter the clients' namespace")

    def connect(self, i, timeout):
        host, port = self.kube_url(i)[8:].split(":")
        return http.client.HTTPSConnection(host, int(port), timeout=timeout, context=self.context)

    def get(self, i, path, timeout=10):
        c = self.connect(i, timeout)
        try:
            c.request("GET", path)
            r = c.getresponse()
            body = r.read()
            if r.status != 200:
                raise OSError(f"{path}: {r.status} {body[:200]}")
            return json.loads(body)
        finally:
            c.close()


# ---- programs -----------------------------------------------------------------------------------------------------------

class Programs:
    """Scheduler, controllers and agents; one that dies is started again."""

    def __init__(self, c):
        self.c, self.procs = c, {}
        elect = ["--leader-elect-lease-duration", "5s", "--leader-elect-renew-deadline", "4s", "--leader-elect-retry-period", "1s"]
        self.commands = {"scheduler-1": ["scheduler", *elect], "scheduler-2": ["scheduler", *elect], "controllers-1": ["controllers", *elect],
                         "controllers-2": ["controllers", *elect],
                         "agent": ["agent", "--hollow-nodes", str(NODES), "--name-prefix", "node-", "--node-lease-period", "5s"]}
        for name in self.commands:
            self.start(name)

    def start(self, name):
        with open(self.c.file(name + ".log"), "ab") as log:
            self.procs[name] = subprocess.Popen([*self.c.net.enter(self.c.slots), PINTLE, *self.commands[name], "--kubeconfig", self.c.kubeconfig(0)],
                                                stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent)

    def kill(self, name):
        p = self.procs[name]
        p.kill()
        p.wait()
        self.start(name)

    def look(self):
        for name, p in self.procs.items():
            if p.poll() is not None:
                with open(self.c.file(name + ".log"), errors="replace") as f:
                    self.c.wrong(f"{name} ended by itself ({p.returncode}): {''.join(f.readlines()[-3:]).strip()}")
                self.start(name)

    def report(self, name):
        """What it says at SIGUSR1: ([(path, ns, labels, fields, {key: version})], {node: pods}), or None."""
        path = self.c.file(name + ".log")
        at = os.path.getsize(path)
        self.procs[name].send_signal(signal.SIGUSR1)

        def whole():
            with open(path, errors="replace") as f:
                f.seek(at)
                text = f.read()
            return text if "report end" in text else None
        text = wait_for(whole, 20)
        if not text:
            return None
        informers, nodes = [], {}
        for line in text.split("\n"):
            words = line.split(" ")
            if line.startswith("report informer "):
                what = re.fullmatch(r"report informer (\S+) ns=(\S*) labels=(\S*) fields=(\S*) synced=1 objects=\d+", line)
                informers.append((*what.groups(), {}) if what else (line, "", "", "", {}))
            elif line.startswith("report object "):
                informers[-1][4][words[2]] = int(words[3])
            elif line.startswith("report node "):
                nodes[words[2]] = int(words[3].split("=")[1])
        return informers, nodes

    def close(self):
        for p in self.procs.values():
            if p.poll() is None:
                p.kill()
                p.wait()


class Follower(threading.Thread):
    """Lists and watches all pods through one member after another, and rebuilds them from what it is told."""

    def __init__(self, c, i):
        super().__init__(daemon=True)
        self.c, self.member, self.pods, self.rv, self.stop, self.events = c, i, None, 0, False, 0
        self.bound, self.wrong = {}, []
        self.start()

    def note(self, o, kind):
        m, node = o["metadata"], o.get("spec", {}).get("nodeName")
        name, rv = m["name"], int(m["resourceVersion"])
        was = self.bound.get(m["uid"])
        if was and node and was != node:
            self.wrong.append(f"pod {name} was bound to {was}, then to {node}")
        if node:
            self.bound[m["uid"]] = node
        if kind:
            self.events += 1
            if rv <= self.rv:
                self.wrong.append(f"{kind} {name} at version {rv} after {self.rv}")
            if (kind == "ADDED") == (name in self.pods):
                self.wrong.append(f"{kind} of {name}, which was {'there' if name in self.pods else 'not there'}")
            self.rv = rv
        if kind == "DELETED":
            self.pods.pop(name, None)
        else:
            self.pods[name] = rv

    def follow(self):
        if self.pods is None:
            items = self.c.get(self.member, PODS)
            self.pods, self.rv = {}, int(items["metadata"]["resourceVersion"])
            for o in items["items"]:
                self.note(o, None)
        conn = self.c.connect(self.member, 5)
        conn.request("GET", f"{PODS}?watch=1&allowWatchBookmarks=true&resourceVersion={self.rv}")
        r = conn.getresponse()
        while not self.stop and r.status == 200:
            line = r.readline()
            if not line.endswith(b"\n"):
                break
            e = json.loads(line)
            if e["type"] == "ERROR":
                self.pods = None
                break
            if e["type"] == "BOOKMARK":
                self.rv = max(self.rv, int(e["object"]["metadata"]["resourceVersion"]))
            else:
                self.note(e["object"], e["type"])
        conn.close()
        if r.status == 410:
            self.pods = None

    def run(self):
        self.c.join_clients()
        while not self.stop:
            try:
                self.follow()
            except (OSError, http.client.HTTPException, ValueError):
                self.member = (self.member + 1) % self.c.n
                time.sleep(0.1)


class User(threading.Thread):
    """Somebody with kubectl."""

    def __init__(self, c, seed):
        super().__init__(daemon=True)
        self.c, self.r, self.stop, self.done, self.failed = c, random.Random(f"{seed} user"), False, 0, 0
        self.start()

    def kubectl(self, *args, input=None):
        config = self.c.kubeconfig(self.r.randrange(self.c.n))
        return subprocess.run([*self.c.net.enter(self.c.slots), KUBECTL, "--kubeconfig", config, "--request-timeout=8s", *args], input=input, text=True,
                              capture_output=True, timeout=60)

    def apply(self, name, replicas):
        manifest = {"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
                "replicas": replicas, "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [
                    {"name": "c", "image": f"x:{self.r.randrange(5)}", "ports": [{"containerPort": 80}], "resources": {"requests": {"cpu": "50m", "memory": "16Mi"}}}]}}}},
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"selector": {"app": name}, "ports": [{"port": 80}]}}]}
        return self.kubectl("apply", "-f", "-", input=json.dumps(manifest))

    def act(self):
        name, x = f"d{self.r.randrange(4)}", self.r.random()
        if x < 0.35:
            return self.apply(name, self.r.randrange(1, 16))
        if x < 0.7:
            return self.kubectl("scale", "deployment", name, f"--replicas={self.r.randrange(0, 16)}")
        if x < 0.8:
            return self.kubectl("delete", "deployment,service", name, "--wait=false")
        if x < 0.9:
            return self.kubectl("delete", "pods", "-l", f"app={name}", "--wait=false")
        return self.kubectl("rollout", "restart", "deployment", name)

    def run(self):
        while not self.stop:
            try:
                if self.act().returncode == 0:
                    self.done += 1
                else:
                    self.failed += 1
            except subprocess.TimeoutExpired:
                self.failed += 1
            time.sleep(self.r.uniform(0, 0.6))


# ---- after the storm --------------------------------------------------------------------------------------------------------

class Agreement:
    """Looks again and again until nothing is wrong, or the time is over; `differences` says what was last."""

    def __init__(self, c, programs, followers):
        self.c, self.programs, self.followers, self.informers, self.objects = c, programs, followers, 0, 0

    def differences(self):
        """The API's own view first; what is compared to it must be of the same moment, so any difference only counts if it stays."""
        out = []
        try:
            out += self.desired()
            out = out or self.members() or self.watches() or self.caches()
        except (OSError, http.client.HTTPException, ValueError, KeyError) as e:
            out.append(f"cannot be asked: {e!r}")
        return out

    def desired(self):
        c, out = self.c, []
        deployments, pods, services = (c.get(0, p)["items"] for p in (DEPLOYMENTS, PODS, SERVICES))
        nodes = {n["metadata"]["name"] for n in c.get(0, "/api/v1/nodes")["items"]}
        by_app = collections.defaultdict(list)
        for p in pods:
            by_app[p["metadata"]["labels"].get("app")].append(p)
        for d in deployments:
            name, want, s = d["metadata"]["name"], d["spec"]["replicas"], d["status"]
            have = by_app.pop(name, [])
            if (s.get("observedGeneration"), s.get("replicas", 0), s.get("readyReplicas", 0), s.get("updatedReplicas", 0)) != (
                    d["metadata"]["generation"], want, want, want):
                out.append(f"deployment {name} wants {want}: status {s.get('replicas', 0)}, ready {s.get('readyReplicas', 0)}")
            if len(have) != want:
                out.append(f"deployment {name} wants {want}, {len(have)} pods are there")
        out += [f"{len(p)} pods of {app}, which is gone" for app, p in by_app.items()]
        out += [f"pod {p['metadata']['name']} is {p['status'].get('phase')} on {p['spec'].get('nodeName')}" for p in pods
                if p["status"].get("phase") != "Running" or p["spec"].get("nodeName") not in nodes or p["metadata"].get("deletionTimestamp")]
        ips = collections.Counter(p["status"].get("podIP") for p in pods)
        out += [f"{n} pods have the address {ip}" for ip, n in ips.items() if n > 1]
        for s in services:
            name = s["metadata"]["name"]
            if name == "kubernetes":
                continue
            want = sorted(p["status"].get("podIP", "") for p in pods if p["metadata"]["labels"].get("app") == name)
            e = c.get(0, f"/api/v1/namespaces/default/endpoints/{name}")
            have = sorted(a["ip"] for part in e.get("subsets") or [] for a in part.get("addresses") or [])
            slices = c.get(0, f"/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D{name}")["items"]
            sliced = sorted(a for l in slices for x in l.get("endpoints") or [] if x["conditions"].get("ready") for a in x["addresses"])
            if have != want or sliced != want:
                out.append(f"service {name}: {len(want)} ready pods, {len(have)} endpoints, {len(sliced)} in slices")
        return out

    def members(self):
        lists = [{o["metadata"]["name"]: o["metadata"]["resourceVersion"] for o in self.c.get(m.i, PODS)["items"]} for m in self.c.members]
        keys = self.c.ctl("get", "/registry/pods/default/", "--prefix", "--keys-only")
        stored = {k.rsplit("/", 1)[1] for k in keys.stdout.split()}
        out = [f"member {i + 1} lists other pods than member 1" for i, l in enumerate(lists) if l != lists[0]]
        return out + (["the store has other pods than the list"] if stored != set(lists[0]) else [])

    def watches(self):
        want = {o["metadata"]["name"]: int(o["metadata"]["resourceVersion"]) for o in self.c.get(0, PODS)["items"]}
        return [f"a watch leaves {len(f.pods or {})} pods, the list has {len(want)}" for f in self.followers if f.pods != want]

    def caches(self):
        out, self.informers, self.objects = [], 0, 0
        pods = self.c.get(0, "/api/v1/pods")["items"]
        on_node = collections.Counter(p["spec"].get("nodeName") for p in pods)
        for name in self.programs.commands:
            said = self.programs.report(name)
            if not said:
                out.append(f"{name} says nothing at SIGUSR1")
                continue
            for path, ns, labels, fields, have in said[0]:
                out += self.informer(name, path, ns, labels, fields, have)
            out += [f"{name} believes in {n} pods on {node}, {on_node[node]} are there" for node, n in said[1].items() if n != on_node[node]]
            if name.startswith("scheduler") and len(said[1]) != NODES:
                out.append(f"{name} knows {len(said[1])} of {NODES} nodes")
        return out

    def informer(self, program, path, ns, labels, fields, have):
        version, plural = path.rsplit("/", 1)
        at = ("/api/" if version == "v1" else "/apis/") + version + (f"/namespaces/{ns}" if ns else "") + f"/{plural}?"
        query = "&".join(f"{k}={v.replace('=', '%3D')}" for k, v in (("labelSelector", labels), ("fieldSelector", fields)) if v)
        items = self.c.get(0, at + query)["items"]
        want = {"/".join(filter(None, (o["metadata"].get("namespace"), o["metadata"]["name"]))): int(o["metadata"]["resourceVersion"]) for o in items}
        if plural == "leases":  # renewed all the time
            want, have = dict.fromkeys(want), dict.fromkeys(have)
        self.informers, self.objects = self.informers + 1, self.objects + len(have)
        if have == want:
            return []
        wrong = [k for k in want.keys() | have.keys() if want.get(k, 0) != have.get(k, 0)]
        return [f"{program} holds another {k} of {path} than is stored: {have.get(k)} instead of {want.get(k)}" for k in wrong[:3]]


def kube_storm(episode, cluster, run_storm):
    """The body of an episode; what was wrong, and one line about it."""
    if not KUBECTL:
        raise Trouble("no kubectl")
    programs = Programs(cluster)
    followers, user = [], None
    try:
        cluster.join_clients()
        ready = lambda: sum(any(c["type"] == "Ready" and c["status"] == "True" for c in n["status"].get("conditions", []))
                            for n in cluster.get(0, "/api/v1/nodes")["items"]) == NODES
        if not wait_for(lambda: quiet(ready), 60):
            return ["the nodes did not become ready"], ""
        followers = [Follower(cluster, m.i) for m in cluster.members]
        user = User(cluster, episode.seed)
        run_storm(programs)
        user.stop = True
        user.join(70)
        agreement = Agreement(cluster, programs, followers)
        last = []

        def agreed():
            cluster.revive()
            programs.look()
            last[:] = agreement.differences()
            return not last
        began = time.monotonic()
        wait_for(agreed, SETTLE_S, 1)
        wrong = [f"no agreement: {x}" for x in last[:8]] + [w for f in followers for w in f.wrong][:8]
        if not wrong and len(set(hashes(cluster))) != 1:
            wrong.append("the members' hashes differ")
        if user.done < 5:
            wrong.append(f"no progress: kubectl succeeded {user.done} times")
        return wrong, (f"{user.done} kubectl commands done, {user.failed} failed; {sum(f.events for f in followers)} watch events; agreed {time.monotonic() - began:.0f} s "
                       f"after the faults: {agreement.informers} informers with {agreement.objects} objects, {len(followers[0].pods or {})} pods")
    finally:
        if user:
            user.stop = True
        for f in followers:
            f.stop = True
        programs.close()


def quiet(f):
    try:
        return f()
    except (OSError, http.client.HTTPException, ValueError, KeyError):
        return None


def hashes(cluster):
    """Of all members at one revision."""
    rev = cluster.status(cluster.members[0])["header"]["revision"]
    out = cluster.ctl("endpoint", "hashkv", "--rev", rev, "-w", "json")
    return [h["HashKV"].get("hash") for h in json.loads(out.stdout or "[]")]
