#!/usr/bin/env python3
"""The Kubernetes API over the wire: objects, conflicts, patches, deletion, lists, watches, allocation, errors."""
import base64
import json
import os
import threading
import time

from kube_cluster import Cluster, Tap, wait_for

tap = Tap()
c = Cluster()
CM = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
SVC = "/api/v1/namespaces/default/services"
DEPLOY = "/apis/apps/v1/namespaces/default/deployments"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
NS = "/api/v1/namespaces"
TABLE = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}


def cm(name, labels=None, **data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels or {}}, "data": data}


def pod(name, node=None, **meta):
    p = {"apiVersion": "v1", "kind": "Pod", "metadata": dict({"name": name}, **meta),
         "spec": {"containers": [{"name": "c", "image": "nginx"}]}}
    if node:
        p["spec"]["nodeName"] = node
    return p


def deployment(name, replicas=2):
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
                     "template": {"metadata": {"labels": {"app": name}},
                                  "spec": {"containers": [{"name": "c", "image": "nginx"}]}}}}


def status_is(name, r, code, reason, message=None):
    ok = r.status == code and r.json.get("kind") == "Status" and r.json.get("reason") == reason
    ok = ok and r.json.get("status") == "Failure" and r.json.get("code") == code
    if message is not None:
        ok = ok and message in r.json.get("message", "")
    return tap.check(name, ok, r)


