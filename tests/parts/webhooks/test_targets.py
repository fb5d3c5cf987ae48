"""Where webhooks may go: URLs, literal addresses, names, and what a setting allows."""

from __future__ import annotations

import ipaddress
import socket
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qhana_taskstate.errors import SettingsError, TaskStateError, WebhookTargetError
from qhana_taskstate.settings.sources import read_settings
from qhana_taskstate.settings.webhook_values import AllowedNetworks
from qhana_taskstate.webhooks.http.addresses import MAX_HREF_CHARACTERS, check_href, origin
from qhana_taskstate.webhooks.http.resolving import open_socket
from qhana_taskstate.webhooks.http.shown_href import shown_href

NOTHING = AllowedNetworks()

REFUSED_ADDRESSES = {
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.254", "192.168.1.1", "[fc00::1]", "[fd12:3456::1]"],
    "loopback": ["127.0.0.1", "127.255.255.254", "[::1]"],
    "link-local": ["169.254.169.254", "[fe80::1]", "[fec0::1]"],
    "carrier-grade NAT": ["100.64.0.1", "100.127.255.254"],
    "NAT64": ["[64:ff9b::7f00:1]", "[64:ff9b::808:808]", "[64:ff9b:1::1]"],
    "6to4": ["[2002:7f00:1::]", "[2002:808:808::1]"],
    "Teredo": ["[2001::1]", "[2001:0:4136:e378:8000:63bf:3fff:fdd2]"],
    "mapped v4": ["[::ffff:127.0.0.1]", "[::ffff:8.8.8.8]", "[::ffff:0a00:1]", "[::127.0.0.1]", "[::ffff:0:7f00:1]"],
    "unspecified": ["0.0.0.0", "0.1.2.3", "[::]"],  # noqa: S104 - nothing is bound
    "multicast": ["224.0.0.1", "239.255.255.250", "[ff02::1]"],
    "reserved": ["240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "[2001:db8::1]", "[4000::1]"],
    "other ways of writing": ["2130706433", "0177.0.0.1", "0x7f.0.0.1", "0x7f000001", "127.1", "0", "1.1", "8.8.8.8.8"],
    "other digits": ["①②⑦.0.0.1", "127。0。0。1"],
    "this machine": ["localhost", "LOCALHOST", "localhost.", "a.localhost", "ⓁⓄⒸⒶⓁⒽⓄⓈⓉ", "127.0.0.1."],
}


@pytest.mark.parametrize("host", [host for hosts in REFUSED_ADDRESSES.values() for host in hosts])
@pytest.mark.parametrize("form", ["http://{}/hook", "https://{}:8443/hook?a=b"])
def test_what_is_not_public_is_refused(host: str, form: str) -> None:
    with pytest.raises(WebhookTargetError):
        check_href(form.format(host), NOTHING)


@pytest.mark.parametrize(
    "href",
    [
        "",
        "hook",
        "//host/hook",
        "ftp://host.example/hook",
        "file:///etc/passwd",
        "gopher://host.example/",
        "javascript:alert(1)",
        "http://",
        "http:///hook",
        "http://?x",
        "http://:80/",
        "http://user@host.example/",
        "http://user:hunter2@host.example/",
        "http://:@host.example/",
        "http://public.example@127.0.0.1/",
        "http://host.example\\@127.0.0.1/",
        "http://127.0.0.1\\.host.example/",
        "http://host.example:0/",
        "http://host.example:65536/",
        "http://host.example:-1/",
        "http://host.example:eighty/",
        "http://host .example/",
        "http://host.example/a b",
        "http://host.example/\r\nX: y",
        "http://ho\tst.example/",
        "http://host.example/\x00",
        "http://host.example/\x7f",
        " http://host.example/",
        "http://host%2eexample/",
        "http://[fe80::1%25eth0]/",
        "http://[::1/",
        "http://::1/",
        "http://-host.example/",
        "http://host..example/",
        "http://" + "a" * 64 + ".example/",
        "http://" + "a." * 130 + "example/",
        "http://xn--.ä" + "ö" * 70 + ".example/",
        "http://host.example/" + "x" * MAX_HREF_CHARACTERS,
    ],
)
def test_what_is_no_usable_url_is_refused(href: str) -> None:
    with pytest.raises(WebhookTargetError) as refused:
        check_href(href, NOTHING)
    assert isinstance(refused.value, TaskStateError)
    assert isinstance(refused.value, ValueError)


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(WebhookTargetError):
        check_href(None, NOTHING)


@pytest.mark.parametrize(
    "href",
    [
        "http://host.example",
        "https://host.example/hook?token=1&x=%2f#fragment",
        "http://host.example:1/",
        "http://host.example:65535/",
        "http://backend:9090/webhooks/1",
        "http://webhook_receiver:8080/",
        "http://HOST.example./",
        "http://bücher.example/ä",
        "http://8.8.8.8/",
        "http://[2606:4700:4700::1111]:8080/",
        "http://10.example/",
        "HTTPS://host.example/",
    ],
)
def test_public_addresses_and_names_are_let_through_unchanged(href: str) -> None:
    assert check_href(href, NOTHING) == href


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_no_address_passes_that_the_standard_library_calls_not_global(address: Any) -> None:
    host = f"[{address}]" if address.version == 6 else str(address)
    try:
        check_href(f"http://{host}/", NOTHING)
    except WebhookTargetError:
        return
    assert address.is_global
    assert not address.is_multicast
    assert not address.is_reserved


@pytest.mark.parametrize(
    ("allowed", "href"),
    [
        (["127.0.0.0/8"], "http://127.0.0.1:5000/"),
        (["127.0.0.1"], "http://127.0.0.1/"),
        (["127.0.0.1"], "http://localhost:5000/"),
        (["::1"], "http://[::1]/"),
        (["[::1]"], "http://localhost/"),
        (["localhost"], "http://localhost/"),
        (["LocalHost."], "http://localhost./"),
        (["172.16.0.0/12"], "http://172.18.0.4:9090/"),
        (["fd00::/8"], "http://[fd00::5]/"),
        (["64:ff9b::/96"], "http://[64:ff9b::808:808]/"),
        ([" 10.0.0.0/8 "], "http://10.1.2.3/"),
    ],
)
def test_setting_allows_networks_addresses_and_names(allowed: list[str], href: str) -> None:
    assert check_href(href, AllowedNetworks.parse(allowed)) == href


@pytest.mark.parametrize(
    ("allowed", "href"),
    [
        (["10.0.0.0/8"], "http://127.0.0.1/"),
        (["10.0.0.0/8"], "http://localhost/"),
        (["10.0.0.0/8"], "http://[::ffff:10.0.0.1]/"),
        (["receiver"], "http://10.0.0.1/"),
        (["127.0.0.1"], "http://2130706433/"),
        (["host.example"], "ftp://host.example/"),
    ],
)
def test_setting_allows_nothing_else(allowed: list[str], href: str) -> None:
    with pytest.raises(WebhookTargetError):
        check_href(href, AllowedNetworks.parse(allowed))


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "300.1.1.1",
        "127.1",
        "0x7f.1",
        "http://host/",
        "host:80",
        "*.example",
        "a b",
    ],
)
def test_setting_that_makes_no_sense_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="no network, address or host name") as refused:
        AllowedNetworks.parse(["10.0.0.0/8", text])
    assert repr(text.strip()) in str(refused.value)
    if text.strip():
        with pytest.raises(SettingsError, match="webhook_allowed_networks"):
            read_settings({"webhook_allowed_networks": [text]}, {})


