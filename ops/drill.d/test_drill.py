"""Tests of what a drill concludes: python3 -m unittest discover ops/drill.d"""

import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import figures
import main
import processes
import report
import services
import stage
import watch
from drill import DRILLS, throughput
from postgres import settings_text


def point(at, succeeded, failed=0):
    return {"at_seconds": at, "sent": succeeded, "succeeded": succeeded, "failed": failed,
            "retried": 0, "p99_us": 1}  # fmt: skip


def document(**changes):
    base = {
        "drill": "primary-loss", "title": "a <b>", "steps": "", "started_at": "", "machine": "",
        "seconds": 30.0, "verdict": "kept", "figures": {"outage_s": 1.25}, "notes": [],
        "promises": [{"name": "doubled: 0", "held": True, "detail": "0"}],
        "events": [{"at": 1.0, "kind": "fault", "text": "SIGKILL"}],
        "series": [point(0, 10), point(1, 0, 4)],
        "verify": {"acknowledged": 9, "acknowledged_replayed": 1, "refused": 1, "missing": 0, "doubled": 0,
                   "doubled_without_key": None, "unanswered": {"io": 2}},
        "load": {"statuses": {"200": 9}, "codes": {}, "errors": {"io": 0},
                 "requests": {"retried": 3}},
        "canary_codes": {"504 outcome_unknown": 1},
    }  # fmt: skip
    return base | changes


class Outages(unittest.TestCase):
    def test_the_longest_gap_is_found_wherever_it_lies(self):
        self.assertEqual(figures.longest_gap([1, 2, 5, 6], 0, 7), (3, 2))
        self.assertEqual(figures.longest_gap([5, 6], 0, 7), (5, 0))

    def test_an_outage_that_did_not_end_counts_to_the_end(self):
        self.assertEqual(figures.longest_gap([1, 2], 0, 60), (58, 2))
        self.assertEqual(figures.longest_gap([], 0, 60), (60, 0))

    def test_moments_outside_do_not_count(self):
        self.assertEqual(figures.longest_gap([0, 1, 9, 20], 1, 10), (8, 1))


class Throughput(unittest.TestCase):
    SERIES = [point(at, n) for at, n in enumerate([50, 100, 100, 0, 0, 80, 89, 90, 91, 100, 100])]

    def test_the_steady_rate_takes_whole_seconds_only(self):
        self.assertEqual(figures.steady_rate(self.SERIES, 1, 3.5), 100)
        self.assertIsNone(figures.steady_rate(self.SERIES, 1, 1.5))

    def test_back_is_a_window_of_nine_tenths(self):
        # 89, 90, 91 is the first window whose mean reaches 90.
        self.assertEqual(figures.back_after(self.SERIES, 5.0, 100, 11), 1.0)
        self.assertIsNone(figures.back_after(self.SERIES, 5.0, 120, 11))

    def test_the_second_of_the_recovery_itself_may_begin_the_window(self):
        series = [point(at, 100) for at in range(6)]
        self.assertEqual(figures.back_after(series, 2.5, 100, 6), 0.0)


class Gathering(unittest.TestCase):
    def scene(self, faulted_at, recovered_at, answered):
        scene = stage.Stage.__new__(stage.Stage)
        scene.figures, scene.promises = {}, []
        scene.faulted_at, scene.recovered_at = faulted_at, recovered_at
        scene.watch = watch.Watch("x", 1, [], {}, 5)
        scene.watch.canaries = [{"answered": at, "status": 200} for at in answered]
        return scene

    def test_outage_and_return_are_counted_from_the_load_s_start(self):
        series = [point(at, n) for at, n in enumerate([9, 9, 9, 9, 0, 9, 9, 9, 9])]
        scene = self.scene(103.9, 105.0, [100 + n / 10 for n in range(39)] + [105.0, 106.0, 109.0])
        throughput(scene, series, 100)
        self.assertEqual(scene.figures["outage_s"], 3.0)
        self.assertEqual(scene.figures["throughput_back_s"], 0.0)
        self.assertTrue(scene.promises[0]["held"])

    def test_a_throughput_that_never_returns_breaks_the_promise(self):
        series = [point(at, n) for at, n in enumerate([9, 9, 9, 9, 0, 5, 5, 5, 5, 5])]
        scene = self.scene(103.9, 105.0, [103.0, 105.0])
        throughput(scene, series, 100)
        self.assertFalse(scene.promises[0]["held"])

    def test_a_fault_after_the_load_s_end_has_no_throughput(self):
        scene = self.scene(150.0, 160.0, [101.0])
        throughput(scene, [point(0, 9)], 100)
        self.assertEqual((scene.figures, scene.promises), ({}, []))


