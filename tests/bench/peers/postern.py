# SPDX-License-Identifier: Apache-2.0
"""postern-proxy with explicit tunnels and its identity from files."""

import os

from peers.base import Peer, Unsupported, found_in, output_of


class Postern(Peer):
    """The programs of one build directory."""

    name = "postern"

    def __init__(self, build):
        self.build = os.path.abspath(build)
        self.program = self.tool("postern-proxy")

    def tool(self, name):
        """Path of one of the built programs."""
        return os.path.join(self.build, "bin", name)

    def missing(self):
        return "" if os.access(self.program, os.X_OK) else f"{self.program} is not built"

    def version(self):
        libssl = found_in(output_of("ldd", self.program), r"libssl\S+ => (\S+)", "")
        library = "OpenSSL " + found_in(_strings(libssl.replace("libssl", "libcrypto")),
                                        r"OpenSSL (3\.\d+\.\d+)") if libssl else "static TLS library"
        return f"{output_of(self.program, '--version').strip()}, {library}"

    def takes_resumption(self):
        """Whether this build has session resumption: its help says so when it has not."""
        text = " ".join(output_of(self.program, "--help").split())
        return "--resumption" in text and "only false is accepted" not in text

    def command(self, workshop, side):
        direction = "outbound" if side.is_client else "inbound"
        words = [self.program, "--svid", side.own.cert, "--svid-key", side.own.key,
                 "--bundle", side.root, "--tunnel",
                 f"{direction},listen=127.0.0.1:{side.listen},target=127.0.0.1:{side.dial},"
                 f"peer={side.other.spiffe_id}",
                 "--workers", str(side.plan.workers), "--access-log", "off", "--log-level", "warn",
                 "--admin", f"127.0.0.1:{workshop.free_port()}", "--admin-socket", "off",
                 "--metrics", f"127.0.0.1:{workshop.free_port()}"]
        if side.plan.resumption and not self.takes_resumption():
            raise Unsupported("this build has no resumption")
        if self.takes_resumption():
            words += ["--resumption", "true" if side.plan.resumption else "false"]
        return words, {}


def _strings(path):
    """The first version string of a libcrypto."""
    try:
        with open(path, "rb") as handle:
            content = handle.read()
    except OSError:
        return ""
    start = content.find(b"OpenSSL 3.")
    return content[start:start + 20].decode("ascii", "replace") if start >= 0 else ""
