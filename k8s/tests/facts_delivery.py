"""What holds between Istio's objects, the rollout controller's, and the Services they name."""

from facts import engine
from network import Peer, allows
from objects import containers_of, label, labels_of_pods, name_of, named, of_kind, ports_of, seconds, selects, template_of, workloads

# The engine answers within its deadline and one second; more is the proxy's margin.
DEADLINE_DEFAULT = "10s"
DEADLINE_MARGIN = 1


def deadline(objects) -> float:
    settings = named(objects, "ConfigMap", "engine-settings")["data"]
    return seconds(settings.get("ENGINE_REQUEST_DEADLINE", DEADLINE_DEFAULT)) + DEADLINE_MARGIN


def routes_lead_somewhere(objects):
    for virtual in of_kind(objects, "VirtualService"):
        for gateway in virtual["spec"]["gateways"]:
            if gateway != "mesh" and not named(objects, "Gateway", gateway):
                yield f"{label(virtual)}: no Gateway {gateway}"
        for route in virtual["spec"]["http"]:
            if sum(one.get("weight", 0) for one in route["route"]) not in (0, 100):
                yield f"{label(virtual)}: the weights of {route['name']} are not 100"
            for one in route["route"]:
                service = named(objects, "Service", one["destination"]["host"])
                ports = [port["port"] for port in service["spec"]["ports"]] if service else []
                if one["destination"]["port"]["number"] not in ports:
                    yield f"{label(virtual)}: {route['name']} leads to {one['destination']}, which is no Service's port"
                if not named(objects, "DestinationRule", one["destination"]["host"]):
                    yield f"{label(virtual)}: {one['destination']['host']} has no DestinationRule"
    for rule in of_kind(objects, "DestinationRule"):
        if not named(objects, "Service", rule["spec"]["host"]):
            yield f"{label(rule)} is of {rule['spec']['host']}, which is no Service"


def is_safe_to_repeat(match: dict) -> bool:
    method = match.get("method", {}).get("exact")
    key = match.get("headers", {}).get("idempotency-key", {})
    return method in ("GET", "HEAD") or (method == "POST" and key.get("regex") == ".+")


def retries_are_safe(objects):
    for virtual in of_kind(objects, "VirtualService"):
        for route in virtual["spec"]["http"]:
            what = f"{label(virtual)}: {route['name']}"
            # Left out, Istio retries twice.
            attempts = route.get("retries", {"attempts": 2}).get("attempts", 2)
            if attempts and not (route.get("match") and all(map(is_safe_to_repeat, route["match"]))):
                yield f"{what} is sent again {attempts} times, and nothing says that it may be"
            if attempts and {"5xx", "503", "gateway-error", "retriable-4xx"} & set(route.get("retries", {}).get("retryOn", "5xx").split(",")):
                yield f"{what} repeats what the engine refused because it is full"
            whole = route.get("timeout", "0s")
            once = route.get("retries", {}).get("perTryTimeout", whole)
            for wait in sorted({whole, once}):
                if seconds(wait) <= deadline(objects):
                    yield f"{what} is given up after {wait}, before the engine has answered ({deadline(objects):.0f} s)"
            if attempts and seconds(whole) < (attempts + 1) * seconds(once):
                yield f"{what}: {whole} has no room for {attempts} more try"
    for rule in of_kind(objects, "DestinationRule"):
        outlier = rule["spec"]["trafficPolicy"].get("outlierDetection", {})
        if outlier.get("consecutive5xxErrors", 5) or outlier.get("consecutiveGatewayErrors", 0):
            yield f"{label(rule)} leaves out engines that say they are full"


