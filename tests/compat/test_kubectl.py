#!/usr/bin/env python3
"""kubectl, as it comes, against the Kubernetes API: every command of the list in issue 2, with each kubectl that there is
(KUBECTL_120 and KUBECTL_132, else `kubectl`). What needs controllers runs where the binary has them."""
import json
import os
import re
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../integration"))
from kube_cluster import PINTLE, Cluster, Tap, wait_for  # noqa: E402

tap = Tap()


def kubectls():
    found = []
    for name in ("KUBECTL_120", "KUBECTL_132"):
        path = os.environ.get(name)
        if path and os.access(path, os.X_OK):
            found.append((name[-3] + "." + name[-2:], path))
    if not found and shutil.which("kubectl"):
        found.append(("kubectl", shutil.which("kubectl")))
    return found


class Kubectl:
    def __init__(self, cluster, name, path):
        self.c, self.name, self.path = cluster, name, path
        self.home = os.path.join(cluster.dir, "home-" + name)
        os.makedirs(self.home, exist_ok=True)
        self.env = dict(os.environ, HOME=self.home, KUBECONFIG=cluster.kubeconfig())
        self.ns = "k" + name.replace(".", "")

    def popen(self, *args, **kw):
        return subprocess.Popen([self.path, "-n", self.ns] + list(args), env=self.env, text=True, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, **kw)

    def __call__(self, *args, stdin=None, env=None, ns=None, timeout=60):
        r = subprocess.run([self.path, "-n", ns or self.ns] + list(args), env=dict(self.env, **(env or {})), input=stdin,
                           text=True, capture_output=True, timeout=timeout)
        self.rc, self.out, self.err = r.returncode, r.stdout, r.stderr
        return r.stdout

    def ok(self, name, *args, has=None, lacks=None, **kw):
        """Runs it; it must succeed and say what `has` (texts or patterns) asks for."""
        self(*args, **kw)
        wanted = [has] if isinstance(has, str) else (has or [])
        missing = [h for h in wanted if not re.search(h, self.out + self.err)]
        bad = lacks and re.search(lacks, self.out)
        return tap.check("%s: %s" % (self.name, name), self.rc == 0 and not missing and not bad,
                         "rc %d, missing %r\n%s%s" % (self.rc, missing, self.out, self.err))

    def fails(self, name, *args, has="", **kw):
        self(*args, **kw)
        return tap.check("%s: %s" % (self.name, name), self.rc != 0 and re.search(has, self.out + self.err),
                         "rc %d\n%s%s" % (self.rc, self.out, self.err))


def manifest(kind, name, **more):
    o = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}
    o.update(more)
    return json.dumps(o)


def pod(name, **labels):
    return manifest("Pod", name, metadata={"name": name, "labels": labels},
                    spec={"containers": [{"name": "c", "image": "nginx"}]})


def deployment(name, replicas=2, image="nginx:1"):
    return json.dumps({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
                 "template": {"metadata": {"labels": {"app": name}},
                              "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": image}]}}}})


def about(k):
    k.ok("version", "version", has=r"v1\.32\.\d+\+pintle")
    k.ok("cluster-info", "cluster-info", has="is running at")
    k.ok("api-resources", "api-resources", has=[r"pods\s+po\s+v1\s+true\s+Pod", r"deployments\s+deploy\s+apps/v1", r"nodes\s+no\s"])
    k.ok("api-versions", "api-versions", has=["apps/v1", r"(?m)^v1$"])
    k.ok("explain", "explain", "deployment.spec.strategy", has=["rollingUpdate", "DeploymentStrategy|<Object>"])
    k.ok("explain a field of a list", "explain", "pod.spec.containers.ports", has="containerPort")
    k.ok("auth can-i", "auth", "can-i", "create", "pods", has="yes")
    k.ok("create namespace", "create", "namespace", k.ns, has="created")
    if k.name != "1.20":
        k.ok("auth whoami", "auth", "whoami", has="admin")