class Verdicts(unittest.TestCase):
    def test_one_broken_promise_breaks_the_drill_and_none_proves_nothing(self):
        kept, broken = {"held": True}, {"held": False}
        self.assertEqual(figures.outcome([kept, kept]), "kept")
        self.assertEqual(figures.outcome([kept, broken]), "BROKEN")
        self.assertEqual(figures.outcome([]), "BROKEN")

    def check(self, verify, promise):
        scene = stage.Stage.__new__(stage.Stage)
        scene.promises = []
        good = {"missing": 0, "doubled": 0, "doubled_without_key": 0, "verdict": "kept",
                "acknowledged": 5, "found_exactly_once": 5}  # fmt: skip
        scene.promise_reconciled(good)
        self.assertTrue(all(p["held"] for p in scene.promises))
        scene.promises = []
        scene.promise_reconciled(good | verify)
        broken = [p["name"] for p in scene.promises if not p["held"]]
        self.assertEqual(broken, [promise])

    def test_each_kind_of_damage_breaks_its_promise(self):
        self.check({"missing": 1}, "acknowledged but missing: 0")
        self.check({"doubled": 1}, "doubled: 0")
        self.check({"doubled_without_key": 1}, "doubled: 0")
        self.check({"verdict": "broken"}, "loadtest verify: every promise kept")

    def test_canary_codes_leave_out_what_went_well(self):
        rows = [{"status": 200, "code": ""}, {"status": 503, "code": "queue_full"},
                {"status": 0, "code": "connection broke"}]  # fmt: skip
        expected = {"503 queue_full": 1, "connection broke": 1}
        self.assertEqual(figures.codes_of(rows), expected)


class Witness(unittest.TestCase):
    def test_what_was_known_before_a_moment(self):
        balance = watch.Balance()
        for at in (1.0, 2.0, 3.0):
            balance.acknowledge(at)
        self.assertEqual(balance.count, 3)
        self.assertEqual([balance.known_before(m) for m in (0.9, 2.0, 9)], [0, 2, 3])

    def look(self, shown, own, acknowledged):
        seen = watch.Watch("x", 1, [1, 2], {"witnesses": [1, 2]}, cache_ttl_s=5)
        balance = watch.Balance()
        for at in acknowledged:
            balance.acknowledge(at)

        async def answer(*_args):
            return 200, {"balance_minor": str(shown), "cached": True}

        real, watch.request = watch.request, answer
        try:
            watch.asyncio.run(seen.look(0, 0 if own else 1, 1, balance))
        finally:
            watch.request = real
        return bool(seen.stale)

    def test_its_own_engine_must_show_exactly_what_was_acknowledged(self):
        now = time.monotonic()
        verdicts = [self.look(n, True, [now] * 3) for n in (2, 3, 4)]
        self.assertEqual(verdicts, [True, False, True])

    def test_another_engine_may_be_behind_by_the_time_to_live_and_no_more(self):
        now = time.monotonic()
        verdicts = [self.look(n, False, [now - 60, now - 6, now]) for n in (1, 2, 3, 4)]
        self.assertEqual(verdicts, [True, False, False, True])

    def test_half_an_answer_is_none(self):
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 10"
        self.assertEqual(watch.parse(head, b'{"a": 123}'), {"a": 123})
        with self.assertRaises(ConnectionError):
            watch.parse(head, b'{"a": 1')


