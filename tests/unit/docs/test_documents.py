"""The documents match the code: configuration, links and paths, compose file."""

import re
import tomllib
from urllib.parse import urlsplit

import msgspec
import pytest

from services.ops import keys
from services.ops.journal import replaying
from services.ops.monitoring.heartbeats import EXPECTED
from shared import product
from shared.bus.contract import topology
from shared.config.environment import ConfigurationError
from shared.config.loading import SECRET, load
from shared.config.processes import KEYS, READS
from shared.config.settings import Settings
from shared.security.service_accounts import BROKER_USERS, login
from stack.folders import ROOT
from stack.generated import configuration
from stack.servers.credentials import broker_user
from stack.supervisor import MODULES
from tests.unit.docs import composed

README = (ROOT / "README.md").read_text()
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def test_the_configuration_page_is_true():
    assert configuration.FILE.read_text() == configuration.text(), "run `make contracts`"
    names = [variable.name for variable in configuration.variables()]
    assert names == [field.encode_name for field in msgspec.structs.fields(Settings)]
    assert all(variable.read_by and variable.heading for variable in configuration.variables())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_paths_lead_somewhere(document):
    text = document.read_text()
    for link, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", text):
        target = document.parent / link if link else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), (link, anchor)
    for path in re.findall(
        r"`((?:services|shared|stack|tests|examples|docs|bench)/[\w./-]*)`", text
    ):
        assert (ROOT / path).exists(), path


