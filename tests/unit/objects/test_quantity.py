from decimal import Decimal

import pytest
from hypothesis import given, strategies as st

from asyncctl.objects import Quantity


@pytest.mark.parametrize(
    "text, value",
    [
        ("10", "10"),
        ("500m", "0.5"),
        ("1k", "1000"),
        ("1Ki", "1024"),
        ("1.5Gi", "1610612736"),
        ("2E", "2e18"),
        ("2e3", "2000"),
        ("1E-2", "0.01"),
        ("100n", "1e-7"),
        ("3u", "3e-6"),
        ("-4M", "-4000000"),
        ("+.5", "0.5"),
        (3, "3"),
        (0.25, "0.25"),
        (Decimal("1.5"), "1.5"),
    ],
)
def test_a_quantity_has_a_value(text, value):
    assert Quantity(text).value == Decimal(value)


@pytest.mark.parametrize(
    "text", ["", "Gi", "ten", "1 Gi", "1gi", "1K", "--1", "1.2.3", "1e", "0x10", "1Gi\n", "NaN", "1e9999"]
)
def test_what_is_no_quantity_is_refused(text):
    with pytest.raises(ValueError, match="is not a quantity such as 10Gi, 500m or 2"):
        Quantity(text)


def test_quantities_compare_by_value():
    assert Quantity("1Gi") == Quantity("1024Mi")
    assert hash(Quantity("1Gi")) == hash(Quantity("1024Mi"))
    assert Quantity("1G") < Quantity("1Gi") <= Quantity("1.5Gi")
    assert Quantity("1") != "1"


def test_a_quantity_keeps_its_text():
    assert str(Quantity("1024Mi")) == "1024Mi"
    assert repr(Quantity("1024Mi")) == "Quantity('1024Mi')"


# What kube-apiserver 1.36.3 made of the first in a LimitRange.
@pytest.mark.parametrize(
    "text, canonical",
    [
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("0.1Gi", "107374182400m"),
        ("1023Ki", "1023Ki"),
        ("1024Gi", "1Ti"),
        ("0.5Ki", "512"),
        ("0.3Ki", "307200m"),
        ("0Gi", "0"),
        ("0", "0"),
        ("0.5", "500m"),
        ("1000m", "1"),
        ("1500m", "1500m"),
        ("100000u", "100m"),
        ("1024", "1024"),
        ("1000", "1k"),
        ("1e3", "1e3"),
        ("1e4", "10e3"),
        ("1e2", "100"),
        ("1e-3", "1e-3"),
        ("1e18", "1e18"),
        ("12345678k", "12345678k"),
    ],
)
def test_the_canonical_form_is_the_servers(text, canonical):
    assert Quantity(text).canonical() == canonical


def test_nothing_is_smaller_than_a_nano():
    assert Quantity("1e-12").canonical() == "1n"


@given(
    st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**12), max_value=10**12),
    st.sampled_from(["", "m", "k", "M", "G", "Ki", "Mi", "Gi", "e3", "e-3"]),
)
def test_the_canonical_form_means_the_same_and_is_stable(number, suffix):
    quantity = Quantity(f"{number}{suffix}")
    again = Quantity(quantity.canonical())
    assert again == quantity
    assert again.canonical() == quantity.canonical()
