"""The control plane under faults: members that serve the Kubernetes API, two schedulers, two controllers, hollow nodes, and kubectl at work; then
what is stored, what watches were told, what each informer holds and what the scheduler believes must be one and the same."""
import base64, collections, ctypes, http.client, json, os, random, re, shutil, signal, ssl, subprocess, threading, time
from members import *

KUBECTL = os.environ.get("KUBECTL_120") or shutil.which("kubectl")
ETCDCTL = shutil.which("etcdctl")
SETTLE_S = 240
UNSURE_S = 30
NODES = 6
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
PODS, SERVICES = "/api/v1/namespaces/default/pods", "/api/v1/namespaces/default/services"


class KubeCluster(Cluster):
    def __init__(self, *args):
        super().__init__(*args)
        self.make_pki()

    def can(self, what):
        """Nobody's history is spoilt by a value that has rotted: the control plane does not read it."""
        return what not in self.missing

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
        """What it says at SIGUSR1: ([(path, ns, labels, fields, {key: version})], {node: pods}, {what: number}), or None."""
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
        informers, nodes, own = [], {}, {}
        for line in text.split("\n"):
            words = line.split(" ")
            if line.startswith("report informer "):
                what = re.fullmatch(r"report informer (\S+) ns=(\S*) labels=(\S*) fields=(\S*) synced=1 objects=\d+", line)
                informers.append((*what.groups(), {}) if what else (line, "", "", "", {}))
            elif line.startswith("report object "):
                informers[-1][4][words[2]] = int(words[3])
            elif line.startswith("report node "):
                nodes[words[2]] = int(words[3].split("=")[1])
            elif line.startswith("report leading "):
                own = {words[i]: int(words[i + 1]) for i in range(1, len(words), 2)}
        return informers, nodes, own

    def close(self):
        for p in self.procs.values():
            if p.poll() is None:
                p.kill()
                p.wait()


class Told:
    """Pods as events tell of them."""

    def __init__(self, who):
        self.who, self.pods, self.rv, self.events, self.bound, self.wrong = who, None, 0, 0, {}, []

    def begin(self, rv):
        self.pods, self.rv = {}, rv

    def event(self, kind, name, uid, rv, node, ordered=True):
        """Of a list without `kind`. Not `ordered`: only among those of the same pod."""
        was = self.bound.get(uid)
        if was and node and was != node:
            self.wrong.append(f"{self.who}: pod {name} was bound to {was}, then to {node}")
        if node:
            self.bound[uid] = node
        if kind:
            self.events += 1
            before = self.rv if ordered else self.pods.get(name, 0)
            if rv <= before:
                self.wrong.append(f"{self.who}: {kind} {name} at version {rv} after {before}")
            if (kind == "ADDED") == (name in self.pods):
                self.wrong.append(f"{self.who}: {kind} of {name}, which was {'there' if name in self.pods else 'not there'}")
            self.rv = max(self.rv, rv)
        if kind == "DELETED":
            self.pods.pop(name, None)
        else:
            self.pods[name] = rv


class Follower(threading.Thread):
    """Lists and watches all pods through one member after another, and rebuilds them from what it is told."""

    def __init__(self, c, i):
        super().__init__(daemon=True)
        self.c, self.member, self.stop, self.told = c, i, False, Told(f"watch {i + 1}")
        self.start()

    def note(self, o, kind):
        m = o["metadata"]
        self.told.event(kind, m["name"], m["uid"], int(m["resourceVersion"]), o.get("spec", {}).get("nodeName"))

    def follow(self):
        told = self.told
        if told.pods is None:
            items = self.c.get(self.member, PODS)
            told.begin(int(items["metadata"]["resourceVersion"]))
            for o in items["items"]:
                self.note(o, None)
        conn = self.c.connect(self.member, 5)
        conn.request("GET", f"{PODS}?watch=1&allowWatchBookmarks=true&resourceVersion={told.rv}")
        r = conn.getresponse()
        while not self.stop and r.status == 200:
            line = r.readline()
            if not line.endswith(b"\n"):
                break
            e = json.loads(line)
            if e["type"] == "ERROR":
                told.pods = None
                break
            if e["type"] == "BOOKMARK":
                told.rv = max(told.rv, int(e["object"]["metadata"]["resourceVersion"]))
            else:
                self.note(e["object"], e["type"])
        conn.close()
        if r.status == 410:
            told.pods = None

    def run(self):
        self.c.join_clients()
        while not self.stop:
            try:
                self.follow()
            except (OSError, http.client.HTTPException, ValueError):
                self.member = (self.member + 1) % self.c.n
                time.sleep(0.1)


