"""URL, body, headers and signatures of a call, and their verification, against the library and published vectors."""

from __future__ import annotations

import base64
import json
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import strategies as st

from qhana_taskstate.errors import SettingsError, TaskStateError, WebhookVerificationError
from qhana_taskstate.settings.sources import read_settings
from qhana_taskstate.settings.webhook_values import check_secret
from qhana_taskstate.webhooks.http.message import call_url, headers, message
from qhana_taskstate.webhooks.http.receiving import verify

OLD = "whsec_" + base64.b64encode(b"o" * 24).decode()
NEW = "whsec_" + base64.b64encode(b"n" * 64).decode()
OTHER = "whsec_" + base64.b64encode(b"x" * 32).decode()
BODY = b'{"type":"qhana.task.status","data":{}}'

# Of the specification's repository, in the tests of its libraries.
VECTOR_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
VECTOR_ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
VECTOR_SECONDS = 1614265330
VECTOR_BODY = b'{"test": 2432232314}'
VECTOR_SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def signed(secrets: list[str], body: bytes = BODY, age: float = 0) -> dict[str, str]:
    return headers("msg_1", datetime.now(UTC) - timedelta(seconds=age), body, secrets)


# The URL


@pytest.mark.parametrize(
    ("href", "begins"),
    [
        ("http://h/hook", "http://h/hook?"),
        ("http://h", "http://h?"),
        ("http://h/hook?", "http://h/hook?"),
        ("http://h/hook?a=%2f&b=1+2&&c", "http://h/hook?a=%2f&b=1+2&&c&"),
        ("http://h/hook?a=1&", "http://h/hook?a=1&"),
        ("http://h/hook#part", "http://h/hook?"),
        ("http://h/hook?a=b#part?c", "http://h/hook?a=b&"),
        ("http://h/hook#?a=b", "http://h/hook?"),
        ("http://h/../%7Ea/?x=%c3%a4", "http://h/../%7Ea/?x=%c3%a4&"),
    ],
)
def test_query_is_appended_and_the_rest_kept_to_the_letter(href: str, begins: str) -> None:
    assert call_url(href, "http://p/tasks/1/", "status") == f"{begins}source=http%3A%2F%2Fp%2Ftasks%2F1%2F&event=status"


TEXTS = st.text(st.characters(codec="utf-8"))


@given(
    st.lists(st.tuples(st.text("ab&=+%2/?", max_size=5), st.text("ab=+%/?é", max_size=5)), max_size=3),
    st.sampled_from(["", "#", "#part", "#a?b=c&d"]),
    TEXTS,
    TEXTS,
)
def test_receiver_decodes_exactly_what_was_sent(
    pairs: list[tuple[str, str]], fragment: str, source: str, event: str
) -> None:
    query = "&".join(f"{name}={value}" for name, value in pairs)
    url = call_url(f"http://host.example/hook{'?' if query else ''}{query}{fragment}", source, event)

    parts = urlsplit(url)
    assert parts.fragment == ""
    assert parts.query.startswith(query)
    assert parse_qsl(parts.query, keep_blank_values=True)[-2:] == [("source", source), ("event", event)]
    assert url.isascii() or not query.isascii()


@pytest.mark.parametrize("source", ["http://p/t/1?a=b&c=d#e", "http://p/ä ö/+", "100%", "a;b,c", "\u2028\n"])
def test_odd_sources_come_through(source: str) -> None:
    assert parse_qs(urlsplit(call_url("http://h/?x=1", source, "steps")).query)["source"] == [source]


# Body and headers


def test_body_is_compact_json() -> None:
    moment = datetime(2026, 11, 23, 12, 0, 0, 5, tzinfo=timezone(timedelta(hours=2)))
    body = message(task_id=7, source="http://p/ä", event="steps", sequence=3, status="PENDING", timestamp=moment)
    assert b" " not in body
    assert json.loads(body) == {
        "type": "qhana.task.steps",
        "timestamp": "2026-11-23T10:00:00.000005Z",
        "data": {"task_id": 7, "source": "http://p/ä", "event": "steps", "sequence": 3, "status": "PENDING"},
    }


def test_headers_name_the_message() -> None:
    found = headers("msg_1", datetime(2026, 11, 23, 10, 0, 0, 999999, tzinfo=UTC), BODY, [])
    assert found.pop("user-agent").startswith("qhana_taskstate/")
    assert found == {"content-type": "application/json", "webhook-id": "msg_1", "webhook-timestamp": "1795428000"}


