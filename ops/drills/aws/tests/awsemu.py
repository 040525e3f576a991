"""moto's server, and the few calls of the drills that it lacks.

    AWS_ENDPOINT_URL=http://127.0.0.1:PORT awsemu.py -p PORT

Owns: global database switches, ElastiCache's failover, running a function's code for real.
Never: stands for AWS's time, permissions or refusals. Patches insides of moto: its version is pinned.
"""

import io
import json
import os
import subprocess
import sys
import tempfile
import zipfile

from moto.awslambda.models import LambdaFunction
from moto.core.responses import ActionResult
from moto.elasticache.responses import ElastiCacheResponse
from moto.rds.exceptions import DBClusterNotFoundError
from moto.rds.responses import RDSResponse
from moto.server import main

# The function is told, as by Lambda, that it has a minute.
RUN = """
import json, sys, {module} as module
class Context:
    def get_remaining_time_in_millis(self): return 60_000
print(json.dumps(module.{function}(json.load(sys.stdin), Context())))
"""


def switch(self):
    cluster = self.global_backend.global_clusters[self.params["GlobalClusterIdentifier"]]
    target = self.params["TargetDbClusterIdentifier"]
    if target not in [member.db_cluster_arn for member in cluster.members]:
        raise DBClusterNotFoundError(target)
    for member in cluster.members:
        member.is_writer = member.db_cluster_arn == target
    return ActionResult({"GlobalCluster": cluster})


def test_failover(self):
    """The next node takes over (moto makes replicas for ReplicasPerNodeGroup only)."""
    group = self.elasticache_backend.replication_groups[self.params["ReplicationGroupId"]]
    members = group.node_groups[0]["node_group_members"]
    roles = [member["current_role"] for member in members]
    for member, role in zip(members, roles[1:] + roles[:1]):
        member["current_role"] = role
    return ActionResult({"ReplicationGroup": group})


def invoke(self, event=None):
    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(io.BytesIO(self.code_bytes)).extractall(folder)
        module, function = self.handler.rsplit(".", 1)
        done = subprocess.run(
            [sys.executable, "-c", RUN.format(module=module, function=function)],
            cwd=folder, env={**os.environ, **self.environment_vars, "AWS_REGION": self.region}, text=True, capture_output=True,
            timeout=60, input=event if isinstance(event, str) and event else json.dumps(event or {}),
        )  # fmt: skip
    if done.returncode:
        return json.dumps({"errorMessage": done.stderr.strip().splitlines()[-1]}), True, done.stderr
    return done.stdout.strip().splitlines()[-1], False, done.stderr


RDSResponse.failover_global_cluster = RDSResponse.switchover_global_cluster = switch
ElastiCacheResponse.test_failover = test_failover
LambdaFunction._invoke_lambda = invoke

if __name__ == "__main__":
    main(sys.argv[1:])
