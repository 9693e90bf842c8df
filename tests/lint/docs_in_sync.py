# SPDX-License-Identifier: Apache-2.0
"""The generated pages say what the code says.

docs/CONFIG.md and docs/METRICS.md are what `postern-docs config|metrics` prints; the table of close
reasons in docs/OPERATIONS.md comes from common/base/close_reason.h; the flags that the man pages name
are flags that the programs have. `docs_in_sync.py --write` (the CMake target `docs`) rewrites them.
"""

import os
import re
import subprocess
import sys
import unittest

import _source
import layers

GENERATOR = os.path.join(_source.BUILD, "bin", "postern-docs")
PAGES = {"docs/CONFIG.md": "config", "docs/METRICS.md": "metrics"}
OPERATIONS = "docs/OPERATIONS.md"
BEGIN, END = "<!-- close reasons: begin (generated) -->\n", "<!-- close reasons: end -->"
MAN_PAGES = {"docs/man/postern-proxy.8": "postern-proxy",
             "docs/man/postern-identity.8": "postern-identity", "docs/man/postern.1": "postern"}
# What the user types behind `postern` may have flags of its own; their help is asked for as well.
MEND = "run: cmake --build build/release --target docs"


def close_reasons(header):
    """[(enumerator, token, what, mend)] of the X macro list."""
    body = header[header.index("#define POSTERN_CLOSE_REASONS"):header.index("enum class CloseReason")]
    body = body.replace("\\\n", " ")
    text = r'"((?:[^"\\]|\\.)*)"'
    pattern = re.compile(rf"X\(\s*(k\w+),\s*{text},\s*{text},\s*{text}\s*\)")
    return [tuple(part.replace('\\"', '"') for part in m) for m in pattern.findall(body)]


def close_reason_table(header):
    lines = ["| close reason | what happened | what to do |", "|---|---|---|"]
    for _, token, what, mend in close_reasons(header):
        lines.append(f"| `{token}` | {what} | {mend} |".replace("  |", " |"))
    return "\n".join(lines) + "\n"


def with_table(page, table):
    """The page with what stands between the marks replaced."""
    start, end = page.index(BEGIN) + len(BEGIN), page.index(END)
    return page[:start] + table + page[end:]


def generate(argument):
    return subprocess.run([GENERATOR, argument], stdout=subprocess.PIPE, check=True, text=True,
                          timeout=30).stdout


def help_of(program, words=()):
    result = subprocess.run([os.path.join(_source.BUILD, "bin", program), *words, "--help"],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30,
                            check=False)
    return result.stdout


def subcommands(text):
    """The words that CLI11 lists under "Subcommands:"."""
    found = re.search(r"^(?:Subcommands|SUBCOMMANDS):\n((?:  .*\n?)*)", text, re.MULTILINE)
    return re.findall(r"^  (\w[\w-]*)", found.group(1), re.MULTILINE) if found else []


def all_help(program, words=(), depth=0):
    text = help_of(program, words)
    if depth < 2:
        for word in subcommands(text):
            text += all_help(program, (*words, word), depth + 1)
    return text


class DocsInSyncTest(unittest.TestCase):
    def setUp(self):
        self.header = _source.read("common/base/close_reason.h")

    def test_every_line_of_the_close_reason_list_is_read(self):
        self.assertEqual(len(close_reasons(self.header)),
                         len(re.findall(r"^  X\(k", self.header, re.MULTILINE)))

    def test_the_close_reason_table_of_the_operations_page_is_the_list_of_the_code(self):
        page = _source.read(OPERATIONS)
        self.assertEqual(page, with_table(page, close_reason_table(self.header)), MEND)

    def test_the_module_table_of_the_architecture_page_has_every_module_and_no_other(self):
        described = set(re.findall(r"^\| `((?:common|proto|proxy|control|cli)[\w/]*)` \|",
                                   _source.read("docs/ARCHITECTURE.md"), re.MULTILINE))
        self.assertEqual(described, set(layers.Table(_source.read("cmake/Modules.cmake")).uses))

    def test_config_and_metrics_pages_are_what_the_programs_print(self):
        if not os.path.exists(GENERATOR):
            self.skipTest("bin/postern-docs is not part of this build yet")
        for name, argument in PAGES.items():
            with self.subTest(page=name):
                self.assertEqual(_source.read(name), generate(argument), MEND)

    def test_man_pages_name_only_flags_that_the_programs_have(self):
        missing = [p for p in MAN_PAGES.values()
                   if not os.path.exists(os.path.join(_source.BUILD, "bin", p))]
        if missing:
            self.skipTest(f"not part of this build: {', '.join(missing)}")
        for name, program in MAN_PAGES.items():
            with self.subTest(page=name):
                text = _source.read(name).replace("\\-", "-")
                flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
                known = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", all_help(program)))
                self.assertLessEqual(flags, known)

    def test_pages_link_only_to_files_that_exist(self):
        broken = []
        for name in _source.tracked_files():
            if not name.endswith(".md"):
                continue
            for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", _source.read(name)):
                target = os.path.join(_source.ROOT, os.path.dirname(name), link)
                if os.path.relpath(target, _source.ROOT) in PAGES and not os.path.exists(GENERATOR):
                    continue  # made by a program that this build does not have
                if "://" not in link and not os.path.exists(target):
                    broken.append(f"{name}: {link}")
        self.assertEqual(broken, [])


def write_all():
    path = os.path.join(_source.ROOT, OPERATIONS)
    page = with_table(_source.read(OPERATIONS),
                      close_reason_table(_source.read("common/base/close_reason.h")))
    pages = {path: page}
    if os.path.exists(GENERATOR):
        for name, argument in PAGES.items():
            pages[os.path.join(_source.ROOT, name)] = generate(argument)
    else:
        print("bin/postern-docs is not built: CONFIG.md and METRICS.md are left as they are")
    for name, text in pages.items():
        with open(name, "w", encoding="utf-8") as handle:
            handle.write(text)
        print("wrote", os.path.relpath(name, _source.ROOT))


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        write_all()
    else:
        unittest.main()
