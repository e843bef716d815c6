"""`python -m stack.generated.sbom LOCK SBOM`: whether an SBOM has all that a lock file pins."""

import json
import re
import sys
from pathlib import Path

PINNED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)


def name_of(package: str) -> str:
    """The normalized name of a package (PyPA, "Names and normalization")."""
    return re.sub(r"[-_.]+", "-", package).lower()


def main(lock: str, sbom: str) -> int:
    """Compare the two; returns the exit code.

    Args:
        lock: path of a file of pip's requirements, pinned.
        sbom: path of a CycloneDX document in JSON.
    """
    pinned = {(name_of(n), v) for n, v in PINNED.findall(Path(lock).read_text())}
    document = json.loads(Path(sbom).read_text())
    listed = {(name_of(c["name"]), c.get("version", "")) for c in document["components"]}
    missing = sorted(f"{name} {version}" for name, version in pinned - listed)
    if missing or not pinned:
        print(f"{sbom} lacks {', '.join(missing) or 'everything'}", file=sys.stderr)
        return 1
    print(f"{sbom}: {len(listed)} components, CycloneDX {document['specVersion']}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
