"""Makes in the emulator what terraform/ would have made, and prints its outputs.

    world.py HEALTH_PORT     HEALTH_PORT answers /health of both regions

Names and nesting are those of terraform/modules/deployment/outputs.tf; test_outputs.py compares.
"""

import io
import json
import pathlib
import sys
import zipfile

import boto3

ROOT = pathlib.Path(__file__).resolve().parents[4]
EAST, WEST = "us-east-1", "us-west-2"
NAME = "engine-production"
DOMAIN = "api.example.com"
ADDRESSES = {EAST: "192.0.2.1", WEST: "192.0.2.2"}


def client(service, region=EAST):
    return boto3.client(service, region_name=region)


def database():
    client("rds").create_global_cluster(GlobalClusterIdentifier=NAME, Engine="aurora-postgresql", StorageEncrypted=True)
    clusters = {}
    for region in (EAST, WEST):
        rds = client("rds", region)
        # The account's own password is made up, as in every request of this file.
        first = {"MasterUsername": "ledger_admin", "MasterUserPassword": "made-up-password"} if region == EAST else {}
        clusters[region] = rds.create_db_cluster(
            DBClusterIdentifier=f"{NAME}-{region}", Engine="aurora-postgresql", EngineVersion="15.10", GlobalClusterIdentifier=NAME,
            BackupRetentionPeriod=7, DeletionProtection=True, StorageEncrypted=True, **first,
        )["DBCluster"]["DBClusterArn"]  # fmt: skip
        for number in (1, 2):
            rds.create_db_instance(
                DBInstanceIdentifier=f"{NAME}-{region}-{number}", DBClusterIdentifier=f"{NAME}-{region}",
                DBInstanceClass="db.r8g.large", Engine="aurora-postgresql",
            )  # fmt: skip
    return clusters


def dns():
    route53 = client("route53")
    zone = route53.create_hosted_zone(Name="example.com", CallerReference="1")["HostedZone"]["Id"]
    checks, changes = {}, []
    for region, role in ((EAST, "PRIMARY"), (WEST, "SECONDARY")):
        checks[region] = route53.create_health_check(
            CallerReference=region,
            HealthCheckConfig={"Type": "HTTPS", "FullyQualifiedDomainName": f"{region}.{DOMAIN}", "ResourcePath": "/health", "Port": 443},
        )["HealthCheck"]["Id"]
        address = {"Type": "A", "TTL": 60, "ResourceRecords": [{"Value": ADDRESSES[region]}]}
        changes.append({"Name": f"{region}.{DOMAIN}", **address})
        changes.append({"Name": DOMAIN, "SetIdentifier": region, "Failover": role, "HealthCheckId": checks[region], **address})
    route53.change_resource_record_sets(
        HostedZoneId=zone, ChangeBatch={"Changes": [{"Action": "CREATE", "ResourceRecordSet": record} for record in changes]}
    )
    return zone.rsplit("/", 1)[1], checks


def cache(region):
    client("elasticache", region).create_replication_group(
        ReplicationGroupId=f"{NAME}-{region}", ReplicationGroupDescription="cache", Engine="redis", ReplicasPerNodeGroup=1,
        AutomaticFailoverEnabled=True, CacheNodeType="cache.r7g.large",
    )  # fmt: skip
    return {"id": f"{NAME}-{region}", "endpoint": f"master.{NAME}-{region}.cache.amazonaws.com"}


def network(region):
    ec2 = client("ec2", region)
    vpc = ec2.create_vpc(CidrBlock="10.10.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.10.112.0/24")["Subnet"]["SubnetId"]
    acls = [ec2.create_network_acl(VpcId=vpc)["NetworkAcl"]["NetworkAclId"] for _ in range(2)]
    return vpc, subnet, acls


