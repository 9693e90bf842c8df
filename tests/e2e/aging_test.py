# SPDX-License-Identifier: Apache-2.0
"""What grows old without anybody noticing: a root that is past half of its life, and the bundle of
another trust domain that its endpoint has not confirmed for long. Wall clocks are moved by faketime."""

import glob
import json
import os
import unittest

from lab import wait_until
from loopback import Issuer, LoopbackTest, Proxy, free_port

OWN, OTHER = "aging.test", "other.test"


class AgingTest(LoopbackTest):

    def setUp(self):
        super().setUp()
        libraries = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
        if not libraries:
            self.skipTest("needs faketime")
        self.wrap = ["env", "ASAN_OPTIONS=verify_asan_link_order=0", f"LD_PRELOAD={libraries[0]}",
                     "FAKETIME_NO_CACHE=1", f"FAKETIME_TIMESTAMP_FILE={self.path('shift')}",
                     "FAKETIME_DONT_FAKE_MONOTONIC=1"]
        self.set_clock("+0")

    def set_clock(self, shift):
        with open(self.path("shift.new"), "w", encoding="ascii") as handle:
            handle.write(shift)
        os.rename(self.path("shift.new"), self.path("shift"))

    def under(self, program):
        """It, with the clock of set_clock."""
        program.command = self.wrap + program.command
        return program

    def restart(self, program):
        program.stop()
        return program.start().wait_ready()

    def test_a_root_past_half_of_its_life_is_told_by_everybody(self):
        issuer = self.start(self.under(Issuer(self, OWN))).wait_ready()
        self.assertEqual(issuer.metric("postern_issuer_roots_past_half_life"), 0)
        self.assertNotIn("WARNING", issuer.postern("ca", "status").stdout)
        # Ten years live the root, one the intermediate, which is replaced at the start.
        self.set_clock("+2100d")
        self.restart(issuer)
        self.assertEqual(issuer.metric("postern_issuer_roots_past_half_life"), 1)
        told = "of aging.test has outlived half of its life and ends at "
        status = issuer.postern("ca", "status").stdout
        self.assertIn("WARNING: the root ", status)
        self.assertIn(told, status)
        self.assertIn("the automatic rotation begins at ", status)
        shown = json.loads(issuer.postern("ca", "status", "--output", "json").stdout)
        self.assertIn(told, shown["warnings"][0])
        wait_until(lambda: told in issuer.log(), 10, issuer.log)

        token = issuer.postern("token", "create", "--spiffe-id", f"spiffe://{OWN}/web").stdout
        with open(os.open(self.path("token"), os.O_WRONLY | os.O_CREAT, 0o600), "w",
                  encoding="ascii") as handle:
            handle.write(token)
        proxy = self.start(self.under(Proxy(
            self, "web", *issuer.flags(), "--join-token-file", self.path("token"), "--tunnel",
            f"inbound,listen=127.0.0.1:{free_port()},target=127.0.0.1:1,peer=spiffe://{OWN}/x"
        ))).wait_ready()
        self.assertEqual(proxy.metric("postern_roots_past_half_life"), 1)
        self.assertIn(told, proxy.log())
        self.assertEqual(proxy.log().count(told), 1, "and not all the time")

    def bundle(self, issuer):
        listed = json.loads(issuer.postern("bundle", "list", "--output", "json").stdout)
        return next(one for one in listed["bundles"] if one["trust_domain"] == OTHER)

    def test_a_foreign_bundle_that_nobody_confirms_is_distrusted_until_somebody_does(self):
        port = free_port()
        other = self.under(Issuer(self, OTHER, "--bundle-endpoint", f"127.0.0.1:{port}"))
        other.name, other.log_path = "other", self.path("other.log")
        for flag, name in (("--state-dir", "other"), ("--socket", "other.sock")):
            other.command[other.command.index(flag) + 1] = self.path(name)
        other.socket = self.path("other.sock")
        self.start(other).wait_ready()
        with open(self.path("other.json"), "w", encoding="utf-8") as handle:
            handle.write(other.postern("bundle", "show", "--output", "spiffe").stdout)
        issuer = self.start(self.under(Issuer(
            self, OWN, "--federate", f"trust-domain={OTHER},url=https://127.0.0.1:{port},"
            f"profile=https_spiffe,endpoint-id=spiffe://{OTHER}/postern/identity,"
            f"bundle={self.path('other.json')},on-stale=distrust"))).wait_ready()
        wait_until(lambda: self.bundle(issuer)["age_seconds"] is not None, 20, issuer.log)
        self.assertFalse(self.bundle(issuer)["stale"])
        self.assertIn(OTHER, issuer.postern("bundle", "show", "--domain", OTHER).stdout)

        other.stop()
        self.set_clock("+25h")
        self.restart(issuer)
        held = self.bundle(issuer)
        self.assertEqual((held["stale"], held["distrusted"], held["roots"]), (True, True, 1))
        self.assertIn("STALE", issuer.postern("bundle", "list").stdout)
        gone = issuer.postern("bundle", "show", "--domain", OTHER, check=False)
        self.assertEqual(gone.returncode, 1, gone.stdout)
        for name in ("stale", "distrusted"):
            self.assertEqual(issuer.metric(f"postern_issuer_federated_bundle_{name}",
                                           trust_domain=OTHER), 1)
        self.assertIn(f"bundle of {OTHER} is stale: not confirmed for 24h", issuer.log())

        other.start().wait_ready()
        issuer.postern("bundle", "refresh")
        self.assertFalse(self.bundle(issuer)["stale"])
        self.assertIn(OTHER, issuer.postern("bundle", "show", "--domain", OTHER).stdout)
        self.assertEqual(issuer.metric("postern_issuer_federated_bundle_stale",
                                       trust_domain=OTHER), 0)
        self.assertIn(f"bundle of {OTHER} is confirmed again", issuer.log())


if __name__ == "__main__":
    unittest.main()
