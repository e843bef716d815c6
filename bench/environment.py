"""The contenders' own virtual environment: `.venv` holds what the product needs and no more."""

import hashlib
import shutil
import subprocess
import sys

from stack.folders import ROOT

VENV = ROOT / ".stack" / "bench"
LOCK = ROOT / "requirements-bench.lock"


def python() -> str:
    """The path of its interpreter; it is made at the first call, and when the lock file changes.

    Raises:
        RuntimeError: pip could not install what is needed, and why.
    """
    interpreter, stamp = VENV / "bin" / "python", VENV / "installed"
    wanted = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()
    if not (stamp.is_file() and stamp.read_text() == wanted):
        print("Installing what is compared with, and what draws (once; about a minute)", flush=True)
        shutil.rmtree(VENV, ignore_errors=True)
        subprocess.run((sys.executable, "-m", "venv", str(VENV)), check=True)
        install = ("pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps")
        done = subprocess.run(
            (interpreter, "-m", *install, "--require-hashes", "--requirement", str(LOCK)),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"pip could not install what is needed:\n{done.stderr.strip()}")
        stamp.write_text(wanted)
    return str(interpreter)