def anchors(text):
    """Return the anchors that GitHub makes of the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}


def test_the_readme_begins_with_the_two_commands():
    assert README.index("make demo") < README.index("make test") < README.index("make run")
    assert len(README[: README.index("```")].splitlines()) <= 10


def test_the_index_of_the_decisions_has_each_of_them_with_a_day():
    decisions = (ROOT / "docs" / "decisions.md").read_text()
    headings = re.findall(r"^## (.+)$", decisions, re.MULTILINE)
    indexed = re.findall(r"^- \d{4}-\d\d-\d\d \[(.+)\]\(#(.+)\)$", decisions, re.MULTILINE)
    assert [title for title, _ in indexed] == headings
    for title, anchor in indexed:
        assert anchor == re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def test_khepri_is_documented_for_versions_that_can_upgrade_with_it():
    """A node of 3.13 that has it never becomes one of 4 (rabbitmq.com, "Khepri FAQ")."""
    page = (ROOT / "docs" / "deploying.md").read_text()
    section = page.partition("### Another RabbitMQ\n")[2].partition("\n## ")[0]
    before, block, _ = re.split(r"```(?:sh)?\n", section, maxsplit=2)
    assert "khepri_db" in block
    assert re.findall(r"\b\d\.\d+\b", before)[:2] == ["4.0", "4.1"]


def test_the_start_of_a_replay_before_the_dump_is_documented():
    minutes = int(replaying.WAITED.total_seconds()) // 60
    said = (ROOT / "docs" / "recovery.md").read_text()
    assert f"**{minutes // 60} h {minutes % 60} min\nbefore `--from`**" in said


def test_documented_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        named = re.findall(r"`make ([a-z-]+)", document.read_text())
        assert set(named) <= targets, document


compose = composed.alone
# Used by docker-compose.cluster.yml alone: how its servers authenticate each other.
OF_A_CLUSTER = {"erlang_cookie", "standby_password"}


# Named after the project: a second checkout on the host builds its own.
OURS = "${COMPOSE_PROJECT_NAME:-order-fellow}:latest"
# Set by the compose file; operators cannot change them.
FIXED = {
    "ENVIRONMENT",
    "AMQP_URL",
    "DATABASE_URL",
    "METRICS_PORT",
    "METRICS_HOST",
    "RABBITMQ_MANAGEMENT_URL",
    "UNPROTECTED_HOSTS",
}
# Set in the image, the same for all processes.
IMAGES_OWN = {"HEALTH_FILE", "HOST", "PORT", "OPS_PORT", "PORTAL_PORT"}
# Read by the libraries of OpenTelemetry, if the endpoint is set.
TRACING = {"OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG", "OTEL_RESOURCE_ATTRIBUTES"}
# These have their own setting, because the door is not in front of them.
OWN_PROXIES = {("ops", "TRUSTED_PROXIES"), ("portal", "TRUSTED_PROXIES")}


def ours():
    services = compose()["services"]
    return {name: services[name] for name in services if services[name].get("image") == OURS}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documented_compose_services_exist(document):
    services = composed.with_cluster()["services"]
    options = r"(?:(?:-T|--rm|--detach|--wait|--force-recreate|--no-deps|-e \w+) )*"
    for verb, told in re.findall(
        rf"docker compose (run|exec|up|stop|restart) {options}([a-z]\w*(?: [a-z]\w*)*)",
        document.read_text(),
    ):
        # For `run` and `exec` only the first word is a service; the rest is its command.
        of_services = told.split()[:1] if verb in ("run", "exec") else told.split()
        assert set(of_services) <= set(services), told
    user = services["postgres"]["environment"]["POSTGRES_USER"]
    assert set(re.findall(r" -U (\w+)", document.read_text())) <= {user}


def test_every_setting_is_read_by_a_process():
    names = {field.encode_name for field in msgspec.structs.fields(Settings)}
    assert {name for reads in READS.values() for name in reads} == names


def test_compose_runs_every_process():
    services = ours()
    assert set(services) == {*READS, "keys"}
    for name, module in MODULES.items():
        assert services[name].get("command", [..., ..., "services.ingress"])[2] == module


@pytest.mark.parametrize("process", READS)
def test_a_container_gets_exactly_the_settings_of_its_process(process):
    service = ours()[process]
    given = {name.removesuffix("_FILE") for name in set(service["environment"]) - IMAGES_OWN}
    traced = TRACING if "OTEL_EXPORTER_OTLP_ENDPOINT" in READS[process] else set()
    assert given == (set(READS[process]) - IMAGES_OWN) | traced
    for name, value in service["environment"].items():
        if name.endswith("_FILE"):
            assert name.removesuffix("_FILE") in SECRET
            assert value.removeprefix("/run/secrets/") in service["secrets"]
        elif name not in FIXED and (process, name) not in OWN_PROXIES:
            assert name not in SECRET
            assert value.startswith((f"${{{name}:-", f"${{{name}:?")), name
    files = {value.removeprefix("/run/secrets/") for value in service["environment"].values()}
    assert set(service["secrets"]) <= files


@pytest.mark.parametrize("process", READS)
def test_a_process_starts_in_production_with_the_settings_of_compose(process, tmp_path):
    keys.write(tmp_path / "secrets", {})
    environ = given_by_compose(process, tmp_path / "secrets")
    settings = load(environ, process)
    assert settings.environment == "production"
    for name in KEYS:
        assert bool(settings.listed(name)) == (name in READS[process])
    for name in {*KEYS} & {*READS[process]}:
        without = {key: value for key, value in environ.items() if key != f"{name}_FILE"}
        with pytest.raises(ConfigurationError, match=name):
            load(without, process)


# The required variables of `.env`, with the values of a trial.
NEEDED = {"SMTP_HOST": "mailpit", "PUBLIC_URL": "https://orders.example.com"}


def given_by_compose(process, secrets, **said):
    """Return a container's environment with a minimal `.env`."""

    def value(found):
        if (found[1] in said) or found[2] == "?":
            return (said | NEEDED)[found[1]]
        return found[3]

    given = {}
    for name, text in ours()[process]["environment"].items():
        while text != (inner := re.sub(r"\$\{(\w+):([-?])([^${}]*)\}", value, text)):
            text = inner
        given[name] = text.replace("/run/secrets", str(secrets))
    return given


@pytest.mark.parametrize("said", [{}, {"PROOF_PORT": "2600"}])
def test_the_notifier_mails_the_standing_proof_at_its_port(tmp_path, said):
    listens = given_by_compose("proof", tmp_path, **said)["PROOF_PORT"]
    assert given_by_compose("notifier", tmp_path, **said)["PROOF_SINK"] == f"proof:{listens}"