def creates(k):
    k.ok("create -f", "create", "-f", "-", stdin=pod("p1", app="a"), has="pod/p1 created")
    k.fails("create -f again", "create", "-f", "-", stdin=pod("p1"), has="AlreadyExists.*pods \"p1\" already exists")
    k.fails("create -f with an unknown field", "create", "-f", "-", stdin=manifest("Pod", "x", spec={"containres": []}),
            has="unknown field|containres")
    k.fails("create -f of an invalid pod", "create", "-f", "-", stdin=manifest("Pod", "x", spec={"containers": []}),
            has="spec.containers")
    k.ok("create configmap", "create", "configmap", "cm1", "--from-literal=a=1", "--from-literal=b=two", has="configmap/cm1 created")
    k.ok("create secret", "create", "secret", "generic", "s1", "--from-literal=p=hunter2", has="created")
    k.ok("create serviceaccount", "create", "serviceaccount", "sa1", has="created")
    k.ok("create deployment", "create", "deployment", "d1", "--image=nginx", has="created")
    k.ok("create service", "create", "service", "clusterip", "svc1", "--tcp=80:8080", has="created")
    k.ok("run", "run", "p2", "--image=nginx", "--labels=app=b", has="pod/p2 created")
    k.ok("create --dry-run=server", "create", "configmap", "dry", "--from-literal=a=1", "--dry-run=server", has="created \\(server dry run\\)")
    k.fails("which leaves nothing", "get", "cm", "dry", has="NotFound")
    for i in range(12):
        k("create", "configmap", "many-%02d" % i, "--from-literal=i=%d" % i)


def gets(k):
    k.ok("get", "get", "pods", has=[r"NAME\s+READY\s+STATUS\s+RESTARTS\s+AGE", r"p1\s+0/1\s+(Pending|ContainerCreating|Running)|p1\s+1/1\s+Running"])
    k.ok("get -o wide", "get", "pods", "-o", "wide", has=[r"NODE", r"NOMINATED NODE"])
    k.ok("get -o yaml", "get", "cm", "cm1", "-o", "yaml", has=["kind: ConfigMap", 'b: two', "resourceVersion:"])
    k.ok("get -o json", "get", "cm", "-o", "json", has=['"kind": "List"', '"name": "cm1"'])
    tap.check(k.name + ": which is valid", len(json.loads(k.out)["items"]) >= 13 if k.rc == 0 else False, k.err)
    k.ok("get -o name", "get", "cm", "cm1", "-o", "name", has="^configmap/cm1$")
    k.ok("get -o jsonpath", "get", "cm", "cm1", "-o", "jsonpath={.data.b}", has="^two$")
    k.ok("get -o go-template", "get", "cm", "cm1", "-o", "go-template={{.data.a}}", has="^1$")
    k.ok("get -o custom-columns", "get", "pods", "-o", "custom-columns=N:.metadata.name,I:.spec.containers[0].image", has=[r"N\s+I", r"p1\s+nginx"])
    k.ok("get --no-headers", "get", "pods", "--no-headers", has="p1", lacks="NAME")
    k.ok("get --show-labels", "get", "pods", "--show-labels", has=["LABELS", "app=a"])
    k.ok("get -L", "get", "pods", "-L", "app", has=["APP"])
    k.ok("get -A", "get", "services", "-A", has=[r"NAMESPACE\s+NAME", r"default\s+kubernetes"])
    k.ok("get -l", "get", "pods", "-l", "app=a", has="p1", lacks="p2")
    k.ok("get -l with a set", "get", "pods", "-l", "app in (b,c),app!=a", has="p2", lacks="p1")
    k.ok("get --field-selector", "get", "pods", "--field-selector", "metadata.name=p2", has="p2", lacks="p1")
    k.ok("get --chunk-size", "get", "cm", "--chunk-size=3", "-l", "!x", has=["many-00", "many-11"])
    k.ok("get --sort-by", "get", "cm", "--sort-by=.metadata.name", has="many-00")
    k.ok("get of several kinds", "get", "pods,cm,svc", has=["pod/p1", "configmap/cm1", "service/svc1"])
    k.ok("get all", "get", "all", has=["pod/p1", "deployment.apps/d1", "service/svc1"])
    k.ok("get --raw", "get", "--raw", "/readyz", has="ok")
    k.fails("get of nothing", "get", "pods", "nope", has='NotFound.*pods "nope" not found')
    k.fails("get of an unknown kind", "get", "flubbers", has="doesn't have a resource type")
    k.fails("a field that cannot be selected", "get", "pods", "--field-selector", "spec.x=1", has="field label not supported")


