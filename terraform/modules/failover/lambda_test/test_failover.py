"""Every decision of the failover function, both sides.

The fakes check each call's parameters against botocore's own model of the API, so that a misspelt
parameter fails here and not on the day of the failover. EC2's part runs against moto.
"""

import os
import pathlib
import re
import sys
import unittest

import boto3
import botocore.session
from botocore.exceptions import ClientError, ConnectTimeoutError
from botocore.validate import ParamValidator
from moto import mock_aws

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "lambda"))
import failover  # noqa: E402

OWN = "arn:aws:rds:us-west-2:123456789012:cluster:engine-us-west-2"
PEER = "arn:aws:rds:us-east-1:123456789012:cluster:engine-us-east-1"
SETTINGS = failover.Settings(
    global_cluster_id="engine",
    own_region="us-west-2",
    own_cluster_arn=OWN,
    peer_region="us-east-1",
    peer_cluster_arn=PEER,
    peer_health_url="https://us-east-1.api.example.com/health",
    peer_subnet_ids=("subnet-a", "subnet-b", "subnet-c"),
    peer_serving_acl_id="acl-serving",
    peer_fence_acl_id="acl-fence",
    topic_arn="arn:aws:sns:us-west-2:123456789012:alarms",
    metric_namespace="Engine/Failover",
    lag_seconds_max=5,
)
REFUSED = ClientError({"Error": {"Code": "InvalidGlobalClusterStateFault", "Message": "busy"}}, "Any")
NO_ANSWER = ConnectTimeoutError(endpoint_url="https://rds.us-east-1.amazonaws.com")


class Api:
    """A service's client: answers from a table, checks parameters, remembers calls."""

    session = botocore.session.get_session()

    def __init__(self, world, service, **answers):
        self.world, self.service, self.answers = world, service, answers
        self.model = self.session.get_service_model(service)

    def __getattr__(self, name):
        def call(**parameters):
            operation = next(o for o in self.model.operation_names if botocore.xform_name(o) == name)
            report = ParamValidator().validate(parameters, self.model.operation_model(operation).input_shape)
            if report.has_errors():
                raise AssertionError(f"{self.service}.{name}: {report.generate_report()}")
            self.world.calls.append((name, parameters))
            answer = self.answers[name]
            answer = answer(parameters) if callable(answer) else answer
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call


class World:
    """Two regions, the clock, and what the function did to them."""

    def __init__(self, **changes):
        self.calls = []
        self.writer = PEER
        self.status = "available"
        self.own_status = "available"
        self.peer_status = "failing"
        self.health = [None]
        self.lag_ms = [800.0, 1200.0]
        self.lag_dimensions = [[{"Name": "SourceRegion", "Value": "us-east-1"}]]
        self.acls = dict.fromkeys(SETTINGS.peer_subnet_ids, "acl-serving")
        self.promotion = "works"
        self.fence_works = True
        self.clock = 0.0
        for name, value in changes.items():
            getattr(self, name)  # a misspelt change is an error
            setattr(self, name, value)

    def did(self, name):
        return [parameters for called, parameters in self.calls if called == name]

    def promote(self, _parameters):
        if isinstance(self.promotion, Exception):
            return self.promotion
        if self.promotion == "works":
            self.writer = OWN
        return {}

    def associations(self, _parameters):
        if not self.fence_works:
            return NO_ANSWER
        return {
            "NetworkAcls": [
                {"NetworkAclId": acl, "Associations": [{"NetworkAclAssociationId": f"assoc-{subnet}", "SubnetId": subnet}]}
                for subnet, acl in self.acls.items()
            ]
        }

    def replace(self, parameters):
        self.acls[parameters["AssociationId"].removeprefix("assoc-")] = parameters["NetworkAclId"]
        return {}

    def lag(self, parameters):
        other = {"Name": "DBClusterIdentifier", "Value": "another"} in parameters["Dimensions"]
        return {"Datapoints": [{"Maximum": 1e9}] if other else [{"Maximum": value} for value in self.lag_ms]}

    def cluster(self, status):
        return lambda _: status if isinstance(status, Exception) else {"DBClusters": [{"Status": status}]}

    def sleep(self, seconds):
        self.clock += seconds

    def clients(self):
        members = lambda _: {  # noqa: E731
            "GlobalClusters": [
                {
                    "Status": self.status,
                    "GlobalClusterMembers": [{"DBClusterArn": arn, "IsWriter": arn == self.writer} for arn in (OWN, PEER)],
                }
            ]
        }
        health = iter(self.health * 100)
        return failover.Clients(
            rds=Api(
                self,
                "rds",
                describe_global_clusters=members,
                describe_db_clusters=self.cluster(self.own_status),
                failover_global_cluster=self.promote,
            ),
            peer_rds=Api(
                self, "rds", describe_db_clusters=self.cluster(self.peer_status), switchover_global_cluster=self.promote
            ),
            peer_ec2=Api(
                self, "ec2", describe_network_acls=self.associations, replace_network_acl_association=self.replace
            ),
            cloudwatch=Api(
                self,
                "cloudwatch",
                list_metrics={"Metrics": [{"Dimensions": dimensions} for dimensions in self.lag_dimensions]},
                get_metric_statistics=self.lag,
                put_metric_data={},
            ),
            sns=Api(self, "sns", publish={}),
            get_status=lambda url: next(health),
            now=lambda: self.clock,
            sleep=self.sleep,
        )

    def run(self, action, seconds=900, **confirmations):
        return failover.Failover(SETTINGS, self.clients(), lambda: seconds - self.clock).run(action, confirmations)


