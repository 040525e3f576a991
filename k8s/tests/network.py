"""What the NetworkPolicies let through, as Kubernetes defines them.

A connection passes if the policies that select its source allow it out and those that
select its target allow it in; whoever no policy of a direction selects is open there.
A NetworkPolicy that names the wrong label is valid and closes (or opens) the wrong door:
only asking shows it.
"""

import dataclasses
import ipaddress

from objects import of_kind, selects


@dataclasses.dataclass(frozen=True)
class Peer:
    """A pod (labels, and the namespace it is in) or an address outside the cluster."""

    what: str
    labels: dict | None = None
    namespace: str = "engine"
    address: str = ""
    ports: dict | None = None


def allows(objects: list[dict], source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
    policies = of_kind(objects, "NetworkPolicy")
    end = (port, protocol, target)
    return _direction(policies, "Egress", source, target, end) and _direction(policies, "Ingress", target, source, end)


def _direction(policies, direction: str, own: Peer, other: Peer, end: tuple[int, str, Peer]) -> bool:
    if own.labels is None or own.namespace != "engine":
        return True
    # Without policyTypes a policy is of Ingress, and of Egress if it has such rules.
    mine = [
        policy["spec"]
        for policy in policies
        if selects(policy["spec"]["podSelector"], own.labels)
        and direction in policy["spec"].get("policyTypes", ["Ingress"] + ["Egress"] * ("egress" in policy["spec"]))
    ]
    if not mine:
        return True
    way = "to" if direction == "Egress" else "from"
    return any(
        _is_peer(rule.get(way), other) and _is_port(rule.get("ports"), *end)
        for spec in mine
        for rule in spec.get(direction.lower(), [])
    )


def _is_port(ports, port: int, protocol: str, target: Peer) -> bool:
    if not ports:
        return True
    for one in ports:
        wanted = one.get("port")
        # A name is the target's own container port.
        number = (target.ports or {}).get(wanted) if isinstance(wanted, str) else wanted
        if number == port and one.get("protocol", "TCP") == protocol:
            return True
    return False


def _is_peer(peers, other: Peer) -> bool:
    if not peers:
        return True
    for one in peers:
        if "ipBlock" in one:
            block = one["ipBlock"]
            if not other.address or ipaddress.ip_address(other.address) not in ipaddress.ip_network(block["cidr"]):
                continue
            if not any(ipaddress.ip_address(other.address) in ipaddress.ip_network(cidr) for cidr in block.get("except", [])):
                return True
            continue
        if other.labels is None:
            continue
        if "namespaceSelector" in one:
            if not selects(one["namespaceSelector"], {"kubernetes.io/metadata.name": other.namespace}):
                continue
        elif other.namespace != "engine":
            continue
        if selects(one.get("podSelector", {}), other.labels):
            return True
    return False
