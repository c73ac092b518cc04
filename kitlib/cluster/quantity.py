"""Quantities of resources: `100m`, `1Gi`, `2`, `1e3`.

Stands for `resource.Quantity` of apimachinery. The official client's `parse_quantity` is not used: importing it loads
the whole client (45 MB) into every kubelet, and it accepts what Kubernetes refuses (`1Ki5`, `NaN`, `m`).
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Context, Decimal
from functools import lru_cache
from typing import Any

BAD_FORMAT = r"quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
BAD_SUFFIX = "unable to parse quantity's suffix"

_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_QUANTITY = re.compile(r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))([eEinumkKMGTP]*[-+]?[0-9]*)", re.ASCII)
_EXPONENT = re.compile(r"[eE]([-+]?[0-9]{1,3})", re.ASCII)
_NANO = Decimal("1e-9")
_MAX = Decimal(2**63 - 1)
_EXACT = Context(prec=1400)
_LONGEST = 64


def _bounded(value: Decimal) -> Decimal:
    """Round up to the nearest nano and cap at the largest int64, as Kubernetes does."""
    value = max(-_MAX, min(_MAX, value))
    return value if value == value.to_integral_value() else value.quantize(_NANO, ROUND_CEILING, _EXACT)


@lru_cache(maxsize=4096)
def _parse(text: str) -> tuple[Decimal, str]:
    match = _QUANTITY.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        raise ValueError(BAD_FORMAT)
    number, suffix = Decimal(match[1]), match[2]
    if suffix in _DECIMAL:
        return _bounded(number.scaleb(_DECIMAL[suffix], _EXACT)), "decimal"
    if suffix in _BINARY:
        return _bounded(_EXACT.multiply(number, Decimal(1 << _BINARY[suffix]))), "binary"
    exponent = _EXPONENT.fullmatch(suffix)
    if exponent is None:
        raise ValueError(BAD_SUFFIX)
    return _bounded(number.scaleb(int(exponent[1]), _EXACT)), "exponent"


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float, Decimal)):
        raise ValueError(BAD_FORMAT)
    return value.strip() if isinstance(value, str) else str(value)


def parse(value: Any) -> Decimal:
    """Return a quantity as an exact number.

    Args:
        value: Such as `"100m"`, `"1Gi"`, `2`, `"1e3"`.

    Returns:
        The number, such as `Decimal("0.1")`.

    Raises:
        ValueError: Bad syntax, in Kubernetes' words.
    """
    return _parse(_text(value))[0]


def _with_suffix(value: Decimal, bases: list[tuple[str, Decimal]]) -> str:
    for suffix, base in bases:
        scaled = _EXACT.divide(value, base)
        if scaled == scaled.to_integral_value():
            return f"{int(scaled)}{suffix}"
    return f"{int(value)}"


_DECIMAL_BASES = [(suffix, Decimal(1).scaleb(power)) for suffix, power in reversed(_DECIMAL.items())]
_EXPONENT_BASES = [(f"e{power}" if power else "", Decimal(1).scaleb(power)) for power in range(18, -12, -3)]
_BINARY_BASES = [(suffix, Decimal(1 << power)) for suffix, power in reversed(_BINARY.items())] + [("", Decimal(1))]


def to_string(value: Decimal, form: str = "decimal") -> str:
    """Return the canonical text of a number: the largest suffix that leaves a whole number.

    Args:
        value: The number.
        form: `decimal` (`m`, `k`, `M`...), `binary` (`Ki`, `Mi`...) or `exponent` (`e3`).

    Returns:
        Such as `1500m` or `2Gi`.
    """
    value = _bounded(value)
    if value == 0:
        return "0"
    if form == "binary" and abs(value) >= 1024:
        return _with_suffix(value.to_integral_value(ROUND_CEILING), _BINARY_BASES)
    return _with_suffix(value, _EXPONENT_BASES if form == "exponent" else _DECIMAL_BASES)


@lru_cache(maxsize=4096)
def _canonical(text: str) -> str:
    value, form = _parse(text)
    return to_string(value, form)


def canonical(value: Any) -> str:
    """Return the form in which the API server stores a quantity: `1000m` as `1`, `1024Mi` as `1Gi`.

    Raises:
        ValueError: Bad syntax, in Kubernetes' words.
    """
    return _canonical(_text(value))