class FailoverTest(unittest.TestCase):
    def check(self, world, answer, outcome, promoted, acls):
        self.assertEqual(answer.outcome, outcome, answer)
        self.assertEqual(len(world.did("failover_global_cluster")), promoted, world.calls)
        self.assertEqual(set(world.acls.values()), {acls})

    def test_a_lost_region_is_fenced_first_and_then_this_one_is_promoted(self):
        world = World()
        answer = world.run("failover")
        self.check(world, answer, "done", promoted=1, acls="acl-fence")
        self.assertEqual(answer.fence, "up")
        order = [name for name, _ in world.calls if name in ("replace_network_acl_association", "failover_global_cluster")]
        self.assertEqual(order, ["replace_network_acl_association"] * 3 + ["failover_global_cluster"])
        self.assertEqual(
            world.did("failover_global_cluster")[0],
            {"GlobalClusterIdentifier": "engine", "TargetDbClusterIdentifier": OWN, "AllowDataLoss": True},
        )
        self.assertEqual(len(world.did("publish")), 1)

    def test_a_region_that_answers_is_not_taken_from(self):
        for health in ([200], [None, 200], [503, None, 200]):
            world = World(health=health)
            self.check(world, world.run("failover"), "refused", promoted=0, acls="acl-serving")

    def test_a_database_that_runs_is_not_taken_from_because_its_engines_do_not(self):
        world = World(peer_status="available")
        self.check(world, world.run("failover"), "refused", promoted=0, acls="acl-serving")

    def test_force_lifts_that_refusal_and_no_other(self):
        world = World(health=[200], peer_status="available")
        self.check(world, world.run("failover", force=True), "done", promoted=1, acls="acl-fence")
        world = World(own_status="stopped")
        self.check(world, world.run("failover", force=True), "refused", promoted=0, acls="acl-serving")

    def test_the_lag_is_bounded_on_both_sides(self):
        for lag, outcome in (([5000.0], "done"), ([5001.0], "refused"), ([], "refused"), ([0.0], "done")):
            world = World(lag_ms=lag)
            self.assertEqual(world.run("failover").outcome, outcome, lag)
            self.assertEqual(World(lag_ms=lag).run("failover", accept_loss=True).outcome, "done", lag)

    def test_the_lag_is_found_under_whatever_dimensions_and_not_in_another_cluster(self):
        own = {"Name": "DBClusterIdentifier", "Value": "engine-us-west-2"}
        another = {"Name": "DBClusterIdentifier", "Value": "another"}
        region = {"Name": "SourceRegion", "Value": "us-east-1"}
        for dimensions, outcome in (([[own]], "done"), ([[own, region], [another, region]], "done"), ([[another]], "refused"), ([], "refused")):
            self.assertEqual(World(lag_dimensions=dimensions).run("failover").outcome, outcome, dimensions)

    def test_a_writer_that_cannot_be_fenced_is_not_replaced_unless_accepted(self):
        world = World(fence_works=False)
        self.check(world, world.run("failover"), "refused", promoted=0, acls="acl-serving")
        world = World(fence_works=False)
        answer = world.run("failover", accept_unfenced=True)
        self.check(world, answer, "done", promoted=1, acls="acl-serving")
        self.assertIn("without a fence", " ".join(answer.reasons))

    def test_a_fence_around_some_of_the_subnets_is_none(self):
        world = World(acls={"subnet-a": "acl-serving", "subnet-b": "acl-serving"})
        self.check(world, world.run("failover"), "refused", promoted=0, acls="acl-serving")

    def test_a_promotion_that_was_refused_takes_the_fence_down_again(self):
        world = World(promotion=REFUSED)
        answer = world.run("failover")
        self.check(world, answer, "refused", promoted=1, acls="acl-serving")
        self.assertEqual(answer.fence, "down")

    def test_a_promotion_whose_fate_is_unknown_keeps_the_fence(self):
        world = World(promotion=NO_ANSWER)
        self.check(world, world.run("failover"), "unknown", promoted=1, acls="acl-fence")

    def test_a_promotion_that_takes_too_long_is_told_and_not_repeated(self):
        world = World(promotion="hangs")
        self.check(world, world.run("failover", seconds=120), "running", promoted=1, acls="acl-fence")

    def test_the_writer_itself_does_nothing(self):
        world = World(writer=OWN)
        self.check(world, world.run("failover", force=True), "nothing_to_do", promoted=0, acls="acl-serving")

    def test_nothing_happens_while_aurora_is_busy(self):
        world = World(status="failing-over")
        self.check(world, world.run("failover", force=True), "refused", promoted=0, acls="acl-serving")

    def test_a_lost_api_of_the_peer_counts_as_a_sign(self):
        world = World(peer_status=NO_ANSWER)
        self.check(world, world.run("failover"), "done", promoted=1, acls="acl-fence")

    def test_check_answers_as_failover_would_and_changes_nothing(self):
        for changes in ({}, {"health": [200]}, {"lag_ms": []}):
            world = World(**changes)
            answer = world.run("check")
            self.assertEqual(answer.outcome, World(**changes).run("failover").outcome)
            changing = [name for name, _ in world.calls if not name.startswith(("describe", "get", "list"))]
            self.assertEqual(changing, [])