def describes(k):
    k.ok("describe pod", "describe", "pod", "p1", has=[r"Name:\s+p1", r"Image:\s+nginx", r"QoS Class:\s+BestEffort", "node.kubernetes.io/not-ready"])
    k.ok("describe service", "describe", "svc", "svc1", has=[r"Type:\s+ClusterIP", r"IP:\s+10\."])
    k.ok("describe deployment", "describe", "deploy", "d1", has=[r"StrategyType:\s+RollingUpdate", r"Selector:\s+app=d1"])
    k.ok("describe configmap", "describe", "cm", "cm1", has="two")
    k.ok("describe namespace", "describe", "ns", k.ns, has=r"Status:\s+Active")


def watches(k):
    w = k.popen("get", "cm", "-w", "--field-selector", "metadata.name=watched")
    time.sleep(0.3)  # kubectl prints nothing to wait for when the list is empty; the watch starts at the list's version anyway
    k("create", "configmap", "watched", "--from-literal=a=1")
    k("delete", "cm", "watched")
    lines = []
    end = time.time() + 10
    os.set_blocking(w.stdout.fileno(), False)
    while time.time() < end and sum("watched" in x for x in lines) < 2:
        line = w.stdout.readline()
        if line:
            lines.append(line)
        else:
            time.sleep(0.05)
    w.kill()
    w.wait()
    tap.check(k.name + ": get -w", sum("watched" in x for x in lines) >= 2 and any("NAME" in x for x in lines), "".join(lines))


def changes(k):
    k.ok("apply: created", "apply", "-f", "-", stdin=deployment("ap"), has="created")
    k.ok("apply: unchanged", "apply", "-f", "-", stdin=deployment("ap"), has="unchanged")
    k.ok("apply: configured", "apply", "-f", "-", stdin=deployment("ap", 3, "nginx:2"), has="configured")
    k.ok("what it did", "get", "deploy", "ap", "-o", "jsonpath={.spec.replicas} {.spec.template.spec.containers[0].image}", has="^3 nginx:2$")
    k.ok("diff", "diff", "-f", "-", stdin=deployment("ap", 3, "nginx:2"))
    k.fails("apply --server-side", "apply", "--server-side", "-f", "-", stdin=deployment("ap"), has="server-side apply")
    k.ok("edit", "edit", "cm", "cm1", env={"EDITOR": "sed -i s/two/three/", "KUBE_EDITOR": "sed -i s/two/three/"}, has="edited")
    k.ok("which edited", "get", "cm", "cm1", "-o", "jsonpath={.data.b}", has="^three$")
    k.ok("patch: strategic", "patch", "deploy", "ap", "-p", '{"spec":{"template":{"spec":{"containers":[{"name":"d","image":"x"}]}}}}', has="patched")
    k.ok("merged by name", "get", "deploy", "ap", "-o", "jsonpath={.spec.template.spec.containers[*].name}", has="^(c d|d c)$")
    k.ok("patch: merge", "patch", "cm", "cm1", "--type=merge", "-p", '{"data":{"a":null,"z":"26"}}', has="patched")
    k.ok("patch: json", "patch", "cm", "cm1", "--type=json", "-p", '[{"op":"replace","path":"/data/z","value":"27"}]', has="patched")
    k.ok("all three", "get", "cm", "cm1", "-o", "jsonpath={.data}", has=['"z":"27"|z:27', '"b":"three"|b:three'], lacks="a:1")
    k.ok("label", "label", "pod", "p1", "tier=front", has="labeled")
    k.fails("label without --overwrite", "label", "pod", "p1", "tier=back", has="already has a value|overwrite")
    k.ok("label --overwrite", "label", "--overwrite", "pod", "p1", "tier=back", has="labeled")
    k.ok("label: remove", "label", "pod", "p1", "tier-", has="labeled|unlabeled")
    k.ok("annotate", "annotate", "pod", "p1", "note=hello", has="annotated")
    k.ok("scale", "scale", "deploy/ap", "--replicas=5", has="scaled")
    k.ok("scale with a condition", "scale", "deploy/ap", "--current-replicas=5", "--replicas=1", has="scaled")
    k.fails("scale with a false one", "scale", "deploy/ap", "--current-replicas=4", "--replicas=2", has="Expected replicas")
    k.ok("scaled", "get", "deploy", "ap", "-o", "jsonpath={.spec.replicas}", has="^1$")
    k.ok("set image", "set", "image", "deploy/ap", "c=nginx:3", has="image updated")
    k.ok("set env", "set", "env", "deploy/ap", "A=b", has="env updated")
    k.ok("expose", "expose", "deploy/ap", "--port=80", "--target-port=8080", "--name=exposed", has="exposed")
    k.ok("an address for it", "get", "svc", "exposed", "-o", "jsonpath={.spec.clusterIP}", has=r"^10\.\d+\.\d+\.\d+$")
    k.ok("replace", "replace", "-f", "-", stdin=manifest("ConfigMap", "cm1", data={"only": "this"}), has="replaced")
    k.ok("rollout pause", "rollout", "pause", "deploy/ap", has="paused")
    k.ok("rollout resume", "rollout", "resume", "deploy/ap", has="resumed")


