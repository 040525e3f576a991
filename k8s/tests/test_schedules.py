"""The jobs of an environment that sleeps run while it is awake: its chart's values against its Terraform."""

import datetime
import re
import unittest
import zoneinfo

from objects import ROOT, load, name_of, named, of_kind

# A week without and one with summer time: the jobs' clock is UTC, the sleep's is not.
WEEKS = (datetime.date(2025, 1, 6), datetime.date(2025, 7, 7))
# After the wake-up the nodes and the database need minutes.
START_UP = datetime.timedelta(minutes=30)
WORK_DAYS = {"*": range(7), "MON-FRI": range(5)}


def sleep_of(environment: str) -> dict[str, str]:
    text = (ROOT / f"terraform/environments/{environment}/main.tf").read_text()
    found = re.search(r"^  sleep = \{\n(.*?)^  \}", text, re.MULTILINE | re.DOTALL)
    return dict(re.findall(r'(\w+)\s*=\s*"([^"]+)"', found[1])) if found else {}


def times(schedule: str, week: datetime.date, zone: datetime.tzinfo) -> list[datetime.datetime]:
    """When `MINUTE HOUR * * DAYS` is due in the week that begins with that Monday."""
    minute, hour, day, month, weekdays = schedule.split()
    if (day, month) != ("*", "*"):
        raise ValueError(f"{schedule}: only days of the week are understood here")
    at = datetime.time(int(hour), int(minute), tzinfo=zone)
    return [datetime.datetime.combine(week + datetime.timedelta(days=it), at) for it in WORK_DAYS[weekdays]]


def jobs_run_while_awake(objects, sleep: dict[str, str]):
    zone = zoneinfo.ZoneInfo(sleep["time_zone"])
    for week in WEEKS:
        awake = list(zip(times(sleep["wake"], week, zone), times(sleep["sleep"], week, zone), strict=True))
        for it in of_kind(objects, "CronJob"):
            limit = datetime.timedelta(seconds=it["spec"]["jobTemplate"]["spec"]["activeDeadlineSeconds"])
            for start in times(it["spec"]["schedule"], week, zoneinfo.ZoneInfo(it["spec"]["timeZone"])):
                if not any(begin + START_UP <= start and start + limit <= end for begin, end in awake):
                    yield f"{name_of(it)}, due at {start:%A %H:%M} UTC in {start:%B}, may run until {start + limit:%H:%M}, in the night"
                    break


class Staging(unittest.TestCase):
    def test_does_its_jobs_while_it_is_awake(self):
        self.assertEqual([], list(jobs_run_while_awake(load("staging"), sleep_of("staging"))))

    def test_alone_sleeps(self):
        self.assertEqual({"sleep", "wake", "time_zone"}, set(sleep_of("staging")))
        self.assertEqual({}, sleep_of("production"))

    def test_with_jobs_in_the_night_is_noticed(self):
        """Every night; at the weekend; past the sleep in summer alone; before the wake-up in winter alone."""
        sleep = sleep_of("staging")
        for schedule, months in (("47 4 * * *", 2), ("7 15 * * *", 2), ("30 18 * * MON-FRI", 1), ("29 12 * * MON-FRI", 1), ("29 11 * * MON-FRI", 2), ("30 12 * * MON-FRI", 0), ("0 18 * * MON-FRI", 0)):
            objects = load("staging")
            named(objects, "CronJob", "engine-verify")["spec"]["schedule"] = schedule
            with self.subTest(schedule=schedule):
                found = list(jobs_run_while_awake(objects, sleep))
                self.assertEqual(months, len(found), found)
                self.assertTrue(all(it.startswith("engine-verify, due at") for it in found), found)


if __name__ == "__main__":
    unittest.main()
