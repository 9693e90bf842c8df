#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Real programs of Debian as servers, each with an exchange of its real client that shows whether the
right content came. No other file of the tests is needed, so that an unprivileged user can run a copy:

  programs.py serve HOME NAME...   starts these servers on all addresses of both families, makes the file
                                   HOME/serving once each has answered on 127.0.0.1, and ends them on SIGTERM
  programs.py exchange HOME        reads [[NAME, ADDRESS, PORT], ...] from standard input, makes the
                                   exchanges one after the other, and prints one JSON line for each:
                                   {"program", "address", "port", "seconds", "error": null or what was wrong}

Who serves has made HOME for itself, and the clients' keys lie there too. The user needs an entry in
/etc/passwd with a shell, and may not be root: PostgreSQL demands the one, OpenSSH the other.
"""

import concurrent.futures
import contextlib
import email.utils
import hashlib
import json
import os
import re
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import tempfile
import time

# Goes through every exchange, in the clear where the protocol does not encrypt.
MARK = "the-plaintext-of-an-exchange-"
PYTHON = "/usr/bin/python3"  # Debian's own: aiosmtpd is a package of that one
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/bin:/bin"
LIMIT = 30  # seconds, of one step of an exchange


class Failed(Exception):
    """An exchange that did not bring what it should."""


def run(*words, text=None):
    """What a client prints; Failed unless its exit status is 0."""
    done = subprocess.run([str(word) for word in words], input=text, stdin=None if text else
                          subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          universal_newlines=True, timeout=LIMIT, check=False)
    if done.returncode != 0:
        raise Failed(f"{words[0]}: exit {done.returncode}: {done.stdout[-500:]}{done.stderr[-500:]}")
    return done.stdout


def expect(got, wanted):
    if got != wanted:
        raise Failed(f"not what was expected: {repr(got)[-300:]}")


def host(address):
    return f"[{address}]" if ":" in address else address


def write(path, text):
    with open(path, "w", encoding="ascii") as handle:
        handle.write(text)
    return path


def nginx_config(home, http):
    """A configuration whose http block holds `http`, with everything that nginx writes in `home`."""
    return f"""daemon off; master_process off; pid {home}/nginx.pid; error_log {home}/nginx.log;
events {{ worker_connections 4096; }}
http {{ client_body_temp_path {home}/t1; proxy_temp_path {home}/t2; fastcgi_temp_path {home}/t3;
  uwsgi_temp_path {home}/t4; scgi_temp_path {home}/t5;
  {http} }}
"""


class Program:
    """One server and its client. `home` is a directory of the server's own, below HOME."""

    name = port = None
    needs = ()               # the executables
    server_first = False     # its client waits for a greeting
    opens_with = b"hello\r\n"  # what a client outside the mesh says first, when it is not `server_first`
    ends_by = signal.SIGTERM

    def missing(self):
        """The executables that this machine has not got."""
        return [need for need in self.needs if shutil.which(need, path=PATH) is None]

    def prepare(self, home):
        """What is made once, before the first start."""

    def command(self, home):
        """The words that start the server in the foreground."""
        raise NotImplementedError

    def exchange(self, home, address, port):
        """Raises Failed, or what subprocess raises, unless the right content came."""
        raise NotImplementedError


class MariaDb(Program):
    name, port, server_first = "mariadb", 3306, True
    needs = ("mariadbd", "mariadb")

    def prepare(self, home):
        os.mkdir(f"{home}/data")

    def command(self, home):
        # Without grant tables there is nothing to install: everybody may do everything.
        return ["mariadbd", "--no-defaults", f"--datadir={home}/data", f"--port={self.port}",
                "--bind-address=*", "--skip-grant-tables", "--skip-networking=0",
                f"--socket={home}/socket", f"--pid-file={home}/pid", "--innodb-buffer-pool-size=8M",
                "--innodb-log-file-size=4M", "--skip-name-resolve", "--innodb-flush-method=nosync",
                f"--tmpdir={home}"]

    def exchange(self, home, address, port):
        said = run("mariadb", "--no-defaults", "-h", address, "-P", port, "-u", "nobody", "--skip-ssl",
                   "-N", "-B", "-e", f"select 6*7, repeat('{MARK}', 500)")
        expect(said, "42\t" + MARK * 500 + "\n")


