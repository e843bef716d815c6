"""A request holds one connection of a worker's at a time: else some in flight hold up all of it."""

import pytest

from tests.integration.accounts.test_accounts import (
    PASSWORD,
    bearer,
    login,
    new_email,
    register,
    verify,
    wrong,
)
from tests.integration.conftest import running_ingress

NEW = "a staple of another kind"


@pytest.fixture(scope="module")
def api(module_amqp_url, module_database_url, tmp_path_factory):
    """One that has just one."""
    with running_ingress(
        tmp_path_factory.mktemp("ingress"),
        module_amqp_url,
        module_database_url,
        WEB_CONCURRENCY="1",
        DATABASE_POOL_SIZE="1",
        DATABASE_CONNECT_TIMEOUT="2",
    ) as found:
        yield found


def test_everything_that_counts_needs_one_at_a_time(api):
    email, new, other = new_email(), new_email(), new_email()
    assert register(api, email).status_code == 201
    assert api.http.post("/users/request-otp/", json={"email": email}).status_code == 200
    assert verify(api, email, wrong(api.code_for(email))).status_code == 400
    assert verify(api, email, api.code_for(email)).status_code == 200
    pair = login(api, email).json()
    headers = bearer(pair["access"])

    def post(path, **body):
        return api.http.post(path, json=body, headers=headers).status_code

    def put(**body):
        return api.http.put("/email-sender/", json=body, headers=headers).status_code

    assert post("/users/password/confirm/", password="not this one") == 403
    assert post("/users/password/confirm/", password=PASSWORD) == 204
    assert put(display_name="Kettle", reply_to=other) == 200
    assert post("/email-sender/verify/", otp=wrong(api.code_for(other))) == 400
    assert post("/email-sender/verify/", otp=api.code_for(other)) == 200
    assert post("/users/email/", email=new, password=PASSWORD) == 200
    assert post("/users/email/verify/", otp=wrong(api.code_for(new))) == 400
    assert post("/users/email/verify/", otp=api.code_for(new)) == 200
    assert post("/users/password/reset-code/", email=new) == 200
    assert post("/users/password/reset/", email=new, otp=api.code_for(new), password=NEW) == 200
    assert login(api, new, NEW).status_code == 200
