"""Faults on demand: what goes wrong between a checkout and its gateway, brought about by the client itself."""
