"""Promotes this region's database when the other region, which has the writer, is lost.

Owns: the decision, the fence around the old writer, the call that promotes, the wait for it.
Never: promotes on one sign alone; promotes past a writer that it could not fence, unless a person says
    so; retries an act whose outcome it does not know.
Invariant: at every moment at most one region can be written to. Two writers would be two ledgers,
    which is worse than an outage.

It runs in the region that it promotes, because the other one may be gone. Events:

    {"action": "probe"}        every minute by schedule: is the writer's region well? One metric
    {"action": "check"}        the facts, and what `failover` would answer; changes nothing
    {"action": "switchover"}   planned: Aurora swaps the roles without loss. Both regions must be well
    {"action": "failover"}     unplanned: fence, then promote. May lose what was not replicated yet
    {"action": "unfence"}      take the fence down, once the old writer has become a secondary

`failover` takes three confirmations, each of which lifts one refusal:
"force" (the writer's region looks well), "accept_loss" (the lag is unknown or large),
"accept_unfenced" (the other region's API does not answer; see to it that nobody writes there).

A CloudWatch alarm may call it directly: then it is a `failover` without confirmations.
"""

import json
import os
import time
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta, timezone

import boto3
from botocore.config import Config as ClientConfig
from botocore.exceptions import BotoCoreError, ClientError

# Time kept for telling the outcome before Lambda cuts the function off.
MARGIN_SECONDS = 30
POLL_SECONDS = 5
# One slow answer is not an outage: one good answer of three is enough.
HEALTH_TRIES = 3
HEALTH_TIMEOUT_SECONDS = 5
LAG_METRIC = "AuroraGlobalDBReplicationLag"
LAG_WINDOW = timedelta(minutes=15)


@dataclass(frozen=True)
class Settings:
    """From the environment; the Terraform module sets every one."""

    global_cluster_id: str
    own_region: str
    own_cluster_arn: str
    peer_region: str
    peer_cluster_arn: str
    peer_health_url: str
    peer_subnet_ids: tuple[str, ...]
    peer_serving_acl_id: str
    peer_fence_acl_id: str
    topic_arn: str
    metric_namespace: str
    lag_seconds_max: float

    @classmethod
    def from_environment(cls, environment=os.environ):
        return cls(
            global_cluster_id=environment["GLOBAL_CLUSTER_ID"],
            own_region=environment["OWN_REGION"],
            own_cluster_arn=environment["OWN_CLUSTER_ARN"],
            peer_region=environment["PEER_REGION"],
            peer_cluster_arn=environment["PEER_CLUSTER_ARN"],
            peer_health_url=environment["PEER_HEALTH_URL"],
            peer_subnet_ids=tuple(environment["PEER_SUBNET_IDS"].split(",")),
            peer_serving_acl_id=environment["PEER_SERVING_ACL_ID"],
            peer_fence_acl_id=environment["PEER_FENCE_ACL_ID"],
            topic_arn=environment["TOPIC_ARN"],
            metric_namespace=environment["METRIC_NAMESPACE"],
            lag_seconds_max=float(environment["LAG_SECONDS_MAX"]),
        )


@dataclass(frozen=True)
class Clients:
    """Everything that the function asks or changes, and the clock."""

    rds: object
    peer_rds: object
    peer_ec2: object
    cloudwatch: object
    sns: object
    get_status: object
    now: object = time.monotonic
    sleep: object = time.sleep

    @classmethod
    def real(cls, settings):
        # A lost region must cost seconds, not the defaults' minutes.
        peer = ClientConfig(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 2})
        own = settings.own_region
        return cls(
            rds=boto3.client("rds", region_name=own),
            peer_rds=boto3.client("rds", region_name=settings.peer_region, config=peer),
            peer_ec2=boto3.client("ec2", region_name=settings.peer_region, config=peer),
            cloudwatch=boto3.client("cloudwatch", region_name=own),
            sns=boto3.client("sns", region_name=own),
            get_status=get_status,
        )


@dataclass
class Facts:
    """What is known of both regions at one moment; None is "could not find out"."""

    own_is_writer: bool
    peer_is_writer: bool
    in_progress: bool
    own_status: str | None
    peer_status: str | None
    peer_healthy: bool
    lag_seconds: float | None