class KubectlWatch(threading.Thread):
    """kubectl get pods --watch at one member after another: what a person sees."""
    LINE = '{.type} {.object.metadata.name} {.object.metadata.uid} {.object.metadata.resourceVersion} {.object.spec.nodeName}{"\\n"}'

    def __init__(self, c, seed):
        super().__init__(daemon=True)
        self.c, self.r, self.stop, self.runs, self.told = c, random.Random(f"{seed} kubectl watch"), False, 0, Told("kubectl get --watch")
        self.start()

    def look(self):
        """Until it ends, or has gone on long enough. The pods that were there come first, in no order."""
        config = self.c.kubeconfig(self.r.randrange(self.c.n))
        p = subprocess.Popen(["timeout", str(self.r.randrange(10, 40)), KUBECTL, "--kubeconfig", config, "get", "pods", "--watch", "--output-watch-events",
                              "-o", "jsonpath=" + self.LINE], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                             preexec_fn=die_with_parent)
        self.told.begin(0)
        self.runs, live = self.runs + 1, False
        for line in p.stdout:
            words = line.split()
            if len(words) >= 4 and words[0] in ("ADDED", "MODIFIED", "DELETED"):
                if words[0] != "ADDED" and not live:
                    live, self.told.rv = True, max(self.told.pods.get(words[1], 0), 0)
                self.told.event(words[0], words[1], words[2], int(words[3]), words[4] if len(words) > 4 else None, live)
        p.wait()

    def run(self):
        self.c.join_clients()
        while not self.stop:
            self.look()
            time.sleep(0.2)


class EtcdctlWatch(threading.Thread):
    """etcdctl watch of the pods' keys from the first revision on, given all members: its client goes from one to the other by itself."""
    PREFIX = "/registry/pods/default/"

    def __init__(self, c):
        super().__init__(daemon=True)
        self.c, self.stop, self.proc, self.starts, self.events, self.rev, self.keys, self.wrong = c, False, None, 0, 0, 0, {}, []
        self.start()

    def event(self, e):
        kv = e["kv"]
        key, rev = base64.b64decode(kv["key"]).decode()[len(self.PREFIX):], kv["mod_revision"]
        was = self.keys.get(key)
        self.events += 1
        if rev < self.rev:
            self.wrong.append(f"etcdctl watch: {key} at revision {rev} after {self.rev}")
        self.rev = rev
        if e.get("type"):  # DELETE
            if not was:
                self.wrong.append(f"etcdctl watch: {key} is deleted at {rev}, and was not there")
            self.keys.pop(key, None)
            return
        if (kv["version"], kv["create_revision"]) != ((was[1] + 1, was[2]) if was else (1, rev)):
            self.wrong.append(f"etcdctl watch: {key} at {rev} has version {kv['version']}, created at {kv['create_revision']}, after {was}")
        self.keys[key] = (rev, kv["version"], kv["create_revision"])

    def run(self):
        self.c.join_clients()
        urls = ",".join(self.c.net.client_url(m.i) for m in self.c.members)
        while not self.stop:
            self.starts += 1
            self.proc = subprocess.Popen([ETCDCTL, "watch", "--prefix", self.PREFIX, "--rev", str(self.rev + 1), "-w", "json", "--endpoints", urls],
                                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                                         env=dict(os.environ, ETCDCTL_API="3"), preexec_fn=die_with_parent)
            for line in self.proc.stdout:
                for e in json.loads(line).get("Events") or []:
                    self.event(e)
            self.proc.wait()
            time.sleep(0.2)

    def end(self):
        self.stop = True
        if self.proc:
            self.proc.kill()


