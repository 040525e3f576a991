"""What holds between objects, which no schema can see: each function yields what is wrong.

Inside the cluster's own kinds: names, labels, ports, references, limits. Istio's and the
rollout controller's are in facts_delivery.py, metrics in facts_metrics.py.
"""

import re

from objects import (
    COMPONENT, as_deployment, containers_of, label, labels_of_pods, name_of, named, of_kind, ports_of, quantity, seconds,
    selected_by_service, selects, template_of, without_hash, workloads,
)  # fmt: skip

# What a sidecar asks for unless told otherwise (Istio's defaults).
SIDECAR_CPU, SIDECAR_MEMORY = 0.1, 128 * 2**20
# /metrics, /livez and /readyz are here and nowhere else.
ADMIN_PORT, API_PORT = 9464, 5000
PROBE_PATHS = {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
# For the logs' last lines after the drain.
GRACE_MARGIN = 5
# What ops/deploy.sh, or by hand the command in the rendering's head, makes before the rest.
MADE_BEFORE = {"engine-database-ca"}


def engine(objects: list[dict]) -> dict:
    return next(it for it in of_kind(objects, "Deployment", "Rollout") if name_of(it) == "engine")


def names_are_unique(objects):
    seen = set()
    for it in objects:
        key = (it["apiVersion"].split("/")[0], it["kind"], name_of(it))
        if key in seen:
            yield f"{label(it)} is there twice"
        seen.add(key)
        if it["kind"] != "Namespace" and it["metadata"].get("namespace") != "engine":
            yield f"{label(it)} is in the namespace {it['metadata'].get('namespace')}"


def selectors_match(objects):
    for it in workloads(objects):
        own = labels_of_pods(it)
        if "selector" in it["spec"] and not selects(it["spec"]["selector"], own):
            yield f"{label(it)}: its selector does not match its own pods"
        for other in workloads(objects):
            if other is not it and "selector" in it["spec"] and selects(it["spec"]["selector"], labels_of_pods(other)):
                yield f"{label(it)}: its selector takes the pods of {label(other)}"
        for spread in template_of(it)["spec"].get("topologySpreadConstraints", []):
            if not selects(spread["labelSelector"], own):
                yield f"{label(it)}: a topology spread counts other pods than its own"
    for service in of_kind(objects, "Service"):
        targets = selected_by_service(service, objects)
        if len(targets) != 1:
            yield f"{label(service)} selects the pods of {[label(it) for it in targets] or 'nothing'}"
    for policy in of_kind(objects, "NetworkPolicy", "AuthorizationPolicy"):
        selector = policy["spec"].get("podSelector") or policy["spec"].get("selector")
        if selector and not any(selects(selector, labels_of_pods(it)) for it in workloads(objects)):
            yield f"{label(policy)} selects no pod"
    for budget in of_kind(objects, "PodDisruptionBudget"):
        found = [label(it) for it in workloads(objects) if selects(budget["spec"]["selector"], labels_of_pods(it))]
        if found != [label(engine(objects))]:
            yield f"{label(budget)} selects the pods of {found or 'nothing'}"


def ports_match(objects):
    for service in of_kind(objects, "Service"):
        for it in selected_by_service(service, objects):
            ports = ports_of(it)
            for port in service["spec"]["ports"]:
                target = port.get("targetPort", port["port"])
                if target not in ports and target not in ports.values():
                    yield f"{label(service)}: {label(it)} has no port {target}"
    for it in workloads(objects):
        for one in containers_of(it):
            own = {port["name"] for port in one.get("ports", [])}
            for kind in PROBE_PATHS:
                probe = one.get(kind, {})
                port = (probe.get("httpGet") or probe.get("tcpSocket") or {}).get("port")
                if isinstance(port, str) and port not in own:
                    yield f"{label(it)}: {kind} asks the port {port}, which {one['name']} has not"
    for policy in of_kind(objects, "NetworkPolicy"):
        for rule in policy["spec"].get("ingress", []):
            for port in rule.get("ports", []):
                for it in workloads(objects):
                    ports = ports_of(it)
                    if selects(policy["spec"]["podSelector"], labels_of_pods(it)) and policy["spec"]["podSelector"]:
                        # A policy of several workloads opens a port that one of them has.
                        if port["port"] not in ports and port["port"] not in ports.values() and "matchExpressions" not in policy["spec"]["podSelector"]:
                            yield f"{label(policy)} opens {port['port']}, which {label(it)} has not"


def probes_ask_the_admin_port(objects):
    it = engine(objects)
    container = containers_of(it)[0]
    ports = ports_of(it)
    if ports != {"http": API_PORT, "admin": ADMIN_PORT}:
        yield f"{label(it)} has the ports {ports}"
    settings = named(objects, "ConfigMap", "engine-settings")["data"]
    for name, port in (("ENGINE_LISTEN", API_PORT), ("ENGINE_ADMIN_LISTEN", ADMIN_PORT)):
        if settings.get(name) != f"0.0.0.0:{port}":
            yield f"{name} is {settings.get(name)}, but the container's port is {port}"
    for kind, path in PROBE_PATHS.items():
        asked = container.get(kind, {}).get("httpGet", {})
        if (asked.get("path"), asked.get("port")) != (path, "admin"):
            yield f"{label(it)}: {kind} asks {asked}, not {path} of the admin port"


def grace_covers_the_drain(objects):
    it = engine(objects)
    settings = named(objects, "ConfigMap", "engine-settings")["data"]
    delay = seconds(settings.get("ENGINE_SHUTDOWN_DELAY", "0s"))
    drain = seconds(settings["ENGINE_SHUTDOWN_GRACE"])
    grace = template_of(it)["spec"]["terminationGracePeriodSeconds"]
    leave = containers_of(it)[0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    if not leave:
        yield f"{label(it)} gets SIGTERM while proxies still send it requests"
    if not delay:
        yield f"{label(it)} does not wait before it drains: its clients were not asked to leave"
    deadline = seconds(settings.get("ENGINE_REQUEST_DEADLINE", "10s"))
    if drain < delay + deadline:
        yield f"{label(it)} has {drain - delay:.0f} s to answer what may take {deadline:.0f} s"
    if grace < leave + drain + GRACE_MARGIN:
        yield f"{label(it)} is killed after {grace} s, but stops in {leave} + {drain:.0f} + {GRACE_MARGIN} s"


def references_exist(objects):
    secrets = {name_of(it): set(it.get("stringData", {})) for it in of_kind(objects, "Secret")}
    for it in of_kind(objects, "ExternalSecret"):
        target = it["spec"]["target"]
        secrets[target["name"]] = set(target["template"]["data"])
        if not named(objects, it["spec"]["secretStoreRef"]["kind"], it["spec"]["secretStoreRef"]["name"]):
            yield f"{label(it)} reads a store that is not there"
        fetched = {one["secretKey"] for one in it["spec"]["data"]}
        used = set(re.findall(r"\{\{\s*\.(\w+)", " ".join(target["template"]["data"].values())))
        if fetched != used:
            yield f"{label(it)} fetches {sorted(fetched)} and writes {sorted(used)}"
    for it in of_kind(objects, "SecretStore"):
        account = it["spec"]["provider"]["aws"]["auth"]["jwt"]["serviceAccountRef"]["name"]
        if not named(objects, "ServiceAccount", account):
            yield f"{label(it)} is {account}, which is not there"
    maps = {name_of(it) for it in of_kind(objects, "ConfigMap")} | MADE_BEFORE
    claims = {name_of(it) for it in of_kind(objects, "PersistentVolumeClaim")}
    for it in workloads(objects):
        spec = template_of(it)["spec"]
        account = spec.get("serviceAccountName")
        if account and not named(objects, "ServiceAccount", account):
            yield f"{label(it)} runs as {account}, which is not there"
        volumes = {one["name"] for one in spec.get("volumes", [])}
        volumes |= {one["metadata"]["name"] for one in it["spec"].get("volumeClaimTemplates", [])}
        for volume in spec.get("volumes", []):
            if "configMap" in volume and volume["configMap"]["name"] not in maps:
                yield f"{label(it)}: no ConfigMap {volume['configMap']['name']}"
            secret = volume.get("secret", {}).get("secretName")
            if secret and secret not in secrets:
                yield f"{label(it)}: no Secret {secret}"
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if claim and claim not in claims:
                yield f"{label(it)}: no claim {claim}"
        for one in containers_of(it):
            for mount in one.get("volumeMounts", []):
                if mount["name"] not in volumes:
                    yield f"{label(it)}: {one['name']} mounts {mount['name']}, which is no volume"
            for source in one.get("envFrom", []):
                for kind, known in (("configMapRef", maps), ("secretRef", secrets)):
                    if kind in source and source[kind]["name"] not in known:
                        yield f"{label(it)}: {kind} {source[kind]['name']} is not there"
            for variable in one.get("env", []):
                ref = variable.get("valueFrom", {}).get("secretKeyRef")
                if ref and ref["key"] not in secrets.get(ref["name"], set()):
                    yield f"{label(it)}: the secret {ref['name']} has no {ref['key']}"


def settings_stay_with_their_version(objects):
    """What the engine's pods read has a name of its content and is kept: a former version's pods still read theirs."""
    spec = template_of(engine(objects))["spec"]
    read = {source[key]["name"] for one in containers_of(engine(objects)) for source in one.get("envFrom", []) for key in source}
    read |= {volume["configMap"]["name"] for volume in spec.get("volumes", []) if "configMap" in volume} - MADE_BEFORE
    by_label = {}
    for it in of_kind(objects, "ConfigMap", "Secret", "ExternalSecret"):
        name = it["spec"]["target"]["name"] if it["kind"] == "ExternalSecret" else name_of(it)
        if name not in read:
            continue
        if name != name_of(it):
            yield f"{label(it)} makes {name}: a later one of the same name would overwrite it"
        if without_hash(name) == name:
            yield f"{label(it)} is overwritten for the pods of the former version too"
        if it["metadata"].get("annotations", {}).get("helm.sh/resource-policy") != "keep":
            yield f"{label(it)} is taken from the pods of the former version"
        by_label[name] = it["metadata"]["labels"].get("engine-settings")
    pods = labels_of_pods(engine(objects)).get("engine-settings")
    for name in read:
        if not pods or by_label.get(name) != pods or not name.endswith(f"-{pods}"):
            yield f"{name} has the label {by_label.get(name)}, its pods {pods}: who clears up would take it for an old one"


def replicas_and_budget(objects):
    it = engine(objects)
    scaler = named(objects, "HorizontalPodAutoscaler", "engine")
    if scaler:
        target = scaler["spec"]["scaleTargetRef"]
        if (target["apiVersion"], target["kind"], target["name"]) != (it["apiVersion"], it["kind"], name_of(it)):
            yield f"{label(scaler)} scales {target}, which is not {label(it)}"
        if "replicas" in it["spec"]:
            yield f"{label(it)} sets replicas: each upgrade would undo the autoscaler"
        least, most = scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]
        if least >= most:
            yield f"{label(scaler)} cannot grow: {least} to {most}"
        for metric in scaler["spec"]["metrics"]:
            if metric["type"] == "ContainerResource":
                wanted = metric["containerResource"]
                container = next((one for one in containers_of(it) if one["name"] == wanted["container"]), None)
                if not container or wanted["name"] not in container["resources"]["requests"]:
                    yield f"{label(scaler)}: {wanted['container']} requests no {wanted['name']}, so there is no share of it"
    else:
        least = it["spec"].get("replicas", 1)
    if least < 3:
        yield f"{label(it)} has {least} replicas: three zones need three"
    budget = named(objects, "PodDisruptionBudget", "engine")["spec"]
    if not 1 <= budget.get("maxUnavailable", least - budget.get("minAvailable", 0)) < least:
        yield f"the PodDisruptionBudget of {least} replicas lets none or all of them go: {budget}"


def tools_are_new_enough(objects, server: int):
    """pg_dump refuses a server of a newer major version than its own."""
    for it in workloads(objects):
        for one in containers_of(it):
            found = re.search(r"/postgres:(\d+)", one["image"])
            if found and int(found[1]) < server:
                yield f"{label(it)}: {one['image']} cannot dump PostgreSQL {server}"


def quota_holds_everything(objects):
    quota = named(objects, "ResourceQuota", "engine")
    if not quota:
        return
    total = {"requests.cpu": 0.0, "requests.memory": 0.0, "limits.memory": 0.0, "pods": 0}
    for it in workloads(objects):
        count = it["spec"].get("replicas", 1)
        if it is engine(objects):
            scaler = named(objects, "HorizontalPodAutoscaler", "engine")
            # Twice: both sides of a blue-green, the canary and what it replaces.
            count = 2 * (scaler["spec"]["maxReplicas"] if scaler else count)
        own = template_of(it)["spec"]
        need = {"requests.cpu": SIDECAR_CPU, "requests.memory": SIDECAR_MEMORY, "limits.memory": 2**30}
        for key in need:
            kind, resource = key.split(".")
            asked = lambda ones: [quantity(one["resources"][kind].get(resource, 0)) for one in ones]
            need[key] += max([sum(asked(own["containers"])), *asked(own.get("initContainers", []))])
            total[key] += need[key] * count
        total["pods"] += count
    for key, value in total.items():
        if value > quantity(quota["spec"]["hard"][key]):
            yield f"the quota's {key} is {quota['spec']['hard'][key]}, but everything at its largest needs {value:.4g}"


def jobs_agree_with_the_engines(objects):
    retention = named(objects, "ConfigMap", "engine-settings")["data"]["ENGINE_IDEMPOTENCY_RETENTION"]
    for it in workloads(objects):
        for one in containers_of(it):
            if one.get("args", [""])[0] in ("migrate", "maintain"):
                own = {env["name"]: env.get("value") for env in one["env"]}.get("ENGINE_IDEMPOTENCY_RETENTION")
                if own != retention:
                    yield f"{label(it)} makes key periods of {own}, the engines use {retention}"
    kinds = {labels_of_pods(it).get(COMPONENT) for it in workloads(objects)}
    for wanted in ("maintain", "verify", "backup"):
        if wanted not in kinds:
            yield f"no job does {wanted}"


def hooks_have_what_they_need(objects):
    weight = lambda it: int(it["metadata"].get("annotations", {}).get("helm.sh/hook-weight", 10**9))
    is_hook = lambda it: "helm.sh/hook" in it["metadata"].get("annotations", {})
    # A hook is taken away and made anew at each upgrade: nothing that goes on running may live by it.
    running = [it for it in workloads(objects) if not is_hook(it)]
    for it in filter(is_hook, objects):
        for other in running:
            if it["kind"] == "NetworkPolicy" and selects(it["spec"]["podSelector"], labels_of_pods(other)):
                yield f"{label(it)} is gone for a moment at each upgrade, and {label(other)} is cut off"
            if it["kind"] == "ServiceAccount" and template_of(other)["spec"].get("serviceAccountName") == name_of(it):
                yield f"{label(it)} is gone for a moment at each upgrade, and {label(other)} needs it"
        if it["kind"] == "ExternalSecret" and it["spec"]["target"]["creationPolicy"] != "Orphan":
            yield f"{label(it)} takes its Secret along at each upgrade"
    for job in of_kind(objects, "Job"):
        if not is_hook(job):
            continue
        spec = template_of(job)["spec"]
        needs = [named(objects, "ServiceAccount", spec["serviceAccountName"])]
        for one in containers_of(job):
            refs = [env.get("valueFrom", {}).get("secretKeyRef", {}).get("name") for env in one.get("env", [])]
            for ref in filter(None, refs):
                secret = next((it for it in of_kind(objects, "ExternalSecret", "Secret") if name_of(it) == ref), None)
                needs.append(secret)
                if secret and secret["kind"] == "ExternalSecret":
                    store = named(objects, "SecretStore", secret["spec"]["secretStoreRef"]["name"])
                    needs += [store, named(objects, "ServiceAccount", "engine-secrets")]
        needs += [it for it in of_kind(objects, "NetworkPolicy") if it["spec"]["podSelector"] and selects(it["spec"]["podSelector"], labels_of_pods(job))]
        for it in needs:
            if it is None or weight(it) >= weight(job):
                yield f"{label(job)} runs before {label(it) if it else 'something'} that it needs"


def pods_are_restricted(objects):
    """Pod security standard `restricted`, which the namespace enforces, and a read-only root."""
    allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "secret", "projected", "downwardAPI", "csi", "ephemeral"}
    for it in map(as_deployment, workloads(objects)):
        spec = template_of(it)["spec"]
        own = spec.get("securityContext", {})
        if not own.get("runAsNonRoot") or own.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{label(it)}: runAsNonRoot and the runtime's seccomp profile are missing"
        if spec.get("automountServiceAccountToken") is not False:
            yield f"{label(it)} mounts a token of the Kubernetes API"
        if any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
            yield f"{label(it)} shares the node's namespaces"
        for volume in spec.get("volumes", []):
            if not (set(volume) - {"name"}) <= allowed:
                yield f"{label(it)} mounts {volume}"
        for one in containers_of(it):
            mine = one.get("securityContext", {})
            if mine.get("allowPrivilegeEscalation") is not False or mine.get("capabilities", {}).get("drop") != ["ALL"]:
                yield f"{label(it)}: {one['name']} keeps capabilities"
            if not mine.get("readOnlyRootFilesystem"):
                yield f"{label(it)}: {one['name']} may write to its root"
            if one["image"].endswith(":latest") or ":" not in one["image"]:
                yield f"{label(it)}: {one['image']} is whatever is newest"


def is_core(objects):
    """A fresh kind or minikube has no custom resources, and no controller that acts on them."""
    for it in objects:
        group = it["apiVersion"].partition("/")[0]
        if group != "v1" and group not in ("apps", "batch", "policy", "networking.k8s.io"):
            yield f"{label(it)} is of {group}, which has to be installed first"
        if it["kind"] in ("StatefulSet", "PersistentVolumeClaim", "Service"):
            storage = [claim["spec"] for claim in it["spec"].get("volumeClaimTemplates", [])] or [it["spec"]]
            if any("storageClassName" in one for one in storage) or it["spec"].get("type") == "LoadBalancer":
                yield f"{label(it)} asks for what only a cloud has"
    for name in ("postgres", "redis"):
        if not named(objects, "StatefulSet", name):
            yield f"no StatefulSet {name}"


def secrets_are_fetched(objects):
    """In the cloud no Secret is written out; local's are public."""
    for it in of_kind(objects, "Secret"):
        yield f"{label(it)} stands in the rendering"