def test_documented_tracing_variables_reach_the_containers():
    text = (ROOT / "docs" / "tracing.md").read_text()
    named = set(re.findall(r"`(OTEL_\w+)", text))
    assert named - set(ours()["orders"]["environment"]) == {"OTEL_EXPORTER_OTLP_HEADERS"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documented_exec_passes_the_password_on(document):
    """A shell variable before `docker compose` does not reach the container."""
    text = document.read_text()
    if "FELLOW_PASSWORD" in text and "docker compose exec" in text:
        assert re.search(r"docker compose (exec|run --rm) .*-e FELLOW_PASSWORD ops", text)


@pytest.mark.parametrize("process", ["notifier", "ops"])
def test_an_external_mail_server_needs_tls_or_an_exception(process, tmp_path):
    keys.write(tmp_path / "secrets", {})
    environ = given_by_compose(process, tmp_path / "secrets") | {"SMTP_HOST": "smtp.example"}
    with pytest.raises(ConfigurationError, match=r"SMTP_HOST speaks to smtp\.example"):
        load(environ, process)
    environ |= {"EMAIL_FROM": "orders@kettle.example"}
    load(environ | {"SMTP_STARTTLS": "true"}, process)
    named = f"{environ['UNPROTECTED_HOSTS']}smtp.example"
    load(environ | {"UNPROTECTED_HOSTS": named}, process)


@pytest.mark.parametrize("process", READS)
def test_the_production_example_starts_every_process(process, tmp_path):
    keys.write(tmp_path / "secrets", {})
    deploying = (ROOT / "docs" / "deploying.md").read_text()
    (example,) = re.findall(r"For production, in `.env`:\n\n```sh\n(.*?)```", deploying, re.DOTALL)
    given = dict(line.split("=", 1) for line in example.splitlines())
    assert given["KYC_APPROVALS_REQUIRED"] == "2"
    assert given["OPS_SECOND_FACTOR"] == "required"
    environ = given_by_compose(process, tmp_path / "secrets")
    assert set(given) <= {name for reads in READS.values() for name in reads}
    settings = load(environ | {k: v for k, v in given.items() if k in READS[process]}, process)
    if "KYC_APPROVALS_REQUIRED" in READS[process]:
        assert settings.kyc_approvals_required == 2


def test_compose_requires_a_second_factor(tmp_path):
    keys.write(tmp_path / "secrets", {})
    assert (
        load(given_by_compose("ops", tmp_path / "secrets"), "ops").ops_second_factor == "required"
    )


def test_compose_names_its_own_hosts_and_lets_others_be_added():
    reached = set(compose()["services"])
    for service in compose()["services"].values():
        if isinstance(networks := service.get("networks"), dict):
            reached |= {alias for one in networks.values() if one for alias in one["aliases"]}
    for process, service in ours().items():
        if process != "keys":
            *own, more = service["environment"]["UNPROTECTED_HOSTS"].split(",")
            assert more == "${UNPROTECTED_HOSTS:-}"
            assert set(own) <= reached


def test_the_console_expects_what_compose_and_make_run_start():
    """So that each process that is down is reported, by the doctor and the alerts too."""
    stay = {name for name, service in ours().items() if "profiles" not in service}
    names = {name.removeprefix("services.") for name in EXPECTED}
    assert names == stay - {"ops", "proof"} == set(MODULES) - {"ops"}


def test_every_service_in_compose_signs_in_as_itself(tmp_path):
    keys.write(tmp_path / "secrets", {})
    step = load(given_by_compose("topology", tmp_path / "secrets"), "topology")
    passwords = step.passwords_of(BROKER_USERS)
    assert set(passwords) == {*BROKER_USERS}
    for name in MODULES:
        settings = load(given_by_compose(name, tmp_path / "secrets"), name)
        users = {settings.database_url: name}
        if "AMQP_URL" in READS[name]:
            users[settings.amqp_url] = broker_user(name)
        for url, user in users.items():
            assert urlsplit(url).username == login(user)
            assert urlsplit(url).password == passwords[user]


def test_compose_has_exactly_the_generated_secrets():
    assert set(compose()["secrets"]) == set(keys.FILES) - OF_A_CLUSTER


def test_production_mail_and_links_go_nowhere_by_default():
    text = (ROOT / "docker-compose.yml").read_text()
    assert set(re.findall(r"\$\{(\w+):\?", text)) == set(NEEDED)
    for name in NEEDED:
        assert re.search(rf"printf '.*{name}=.*> \.env", README), name
    assert compose()["services"]["mailpit"]["profiles"] == ["mailpit"]


def test_compose_publishes_to_this_machine_only():
    for service in compose()["services"].values():
        for port in service.get("ports", []):
            assert port.startswith(("127.0.0.1:", "${BIND:-127.0.0.1}:"))


def test_the_door_alone_is_in_front_of_the_ingress():
    services = compose()["services"]
    assert "ports" not in services["ingress"]
    assert services["door"]["networks"] == ["edge"]
    lets_through = re.findall(
        r"unless \{ path_beg (\S+) \}", (ROOT / "deploy/haproxy.cfg").read_text()
    )
    assert lets_through == ["/api/"]


def test_every_container_is_bounded():
    for name, service in compose()["services"].items():
        assert {"mem_limit", "pids_limit", "cpus", "logging", "stop_grace_period"} <= set(
            service
        ), name
        assert service["ulimits"] == {"nofile": 65536}, name
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_containers_that_change_their_user_can_be_stopped():
    """The init process stays root, and needs CAP_KILL to signal another user's process."""
    changing = {
        name: set(service.get("cap_add", ()))
        for name, service in compose()["services"].items()
        if service.get("init") and "SETUID" in service.get("cap_add", ())
    }
    assert {"postgres", "rabbitmq"} <= set(changing)
    assert [name for name, has in changing.items() if "KILL" not in has] == []


def test_the_number_of_ingresses_is_a_setting():
    """`up --scale` is refused if the ingress is not among the named services."""
    assert compose()["services"]["ingress"]["scale"] == "${INGRESSES:-1}"
    for document in DOCUMENTS:
        assert document.name == "CHANGELOG.md" or "--scale" not in document.read_text(), document
    assert "`INGRESSES" in (ROOT / "docs" / "deploying.md").read_text()


def test_every_long_running_container_has_a_health_check():
    """`up --wait` waits only for containers with a check."""
    for name, service in compose()["services"].items():
        if "profiles" not in service:
            assert {"test", "interval", "timeout", "retries"} <= set(
                service.get("healthcheck", {})
            ), name


def test_no_tag_floats():
    images = {service["image"] for service in compose()["services"].values()} - {OURS}
    images |= set(re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    assert len(images) >= 3
    for image in images:
        assert re.search(r":v?\d+\.\d+", image), image


def test_all_version_numbers_are_equal():
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    image = re.findall(r"^ARG VERSION=(\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert [package, *image] == [product.VERSION] * 2


@pytest.mark.parametrize("document", ["runbook.md", "recovery.md", "deploying.md"])
def test_where_senders_are_said_to_send_again_woocommerce_is_excepted(document):
    """It queues nothing while its webhook is off, and the orders from then are lost."""
    text = (ROOT / "docs" / document).read_text()
    assert "WooCommerce" in text
    assert "platforms.md#when-a-webhook-was-off" in text


def test_the_architecture_names_every_work_queue():
    text = (ROOT / "docs" / "architecture.md").read_text()
    for queue in topology.WORK_QUEUES:
        assert queue.name in text, queue.name


def test_no_committed_file_names_a_package_index():
    for name in ("requirements.lock", "requirements-dev.lock", "examples/package-lock.json"):
        text = (ROOT / name).read_text()
        assert "http://" not in text
        assert "registry." not in text
        assert "--index-url" not in text