def authentication():
    status_is("no credentials: 401", c.get(CM, cert=None), 401, "Unauthorized", "Unauthorized")
    status_is("a wrong token: 401", c.get(CM, cert=None, headers={"Authorization": "Bearer nope"}), 401, "Unauthorized")
    tap.equal("a token of the file", c.get(CM, cert=None, headers={"Authorization": "Bearer secret-token"}).status, 200)
    for path in ("/healthz", "/livez", "/readyz", "/version"):
        tap.equal("%s for anybody" % path, c.get(path, cert=None).status, 200)
    tap.equal("anonymous sees no discovery", c.get("/api", cert=None).status, 401)
    r = c.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
               {"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}})
    tap.check("access review", r.status == 201 and r.json["status"]["allowed"] is True, r)
    r = c.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", {})
    tap.check("who am I", r.status == 201 and r.json["status"]["userInfo"]["username"] == "admin" and
              "system:masters" in r.json["status"]["userInfo"]["groups"], r)


def create_read():
    r = c.post(CM, cm("a", {"x": "1"}, k="v"))
    o = r.json
    tap.check("create: 201 with uid, time, version", r.status == 201 and len(o["metadata"]["uid"]) == 36 and
              o["metadata"]["resourceVersion"].isdigit() and o["metadata"]["creationTimestamp"].endswith("Z"), r)
    got = c.get(CM + "/a")
    tap.equal("get answers what create answered", got.json, o)
    tap.check("kind and apiVersion are there", got.json["kind"] == "ConfigMap" and got.json["apiVersion"] == "v1")
    status_is("again: AlreadyExists", c.post(CM, cm("a")), 409, "AlreadyExists", 'configmaps "a" already exists')
    status_is("get of nothing", c.get(CM + "/none"), 404, "NotFound", 'configmaps "none" not found')
    r = c.get(CM + "/none")
    tap.equal("details name it", r.json["details"], {"name": "none", "kind": "configmaps"})
    status_is("a group in the name", c.get(DEPLOY + "/none"), 404, "NotFound", 'deployments.apps "none" not found')
    status_is("no such namespace", c.post(NS + "/nowhere/configmaps", cm("a")), 404, "NotFound", 'namespaces "nowhere" not found')
    names = {c.post(CM, {"metadata": {"generateName": "gen-"}}).json["metadata"]["name"] for _ in range(20)}
    tap.check("generateName", len(names) == 20 and all(len(n) == 9 for n in names), names)
    r = c.post(CM, {"metadata": {}})
    status_is("no name: 422", r, 422, "Invalid", "name or generateName is required")
    r = c.post(CM, cm("Bad_Name"))
    status_is("a bad name: 422", r, 422, "Invalid", 'ConfigMap "Bad_Name" is invalid: metadata.name: Invalid value')
    tap.check("with a cause", r.json["details"]["causes"][0]["field"] == "metadata.name", r)
    status_is("the wrong kind", c.post(CM, pod("p")), 400, "BadRequest")
    status_is("the wrong version", c.post(CM, dict(cm("z"), apiVersion="v2")), 400, "BadRequest",
              "the API version in the data (v2) does not match the expected API version (v1)")
    status_is("broken JSON", c.request("POST", CM, "{", {"Content-Type": "application/json"}), 400, "BadRequest")
    status_is("an empty body", c.request("POST", CM, "", {"Content-Type": "application/json"}), 400, "BadRequest")
    status_is("a namespace that does not match", c.post(CM, {"metadata": {"name": "q", "namespace": "kube-system"}}), 400,
              "BadRequest", "the namespace of the provided object does not match the namespace sent on the request")
    status_is("CBOR: 415", c.request("POST", CM, b"k8s\0", {"Content-Type": "application/cbor"}), 415, "UnsupportedMediaType")
    proto = {"Content-Type": "application/vnd.kubernetes.protobuf"}
    status_is("protobuf that is cut", c.request("POST", CM, b"k8s\0\x0a\x05", proto), 400, "BadRequest", "malformed protobuf")
    body = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x0f\x0a\x04\x0a\x02pb\x12\x07\x0a\x01k\x12\x02vv"
    r = c.request("POST", CM, body, proto)
    tap.check("a protobuf body", r.status == 201 and r.json["data"] == {"k": "vv"} and r.json["metadata"]["name"] == "pb", r)
    r = c.request("POST", CM, "metadata:\n  name: from-yaml\ndata:\n  on: 'yes'\n", {"Content-Type": "application/yaml"})
    tap.check("a YAML body", r.status == 201 and r.json["data"] == {"on": "yes"}, r)
    r = c.get(CM + "/a?pretty=true")
    tap.check("pretty", "\n  \"metadata\"" in r.body and r.json == o, r)
    status_is("3 MiB is the limit", c.post(CM, cm("big", None, x="y" * (3 << 20))), 413, "RequestEntityTooLarge")
    s = c.post("/api/v1/namespaces/default/secrets", {"metadata": {"name": "s"}, "stringData": {"p": "hunter2"}}).json
    tap.check("stringData becomes data", s["data"] == {"p": base64.b64encode(b"hunter2").decode()} and "stringData" not in s, s)


def validation():
    body = dict(cm("strict"), spek={"a": 1})
    r = c.post(CM + "?fieldValidation=Strict", body)
    status_is("Strict: 400", r, 400, "BadRequest", 'strict decoding error: unknown field "spek"')
    r = c.post(CM + "?fieldValidation=Warn&dryRun=All", body)
    tap.check("Warn: a header", r.status == 201 and 'unknown field \\"spek\\"' in (r.headers.get("Warning") or ""), r.headers)
    r = c.post(CM + "?fieldValidation=Ignore&dryRun=All", body)
    tap.check("Ignore: silence", r.status == 201 and not r.headers.get("Warning") and "spek" not in r.json, r)
    tap.equal("a dry run writes nothing", c.get(CM + "/strict").status, 404)
    status_is("a dry run sees what is there", c.post(CM + "?dryRun=All", cm("a")), 409, "AlreadyExists")
    status_is("dryRun=Some", c.post(CM + "?dryRun=Some", cm("b")), 422, "Invalid")
    r = c.post(PODS, {"metadata": {"name": "x"}, "spec": {"containers": "none"}})
    status_is("a field of the wrong type", r, 400, "BadRequest", "cannot be handled as a Pod")
    r = c.post(PODS, {"metadata": {"name": "x"}, "spec": {"containers": []}})
    status_is("a pod without containers", r, 422, "Invalid", "spec.containers")


def updates():
    o = c.post(CM, cm("u", None, n="0")).json
    stale = json.loads(json.dumps(o))
    o["data"]["n"] = "1"
    r = c.put(CM + "/u", o)
    tap.check("update", r.status == 200 and r.json["data"]["n"] == "1" and
              r.json["metadata"]["resourceVersion"] != stale["metadata"]["resourceVersion"], r)
    stale["data"]["n"] = "2"
    status_is("a stale update", c.put(CM + "/u", stale), 409, "Conflict", 'Operation cannot be fulfilled on configmaps "u": the '
              "object has been modified; please apply your changes to the latest version and try again")
    r2 = c.put(CM + "/u", r.json)
    tap.equal("an update that changes nothing writes nothing", r2.json["metadata"]["resourceVersion"],
              r.json["metadata"]["resourceVersion"])
    r = c.put(CM + "/u", cm("u", None, n="3"))
    tap.check("unconditional", r.status == 200 and r.json["metadata"]["uid"] == o["metadata"]["uid"], r)
    status_is("another uid", c.put(CM + "/u", {"metadata": {"name": "u", "uid": "x"}}), 409, "Conflict", "Precondition failed: UID")
    status_is("another name", c.put(CM + "/u", cm("v")), 400, "BadRequest", "the name of the object (v) does not match the name on the URL (u)")
    status_is("update of nothing", c.put(CM + "/none", cm("none")), 404, "NotFound")
    lease = {"metadata": {"name": "l"}, "spec": {"holderIdentity": "me"}}
    gone = c.post(LEASES, lease).json
    c.delete(LEASES + "/l")
    for kept in (("uid", "resourceVersion"), ("uid",)):
        meta = dict({k: gone["metadata"][k] for k in kept}, name="l")
        status_is("an update of one that was deleted, by its " + " and ".join(kept), c.put(LEASES + "/l", dict(lease, metadata=meta)), 409, "Conflict",
                  "Precondition failed: UID in precondition: %s, UID in object meta: " % gone["metadata"]["uid"])
    tap.equal("a lease may be created by PUT", c.put(LEASES + "/l", lease).status, 201)
    status_is("and must carry its version then", c.put(LEASES + "/l", lease), 422, "Invalid", "must be specified for an update")


def generations():
    d = c.post(DEPLOY, deployment("gen")).json
    tap.check("a deployment starts at generation 1, status empty", d["metadata"]["generation"] == 1 and d["status"] == {}, d)
    d["spec"]["replicas"] = 3
    d["status"] = {"replicas": 77}
    d = c.put(DEPLOY + "/gen", d).json
    tap.check("spec counts, status is not taken", d["metadata"]["generation"] == 2 and d["status"] == {}, d)
    d["spec"]["replicas"] = 9
    d["status"] = {"replicas": 3, "observedGeneration": 2}
    s = c.put(DEPLOY + "/gen/status", d).json
    tap.check("/status takes the status alone", s["spec"]["replicas"] == 3 and s["status"]["replicas"] == 3 and
              s["metadata"]["generation"] == 2, s)
    scale = c.get(DEPLOY + "/gen/scale").json
    tap.check("scale", scale["kind"] == "Scale" and scale["spec"]["replicas"] == 3 and scale["status"]["selector"] == "app=gen", scale)
    scale["spec"]["replicas"] = 5
    tap.equal("scale by PUT", c.put(DEPLOY + "/gen/scale", scale).json["spec"]["replicas"], 5)
    status_is("a stale scale", c.put(DEPLOY + "/gen/scale", scale), 409, "Conflict")
    tap.equal("scale by PATCH", c.patch(DEPLOY + "/gen/scale", {"spec": {"replicas": 0}}).json["spec"]["replicas"], 0)
    tap.equal("the deployment has it", c.get(DEPLOY + "/gen").json["spec"]["replicas"], 0)
    status_is("a negative scale", c.patch(DEPLOY + "/gen/scale", {"spec": {"replicas": -1}}), 422, "Invalid",
              "must be greater than or equal to 0")


def patches():
    c.post(CM, cm("p", {"a": "1"}, x="1", y="2"))
    r = c.patch(CM + "/p", {"data": {"x": None, "z": "3"}})
    tap.equal("merge patch", r.json["data"], {"y": "2", "z": "3"})
    r = c.patch(CM + "/p", [{"op": "test", "path": "/data/y", "value": "2"}, {"op": "replace", "path": "/data/y", "value": "9"},
                            {"op": "add", "path": "/metadata/annotations", "value": {"k/1": "v"}},
                            {"op": "remove", "path": "/metadata/annotations/k~11"}], "json")
    tap.check("JSON patch", r.status == 200 and r.json["data"]["y"] == "9", r)
    r = c.patch(CM + "/p", [{"op": "test", "path": "/data/y", "value": "2"}], "json")
    status_is("a test that fails", r, 422, "Invalid", "the server rejected our request due to an error in our request")
    status_is("a patch that is none", c.patch(CM + "/p", {"op": "x"}, "json"), 400, "BadRequest")
    status_is("a path without a parent", c.patch(CM + "/p", [{"op": "add", "path": "/no/where", "value": 1}], "json"), 422, "Invalid")
    r = c.patch(CM + "/p", {"metadata": {"labels": {"b": "2"}}}, "strategic")
    tap.equal("strategic patch", r.json["metadata"]["labels"], {"a": "1", "b": "2"})
    status_is("apply patch: 415", c.patch(CM + "/p", {}, "application/apply-patch+yaml"), 415, "UnsupportedMediaType", "server-side apply")
    status_is("patch of nothing", c.patch(CM + "/none", {"data": {}}), 404, "NotFound")
    status_is("a version in a patch is a condition", c.patch(CM + "/p", {"metadata": {"resourceVersion": "1"}, "data": {"q": "1"}}), 409, "Conflict")
    before = c.get(CM + "/p").json["metadata"]["resourceVersion"]
    tap.equal("a patch that changes nothing", c.patch(CM + "/p", {"data": {"z": "3"}}).json["metadata"]["resourceVersion"], before)
    status_is("the name cannot be patched", c.patch(CM + "/p", {"metadata": {"name": "q"}}), 400, "BadRequest")

    done = []

    def add(i):
        done.append(c.patch(CM + "/p", {"data": {"t%d" % i: "x"}}).status)
    threads = [threading.Thread(target=add, args=(i,)) for i in range(12)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    data = c.get(CM + "/p").json["data"]
    tap.check("patches at the same time all arrive", done == [200] * 12 and all("t%d" % i in data for i in range(12)), (done, data))
    d = c.post(DEPLOY, deployment("strat")).json
    r = c.patch(DEPLOY + "/strat", {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "httpd"}, {"name": "d", "image": "x"}]}}}}, "strategic")
    names = {k["name"]: k["image"] for k in r.json["spec"]["template"]["spec"]["containers"]} if r.status == 200 else r
    tap.equal("containers merge by name", names, {"c": "httpd", "d": "x"})