def test_allowed_networks_are_values() -> None:
    assert AllowedNetworks.parse(["10.0.0.0/8", "a"]) == AllowedNetworks(("10.0.0.0/8",), frozenset({"a"}))
    assert hash(AllowedNetworks.parse(["a"])) == hash(AllowedNetworks.parse(["A."]))


@pytest.mark.parametrize(
    "href",
    [
        "http://hunter2@127.0.0.1/",
        "http://user:hunter2@127.0.0.1/",
        "http://user:hunter2/x@127.0.0.1/",
        "http://user:hunter2?x@127.0.0.1/",
        "http://user:hunter2#x@127.0.0.1/",
        "ftp://user:hunter2@host.example/",
        "user:hunter2@host.example/",
        "http://127.0.0.1/?token=hunter2",
        "http://127.0.0.1/?hunter2",
        "http://127.0.0.1/?a=b&hunter2&c",
        "http://127.0.0.1/#hunter2",
        "http://host.example:hunter2/",
        "http://[hunter2@host.example/",
        "http://user:hunter2\\@host.example/",
    ],
)
def test_error_shows_neither_credentials_nor_values_of_the_query(href: str) -> None:
    with pytest.raises(WebhookTargetError) as refused:
        check_href(href, NOTHING)
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_shown_url_is_still_recognised() -> None:
    assert shown_href("http://u:p@host.example:81/hook?a=1&b=2#f") == "http://…@host.example:81/hook?a=…&b=…"
    assert shown_href("http://[::1]:80/x") == "http://[::1]:80/x"
    assert len(shown_href("http://host.example/" + "x" * 5000)) == 300