def test_published_vector_is_signed() -> None:
    found = headers(VECTOR_ID, datetime.fromtimestamp(VECTOR_SECONDS, UTC), VECTOR_BODY, [VECTOR_SECRET])
    assert found["webhook-signature"] == VECTOR_SIGNATURE


def test_published_vector_is_verified() -> None:
    given_headers = {
        "webhook-id": VECTOR_ID,
        "webhook-timestamp": str(VECTOR_SECONDS),
        "webhook-signature": VECTOR_SIGNATURE,
    }
    tolerance = time.time() - VECTOR_SECONDS + 60
    assert verify(VECTOR_BODY, given_headers, VECTOR_SECRET, tolerance_seconds=tolerance) == {"test": 2432232314}


def test_time_zone_of_the_timestamp_does_not_change_the_signature() -> None:
    utc = datetime(2026, 11, 23, 10, tzinfo=UTC)
    elsewhere = utc.astimezone(timezone(timedelta(hours=-7)))
    assert headers("msg_1", utc, BODY, [OLD]) == headers("msg_1", elsewhere, BODY, [OLD])


def test_each_secret_signs_in_order() -> None:
    both = signed([NEW, OLD])["webhook-signature"].split(" ")
    assert len(both) == 2
    assert all(signature.startswith("v1,") for signature in both)
    assert both[0] != both[1]


@pytest.mark.parametrize("secrets", [[OLD], [OLD, NEW], [NEW, OLD]])
def test_library_verifies_what_we_sign(secrets: list[str]) -> None:
    assert standardwebhooks.Webhook(OLD).verify(BODY, signed(secrets)) == json.loads(BODY)


@given(st.dictionaries(TEXTS, TEXTS))
def test_we_verify_what_the_library_signs(value: dict[str, str]) -> None:
    body = json.dumps(value, ensure_ascii=False)
    now = datetime.now(UTC)
    given_headers = {
        "webhook-id": "msg_2",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": standardwebhooks.Webhook(OLD).sign("msg_2", now, body),
    }
    assert verify(body, given_headers, OLD) == value
    assert verify(body.encode(), given_headers, [OTHER, OLD]) == value


@pytest.mark.parametrize("moment", [datetime(2026, 1, 1)])  # noqa: DTZ001 - naive is what is refused
def test_naive_timestamp_is_refused(moment: datetime) -> None:
    with pytest.raises(ValueError, match="time zone"):
        headers("msg_1", moment, BODY, [OLD])
    with pytest.raises(ValueError, match="time zone"):
        message(task_id=1, source="", event="status", sequence=1, status="PENDING", timestamp=moment)


@pytest.mark.parametrize("message_id", ["", "a.b", "a b", "ä", "a\r\nb", "a" * 201])
def test_message_id_of_the_wrong_form_is_refused(message_id: str) -> None:
    with pytest.raises(ValueError, match="webhook-id"):
        headers(message_id, datetime.now(UTC), BODY, [])


# Secrets


@pytest.mark.parametrize("secret", [OLD, NEW, OTHER, VECTOR_SECRET, OLD.rstrip("=")])
def test_secret_of_the_right_form_is_kept(secret: str) -> None:
    assert check_secret(secret) == secret
    assert read_settings({"webhook_secrets": [secret]}, {}).webhook_secrets == (secret,)


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "hunter2",
        "whsec_",
        "whsec_hunter2",
        "whsec_" + base64.b64encode(b"hunter2" * 3).decode(),
        "whsec_" + base64.b64encode(b"hunter2" * 10).decode(),
        "whsec_hunter2hunter2hunter2hunter2hunter2_-",
        "whsec_hunter2 hunter2hunter2hunter2hunter2",
        "whsk_" + base64.b64encode(b"hunter2" * 4).decode(),
        base64.b64encode(b"hunter2" * 4).decode(),
        "whsec_hunter2ääääääääääääääääääääääääääääää",
    ],
)
def test_secret_of_the_wrong_form_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        check_secret(secret)
    with pytest.raises(SettingsError, match="webhook_secrets") as named:
        read_settings({"webhook_secrets": [NEW, secret]}, {})
    with pytest.raises(WebhookVerificationError) as unverified:
        verify(BODY, signed([NEW]), [secret, NEW])
    for error in (refused, named, unverified):
        assert "hunter2" not in str(error.value)
        assert "aHVudGVyM" not in str(error.value)


