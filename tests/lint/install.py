# SPDX-License-Identifier: Apache-2.0
"""`cmake --install` puts everything where a package would, and the units agree with it."""

import os
import shutil
import subprocess
import tempfile
import unittest

import _source

PROGRAMS = ("postern-proxy", "postern-identity", "postern")
OTHERS = ("lib/systemd/system/postern-proxy@.service", "lib/systemd/system/postern-identity.service",
          "lib/systemd/system/postern-intercept@.service",
          "lib/systemd/system/postern-intercept-watch@.service",
          "lib/sysusers.d/postern.conf", "share/man/man1/postern.1",
          "share/man/man8/postern-proxy.8", "share/man/man8/postern-identity.8",
          "share/doc/postern/LICENSE", "share/doc/postern/docs/OPERATIONS.md")


class InstallTest(unittest.TestCase):
    def setUp(self):
        missing = [p for p in PROGRAMS
                   if not os.path.exists(os.path.join(_source.BUILD, "bin", p))]
        if missing:
            self.skipTest(f"not part of this build: {', '.join(missing)}")
        self.prefix = tempfile.mkdtemp(prefix="postern-install-")
        self.addCleanup(shutil.rmtree, self.prefix)
        subprocess.run(["cmake", "--install", _source.BUILD, "--prefix", self.prefix],
                       stdout=subprocess.DEVNULL, check=True)

    def path(self, name):
        return os.path.join(self.prefix, name)

    def test_installs_the_programs_units_man_pages_and_documents(self):
        wanted = [f"bin/{program}" for program in PROGRAMS] + list(OTHERS)
        self.assertEqual([n for n in wanted if not os.path.isfile(self.path(n))], [])

    def test_units_start_the_installed_programs_and_are_type_notify_with_a_watchdog(self):
        for unit, program in (("postern-proxy@", "postern-proxy"),
                              ("postern-identity", "postern-identity")):
            with open(self.path(f"lib/systemd/system/{unit}.service"), encoding="utf-8") as handle:
                text = handle.read()
            self.assertIn(f"ExecStart={self.prefix}/bin/{program} ", text)
            for line in ("Type=notify", "WatchdogSec=", "Restart=always", f"User={program}",
                         "CapabilityBoundingSet=\n", "NoNewPrivileges=yes"):
                self.assertIn(line, text)

    def test_systemd_finds_no_fault_in_the_units(self):
        if shutil.which("systemd-analyze") is None:
            self.skipTest("systemd-analyze is not installed")
        result = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", self.path("lib/systemd/system/postern-proxy@.service"),
             self.path("lib/systemd/system/postern-identity.service")],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        ours = [line for line in result.stdout.splitlines() if "postern" in line]
        self.assertEqual((result.returncode, ours), (0, []), result.stdout)

    def test_installed_programs_run_and_print_the_same_version(self):
        versions = {program: subprocess.run([self.path(f"bin/{program}"), "--version"],
                                            stdout=subprocess.PIPE, text=True, check=True,
                                            timeout=30).stdout.split()[-1]
                    for program in PROGRAMS}
        self.assertEqual(len(set(versions.values())), 1, versions)


if __name__ == "__main__":
    unittest.main()