# Addresses of names


def answering(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Let the name server give these answers in turn, the last for ever; return the names that were asked for."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *rest: Any) -> list[Any]:
        if rest and rest[-1] & socket.AI_NUMERICHOST:
            return list(real(host, port, *rest))
        asked.append(host)
        return [row for address in answers[min(len(asked), len(answers)) - 1] for row in real(address, port, *rest)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "100.64.0.1", "169.254.169.254", "::1", "fd00::1", "::ffff:10.0.0.1", "2002::1"],
)
def test_name_of_a_private_address_is_refused(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    answering(monkeypatch, [address])
    target = origin("http://host.example/", NOTHING)

    with pytest.raises(WebhookTargetError, match="not to") as refused:
        open_socket(target, NOTHING, time.monotonic() + 1)

    assert str(ipaddress.ip_address(address)) in refused.value.reason


def test_only_the_allowed_addresses_of_a_name_are_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.2", 0)) as allowed, socket.create_server(("127.0.0.3", 0)) as refused:
        allowed_port = allowed.getsockname()[1]
        refused.settimeout(0.05)
        answering(monkeypatch, ["127.0.0.3", "127.0.0.2"])
        networks = AllowedNetworks.parse(["127.0.0.2"])

        with open_socket(
            origin(f"http://host.example:{allowed_port}/", networks), networks, time.monotonic() + 1
        ) as sock:
            assert sock.getpeername() == ("127.0.0.2", allowed_port)

        other = origin(f"http://host.example:{refused.getsockname()[1]}/", networks)
        with pytest.raises(OSError, match="could not connect"):
            open_socket(other, networks, time.monotonic() + 1)
        with pytest.raises(TimeoutError):
            refused.accept()


def test_answer_that_changes_between_check_and_connection_gains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.2", 0)) as allowed:
        asked = answering(monkeypatch, ["127.0.0.2"], ["127.0.0.1"])
        networks = AllowedNetworks.parse(["127.0.0.2"])
        target = origin(f"http://host.example:{allowed.getsockname()[1]}/", networks)

        with open_socket(target, networks, time.monotonic() + 1) as sock:
            assert sock.getpeername()[0] == "127.0.0.2"
        assert asked == ["host.example"]

        with pytest.raises(WebhookTargetError):
            open_socket(target, networks, time.monotonic() + 1)


def test_allowed_name_may_have_any_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        answering(monkeypatch, ["127.0.0.1"])
        networks = AllowedNetworks.parse(["Receiver"])
        target = origin(f"http://receiver:{server.getsockname()[1]}/", networks)
        open_socket(target, networks, time.monotonic() + 1).close()


def test_the_next_address_is_tried_when_one_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.3", 0)) as server:
        answering(monkeypatch, ["127.0.0.2", "127.0.0.3"])
        networks = AllowedNetworks.parse(["127.0.0.0/8"])
        target = origin(f"http://host.example:{server.getsockname()[1]}/", networks)
        with open_socket(target, networks, time.monotonic() + 1) as sock:
            assert sock.getpeername()[0] == "127.0.0.3"


def test_look_up_that_hangs_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: Any) -> list[Any]:
        time.sleep(0.8)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        open_socket(origin("http://host.example/", NOTHING), NOTHING, begun + 0.1)
    assert time.monotonic() - begun < 0.7


def test_name_without_an_address_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(socket.gaierror):
        open_socket(origin("http://host.example/", NOTHING), NOTHING, time.monotonic() + 1)
