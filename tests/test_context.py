from __future__ import annotations

import asyncio
from dataclasses import FrozenInstanceError
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import context
from app.context import HOP_RESERVE_SECONDS, Context


def deadline_of(headers: dict[str, str], *, max_seconds: float = 30.0) -> float:
    return context.from_headers(headers, max_seconds=max_seconds, now=100.0).deadline - 100.0


def test_a_request_without_headers_gets_an_id_and_the_longest_time() -> None:
    made = context.from_headers({}, max_seconds=30.0, now=100.0)
    assert made.deadline == 130.0
    assert len(made.request_id) == 24
    assert (made.caller, made.sandbox, made.traceparent) == (None, None, None)


def test_new_request_ids_differ() -> None:
    assert len({context.new_request_id() for _ in range(1000)}) == 1000


def test_headers_are_taken_over() -> None:
    made = context.from_headers(
        {
            "x-request-id": "abc-1",
            "x-mesh-caller": "orders",
            "x-mesh-sandbox": "pr-17",
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        },
        max_seconds=30.0,
    )
    assert made.request_id == "abc-1"
    assert made.caller == "orders"
    assert made.sandbox == "pr-17"
    assert made.traceparent == "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(("raw", "attempt"), [("1", 1), ("2", 2), ("", 1), ("-2", 1), ("²", 1), ("9" * 5000, 1)])
def test_the_number_of_the_attempt_is_taken_over_if_it_is_one(raw: str, attempt: int) -> None:
    assert context.from_headers({"x-mesh-attempt": raw}, max_seconds=1.0).attempt == attempt


@pytest.mark.parametrize("bad", ["", "a b", "a\nb", "x" * 129, "é", "a;drop", "\x00", "a,b"])
def test_an_id_that_could_break_a_log_line_or_a_header_is_replaced(bad: str) -> None:
    made = context.from_headers({"x-request-id": bad, "x-mesh-caller": bad}, max_seconds=1.0)
    assert made.request_id != bad
    assert made.caller is None


@pytest.mark.parametrize(
    ("header", "value", "seconds"),
    [
        ("x-request-timeout-ms", "250", 0.25),
        ("x-request-timeout-ms", "0", 0.0),
        ("x-envoy-expected-rq-timeout-ms", "1500", 1.5),
        ("grpc-timeout", "2S", 2.0),
        ("grpc-timeout", "250m", 0.25),
        ("grpc-timeout", "500000u", 0.5),
        ("grpc-timeout", "1000000n", 0.001),
        ("grpc-timeout", "99999999n", 0.099999999),
    ],
)
def test_a_caller_may_ask_for_less_time(header: str, value: str, seconds: float) -> None:
    assert deadline_of({header: value}) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-request-timeout-ms", "99999999"),
        ("grpc-timeout", "1H"),
        ("grpc-timeout", "1M"),
        ("x-request-timeout-ms", "-5"),
        ("x-request-timeout-ms", "1.5"),
        ("x-request-timeout-ms", "１２"),  # digits, but not ASCII ones
        ("x-request-timeout-ms", "²"),
        ("x-request-timeout-ms", "1" * 400),
        ("x-request-timeout-ms", "nan"),
        ("grpc-timeout", "S"),
        ("grpc-timeout", "5"),
        ("grpc-timeout", "5s"),
        ("grpc-timeout", "123456789S"),
        ("grpc-timeout", "-1S"),
        ("grpc-timeout", ""),
    ],
)
def test_more_time_than_the_server_allows_or_a_malformed_one_changes_nothing(header: str, value: str) -> None:
    assert deadline_of({header: value}) == 30.0


def test_our_own_timeout_header_wins_over_the_others() -> None:
    headers = {"x-request-timeout-ms": "100", "x-envoy-expected-rq-timeout-ms": "200", "grpc-timeout": "3S"}
    assert deadline_of(headers) == pytest.approx(0.1)


@given(
    st.dictionaries(
        st.sampled_from(
            ["x-request-id", "x-request-timeout-ms", "grpc-timeout", "x-mesh-caller", "x-mesh-sandbox", "traceparent"]
        ),
        st.text(max_size=40),
    )
)
def test_no_header_value_is_an_error_nor_lengthens_the_time(headers: dict[str, str]) -> None:
    made = context.from_headers(headers, max_seconds=5.0, now=0.0)
    assert 0.0 <= made.deadline <= 5.0
    assert made.request_id.isascii()
    assert made.request_id.isprintable()


def test_the_time_left_travels_in_milliseconds_less_the_reserve() -> None:
    headers = Context("r1", deadline=10.0).outbound_headers(now=9.0)
    assert headers == {"x-request-id": "r1", "x-request-timeout-ms": str(int((1.0 - HOP_RESERVE_SECONDS) * 1000))}


def test_no_time_left_travels_as_zero_and_never_as_a_negative_number() -> None:
    assert Context("r1", deadline=10.0).outbound_headers(now=11.0)["x-request-timeout-ms"] == "0"


def test_without_a_deadline_no_timeout_travels() -> None:
    assert Context("r1").outbound_headers() == {"x-request-id": "r1"}
    assert Context("r1").remaining_seconds() == inf


def test_sandbox_and_trace_travel_and_the_caller_does_not() -> None:
    headers = Context("r1", caller="orders", sandbox="pr-17", traceparent="00-a-b-01").outbound_headers()
    assert headers == {"x-request-id": "r1", "x-mesh-sandbox": "pr-17", "traceparent": "00-a-b-01"}


def test_each_hop_has_less_time_than_the_one_before() -> None:
    left, now = [], 0.0
    headers: dict[str, str] = {"x-request-timeout-ms": "100"}
    for _ in range(4):
        hop = context.from_headers(headers, max_seconds=30.0, now=now)
        left.append(hop.remaining_seconds(now))
        headers = hop.outbound_headers(now)
    assert left == sorted(left, reverse=True)
    assert len(set(left)) == 4


def test_a_context_is_current_inside_its_block_only() -> None:
    assert context.current() is None
    with context.activate(Context("outer")) as outer:
        assert context.current() is outer
        with context.activate(Context("inner")) as inner:
            assert context.current() is inner
        assert context.current() is outer
    assert context.current() is None


async def test_two_tasks_do_not_see_one_another() -> None:
    seen: dict[str, str | None] = {}
    both_in = asyncio.Barrier(2)

    async def serve(name: str) -> None:
        with context.activate(Context(name)):
            await both_in.wait()
            current = context.current()
            seen[name] = current.request_id if current else None

    await asyncio.gather(serve("a"), serve("b"))
    assert seen == {"a": "a", "b": "b"}


def test_a_context_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Context("r1").request_id = "r2"  # type: ignore[misc]  # that is the point
