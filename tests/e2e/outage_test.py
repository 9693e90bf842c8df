# SPDX-License-Identifier: Apache-2.0
"""What happens when certificates end: the issuer away past expiry and back, certificates that nobody
renews any more, clocks that are wrong, roots that have expired or that one side does not know. For each
the reason in the record, in the metric and in what the proxy says of itself."""

import glob
import os
import re
import shutil
import time
import unittest

import harness
import lab
import pki
import s_client
from harness import CLIENT_ID, PROXY_UID, SERVER, TRUST_DOMAIN
from lab import wait_until


def churn(mesh, count=5, check=True):
    return mesh.client.run("python3", mesh.apps, "churn", SERVER[4], "7000", str(count),
                           check=check)


def identity_status(proxy):
    return proxy.page("/status")["identity"]


def missing(proxy):
    return "\n".join(proxy.page("/status")["missing"])


class ExpiryTest(harness.MeshTest):
    """The issuer is away until every certificate has ended, and comes back within the grace."""

    TTL = 20
    mesh_options = {"svid_ttl": f"{TTL}s"}
    echo_port = 7000

    def test_refuses_when_all_has_ended_and_recovers_by_itself(self):
        client, server = self.proxy("client"), self.proxy("server")
        churn(self.mesh)
        for name in ("client", "server"):
            os.remove(self.mesh.path(f"{name}.token"))
        self.mesh.stop_issuer()
        for proxy in (client, server):
            wait_until(lambda p=proxy: not p.is_ready(), 2 * self.TTL, f"end of {proxy.name}", 0.2)
            self.assertIn("no certificate that is valid now", missing(proxy))
            self.assertIn("expired", missing(proxy))
            self.assertIn("this clock agrees with the issuer's", missing(proxy))
        refused = client.metric("postern_connections_closed_total", reason="no_identity")
        self.assertNotEqual(churn(self.mesh, 1, check=False).returncode, 0)
        wait_until(lambda: client.metric("postern_connections_closed_total", reason="no_identity")
                   > refused, what="the refusal")
        client.wait_recorded()
        self.assertEqual(client.access_log()[-1]["reason"], "no_identity")
        self.assertIn("expired", client.failures()[0]["detail"])
        self.mesh.start_issuer()
        for proxy in (client, server):
            proxy.wait_ready(15)
            self.assertEqual(proxy.process.poll(), None, "without a restart")
        churn(self.mesh)
        self.assertGreaterEqual(
            self.mesh.issuer_metric("postern_issuer_certificates_issued_total",
                                    evidence="existing_certificate"), 2)
        with open(self.mesh.path("issuer.log"), encoding="utf-8") as log:
            self.assertIn("renewal within the grace", log.read())


class LongExpiredTest(harness.MeshTest):
    """Certificates that the issuer renews no more: they ended too long ago, or are another issuer's."""

    TTL = 10

    @classmethod
    def make_mesh(cls):
        mesh = harness.Mesh(svid_ttl=f"{cls.TTL}s", issuer_words=["--renewal-grace", "1s"])
        cls.addClassCleanup(mesh.close)
        mesh.add_workload("client", mesh.client, "198.18.2.2")
        mesh.proxies["client"].wait_ready()
        return mesh

    def refused(self, reason):
        return self.mesh.issuer_metric("postern_issuer_refused_total", reason=reason)

    def test_a_long_expired_certificate_is_refused_for_that_and_a_token_mends_it(self):
        client = self.proxy("client")
        self.mesh.stop_issuer()
        wait_until(lambda: not client.is_ready(), 2 * self.TTL, "end of the certificate", 0.2)
        time.sleep(2)  # the grace, which only time itself can use up
        self.mesh.start_issuer()
        wait_until(lambda: self.refused("long_expired") >= 1, 20, "the refusal", 0.2)
        wait_until(lambda: self.refused("bad_token") >= 1, 20, "the token's turn", 0.2)
        wait_until(lambda: "the grace for renewing it is 1s" in identity_status(client)["renewal_error"],
                   20, lambda: str(identity_status(client)), 0.2)
        self.assertFalse(client.is_ready())
        self.mesh.new_token("client")
        client.wait_ready(25)

    def test_the_certificate_of_an_issuer_that_was_lost_is_foreign_to_the_next(self):
        client = self.proxy("client")
        client.wait_ready(25)
        self.mesh.stop_issuer()
        self.assertEqual(client.stop(), 0)
        shutil.move(self.mesh.path("issuer"), self.mesh.path("issuer.lost"))
        self.mesh.start_issuer()
        os.remove(self.mesh.path("client.token"))
        at = client.command.index("--issuer-pin") + 1
        client.command[at] = self.mesh.pin()
        client.start()
        wait_until(lambda: self.refused("unattested") >= 1, 20, "the refusal", 0.2)
        wait_until(lambda: "client certificate" in identity_status(client)["renewal_error"]
                   or "client.token" in identity_status(client)["renewal_error"], 20,
                   lambda: str(identity_status(client)), 0.2)
        self.assertEqual(self.mesh.issuer_metric("postern_issuer_certificates_issued_total",
                                                 evidence="existing_certificate"), 0)
        self.mesh.new_token("client")
        client.wait_ready(25)


