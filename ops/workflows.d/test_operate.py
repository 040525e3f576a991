"""Each broken promise of README's chapter Operate is found: mistakes planted into its text."""

import unittest

import operate


class Planted(unittest.TestCase):
    readme = (operate.ROOT / "README.md").read_text()

    def check(self, before, after, said):
        at = self.readme.index("\n## Operate\n")
        self.assertIn(before, self.readme[at:], "nothing was planted")
        found = operate.broken(self.readme[:at] + self.readme[at:].replace(before, after, 1))
        self.assertTrue(any(said in line for line in found), f"not found: {said}\n" + "\n".join(found))

    def test_as_it_is_nothing_is_broken(self):
        self.assertEqual(operate.broken(self.readme), [])

    def test_a_link_to_a_file_that_is_gone(self):
        self.check("(k8s/README.md)", "(k8s/READ.md)", "leads to k8s/READ.md, which is not there")

    def test_a_link_to_a_heading_that_is_gone(self):
        self.check("(#drills)", "(#drill)", "#drill, where no heading")
        self.check("(terraform/README.md#deploy)", "(terraform/README.md#deployment)", "#deployment, where no heading")

    def test_a_path_that_is_gone(self):
        self.check("`ops/drills/aws/test_istio.sh`", "`ops/drills/aws/test_mesh.sh`", "there is no ops/drills/aws/test_mesh.sh")

    def test_a_flag_of_ours_that_is_not_known(self):
        self.check("ops/deploy.sh --environment", "ops/deploy.sh --env", "ops/deploy.sh does not know --env")

    def test_a_flag_of_the_engine_that_is_not_known(self):
        self.check("`--database-read-url`", "`--database-replica-url`", "nothing knows --database-replica-url")

    def test_a_command_that_the_engine_has_not(self):
        self.check("engine migrate --database-url", "engine upgrade --database-url", "no command upgrade")

    def test_a_metric_that_is_not_exported(self):
        self.check("engine_permits_in_use", "engine_permits_used", "nothing is called engine_permits_used")

    def test_a_label_that_the_chart_has_not(self):
        self.check("-l app.kubernetes.io/name=engine", "-l app.kubernetes.io/name=ledger", "no label app.kubernetes.io/name=ledger")
        self.check("component=migrate ", "component=migration ", "no label app.kubernetes.io/component=migration")

    def test_a_drill_that_is_not_there(self):
        self.check("ops/drill engine-rolling-restart", "ops/drill rolling-restart", "no drill rolling-restart")

    def test_a_test_that_is_not_there(self):
        self.check("`daemon::release`", "`daemon::released`", "no test daemon::released")


if __name__ == "__main__":
    unittest.main()
