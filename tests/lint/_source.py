# SPDX-License-Identifier: Apache-2.0
"""What the lint tests share: where the tree is and which files are ours."""

import os
import subprocess

ROOT = os.environ.get("POSTERN_SOURCE_DIR") or os.path.dirname(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("POSTERN_BUILD_DIR") or os.path.join(ROOT, "build", "release")
CODE_FOLDERS = ("common", "proxy", "control", "cli")
NOT_OURS = {".git", "build", ".cache", "__pycache__"}


def tracked_files():
    """Every file of the project, relative to its root; from git, or by walking an unpacked archive."""
    listing = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False) if _have_git() else None
    if listing is not None and listing.returncode == 0 and listing.stdout:
        names = listing.stdout.decode().split("\0")
        return sorted(n for n in names if n and os.path.isfile(os.path.join(ROOT, n)))
    found = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in NOT_OURS]
        found += [os.path.relpath(os.path.join(folder, name), ROOT) for name in files]
    return sorted(found)


def _have_git():
    return any(os.access(os.path.join(folder, "git"), os.X_OK)
               for folder in os.environ.get("PATH", "").split(os.pathsep))


def read(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as handle:
        return handle.read()


def is_cpp(name):
    return name.endswith((".h", ".cc"))