class Reports(unittest.TestCase):
    def test_a_page_stands_alone_and_escapes_what_it_shows(self):
        page = report.page(document())
        self.assertIn("a &lt;b&gt;", page)
        for outside in ("http://", "https://", "<script", "src="):
            self.assertNotIn(outside, page)
        self.assertEqual(page.count('class="bad"'), 1)

    def test_a_drill_that_never_had_a_load_is_told_too(self):
        bare = document(series=[], verify={}, verdict="BROKEN",
                        load={"statuses": None, "codes": None, "errors": None, "requests": None})  # fmt: skip
        self.assertIn("There was no load", report.page(bare))
        self.assertIn("BROKEN", report.text(bare))
        self.assertIn("primary-loss", report.summary([bare, document()]))


class Choice(unittest.TestCase):
    def test_all_means_every_drill_and_nonsense_is_refused(self):
        self.assertEqual(main.parse(["all"]).drills, list(DRILLS))
        for bad in ([], ["no-such"], ["primary-loss", "--rate", "0"]):
            with self.assertRaises(SystemExit) as raised, open(os.devnull, "w") as null:
                real, sys.stderr = sys.stderr, null
                try:
                    main.parse(bad)
                finally:
                    sys.stderr = real
            self.assertEqual(raised.exception.code, 64)

    def test_every_drill_says_what_it_does(self):
        for entry in DRILLS.values():
            self.assertTrue(entry.title and entry.steps.__doc__, entry.name)


class Settings(unittest.TestCase):
    def test_a_quote_in_a_value_stays_inside_of_it(self):
        self.assertEqual(settings_text({"a": "it's"}), "a = 'it''s'\n")

    def test_without_a_key_the_balancer_sends_nothing_twice(self):
        text = services.balancer_text(1, [])
        self.assertIn("disable-l7-retry unless { req.hdr(Idempotency-Key) -m found }", text)
        self.assertNotIn("listen redis", text)
        self.assertNotIn("retry", services.balancer_text(1, [], repeats=False))


class Sweeping(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.work = Path(folder.name)
        self.processes = processes.Processes(self.work)
        self.addCleanup(self.processes.end)

    def test_a_tree_is_ended_whole(self):
        shell = self.processes.start("sh", ["sh", "-c", "sleep 60 & sleep 60 & wait"])
        give_up = time.monotonic() + 10
        while len(processes.descendants(shell.pid)) < 2 and time.monotonic() < give_up:
            time.sleep(0.01)
        tree = processes.descendants(shell.pid)
        self.assertEqual(len(tree), 2)
        processes.sweep(self.work, spare=os.getpid())
        self.assertEqual([pid for pid in [shell.pid, *tree] if processes.began(pid)], [])

    def test_an_id_that_belongs_to_somebody_else_by_now_is_left_alone(self):
        stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
        self.addCleanup(stranger.wait)
        self.addCleanup(stranger.kill)
        with open(self.work / "pids", "a", encoding="ascii") as pids:
            pids.write(f"{stranger.pid} 1 redis\n{stranger.pid}\nnonsense\n")
        self.assertEqual(processes.sweep(self.work, spare=os.getpid()), [])
        self.assertIsNone(stranger.poll())

    def test_a_paused_process_is_ended_too(self):
        sleeper = self.processes.start("sleep", ["sleep", "60"])
        processes.pause_tree(sleeper.pid)
        processes.sweep(self.work, spare=os.getpid())
        self.assertEqual(sleeper.popen.wait(), -signal.SIGKILL)

    def test_a_server_that_somebody_else_started_is_found_by_its_folder(self):
        data = self.work / "pg-a"
        data.mkdir()
        server = subprocess.Popen(["sleep", "60"], cwd=data, start_new_session=True)
        self.addCleanup(server.wait)
        (data / "postmaster.pid").write_text(f"{server.pid}\n{data}\n")
        elsewhere = self.work / "pg-b"
        elsewhere.mkdir()
        # An id that belongs to a process of another folder by now: this one.
        (elsewhere / "postmaster.pid").write_text(f"{os.getpid()}\n")
        self.assertEqual(processes.detached_servers(self.work), [server.pid])
        processes.sweep(self.work, spare=os.getpid())
        self.assertIsNotNone(server.wait(10))

    def test_the_folder_of_a_living_drill_is_known(self):
        self.assertTrue(processes.live_owner(self.work))
        (self.work / "pids").write_text(f"{os.getpid()} 1 drill\n")
        self.assertFalse(processes.live_owner(self.work))


if __name__ == "__main__":
    unittest.main()
