"""Quantities, as `resource.Quantity` parses and prints them."""

from decimal import Decimal

import pytest

from kitlib.cluster import quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("100m", "0.1"),
        ("1Gi", 2**30),
        (2, 2),
        ("1e3", 1000),
        ("1E", 10**18),
        ("1E3", 1000),
        (".5", "0.5"),
        ("5.", 5),
        ("-1.5Ki", -1536),
        ("+1k", 1000),
        ("1.1", "1.1"),
        ("0", 0),
        ("1n", "0.000000001"),
        (0.25, "0.25"),
        ("9e99", 2**63 - 1),
        ("0.1n", "0.000000001"),
        ("1e-3", "0.001"),
    ],
)
def test_parse(text, value):
    assert quantity.parse(text) == Decimal(value)


@pytest.mark.parametrize(
    "text", ["", "x", "1x", "m", "1ki", "1 Gi", "1KI", "NaN", "1e", "1e1234", "--1", True, None, {}, "1" * 99, "٣"]
)
def test_bad_syntax_is_a_value_error(text):
    with pytest.raises(ValueError):
        quantity.parse(text)


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("1000m", "1"),
        ("0.5", "500m"),
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("1000Ki", "1000Ki"),
        ("0.5Ki", "512"),
        ("1000", "1k"),
        ("1e3", "1e3"),
        ("10e3", "10e3"),
        ("1", "1"),
        (1, "1"),
        ("0", "0"),
        ("0Gi", "0"),
        ("100000000", "100M"),
        ("1.0001m", "1000100n"),
        ("12e-3", "12e-3"),
        ("-2000m", "-2"),
        ("1E", "1E"),
        ("1023.5", "1023500m"),
    ],
)
def test_canonical(text, stored):
    assert quantity.canonical(text) == stored
