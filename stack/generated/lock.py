"""`make lock`: write the lock files, with hashes and without the name of any index."""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = (
    "--quiet",
    "--universal",
    "--generate-hashes",
    "--no-header",
    "--no-emit-index-url",
    "--no-emit-find-links",
    "--upgrade",
)


def main() -> None:
    """Compile the locks: of the image, of a checkout (`-dev`) and of the benchmarks (`-bench`)."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run((sys.executable, "-m", "venv", folder), check=True)
        programs = Path(folder) / "bin"
        subprocess.run((programs / "pip", "install", "--quiet", "uv"), check=True)
        for name, more in (
            ("requirements.lock", ("--extra", "tracing")),
            ("requirements-dev.lock", ("--extra", "tracing", "--group", "dev")),
            ("requirements-bench.lock", ("--group", "bench")),
        ):
            command = (programs / "uv", "pip", "compile", *OPTIONS, *more)
            subprocess.run((*command, "pyproject.toml", "-o", name), cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
