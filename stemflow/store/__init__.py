"""Stores: they execute decisions all or nothing, lease what is ready, and think about nothing."""