def deletion():
    c.post(CM, cm("d"))
    uid = c.get(CM + "/d").json["metadata"]["uid"]
    status_is("a uid that is not its", c.delete(CM + "/d", {"preconditions": {"uid": "x"}}), 409, "Conflict", "UID in the precondition")
    tap.equal("a dry run", (c.delete(CM + "/d?dryRun=All").status, c.get(CM + "/d").status), (200, 200))
    for bad in ({"dryRun": "All"}, {"dryRun": {"a": "All"}}, {"dryRun": [1]}, {"preconditions": []}, {"preconditions": {"uid": 5}},
                {"preconditions": {"resourceVersion": 1}}, {"propagationPolicy": 1}, {"orphanDependents": "yes"}, {"gracePeriodSeconds": "1"}):
        status_is("no options: %s" % json.dumps(bad), c.delete(CM + "/d", bad), 400, "BadRequest", " must be a")
        c.post(CM, cm("d"))
    status_is("an empty condition is one", c.delete(CM + "/d", {"preconditions": {"resourceVersion": ""}}), 409, "Conflict")
    status_is("for the uid as well", c.delete(CM + "/d", {"preconditions": {"uid": ""}}), 409, "Conflict")
    nulls = {"preconditions": {"uid": None, "resourceVersion": None}, "propagationPolicy": None, "orphanDependents": None, "gracePeriodSeconds": None}
    r = c.delete(CM + "/d", dict(nulls, dryRun=["All"]))
    tap.equal("a dry run in the body, and nulls", (r.status, c.get(CM + "/d").json["metadata"]["uid"]), (200, uid))
    r = c.delete(CM + "/d", {"preconditions": {"uid": uid}})
    tap.check("delete: Success with details", r.status == 200 and r.json["status"] == "Success" and
              r.json["details"] == {"name": "d", "kind": "configmaps", "uid": uid}, r)
    status_is("and again", c.delete(CM + "/d"), 404, "NotFound")
    c.post(CM, {"metadata": {"name": "f", "finalizers": ["test/x"]}})
    r = c.delete(CM + "/f")
    tap.check("a finalizer keeps it", r.status == 200 and r.json["metadata"]["deletionTimestamp"] and
              r.json["metadata"]["deletionGracePeriodSeconds"] == 0, r)
    tap.check("it cannot be un-deleted", "deletionTimestamp" in c.patch(CM + "/f", {"metadata": {"deletionTimestamp": None}}).json["metadata"])
    status_is("nor held by others", c.patch(CM + "/f", {"metadata": {"finalizers": ["test/x", "x.io/b"]}}), 422, "Invalid",
              'metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{"x.io/b"}')
    r = c.patch(CM + "/f", {"metadata": {"finalizers": None}})
    tap.equal("the last finalizer gone, so is it", (r.status, c.get(CM + "/f").status), (200, 404))
    c.post(CM, cm("o"))
    r = c.delete(CM + "/o", {"propagationPolicy": "Orphan"})
    tap.equal("orphan is a finalizer", r.json["metadata"]["finalizers"], ["orphan"])
    c.post(CM, cm("fg"))
    r = c.delete(CM + "/fg?propagationPolicy=Foreground")
    tap.equal("foreground too", r.json["metadata"]["finalizers"], ["foregroundDeletion"])
    status_is("no such policy", c.delete(CM + "/fg", {"propagationPolicy": "Sideways"}), 422, "Invalid")
    for n in ("o", "fg"):
        c.patch(CM + "/" + n, {"metadata": {"finalizers": None}})
    for i in range(130):
        c.post(CM, cm("dc-%d" % i, {"dc": str(i % 2)}))
    r = c.delete(CM + "?labelSelector=dc%3D1")
    left = c.get(CM + "?labelSelector=dc").json["items"]
    tap.check("deletecollection by label", r.status == 200 and len(left) == 65 and all(i["metadata"]["labels"]["dc"] == "0" for i in left), (r, len(left)))
    c.delete(CM + "?labelSelector=dc")
    tap.equal("and the rest", c.get(CM + "?labelSelector=dc").json["items"], [])


