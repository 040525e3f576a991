"""Tests of the arithmetic: python3 -m unittest discover ops/bench.d"""

import unittest

import report
import sides
from database import BenchError, load_batch, parse_pgbench
from engine import check_load

PGBENCH = """\
number of transactions actually processed: 508
number of failed transactions: {failed} (0.000%)
latency average = 5.875 ms
initial connection time = 2.1 ms
tps = 170.215846 (without initial connection time)
"""


def samples(**values):
    return {
        name.replace("_", "-"): [{"value": v, "unit": "tx/s"} for v in runs]
        for name, runs in values.items()
    }


def document(**changes):
    base = {
        "errors": {"connect": 0, "io": 0, "timeout": 0, "protocol": 0, "reconnects": 3},
        "requests": {"replayed": 0},
        "statuses": {"200": 10},
        "codes": {},
        "transfers": {"completed": 10, "rejected": 0, "failed": 0},
        "last_error": None,
    }
    return base | changes


class Pgbench(unittest.TestCase):
    def test_the_rate_is_read_and_failures_are_refused(self):
        self.assertEqual(parse_pgbench(PGBENCH.format(failed=0)), 170.215846)
        for bad in (PGBENCH.format(failed=1), "no such output"):
            with self.assertRaises(BenchError):
                parse_pgbench(bad)


class Ratios(unittest.TestCase):
    def row(self, name, **values):
        rows = {row["name"]: row for row in report.ratios(samples(**values))}
        return rows.get(name)

    def test_a_ratio_is_of_medians(self):
        row = self.row("engine, 256", engine_256=[900, 500, 100], naive_64=[10, 100, 1000])
        self.assertEqual(row["ratio"], 5.0)

    def test_both_sides_of_the_minimum_and_of_the_aim(self):
        for rate, expected in ((499, "short"), (500, "met"), (699, "met"), (700, "aim")):
            row = self.row("engine, 256", engine_256=[rate], naive_64=[100])
            self.assertEqual(row["verdict"], expected, rate)

    def test_an_aim_may_compare_with_another_side(self):
        row = self.row("engine, 64", engine_64=[300], naive_64=[100], proc_64=[150])
        self.assertEqual((row["verdict"], row["aim_ratio"]), ("aim", 2.0))
        row = self.row("engine, 64", engine_64=[300], naive_64=[100])
        self.assertEqual((row["verdict"], row["aim_ratio"]), ("met", None))

    def test_a_missing_side_makes_no_row(self):
        self.assertIsNone(self.row("engine, 256", engine_256=[500]))
        self.assertEqual(report.ratios({}), [])

    def test_limits_take_the_median_of_what_was_seen(self):
        runs = [
            {"value": 0.95, "unit": "share", "refused_p99_ms": None, "rss_mib_max": 256.0},
            {"value": 0.85, "unit": "share", "refused_p99_ms": 100.0, "rss_mib_max": 256.0},
            {"value": 0.97, "unit": "share", "refused_p99_ms": None, "rss_mib_max": 256.0},
        ]
        rows = {row["name"]: row["verdict"] for row in report.limits({"overload": runs})}
        expected = {
            "overload: goodput share": "met",
            "overload: 503 p99, ms": "met",
            "overload: memory, MiB": "short",
        }
        self.assertEqual(rows, expected)

    def test_tables_take_whatever_there_is(self):
        some = samples(engine_256=[500.0, 600.0], naive_64=[100.0])
        self.assertIn("engine-256", report.sides_table(some))
        self.assertIn("5.50 x naive-64", report.ratios_table(report.ratios(some)))
        self.assertIn("limit", report.limits_table([]))


class Choice(unittest.TestCase):
    def test_names_and_groups_keep_their_order(self):
        self.assertEqual(
            sides.choose("proc,naive-1", False), ["naive-1", "proc-1", "proc-16", "proc-64"]
        )
        self.assertIn("engine-full", sides.choose(None, True))
        self.assertNotIn("engine-full", sides.choose(None, False))
        self.assertNotIn("engine-full", sides.choose("engine", False))
        self.assertEqual(sides.choose("engine-full", False), ["engine-full"])
        for bad in ("", "naive-2", "naive-1,,"):
            with self.assertRaises(BenchError):
                sides.choose(bad, False)

    def test_every_side_a_goal_names_exists(self):
        named = {
            side for _, side, base, _, (_, other) in report.GOALS for side in (side, base, other)
        }
        named |= {side for _, *pair in report.SHOWN for side in pair}
        named |= {side for _, side, *_ in report.LIMITS}
        self.assertEqual(named - set(sides.SIDES), set())


class Loads(unittest.TestCase):
    def test_a_clean_run_passes(self):
        check_load(document())
        overloaded = document(statuses={"200": 1, "503": 9})
        check_load(overloaded, sides.ANSWERS)

    def test_what_would_flatter_or_falsify_a_figure_is_refused(self):
        errors = document()["errors"]
        for bad in (
            document(errors=errors | {"io": 1}),
            document(requests={"replayed": 1}),
            document(statuses={"200": 9, "503": 1}),
            document(statuses={"422": 10}),
            document(transfers={"completed": 9, "rejected": 1, "failed": 0}),
            document(transfers={"completed": 9, "rejected": 0, "failed": 1}),
        ):
            with self.assertRaises(BenchError):
                check_load(bad)


class Ceiling(unittest.TestCase):
    def test_a_batch_is_one_commit(self):
        script = load_batch(3, "/x/rows")
        self.assertTrue(script.startswith("BEGIN;\n\\copy transfers ("))
        self.assertTrue(script.endswith("COMMIT;\n"))
        self.assertIn("batch = 3 ", script)


if __name__ == "__main__":
    unittest.main()
