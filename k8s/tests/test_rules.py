"""Alerts load into Prometheus, and the rollout's analyses judge right.

Each analysis is asked over made-up series of a good version and of bad ones, by
promtool's own engine, and its condition is applied to the answer: a bad version must be
given up for the reason it is bad, a good one kept.
"""

import json
import pathlib
import re
import subprocess
import tempfile
import unittest

import facts_metrics
from objects import load, named, of_kind

HASH = "abc123"
OF = f'namespace="engine",rollouts_pod_template_hash="{HASH}"'
OLD = OF.replace(HASH, "old")


def requests(status: str, per_15s: int, of=OF) -> tuple[str, str]:
    return f'engine_requests_total{{{of},route="transaction",status="{status}"}}', f"0+{per_15s}x60"


def latencies(under: dict[str, int], of=OF) -> list[tuple[str, str]]:
    """Per 15 s, how many answers took at most each bound."""
    name = f'engine_request_duration_seconds_bucket{{{of},route="transaction",status="2xx"'
    return [(f'{name},le="{bound}"}}', f"0+{count}x60") for bound, count in under.items()]


def transfers(outcome: str, per_15s: int, of=OF) -> tuple[str, str]:
    return f'engine_transfers_total{{{of},outcome="{outcome}",reason="none"}}', f"0+{per_15s}x60"


def steady(name: str, value: int, of=OF) -> tuple[str, str]:
    return f"{name}{{{of}}}", f"{value}+0x60"


GOOD = [
    steady("engine_ready", 1), steady("engine_task_panics_total", 0), requests("200", 1000), requests("422", 300), requests("500", 0),
    transfers("completed", 1000), transfers("failed", 0), *latencies({"0.1": 990, "0.25": 1000, "10": 1000, "+Inf": 1000}),
]  # fmt: skip
# The old version beside it is always bad: it must not be mistaken for the new one.
BESIDE = [steady("engine_ready", 0, OLD), steady("engine_task_panics_total", 3, OLD), requests("500", 500, OLD), transfers("failed", 500, OLD)]


def instead(*series):
    names = {it[0] for it in series}
    return [it for it in GOOD if it[0] not in names] + list(series)


def without(part: str):
    return [it for it in GOOD if part not in it[0]]


# (what, its series, the metrics that must say no)
VERSIONS = [
    ("good", GOOD, set()),
    ("without requests yet", [steady("engine_ready", 1), steady("engine_task_panics_total", 0)], set()),
    ("full, and saying so", [*GOOD, requests("503", 2000)], set()),
    ("one of its engines not ready", [*GOOD, (f'engine_ready{{{OF},pod="b"}}', "0+0x60")], {"ready"}),
    ("not to be measured", [], {"ready", "panics"}),
    ("without a word on readiness", without("engine_ready"), {"ready"}),
    ("panicked", instead(steady("engine_task_panics_total", 1)), {"panics"}),
    ("answers 500", instead(requests("500", 50)), {"server-errors"}),
    ("answers 504", [*GOOD, requests("504", 50)], {"server-errors"}),
    ("loses outcomes", instead(transfers("failed", 5)), {"unknown-outcomes"}),
    ("slow", [*without("duration"), *latencies({"0.1": 500, "0.25": 600, "10": 1000, "+Inf": 1000})], {"latency-p99"}),
]


def values_at(queries: list[str], series: list[tuple[str, str]]) -> list[list[float]]:
    """What Prometheus answers to each query ten minutes on; promtool tells by comparing with nothing."""
    test = {
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": [{"series": name, "values": values} for name, values in series],
                # An impossible expectation, so that every answer is printed, also an empty one.
                "promql_expr_test": [{"expr": query, "eval_time": "10m", "exp_samples": [{"labels": '{none="none"}', "value": 1}]} for query in queries],
            }
        ],
    }
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "test.json")
        path.write_text(json.dumps(test))
        done = subprocess.run(["promtool", "test", "rules", path], capture_output=True, text=True)
    # Newer ones print each sample on a line of its own.
    answers = re.findall(r"got:\s*(.*?)(?=\n\s*\n|\n\s*expr:|\Z)", done.stdout + done.stderr, re.S)
    if len(answers) != len(queries):
        raise AssertionError(f"{len(queries)} queries, {len(answers)} answers:\n{done.stdout}{done.stderr}")
    return [[float(it) for it in re.findall(r"\{[^}]*\} (\S+?),?(?=\s|$)", answer)] for answer in answers]


class Analyses(unittest.TestCase):
    def judge(self, environment: str, series) -> set[str]:
        metrics = [metric for it in of_kind(load(environment), "AnalysisTemplate") for metric in it["spec"]["metrics"]]
        queries = [metric["provider"]["prometheus"]["query"].replace("{{args.hash}}", HASH) for metric in metrics]
        answers = values_at(queries, series)
        return {metric["name"] for metric, answer in zip(metrics, answers, strict=True) if not facts_metrics.verdict(metric["successCondition"], answer)}

    def test_give_up_bad_versions_and_keep_good_ones(self):
        for what, series, expected in VERSIONS:
            with self.subTest(version=what):
                self.assertEqual(expected, self.judge("production-us-east-1", series + BESIDE))
        self.assertEqual(set(), self.judge("staging", GOOD))

    def test_that_mistake_the_label_are_noticed(self):
        """The fact that this test rests on: with another version's hash the good one is not found."""
        self.assertEqual({"ready", "panics"}, self.judge("staging", [(name.replace(HASH, "other"), values) for name, values in GOOD]))


class Alerts(unittest.TestCase):
    def check(self, groups) -> subprocess.CompletedProcess:
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "rules.json")
            path.write_text(json.dumps({"groups": groups}))
            return subprocess.run(["promtool", "check", "rules", path], capture_output=True, text=True)

    def test_of_the_rule_object_load_into_prometheus(self):
        groups = named(load("production-us-east-1"), "PrometheusRule", "engine")["spec"]["groups"]
        self.assertTrue(groups)
        done = self.check(groups)
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)
        groups[0]["rules"][0]["expr"] += " and ("
        self.assertNotEqual(0, self.check(groups).returncode)


if __name__ == "__main__":
    unittest.main()