@dataclass
class Answer:
    """outcome: done, nothing_to_do, refused (nothing was changed), running or unknown (look!)."""

    action: str
    outcome: str
    reasons: list[str] = field(default_factory=list)
    fence: str = "untouched"
    seconds: float = 0.0
    facts: dict | None = None


def get_status(url):
    """The HTTP status of a GET, or None without an answer."""
    try:
        with urllib.request.urlopen(url, timeout=HEALTH_TIMEOUT_SECONDS) as response:  # noqa: S310 - https, from settings
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, ValueError):
        return None


class Failover:
    def __init__(self, settings, clients, remaining_seconds):
        self.settings = settings
        self.clients = clients
        self.remaining_seconds = remaining_seconds

    def run(self, action, request):
        started = self.clients.now()
        answer = {
            "probe": self.probe,
            "check": self.check,
            "switchover": self.switchover,
            "failover": self.failover,
            "unfence": self.unfence,
        }[action](request)
        answer.seconds = round(self.clients.now() - started, 1)
        if action in ("switchover", "failover", "unfence"):
            self.tell(answer)
        return answer

    # -- what is known

    def peer_healthy(self):
        for attempt in range(HEALTH_TRIES):
            if attempt:
                self.clients.sleep(2)
            if self.clients.get_status(self.settings.peer_health_url) == 200:
                return True
        return False

    def members(self):
        found = self.clients.rds.describe_global_clusters(GlobalClusterIdentifier=self.settings.global_cluster_id)
        cluster = found["GlobalClusters"][0]
        writers = {m["DBClusterArn"] for m in cluster["GlobalClusterMembers"] if m["IsWriter"]}
        busy = cluster.get("Status") != "available" or bool(cluster.get("FailoverState"))
        return writers, busy

    def cluster_status(self, client, arn):
        try:
            return client.describe_db_clusters(DBClusterIdentifier=arn)["DBClusters"][0]["Status"]
        except (BotoCoreError, ClientError, IndexError):
            return None

    def lag_seconds(self):
        """The largest lag of the last minutes: the metric ends when its region does."""
        now = datetime.now(timezone.utc)
        try:
            points = [
                point
                for dimensions in self.lag_dimensions()
                for point in self.clients.cloudwatch.get_metric_statistics(
                    Namespace="AWS/RDS",
                    MetricName=LAG_METRIC,
                    Dimensions=dimensions,
                    StartTime=now - LAG_WINDOW,
                    EndTime=now,
                    Period=60,
                    Statistics=["Maximum"],
                )["Datapoints"]
            ]
        except (BotoCoreError, ClientError):
            return None
        return max(point["Maximum"] for point in points) / 1000 if points else None

    def lag_dimensions(self):
        """Under which dimensions this cluster's lag is published: AWS does not say, so it is looked up."""
        own = self.settings.own_cluster_arn.rsplit(":", 1)[1]
        metrics = self.clients.cloudwatch.list_metrics(Namespace="AWS/RDS", MetricName=LAG_METRIC)["Metrics"]
        for metric in metrics:
            values = {dimension["Name"]: dimension["Value"] for dimension in metric["Dimensions"]}
            if values.get("DBClusterIdentifier", own) == own:
                yield metric["Dimensions"]

    def facts(self):
        writers, busy = self.members()
        return Facts(
            own_is_writer=self.settings.own_cluster_arn in writers,
            peer_is_writer=self.settings.peer_cluster_arn in writers,
            in_progress=busy,
            own_status=self.cluster_status(self.clients.rds, self.settings.own_cluster_arn),
            peer_status=self.cluster_status(self.clients.peer_rds, self.settings.peer_cluster_arn),
            peer_healthy=self.peer_healthy(),
            lag_seconds=self.lag_seconds(),
        )

    # -- actions

    def probe(self, _request):
        writers, _ = self.members()
        # Nothing to watch while this region writes itself.
        healthy = self.settings.own_cluster_arn in writers or self.peer_healthy()
        self.clients.cloudwatch.put_metric_data(
            Namespace=self.settings.metric_namespace,
            MetricData=[{"MetricName": "WriterRegionHealthy", "Value": 1.0 if healthy else 0.0}],
        )
        return Answer("probe", "done", [] if healthy else [f"{self.settings.peer_health_url} does not answer 200"])

    def check(self, request):
        facts = self.facts()
        reasons = refusals(facts, request, self.settings.lag_seconds_max)
        return Answer("check", "refused" if reasons else "done", reasons, facts=asdict(facts))

    def switchover(self, _request):
        facts = self.facts()
        answer = Answer("switchover", "refused", facts=asdict(facts))
        if facts.own_is_writer:
            answer.outcome = "nothing_to_do"
            return answer
        if facts.in_progress:
            answer.reasons.append("the global database is already being changed")
        if facts.own_status != "available":
            answer.reasons.append(f"this region's cluster is {facts.own_status}")
        if facts.peer_status != "available":
            answer.reasons.append(f"the writer's cluster is {facts.peer_status}; a lost region needs failover")
        if answer.reasons:
            return answer
        # Aurora stops the writer itself and waits until both are equal: no fence is needed. Asked where the writer is:
        # that region owns the global database until the roles have changed.
        try:
            self.clients.peer_rds.switchover_global_cluster(
                GlobalClusterIdentifier=self.settings.global_cluster_id,
                TargetDbClusterIdentifier=self.settings.own_cluster_arn,
            )
        except ClientError as error:
            answer.reasons.append(f"switchover-global-cluster: {error}")
            return answer
        except BotoCoreError as error:
            answer.outcome = "unknown"
            answer.reasons.append(f"switchover-global-cluster: no answer ({error}); ask with check")
            return answer
        return self.wait(answer)

    def failover(self, request):
        facts = self.facts()
        answer = Answer("failover", "refused", facts=asdict(facts))
        if facts.own_is_writer:
            answer.outcome = "nothing_to_do"
            return answer
        answer.reasons = refusals(facts, request, self.settings.lag_seconds_max)
        if answer.reasons:
            return answer

        answer.fence = self.set_fence(self.settings.peer_fence_acl_id, "up")
        if answer.fence != "up":
            if not request.get("accept_unfenced"):
                # Whatever part of it stands is taken down again: nothing was promoted.
                answer.fence = self.set_fence(self.settings.peer_serving_acl_id, "down")
                answer.reasons.append(
                    "the writer could not be fenced: its region's API does not answer. Make sure that nothing writes "
                    "there, then repeat with accept_unfenced"
                )
                return answer
            answer.reasons.append("promoted without a fence, as accepted")
        return self.promote(answer)

    def promote(self, answer):
        try:
            self.clients.rds.failover_global_cluster(
                GlobalClusterIdentifier=self.settings.global_cluster_id,
                TargetDbClusterIdentifier=self.settings.own_cluster_arn,
                AllowDataLoss=True,
            )
        except ClientError as error:
            # Refused for certain, so the old writer is still the writer: let it serve again.
            answer.fence = self.set_fence(self.settings.peer_serving_acl_id, "down")
            answer.reasons.append(f"failover-global-cluster: {error}")
            return answer
        except BotoCoreError as error:
            # Perhaps it is under way. The fence stays: better nobody writes than two.
            answer.outcome = "unknown"
            answer.reasons.append(f"failover-global-cluster: no answer ({error}); ask with check, the fence stays")
            return answer
        return self.wait(answer)

    def wait(self, answer):
        while MARGIN_SECONDS < self.remaining_seconds():
            try:
                writers, busy = self.members()
                if writers == {self.settings.own_cluster_arn} and not busy:
                    answer.outcome = "done"
                    return answer
            except (BotoCoreError, ClientError) as error:
                print(json.dumps({"level": "WARN", "message": f"describe-global-clusters: {error}"}))
            self.clients.sleep(POLL_SECONDS)
        answer.outcome = "running"
        answer.reasons.append("Aurora has not finished within this function's time; ask with check")
        return answer

    def unfence(self, request):
        writers, busy = self.members()
        answer = Answer("unfence", "refused")
        if busy:
            answer.reasons.append("the global database is being changed")
        if writers != {self.settings.own_cluster_arn} and not request.get("force"):
            answer.reasons.append("this region is not the only writer: behind the fence may be another")
        if answer.reasons:
            return answer
        answer.fence = self.set_fence(self.settings.peer_serving_acl_id, "down")
        answer.outcome = "done" if answer.fence == "down" else "unknown"
        return answer

    # -- the fence

    def set_fence(self, acl_id, wanted):
        """Puts every database subnet of the peer under one access list; says what stands afterwards."""
        try:
            for association_id, current in self.associations():
                if current != acl_id:
                    self.clients.peer_ec2.replace_network_acl_association(
                        AssociationId=association_id, NetworkAclId=acl_id
                    )
            standing = {current for _, current in self.associations()}
        except (BotoCoreError, ClientError) as error:
            print(json.dumps({"level": "ERROR", "message": f"fence {wanted}: {error}"}))
            return "unknown"
        return wanted if standing == {acl_id} else "unknown"

    def associations(self):
        subnets = self.settings.peer_subnet_ids
        found = self.clients.peer_ec2.describe_network_acls(
            Filters=[{"Name": "association.subnet-id", "Values": list(subnets)}]
        )
        held = [
            (association["NetworkAclAssociationId"], acl["NetworkAclId"])
            for acl in found["NetworkAcls"]
            for association in acl["Associations"]
            if association["SubnetId"] in subnets
        ]
        if len(held) != len(subnets):
            # A fence around some of the subnets is none: an instance may stand in the others.
            raise ClientError(
                {"Error": {"Code": "Incomplete", "Message": f"{len(held)} of {len(subnets)} subnets found"}},
                "DescribeNetworkAcls",
            )
        return held

    def tell(self, answer):
        """People and the dashboard; what fails here must not hide the answer."""
        try:
            self.clients.cloudwatch.put_metric_data(
                Namespace=self.settings.metric_namespace,
                MetricData=[
                    {
                        "MetricName": "FailoverEvents",
                        "Value": 1.0,
                        "Dimensions": [
                            {"Name": "Action", "Value": answer.action},
                            {"Name": "Outcome", "Value": answer.outcome},
                        ],
                    },
                    {"MetricName": "FailoverEvents", "Value": 0.0 if answer.outcome == "nothing_to_do" else 1.0},
                ],
            )
            self.clients.sns.publish(
                TopicArn=self.settings.topic_arn,
                Subject=f"{self.settings.global_cluster_id}: {answer.action} to {self.settings.own_region} {answer.outcome}"[:100],
                Message=json.dumps(asdict(answer), indent=2),
            )
        except (BotoCoreError, ClientError) as error:
            print(json.dumps({"level": "ERROR", "message": f"could not tell anyone: {error}"}))


