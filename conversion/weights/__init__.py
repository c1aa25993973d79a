"""A checkpoint's variables -> the bundle's: read, matched one to one, copied."""
