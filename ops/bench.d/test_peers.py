"""Tests of ops/bench loadtest that need no client and no network."""

import ast
import contextlib
import io
import json
import re
import sys
import tempfile
import unittest
from pathlib import Path
from types import SimpleNamespace

import locust_venv
import peers
import peers_report
import peers_sides
from cores import Cores, parse_list, pinned
from database import BenchError

HERE = Path(__file__).parent
LOCUSTFILE = HERE.parents[1] / "loadtest" / "examples" / "locustfile.py"


def runs(field, *values, **more):
    return [{"value": 1.0, "unit": "req/s"} | {field: value} | more for value in values]


def locust_row(**changes):
    row = {
        "num_requests": 300,
        "num_failures": 0,
        "start_time": 10.0,
        "last_request_timestamp": 12.0,
        "response_times": {"2": 297, "40.0": 3},
    }
    return row | changes


class Outputs(unittest.TestCase):
    def test_the_json_line_of_wrk_is_found_below_its_report(self):
        line = {"requests": 10, "duration_us": 5, "p50_us": 1, "p99_us": 2, "errors": 0}
        output = f"Running 1s test\n{json.dumps(line)}\n"
        self.assertEqual(peers_sides.parse_wrk(output), line)

    def test_a_wrk_that_failed_or_said_nothing_is_refused(self):
        for bad in (
            "",
            "Running 1s test",
            '{"requests":10,"errors":1}',
            '{"requests":0,"errors":0}',
        ):
            with self.assertRaises(BenchError):
                peers_sides.parse_wrk(bad)

    def test_the_rate_of_locust_counts_from_its_reset_to_its_last_request(self):
        other = locust_row(start_time=9.0, num_requests=30, response_times={"2": 30})
        figures = peers_sides.parse_locust(json.dumps([locust_row(), other]))
        self.assertEqual((figures["rate"], figures["requests"]), (110.0, 330))

    def test_quantiles_are_of_all_answers(self):
        figures = peers_sides.parse_locust(json.dumps([locust_row()]))
        self.assertEqual((figures["p50_ms"], figures["p99_ms"]), (2.0, 2.0))
        slow = locust_row(response_times={"2": 296, "40.0": 4})
        self.assertEqual(peers_sides.parse_locust(json.dumps([slow]))["p99_ms"], 40.0)

    def test_a_locust_that_failed_or_said_nothing_is_refused(self):
        failed = json.dumps([locust_row(num_failures=1)])
        for bad in ("", "Traceback", "[]", failed):
            with self.assertRaises(BenchError):
                peers_sides.parse_locust(bad)


class Usage(unittest.TestCase):
    def test_cpu_time_is_read_behind_a_name_with_spaces_and_brackets(self):
        fields = ["S", *"0" * 10, "150", "50", "0"]
        stat = f"7 (a (b) c) {' '.join(fields)}"
        self.assertEqual(peers_sides.cpu_seconds(stat) * peers_sides.TICKS, 200)

    def test_shares_are_of_the_measured_seconds_and_not_of_the_start(self):
        usage = peers_sides.Usage(0, 0)
        # 90 s to connect for nothing, then half a core for ten, but for their last second.
        for moment in range(1001):
            cpu = min(max(moment - 900, 0), 90) / 20
            usage.points.append((moment / 10, cpu, cpu / 2))
        client, target = usage.shares(10)
        self.assertAlmostEqual(client, 0.5)
        self.assertAlmostEqual(target, 0.25)

    def test_shares_of_too_little_are_refused(self):
        usage = peers_sides.Usage(0, 0)
        for points in ([], [(1.0, 0.0, 0.0)]):
            usage.points = points
            with self.assertRaises(BenchError):
                usage.shares(1)