def pods():
    p = c.post(PODS, pod("web")).json
    tap.check("a pod's defaults", p["status"] == {"phase": "Pending", "qosClass": "BestEffort"} and
              p["spec"]["serviceAccountName"] == "default" and p["spec"]["priority"] == 0 and
              sorted(t["key"] for t in p["spec"]["tolerations"]) == ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"], p)
    bind = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "web"}, "target": {"kind": "Node", "name": "n1"}}
    for what, code, bad in (
            ("an annotation that is no text", 400, {"metadata": {"annotations": {"x": {"a": [1]}}}}),
            ("a uid that is no text", 400, {"metadata": {"uid": 5}}),
            ("another name", 400, {"metadata": {"name": "other"}}), ("another namespace", 400, {"metadata": {"namespace": "kube-system"}}),
            ("an annotation's bad key", 422, {"metadata": {"annotations": {"bad key !": "7"}}}),
            ("a node of no possible name", 422, {"target": {"name": "../Bad Name\n"}})):
        status_is("binding with " + what, c.post(PODS + "/web/binding", dict(bind, **bad)), code, "BadRequest" if code == 400 else "Invalid")
    tap.check("none of them bound it", "nodeName" not in c.get(PODS + "/web").json["spec"])
    bind["metadata"]["annotations"] = {"a/b": "c"}
    r = c.post(PODS + "/web/binding", bind)
    tap.check("binding", r.status == 201 and r.json["status"] == "Success", r)
    p = c.get(PODS + "/web").json
    tap.check("the pod is on its node", p["spec"]["nodeName"] == "n1" and p["metadata"]["annotations"] == {"a/b": "c"} and
              [x["status"] for x in p["status"]["conditions"] if x["type"] == "PodScheduled"] == ["True"], p)
    status_is("a second binding", c.post(PODS + "/web/binding", bind), 409, "Conflict", 'pod web is already assigned to node "n1"')
    status_is("binding of nothing", c.post(PODS + "/none/binding", dict(bind, metadata={"name": "none"})), 404, "NotFound")
    p["status"]["phase"] = "Running"
    p["spec"]["nodeName"] = "n2"
    s = c.put(PODS + "/web/status", p).json
    tap.check("pod status", s["status"]["phase"] == "Running" and s["spec"]["nodeName"] == "n1", s)
    r = c.delete(PODS + "/web", {"gracePeriodSeconds": 20})
    tap.check("graceful: marked", r.status == 200 and r.json["metadata"]["deletionGracePeriodSeconds"] == 20 and
              r.json["metadata"]["deletionTimestamp"], r)
    r = c.delete(PODS + "/web", {"gracePeriodSeconds": 60})
    tap.equal("never longer", r.json["metadata"]["deletionGracePeriodSeconds"], 20)
    r = c.delete(PODS + "/web", {"gracePeriodSeconds": 5})
    tap.equal("shorter is fine", r.json["metadata"]["deletionGracePeriodSeconds"], 5)
    r = c.delete(PODS + "/web", {"gracePeriodSeconds": 0})
    tap.equal("0 is now", (r.status, c.get(PODS + "/web").status), (200, 404))
    most, this_year = 2 ** 63 - 1, time.gmtime().tm_year
    c.post(PODS, pod("longest", "n1"))
    c.post(PODS, dict(pod("longer"), spec=dict(pod("longer", "n1")["spec"], terminationGracePeriodSeconds=most)))
    for name, asked in (("longest", "?gracePeriodSeconds=%d" % most), ("longer", "")):
        m = c.delete(PODS + "/" + name + asked).json["metadata"]
        when = time.strptime(m.get("deletionTimestamp", ""), "%Y-%m-%dT%H:%M:%SZ")
        tap.check("no end of grace, %s: a time that can be told" % name, m["deletionGracePeriodSeconds"] == 2 ** 31 - 1 and
                  67 <= when.tm_year - this_year <= 69, m)
        m = c.delete(PODS + "/" + name, {"gracePeriodSeconds": 60}).json["metadata"]
        tap.check("and that can be shortened", m["deletionGracePeriodSeconds"] == 60 and
                  0 <= time.strptime(m["deletionTimestamp"], "%Y-%m-%dT%H:%M:%SZ").tm_year - this_year <= 1, m)
        c.delete(PODS + "/" + name, {"gracePeriodSeconds": 0})
    c.post(PODS, pod("unbound"))
    r = c.delete(PODS + "/unbound")
    tap.check("a pod that no agent has goes at once", r.json["kind"] == "Pod" and c.get(PODS + "/unbound").status == 404, r)
    c.post(PODS, pod("evictee"))
    r = c.post(PODS + "/evictee/eviction", {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "evictee"}, "deleteOptions": None})
    tap.equal("eviction", (r.status, c.get(PODS + "/evictee").status), (201, 404))
    q = pod("q")
    q["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"cpu": "0.1", "memory": "1024Mi"}}
    tap.equal("QoS Guaranteed", c.post(PODS + "?dryRun=All", q).json["status"]["qosClass"], "Guaranteed")


def svc(name, **spec):
    return {"metadata": {"name": name}, "spec": dict({"ports": [{"port": 80}], "selector": {"a": "b"}}, **spec)}


def services():
    k = c.get(SVC + "/kubernetes").json
    tap.equal("the kubernetes service", k["spec"]["clusterIP"], "10.96.0.1")
    status_is("its address is taken", c.post(SVC, svc("x", clusterIP="10.96.0.1")), 422, "Invalid", "provided IP is already allocated")
    status_is("an address outside", c.post(SVC, svc("x", clusterIP="10.1.0.1")), 422, "Invalid", "not in the valid range")
    made = [c.post(SVC, svc("s%d" % i)).json for i in range(20)]
    ips = {s["spec"]["clusterIP"] for s in made}
    tap.check("addresses are unique and inside", len(ips) == 20 and all(i.split(".")[0] == "10" and 96 <= int(i.split(".")[1]) < 112 for i in ips), ips)
    s = made[0]
    ip = s["spec"]["clusterIP"]
    del s["spec"]["clusterIP"], s["spec"]["clusterIPs"]
    r = c.put(SVC + "/s0", s)
    tap.equal("an update keeps the address", r.json["spec"]["clusterIP"], ip)
    status_is("which may not change", c.patch(SVC + "/s0", {"spec": {"clusterIP": "10.96.9.9", "clusterIPs": ["10.96.9.9"]}}), 422, "Invalid", "may not change once set")
    c.delete(SVC + "/s0")
    r = c.post(SVC, svc("again", clusterIP=ip))
    tap.check("a deleted service gives it back", r.status == 201 and r.json["spec"]["clusterIP"] == ip, r)
    r = c.post(SVC, svc("headless", clusterIP="None"))
    tap.equal("headless", r.json["spec"]["clusterIP"], "None")
    r = c.post(SVC, svc("np", type="NodePort"))
    port = r.json["spec"]["ports"][0].get("nodePort")
    tap.check("a node port", port and 30000 <= port <= 32767, r)
    status_is("that is taken too", c.post(SVC, svc("np2", type="NodePort", ports=[{"port": 1, "nodePort": port}])), 422, "Invalid", "provided port is already allocated")
    status_is("out of range", c.post(SVC, svc("np2", type="NodePort", ports=[{"port": 1, "nodePort": 80}])), 422, "Invalid", "not in the valid range")
    every = [{"name": "p%d" % i, "port": 2 + i, "nodePort": 30000 + i} for i in range(2768)]
    status_is("a port to draw, and every one is named", c.post(SVC, svc("np2", type="NodePort", ports=[{"name": "a", "port": 1}] + every)),
              500, "InternalError", "no node port is left")
    c.patch(SVC + "/np", {"spec": {"type": "ClusterIP"}})
    r = c.post(SVC, svc("np2", type="NodePort", ports=[{"port": 1, "nodePort": port}]))
    tap.equal("given back by a change of type", r.status, 201)
    lb = dict(type="LoadBalancer", allocateLoadBalancerNodePorts=False)
    taken = svc("lb", ports=[{"port": 1, "nodePort": port}], **lb)
    status_is("a balancer that draws no ports takes nobody's either", c.post(SVC, taken), 422, "Invalid", "provided port is already allocated")
    r = c.post(SVC, svc("lb", **lb))
    tap.check("and has none", r.status == 201 and "nodePort" not in r.json["spec"]["ports"][0], r)
    r = c.patch(SVC + "/lb", {"spec": {"ports": [{"port": 80, "nodePort": 30123}]}})
    tap.equal("but for one that is given", (r.status, r.json.get("spec", r.json).get("ports", [{}])[0].get("nodePort")), (200, 30123))
    other = svc("np3", type="NodePort", ports=[{"port": 1, "nodePort": 30123}])
    status_is("which is its own", c.post(SVC, other), 422, "Invalid", "provided port is already allocated")
    c.delete(SVC + "/lb")
    tap.equal("until it goes", c.post(SVC, other).status, 201)
    r = c.patch(SVC + "/np3", {"spec": lb})
    tap.equal("a node port that stays when no more are drawn", (r.status, r.json["spec"]["ports"][0].get("nodePort")), (200, 30123))
    again = svc("np4", type="NodePort", ports=[{"port": 1, "nodePort": 30123}])
    status_is("stays its own", c.post(SVC, again), 422, "Invalid", "provided port is already allocated")
    c.patch(SVC + "/np3", {"spec": {"ports": [{"port": 1}]}})
    tap.equal("and goes when it is left out", c.post(SVC, again).status, 201)
    for i, spec in enumerate(({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30125}]}, {"type": "ClusterIP"},
                              {"type": "ExternalName", "externalName": "x.example", "clusterIP": None, "clusterIPs": None})):
        held = svc("held", type="NodePort", clusterIP="10.96.0.77", ports=[{"port": 1, "nodePort": 30124}])
        held["metadata"]["finalizers"] = ["test/x"]
        tap.equal("a service that is held, %d: all it had is free" % i, c.post(SVC, held).status, 201)
        c.delete(SVC + "/held")
        r = c.patch(SVC + "/held", {"metadata": {"finalizers": None}, "spec": spec})
        tap.equal("let go of and changed at once: it goes", (r.status, c.get(SVC + "/held").status), (200, 404))
    tap.equal("nor is anything of it kept", c.post(SVC, svc("np5", type="NodePort", clusterIP="10.96.0.77", ports=[
        {"name": "a", "port": 1, "nodePort": 30124}, {"name": "b", "port": 2, "nodePort": 30125}])).status, 201)


