"""How servers of this machine are addressed, who may ask them, and which proxy stays out of the way."""

import os
import socket

import httpx
import pytest
import requests
from websockets.proxy import get_proxy
from websockets.uri import parse_uri

from flows.addresses import (
    admitted,
    direct,
    direct_servers,
    host_of,
    is_here,
    is_loopback,
    names_here,
    url,
)

PROXY = "http://127.0.0.1:9"  # the port of discard, where nothing answers
ELSEWHERE = "http://example.com/"


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:4200"),
        ("line7", "http://line7:4200"),
        ("::1", "http://[::1]:4200"),
        ("fd00::2", "http://[fd00::2]:4200"),
        ("0.0.0.0", "http://127.0.0.1:4200"),
        ("::", "http://[::1]:4200"),
        ("0:0:0:0:0:0:0:0", "http://[::1]:4200"),
    ],
)
def test_a_server_is_asked_where_it_can_be_reached(host, address):
    assert url(host, 4200) == address


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.0.0.2", "::1"])
def test_loopback_addresses_are_for_this_machine_alone(host):
    assert is_loopback(host)
    assert is_here(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", socket.gethostname()])
def test_other_addresses_of_this_machine_are_open_to_others(host):
    assert not is_loopback(host)
    assert is_here(host)


@pytest.mark.parametrize("host", ["203.0.113.7", "2001:db8::7", "example.com", "localhost.example.com"])
def test_addresses_and_names_elsewhere_are_not_this_machine(host):
    assert not is_here(host)


@pytest.mark.parametrize("address", ["", "sqlite:////home/mlflow.db", "http://[::1", "databricks"])
def test_what_is_no_url_names_no_host(address):
    assert host_of(address) == ""


# --- Proxies ------------------------------------------------------------------------------------------------


@pytest.fixture
def variables(monkeypatch):
    """A function that makes variables the only ones that say something about proxies."""

    def use(given):
        for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
            monkeypatch.delenv(name)
        for name, value in given.items():
            monkeypatch.setenv(name, value)

    return use


def asked_directly(*addresses):
    """For each address, which clients would ask it without a proxy."""
    with httpx.Client(verify=False) as client:
        return [
            {
                "httpx": client._transport_for_url(httpx.URL(address)) is client._transport,
                "requests": not requests.utils.get_environ_proxies(address),
                "websockets": get_proxy(parse_uri(address.replace("http://", "ws://"))) is None,
            }
            for address in addresses
        ]


DIRECTLY = {"httpx": True, "requests": True, "websockets": True}
BY_PROXY = {"httpx": False, "requests": False, "websockets": False}


# As people have them, some of which httpx ends at.
@pytest.mark.parametrize("known", ["", "localhost", "10.0.0.0/8,.corp", "localhost, 127.0.0.1, [::1], fd00::/8"])
@pytest.mark.parametrize("names", [("http_proxy", "no_proxy"), ("HTTP_PROXY", "NO_PROXY")])
def test_every_client_asks_this_machine_directly_and_others_by_the_proxy(known, names, variables):
    hosts = ["127.0.0.1", "localhost", "::1", "line7", "fd00::2"]
    given = {names[0]: PROXY} | ({names[1]: known} if known else {})
    variables({**given, **direct(given, hosts)})
    assert asked_directly(*(url(host, 4200) for host in hosts)) == [DIRECTLY] * len(hosts)
    assert asked_directly(ELSEWHERE) == [BY_PROXY]


def test_exceptions_that_people_made_stay(variables):
    given = {"http_proxy": PROXY, "NO_PROXY": ".corp,10.1.2.3"}
    variables({**given, **direct(given, [])})
    assert asked_directly("http://mlflow.corp/", "http://10.1.2.3/") == [DIRECTLY, DIRECTLY]


def test_each_spelling_keeps_its_own_exceptions():
    made = direct({"no_proxy": "a", "NO_PROXY": "b"}, ["line7"])
    assert made == {"no_proxy": "a,localhost,127.0.0.1,::1,line7", "NO_PROXY": "b,localhost,127.0.0.1,::1,line7"}


def test_no_proxy_for_anything_stays_that():
    assert direct({"no_proxy": "*"}, ["line7"])["no_proxy"] == "*"


def test_proxies_of_the_operating_system_are_not_hidden():
    made = direct({}, [], system={"http": "http://proxy:3128", "no": "x"})
    assert made["http_proxy"] == "http://proxy:3128"
    assert "http_proxy" not in direct({"https_proxy": PROXY}, [], system={"http": "http://proxy:3128"})


def test_servers_that_the_environment_names_are_asked_directly_where_they_are_here(variables):
    given = {"http_proxy": PROXY, "MLFLOW_TRACKING_URI": "http://[::1]:5000"}
    variables({**given, **direct_servers(given)})
    assert asked_directly("http://[::1]:5000/", ELSEWHERE) == [DIRECTLY, BY_PROXY]
    assert direct_servers({"http_proxy": PROXY, "MLFLOW_TRACKING_URI": "http://mlflow.example.com"}) == {}
    assert direct_servers({"http_proxy": PROXY}) == {}


# --- Who may ask MLflow -------------------------------------------------------------------------------------


def allowed(variables, host, origin):
    """Whether MLflow's server answers a browser that came by a host, and one whose page is from an origin."""
    from mlflow.server.security_utils import is_allowed_host_header, should_block_cors_request

    hosts = variables["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    origins = variables["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"].split(",")
    return is_allowed_host_header(hosts, host), not should_block_cors_request(origin, "POST", origins)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "fd00::2", "0.0.0.0", "::", "line7"])
def test_mlflow_lets_in_who_opens_the_address_that_is_printed(host):
    address = url(host, 5000)
    assert allowed(admitted(host, 5000, {}), address.removeprefix("http://"), address) == (True, True)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_mlflow_lets_in_who_comes_by_a_name_of_this_machine(host):
    assert socket.gethostname() in names_here(host)
    for address in (url(name, 5000) for name in names_here(host)):
        assert allowed(admitted(host, 5000, {}), address.removeprefix("http://"), address) == (True, True)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_mlflow_keeps_pages_of_others_out(host):
    assert allowed(admitted(host, 5000, {}), "evil.example.com:5000", "http://evil.example.com") == (False, False)


def test_mlflow_lets_in_whom_people_let_in():
    given = {
        "MLFLOW_SERVER_ALLOWED_HOSTS": "mlflow.corp",
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "https://mlflow.corp",
    }
    variables = admitted("127.0.0.1", 5000, given)
    assert allowed(variables, "mlflow.corp", "https://mlflow.corp") == (True, True)
    assert allowed(variables, "127.0.0.1:5000", "http://127.0.0.1:5000") == (True, True)
