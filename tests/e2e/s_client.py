# SPDX-License-Identifier: Apache-2.0
"""`openssl s_client` as a client that says something and waits for what becomes of it."""

import contextlib
import subprocess
import threading


def ask(*words, text="hello\n", prefix=(), timeout=20):
    """What came back for `text`: as many bytes as that has, or fewer where the connection ended before.
    `prefix` are words that run it elsewhere (Namespace.prefix())."""
    process = subprocess.Popen([*prefix, "openssl", "s_client", "-quiet", "-no_ign_eof", *words],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    limit = threading.Timer(timeout, process.kill)
    limit.start()
    try:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(text.encode())
            process.stdin.flush()
        # It hangs up at the end of its input, so that does not end before the answer is there.
        got = process.stdout.read(len(text.encode()))
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        got += process.stdout.read()
        process.wait()
    finally:
        limit.cancel()
        process.stdout.close()
    return got.decode()