# Verification


@pytest.mark.parametrize("secrets", [None, b"whsec_x", [None], [OLD, None], 7, []])
def test_secret_that_is_no_text_verifies_nothing(secrets: Any) -> None:
    with pytest.raises(WebhookVerificationError, match="secret"):
        verify(BODY, signed([OLD]), secrets)


@pytest.mark.parametrize("body", [None, 3, {"type": "parsed"}])
def test_body_that_is_no_bytes_is_refused(body: Any) -> None:
    with pytest.raises(WebhookVerificationError, match="body"):
        verify(body, signed([OLD]), OLD)


def test_header_names_are_read_in_any_case() -> None:
    assert verify(BODY, {name.title(): value for name, value in signed([OLD]).items()}, OLD) == json.loads(BODY)


def test_one_of_several_secrets_and_signatures_is_enough() -> None:
    found = signed([NEW, OLD])
    found["webhook-signature"] = f"v1a,abc v2,def {found['webhook-signature']} v1,"
    assert verify(BODY, found, OLD) == json.loads(BODY)
    assert verify(BODY, found, (OTHER, NEW)) == json.loads(BODY)
    given: Any = {OTHER: 1, NEW: 2}
    assert verify(BODY, found, given.keys()) == json.loads(BODY)


@pytest.mark.parametrize("age", [-290, 0, 290])
def test_message_within_the_tolerance_passes(age: float) -> None:
    verify(BODY, signed([OLD], age=age), OLD)


@pytest.mark.parametrize("age", [-310, 310, 86400])
def test_message_outside_the_tolerance_is_refused(age: float) -> None:
    found = signed([OLD], age=age)
    with pytest.raises(WebhookVerificationError, match="300 s"):
        verify(BODY, found, OLD)
    verify(BODY, found, OLD, tolerance_seconds=100_000)


@pytest.mark.parametrize(
    "changes",
    [
        {"webhook-id": None},
        {"webhook-id": ""},
        {"webhook-id": "msg_2"},
        {"webhook-id": "a.b"},
        {"webhook-id": "msg_ä"},
        {"webhook-id": 5},
        {"webhook-timestamp": None},
        {"webhook-timestamp": "now"},
        {"webhook-timestamp": "nan"},
        {"webhook-timestamp": "inf"},
        {"webhook-timestamp": "1e9"},
        {"webhook-timestamp": "-1"},
        {"webhook-timestamp": "0"},
        {"webhook-timestamp": "9" * 11},
        {"webhook-timestamp": "9" * 400},
        {"webhook-timestamp": "١٧٩٥٤٢٨٠٠٠"},
        {"webhook-signature": None},
        {"webhook-signature": ""},
        {"webhook-signature": " "},
        {"webhook-signature": "v1"},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1,,"},
        {"webhook-signature": "v1,ä"},
        {"webhook-signature": "v1,!!!"},
        {"webhook-signature": "\x00"},
        {"webhook-signature": b"v1,abc"},
    ],
)
def test_malformed_headers_are_refused(changes: dict[str, Any]) -> None:
    found: dict[str, Any] = {**signed([OLD]), **changes}
    with pytest.raises(WebhookVerificationError) as refused:
        verify(BODY, {name: value for name, value in found.items() if value is not None}, OLD)
    assert isinstance(refused.value, TaskStateError)


@pytest.mark.parametrize("body", [b"", b"{}", BODY + b" ", BODY[:-1], b"\xff\xfe"])
def test_changed_body_is_refused(body: bytes) -> None:
    with pytest.raises(WebhookVerificationError):
        verify(body, signed([OLD]), OLD)


@pytest.mark.parametrize("body", [b"", b"no json", b"[]", b'"text"', b"null", b"[" * 100_000])
def test_signed_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(WebhookVerificationError, match="JSON"):
        verify(body, signed([OLD], body), OLD)


@pytest.mark.parametrize("secrets", [OTHER, [OTHER, NEW], [], ""])
def test_other_secrets_are_refused(secrets: str | list[str]) -> None:
    with pytest.raises(WebhookVerificationError):
        verify(BODY, signed([OLD]), secrets)


@given(
    st.binary(max_size=50),
    st.dictionaries(st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature"]), st.text(max_size=30)),
)
def test_nothing_but_our_own_error_comes_out(body: bytes, given_headers: dict[str, str]) -> None:
    with pytest.raises(WebhookVerificationError):
        verify(body, given_headers, OLD)