def wait_for_log(proxy, pattern):
    def text():
        with open(proxy.log_path, encoding="utf-8") as log:
            return log.read()
    wait_until(lambda: re.search(pattern, text()), 10, lambda: f"{pattern} in {text()}")


class ClockTest(harness.MeshTest):
    """The client's machine has a clock that is ten minutes behind: its new leaf is not valid yet."""

    @classmethod
    def make_mesh(cls):
        libraries = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
        if not libraries:
            raise unittest.SkipTest("needs faketime")
        mesh = harness.Mesh()
        cls.addClassCleanup(mesh.close)
        cls.shift_file = mesh.path("shift")
        cls.set_clock("-10m")
        mesh.add_workload("server", mesh.server, "198.18.3.2", entry=["--address", SERVER[4]])
        mesh.add_workload(
            "client", mesh.client, "198.18.2.2",
            wrap=["env", "ASAN_OPTIONS=verify_asan_link_order=0", f"LD_PRELOAD={libraries[0]}",
                  "FAKETIME_NO_CACHE=1", f"FAKETIME_TIMESTAMP_FILE={cls.shift_file}",
                  "FAKETIME_DONT_FAKE_MONOTONIC=1"])
        mesh.proxies["server"].wait_ready()
        mesh.serve("echo", 7000)
        return mesh

    @classmethod
    def set_clock(cls, shift):
        with open(cls.shift_file + ".new", "w", encoding="ascii") as handle:
            handle.write(shift)
        os.rename(cls.shift_file + ".new", cls.shift_file)

    def test_names_the_clock_and_recovers_when_it_is_put_right(self):
        client = self.proxy("client")
        wait_until(lambda: "10 min behind the issuer's" in identity_status(client)["renewal_error"],
                   20, lambda: str(identity_status(client)), 0.2)
        self.assertIn("is not valid for another 7m", identity_status(client)["renewal_error"])
        self.assertAlmostEqual(client.metric("postern_clock_skew_seconds"), -600, delta=20)
        self.assertFalse(client.is_ready())
        # The token was used up by the certificate that could not be used, and is not needed again.
        os.remove(self.mesh.path("client.token"))
        self.set_clock("+0")
        client.wait_ready(15)
        churn(self.mesh)
        # A clock that is put forward and back between two looks was never seen to move.
        wait_for_log(client, r"its clock was put forward by (9m|10m)")
        # While it runs: what it holds is not valid yet again, and it says why.
        self.set_clock("-10m")
        wait_until(lambda: not client.is_ready(), 15, "not ready", 0.2)
        wait_until(lambda: "10 min behind the issuer's" in missing(client), 15,
                   lambda: missing(client), 0.2)
        self.assertNotEqual(churn(self.mesh, 1, check=False).returncode, 0)
        failure = wait_until(lambda: [f for f in client.failures() if f["reason"] == "no_identity"],
                             what="the failure")[0]
        self.assertIn("this clock is 10 min behind the issuer's", failure["detail"])
        wait_for_log(client, r"its clock was put back by (9m|10m)")
        self.set_clock("+0")
        client.wait_ready(15)
        churn(self.mesh)


