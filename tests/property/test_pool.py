"""The address pool: never one address twice, the same one while it is free."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.pool import Pool, PoolEmptyError

SMALL = (ip_network("10.0.8.0/28"), ip_network("fd00:8::/124"))  # 13 and 14 to give
names = st.sampled_from([f"user{i}" for i in range(12)])
devices = st.sampled_from(["laptop", "phone"])
wishes = st.lists(
    st.sampled_from([*SMALL[0], *SMALL[1], ip_address("192.0.2.1"), ip_address("::1")]), max_size=3
)
steps = st.lists(st.tuples(names, devices, st.booleans(), wishes), max_size=80)


@given(steps)
def test_no_address_twice_and_none_that_is_reserved(
    walk: list[tuple[str, str, bool, list[object]]],
) -> None:
    pool = Pool(SMALL)
    held: dict[tuple[str, str], tuple[object, ...]] = {}
    for user, device, comes, wanted in walk:
        if not comes:
            pool.give_back(user, device)
            held.pop((user, device), None)
            continue
        try:
            addresses = pool.take(user, device, wanted)  # type: ignore[arg-type]
        except PoolEmptyError:
            assert len(held) == 13
            assert (user, device) not in held
            continue
        assert held.setdefault((user, device), addresses) == addresses
        given_out = [address for each in held.values() for address in each]
        assert len(given_out) == len(set(given_out))
        assert [address in prefix for address, prefix in zip(addresses, SMALL, strict=True)] == [
            True,
            True,
        ]
        assert not {SMALL[0][0], SMALL[0][1], SMALL[0][-1], *pool.own, SMALL[1][0]} & set(addresses)


@given(steps, names, devices)
def test_the_same_address_while_it_is_free(
    walk: list[tuple[str, str, bool, list[object]]], user: str, device: str
) -> None:
    """Whatever others do meanwhile, as long as none of them is given it."""
    pool = Pool(SMALL)
    mine = pool.take(user, device)
    pool.give_back(user, device)
    others = set()
    for other, its, comes, _ in walk:
        if (other, its) == (user, device):
            continue
        if comes:
            with contextlib.suppress(PoolEmptyError):
                pool.take(other, its)
                others.add((other, its))
        else:
            pool.give_back(other, its)
            others.discard((other, its))
    taken = {address for each in others for address in pool.take(*each)}
    if len(others) == 13:
        return
    again = pool.take(user, device, mine)
    for before, now in zip(mine, again, strict=True):
        assert now == before or before in taken


def test_every_address_is_given_and_then_none() -> None:
    pool = Pool((ip_network("10.0.8.0/29"), ip_network("fd00:8::/64")))
    given_out = {pool.take(f"user{i}", "laptop")[0] for i in range(5)}
    assert given_out == {ip_address(f"10.0.8.{i}") for i in range(2, 7)}
    with pytest.raises(PoolEmptyError, match=r"10\.0\.8\.0/29"):
        pool.take("late", "laptop")
    pool.give_back("user3", "laptop")
    assert pool.take("late", "laptop")[0] in given_out


def test_the_first_choice_hangs_on_the_name_alone() -> None:
    large = (ip_network("10.0.8.0/24"), ip_network("fd00:8::/64"))
    one, two = Pool(large), Pool(large)
    two.take("bob", "phone")
    assert one.take("alice", "laptop") == two.take("alice", "laptop")
    assert one.take("alice", "laptop") != one.take("alice", "phone")
    assert one.own == (ip_address("10.0.8.1"), ip_address("fd00:8::1"))


def test_a_wish_for_what_is_taken_or_elsewhere_is_none() -> None:
    pool = Pool(SMALL)
    first = pool.take("alice", "laptop")
    assert not set(first) & set(pool.take("bob", "laptop", first))
    old = pool.take("carol", "laptop", [ip_address("10.9.9.9"), ip_address("fd00:8::7")])
    assert old[0] in SMALL[0]
