"""Shipped studies: `tuner run NAME` finds them from anywhere."""
