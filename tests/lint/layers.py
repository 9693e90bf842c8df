# SPDX-License-Identifier: Apache-2.0
"""The module table (cmake/Modules.cmake) is the truth: no #include may use an edge that it lacks."""

import os
import re
import unittest

import _source

# External headers by the folder (or the name) they are included as -> the CMake targets that bring
# them. A module may include what it or a module it uses LINKS.
LIBRARIES = {
    "absl/": ("postern_absl",),
    "spdlog/": ("spdlog::",),
    "openssl/": ("OpenSSL::",),
    "grpc/": ("postern_grpc",),
    "grpcpp/": ("postern_grpc",),
    "google/protobuf/": ("postern_protobuf", "postern_grpc"),
    "yaml-cpp/": ("postern_yaml",),
    "CLI/": ("CLI11::",),
    "nlohmann/": ("nlohmann_json::",),
    "prometheus/": ("prometheus-cpp::",),
    "uv.h": ("PkgConfig::UV",),
    "sqlite3.h": ("SQLite::",),
    "httplib.h": ("PkgConfig::HTTPLIB",),
    "ares.h": ("PkgConfig::CARES",),
}
# Narrower than the links: these headers stay in these modules although others link them indirectly.
CONFINED = {
    "uv.h": ("proxy/net",),
    "ares.h": ("proxy/net",),
    "grpc/": ("common/rpc", "proxy/identity", "control/service", "cli"),
    "grpcpp/": ("common/rpc", "proxy/identity", "control/service", "cli"),
    "sqlite3.h": ("control/store",),
}
SYSTEM_FOLDERS = {"sys", "linux", "netinet", "arpa", "net", "asm", "bits", "cxxabi"}
# SslCall owns SSL_get_error and the error queue: it lives in these files, and these functions are
# called there or in what is handed to it.
SSL_CALLS = re.compile(
    r"\bSSL_(read|read_ex|write|write_ex|do_handshake|accept|connect|shutdown|peek|peek_ex|get_error)"
    r"\s*\(")
SSL_CALL_FILES = re.compile(r"^proxy/tls/ssl_call(_\w+)?\.(h|cc)$")
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.MULTILINE)
COMMENT_OR_STRING = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.DOTALL)


class Table:
    """The module table, with the transitive closure of what each module may use."""

    def __init__(self, text):
        text = re.sub(r"#[^\n]*", "", text)
        self.uses, self.links, self.programs = {}, {}, {}
        for kind, body in re.findall(r"postern_(proto|module|program)\s*\(([^)]*)\)", text):
            words = body.split()
            folder = words[1] if kind == "program" else words[0]
            lists = {"USES": [], "LINKS": []}
            current = None
            for word in words:
                if word in lists:
                    current = word
                elif current:
                    lists[current].append(word)
            if kind == "proto":
                self.uses["proto/" + folder] = []
                self.links["proto/" + folder] = ["postern_grpc", "postern_protobuf"]
            elif kind == "module":
                self.uses[folder] = lists["USES"]
                self.links[folder] = lists["LINKS"]
            else:
                self.programs[folder] = lists["USES"]
                self.links.setdefault("program " + folder, lists["LINKS"])

    def closure(self, start):
        """Every module reachable from these, themselves included."""
        seen, todo = set(), list(start)
        while todo:
            module = todo.pop()
            if module not in seen:
                seen.add(module)
                todo += self.uses.get(module, [])
        return seen

    def cycles(self):
        return [m for m in self.uses if m in self.closure(self.uses[m])]


class File:
    """One source file of ours and the modules and links that it may use."""

    def __init__(self, table, name):
        self.name = name
        folder = os.path.dirname(name)
        if os.path.basename(name) == "main.cc" and folder in table.programs:
            self.module = folder if folder in table.uses else "program " + folder
            self.allowed = table.closure(table.programs[folder])
            self.links = set(table.links.get("program " + folder, []))
        else:
            self.module = folder
            self.allowed = table.closure([folder])
            self.links = set()
        for module in self.allowed:
            self.links |= set(table.links.get(module, []))
        self.known = folder in table.uses or self.module.startswith("program ") or (
            os.path.basename(name) == "main.cc" and folder in table.programs)


def confined_to(header):
    for prefix, modules in CONFINED.items():
        if header == prefix or (prefix.endswith("/") and header.startswith(prefix)):
            return modules
    return None


def judge_include(table, file, quote, header):
    """Why this include is forbidden, or None."""
    modules = confined_to(header)
    if modules is None and header.endswith(".grpc.pb.h"):
        modules = CONFINED["grpcpp/"]
    if modules is not None and file.module not in modules:
        return f"<{header}> is confined to {', '.join(modules)}"
    if header.endswith(".pb.h"):
        target = "proto/" + os.path.dirname(header)
        if target in table.uses:
            return None if target in file.allowed else f"may not use {target}"
    for prefix, targets in LIBRARIES.items():
        if header == prefix or (prefix.endswith("/") and header.startswith(prefix)):
            if any(link.startswith(target) for link in file.links for target in targets):
                return None
            return f"<{header}>: no module it may use links {' or '.join(targets)}"
    if quote == '"':
        target = os.path.dirname(header)
        if target not in table.uses:
            return f'"{header}": {target or "the root"} is no module of cmake/Modules.cmake'
        return None if target in file.allowed else f"may not use {target}"
    folder = header.split("/")[0] if "/" in header else ""
    if folder and folder not in SYSTEM_FOLDERS:
        return f"<{header}>: a library that tests/lint/layers.py does not know"
    return None


