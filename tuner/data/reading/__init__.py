"""Files as they lie on disk: finding, reading, and telling what is wrong with them."""