class Ratios(unittest.TestCase):
    def rows(self, **samples):
        return {row["name"]: row for row in peers_report.ratios(samples)}

    def test_each_round_is_compared_with_itself(self):
        # A machine that halves its speed after the first round changes no ratio.
        both = {"cpu_us": 1.0}
        rows = self.rows(
            loadtest=runs("value", 100.0, 50.0, 50.0, **both),
            wrk=runs("value", 100.0, 50.0, 60.0, **both),
        )
        row = rows["requests per second, against wrk"]
        self.assertEqual((row["ratio"], row["range"][1]), (1.0, 1.0))

    def test_both_sides_of_the_bounds(self):
        for name, base, values in (
            ("requests per second, against wrk", "wrk", (79.9, 80.0)),
            ("requests per second, against Locust", "locust", (2_999.0, 3_000.0)),
        ):
            for value, expected in zip(values, ("short", "met")):
                samples = {"loadtest": runs("value", value, cpu_us=1.0)}
                samples[base] = runs("value", 100.0, cpu_us=1.0)
                self.assertEqual(self.rows(**samples)[name]["verdict"], expected, value)

    def test_less_cpu_per_request_is_a_higher_ratio(self):
        rows = self.rows(loadtest=runs("cpu_us", 4.0), wrk=runs("cpu_us", 5.0))
        self.assertEqual(rows["requests per second of CPU, against wrk"]["ratio"], 1.25)

    def test_a_missing_side_makes_no_row(self):
        self.assertEqual(self.rows(loadtest=runs("cpu_us", 4.0)), {})

    def test_both_sides_of_the_limits(self):
        for rss, held, expected in ((299.9, 0.999, "met"), (300.0, 0.9989, "short")):
            samples = {
                "users-10000": runs("rss_mib", rss),
                "open": runs("held", held, lag_p99_ms=1.0 if expected == "met" else 1.1),
            }
            verdicts = {row["verdict"] for row in peers_report.limits(samples)}
            self.assertEqual(verdicts, {expected})

    def test_every_side_a_row_names_exists(self):
        named = {side for _, side, base, *_ in peers_report.RATIOS for side in (side, base)}
        named |= {side for _, side, *_ in peers_report.LIMITS}
        self.assertEqual(named - set(peers_sides.SIDES), set())
        self.assertEqual(set(peers_sides.MEANING), set(peers_sides.SIDES))


class Text(unittest.TestCase):
    def document(self, samples):
        host = dict.fromkeys(("date", "commit", "processor", "cores", "memory_mib", "system"), "x")
        return {
            "machine": host | {"load_before": 0.0},
            "versions": {"wrk": "wrk 4 [epoll]", "locust": "locust 2.47.0 from /x"},
            "cores": "x",
            "run": {"rounds": 1, "seconds": 1},
            "overhead": {"clock_ns": 20.0, "recording_ns": 10.0},
            "samples": samples,
            "ratios": peers_report.ratios(samples),
            "limits": peers_report.limits(samples),
            "failures": {},
        }

    def test_whose_limit_a_rate_is_and_what_timing_costs_is_said(self):
        full = runs("cpu_us", 5.0, client_cpu=0.8, target_cpu=0.95, rss_mib=1.0)
        text = peers_report.text(self.document({"loadtest": full, "wrk": []}))
        self.assertIn("loadtest: the target's core was full", text)
        self.assertIn("1.0% of the 5.00 us", text)
        self.assertIn("locust 2.47.0\n", text)
        own = runs("cpu_us", 5.0, client_cpu=0.95, target_cpu=0.95, rss_mib=1.0)
        text = peers_report.text(self.document({"loadtest": own}))
        self.assertNotIn("core was full", text)

    def test_a_run_in_which_all_failed_still_prints(self):
        document = self.document({"wrk": []}) | {"failures": {"wrk": "gone"}}
        self.assertIn("FAILED wrk: gone", peers_report.text(document))


