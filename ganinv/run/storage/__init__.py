"""Where runs are kept when that is no folder of this machine."""