class SwitchoverTest(unittest.TestCase):
    def test_two_regions_that_are_well_swap_without_a_fence(self):
        world = World(peer_status="available", health=[200])
        answer = world.run("switchover")
        self.assertEqual((answer.outcome, answer.fence), ("done", "untouched"))
        self.assertEqual(world.did("failover_global_cluster"), [])
        self.assertEqual(len(world.did("switchover_global_cluster")), 1)

    def test_a_region_that_is_not_well_is_not_swapped(self):
        for changes in ({"peer_status": "failing"}, {"own_status": "stopped"}, {"status": "failing-over"}):
            world = World(**{"peer_status": "available", "health": [200], **changes})
            self.assertEqual(world.run("switchover").outcome, "refused")
            self.assertEqual(world.did("switchover_global_cluster"), [])

    def test_a_refusal_and_a_lost_answer_are_told_apart(self):
        for promotion, outcome in ((REFUSED, "refused"), (NO_ANSWER, "unknown")):
            world = World(peer_status="available", health=[200], promotion=promotion)
            self.assertEqual(world.run("switchover").outcome, outcome)


class UnfenceTest(unittest.TestCase):
    def fenced(self, **changes):
        return World(acls=dict.fromkeys(SETTINGS.peer_subnet_ids, "acl-fence"), **changes)

    def test_the_fence_stays_while_the_old_writer_may_write(self):
        world = self.fenced(writer=PEER)
        self.assertEqual(world.run("unfence").outcome, "refused")
        self.assertEqual(set(world.acls.values()), {"acl-fence"})

    def test_the_fence_falls_once_this_region_is_the_only_writer(self):
        world = self.fenced(writer=OWN)
        answer = world.run("unfence")
        self.assertEqual((answer.outcome, answer.fence), ("done", "down"))
        self.assertEqual(set(world.acls.values()), {"acl-serving"})