def namespaces():
    n = c.post(NS, {"metadata": {"name": "t1"}}).json
    tap.check("a namespace", n["status"]["phase"] == "Active" and n["spec"]["finalizers"] == ["kubernetes"] and
              n["metadata"]["labels"]["kubernetes.io/metadata.name"] == "t1", n)
    c.post(NS + "/t1/configmaps", cm("in"))
    r = c.delete(NS + "/t1")
    tap.check("deleted: Terminating", r.status == 200 and r.json["status"]["phase"] == "Terminating", r)
    r = c.post(NS + "/t1/configmaps", cm("late"))
    status_is("takes nothing more", r, 403, "Forbidden", 'configmaps "late" is forbidden: unable to create new content in namespace t1 because it is being terminated')
    tap.equal("and says why", r.json["details"]["causes"][0]["reason"], "NamespaceTerminating")
    n = c.get(NS + "/t1").json
    n["spec"]["finalizers"] = []
    r = c.put(NS + "/t1/finalize", n)
    tap.equal("finalized, it is gone", (r.status, c.get(NS + "/t1").status), (200, 404))
    c.post(NS, {"metadata": {"name": "t2"}})
    status_is("not all at once", c.delete(NS), 405, "MethodNotAllowed")
    tap.equal("none went", c.get(NS + "/t2").json["status"]["phase"], "Active")
    status_is("default stays", c.delete(NS + "/default"), 403, "Forbidden", "this namespace may not be deleted")


