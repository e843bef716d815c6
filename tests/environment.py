"""What the tests take from the shell or the CI that they run in; all else is dropped.

A list of what is dropped would never be whole: any library of ours, and any program that a test
starts, has variables of its own, and what somebody exports for another program is not for these.
"""

from collections.abc import Mapping, MutableMapping

KEPT = frozenset(
    {
        # Of whoever runs them, and where.
        "HOME", "LOGNAME", "PATH", "SHELL", "USER",
        "LANG", "LANGUAGE", "TERM", "TZ",
        "TEMP", "TMP", "TMPDIR",
        "CI",
        # Whoever was started by make ends with it.
        "MAKELEVEL",
        # What make leaves of what it would be told of Python, and where modules are.
        "PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONPYCACHEPREFIX", "PYTHONUTF8",
        # Ways to an engine, and to package indexes.
        "SSH_AUTH_SOCK",
        "GOMODCACHE", "GONOSUMDB", "GOPATH", "GOPRIVATE", "GOPROXY", "GOSUMDB",
        "NIX_SSL_CERT_FILE",
    }
)  # fmt: skip
PREFIXES = (
    "LC_",
    "LD_",
    "XDG_",
    # Docker's engine: stack/servers/data.py.
    "DOCKER_",
    "TESTCONTAINERS_",
    "PIP_",
    "NPM_CONFIG_",
    "npm_config_",
    "SSL_CERT_",
    # Of the tests: how much of them, and which.
    "FAULTS_",
    "FUZZ_",
    "PORTS_",
    "PYTEST_",
    "SCHEMATHESIS_",
    "TESTS_",
)
SUFFIXES = ("_CA_BUNDLE", "_CA_CERTS")


def kept(environ: Mapping[str, str]) -> dict[str, str]:
    """What tests, and what they start, may see of an environment."""
    return {
        name: value
        for name, value in environ.items()
        if name in KEPT or name.startswith(PREFIXES) or name.endswith(SUFFIXES)
    }


def drop_others(environ: MutableMapping[str, str]) -> None:
    """Remove what they may not."""
    for name in environ.keys() - kept(environ).keys():
        del environ[name]