def rollout_controls_the_route(objects):
    it = engine(objects)
    if it["kind"] != "Rollout":
        return
    strategy = it["spec"]["strategy"]
    analyses = []
    if "canary" in strategy:
        canary = strategy["canary"]
        analyses.append(canary["analysis"])
        services = [canary["stableService"], canary["canaryService"]]
        routing = canary["trafficRouting"]["istio"]["virtualService"]
        virtual = named(objects, "VirtualService", routing["name"])
        routes = {route["name"]: route for route in virtual["spec"]["http"]} if virtual else {}
        if set(routing["routes"]) != set(routes):
            yield f"{label(it)} steers {routing['routes']}, the VirtualService has {sorted(routes)}"
        for route in routes.values():
            if [one["destination"]["host"] for one in route["route"]] != services:
                yield f"{label(it)}: the route {route['name']} does not lead to {services}"
        weights = [step["setWeight"] for step in canary["steps"] if "setWeight" in step]
        if weights != sorted(set(weights)) or not canary["analysis"].get("templates"):
            yield f"{label(it)}: its steps do not grow, or nothing watches them"
        if canary["analysis"].get("startingStep", 0) > 1:
            yield f"{label(it)}: the first share is not watched"
        watched = sum(seconds(step["pause"]["duration"]) for step in canary["steps"] if "pause" in step)
    else:
        blue_green = strategy["blueGreen"]
        services = [blue_green["activeService"], blue_green["previewService"]]
        analyses += [blue_green["prePromotionAnalysis"], blue_green["postPromotionAnalysis"]]
        watched = blue_green["scaleDownDelaySeconds"]
    for service in services:
        if not named(objects, "Service", service):
            yield f"{label(it)} switches the Service {service}, which is not there"
    for analysis in analyses:
        given = {one["name"] for one in analysis.get("args", [])}
        for one in analysis["templates"]:
            template = named(objects, "AnalysisTemplate", one["templateName"])
            if not template:
                yield f"{label(it)}: no AnalysisTemplate {one['templateName']}"
                continue
            if {arg["name"] for arg in template["spec"].get("args", [])} != given:
                yield f"{label(it)} gives {label(template)} the arguments {sorted(given)}"
            for metric in template["spec"]["metrics"]:
                longest = seconds(metric["initialDelay"]) + metric["count"] * seconds(metric["interval"])
                if longest > watched:
                    yield f"{label(template)}: {metric['name']} takes {longest:.0f} s, the old version stays {watched:.0f} s"


def mesh_is_strict(objects):
    peers = of_kind(objects, "PeerAuthentication")
    if not any(it["spec"].get("mtls", {}).get("mode") == "STRICT" and "selector" not in it["spec"] for it in peers):
        yield "no PeerAuthentication asks everybody for a certificate"
    for it in peers:
        if it["spec"].get("portLevelMtls"):
            yield f"{label(it)} leaves a port open to plain text"
    policies = of_kind(objects, "AuthorizationPolicy")
    if not any(it["spec"] == {} for it in policies):
        yield "no AuthorizationPolicy denies by default"
    accounts = {name_of(it) for it in of_kind(objects, "ServiceAccount")}
    for it in policies:
        for rule in it["spec"].get("rules", []):
            if not rule.get("from"):
                yield f"{label(it)} lets anybody in"
            for source in rule.get("from", []):
                for principal in source["source"]["principals"]:
                    _, _, namespace, _, account = principal.split("/")
                    if namespace == "engine" and account not in accounts:
                        yield f"{label(it)} trusts {account}, which is no account here"
            for to in rule["to"]:
                for port in to["operation"]["ports"]:
                    for target in workloads(objects):
                        if selects(it["spec"]["selector"], labels_of_pods(target)) and int(port) not in ports_of(target).values():
                            yield f"{label(it)} opens {port}, which {label(target)} has not"
    for rule in of_kind(objects, "DestinationRule"):
        if rule["spec"]["trafficPolicy"]["tls"]["mode"] != "ISTIO_MUTUAL":
            yield f"{label(rule)} does not speak the mesh's TLS"
    for gateway in of_kind(objects, "Gateway"):
        for server in gateway["spec"]["servers"]:
            if server["hosts"] != ["*"]:
                yield f"{label(gateway)} waits for a name that a load balancer does not send"
            if server["port"]["protocol"] == "HTTP" and not server.get("tls", {}).get("httpsRedirect"):
                yield f"{label(gateway)} takes transfers in the clear"


def sidecars_leave_the_rest_alone(objects):
    """Jobs without a sidecar end; the engine's metrics, database and Redis go past it."""
    for it in workloads(objects):
        if it["kind"] not in ("Job", "CronJob"):
            continue
        template = template_of(it)
        native = template["metadata"].get("annotations", {}).get("sidecar.istio.io/nativeSidecar") == "true"
        if template["metadata"]["labels"].get("sidecar.istio.io/inject") != "false" and not native:
            yield f"{label(it)} never ends: its sidecar does not"
    annotations = template_of(engine(objects))["metadata"]["annotations"]
    if annotations.get("traffic.sidecar.istio.io/excludeInboundPorts") != str(ports_of(engine(objects))["admin"]):
        yield "Prometheus and the kubelet, which have no certificate, cannot ask the engines' admin port"
    if annotations.get("sidecar.istio.io/rewriteAppHTTPProbers") != "false":
        yield "the engines' probes depend on their sidecars"
    past = annotations.get("traffic.sidecar.istio.io/excludeOutboundPorts", "").split(",")
    for policy in of_kind(objects, "NetworkPolicy"):
        for rule in policy["spec"].get("egress", []) if name_of(policy) == "engine" else []:
            for port in rule["ports"]:
                if any("ipBlock" in to for to in rule["to"]) and str(port["port"]) not in past:
                    yield f"commits or reads on {port['port']} go by way of the sidecar"


