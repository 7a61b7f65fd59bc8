"""What the framework hands to routes by name."""

from litestar.di import NamedDependency

from mockpay.context import Context

ContextDependency = NamedDependency[Context]