class ProbeTest(unittest.TestCase):
    def metric(self, **changes):
        world = World(**changes)
        world.run("probe")
        return world.did("put_metric_data")[0]["MetricData"][0]["Value"]

    def test_the_metric_follows_the_writers_region(self):
        self.assertEqual(self.metric(health=[200]), 1.0)
        self.assertEqual(self.metric(health=[503]), 0.0)
        self.assertEqual(self.metric(health=[None]), 0.0)
        self.assertEqual(self.metric(health=[None], writer=OWN), 1.0)


class EventTest(unittest.TestCase):
    def test_an_alarm_asks_for_a_failover_without_confirmations(self):
        event = {"source": "aws.cloudwatch", "alarmData": {"state": {"value": "ALARM"}}, "force": True}
        self.assertEqual(failover.understand(event), ("failover", {}))

    def test_an_alarm_that_ended_asks_for_nothing(self):
        self.assertIsNone(failover.understand({"source": "aws.cloudwatch", "alarmData": {"state": {"value": "OK"}}}))

    def test_what_is_not_understood_is_refused(self):
        for event in ({}, {"action": "promote"}, {"action": "failover", "force": "false"}, {"action": "failover", "accept_loss": 1}):
            with self.assertRaises(ValueError):
                failover.understand(event)


class FenceAgainstEc2Test(unittest.TestCase):
    """The fence's calls on moto's EC2: lists and subnets as AWS answers them."""

    @mock_aws
    def test_the_fence_goes_up_and_down_and_up_again(self):
        os.environ.update(AWS_ACCESS_KEY_ID="x", AWS_SECRET_ACCESS_KEY="x")
        ec2 = boto3.client("ec2", region_name="us-east-1")
        vpc = ec2.create_vpc(CidrBlock="10.10.0.0/16")["Vpc"]["VpcId"]
        subnets = [ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.10.{i}.0/24")["Subnet"]["SubnetId"] for i in range(4)]
        serving, fence = (ec2.create_network_acl(VpcId=vpc)["NetworkAcl"]["NetworkAclId"] for _ in range(2))
        settings = failover.Settings(
            **{
                **SETTINGS.__dict__,
                "peer_subnet_ids": tuple(subnets[:3]),
                "peer_serving_acl_id": serving,
                "peer_fence_acl_id": fence,
            }
        )
        clients = failover.Clients(
            **{**World().clients().__dict__, "peer_ec2": ec2},
        )
        machine = failover.Failover(settings, clients, lambda: 900)
        before = dict(self.lists(ec2))[subnets[3]]
        for acl, wanted in ((serving, "down"), (fence, "up"), (fence, "up"), (serving, "down")):
            self.assertEqual(machine.set_fence(acl, wanted), wanted)
            held = dict(self.lists(ec2))
            self.assertEqual({held[subnet] for subnet in subnets[:3]}, {acl})
            self.assertEqual(held[subnets[3]], before, "a subnet of another tier was touched")

    def lists(self, ec2):
        for acl in ec2.describe_network_acls()["NetworkAcls"]:
            for association in acl["Associations"]:
                yield association["SubnetId"], acl["NetworkAclId"]


class PolicyTest(unittest.TestCase):
    """Whether AWS would let it: ops/terraform-iam holds the policy's resources against each action."""

    def test_the_role_allows_every_call_that_the_code_makes(self):
        module = pathlib.Path(failover.__file__).parent.parent
        calls = set(re.findall(r"\bclient(?:s\.(?:peer_)?(\w+))?\.([a-z_]+)\(", pathlib.Path(failover.__file__).read_text()))
        # The two clusters' status is asked of a client that is handed in.
        calls = {(service or "rds", method) for service, method in calls if method not in ("get_status", "now", "sleep")}
        self.assertIn(("ec2", "replace_network_acl_association"), calls)
        self.assertGreaterEqual(len(calls), 10, calls)
        policy = (module / "main.tf").read_text()
        for service, method in calls:
            model = Api.session.get_service_model(service)
            operation = next(name for name in model.operation_names if botocore.xform_name(name) == method)
            self.assertIn(f'"{service}:{operation}"', policy)


if __name__ == "__main__":
    unittest.main()
