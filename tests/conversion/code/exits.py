"""A script that ends the process when it is imported."""

import sys

sys.exit("usage: exits.py --data_dir DIR")