GATEWAY = Peer("the gateway", {"istio": "ingressgateway", "app": "istio-ingress"}, "istio-ingress")
PROMETHEUS = Peer("Prometheus", {"app.kubernetes.io/name": "prometheus"}, "monitoring")
STRANGER = Peer("a stranger", {"app": "stranger"}, "default")
UNKNOWN = Peer("a pod that is none of ours", {"app": "unknown"})
DNS = Peer("the name server", {"k8s-app": "kube-dns"}, "kube-system")
ISTIOD = Peer("istiod", {"app": "istiod"}, "istio-system")
NODE_CREDENTIALS = Peer("the node's credentials", address="169.254.169.254")
INTERNET = Peer("an address of S3", address="52.216.1.1")


def network_flows(objects, database: str = "", redis: str = ""):
    """What must get through, and what must not. `database`, `redis`: their addresses, if outside."""
    peers = {}
    for it in workloads(objects):
        component = labels_of_pods(it)["app.kubernetes.io/component"]
        peers[component] = Peer(component, labels_of_pods(it), ports=ports_of(it))
    server = peers["server"]
    store = peers.get("postgres") or Peer("the database", address=database)
    cache = peers.get("redis") or Peer("Redis", address=redis)
    mesh = bool(of_kind(objects, "PeerAuthentication"))
    uploads = any(one["name"] == "upload" for it in workloads(objects) for one in containers_of(it))

    secret = named(objects, "Secret", "engine-app") or named(objects, "ExternalSecret", "engine-app")
    keys = secret.get("stringData") or secret["spec"]["target"]["template"]["data"]
    cached = "ENGINE_REDIS_URL" in keys

    must = [(server, store, 5432), (server, DNS, 53), (PROMETHEUS, server, 9464)]
    for job in ("setup", "migrate", "maintain", "verify", "backup"):
        if job in peers:
            must += [(peers[job], store, 5432), (peers[job], DNS, 53)]
    must_not = [
        (STRANGER, server, 5000), (STRANGER, server, 9464), (GATEWAY, server, 9464), (PROMETHEUS, server, 5000),
        (server, INTERNET, 443), (server, NODE_CREDENTIALS, 80), (peers["backup"], NODE_CREDENTIALS, 80),
        (peers["backup"], NODE_CREDENTIALS, 443), (peers["maintain"], INTERNET, 443), (peers["maintain"], server, 5000),
        (peers["verify"], cache, 6379), (server, store, 22), (UNKNOWN, INTERNET, 443), (UNKNOWN, server, 5000), (STRANGER, UNKNOWN, 80),
    ]  # fmt: skip
    (must if mesh else must_not).append((GATEWAY, server, 5000))
    (must if cached else must_not).append((server, cache, 6379))
    if mesh:
        must.append((server, ISTIOD, 15012))
    if uploads:
        must.append((peers["backup"], INTERNET, 443))
    for inner in ("postgres", "redis"):
        if inner in peers:
            must_not += [(STRANGER, peers[inner], 5432), (STRANGER, peers[inner], 6379), (peers[inner], INTERNET, 443)]
    if "loadtest" in peers:
        run, worker = peers["loadtest"], peers["loadtest-worker"]
        port = worker.ports["worker"]
        must += [(run, worker, port), (worker, server, 5000), (run, server, 5000), (run, DNS, 53), (worker, DNS, 53)]
        if mesh:
            must += [(run, ISTIOD, 15012), (worker, ISTIOD, 15012)]
        must_not += [(STRANGER, worker, port), (server, worker, port), (worker, store, 5432), (worker, server, 9464)]
    for source, target, port in must:
        if not allows(objects, source, target, port):
            yield f"{source.what} cannot reach {target.what} on {port}"
        if port == 53 and not allows(objects, source, target, port, "UDP"):
            yield f"{source.what} cannot ask {target.what} by UDP, as everybody does first"
    for source, target, port in must_not:
        if allows(objects, source, target, port):
            yield f"{source.what} can reach {target.what} on {port}"
