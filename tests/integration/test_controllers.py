#!/usr/bin/env python3
"""Scheduler, controllers and agents on real servers: what they make of objects that are written through the API."""
import json
import os
import signal
import subprocess
import sys
import time

os.environ.setdefault("KUBE_TEST_PORT", "25100")
sys.path.insert(0, os.path.dirname(__file__))
from kube_cluster import PINTLE, Cluster, Tap, wait_for  # noqa: E402

tap = Tap()
programs = []


def start(cluster, *args):
    log = open(os.path.join(cluster.dir, "client-%d-%s.log" % (len(programs), args[0])), "ab")
    p = subprocess.Popen([PINTLE] + list(args) + ["--kubeconfig", config], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    p.log = log.name
    log.close()
    programs.append(p)
    return p


def stop(p, how=signal.SIGTERM):
    if p.poll() is None:
        p.send_signal(how)
    try:
        return p.wait(5)
    except subprocess.TimeoutExpired:
        p.kill()
        p.wait()
        return None


def write_config(c):
    path, d = os.path.join(c.dir, "clients.kubeconfig"), c.dir
    servers = ["https://127.0.0.1:%d" % c.kube_port(i) for i in range(len(c.procs))]
    with open(path, "w") as f:
        json.dump({"apiVersion": "v1", "kind": "Config", "current-context": "x",
                   "clusters": [{"name": "c", "cluster": {"server": servers[0], "certificate-authority": "ca.crt", "extensions": [
                       {"name": "pintle/servers", "extension": {"servers": servers}}]}}],
                   "users": [{"name": "u", "user": {"client-certificate": "admin.crt", "client-key": d + "/admin.key"}}],
                   "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}]}, f)
    return path


# ---- objects

def pod_spec(**more):
    spec = {"containers": [{"name": "c", "image": "x", "ports": [{"name": "http", "containerPort": 80}],
                            "resources": {"requests": {"cpu": "10m", "memory": "10Mi"}}}]}
    spec.update(more)
    return spec


def deployment(name, replicas, image="x", annotations=None, **spec):
    s = {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
         "template": {"metadata": {"labels": {"app": name}, "annotations": annotations or {}}, "spec": pod_spec()}}
    s["template"]["spec"]["containers"][0]["image"] = image
    s.update(spec)
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": s}


DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
SETS = "/apis/apps/v1/namespaces/default/replicasets"
PODS = "/api/v1/namespaces/default/pods"


def items(c, path, app=None):
    sep = "&" if "?" in path else "?"
    r = c.get(path + (sep + "labelSelector=app%3D" + app if app else ""), member=up(c))
    return r.json["items"] if r.status == 200 else []


def up(c):
    return next(i for i, p in enumerate(c.procs) if p.poll() is None)


def ready(p):
    return any(x["type"] == "Ready" and x["status"] == "True" for x in p["status"].get("conditions", [])) \
        and "deletionTimestamp" not in p["metadata"]


def settled(c, name, replicas):
    def look():
        d = c.get(DEPLOYMENTS + "/" + name, member=up(c))
        if d.status != 200:
            return False
        s = d.json.get("status", {})
        return s.get("observedGeneration") == d.json["metadata"]["generation"] and s.get("updatedReplicas", 0) == replicas \
            and s.get("availableReplicas", 0) == replicas and s.get("replicas", 0) == replicas and len(items(c, PODS, name)) == replicas
    return look


def events(c, reason, name_part=""):
    return [e for e in items(c, "/api/v1/namespaces/default/events") if e["reason"] == reason and name_part in e["involvedObject"]["name"]]


def condition(o, kind):
    return next((x for x in o.get("status", {}).get("conditions", []) if x["type"] == kind), {})


# ---- the parts

def test_programs():
    for name in ("scheduler", "controllers", "agent"):
        out = subprocess.run([PINTLE, name, "--help"], capture_output=True, text=True, timeout=10)
        tap.check("%s --help" % name, out.returncode == 0 and "--kubeconfig" in out.stdout, out)
        bad = subprocess.run([PINTLE, name, "--no-such-flag"], capture_output=True, text=True, timeout=10)
        tap.check("%s refuses an unknown flag" % name, bad.returncode == 2 and "--no-such-flag" in bad.stderr, bad)
        lost = subprocess.run([PINTLE, name, "--kubeconfig", "/nonexistent"], capture_output=True, text=True, timeout=10)
        tap.check("%s says that its kubeconfig is not there" % name, lost.returncode == 1 and "/nonexistent" in lost.stderr, lost)


def test_deployment(c):
    c.post(DEPLOYMENTS, deployment("web", 3))
    c.post("/api/v1/namespaces/default/services", {"metadata": {"name": "web"}, "spec": {
        "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}})
    tap.check("a Deployment's pods run", wait_for(settled(c, "web", 3)), items(c, PODS, "web"))
    pods = items(c, PODS, "web")
    tap.equal("one on each node", sorted(p["spec"]["nodeName"] for p in pods), ["node-1", "node-2", "node-3"])
    tap.check("their addresses differ", len({p["status"].get("podIP") for p in pods}) == 3, pods)
    tap.check("owners, hash and phase", all(p["metadata"]["ownerReferences"][0]["kind"] == "ReplicaSet" and
              p["metadata"]["labels"]["pod-template-hash"] and p["status"]["phase"] == "Running" for p in pods), pods)
    d = c.get(DEPLOYMENTS + "/web").json
    tap.equal("conditions", [(condition(d, k).get("status"), condition(d, k).get("reason")) for k in ("Available", "Progressing")],
              [("True", "MinimumReplicasAvailable"), ("True", "NewReplicaSetAvailable")])
    tap.equal("revision 1", d["metadata"]["annotations"].get("deployment.kubernetes.io/revision"), "1")

    def addresses():
        e = c.get("/api/v1/namespaces/default/endpoints/web").json
        return [s for s in e.get("subsets") or [] if len(s.get("addresses", [])) == 3 and s["ports"][0]["port"] == 80]
    tap.check("Endpoints with the named port", wait_for(addresses), c.get("/api/v1/namespaces/default/endpoints/web"))
    def sliced():
        s = slices(c, "web")
        return len(s) == 1 and len([e for e in s[0]["endpoints"] if e["conditions"]["ready"]]) == 3 and s
    s = (wait_for(sliced) or [{}])[0]
    tap.check("an EndpointSlice next to them", s.get("addressType") == "IPv4" and s["ports"] == [
        {"name": "", "port": 80, "protocol": "TCP"}], slices(c, "web"))
    tap.check("says whose it is", s and s["metadata"]["name"].startswith("web-") and s["metadata"]["ownerReferences"][0]["kind"] == "Service"
              and s["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] == "endpointslice-controller.k8s.io", s)
    tap.equal("and where each endpoint runs", sorted((e["addresses"][0], e["nodeName"], e["targetRef"]["name"]) for e in s.get("endpoints", [])),
              sorted((p["status"]["podIP"], p["spec"]["nodeName"], p["metadata"]["name"]) for p in pods))
    one = PODS + "/" + pods[0]["metadata"]["name"]
    took = c.patch(one + "/status", {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}, kind="strategic")
    tap.check("what is called not ready though it is", took.status == 200 and not ready(took.json), took)
    tap.check("its agent sets right", wait_for(lambda: ready(c.get(one).json)), c.get(one))
    tap.check("events tell of it", wait_for(lambda: len(events(c, "Scheduled", "web-")) == 3 and events(c, "ScalingReplicaSet", "web")
              and len(events(c, "SuccessfulCreate", "web-")) >= 3), items(c, "/api/v1/namespaces/default/events"))


def test_rollout(c):
    def template(image):
        return {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}}
    c.patch(DEPLOYMENTS + "/web", template("x:2"), "strategic")
    low = high = 3
    end = time.time() + 15
    done = settled(c, "web", 3)
    while time.time() < end:
        pods = items(c, PODS, "web")
        live = [p for p in pods if "deletionTimestamp" not in p["metadata"]]
        low, high = min(low, len([p for p in pods if ready(p)])), max(high, len(live))
        if done() and all(p["spec"]["containers"][0]["image"] == "x:2" for p in items(c, PODS, "web")):
            break
    tap.check("a rolling update ends with the new image", done() and
              {p["spec"]["containers"][0]["image"] for p in items(c, PODS, "web")} == {"x:2"}, items(c, PODS, "web"))
    tap.check("never fewer than 3 ready, never more than 4 pods", low >= 3 and high <= 4, (low, high))
    sets = {s["metadata"]["annotations"]["deployment.kubernetes.io/revision"]: s for s in items(c, SETS, "web")}
    tap.equal("two revisions", (sets["1"]["spec"]["replicas"], sets["2"]["spec"]["replicas"]), (0, 3))
    c.patch(DEPLOYMENTS + "/web", template("x"), "strategic")
    tap.check("going back uses the old ReplicaSet", wait_for(settled(c, "web", 3)) and len(items(c, SETS, "web")) == 2,
              items(c, SETS, "web"))
    tap.check("as revision 3", wait_for(lambda: c.get(DEPLOYMENTS + "/web").json["metadata"]["annotations"].get(
        "deployment.kubernetes.io/revision") == "3"), c.get(DEPLOYMENTS + "/web"))
    c.patch(DEPLOYMENTS + "/web", {"spec": {"paused": True}})
    c.patch(DEPLOYMENTS + "/web", template("x:3"), "strategic")
    c.patch(DEPLOYMENTS + "/web", {"spec": {"replicas": 5}})
    tap.check("paused: scales, but does not roll", wait_for(lambda: len([p for p in items(c, PODS, "web") if ready(p)]) == 5) and
              all(p["spec"]["containers"][0]["image"] == "x" for p in items(c, PODS, "web")), items(c, PODS, "web"))
    tap.check("and says so", wait_for(lambda: condition(c.get(DEPLOYMENTS + "/web").json, "Progressing").get("reason") ==
                                      "DeploymentPaused"), c.get(DEPLOYMENTS + "/web"))
    c.patch(DEPLOYMENTS + "/web", {"spec": {"paused": False, "revisionHistoryLimit": 1}})
    tap.check("resumed: rolls", wait_for(settled(c, "web", 5)) and
              {p["spec"]["containers"][0]["image"] for p in items(c, PODS, "web")} == {"x:3"}, items(c, PODS, "web"))
    tap.check("old ReplicaSets beyond the limit go", wait_for(lambda: len(items(c, SETS, "web")) == 2), items(c, SETS, "web"))
    c.patch(DEPLOYMENTS + "/web", {"spec": {"replicas": 1}})
    tap.check("scales down", wait_for(settled(c, "web", 1)), items(c, PODS, "web"))


def slices(c, service):
    return items(c, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D" + service)


def test_slices(c):
    """What is left of `web` is one pod."""
    def addresses(service):
        return sorted(a for s in slices(c, service) for e in s["endpoints"] for a in e["addresses"])
    tap.check("slices follow down", wait_for(lambda: len(addresses("web")) == 1), slices(c, "web"))
    time.sleep(0.5)
    version = [s["metadata"]["resourceVersion"] for s in slices(c, "web")]
    c.patch("/api/v1/namespaces/default/services/web", {"metadata": {"annotations": {"nothing": "new"}}})
    time.sleep(0.5)
    tap.equal("and are not written when nothing changed", [s["metadata"]["resourceVersion"] for s in slices(c, "web")], version)
    c.patch(DEPLOYMENTS + "/web", {"spec": {"replicas": 120}})
    tap.check("follow up, at most 100 endpoints each", wait_for(lambda: sorted(len(s["endpoints"]) for s in slices(c, "web")) == [20, 100]),
              [len(s["endpoints"]) for s in slices(c, "web")])
    tap.check("each pod once", len(set(addresses("web"))) == 120, addresses("web"))
    first = slices(c, "web")[0]["metadata"]["name"]
    c.delete("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/" + first)
    tap.check("one that was deleted comes back", wait_for(lambda: len(addresses("web")) == 120), slices(c, "web"))
    c.patch(DEPLOYMENTS + "/web", {"spec": {"replicas": 1}})
    tap.check("surplus slices go", wait_for(lambda: len(slices(c, "web")) == 1 and len(addresses("web")) == 1), slices(c, "web"))
    c.delete("/api/v1/namespaces/default/services/web")
    tap.check("all go with the Service", wait_for(lambda: not slices(c, "web")), slices(c, "web"))
    own = c.get("/api/v1/namespaces/default/endpoints/kubernetes").json
    want = sorted(a["ip"] for s in own["subsets"] for a in s["addresses"])
    tap.check("Endpoints of a Service without selector are mirrored", want and wait_for(lambda: addresses("kubernetes") == want) and
              slices(c, "kubernetes")[0]["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] ==
              "endpointslicemirroring-controller.k8s.io", slices(c, "kubernetes"))


def test_stuck(c):
    c.post(DEPLOYMENTS, deployment("stuck", 2, annotations={"hollow.pintle/ready": "false"}, progressDeadlineSeconds=1))
    reason = lambda: condition(c.get(DEPLOYMENTS + "/stuck").json, "Progressing").get("reason")  # noqa: E731
    tap.check("an update that does not progress says so", wait_for(lambda: reason() == "ProgressDeadlineExceeded"), reason())
    d = c.get(DEPLOYMENTS + "/stuck").json
    tap.equal("and is not available", condition(d, "Available").get("reason"), "MinimumReplicasUnavailable")
    c.post(DEPLOYMENTS, deployment("again", 2, strategy={"type": "Recreate"}))
    wait_for(settled(c, "again", 2))
    c.patch(DEPLOYMENTS + "/again", {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "x:2"}]}}}}, "strategic")
    mixed = False
    end, done = time.time() + 15, settled(c, "again", 2)
    while time.time() < end:
        images = {p["spec"]["containers"][0]["image"] for p in items(c, PODS, "again")}
        mixed = mixed or len(images) > 1
        if images == {"x:2"} and done():
            break
    tap.check("Recreate: the old ones are gone before the new ones come", done() and not mixed, (done(), mixed))


def test_scheduling(c):
    c.post(PODS, {"metadata": {"name": "huge"}, "spec": {"containers": [
        {"name": "c", "image": "x", "resources": {"requests": {"cpu": "64"}}}]}})
    found = wait_for(lambda: events(c, "FailedScheduling", "huge"))
    tap.equal("an event says why a pod does not fit", found[0]["message"] if found else None, "0/3 nodes are available: 3 Insufficient cpu.")
    cond = wait_for(lambda: condition(c.get(PODS + "/huge").json, "PodScheduled"))
    tap.equal("so does its condition", (cond.get("status"), cond.get("reason")), ("False", "Unschedulable"))
    big = start(c, "agent", "--node-name", "big-1", "--cpu", "100", "--node-labels", "size=big")
    tap.check("it is placed when there is room", wait_for(lambda: c.get(PODS + "/huge").json["spec"].get("nodeName") == "big-1"),
              c.get(PODS + "/huge"))
    c.patch("/api/v1/nodes/node-1", {"spec": {"unschedulable": True}})
    wait_for(lambda: any(t["key"] == "node.kubernetes.io/unschedulable" for t in c.get("/api/v1/nodes/node-1").json["spec"].get("taints", [])))
    for i in range(4):
        c.post(PODS, {"metadata": {"name": "s%d" % i, "labels": {"app": "s"}}, "spec": pod_spec(nodeSelector={"kubernetes.io/os": "linux"})})
    c.post(PODS, {"metadata": {"name": "pick", "labels": {"app": "s"}}, "spec": pod_spec(nodeSelector={"size": "big"})})
    wait_for(lambda: len([p for p in items(c, PODS, "s") if ready(p)]) == 5)
    where = {p["metadata"]["name"]: p["spec"].get("nodeName") for p in items(c, PODS, "s")}
    tap.check("a cordoned node gets nothing", len(where) == 5 and None not in where.values() and "node-1" not in where.values(), where)
    tap.equal("nodeSelector", where.get("pick"), "big-1")
    c.patch("/api/v1/nodes/node-1", {"spec": {"unschedulable": None}})
    return big


def test_lives(c):
    note = "hollow.pintle/"
    c.post(PODS, {"metadata": {"name": "once", "annotations": {note + "run-for": "300ms"}}, "spec": pod_spec(
        restartPolicy="Never", initContainers=[{"name": "i", "image": "z"}])})
    c.post(PODS, {"metadata": {"name": "fails", "annotations": {note + "run-for": "300ms", note + "exit-code": "3"}}, "spec": pod_spec(
        restartPolicy="Never")})
    c.post(PODS, {"metadata": {"name": "loops", "annotations": {note + "run-for": "300ms", note + "exit-code": "1"}}, "spec": pod_spec()})
    c.post(PODS, {"metadata": {"name": "slow", "annotations": {note + "stop-after": "1s"}}, "spec": pod_spec()})
    c.post(PODS, {"metadata": {"name": "late"}, "spec": pod_spec(activeDeadlineSeconds=1)})
    status = lambda n: c.get(PODS + "/" + n).json["status"]  # noqa: E731
    tap.check("a pod that ends well has Succeeded", wait_for(lambda: status("once")["phase"] == "Succeeded"), status("once"))
    tap.equal("its init container too", status("once")["initContainerStatuses"][0]["state"]["terminated"]["exitCode"], 0)
    tap.check("one that ends badly has Failed", wait_for(lambda: status("fails")["phase"] == "Failed"), status("fails"))
    tap.check("one that always restarts goes on, ever more slowly", wait_for(
        lambda: status("loops").get("containerStatuses", [{}])[0].get("restartCount", 0) >= 1 and
        status("loops")["containerStatuses"][0]["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff"), status("loops"))
    tap.check("activeDeadlineSeconds", wait_for(lambda: status("late").get("reason") == "DeadlineExceeded" and
                                                status("late")["phase"] == "Failed"), status("late"))
    wait_for(lambda: ready(c.get(PODS + "/slow").json))
    t0 = time.time()
    c.delete(PODS + "/slow")
    marked = c.get(PODS + "/slow").json
    tap.check("deleted gracefully: first marked", "deletionTimestamp" in marked.get("metadata", {}), marked)
    gone = wait_for(lambda: c.get(PODS + "/slow").status == 404)
    tap.check("then gone, when it has stopped", gone and time.time() - t0 >= 0.9, time.time() - t0)
    c.request("DELETE", PODS, {"kind": "DeleteOptions", "gracePeriodSeconds": 0})


def test_claims(c):
    rs = {"metadata": {"name": "claims"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "claims"}},
                                                   "template": {"metadata": {"labels": {"app": "claims"}}, "spec": pod_spec()}}}
    c.post(PODS, {"metadata": {"name": "orphan", "labels": {"app": "claims"}}, "spec": pod_spec()})
    wait_for(lambda: ready(c.get(PODS + "/orphan").json))
    c.post(SETS, rs)
    tap.check("a ReplicaSet adopts a pod that it selects", wait_for(
        lambda: c.get(PODS + "/orphan").json["metadata"].get("ownerReferences", [{}])[0].get("name") == "claims"), c.get(PODS + "/orphan"))
    tap.check("and makes only the others", wait_for(lambda: len(items(c, PODS, "claims")) == 2), items(c, PODS, "claims"))
    c.patch(PODS + "/orphan", {"metadata": {"labels": {"app": "free"}}})
    tap.check("releases it when it no longer selects it", wait_for(
        lambda: not c.get(PODS + "/orphan").json["metadata"].get("ownerReferences")), c.get(PODS + "/orphan"))
    tap.check("and makes another", wait_for(lambda: len(items(c, PODS, "claims")) == 2), items(c, PODS, "claims"))
    c.delete(SETS + "/claims", {"kind": "DeleteOptions", "propagationPolicy": "Orphan"})
    tap.check("deleted as Orphan: the pods stay", wait_for(lambda: c.get(SETS + "/claims").status == 404) and wait_for(
        lambda: len(items(c, PODS, "claims")) == 2 and not any(p["metadata"].get("ownerReferences") for p in items(c, PODS, "claims"))),
        items(c, PODS, "claims"))
    c.post(SETS, rs)
    wait_for(lambda: all(p["metadata"].get("ownerReferences") for p in items(c, PODS, "claims")))
    c.delete(SETS + "/claims", {"kind": "DeleteOptions", "propagationPolicy": "Foreground"})
    waits = c.get(SETS + "/claims")
    tap.check("as Foreground: it waits for its pods", waits.status == 404 or "deletionTimestamp" in waits.json["metadata"], waits)
    tap.check("then both are gone", wait_for(lambda: c.get(SETS + "/claims").status == 404 and not items(c, PODS, "claims")),
              items(c, PODS, "claims"))
    c.post(SETS, rs)
    wait_for(lambda: len(items(c, PODS, "claims")) == 2)
    c.delete(SETS + "/claims", {"kind": "DeleteOptions", "propagationPolicy": "Background"})
    tap.check("as Background: the pods follow", wait_for(lambda: not items(c, PODS, "claims")), items(c, PODS, "claims"))


def test_namespaces(c):
    c.post("/api/v1/namespaces", {"metadata": {"name": "gone"}})
    base = "/api/v1/namespaces/gone"
    tap.check("a namespace gets its ServiceAccount", wait_for(lambda: c.get(base + "/serviceaccounts/default").status == 200))
    c.post(base + "/configmaps", {"metadata": {"name": "a"}, "data": {"k": "v"}})
    c.post("/apis/apps/v1/namespaces/gone/deployments", deployment("inside", 2))
    wait_for(lambda: len([p for p in items(c, base + "/pods") if ready(p)]) == 2)
    c.delete(base)
    tap.check("deleted: everything in it goes, then itself", wait_for(lambda: c.get(base).status == 404), c.get(base))
    left = [k for k in c.get("/api/v1/pods").json["items"] if k["metadata"]["namespace"] == "gone"]
    tap.equal("nothing is left", left, [])


def test_node_dies(c, agent):
    c.post(DEPLOYMENTS, deployment("moves", 4))
    d = {"spec": {"template": {"spec": {"tolerations": [{"key": "node.kubernetes.io/unreachable", "operator": "Exists",
                                                         "effect": "NoExecute", "tolerationSeconds": 1}]}}}}
    c.patch(DEPLOYMENTS + "/moves", d, "strategic")
    wait_for(settled(c, "moves", 4))
    on_it = [p["metadata"]["name"] for p in items(c, PODS, "moves") if p["spec"]["nodeName"] == "big-1"]
    stop(agent, signal.SIGKILL)
    node = lambda: c.get("/api/v1/nodes/big-1").json  # noqa: E731
    tap.check("a node that is silent becomes Unknown", wait_for(lambda: condition(node(), "Ready").get("status") == "Unknown"), node())
    tap.check("gets its taints", wait_for(lambda: {(t["key"], t["effect"]) for t in node()["spec"].get("taints", [])} == {
        ("node.kubernetes.io/unreachable", "NoSchedule"), ("node.kubernetes.io/unreachable", "NoExecute")}), node())
    tap.check("and its pods are replaced", on_it and wait_for(
        lambda: len([p for p in items(c, PODS, "moves") if ready(p) and p["spec"].get("nodeName") != "big-1"]) == 4), items(c, PODS, "moves"))
    agent = start(c, "agent", "--node-name", "big-1", "--cpu", "100", *LEASE)
    tap.check("back again: Ready, without taints", wait_for(
        lambda: condition(node(), "Ready").get("status") == "True" and not node()["spec"].get("taints")), node())
    tap.check("what was to be deleted there is gone", wait_for(lambda: len(items(c, PODS, "moves")) == 4), items(c, PODS, "moves"))
    return agent


def test_failover(c, leaders, agents):
    # one after the other: a controller manager that says goodbye, and one that does not
    for how, name in ((signal.SIGTERM, "terminated"), (signal.SIGKILL, "killed")):
        for p in leaders:
            holder = c.get("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-controller-manager").json["spec"]["holderIdentity"]
            if p.poll() is None and "_%d_" % p.pid in holder:
                t0 = time.time()
                code = stop(p, how)
                if how == signal.SIGTERM:
                    tap.equal("a leader that is %s ends cleanly" % name, code, 0)
                    leaders.append(start(c, "controllers", *CONTROLLERS))
                n = 2 if how == signal.SIGTERM else 3
                c.patch(DEPLOYMENTS + "/moves", {"spec": {"replicas": n}})
                tap.check("another takes over from one that was %s" % name, wait_for(settled(c, "moves", n)))
                print("# after %.1f s" % (time.time() - t0))
                break
    before = {p["metadata"]["name"]: p["metadata"]["resourceVersion"] for p in items(c, PODS) if ready(p)}
    stop(agents[0])
    agents[0] = start(c, "agent", *AGENT)
    wait_for(lambda: "registered node=node-3" in open(agents[0].log).read())
    time.sleep(0.3)
    after = {p["metadata"]["name"]: p["metadata"]["resourceVersion"] for p in items(c, PODS) if ready(p)}
    tap.equal("an agent that was restarted adopts its pods as they are", after, before)


def test_member_dies(c):
    c.post(DEPLOYMENTS, deployment("holds", 10))
    wait_for(settled(c, "holds", 10))
    leader = next((i for i in range(3) if member_leads(c, i)), 0)
    c.kill(leader)
    t0 = time.time()
    alive = up(c)
    wait_for(lambda: c.patch(DEPLOYMENTS + "/holds", {"spec": {"replicas": 30}}, member=alive).status == 200, step=0.1)
    tap.check("the leading server is killed: work goes on", wait_for(settled(c, "holds", 30)), items(c, PODS, "holds"))
    print("# 30 pods ready %.1f s after the kill" % (time.time() - t0))
    c.start(leader)
    c.wait_ready()


def member_leads(c, i):
    with open(os.path.join(c.dir, "m%d.log" % i)) as f:
        lines = [line for line in f if "leader changed" in line]
    return bool(lines) and "self=1" in lines[-1]


def test_thousand(c):
    many = start(c, "agent", "--hollow-nodes", "100", "--name-prefix", "many-", "--node-labels", "many=yes")
    tap.check("100 nodes in one process", wait_for(lambda: len(items(c, "/api/v1/nodes?labelSelector=many%3Dyes")) == 100 and all(
        condition(n, "Ready").get("status") == "True" for n in items(c, "/api/v1/nodes?labelSelector=many%3Dyes"))))
    d = deployment("thousand", 1000)
    d["spec"]["template"]["spec"]["nodeSelector"] = {"many": "yes"}
    t0 = time.time()
    c.post(DEPLOYMENTS, d)
    ok = wait_for(lambda: c.get(DEPLOYMENTS + "/thousand").json.get("status", {}).get("readyReplicas") == 1000, 300)
    print("# 1,000 pods on 100 nodes ready after %.2f s" % (time.time() - t0))
    tap.check("1,000 pods run on 100 nodes", ok, c.get(DEPLOYMENTS + "/thousand"))
    counts = {}
    for p in items(c, PODS, "thousand"):
        counts[p["spec"]["nodeName"]] = counts.get(p["spec"]["nodeName"], 0) + 1
    tap.equal("ten on each", (min(counts.values()), max(counts.values()), len(counts)), (10, 10, 100))
    c.delete(DEPLOYMENTS + "/thousand", {"kind": "DeleteOptions", "propagationPolicy": "Background"})
    tap.check("and go again", wait_for(lambda: not items(c, PODS, "thousand"), 300), len(items(c, PODS, "thousand")))
    return many


LEASE = ("--node-lease-period", "500ms", "--node-lease-duration", "4s")
AGENT = ("--hollow-nodes", "3", "--name-prefix", "node-") + LEASE
ELECT = ("--leader-elect-lease-duration", "4s", "--leader-elect-renew-deadline", "3s", "--leader-elect-retry-period", "500ms")
CONTROLLERS = ("--node-monitor-grace-period", "4s", "--node-monitor-period", "200ms", "--node-eviction-rate", "10") + ELECT

test_programs()
cluster = Cluster(3)
config = write_config(cluster)
try:
    schedulers = [start(cluster, "scheduler", *ELECT) for _ in range(2)]
    managers = [start(cluster, "controllers", *CONTROLLERS) for _ in range(2)]
    agents = [start(cluster, "agent", *AGENT)]
    tap.check("three nodes are Ready", wait_for(lambda: len([n for n in items(cluster, "/api/v1/nodes") if condition(n, "Ready").get(
        "status") == "True"]) == 3), items(cluster, "/api/v1/nodes"))
    test_deployment(cluster)
    test_rollout(cluster)
    test_slices(cluster)
    test_stuck(cluster)
    big = test_scheduling(cluster)
    stop(big)
    big = start(cluster, "agent", "--node-name", "big-1", "--cpu", "100", *LEASE)
    test_lives(cluster)
    test_claims(cluster)
    test_namespaces(cluster)
    big = test_node_dies(cluster, big)
    test_failover(cluster, managers, agents)
    # From here on no node falls silent on purpose, and a slow machine must not make one: the usual patience.
    for p in programs:
        if "-controllers." in p.log:
            stop(p)
    start(cluster, "controllers", *ELECT)
    test_thousand(cluster)
    test_member_dies(cluster)
    codes = [stop(p) for p in programs if p.poll() is None]
    tap.check("all programs end cleanly", codes and all(code == 0 for code in codes), codes)
    bugs = [line for p in programs for line in open(p.log, errors="replace") if "bug:" in line or "ERROR:" in line or "runtime error" in line]
    tap.equal("no bug was logged", bugs[:5], [])
finally:
    for p in programs:
        if p.poll() is None:
            p.kill()
            p.wait()
tap.done()
