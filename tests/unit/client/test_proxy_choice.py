"""Which proxy leads to a server. The expectations of the table were compared with Go's own `httpproxy`."""

import pytest
from hypothesis import given, strategies as st

from asyncctl.client.config.proxy_choice import ProxyEnvironment, choose_proxy, redacted
from asyncctl.client.errors import ConfigError

BOTH = {"HTTP_PROXY": "http://plain:1", "HTTPS_PROXY": "http://secure:2"}


@pytest.mark.parametrize(
    "server, environ, expected",
    [
        ("https://c:6443", {}, None),
        ("https://c:6443", BOTH, "http://secure:2"),
        ("http://c:8080", BOTH, "http://plain:1"),
        ("https://c", {"HTTP_PROXY": "http://plain:1"}, None),
        ("http://c", {"HTTPS_PROXY": "http://secure:2"}, None),
        ("https://c", {"https_proxy": "http://small:2"}, "http://small:2"),
        ("https://c", {"HTTPS_PROXY": "http://large:2", "https_proxy": "http://small:2"}, "http://large:2"),
        ("https://c", {"HTTPS_PROXY": "", "https_proxy": "http://small:2"}, "http://small:2"),
        ("https://c", {"ALL_PROXY": "http://all:1"}, None),
        # forms of an address
        ("https://c", {"HTTPS_PROXY": "proxy:3128"}, "http://proxy:3128"),
        ("https://c", {"HTTPS_PROXY": "proxy"}, "http://proxy"),
        ("https://c", {"HTTPS_PROXY": "https://me:hush@proxy:3128/path?x"}, "https://me:hush@proxy:3128"),
        ("https://c", {"HTTPS_PROXY": "socks5://proxy"}, "socks5://proxy"),
        ("https://c", {"HTTPS_PROXY": "socks5h://proxy:1080"}, "socks5://proxy:1080"),
        # a CGI program's HTTP_PROXY may be a client's header `Proxy`
        ("http://c", BOTH | {"REQUEST_METHOD": "GET"}, None),
        ("https://c", BOTH | {"REQUEST_METHOD": "GET"}, "http://secure:2"),
        # never to oneself
        ("https://localhost:6443", BOTH, None),
        ("https://LOCALHOST", BOTH, None),
        ("https://127.9.9.9", BOTH, None),
        ("https://[::1]:6443", BOTH, None),
        ("https://[::ffff:127.0.0.1]", BOTH, None),
        ("https://a.localhost", BOTH, "http://secure:2"),
    ],
)
def test_the_environment_chooses_by_the_scheme_of_the_server(server, environ, expected):
    assert choose_proxy(server, None, environ) == expected


@pytest.mark.parametrize(
    "exempt, host, straight",
    [
        ("example.com", "example.com", True),
        ("example.com", "a.b.example.com", True),
        ("example.com", "EXAMPLE.COM", True),
        ("EXAMPLE.com", "a.example.com", True),
        ("example.com", "notexample.com", False),
        ("example.com", "com", False),
        (".example.com", "example.com", False),
        (".example.com", "a.example.com", True),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "example.com", False),
        ("*example.com", "a.example.com", False),
        ("*", "anything.at.all", True),
        ("other, *", "10.0.0.1", True),
        ("example.com:6443", "example.com", True),
        ("example.com:443", "example.com", False),
        (".example.com:6443", "a.example.com", True),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1:6443", "10.0.0.1", True),
        ("10.0.0.1:443", "10.0.0.1", False),
        ("10.0.0.1", "10.0.0.11", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.9/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.0/255.0.0.0", "10.1.2.3", False),
        ("10.0.0.0/8", "[::ffff:10.1.2.3]", True),
        ("::ffff:10.0.0.0/104", "10.1.2.3", True),
        ("fd00::/8", "[fd00::1]", True),
        ("fd00::1", "[fd00::1]", True),
        ("[fd00::1]:6443", "[fd00::1]", True),
        ("[fd00::1]:443", "[fd00::1]", False),
        ("0.0.0.0/0", "example.com", False),
        ("münchen.de", "a.xn--mnchen-3ya.de", True),
        ("xn--mnchen-3ya.de", "münchen.de", True),
        ("example.com:443:1", "example.com", False),
        (" , ,other , example.com ", "example.com", True),
        ("", "example.com", False),
        (":6443,[,]:,*.", "example.com", False),
    ],
)
def test_no_proxy_by_gos_rules(exempt, host, straight):
    environ = BOTH | {"NO_PROXY": exempt}
    assert choose_proxy(f"https://{host}:6443", None, environ) == (None if straight else "http://secure:2")


def test_no_proxy_may_be_in_small_letters_and_knows_the_port_of_a_scheme():
    environ = BOTH | {"no_proxy": "c:443,d:80"}
    assert choose_proxy("https://c", None, environ) is None
    assert choose_proxy("http://c", None, environ) == "http://plain:1"
    assert choose_proxy("http://d", None, environ) is None


def test_the_kubeconfigs_own_proxy_is_taken_whatever_the_environment_says():
    environ = BOTH | {"NO_PROXY": "*"}
    assert choose_proxy("https://localhost", "socks5://own:1080", environ) == "socks5://own:1080"


@pytest.mark.parametrize(
    "proxy",
    ["ftp://me:hush@proxy", "me:hush@proxy", "http://", "http://me:hush@proxy:port", "http://[::1", "http://a b"],
)
def test_an_address_that_can_not_be_used_is_refused_without_its_password(proxy):
    with pytest.raises(ConfigError, match=r"^proxy-url .* is no address of a proxy.*it should look like") as caught:
        choose_proxy("https://c", proxy, {})
    assert "hush" not in str(caught.value)


def test_a_variable_that_can_not_be_used_is_named_unless_it_does_not_matter():
    environ = {"HTTPS_PROXY": "ftp://me:hush@proxy"}
    with pytest.raises(ConfigError, match=r"^HTTPS_PROXY 'ftp://me:\*\*\*@proxy' is no address"):
        choose_proxy("https://c", None, environ)
    assert choose_proxy("https://c", None, environ | {"NO_PROXY": "c"}) is None
    assert choose_proxy("http://c", None, environ) is None


@pytest.mark.parametrize(
    "url, shown",
    [
        ("http://proxy:3128", "http://proxy:3128"),
        ("http://me:hush@proxy:3128", "http://me:***@proxy:3128"),
        ("http://me@proxy", "http://***@proxy"),
        ("http://me:hu@sh@proxy", "http://me:***@proxy"),
        ("me:hush@proxy", "me:***@proxy"),
    ],
)
def test_a_proxy_is_shown_without_its_password(url, shown):
    assert redacted(url) == shown


@given(
    st.text(max_size=20), st.text(max_size=20), st.sampled_from(["example.com", "10.0.0.1", "[fd00::1]", "münchen.de"])
)
def test_any_environment_is_a_choice_or_a_config_error(proxy, exempt, host):
    try:
        chosen = ProxyEnvironment(https=proxy, exempt=exempt).choose(f"https://{host}:6443")
    except ConfigError:
        return
    assert chosen is None or chosen.startswith(("http://", "https://", "socks5://"))
