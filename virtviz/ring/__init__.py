"""Virtqueues as bytes: where the fields lie, and what the driver's and the device's side do with them."""