class RootsTest(harness.MeshTest):
    """Identities from files, roots that have expired or that one side does not know."""

    @classmethod
    def make_mesh(cls):
        mesh = harness.Mesh(issuer=False)
        cls.addClassCleanup(mesh.close)
        cls.old = pki.Authority(mesh.directory, "old")
        cls.expired = pki.Authority(mesh.directory, "expired", shift="-60d")
        cls.new = pki.Authority(mesh.directory, "new")
        destinations = mesh.path("destinations.yaml")
        with open(destinations, "w", encoding="utf-8") as handle:
            handle.write("apiVersion: postern.dev/v1\nkind: Destination\nmetadata: {name: server}\n"
                         f"spec:\n  addresses: [\"{SERVER[4]}\"]\n"
                         f"  spiffeIds: [\"spiffe://{TRUST_DOMAIN}/server\"]\n")
        for name, space, words in (("server", mesh.server, []),
                                   ("client", mesh.client, ["--destinations", destinations])):
            cls.bundle(mesh, name, cls.old, cls.expired)
            pem, key = cls.old.issue(name, f"spiffe://{TRUST_DOMAIN}/{name}", owner=PROXY_UID)
            cls.install(mesh, name, pem, key)
            mesh.add_proxy(name, space, ["--svid", mesh.path(f"{name}.svid"), "--svid-key",
                                         mesh.path(f"{name}.svid-key"), "--bundle",
                                         mesh.path(f"{name}.bundle"), *words])
        for proxy in mesh.proxies.values():
            proxy.wait_ready()
        mesh.serve("echo", 7000)
        return mesh

    @staticmethod
    def bundle(mesh, name, *authorities):
        text = ""
        for authority in authorities:
            with open(authority.root, encoding="ascii") as handle:
                text += handle.read()
        mesh.owned_file(f"{name}.bundle.new", text)
        os.rename(mesh.path(f"{name}.bundle.new"), mesh.path(f"{name}.bundle"))

    @staticmethod
    def install(mesh, name, pem, key):
        for source, target in ((key, "svid-key"), (pem, "svid")):
            with open(source, encoding="ascii") as handle:
                mesh.owned_file(f"{name}.{target}.new", handle.read())
            os.rename(mesh.path(f"{name}.{target}.new"), mesh.path(f"{name}.{target}"))

    def change(self, name, do):
        """Does it, and waits until the proxy has taken it into use."""
        proxy = self.proxy(name)
        before = identity_status(proxy)["generation"]
        do()
        wait_until(lambda: identity_status(proxy)["generation"] > before, 15,
                   lambda: str(identity_status(proxy)), 0.1)

    def change_bundle(self, name, *authorities):
        self.change(name, lambda: self.bundle(self.mesh, name, *authorities))

    def change_server(self, authority):
        pem, key = authority.issue("server", f"spiffe://{TRUST_DOMAIN}/server", owner=PROXY_UID)
        self.change("server", lambda: self.install(self.mesh, "server", pem, key))

    def closed(self, name, reason):
        return self.proxy(name).metric("postern_connections_closed_total", reason=reason)

    def test_an_expired_root_in_the_bundle_hurts_nobody_and_vouches_for_nobody(self):
        churn(self.mesh)
        kinds = self.proxy("server").page("/certs")["certificates"]
        self.assertTrue([c for c in kinds if c["kind"] == "root" and c["seconds_left"] < 0], kinds)
        # A leaf of today below the expired root.
        pem, key = self.expired.issue("client", f"spiffe://{TRUST_DOMAIN}/client")
        before = self.closed("server", "peer_expired")
        s_client.ask("-connect", f"{harness.SERVER_BACK}:7000", "-cert", pem, "-key", key,
                     prefix=self.mesh.back.prefix())
        wait_until(lambda: self.closed("server", "peer_expired") > before, what="the refusal")
        failure = self.proxy("server").failures()[0]
        self.assertEqual((failure["reason"], failure["x509_depth"]), ("peer_expired", 1), failure)

    def test_a_new_root_that_one_side_does_not_know_is_named_by_both(self):
        churn(self.mesh)
        self.change_bundle("server", self.old, self.new)
        self.addCleanup(self.change_bundle, "server", self.old, self.expired)
        self.change_server(self.new)
        self.addCleanup(self.change_server, self.old)
        self.assertNotEqual(churn(self.mesh, 1, check=False).returncode, 0)
        wait_until(lambda: self.closed("client", "peer_untrusted") >= 1, what="the client's record")
        wait_until(lambda: self.closed("server", "rejected_by_peer") >= 1, what="the server's record")
        self.assertEqual(self.proxy("client").failures()[0]["peer_id"],
                         f"spiffe://{TRUST_DOMAIN}/server")
        self.assertIn("root", self.proxy("client").failures()[0]["mend"])
        self.change_bundle("client", self.old, self.new)
        self.addCleanup(self.change_bundle, "client", self.old, self.expired)
        churn(self.mesh)
        self.proxy("server").wait_recorded()
        self.assertEqual(self.proxy("server").access_log()[-1]["peer_id"], CLIENT_ID)


