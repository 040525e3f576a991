"""A DNS server that answers from moto's Route 53, failover and health checks included.

    AWS_ENDPOINT_URL=... dns.py PORT HEALTH_URL

A region is healthy if HEALTH_URL answers 200 and its check is neither inverted nor disabled, or if
it does not answer and its check is inverted. Route 53's own probes, delays and latency are absent.
"""

import sys
import time
import urllib.request

import boto3
from dnslib import QTYPE, RR, A
from dnslib.server import BaseResolver, DNSServer


class Route53(BaseResolver):
    def __init__(self, health_url):
        self.route53 = boto3.client("route53", region_name="us-east-1")
        self.health_url = health_url

    def healthy(self, check):
        try:
            with urllib.request.urlopen(self.health_url, timeout=2) as answer:
                well = answer.status == 200
        except OSError:
            well = False
        config = self.route53.get_health_check(HealthCheckId=check)["HealthCheck"]["HealthCheckConfig"]
        return well != bool(config.get("Inverted"))

    def resolve(self, request, handler):
        reply = request.reply()
        name = str(request.q.qname).rstrip(".")
        zone = self.route53.list_hosted_zones()["HostedZones"][0]["Id"]
        records = self.route53.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
        found = [r for r in records if r["Name"].rstrip(".") == name and r["Type"] == "A"]
        # PRIMARY sorts before SECONDARY; as Route 53, the last resort is the primary.
        found.sort(key=lambda r: r.get("Failover", ""))
        chosen = [r for r in found if "HealthCheckId" not in r or self.healthy(r["HealthCheckId"])] or found
        for record in chosen[:1]:
            for value in record["ResourceRecords"]:
                reply.add_answer(RR(request.q.qname, QTYPE.A, ttl=record["TTL"], rdata=A(value["Value"])))
        return reply


if __name__ == "__main__":
    DNSServer(Route53(sys.argv[2]), port=int(sys.argv[1]), address="127.0.0.1").start_thread()
    print("ready", flush=True)
    time.sleep(3600)
