"""Who has the next handshake: the pace, and that no address waits behind another's flood."""

import resource

import pytest

from ksz_router.daemon import server
from ksz_router.daemon.gate import address_of
from ksz_router.daemon.turns import Turns
from ksz_router.limits import descriptors_reserved


def drain(turns: Turns[str], now_s: float) -> list[str]:
    """Everybody who has a turn at one moment."""
    got = []
    while (waiter := turns.next(now_s)) is not None:
        got.append(waiter)
    return got


def run(turns: Turns[str], seconds: float, step_s: float = 0.01) -> list[tuple[float, str]]:
    """Everybody who has a turn while time goes on, and when."""
    got: list[tuple[float, str]] = []
    for n in range(round(seconds / step_s)):
        got += [(n * step_s, waiter) for waiter in drain(turns, n * step_s)]
    return got


def test_everyone_together_keeps_the_pace() -> None:
    """A flood from many addresses gets so many turns a second and no more."""
    turns: Turns[str] = Turns(per_second=100, per_second_of_address=100, burst_of_address=64)
    for n in range(1_000):
        turns.join(f"10.0.{n % 50}.1", f"flood {n}")
    assert 195 <= len(run(turns, 2.0)) <= 205


def test_one_address_keeps_its_own_pace() -> None:
    """After its burst an address gets what it may have for long, however free the router is."""
    turns: Turns[str] = Turns(per_second=1_000, per_second_of_address=20, burst_of_address=10)
    for n in range(500):
        turns.join("10.0.0.1", f"flood {n}")
    got = run(turns, 2.0)
    assert 48 <= len(got) <= 51
    assert [waiter for _, waiter in got] == [f"flood {n}" for n in range(len(got))]


def test_a_stranger_to_the_flood_waits_behind_one_round_and_not_behind_the_flood() -> None:
    """Addresses have their turns one after the other; how many wait at one does not matter."""
    turns: Turns[str] = Turns(per_second=100, per_second_of_address=100, burst_of_address=64)
    for n in range(5_000):
        turns.join(f"10.0.{n % 5}.1", f"flood {n}")
    run(turns, 0.5)
    turns.join("192.0.2.1", "good")
    due_s = turns.due_s
    assert due_s is not None
    order = []
    while "good" not in order:
        waiter = turns.next(due_s)
        if waiter is None:
            due_s += 0.001
        else:
            order.append(waiter)
    assert len(order) <= 6
    assert due_s < 0.6


def test_an_address_that_spent_its_turns_does_not_stop_the_others() -> None:
    """Its place in the round is passed over until its pace allows it again."""
    turns: Turns[str] = Turns(per_second=1_000, per_second_of_address=1, burst_of_address=1)
    for n in range(3):
        turns.join("10.0.0.1", f"flood {n}")
    turns.join("192.0.2.1", "good")
    assert drain(turns, 0.0) == ["flood 0", "good"]
    assert turns.due_s == 1.0
    assert drain(turns, 0.99) == []
    assert drain(turns, 1.0) == ["flood 1"]


def test_who_leaves_costs_nobody_a_turn() -> None:
    """Who hung up is not counted; leaving twice, or after one's turn, is no fault."""
    turns: Turns[str] = Turns(per_second=10, per_second_of_address=10, burst_of_address=1)
    turns.join("10.0.0.1", "gone")
    turns.join("10.0.0.1", "here")
    turns.leave("10.0.0.1", "gone")
    assert len(turns) == 1
    assert drain(turns, 0.0) == ["here"]
    turns.leave("10.0.0.1", "here")
    turns.leave("10.0.0.1", "gone")
    assert len(turns) == 0
    assert turns.due_s is None


def test_addresses_that_come_once_are_forgotten() -> None:
    """What is remembered of addresses does not grow with their number."""
    turns: Turns[str] = Turns(per_second=200, per_second_of_address=20, burst_of_address=64)
    for n in range(20_000):
        turns.join(f"2001:db8:{n:x}::/64", "once")
        assert turns.next(n / 200) == "once"
        assert len(turns._address_used_until_s) <= 200 * (10 + 1) + 1


def test_a_worker_leaves_descriptors_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few descriptors are few connections; many are as many as the bound says."""
    limits = {"now": (256, 256)}
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: limits.update(now=both))
    assert server.places_of_worker() == 256 - descriptors_reserved
    limits["now"] = (1_024, 65_536)
    assert server.places_of_worker() == 4_096
    assert limits["now"] == (65_536, 65_536)
    limits["now"] = (20, 20)
    assert server.places_of_worker() == 1


def test_an_address_is_a_host_or_the_network_of_one() -> None:
    """Who has a /64 of its own is one address; an IPv4 address is the same in both families."""
    assert address_of(("192.0.2.7", 1)) == "192.0.2.7"
    assert address_of(("::ffff:192.0.2.7", 1, 0, 0)) == "192.0.2.7"
    assert address_of(("2001:db8::1", 1, 0, 0)) == address_of(("2001:db8::ffff:2", 1, 0, 0))
    assert address_of(("2001:db8::1", 1, 0, 0)) != address_of(("2001:db8:0:1::1", 1, 0, 0))
    assert address_of(("fe80::1%eth0", 1, 0, 2)) == "fe80::/64"