class CutTest(harness.MeshTest):
    """The way to the issuer is cut without a word, no FIN and no RST, for longer than --max-stale."""

    client_words = ("--max-stale", "30s")
    echo_port = 7000

    def test_notices_refuses_what_is_new_when_it_is_stale_and_recovers(self):
        client = self.proxy("client")
        churn(self.mesh)
        self.assertEqual(client.page("/status")["issuer"]["stale"], [])
        self.mesh.back.run("ip", "link", "set", "pstn2b", "down")
        wait_until(lambda: client.metric("postern_issuer_connected") == 0, 45, "the loss", 0.2)
        wait_until(lambda: not client.is_ready(), 45, "stale", 0.2)
        self.assertIn("and --max-stale is 30s", missing(client))
        self.assertGreater(client.metric("postern_trust_age_seconds", what="bundles"), 30)
        self.assertGreater(client.metric("postern_bundle_age_seconds"), 30)
        self.assertEqual(client.metric("postern_trust_stale"), 1)
        self.assertNotEqual(churn(self.mesh, 1, check=False).returncode, 0)
        wait_until(lambda: client.metric("postern_connections_closed_total", reason="stale_trust") >= 1,
                   what="the refusal")
        self.assertEqual(client.failures()[0]["reason"], "stale_trust")
        client.wait_recorded()
        self.assertEqual(client.access_log()[-1]["reason"], "stale_trust")
        self.assertTrue(self.proxy("server").is_ready())
        self.mesh.back.run("ip", "link", "set", "pstn2b", "up")
        client.wait_ready(45)
        self.assertLess(client.metric("postern_trust_age_seconds", what="policy"), 20)
        churn(self.mesh)


class StateTest(harness.MeshTest):
    """The state directory belongs to one proxy, and its key to one user."""

    @classmethod
    def make_mesh(cls):
        mesh = harness.Mesh()
        cls.addClassCleanup(mesh.close)
        mesh.add_workload("client", mesh.client, "198.18.2.2")
        mesh.proxies["client"].wait_ready()
        return mesh

    def second(self):
        """Another proxy on the same state directory, on ports of its own: its result."""
        state = self.mesh.path("client.state")
        words = [self.mesh.tool("postern-proxy"), "--issuer", "198.18.2.2:15012", "--state-dir", state,
                 "--issuer-pin", self.mesh.pin(), "--admin", "127.0.0.1:0", "--metrics", "127.0.0.1:0",
                 "--admin-socket", "off", "--tunnel",
                 f"inbound,listen=127.0.0.1:7999,target=127.0.0.1:1,peer=spiffe://{TRUST_DOMAIN}/*"]
        return self.mesh.client.run(*words, uid=PROXY_UID, check=False, timeout=20)

    def test_a_second_proxy_is_refused_before_it_listens(self):
        done = self.second()
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("--state-dir", done.stderr)
        self.assertIn("in use by another process", done.stderr)
        self.assertTrue(self.proxy("client").is_ready())

    def test_a_key_that_others_can_read_is_refused_with_the_mend(self):
        client = self.proxy("client")
        self.assertEqual(client.stop(), 0)
        self.addCleanup(client.wait_ready)  # last: the next case needs it
        self.addCleanup(client.start)
        for name in ("key.pem", "svid.pem"):
            path = os.path.join(self.mesh.path("client.state"), name)
            os.chmod(path, 0o644)
            done = self.second()
            os.chmod(path, 0o600)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(path, done.stderr)
            self.assertIn("chmod 600", done.stderr)
            self.assertNotRegex(done.stderr, r"\\x27")


if __name__ == "__main__":
    unittest.main()