def refusals(facts, request, lag_seconds_max):
    """Why an unplanned failover must not happen now; empty if it may."""
    reasons = []
    if facts.own_is_writer:
        reasons.append("this region is the writer already")
    if facts.in_progress:
        reasons.append("the global database is already being changed")
    if facts.own_status != "available":
        reasons.append(f"this region's cluster is {facts.own_status}: it cannot take over")
    # Two signs, from two directions: engines cannot serve, and the database itself is not well. A region
    # whose database runs but whose engines do not is mended there, not by losing transfers here.
    if not request.get("force"):
        if facts.peer_healthy:
            reasons.append("the writer's region answers 200; confirm with force, or use switchover")
        elif facts.peer_status == "available":
            reasons.append("the writer's cluster is available, only its engines are not; confirm with force")
    if not request.get("accept_loss"):
        if facts.lag_seconds is None:
            reasons.append("how far replication lagged is unknown; confirm with accept_loss")
        elif lag_seconds_max < facts.lag_seconds:
            reasons.append(
                f"replication lagged by {facts.lag_seconds:.1f} s, over {lag_seconds_max:.0f} s; confirm with accept_loss"
            )
    return reasons


def understand(event):
    """(action, confirmations) of an event, or None if it asks for nothing."""
    if event.get("source") == "aws.cloudwatch":
        alarm = event.get("alarmData", {}).get("state", {}).get("value")
        return ("failover", {}) if alarm == "ALARM" else None
    action = event.get("action")
    if action not in ("probe", "check", "switchover", "failover", "unfence"):
        raise ValueError(f"unknown action {action!r}: use probe, check, switchover, failover or unfence")
    confirmations = {}
    for name in ("force", "accept_loss", "accept_unfenced"):
        value = event.get(name, False)
        if not isinstance(value, bool):
            # "false" would confirm.
            raise ValueError(f"{name} must be true or false, not {value!r}")
        confirmations[name] = value
    return action, confirmations


def handler(event, context):
    understood = understand(event)
    if understood is None:
        return {"outcome": "nothing_to_do", "reasons": ["the alarm is not in state ALARM"]}
    settings = Settings.from_environment()
    remaining = lambda: context.get_remaining_time_in_millis() / 1000  # noqa: E731
    answer = asdict(Failover(settings, Clients.real(settings), remaining).run(*understood))
    print(json.dumps({"level": "INFO", **answer}))
    return answer