def function(region, clusters, health_port, peers):
    peer = WEST if region == EAST else EAST
    role = client("iam").create_role(RoleName=f"failover-{region}", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    topic = client("sns", region).create_topic(Name="alarms")["TopicArn"]
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.write(ROOT / "terraform/modules/failover/lambda/failover.py", "failover.py")
    _, subnet, (serving, fence) = peers[peer]
    client("lambda", region).create_function(
        FunctionName=f"{NAME}-failover", Runtime="python3.12", Role=role, Handler="failover.handler", Code={"ZipFile": code.getvalue()},
        Environment={"Variables": {
            "GLOBAL_CLUSTER_ID": NAME, "OWN_REGION": region, "OWN_CLUSTER_ARN": clusters[region], "PEER_REGION": peer,
            "PEER_CLUSTER_ARN": clusters[peer], "PEER_HEALTH_URL": f"http://127.0.0.1:{health_port}/health",
            "PEER_SUBNET_IDS": subnet, "PEER_SERVING_ACL_ID": serving, "PEER_FENCE_ACL_ID": fence, "TOPIC_ARN": topic,
            "METRIC_NAMESPACE": "Engine/Failover", "LAG_SECONDS_MAX": "30",
        }},
    )  # fmt: skip
    return f"{NAME}-failover"


def backups(region):
    s3 = client("s3", region)
    bucket = f"{NAME}-backups-{region}"
    where = {} if region == EAST else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True, **where)
    s3.put_bucket_encryption(
        Bucket=bucket,
        ServerSideEncryptionConfiguration={"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}]},
    )
    for name in ("dump/toc.dat", "manifest.json"):
        s3.put_object(Bucket=bucket, Key=f"logical/2026-01-31T03-00-00Z/{name}", Body=b"{}")
    return bucket


def main(health_port):
    clusters = database()
    zone, checks = dns()
    networks = {region: network(region) for region in (EAST, WEST)}
    secrets = {}
    for role in ("master", "owner", "app", "read", "redis", "loadtest"):
        secrets[role] = f"{NAME}/redis" if role == "redis" else f"{NAME}/database/{role}"
        client("secretsmanager").create_secret(
            Name=secrets[role], SecretString='{"username": "engine_app", "password": "made-up"}', AddReplicaRegions=[{"Region": WEST}]
        )
    regions = {}
    for region in (EAST, WEST):
        client("eks", region).create_cluster(
            name=f"{NAME}-{region}", roleArn="arn:aws:iam::123456789012:role/eks", resourcesVpcConfig={"subnetIds": []}
        )
        regions[region] = {
            "cluster": {"name": f"{NAME}-{region}", "endpoint": "https://cluster.invalid", "autoscaling_groups": {}},
            "role_arns": {"secrets": f"arn:aws:iam::123456789012:role/{region}-secrets", "backup": f"arn:aws:iam::123456789012:role/{region}-backup"},
            "target_group_name": "engine", "load_balancer": "lb.invalid", "name": f"{region}.{DOMAIN}",
            "health_url": f"http://127.0.0.1:{health_port}/health", "cache": cache(region),
            "bucket_names": {"logs": "logs", "edge": "edge"}, "bastion_id": "i-0123456789abcdef0",
            "topic_arn": f"arn:aws:sns:{region}:123456789012:alarms", "vpc_id": networks[region][0],
            "database_cidrs": [f"10.{10 if region == EAST else 20}.{n}.0/24" for n in (112, 113, 114)],
        }  # fmt: skip
    outputs = {
        "regions": regions, "primary_region": EAST, "secondary_region": WEST, "domain_name": DOMAIN, "zone": {"id": zone},
        "health_check_ids": checks,
        "database": {
            "global_cluster_id": NAME, "writer_endpoint": f"{NAME}.global-x.global.rds.amazonaws.com", "port": 5432, "name": "ledger",
            "clusters": clusters, "reader_endpoints": {r: f"{NAME}-{r}.cluster-ro-x.{r}.rds.amazonaws.com" for r in (EAST, WEST)},
        },
        "secret_names": secrets, "global_datastore_id": None,
        "failover_functions": {region: function(region, clusters, health_port, networks) for region in (EAST, WEST)},
        "backups": {"buckets": {region: backups(region) for region in (EAST, WEST)}, "vaults": {}},
        "image_repositories": {NAME: f"123456789012.dkr.ecr.us-east-1.amazonaws.com/{NAME}"}, "ci_role_arns": {},
    }  # fmt: skip
    print(json.dumps({name: {"value": value, "sensitive": False} for name, value in outputs.items()}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
