"""Tests of what a soak concludes: python3 -m unittest discover ops/soak.d"""

import random
import tempfile
import unittest
from pathlib import Path

# First: it puts the drills' modules on the path.
import main
import console  # after main, which shows the way to it
import flat
import page
import samples
import soaking

INTERVAL_S = 5
BASE_MIB = 200


def line(minutes, leak_mib_per_hour=0.0, noise_mib=0.0, warm_up_mib=0.0, spike_mib=0.0):
    """Memory over time, in bytes: a warm-up, a leak, noise of a fixed seed, spikes."""
    dice = random.Random(7)
    points = []
    for at in range(INTERVAL_S, int(minutes * 60) + 1, INTERVAL_S):
        mib = BASE_MIB + warm_up_mib * min(1, at / (minutes * 60 / 4))
        mib += leak_mib_per_hour * at / 3600 + dice.gauss(0, noise_mib)
        if spike_mib and dice.random() < 0.05:
            mib += spike_mib
        points.append((at, mib * flat.MIB))
    return points


class Flatness(unittest.TestCase):
    def judge(self, points, growth=10, slope=48):
        return flat.judge(points, growth, slope * flat.MIB)

    def test_a_planted_leak_is_seen(self):
        for leak in (60, 200, 2000):
            verdict = self.judge(line(30, leak_mib_per_hour=leak, noise_mib=2))
            self.assertFalse(verdict["flat"], leak)
            self.assertAlmostEqual(verdict["per_hour"] / flat.MIB / leak, 1, delta=0.2)

    def test_a_leak_within_the_limit_is_not_called_one(self):
        verdict = self.judge(line(30, leak_mib_per_hour=30, noise_mib=2))
        self.assertTrue(verdict["flat"], verdict)

    def test_noise_spikes_and_a_warm_up_are_flat(self):
        verdict = self.judge(line(30, noise_mib=5, warm_up_mib=150, spike_mib=80))
        self.assertTrue(verdict["flat"], verdict)
        self.assertAlmostEqual(verdict["median"] / flat.MIB, BASE_MIB + 150, delta=5)

    def test_a_leak_below_noise_and_spikes_is_seen(self):
        verdict = self.judge(line(30, leak_mib_per_hour=120, noise_mib=5, spike_mib=80))
        self.assertFalse(verdict["flat"], verdict)

    def test_shrinking_is_flat(self):
        self.assertTrue(self.judge(line(30, leak_mib_per_hour=-500, noise_mib=2))["flat"])

    def test_growth_alone_is_enough(self):
        verdict = self.judge(line(3, leak_mib_per_hour=2000))
        self.assertEqual(verdict["why"], f"grew by {verdict['percent']:.1f} %")

    def test_a_slope_over_a_short_time_is_not_judged(self):
        self.assertTrue(self.judge(line(3, leak_mib_per_hour=100))["flat"])

    def test_too_little_is_not_called_flat(self):
        for points in ([], line(0.5)):
            self.assertFalse(self.judge(points)["flat"])

    def test_counts_that_stand_still_and_that_climb(self):
        still = [(at, 40) for at in range(0, 600, 5)]
        self.assertTrue(flat.judge(still, 10)["flat"])
        climbing = [(at, 40 + at // 60) for at in range(0, 600, 5)]
        self.assertFalse(flat.judge(climbing, 10)["flat"])

    def test_what_was_zero_and_grows_is_not_flat(self):
        self.assertTrue(flat.judge([(at, 0) for at in range(0, 600, 5)], 10)["flat"])


PAGE = """\
# HELP engine_transfers_total x
engine_transfers_total{outcome="completed"} 10
engine_transfers_total{outcome="rejected"} 2
engine_request_duration_seconds_bucket{route="a",le="0.01"} 90
engine_request_duration_seconds_bucket{route="b",le="0.01"} 5
engine_request_duration_seconds_bucket{route="a",le="0.1"} 95
engine_request_duration_seconds_bucket{route="b",le="0.1"} 5
engine_request_duration_seconds_bucket{route="a",le="+Inf"} 95
engine_request_duration_seconds_bucket{route="b",le="+Inf"} 5
"""


class Samples(unittest.TestCase):
    def test_a_page_is_summed_over_labels(self):
        sums, buckets = samples.parse(PAGE)
        self.assertEqual(sums["engine_transfers_total"], 12)
        self.assertEqual(buckets, {0.01: 95, 0.1: 100, float("inf"): 100})

    def test_quantiles_are_of_what_came_between(self):
        _, buckets = samples.parse(PAGE)
        self.assertEqual(samples.quantile({}, buckets, 0.95), 0.01)
        self.assertEqual(samples.quantile({}, buckets, 0.99), 0.1)
        self.assertEqual(samples.quantile({0.01: 95}, buckets, 0.5), 0.1)
        self.assertIsNone(samples.quantile(buckets, buckets, 0.5))

    def test_memory_of_this_process_is_told_and_of_none_is_zero(self):
        self.assertGreater(samples.memory("self"), 1 << 20)
        self.assertEqual(samples.memory(0), 0)


class Options(unittest.TestCase):
    def test_sizes_are_written_like_the_engines(self):
        self.assertEqual(main.parse(["--disk-leave", "1.5GiB"]).leave, 3 << 29)

    def test_nonsense_is_refused_as_usage(self):
        for arguments in (["--minutes", "0"], ["--disk-leave", "5 GB"], ["--set", "X=1"], ["--rate", "0"]):
            with self.assertRaises(SystemExit) as ended:
                main.parse(arguments)
            self.assertEqual(ended.exception.code, console.EXIT_USAGE, arguments)

    def test_a_disk_too_small_is_said_with_what_fits(self):
        with tempfile.TemporaryDirectory() as folder:
            options = main.parse(["--work", folder, "--rate", "1000000000"])
            _, complaint = soaking.room(options)
            self.assertIn("Nothing was started", complaint)
            options = main.parse(["--work", folder, "--rate", "1000000000", "--disk-leave", "0"])
            self.assertRegex(soaking.room(options)[1], r"--rate [1-9]\d*$")
            options = main.parse(["--work", folder, "--disk-leave", "1024TiB"])
            self.assertNotIn("--rate", soaking.room(options)[1])
            self.assertIsNone(soaking.room(main.parse(["--work", folder, "--disk-leave", "0"]))[1])


def row(at, **changes):
    base = {name: 1.0 for name in [*samples.GAUGES, *samples.COUNTERS]}
    base |= {"postgres": 1.0, "sessions": 1.0, "session_count": 2, "redis": 1.0, "generator": 1.0,
             "disk": 0, "free": 1 << 50}  # fmt: skip
    return base | {"at": at} | changes


class Stopping(unittest.TestCase):
    def soak(self, **options):
        arguments = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
        return soaking.Soak(None, main.parse(arguments))

    def test_a_disk_that_fills_up_ends_it(self):
        soak = self.soak(disk_leave="1GiB")
        self.assertIn("are left on the disk", soak.too_much(row(10, free=1 << 20), 0, 1800, 1 << 50))
        self.assertIsNone(soak.too_much(row(10), 0, 1800, 1 << 50))

    def test_a_rate_that_would_not_fit_is_said_after_a_minute(self):
        soak = self.soak()
        busy = row(62, transfers=62 * 30_000, requests=62 * 30_000)
        self.assertIn("--rate", soak.too_much(busy, 0, 1800, 10 << 30))
        self.assertIsNone(soak.too_much(busy, 0, 1800, 100 << 30))

    def test_limits_of_the_engine_that_are_passed_are_told(self):
        soak = self.soak()
        soak.sampler.rows = [row(at, permits=11.0) for at in range(3)]
        soak.sampler.bounds = {"permits": 10.0, "queue": 10.0, "bodies": 10.0, "pool": None}
        soak.promise_bounded()
        self.assertEqual([p["held"] for p in soak.promises], [False, True, True, False])


class Report(unittest.TestCase):
    def test_a_soak_that_measured_nothing_can_be_told(self):
        soak = soaking.Soak(None, main.parse([]))
        document = soak.document() | {"verdict": "BROKEN", "seconds": 1.0, "started_at": ""}
        self.assertIn("Nothing was measured", page.page(document))
        self.assertIn("BROKEN", page.text(document))

    def test_a_soak_is_told_with_its_lines(self):
        soak = soaking.Soak(None, main.parse([]))
        soak.sampler.rows = [row(at, transfers=at * 10.0, per_second=10.0, p99_ms=1.0) for at in range(5, 900, 5)]
        soak.promise_flat()
        document = soak.document() | {"verdict": "kept", "seconds": 900.0, "started_at": ""}
        self.assertEqual(document["figures"]["transfers_per_second"], 10.0)
        self.assertIn("polyline", page.page(document))
        self.assertTrue(all(p["held"] for p in soak.promises), soak.promises)


if __name__ == "__main__":
    unittest.main()
