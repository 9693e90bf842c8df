# SPDX-License-Identifier: Apache-2.0
"""Many connections at a time and one after another: nothing is left of them."""

import json
import subprocess
import unittest

import harness
from harness import SERVER
from lab import wait_until

CONCURRENT = 2000
SEQUENTIAL = 200_000 if harness.SOAK else 20_000
MEBIBYTE = 1 << 20


class ScaleTest(harness.MeshTest):

    @classmethod
    def make_mesh(cls):
        mesh = super().make_mesh()
        mesh.serve("echo", 7000)
        return mesh

    def proxies(self):
        return [self.proxy("client"), self.proxy("server")]

    def hold(self, count):
        """Opens `count` connections; returns the process and checks that both proxies carry them."""
        process = self.mesh.app(self.mesh.client, "hold", SERVER[4], 7000, count,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.assertEqual(json.loads(process.stdout.readline()), {"open": count})
        for proxy in self.proxies():
            self.assertEqual(proxy.open_connections(), count)
        return process

    def release(self, process, count):
        out, _ = process.communicate(b"\n", timeout=60)
        self.assertEqual(json.loads(out), {"done": count})
        self.assertEqual(process.returncode, 0)
        for proxy in self.proxies():
            proxy.wait_idle()

    @staticmethod
    def wait_for_descriptors(proxy, count):
        """No more than before, once the scrapes of this test have ended as well."""
        wait_until(lambda: proxy.descriptors() <= count, 10,
                   lambda: f"{proxy.name}: {proxy.descriptors()} descriptors, {count} before")

    @staticmethod
    def wait_for_memory(proxy, limit):
        """What the allocator holds free is given back by a timer, so not at the last connection's end."""
        wait_until(lambda: proxy.resident() < limit, 10,
                   lambda: f"{proxy.name}: {proxy.resident()} bytes resident, limit {limit}")

    def test_two_thousand_at_a_time_leave_nothing(self):
        self.release(self.hold(50), 50)  # what is made once and kept is there now
        descriptors = [proxy.descriptors() for proxy in self.proxies()]
        self.release(self.hold(CONCURRENT), CONCURRENT)
        after_one = [proxy.resident() for proxy in self.proxies()]
        for _ in range(2):
            self.release(self.hold(CONCURRENT), CONCURRENT)
        for proxy, count, memory in zip(self.proxies(), descriptors, after_one):
            self.wait_for_descriptors(proxy, count)
            # The allocator may keep what it had once; a second and a third time must not add to it.
            self.wait_for_memory(proxy, memory + 4 * MEBIBYTE)

    def churn(self, count):
        done = self.mesh.client.run("python3", self.mesh.apps, "churn", SERVER[4], "7000", str(count))
        for proxy in self.proxies():
            proxy.wait_idle()
        return json.loads(done.stdout)

    def test_twenty_thousand_one_after_another_leave_nothing(self):
        self.churn(1000)
        descriptors = [proxy.descriptors() for proxy in self.proxies()]
        memory = [proxy.resident() for proxy in self.proxies()]
        opened = [proxy.metric("postern_connections_opened_total") for proxy in self.proxies()]
        self.assertEqual(self.churn(SEQUENTIAL)["errors"], [])
        for i, proxy in enumerate(self.proxies()):
            self.assertEqual(proxy.metric("postern_connections_opened_total"), opened[i] + SEQUENTIAL)
            self.wait_for_descriptors(proxy, descriptors[i])
            self.wait_for_memory(proxy, memory[i] + 2 * MEBIBYTE)


if __name__ == "__main__":
    unittest.main()
