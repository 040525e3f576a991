"""Each fact is found broken when it is: mistakes planted into a copy of .github."""

import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest
import unittest.mock

import facts

SHELLCHECK = str(pathlib.Path(sys.executable).with_name("shellcheck"))


class Planted(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.github = pathlib.Path(folder.name) / ".github"
        shutil.copytree(facts.ROOT / ".github", self.github)

    def check(self, file, before, after, said, shellcheck=None):
        path = self.github / file
        text = path.read_text()
        self.assertIn(before, text, "nothing was planted")
        path.write_text(text.replace(before, after, 1))
        found = facts.broken(self.github, shellcheck)
        self.assertTrue(any(said in line for line in found), f"not found: {said}\n" + "\n".join(found))

    def test_as_it_is_nothing_is_broken(self):
        self.assertEqual(facts.broken(self.github, SHELLCHECK), [])

    def test_an_action_by_tag(self):
        self.check("workflows/ci.yml", "checkout@11bd71901bbe5b1630ceea73d27597364c9af683 # v4.2.2", "checkout@v4", "not pinned")

    def test_a_digest_without_its_version(self):
        self.check("workflows/ci.yml", "364c9af683 # v4.2.2", "364c9af683", "no comment with the version")

    def test_a_digest_that_differs_elsewhere(self):
        self.check("workflows/ci.yml", "checkout@11bd71901b", "checkout@21bd71901b", "elsewhere")

    def test_permissions_for_all_jobs(self):
        self.check("workflows/ci.yml", "permissions: {}", "permissions: {contents: write}", "begin without permissions")

    def test_a_job_without_permissions(self):
        self.check("workflows/nightly.yml", "    permissions:\n      contents: read\n", "", "names no permissions")

    def test_a_job_without_a_limit(self):
        self.check("workflows/nightly.yml", "    timeout-minutes: 60\n", "", "no timeout-minutes")

    def test_a_token_that_stays(self):
        self.check("workflows/ci.yml", "persist-credentials: false", "persist-credentials: true", "leaves its token")

    def test_a_stored_key(self):
        self.check("workflows/stage.yml", "${{ vars.DEPLOY_ROLE }}", "${{ secrets.DEPLOY_ROLE }}", "a stored key")

    def test_an_unknown_variable(self):
        self.check("workflows/stage.yml", "vars.DEPLOY_ROLE", "vars.DEPLOY_ROLLE", "is in no list")

    def test_an_expression_in_a_script(self):
        self.check("workflows/stage.yml", "for region in $IN_REGIONS", "for region in ${{ inputs.regions }}", "an expression inside of run")

    def test_a_script_that_is_not_there(self):
        self.check("workflows/nightly.yml", "ops/drill all", "ops/drlil all", "no program of this repository")

    def test_a_flag_that_is_not_known(self):
        self.check("workflows/ci.yml", "ops/coverage --out", "ops/coverage --output", "does not know --output")

    def test_a_flag_that_only_a_comment_knows(self):
        with tempfile.TemporaryDirectory() as folder, unittest.mock.patch.object(facts, "ROOT", pathlib.Path(folder)):
            script = pathlib.Path(folder) / "ops/x"
            script.parent.mkdir()
            script.write_text("#!/bin/sh\n# --told\ncase $1 in --taken) ;; esac\n")
            script.chmod(0o755)
            self.assertEqual(facts.commands("ops/x --taken; ops/x --told"), ["ops/x does not know --told"])

    def test_a_sloppy_script(self):
        self.check("workflows/stage.yml", '--image "$IMAGES@$(cat engine)"', "--image $IMAGES@$(cat engine)", "SC2086", SHELLCHECK)

    def test_no_floor_of_coverage(self):
        self.check("workflows/ci.yml", "ops/coverage", "true", "without ops/coverage")

    def test_no_provenance(self):
        self.check("workflows/deliver.yml", "provenance: mode=max", "provenance: false", "without provenance")

    def test_a_tag_before_the_scan(self):
        self.check("workflows/deliver.yml", "aquasecurity/trivy-action@", "docker/other@", "not in this order")

    def test_a_digest_that_nobody_hands_over(self):
        self.check("workflows/stage.yml", "name: digest-engine", "name: digest-engin", "the artifact digest-engin, which no job uploads")

    def test_an_image_by_tag(self):
        self.check("workflows/stage.yml", "$IMAGES@$(cat engine)", "$IMAGES:latest", "without --image")

    def test_a_delivery_of_what_was_not_tested(self):
        self.check("workflows/deliver.yml", "ops/release --passed", "true", "without ops/release --passed")

    def test_a_variable_that_the_readme_does_not_tell(self):
        self.check("workflows/stage.yml", "vars.DEPLOY_ROLE", "vars.DEPLOY_ROLLE", "README: no row for the variable DEPLOY_ROLLE")

    def test_production_without_canary(self):
        self.check("workflows/deliver.yml", "needs: canary", "needs: promote", "production does not wait for canary")

    def test_production_that_nobody_approves(self):
        self.check("workflows/stage.yml", "    environment: ${{ inputs.environment }}\n", "", "in no environment")

    def test_canary_outside_of_its_environment(self):
        self.check("workflows/deliver.yml", "environment: production", "environment: staging", "canary is not in the environment")

    def test_a_delivery_that_is_cut_off(self):
        self.check("workflows/deliver.yml", "cancel-in-progress: false", "cancel-in-progress: true", "cut off")

    def test_two_versions_of_zizmor(self):
        self.check("workflows/ci.yml", "zizmor==1.32.0", "zizmor==1.31.0", "zizmor is wanted in 2 versions")

    def test_two_versions_of_a_tool(self):
        self.check("workflows/nightly.yml", "0.20.2 cargo-deny", "0.19.0 cargo-deny", "2 versions")

    def test_an_ecosystem_that_nobody_looks_after(self):
        self.check("dependabot.yml", "package-ecosystem: cargo", "package-ecosystem: docker", "nothing looks after cargo")

    def test_a_folder_that_is_gone(self):
        self.check("dependabot.yml", "/terraform/bootstrap", "/terraform/boostrap", "finds nothing in /terraform/boostrap")


class Release(unittest.TestCase):
    """ops/release against a made-up repository."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        (self.root / "Cargo.toml").write_text('[workspace]\n\n[workspace.package]\nversion = "1.2.3"\n\n[workspace.dependencies]\nx = "1"\n')
        (self.root / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n\nsoon\n\n## [1.2.3] - 2026-01-01\n\n### Added\n\n- This.\n\n## [1.2.2] - 2025\n\n- That.\n")
        self.git("init", "-q")
        self.git("add", ".")
        self.git("-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "x")

    def git(self, *arguments):
        return subprocess.run(["git", "-C", self.root, *arguments], check=True, capture_output=True, text=True).stdout.strip()

    def release(self, *arguments):
        environment = {"PATH": f"{self.root}/bin:/usr/bin:/bin", "RELEASE_ROOT": str(self.root), "HOME": str(self.root)}
        return subprocess.run([facts.ROOT / "ops/release", *arguments], env=environment, capture_output=True, text=True)

    def test_the_notes_are_the_chapter_of_that_version(self):
        done = self.release("--notes", "v1.2.3")
        self.assertEqual((done.returncode, done.stdout.strip()), (0, "### Added\n\n- This."))

    def test_a_tag_of_another_version_is_refused(self):
        self.assertEqual(self.release("--check", "v1.2.4").returncode, 1)

    def test_a_version_without_a_chapter_is_refused(self):
        path = self.root / "CHANGELOG.md"
        path.write_text(path.read_text().replace("[1.2.3]", "[1.2.33]"))
        self.assertIn("no chapter", self.release("--check", "v1.2.3").stderr)

    def test_an_image_is_called_by_version_and_commit(self):
        name = "1.2.3-" + self.git("rev-parse", "--short=12", "HEAD")
        self.assertEqual(self.release("--image-tags").stdout.split(), [name])
        self.git("tag", "v1.2.3")
        self.assertEqual(self.release("--image-tags").stdout.split(), [name, "1.2.3"])

    def passed(self, answer, status=0):
        (self.root / "bin").mkdir(exist_ok=True)
        gh = self.root / "bin/gh"
        gh.write_text(f'#!/bin/sh\necho "$*" >{self.root}/asked\necho {answer}\nexit {status}\n')
        gh.chmod(0o755)
        done = self.release("--passed", "abc")
        self.assertIn("--workflow ci.yml --branch main --event push --commit abc", (self.root / "asked").read_text())
        return done.returncode

    def test_only_what_ci_passed_on_the_main_branch_is_delivered(self):
        self.assertEqual(self.passed("true"), 0)
        self.assertEqual(self.passed("false"), 1)
        # No answer is no yes.
        self.assertEqual(self.passed("", status=1), 1)


if __name__ == "__main__":
    unittest.main()