class Rounds(unittest.TestCase):
    def test_every_other_round_runs_backwards_and_a_failure_is_left_out(self):
        calls = []

        def runner(name):
            def side(_context):
                calls.append(name)
                if name == "open":
                    raise BenchError("no")
                return {"value": 1.0, "unit": "req/s"}

            return side

        chosen = ["wrk", "loadtest", "open"]
        runners = peers_sides.RUNNERS
        peers_sides.RUNNERS = {name: runner(name) for name in chosen}
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                failures, samples = peers.measure(None, chosen, 2)
        finally:
            peers_sides.RUNNERS = runners
        self.assertEqual(calls, ["wrk", "loadtest", "open", "loadtest", "wrk"])
        self.assertEqual(failures, {"open": "no"})
        self.assertEqual([len(samples[name]) for name in chosen], [2, 2, 0])

    def test_bad_options_are_usage_errors(self):
        for bad in (["--rounds", "0"], ["--only", "nothing"], ["--json", "/no/such/folder/x"]):
            with contextlib.redirect_stderr(io.StringIO()), self.assertRaises(SystemExit) as stop:
                peers.parse(bad)
            self.assertEqual(stop.exception.code, 64, bad)

    def test_sides_keep_their_order(self):
        self.assertEqual(peers.parse(["--only", "locust,wrk"]).sides, ["wrk", "locust"])
        self.assertEqual(peers.parse([]).sides, peers_sides.SIDES)


class Processes(unittest.TestCase):
    def context(self, work):
        return SimpleNamespace(cores=Cores(None, None), work=Path(work))

    def run_client(self, code, work):
        target = SimpleNamespace(process=SimpleNamespace(pid=1))
        return peers_sides.client(self.context(work), target, [sys.executable, "-c", code], 1)

    def test_a_client_that_fails_says_why(self):
        with tempfile.TemporaryDirectory() as work:
            with self.assertRaisesRegex(BenchError, "exited 3: broken"):
                self.run_client("import sys; print('broken', file=sys.stderr); sys.exit(3)", work)

    def test_the_output_of_a_client_is_returned(self):
        with tempfile.TemporaryDirectory() as work:
            self.assertEqual(self.run_client("print('well')", work)[0], "well\n")

    def test_a_target_that_does_not_start_is_told(self):
        with self.assertRaisesRegex(BenchError, "did not start"):
            with peers_sides.Target("false", None):
                pass

    def test_a_target_ends_with_its_input(self):
        # `cat` echoes nothing, so a shell says the address first, as the target does.
        with tempfile.TemporaryDirectory() as work:
            program = Path(work) / "target"
            program.write_text("#!/bin/sh\necho http://127.0.0.1:1\nexec cat\n")
            program.chmod(0o700)
            with peers_sides.Target(program, None) as target:
                self.assertEqual(target.url, "http://127.0.0.1:1")
                self.assertIsNone(target.process.poll())
            self.assertEqual(target.process.returncode, 0)

    def test_cores_are_apart_or_not_pinned_at_all(self):
        self.assertEqual(Cores.choose({5, 2, 3}), Cores(2, 5))
        self.assertEqual(Cores.choose({1}), Cores(None, None))
        self.assertEqual(pinned(3, ["x", 1]), ["taskset", "-c", "3", "x", "1"])
        self.assertEqual(pinned(None, ["x", 1]), ["x", "1"])
        self.assertEqual(parse_list("0-2,8"), {0, 1, 2, 8})


class Locust(unittest.TestCase):
    def test_every_requirement_is_pinned_and_hashed(self):
        text = (HERE / "locust.txt").read_text().replace("\\\n", " ")
        lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
        self.assertTrue(any(line.startswith("locust==") for line in lines))
        for line in lines:
            self.assertRegex(line, r"^[a-z0-9-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line[:80])

    def test_other_requirements_get_another_folder(self):
        names = {locust_venv.folder_name(text) for text in (b"a", b"b", b"a")}
        self.assertEqual(len(names), 2)

    def test_the_locustfile_is_sound_and_has_the_task_that_is_measured(self):
        tree = ast.parse(LOCUSTFILE.read_text(encoding="utf-8"))
        tags = [
            node.args[0].value
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "tag"
        ]
        self.assertIn("transfer", tags)
        options = re.findall(r'"(--[a-z-]+)"', LOCUSTFILE.read_text(encoding="utf-8"))
        self.assertLessEqual({"--wait-min", "--wait-max"}, set(options))


if __name__ == "__main__":
    unittest.main()
