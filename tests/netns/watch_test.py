# SPDX-License-Identifier: Apache-2.0
"""`postern intercept diff` and `watch`: they find what differs, and watch puts it back."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

import lab

POSTERN = os.path.join(os.environ.get("POSTERN_BUILD_DIR", "build/release"), "bin", "postern")
PROXY_UID = "64901"


class RulesTest(unittest.TestCase):
    def setUp(self):
        self.lab = lab.Lab()
        self.addCleanup(self.lab.close)
        self.space = self.lab.namespace("here")

    def up(self, *flags):
        return self.space.run(POSTERN, "intercept", "up", "--proxy-uid", PROXY_UID, *flags)

    def diff(self, *flags, **options):
        return self.space.run(POSTERN, "intercept", "diff", "--proxy-uid", PROXY_UID, *flags,
                              check=False, **options)

    def nft(self, *words):
        return self.space.run("nft", *words).stdout

    def delete_rule(self, chain, comment):
        for line in self.nft("-a", "list", "chain", "inet", "postern", chain).splitlines():
            if f'comment "{comment}"' in line:
                self.nft("delete", "rule", "inet", "postern", chain, "handle", line.split()[-1])
                return
        self.fail(f"no rule {comment}")


class DiffTest(RulesTest):
    def test_finds_nothing_right_after_up_whatever_the_flags(self):
        for flags in ((), ("--fail-closed",), ("--mode", "tproxy"), ("--no-outbound",),
                      ("--no-inbound", "--fail-closed"), ("--name", "db", "--app-uid", "7"),
                      ("--mode", "tproxy", "--fail-closed", "--exclude-outbound-port", "53-55",
                       "--exclude-inbound-port", "22", "--exclude-cidr", "10.0.0.0/8",
                       "--exclude-cidr", "fd00::/8", "--exclude-source-cidr", "192.0.2.7",
                       "--exclude-interface", "eth7", "--exclude-uid", "5", "--exclude-gid", "6",
                       "--include-inbound-port", "80-90", "--include-cidr", "198.18.0.0/15",
                       "--proxy-mark", "0x505")):
            self.up(*flags)
            done = self.diff(*flags)
            self.assertEqual((done.returncode, done.stdout), (0, ""), (flags, done.stderr))

    def test_tells_what_is_missing_foreign_or_changed(self):
        self.assertIn("- table inet postern", self.diff().stdout)
        self.up()
        self.delete_rule("outbound", "loop guard, by uid")
        self.nft("insert", "rule", "inet", "postern", "outbound", "tcp", "dport", "99", "accept")
        self.nft("add", "chain", "inet", "postern", "alien")
        done = self.diff()
        self.assertEqual(done.returncode, 1)
        lines = done.stdout.splitlines()
        self.assertEqual([line[:2] for line in lines], ["+ ", "+ ", "- "], done.stdout)
        self.assertIn("chain alien", lines[0])
        self.assertIn("99", lines[1])
        self.assertIn("loop guard, by uid", lines[2])

    def test_finds_a_rule_that_does_something_else_under_its_old_name(self):
        self.up("--fail-closed")
        self.delete_rule("closed_app", "closed: outbound past the proxy")
        self.nft('add rule inet postern closed_app meta l4proto tcp counter accept '
                 'comment "closed: outbound past the proxy"')
        done = self.diff("--fail-closed")
        self.assertEqual(done.returncode, 1)
        self.assertIn('"drop"', done.stdout)
        self.assertIn('"accept"', done.stdout)

    def test_other_flags_are_a_difference(self):
        self.up("--exclude-outbound-port", "53")
        done = self.diff("--exclude-outbound-port", "54", "--output", "json")
        self.assertEqual(done.returncode, 1)
        page = json.loads(done.stdout)
        self.assertIs(page["contents_compared"], True)
        self.assertEqual([line[:25] for line in page["differences"]],
                         ["- chain outbound: 'exclud", "+ chain outbound: 'exclud"], page)

    def test_finds_missing_routing_of_tproxy(self):
        self.up("--mode", "tproxy")
        self.space.run("ip", "rule", "del", "table", "15006")
        self.space.run("ip", "-6", "route", "flush", "table", "15006")
        lines = self.diff("--mode", "tproxy").stdout.splitlines()
        self.assertEqual(lines, ["- ip rule: fwmark 0x1000/0x1000 lookup 15006",
                                 "- ip -6 route: local default dev lo table 15006"])

    def test_down_leaves_nothing_of_tproxy(self):
        before = [self.space.run("ip", *family, "rule").stdout for family in ((), ("-6",))]
        self.up("--mode", "tproxy")
        self.up("--mode", "tproxy")
        self.up("--mode", "tproxy", "--inbound-port", "16006")  # other ports, another table
        self.space.run(POSTERN, "intercept", "down")
        after = [self.space.run("ip", *family, "rule").stdout for family in ((), ("-6",))]
        self.assertEqual(after, before)
        self.assertEqual(self.nft("list", "ruleset"), "")
        self.up("--mode", "tproxy")
        self.up()  # redirect needs none
        self.assertEqual(self.space.run("ip", "rule").stdout, before[0])

    def test_two_proxies_with_tproxy_on_one_host_keep_their_routing_apart(self):
        self.up("--mode", "tproxy")
        self.up("--mode", "tproxy", "--name", "db", "--inbound-port", "16006", "--outbound-port", "16001")
        self.space.run(POSTERN, "intercept", "down")
        rules = self.space.run("ip", "rule").stdout
        self.assertIn("lookup 16006", rules)
        self.assertNotIn("lookup 15006", rules)


class WatchTest(RulesTest):
    def watch(self, *flags, wrap=()):
        log = tempfile.NamedTemporaryFile("w+", prefix="pstn-watch-")
        self.addCleanup(log.close)
        process = self.lab.start(self.space, *wrap, POSTERN, "intercept", "watch", "--proxy-uid", PROXY_UID,
                                 *flags, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.log_path = log.name
        lab.wait_until(lambda: "watching" in self.log(), what=self.log)
        return process

    def log(self):
        with open(self.log_path, encoding="utf-8") as handle:
            return handle.read()

    def wait_whole(self, *flags, timeout=5):
        lab.wait_until(lambda: self.diff(*flags).returncode == 0, timeout, self.log, 0.1)

    def wait_told(self, text, count=1, timeout=5):
        lab.wait_until(lambda: self.log().count(text) >= count, timeout, self.log)

    def test_sets_the_rules_and_puts_them_back_as_soon_as_nft_tells_of_their_end(self):
        self.watch("--interval", "1h", "--fail-closed")
        self.wait_whole("--fail-closed")
        self.wait_told("are in force again")
        self.nft("flush", "ruleset")
        self.wait_told("are in force again", 2)
        self.wait_whole("--fail-closed")
        self.assertIn("- table inet postern", self.log())

    def test_mends_a_single_rule(self):
        self.watch("--interval", "1h")
        self.wait_told("are in force again")
        self.delete_rule("outbound", "loop guard, by uid")
        self.wait_told("- chain outbound: 'loop guard, by uid'")
        self.wait_whole()

    def test_finds_what_changes_before_nfts_monitor_listens(self):
        directory = tempfile.TemporaryDirectory(prefix="pstn-watch-")
        self.addCleanup(directory.cleanup)
        nft = os.path.realpath(shutil.which("nft", path=os.environ["PATH"] + ":/usr/sbin:/sbin"))
        real, slow = shutil.copy(nft, f"{directory.name}/real"), f"{directory.name}/slow"
        with open(slow, "w", encoding="ascii") as script:
            script.write(f'#!/bin/sh\ncase "$*" in *monitor*) sleep 2 ;; esac\nexec {real} "$@"\n')
        os.chmod(slow, 0o755)
        # Seen by this one alone.
        mount = f'{" ".join(lab.PRIVATE_MOUNTS)} && mount --bind {slow} {nft} && exec "$@"'
        self.watch("--interval", "1h", wrap=["unshare", "--mount", "--propagation", "unchanged", "sh",
                                             "-c", mount, "sh"])
        self.wait_told("are in force again")
        self.delete_rule("outbound", "loop guard, by uid")
        self.wait_told("- chain outbound: 'loop guard, by uid'", timeout=20)
        self.wait_whole()

    def test_finds_by_its_interval_what_nft_does_not_tell(self):
        self.watch("--interval", "1s", "--mode", "tproxy")
        self.wait_told("are in force again")
        self.space.run("ip", "rule", "del", "table", "15006")
        self.wait_told("- ip rule: fwmark 0x1000/0x1000 lookup 15006")
        self.wait_whole("--mode", "tproxy")

    def test_leaves_alone_what_is_as_it_should_be(self):
        self.up()
        before = self.nft("-a", "list", "table", "inet", "postern")  # with the kernel's handles
        self.watch("--interval", "1s")
        self.nft("add", "table", "inet", "of_others")  # wakes it up
        self.nft("delete", "table", "inet", "of_others")
        time.sleep(2.5)
        self.assertEqual(self.nft("-a", "list", "table", "inet", "postern"), before)
        self.assertEqual(self.log().count("\n"), 1, self.log())

    def test_only_tells_when_told_so_and_once(self):
        self.up()
        self.watch("--interval", "1s", "--only-tell")
        self.delete_rule("outbound", "loop guard, by uid")
        self.wait_told("- chain outbound: 'loop guard, by uid'")
        self.nft("add", "table", "inet", "wake")
        self.nft("delete", "table", "inet", "wake")
        self.assertEqual(self.diff().returncode, 1)
        self.assertEqual(self.log().count("loop guard"), 1)

    def test_ends_on_a_signal_and_leaves_the_rules(self):
        process = self.watch("--interval", "1h")
        self.wait_whole()
        self.assertEqual(self.lab.stop(process, how=signal.SIGTERM), 0)
        self.assertEqual(self.diff().returncode, 0)

    def test_two_that_disagree_do_not_fill_the_machine_with_it(self):
        self.watch("--interval", "1h")
        self.wait_told("are in force again")
        for _ in range(5):
            self.nft("flush", "ruleset")
        self.wait_whole()
        self.assertLessEqual(self.log().count("are in force again"), 4, self.log())


if __name__ == "__main__":
    unittest.main()
