from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mockpay.types import CURRENCY_EXPONENTS, MAX_MAJOR_UNITS, Amount, Currency, Money, parse_uuid, rfc3339

currencies = st.sampled_from(sorted(CURRENCY_EXPONENTS)).map(Currency)


@given(currencies, st.data())
def test_money_survives_the_way_out_and_back(currency: Currency, data: st.DataObject) -> None:
    units = data.draw(st.integers(1, MAX_MAJOR_UNITS * 10**currency.exponent))
    money = Money(units, currency)
    text = f"{money.major_units():f}"
    assert Money.of(Amount.parse(text), currency) == money
    assert "E" not in text
    assert not ("." in text and text.endswith("0"))


@given(currencies, st.decimals(min_value="0.0001", max_value=MAX_MAJOR_UNITS, places=4))
def test_money_is_exact_or_refused(currency: Currency, value: Decimal) -> None:
    scaled = value * 10**currency.exponent
    if scaled == int(scaled):
        assert Money.of(Amount.parse(value), currency).minor_units == scaled
    else:
        with pytest.raises(ValueError, match="too many decimals"):
            Money.of(Amount.parse(value), currency)


@given(st.one_of(st.integers(), st.decimals(), st.text(), st.booleans(), st.none(), st.floats()))
def test_an_amount_is_a_sane_number_or_a_value_error(raw: object) -> None:
    try:
        amount = Amount.parse(raw)
    except ValueError:
        return
    assert 0 < amount <= MAX_MAJOR_UNITS


@pytest.mark.parametrize(("raw", "text"), [("50.00", "50"), (50, "50"), (Decimal("5E+1"), "50"), ("0050.10", "50.1")])
def test_equal_amounts_are_one_value(raw: object, text: str) -> None:
    assert f"{Amount.parse(raw):f}" == text


@pytest.mark.parametrize(("code", "exponent"), [("USD", 2), ("jpy", 0), ("Kwd", 3), ("CLF", 4), ("XAU", 0)])
def test_exponents(code: str, exponent: int) -> None:
    currency = Currency.parse(code)
    assert (currency, currency.exponent) == (code.upper(), exponent)


@given(st.text(max_size=4))
def test_a_currency_is_iso_4217_or_a_value_error(text: str) -> None:
    if text.upper() in CURRENCY_EXPONENTS and text.isascii():
        assert Currency.parse(text) == text.upper()
    else:
        with pytest.raises(ValueError, match="ISO 4217"):
            Currency.parse(text)


@given(
    st.datetimes(
        timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]), min_value=datetime(1970, 1, 2)
    )
)
def test_times_keep_their_microseconds_and_their_order(moment: datetime) -> None:
    text = rfc3339(moment)
    assert datetime.fromisoformat(text) == moment
    assert len(text) == 27


@given(st.uuids())
def test_uuids(value: object) -> None:
    assert parse_uuid(str(value)) == value
    for wrong in (str(value).replace("-", ""), f"{{{value}}}", f"urn:uuid:{value}", f"{value} "):
        with pytest.raises(ValueError, match="must be a UUID"):
            parse_uuid(wrong)