def nodes(k):
    name = "node-" + k.ns
    k.ok("a node", "create", "-f", "-", stdin=manifest("Node", name), has="created")
    k.ok("cordon", "cordon", name, has="cordoned")
    k.ok("which is shown", "get", "nodes", name, has="SchedulingDisabled")
    k.ok("uncordon", "uncordon", name, has="uncordoned")
    k.ok("taint", "taint", "nodes", name, "a=b:NoSchedule", has="tainted")
    k.ok("describe node", "describe", "node", name, has=["a=b:NoSchedule"])
    k.ok("delete node", "delete", "node", name, has="deleted")


def waits(k):
    def watching():
        return sum(int(n) for n in re.findall(r'apiserver_request_total\{verb="watch".*\} (\d+)', k.c.get("/metrics").body))
    before = watching()
    w = k.popen("wait", "--for=delete", "cm/many-00", "--timeout=20s")
    wait_for(lambda: watching() > before)
    k("delete", "cm", "many-00")
    tap.equal(k.name + ": wait --for=delete", w.wait(25), 0)
    p = json.loads(k("get", "pod", "p2", "-o", "json"))
    p["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    r = k.c.put("/api/v1/namespaces/%s/pods/p2/status" % k.ns, p)
    k.ok("wait --for=condition", "wait", "--for=condition=Ready", "pod/p2", "--timeout=20s", has="condition met")
    tap.check(k.name + ": after a status update", r.status == 200, r)


def deletes(k):
    k.ok("delete one", "delete", "cm", "many-01", has='"many-01" deleted')
    k.ok("delete several", "delete", "cm", "many-02", "many-03", has="many-03")
    k.ok("delete -l", "delete", "pod", "-l", "app=b", "--grace-period=0", "--force", has="p2")
    k.ok("delete -f", "delete", "-f", "-", stdin=deployment("ap"), has="deleted")
    k.ok("delete --all", "delete", "cm", "--all", has="many-11")
    k.fails("delete of nothing", "delete", "cm", "nope", has="NotFound")
    k.ok("delete --ignore-not-found", "delete", "cm", "nope", "--ignore-not-found")
    k.ok("delete --cascade=orphan", "delete", "deploy", "d1", "--cascade=orphan", "--wait=false", has="deleted")
    k.ok("delete now", "delete", "pod", "p1", "--now", has="deleted")


# ---- with controllers ------------------------------------------------------------------------------------


def start_clients(c):
    """Scheduler, controllers and three hollow nodes, if the binary has them all; the processes, or a reason."""
    programs = (("controllers", []), ("scheduler", []), ("agent", ["--hollow-nodes", "3", "--name-prefix", "n"]))
    for name, _ in programs:
        r = subprocess.run([PINTLE, name, "--help"], capture_output=True, text=True)
        if r.returncode != 0 or "pintle " + name not in r.stdout:
            return "no `pintle %s` in this binary" % name
    procs = []
    for name, args in programs:
        log = open(os.path.join(c.dir, name + ".log"), "ab")
        procs.append(subprocess.Popen([PINTLE, name, "--kubeconfig", c.kubeconfig()] + args, stdout=log, stderr=log,
                                      stdin=subprocess.DEVNULL))
        log.close()
    return procs


def rollouts(k):
    k.ok("apply a deployment", "apply", "-f", "-", stdin=deployment("web", 3, "nginx:1"), has="created")
    k.ok("rollout status", "rollout", "status", "deploy/web", "--timeout=60s", has="successfully rolled out", timeout=70)
    k.ok("pods run", "get", "pods", "-l", "app=web", has=r"1/1\s+Running")
    k.ok("set image", "set", "image", "deploy/web", "c=nginx:2", has="image updated")
    k.ok("rollout status again", "rollout", "status", "deploy/web", "--timeout=60s", has="successfully rolled out", timeout=70)
    k.ok("rollout history", "rollout", "history", "deploy/web", has=[r"(?m)^1\s", r"(?m)^2\s"])
    k.ok("rollout history of one", "rollout", "history", "deploy/web", "--revision=1", has="nginx:1")
    k.ok("rollout undo", "rollout", "undo", "deploy/web", has="rolled back")
    k.ok("rollout status at last", "rollout", "status", "deploy/web", "--timeout=60s", has="successfully rolled out", timeout=70)
    k.ok("the first image again", "get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[0].image}", has="^nginx:1$")
    k.ok("rollout restart", "rollout", "restart", "deploy/web", has="restarted")
    k.ok("scale down", "scale", "deploy/web", "--replicas=0", has="scaled")
    gone = wait_for(lambda: "No resources" in (k("get", "pods", "-l", "app=web") + k.err), 30)
    tap.check(k.name + ": scaled to nothing", gone, k.out + k.err)
    k.ok("delete its namespace", "delete", "ns", k.ns, "--timeout=60s", has="deleted", timeout=70)


def main():
    found = kubectls()
    if not found:
        tap.skip("kubectl", "there is none (KUBECTL_120, KUBECTL_132, PATH)")
        tap.done()
    c = Cluster(int(os.environ.get("MEMBERS", "1")))
    every = [Kubectl(c, name, path) for name, path in found]
    for k in every:
        for part in (about, creates, gets, describes, watches, changes, nodes, waits, deletes):
            if os.environ.get("PARTS") and part.__name__ not in os.environ["PARTS"]:
                continue
            try:
                part(k)
            except Exception as e:  # noqa: BLE001: the next part still runs
                tap.check("%s: %s ran to its end" % (k.name, part.__name__), False, repr(e))
    clients = start_clients(c)
    if isinstance(clients, str):
        tap.skip("rollouts", clients)
    else:
        try:
            for k in every:
                rollouts(k)
        except Exception as e:  # noqa: BLE001
            tap.check("rollouts ran to their end", False, repr(e))
        if tap.failed:
            for name in ("controllers", "scheduler", "agent"):
                with open(os.path.join(c.dir, name + ".log"), errors="replace") as f:
                    print("".join("# %s: %s" % (name, line) for line in f.readlines()[-10:]))
        for p in clients:
            p.terminate()
        for p in clients:
            try:
                p.wait(10)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
    if tap.failed:
        print(c.logs())
    tap.done()


main()