class User(threading.Thread):
    """Somebody with kubectl, who asks another member now and then whether what was done is there."""

    def __init__(self, c, seed):
        super().__init__(daemon=True)
        self.c, self.r, self.stop, self.done, self.failed = c, random.Random(f"{seed} user"), False, 0, 0
        self.replicas, self.unsure_until, self.seen, self.wrong = {}, {}, 0, []
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

    def change(self, name):
        """(what the deployment wants from then on, what kubectl says); None: it is gone. Of some only kubectl's answer counts."""
        x = self.r.random()
        if x < 0.35:
            n = self.r.randrange(1, 16)
            return n, lambda: self.apply(name, n)
        if x < 0.7:
            n = self.r.randrange(0, 16)
            return n, lambda: self.kubectl("scale", "deployment", name, f"--replicas={n}")
        if x < 0.8:
            return None, lambda: self.kubectl("delete", "deployment,service", name, "--wait=false", "--ignore-not-found")
        now = self.replicas.get(name)
        if x < 0.9:
            return now, lambda: self.kubectl("delete", "pods", "-l", f"app={name}", "--wait=false")
        return now, lambda: self.kubectl("rollout", "restart", "deployment", name)

    def sure(self, name):
        """What has failed may still be done for a while."""
        return time.monotonic() > self.unsure_until.get(name, 0)

    def act(self):
        name = f"d{self.r.randrange(4)}"
        if self.r.random() < 0.2:
            return self.look(name)
        want, run = self.change(name)
        p = run()
        if p.returncode == 0:
            self.replicas[name] = want
        elif "not found" in p.stderr and "(NotFound)" in p.stderr:
            if self.sure(name) and self.replicas.get(name) is not None:
                self.wrong.append(f"kubectl does not find {name}, which was there with {self.replicas[name]} replicas: {p.stderr.strip()}")
        else:
            self.unsure_until[name] = time.monotonic() + UNSURE_S
        return p

    def look(self, name):
        p = self.kubectl("get", "deployment", name, "--ignore-not-found", "-o", "jsonpath={.spec.replicas}")
        if p.returncode == 0 and self.sure(name):
            self.seen += 1
            have = int(p.stdout) if p.stdout else None
            if have != self.replicas.get(name):
                self.wrong.append(f"kubectl shows {have} replicas of {name}, which were made {self.replicas.get(name)}")
        return p

    def run(self):
        while not self.stop:
            try:
                if self.act().returncode == 0:
                    self.done += 1
                else:
                    self.failed += 1
            except subprocess.TimeoutExpired:
                self.unsure_until = dict.fromkeys((f"d{i}" for i in range(4)), time.monotonic() + UNSURE_S)
                self.failed += 1
            time.sleep(self.r.uniform(0, 0.6))


# ---- after the storm --------------------------------------------------------------------------------------------------------