class OpenSsh(Program):
    name, port, server_first = "openssh", 2222, True
    needs = ("sshd", "ssh", "ssh-keygen")

    def prepare(self, home):
        for name in ("host", "user"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{home}/{name}")
        version = subprocess.run(["ssh", "-V"], stderr=subprocess.PIPE, check=True,
                                 universal_newlines=True).stderr
        found = tuple(int(part) for part in re.search(r"OpenSSH_(\d+)\.(\d+)", version).groups())
        # Every client behind a proxy is one source to sshd, and a test that only looks at the greeting
        # gets that source punished.
        lenient = "PerSourcePenalties no\n" if found >= (9, 8) else ""
        write(f"{home}/config", f"Port {self.port}\nListenAddress 0.0.0.0\nListenAddress ::\n"
              f"HostKey {home}/host\nAuthorizedKeysFile {home}/user.pub\nPidFile none\n"
              f"StrictModes no\nUsePAM no\nUseDNS no\n{lenient}")

    def command(self, home):
        # sshd starts itself anew by its own path.
        return [shutil.which("sshd", path=PATH), "-D", "-e", "-f", f"{home}/config"]

    def exchange(self, home, address, port):
        said = run("ssh", "-F", "none", "-p", port, "-i", f"{home}/user", "-o", "StrictHostKeyChecking=no",
                   "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR",
                   address, f"cat; echo {MARK}", text="by ssh\n")
        expect(said, f"by ssh\n{MARK}\n")


class Smtp(Program):
    """aiosmtpd with a handler that answers with the digest of the mail that it got."""

    name, port, server_first = "smtp", 2525, True
    needs = ("aiosmtpd",)
    SERVER = """import asyncio, hashlib, sys
from aiosmtpd.controller import UnthreadedController
class Digest:
    async def handle_DATA(self, server, session, envelope):
        return "250 " + hashlib.sha256(envelope.content).hexdigest()
loop = asyncio.new_event_loop()
for address in ("0.0.0.0", "::"):
    UnthreadedController(Digest(), hostname=address, port=int(sys.argv[1]), loop=loop).begin()
loop.run_forever()
"""

    def command(self, home):
        return [PYTHON, write(f"{home}/server.py", self.SERVER), str(self.port)]

    def exchange(self, home, address, port):
        mail = f"Date: {email.utils.formatdate()}\r\nSubject: x\r\n\r\n" + f"{MARK}\r\n" * 500
        with smtplib.SMTP(address, port, local_hostname="client.example", timeout=LIMIT) as client:
            client.ehlo()
            client.mail("a@example.org")
            client.rcpt("b@example.org")
            said = client.data(mail)
        expect(said, (250, hashlib.sha256(mail.encode()).hexdigest().encode()))


class Redis(Program):
    name, port = "redis", 6379
    needs = ("redis-server", "redis-cli")
    opens_with = b"PING\r\n"

    def command(self, home):
        return ["redis-server", "--port", str(self.port), "--bind", "0.0.0.0", "::", "--protected-mode",
                "no", "--save", "", "--dir", home]

    def exchange(self, home, address, port):
        value = MARK * 1000
        said = run("redis-cli", "-h", address, "-p", port,
                   text=f"del count\nincr count\nset key {value}\nget key\n")
        expect(said.split()[1:], ["1", "OK", value])


class PostgreSql(Program):
    name, port = "postgresql", 5432
    needs = ("psql",)
    opens_with = b"\0\0\0\x08\x04\xd2\x16\x2f"  # SSLRequest
    ends_by = signal.SIGINT  # at once, and not when the last client has gone
    tls = False

    @staticmethod
    def tool(name):
        """Debian keeps the server's programs of each version apart, and out of PATH."""
        root = "/usr/lib/postgresql"
        found = sorted(os.listdir(root), key=float) if os.path.isdir(root) else []
        return f"{root}/{found[-1]}/bin/{name}" if found else None

    def missing(self):
        return super().missing() + ([] if self.tool("postgres") else ["postgres"])

    def prepare(self, home):
        data = f"{home}/data"
        run(self.tool("initdb"), "-D", data, "-A", "trust", "-U", "postgres", "--no-sync", "--locale=C",
            "-E", "UTF8")
        kind = "hostssl" if self.tls else "host"
        write(f"{data}/pg_hba.conf", f"{kind} all all 0.0.0.0/0 trust\n{kind} all all ::/0 trust\n")
        if self.tls:
            run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-subj", "/CN=db.example", "-keyout", f"{data}/server.key", "-out", f"{data}/server.crt")
            os.chmod(f"{data}/server.key", 0o600)

    def command(self, home):
        return [self.tool("postgres"), "-D", f"{home}/data", "-p", str(self.port), "-c",
                "listen_addresses=*", "-c", "unix_socket_directories=", "-c", "fsync=off", "-c",
                f"ssl={'on' if self.tls else 'off'}"]

    def exchange(self, home, address, port):
        said = run("psql", f"host={address} port={port} user=postgres dbname=postgres "
                   f"sslmode={'require' if self.tls else 'disable'}", "-At", "-c",
                   "select exists(select 1 from pg_stat_ssl where ssl and pid = pg_backend_pid()), "
                   f"sum(i), repeat('{MARK}', 500) from generate_series(1, 100000) i")
        expect(said, f"{'t' if self.tls else 'f'}|5000050000|" + MARK * 500 + "\n")


class PostgreSqlTls(PostgreSql):
    name, port, tls = "postgresql-tls", 5433, True
    needs = PostgreSql.needs + ("openssl",)


class NginxH1(Program):
    name, port = "nginx-h1", 8080
    needs = ("nginx", "curl")
    opens_with = b"GET / HTTP/1.0\r\n\r\n"
    listens, asks, protocol, requests = "", "--http1.1", "HTTP/1.1", 3  # over one connection

    def command(self, home):
        config = write(f"{home}/nginx.conf", nginx_config(home, f"""access_log off;
  server {{ listen 0.0.0.0:{self.port} {self.listens}; listen [::]:{self.port} {self.listens};
    default_type text/plain; location / {{ return 200 "$server_protocol $request_uri\n"; }} }}"""))
        return ["nginx", "-c", config, "-e", f"{home}/nginx.log"]

    def exchange(self, home, address, port):
        paths = [f"/{number}?{MARK * 50}" for number in range(self.requests)]
        said = run("curl", "-sS", "--fail", "--noproxy", "*", "--max-time", LIMIT, self.asks,
                   *[f"http://{host(address)}:{port}{path}" for path in paths])
        expect(said, "".join(f"{self.protocol} {path}\n" for path in paths))


class NginxH2(NginxH1):
    """HTTP/2 in the clear, from the first byte."""
    name, port = "nginx-h2", 8082
    opens_with = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    # curl 7.88 cannot use such a connection again.
    listens, asks, protocol, requests = "http2", "--http2-prior-knowledge", "HTTP/2.0", 1


class Mosquitto(Program):
    name, port = "mosquitto", 1883
    needs = ("mosquitto", "mosquitto_pub", "mosquitto_sub")
    opens_with = b"\x10\x0e\0\4MQTT\4\2\0\x3c\0\2xy"

    def command(self, home):
        return ["mosquitto", "-c", write(f"{home}/config", f"listener {self.port}\nallow_anonymous true\n"
                                         "persistence false\nlog_dest stderr\n")]

    def exchange(self, home, address, port):
        mesh = ("-h", address, "-p", port, "-t", "kept", "-q", "1")
        message = f"{MARK * 100}{time.monotonic_ns()}"
        run("mosquitto_pub", *mesh, "-r", "-m", message)
        expect(run("mosquitto_sub", *mesh, "-C", "1", "-W", LIMIT - 10), message + "\n")


class Rsync(Program):
    name, port = "rsync", 8730
    needs = ("rsync",)
    opens_with = b"@RSYNCD: 31.0\n"

    def prepare(self, home):
        os.mkdir(f"{home}/files")

    def command(self, home):
        config = write(f"{home}/config", f"use chroot = no\nlock file = {home}/lock\n"
                       f"[files]\npath = {home}/files\nread only = no\n")
        return ["rsync", "--daemon", "--no-detach", f"--config={config}", f"--port={self.port}",
                f"--log-file={home}/transfers"]

    def exchange(self, home, address, port):
        url = f"rsync://{host(address)}:{port}/files"
        content = MARK.encode() * 1000 + os.urandom(200_000)
        with tempfile.TemporaryDirectory() as here:
            for name in ("out", "back"):
                os.mkdir(f"{here}/{name}")
            with open(f"{here}/out/file", "wb") as handle:
                handle.write(content)
            # A file of the same size and second as the one before would be taken for the same.
            run("rsync", "--whole-file", "--ignore-times", f"{here}/out/file", f"{url}/")
            run("rsync", "--whole-file", f"{url}/file", f"{here}/back/")
            with open(f"{here}/back/file", "rb") as handle:
                expect(handle.read(), content)


class Iperf3(Program):
    """As much as was asked for, in four streams, each way. What it sends is its own: it has no mark."""

    name, port = "iperf3", 5201
    needs = ("iperf3",)
    AMOUNT = 4 << 20

    def command(self, home):
        return ["iperf3", "-s", "-p", str(self.port)]

    def exchange(self, home, address, port):
        # What the server has read when the client ends the measurement is a matter of chance.
        for words, side in (((), "sum_sent"), (("-R",), "sum_received")):
            if (moved := self.once(address, port, words)[side]["bytes"]) < self.AMOUNT:
                raise Failed(f"iperf3 {words}: {moved} bytes of {self.AMOUNT}")

    def once(self, address, port, words):
        """One measurement. The server takes one at a time, and does not even listen for a moment after one:
        as long as it has taken up no stream of this one it is asked again."""
        limit = time.monotonic() + 5
        while True:
            done = subprocess.run(["iperf3", "-c", address, "-p", str(port), "-n", str(self.AMOUNT), "-P",
                                   "4", "-J", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, timeout=LIMIT, check=False)
            said = json.loads(done.stdout)
            if done.returncode == 0 and "error" not in said:
                return said["end"]
            if said.get("start", {}).get("connected") or time.monotonic() > limit:
                raise Failed(f"iperf3: exit {done.returncode}: {said.get('error')}")
            time.sleep(0.05)


PROGRAMS = {program.name: program for program in (
    MariaDb(), PostgreSql(), PostgreSqlTls(), Redis(), NginxH1(), NginxH2(), OpenSsh(), Smtp(),
    Mosquitto(), Rsync(), Iperf3())}


def attempt(program, home, address, port):
    """None, or what was wrong with the exchange."""
    try:
        program.exchange(home, address, port)
    except (Failed, OSError, subprocess.SubprocessError, smtplib.SMTPException, ValueError,
            KeyError) as error:
        return f"{type(error).__name__}: {error}"
    return None


class Servers:
    """The servers of `serve`, each a child."""

    def __init__(self, home, names):
        self._home, self._programs = home, [PROGRAMS[name] for name in names]
        self._children, self._troubles = {}, []

    def home(self, program):
        return os.path.join(self._home, program.name)

    def start(self):
        """Returns what went wrong. Half of them take seconds, so they start side by side."""
        with concurrent.futures.ThreadPoolExecutor(len(self._programs)) as pool:
            list(pool.map(self._start_one, self._programs))
        return self._troubles

    def _start_one(self, program):
        home = self.home(program)
        try:
            if not os.path.isdir(home):
                os.mkdir(home, 0o700)
                program.prepare(home)
            with open(f"{home}/log", "ab") as log:
                child = self._children[program] = subprocess.Popen(
                    program.command(home), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        except (Failed, OSError, subprocess.SubprocessError) as error:
            self._troubles.append(f"{program.name}: {error}")
            return
        limit, wrong = time.monotonic() + 60, "nobody listens"
        while wrong and child.poll() is None and time.monotonic() < limit:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", program.port), 5).close()
                wrong = attempt(program, home, "127.0.0.1", program.port)
            if wrong:
                time.sleep(0.05)
        if wrong:
            with open(f"{home}/log", encoding="utf-8", errors="replace") as log:
                self._troubles.append(f"{program.name} (status {child.poll()}): {wrong}\n"
                                      + "".join(log.readlines()[-10:]))

    def stop(self):
        for program, child in self._children.items():
            child.send_signal(program.ends_by)
        for child in self._children.values():
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def serve(home, *names):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    servers = Servers(home, names)
    try:
        troubles = servers.start()
        if troubles:
            print("\n".join(troubles), file=sys.stderr)
            return 1
        write(f"{home}/serving", "")
        while True:
            signal.pause()
    finally:
        servers.stop()


def exchange(home):
    for name, address, port in json.load(sys.stdin):
        began = time.monotonic()
        error = attempt(PROGRAMS[name], os.path.join(home, name), address, port)
        print(json.dumps({"program": name, "address": address, "port": port, "error": error,
                          "seconds": time.monotonic() - began}), flush=True)
    return 0


if __name__ == "__main__":
    os.environ.update(PATH=PATH, HOME=sys.argv[2])
    sys.exit({"serve": serve, "exchange": exchange}[sys.argv[1]](*sys.argv[2:]))
