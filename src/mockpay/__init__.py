"""MockPay: a payment gateway simulator that gives developers complete control over failure."""

__version__ = "0.1.0"