def without_wrapped_calls(code):
    """The code with every balanced SslCall(...) taken out."""
    while True:
        start = re.search(r"\bSslCall\s*\(", code)
        if not start:
            return code
        depth, end = 1, start.end()
        while depth and end < len(code):
            depth += {"(": 1, ")": -1}.get(code[end], 0)
            end += 1
        code = code[:start.start()] + code[end:]


def judge_file(table, name, text):
    """Every complaint about one file."""
    file = File(table, name)
    if not file.known:
        return [f"{name}: its folder is no module of cmake/Modules.cmake"]
    complaints = []
    for quote, header in INCLUDE.findall(text):
        why = judge_include(table, file, quote, header)
        if why:
            complaints.append(f"{name}: {why}")
    code = COMMENT_OR_STRING.sub(" ", text)
    if not SSL_CALL_FILES.match(name):
        if file.module == "proxy/tls":
            code = without_wrapped_calls(code)
        for match in SSL_CALLS.finditer(code):
            complaints.append(f"{name}: SSL_{match.group(1)} is called through SslCall only")
    return complaints


class LayersTest(unittest.TestCase):
    """The tree as it is."""

    def setUp(self):
        self.table = Table(_source.read("cmake/Modules.cmake"))

    def test_the_table_names_only_known_modules_and_has_no_cycle(self):
        known = set(self.table.uses)
        for module, used in list(self.table.uses.items()) + list(self.table.programs.items()):
            self.assertLessEqual(set(used), known, f"{module} uses a module that does not exist")
        self.assertEqual(self.table.cycles(), [])

    def test_every_include_follows_the_module_table(self):
        complaints, seen = [], 0
        for name in _source.tracked_files():
            if _source.is_cpp(name) and name.split("/")[0] in _source.CODE_FOLDERS:
                seen += 1
                complaints += judge_file(self.table, name, _source.read(name))
        self.assertGreater(seen, 0)
        self.assertEqual(complaints, [], "\n" + "\n".join(complaints))


class LayersSelfTest(unittest.TestCase):
    """The check itself, on a small made-up table."""

    TABLE = Table("""
      postern_proto(postern/v1)
      postern_module(common/base LINKS postern_absl)
      postern_module(proxy/net USES common/base LINKS PkgConfig::UV)
      postern_module(proxy/tls USES common/base LINKS OpenSSL::SSL)
      postern_module(proxy/session USES proxy/net proxy/tls)  # postern_module(no)
      postern_program(postern-proxy proxy USES proxy/session)
    """)

    def complaints(self, name, text):
        return judge_file(self.TABLE, name, text)

    def test_lets_an_allowed_edge_pass_directly_and_transitively(self):
        self.assertEqual(self.complaints(
            "proxy/session/a.cc",
            '#include "proxy/net/loop.h"\n#include "common/base/ip.h"\n#include <sys/socket.h>\n'
            '#include <vector>\n#include <openssl/ssl.h>\n'), [])

    def test_refuses_an_edge_against_the_direction_of_the_table(self):
        self.assertIn("may not use proxy/session",
                      self.complaints("proxy/net/a.cc", '#include "proxy/session/s.h"\n')[0])

    def test_refuses_generated_code_without_an_edge_to_its_package(self):
        self.assertIn("may not use proto/postern/v1",
                      self.complaints("proxy/net/a.cc", '#include "postern/v1/a.pb.h"\n')[0])

    def test_keeps_libuv_inside_the_net_module_although_others_link_it(self):
        self.assertEqual(self.complaints("proxy/net/a.cc", "#include <uv.h>\n"), [])
        self.assertIn("confined", self.complaints("proxy/session/a.cc", "#include <uv.h>\n")[0])

    def test_keeps_grpc_out_of_other_modules(self):
        self.assertIn("confined",
                      self.complaints("proxy/session/a.cc", "#include <grpcpp/grpcpp.h>\n")[0])

    def test_refuses_a_library_that_no_used_module_links(self):
        self.assertIn("no module", self.complaints("proxy/net/a.cc", "#include <openssl/ssl.h>\n")[0])
        self.assertIn("does not know", self.complaints("proxy/net/a.cc", "#include <boost/a.hpp>\n")[0])

    def test_refuses_tls_io_calls_outside_the_one_wrapper(self):
        self.assertEqual(self.complaints("proxy/tls/ssl_call.cc", "SSL_read(s, b, 1);"), [])
        self.assertEqual(self.complaints("proxy/tls/a.cc", "// SSL_read(s)\nSSL_free(s);"), [])
        self.assertIn("SSL_read", self.complaints("proxy/tls/a.cc", "SSL_read (s, b, 1);")[0])
        wrapped = "SslCall(s, [&](SSL* t) { return SSL_read_ex(t, b.data(), n(), &g); });"
        self.assertEqual(self.complaints("proxy/tls/a.cc", wrapped), [])
        self.assertEqual(len(self.complaints("proxy/tls/a.cc", wrapped + "SSL_get_error(s, 1);")), 1)
        self.assertEqual(len(self.complaints("proxy/session/a.cc", wrapped)), 1)

    def test_refuses_a_folder_that_the_table_does_not_name(self):
        self.assertIn("no module", self.complaints("proxy/other/a.cc", "")[0])
        self.assertEqual(self.complaints("proxy/main.cc", '#include "proxy/net/loop.h"\n'), [])


if __name__ == "__main__":
    unittest.main()