def lists():
    for i in range(25):
        c.post(CM, cm("l-%02d" % i, {"l": "y", "odd": str(i % 2)}))
    everything = c.get(CM + "?labelSelector=l").json
    tap.check("list", everything["kind"] == "ConfigMapList" and len(everything["items"]) == 25 and everything["metadata"]["resourceVersion"].isdigit(), everything["metadata"])
    names, token, pages = [], "", 0
    while True:
        r = c.get(CM + "?limit=10&labelSelector=l&continue=" + token).json
        names += [i["metadata"]["name"] for i in r["items"]]
        pages += 1
        token = r["metadata"].get("continue", "")
        if pages == 1:
            c.post(CM, cm("l-zz", {"l": "y"}))
        if not token:
            break
    tap.equal("pages of one revision", (names, pages), ([i["metadata"]["name"] for i in everything["items"]], 3))
    c.delete(CM + "/l-zz")
    r = c.get(CM + "?limit=2").json
    total = len(c.get(CM).json["items"])
    tap.equal("remainingItemCount", r["metadata"]["remainingItemCount"], total - 2)
    tap.equal("a limit that fits exactly", "continue" in c.get(CM + "?limit=%d" % total).json["metadata"], False)
    for sel, n in (("odd=1", 12), ("odd!=1,l", 13), ("odd in (0,1)", 25), ("l,odd notin (0)", 12), ("!l", total - 25), ("l,odd>0", 12)):
        import urllib.parse
        got = len(c.get(CM + "?labelSelector=" + urllib.parse.quote(sel)).json["items"])
        tap.equal("selector %s" % sel, got, n)
    tap.equal("by name", [i["metadata"]["name"] for i in c.get(CM + "?fieldSelector=metadata.name%3Dl-03").json["items"]], ["l-03"])
    tap.equal("all but a name", len(c.get(CM + "?labelSelector=l&fieldSelector=metadata.name!%3Dl-03").json["items"]), 24)
    status_is("a field that cannot be selected", c.get(CM + "?fieldSelector=data.x%3D1"), 400, "BadRequest", "field label not supported: data.x")
    status_is("a bad selector", c.get(CM + "?labelSelector=a%3D%3D%3Db"), 400, "BadRequest", "unable to parse requirement")
    status_is("a made-up token", c.get(CM + "?limit=1&continue=AAAA"), 400, "BadRequest", "continue key is not valid")
    status_is("exact without a version", c.get(CM + "?resourceVersionMatch=Exact"), 422, "Invalid", "resourceVersionMatch is forbidden unless resourceVersion is provided")
    rv = everything["metadata"]["resourceVersion"]
    c.delete(CM + "/l-00")
    r = c.get(CM + "?labelSelector=l&resourceVersionMatch=Exact&resourceVersion=" + rv).json
    tap.equal("exactly then", (len(r["items"]), r["metadata"]["resourceVersion"]), (25, rv))
    tap.equal("0 is any", c.get(CM + "?resourceVersion=0").status, 200)
    r = c.get(CM + "?resourceVersion=99999999")
    tap.check("a version that is yet to come", r.status == 504 and r.json["reason"] == "Timeout" and "Too large resource version" in r.json["message"] and
              r.json["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge", r)
    r = c.get("/api/v1/configmaps?labelSelector=l").json
    tap.equal("of all namespaces", len(r["items"]), 24)
    t = c.get(CM + "?labelSelector=l", headers=TABLE).json
    tap.check("as a Table", t["kind"] == "Table" and len(t["rows"]) == 24 and t["columnDefinitions"][0]["name"] == "Name" and
              t["rows"][0]["object"]["kind"] == "PartialObjectMetadata" and t["rows"][0]["cells"][0] == "l-01", str(t)[:500])
    t = c.get(CM + "/l-01?includeObject=Object", headers=TABLE).json
    tap.check("one as a Table", t["rows"][0]["object"]["kind"] == "ConfigMap", t)
    m = c.get(CM + "?labelSelector=l", headers={"Accept": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"}).json
    tap.check("as metadata alone", m["kind"] == "PartialObjectMetadataList" and "data" not in m["items"][0], m["kind"])


def watches():
    rv = c.get(CM).json["metadata"]["resourceVersion"]
    w = c.watch(CM + "?watch=1&resourceVersion=" + rv)
    c.post(CM, cm("w", {"w": "1"}, v="1"))
    c.patch(CM + "/w", {"data": {"v": "2"}})
    c.delete(CM + "/w")
    ev = w.take(3)
    tap.equal("added, modified, deleted", [e["type"] for e in ev], ["ADDED", "MODIFIED", "DELETED"])
    rvs = [int(e["object"]["metadata"]["resourceVersion"]) for e in ev]
    tap.check("in order, the last state with the deletion's version", rvs == sorted(set(rvs)) and ev[2]["object"]["data"] == {"v": "2"} and
              ev[0]["object"]["kind"] == "ConfigMap", ev)
    w.close()
    w = c.watch(CM + "?watch=1&resourceVersion=" + rv)
    tap.equal("the same from history", w.take(3), ev)
    w.close()
    w = c.watch(CM + "?watch=1&labelSelector=w%3D1&resourceVersion=" + rv)
    c.post(CM, cm("w2", {"w": "1"}))
    c.patch(CM + "/w2", {"metadata": {"labels": {"w": "2"}}})
    c.patch(CM + "/w2", {"metadata": {"labels": {"w": "3"}}})
    c.patch(CM + "/w2", {"metadata": {"labels": {"w": "1"}}})
    c.delete(CM + "/w2")
    got = [(e["type"], e["object"]["metadata"]["labels"]["w"]) for e in w.take(7)]
    tap.equal("in and out of a selector", got[3:], [("ADDED", "1"), ("DELETED", "1"), ("ADDED", "1"), ("DELETED", "1")])
    w.close()
    n = len(c.get(CM).json["items"])
    w = c.watch(CM + "?watch=true")
    ev = w.take(n)
    tap.check("from nothing: what is there first", len(ev) == n and all(e["type"] == "ADDED" for e in ev), len(ev))
    c.post(CM, cm("w3"))
    tap.equal("and then what comes", w.next()["object"]["metadata"]["name"], "w3")
    w.close()
    w = c.watch(CM + "?watch=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan")
    ev = w.take(n + 2)
    tap.check("sendInitialEvents ends with a bookmark", ev[-1]["type"] == "BOOKMARK" and
              ev[-1]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true" and
              [e["type"] for e in ev[:-1]] == ["ADDED"] * (n + 1), ev[-1])
    w.close()
    t0 = time.time()
    w = c.watch(CM + "?watch=1&timeoutSeconds=1&resourceVersion=" + rv)
    while w.next():
        pass
    tap.check("timeoutSeconds", time.time() - t0 < 5)
    w = c.watch(CM + "/w3?watch=1&resourceVersion=" + rv, headers=TABLE)
    e = w.next()
    tap.check("one object, as a Table", e["type"] == "ADDED" and e["object"]["kind"] == "Table" and e["object"]["rows"][0]["cells"][0] == "w3" and
              e["object"]["columnDefinitions"], e)
    c.delete(CM + "/w3")
    e = w.next()
    tap.check("later ones without columns", e["type"] == "DELETED" and not e["object"]["columnDefinitions"], e)
    w.close()
    w = c.watch("/api/v1/watch/namespaces/default/configmaps?resourceVersion=" + rv)
    tap.check("the old /watch/ path", w.next()["type"] == "ADDED")
    w.close()
    status_is("sendInitialEvents needs its match", c.get(CM + "?watch=1&sendInitialEvents=true"), 422, "Invalid")


def errors():
    status_is("no such resource", c.get("/api/v1/flubbers"), 404, "NotFound", "the server could not find the requested resource")
    status_is("no such path", c.get("/nope"), 404, "NotFound")
    status_is("POST to an object", c.post(CM + "/a", cm("a")), 405, "MethodNotAllowed")
    status_is("PUT to a collection", c.put(CM, cm("a")), 405, "MethodNotAllowed")
    status_is("no such subresource", c.get(CM + "/a/status"), 404, "NotFound")
    status_is("a bad escape", c.get(CM + "/a%zz"), 400, "BadRequest")
    status_is("a bad limit", c.get(CM + "?limit=x"), 400, "BadRequest")
    status_is("a path out of the registry", c.get(CM + "/..%2f..%2fsecrets%2fdefault%2fs"), 404, "NotFound")
    status_is("not acceptable", c.get(CM, headers={"Accept": "text/html"}), 406, "NotAcceptable")
    tap.equal("protobuf first still gets JSON", c.get(CM, headers={"Accept": "application/vnd.kubernetes.protobuf, */*"}).headers["Content-Type"], "application/json")
    m = c.get("/metrics").body
    tap.check("metrics count requests", 'apiserver_request_total{verb="create",group="",resource="configmaps",code="201"}' in m, m[:300])


def discovery():
    tap.equal("/api", c.get("/api").json["versions"], ["v1"])
    r = {x["name"]: x for x in c.get("/api/v1").json["resources"]}
    tap.check("/api/v1", "pods" in r and r["pods"]["namespaced"] and "watch" in r["pods"]["verbs"] and "pods/binding" in r and "po" in r["pods"]["shortNames"], list(r))
    tap.check("/apis", {"apps", "coordination.k8s.io"} <= {g["name"] for g in c.get("/apis").json["groups"]})
    tap.equal("/apis/apps", c.get("/apis/apps").json["preferredVersion"]["groupVersion"], "apps/v1")
    tap.check("/apis/apps/v1", "deployments/scale" in {x["name"] for x in c.get("/apis/apps/v1").json["resources"]})
    a = c.get("/apis", headers={"Accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"})
    tap.check("aggregated", a.json["kind"] == "APIGroupDiscoveryList" and "apidiscovery" in a.headers["Content-Type"], a)
    tap.check("OpenAPI v2", "io.k8s.api.core.v1.Pod" in c.get("/openapi/v2").json["definitions"])
    tap.check("OpenAPI v3", "apis/apps/v1" in c.get("/openapi/v3").json["paths"])
    tap.check("OpenAPI v3 of a group", "io.k8s.api.apps.v1.Deployment" in c.get("/openapi/v3/apis/apps/v1").json["components"]["schemas"])


def through_etcd():
    """The same store through etcdctl: the layout, objects written by hand, leases of events, compaction."""
    import shutil
    import subprocess
    etcdctl = os.environ.get("ETCDCTL") or shutil.which("etcdctl")
    if not etcdctl:
        tap.skip("through etcd", "no etcdctl")
        return

    def ctl(*args, stdin=None):
        r = subprocess.run([etcdctl, "--endpoints", "http://127.0.0.1:%d" % c.ports[0]] + list(args), input=stdin, text=True,
                           capture_output=True, timeout=20, env=dict(os.environ, ETCDCTL_API="3"))
        return r.stdout if r.returncode == 0 else "failed: " + r.stderr

    keys = ctl("get", "/registry", "--prefix", "--keys-only").split()
    if not keys or keys[0] == "failed:":
        tap.skip("through etcd", "this server has no etcd API")
        return
    tap.check("the layout that Kubernetes people know", {"/registry/namespaces/default", "/registry/services/specs/default/kubernetes",
              "/registry/services/endpoints/default/kubernetes", "/registry/configmaps/default/a"} <= set(keys), keys)
    ctl("put", "/registry/configmaps/default/by-hand", '{"apiVersion":"v1","metadata":{"name":"by-hand","namespace":"default"},"data":{"x":"y"},"kind":"ConfigMap"}')
    r = c.get(CM + "/by-hand")
    tap.check("an object put by hand", r.status == 200 and r.json["data"] == {"x": "y"} and r.json["metadata"]["resourceVersion"].isdigit(), r)
    tap.equal("and patched", c.patch(CM + "/by-hand", {"data": {"x": "z"}}).json["data"], {"x": "z"})
    ctl("put", "/registry/configmaps/default/broken", "no object")
    status_is("what is no object: get", c.get(CM + "/broken"), 500, "InternalError")
    tap.equal("list", c.get(CM).status, 500)
    ctl("del", "/registry/configmaps/default/broken")
    port = [{"port": 1, "nodePort": 30200}]
    tap.equal("a service with a node port", c.post(SVC, svc("owner", type="NodePort", ports=port)).status, 201)
    ctl("put", "/registry/services/specs/default/double", json.dumps(dict(svc("double", type="NodePort", clusterIP="None", ports=port), apiVersion="v1", kind="Service")))
    r = c.delete(SVC + "/double")
    again = c.post(SVC, svc("third", type="NodePort", ports=port))
    tap.check("one that was written by hand with the same port does not give it back when it goes",
              r.status == 200 and again.status == 422 and "provided port is already allocated" in again.json["message"], (r, again))
    tap.equal("and when it is gone", c.get(CM).status, 200)
    e = c.post("/api/v1/namespaces/default/events", {"metadata": {"generateName": "e-"}, "involvedObject": {"kind": "Pod", "name": "x", "namespace": "default"}, "reason": "R", "message": "m", "type": "Normal"})
    kv = json.loads(ctl("get", "/registry/events/default/" + e.json["metadata"]["name"], "-w", "json"))["kvs"][0] if e.status == 201 else {}
    ttl = ctl("lease", "timetolive", "%x" % kv.get("lease", 0))
    tap.check("events have a lease of an hour", e.status == 201 and "granted with TTL(3900s)" in ttl, (e, kv, ttl))
    token = c.get(CM + "?limit=3").json["metadata"]["continue"]
    rv = c.get(CM).json["metadata"]["resourceVersion"]
    for i in range(3):
        c.patch(CM + "/by-hand", {"data": {"n": str(i)}})
    now = c.get(CM).json["metadata"]["resourceVersion"]
    ctl("compact", now)
    r = c.get(CM + "?limit=3&continue=" + token)
    status_is("a page that was compacted", r, 410, "Expired", "The provided continue parameter is too old")
    r = c.get(CM + "?limit=3&continue=" + r.json["metadata"]["continue"])
    tap.check("can be gone on with", r.status == 200 and len(r.json["items"]) == 3, r)
    status_is("an exact list", c.get(CM + "?resourceVersionMatch=Exact&resourceVersion=" + rv), 410, "Expired", "The resourceVersion for the provided list is too old.")
    w = c.watch(CM + "?watch=1&resourceVersion=" + rv)
    e = w.next()
    tap.check("a watch: ERROR 410", e and e["type"] == "ERROR" and e["object"]["code"] == 410 and e["object"]["reason"] == "Expired" and
              e["object"]["message"] == "The resourceVersion for the provided watch is too old.", e)
    tap.equal("and its end", w.next(), None)
    w.close()
    before = c.get(CM).json["metadata"]["resourceVersion"]
    c.delete(CM + "/by-hand")
    gone = c.get(CM).json["metadata"]["resourceVersion"]
    ctl("compact", gone)
    w = c.watch(CM + "?watch=1&resourceVersion=" + before)
    e = w.next()
    tap.check("a deletion right at the compact revision, of what cannot be shown any more: ERROR 410, not silence",
              e and e["type"] == "ERROR" and e["object"]["code"] == 410, (before, gone, e))
    w.close()
    w = c.watch(CM + "?watch=1&resourceVersion=" + gone)
    c.post(CM, cm("later"))
    e = w.next()
    tap.check("from the compact revision on it goes", e and e["type"] == "ADDED" and e["object"]["metadata"]["name"] == "later", e)
    w.close()
    c.delete(CM + "/later")


def restart():
    before = c.get("/api/v1/configmaps").json
    rv = before["metadata"]["resourceVersion"]
    tap.equal("a clean stop", c.stop(0), 0)
    c.start(0)
    tap.check("ready again", c.wait_ready())
    after = c.get("/api/v1/configmaps").json
    tap.equal("the same objects at the same versions", after["items"], before["items"])
    c.post(CM, cm("after"))
    w = c.watch(CM + "?watch=1&resourceVersion=" + rv)
    tap.equal("a watch goes on where it was", w.next()["object"]["metadata"]["name"], "after")
    w.close()


for part in (authentication, create_read, validation, updates, generations, patches, deletion, pods, services, namespaces, lists,
             watches, errors, discovery, through_etcd, restart):
    try:
        part()
    except Exception as e:  # a part that breaks is a failure, and the next one still runs
        import traceback
        tap.check(part.__name__ + " ran to its end", False, traceback.format_exc())
if tap.failed:
    print(c.logs())
tap.done()