class Agreement:
    """Looks again and again until nothing is wrong, or the time is over; `differences` says what was last."""

    def __init__(self, c, programs, followers, etcdctl):
        self.c, self.programs, self.followers, self.etcdctl, self.informers, self.objects = c, programs, followers, etcdctl, 0, 0

    def differences(self):
        """The API's own view first; what is compared to it must be of the same moment, so any difference only counts if it stays."""
        out = []
        try:
            out += self.desired()
            out = out or self.members() or self.watches() or self.caches() or self.commands()
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
        lists = [{o["metadata"]["name"]: o["metadata"]["resourceVersion"] for o in self.c.get(m.i, PODS)["items"]} for m in self.c.present()]
        keys = self.c.ctl("get", "/registry/pods/default/", "--prefix", "--keys-only")
        stored = {k.rsplit("/", 1)[1] for k in keys.stdout.split()}
        out = [f"{self.c.present()[i].name} lists other pods than n1" for i, l in enumerate(lists) if l != lists[0]]
        return out + (["the store has other pods than the list"] if stored != set(lists[0]) else [])

    def watches(self):
        want = {o["metadata"]["name"]: int(o["metadata"]["resourceVersion"]) for o in self.c.get(0, PODS)["items"]}
        told = {f.told.who: f.told.pods for f in self.followers}
        if self.etcdctl:
            told["etcdctl watch"] = {k: v[0] for k, v in self.etcdctl.keys.items()}
        return [f"{who} leaves {len(have or {})} pods, the list has {len(want)}" for who, have in told.items() if have != want]

    def commands(self):
        """kubectl, at each member."""
        c, out = self.c, []
        want = {p["metadata"]["name"]: p["spec"]["nodeName"] for p in c.get(0, PODS)["items"]}
        for m in c.present():
            p = run(KUBECTL, "--kubeconfig", c.kubeconfig(m.i), "--request-timeout=8s", "get", "pods", "--no-headers", "-o",
                    "custom-columns=NAME:.metadata.name,NODE:.spec.nodeName")
            have = dict(line.split() for line in p.stdout.split("\n") if line)
            if p.returncode or have != want:
                out.append(f"kubectl get pods at member {m.i + 1} shows {len(have)} of {len(want)} pods, or others {p.stderr.strip()}")
        return out

    def caches(self):
        out, self.informers, self.objects, leading = [], 0, 0, collections.Counter()
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
            if said[2].pop("leading", 0):
                leading[name.split("-")[0]] += 1
                out += [f"{name}, which leads, has {n} {what}" for what, n in said[2].items() if n]
        return out + [f"{leading[kind]} of the {kind} lead" for kind in ("scheduler", "controllers") if leading[kind] != 1]

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
    followers, user, watch, etcdctl = [], None, None, None
    try:
        cluster.join_clients()
        ready = lambda: sum(any(c["type"] == "Ready" and c["status"] == "True" for c in n["status"].get("conditions", []))
                            for n in cluster.get(0, "/api/v1/nodes")["items"]) == NODES
        if not wait_for(lambda: quiet(ready), 60):
            return ["the nodes did not become ready"], ""
        followers = [Follower(cluster, m.i) for m in cluster.present()]
        user = User(cluster, episode.seed)
        watch = KubectlWatch(cluster, episode.seed)
        etcdctl = EtcdctlWatch(cluster) if ETCDCTL else None
        run_storm(programs)
        user.stop = watch.stop = True
        user.join(70)
        agreement = Agreement(cluster, programs, followers, etcdctl)
        last = []

        def agreed():
            cluster.revive()
            programs.look()
            last[:] = agreement.differences()
            return not last
        began = time.monotonic()
        wait_for(agreed, SETTLE_S, 1)
        wrong = [f"no agreement: {x}" for x in last[:8]]
        for who in (user, watch.told, *(f.told for f in followers), *([etcdctl] if etcdctl else [])):
            wrong += who.wrong[:4]
        if not wrong and len(set(hashes(cluster))) != 1:
            wrong.append("the members' hashes differ")
        if user.done < 5:
            wrong.append(f"no progress: kubectl succeeded {user.done} times")
        return wrong, (f"{user.done} kubectl commands done, {user.failed} failed, {user.seen} seen by another member; "
                       f"{sum(f.told.events for f in followers)} watch events, {watch.told.events} in {watch.runs} runs of kubectl, "
                       f"{etcdctl.events if etcdctl else 0} of etcdctl; agreed {time.monotonic() - began:.0f} s "
                       f"after the faults: {agreement.informers} informers with {agreement.objects} objects, {len(followers[0].told.pods or {})} pods")
    finally:
        for x in (user, watch, *followers):
            if x:
                x.stop = True
        if etcdctl:
            etcdctl.end()
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
